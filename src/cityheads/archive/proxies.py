"""Proxies as the environment names them: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, in upper or lower case."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from cityheads.archive.addresses import kind_of
from cityheads.core.errors import CityHeadsError

__all__ = ["credentials", "proxy_for", "shown"]


def proxy_for(url: str) -> str | None:
    """Give the URL of the proxy through which a URL is asked for, with its credentials; None for none.

    This machine itself is never asked through a proxy, which would ask another machine. NO_PROXY lists host names
    (their subdomains count), addresses, networks such as 10.0.0.0/8, or ``*``.

    Raises:
        CityHeadsError: The variable names a proxy of another kind.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    found = getproxies_environment()
    proxy = found.get(parts.scheme.lower()) or found.get("all")
    if not proxy or _is_this_machine(host) or _bypassed(host, parts.port, found.get("no", "")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = urlsplit(proxy).scheme.lower()
    if scheme not in ("http", "https") or not urlsplit(proxy).hostname:
        raise CityHeadsError(
            f"environment variable {parts.scheme.upper()}_PROXY or ALL_PROXY: '{shown(proxy)}' is no http(s) proxy; "
            "write http://HOST:PORT"
        )
    return proxy


def shown(proxy: str) -> str:
    """Give a proxy as a message may show it: without user and password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def credentials(proxy: str) -> str | None:
    """Give ``user:password`` of a proxy's URL, decoded; None where it has none."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return kind_of(host) == "loopback"
    except ValueError:
        return False


def _bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Tell whether NO_PROXY lists a host: by name, domain, address or network, with or without a port."""
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if "/" in entry:
            if _in_network(host, entry):
                return True
            continue
        # an address of IPv6 has colons of its own
        name, _, wanted = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.lstrip("*").lstrip(".")
        if wanted and wanted != str(port):
            continue
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
