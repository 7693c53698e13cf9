"""Where requests may go: what a catalogue names must not reach into a network that the catalogue is no part of.

A catalogue is a document from elsewhere. Were every URL in it followed, it could have this machine ask the metadata
service of a cloud or a server behind the firewall. So a name is resolved first, and a loopback, link-local or private
address is asked only when the catalogue lies at such an address itself, or when the user named the host.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError

__all__ = ["Guard", "kind_of", "resolve"]

#: Variables by which a user names a server: the token service of Planetary Computer, an S3 endpoint.
_USERS_SERVERS = ("PC_SDK_SAS_URL", "AWS_ENDPOINT_URL_S3")


def kind_of(address: str) -> str:
    """Give what an IP address is: ``public``, ``private``, ``link-local`` or ``loopback``.

    What belongs to nobody (shared, reserved, multicast; RFC 6890) counts as private.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_unspecified:
        return "loopback"
    if found.is_link_local:
        return "link-local"
    return "public" if found.is_global and not found.is_multicast else "private"


@functools.lru_cache(maxsize=1024)
def resolve(host: str) -> tuple[str, ...]:
    """Give the addresses of a host; none where its name cannot be resolved here, as on a node that has a proxy only."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(sorted({str(entry[4][0]) for entry in found}))


@dataclass(frozen=True)
class Guard:
    """What a catalogue may send requests to besides public addresses.

    Attributes:
        kinds: Kinds of address at which the catalogue itself lies.
        hosts: Hosts that the user named, in lower case.
    """

    kinds: frozenset[str]
    hosts: frozenset[str]

    @classmethod
    def of(cls, archive: ArchiveConfig, location: str) -> Guard:
        """Give the guard of a catalogue.

        Args:
            archive: Read are the hosts that the user trusts.
            location: URL of the catalogue or of a folder in it; a path lies at no address.
        """
        named = [*archive.trusted_hosts]
        urls = [os.environ.get(variable, "") for variable in _USERS_SERVERS]
        if archive.asset_base is not None:
            urls.append(archive.asset_base)
        named += [urlsplit(url).hostname or "" for url in urls]
        host = urlsplit(location).hostname if "://" in location else None
        own = {kind_of(address) for address in resolve(host)} if host else set()
        return cls(frozenset(own - {"public"}), frozenset(name.lower() for name in named if name))

    def check(self, host: str, address: str | None = None) -> None:
        """Refuse a host that resolves to an address that the catalogue must not name.

        Args:
            host: Name or address.
            address: The address that a connection to it has, where there is one; None resolves the name.

        Raises:
            CityHeadsError: It is none of ours; the message says how to allow it.
        """
        if host.strip("[]").lower() in self.hosts:
            return
        for one in (address,) if address is not None else resolve(host):
            kind = kind_of(one)
            if kind != "public" and kind not in self.kinds:
                raise CityHeadsError(
                    f"{host} has the {kind} address {one}, to which a catalogue elsewhere must not send requests; if "
                    f"it is yours, add '{host}' to the config key 'archive.trusted_hosts'"
                )
