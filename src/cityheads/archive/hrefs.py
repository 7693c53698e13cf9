"""Paths and URLs of catalogues and assets, none of them trusted: resolved, bounded to their folder, free of secrets."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub

__all__ = [
    "base_of",
    "is_remote",
    "locate",
    "resolve_link",
    "s3_to_https",
    "stored_document",
    "stored_href",
]

_SCHEMES = ("http", "https", "s3")

#: Query parameters that make a URL a secret: Azure's shared access signatures, AWS's presigned URLs, plain tokens.
_SECRET = re.compile(r"^(sig|se|sp|sv|sr|st|ske|sks|skt|skv|skoid|sktid|x-amz-.*|awsaccesskeyid|signature|.*token.*|"
                     r"api[-_]?key|key)$", re.IGNORECASE)  # fmt: skip


def is_remote(href: str) -> bool:
    """Tell whether an href has a scheme that goes over the network."""
    return urlsplit(href).scheme.lower() in _SCHEMES


def base_of(catalog: str, asset_base: str | None) -> str:
    """Give the folder or URL that relative hrefs of a frozen scene choice start from."""
    if asset_base is not None:
        return asset_base.rstrip("/") or "/"
    return posixpath.dirname(scrub(catalog)) if is_remote(catalog) else str(Path(catalog).parent)


def resolve_link(document: str, href: str, root: str) -> str:
    """Resolve a link of a catalogue document.

    Args:
        document: Path or URL of the document that holds the link.
        href: The link.
        root: Folder or URL of the catalogue; a local link must stay inside it.

    Raises:
        CityHeadsError: The scheme is not allowed, or the link leaves the catalogue's folder.
    """
    if is_remote(document):
        target = urljoin(document, href)
        if urlsplit(target).scheme.lower() not in ("http", "https"):
            raise CityHeadsError(f"{scrub(document)}: link '{scrub(href)}' has a scheme that is not allowed")
        return target
    if urlsplit(href).scheme.lower() in ("http", "https"):
        return href
    return _inside(root, str(Path(document).parent), href, f"{document}: link '{href}'")


def stored_href(document: str, href: str, *, root: str, asset_base: str | None, signed: bool, where: str) -> str:
    """Check an asset's href and give it the form in which scene choices keep it.

    Args:
        document: Path or URL of the item.
        href: The href as the item has it.
        root: Folder or URL of the catalogue.
        asset_base: Folder or URL that relative hrefs start from instead of the item.
        signed: Whether reading signs hrefs; then signatures in the catalogue are dropped, else they are refused.
        where: Names item and asset, for messages.

    Returns:
        A URL without secrets, or a path relative to the catalogue's folder (or ``asset_base``).

    Raises:
        CityHeadsError: A scheme that is not allowed, a path that leaves the folder, a URL that holds a secret.
    """
    scheme = urlsplit(href).scheme.lower()
    if "\0" in href or href.startswith("/vsi"):
        raise CityHeadsError(f"{where}: href is not a plain path or URL")
    if not scheme and asset_base is not None and is_remote(asset_base):
        href, scheme = urljoin(asset_base.rstrip("/") + "/", href), "https"
    elif not scheme and asset_base is None and is_remote(document):
        href, scheme = urljoin(document, href), "https"
    if scheme:
        return _clean_url(href, signed, where)
    base = base_of(root if root.endswith(".json") else posixpath.join(root, "catalog.json"), asset_base)
    start = base if asset_base is not None else str(Path(document).parent)
    return _relative(base, _inside(base, start, href, where))


def stored_document(document: str, root: str) -> str:
    """Give the place of an item's document: its URL without secrets, or its path relative to the catalogue's folder."""
    return scrub(document) if is_remote(document) else _relative(root, os.path.normpath(Path.cwd() / document))


def locate(href: str, base: str, where: str) -> str:
    """Give the URL or path of a stored href, refusing what `stored_href` would refuse.

    Args:
        href: As a frozen scene choice has it.
        base: What `base_of` gives.
        where: Names item and asset, for messages.
    """
    scheme = urlsplit(href).scheme.lower()
    if scheme:
        return _clean_url(href, False, where)
    if is_remote(base):
        return _clean_url(urljoin(base.rstrip("/") + "/", href), False, where)
    return _inside(base, base, href, where)


def s3_to_https(url: str) -> str:
    """Give the HTTPS address of an object in an S3 bucket: in ``AWS_REGION``, if set, or at ``AWS_ENDPOINT_URL_S3``."""
    parts = urlsplit(url)
    if parts.scheme.lower() != "s3":
        return url
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{parts.netloc}{parts.path}"
    # a signature holds for one host: Amazon's general one would redirect to that of the region
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return f"https://{parts.netloc}.s3.{f'{region}.' if region else ''}amazonaws.com{parts.path}"


def _clean_url(href: str, signed: bool, where: str) -> str:
    parts = urlsplit(href)
    if parts.scheme.lower() not in _SCHEMES or not parts.hostname:
        raise CityHeadsError(
            f"{where}: href scheme '{parts.scheme}' is not allowed; allowed are {', '.join(_SCHEMES)} and paths inside "
            "the catalogue's folder"
        )
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in query if not _SECRET.match(key)]
    if parts.username is not None or (len(kept) != len(query) and not signed):
        raise CityHeadsError(
            f"{where}: the href {scrub(href)} carries credentials, which must not be written down; use unsigned hrefs "
            "and the config key 'archive.sign'"
        )
    return urlunsplit((parts.scheme.lower(), parts.netloc, parts.path, urlencode(kept), ""))


def _inside(base: str, start: str, href: str, where: str) -> str:
    """Join and normalise without following links, and refuse to leave ``base``; the user's own links still work."""
    if urlsplit(href).scheme:
        raise CityHeadsError(f"{where}: scheme '{urlsplit(href).scheme}' is not allowed")
    # normalised as text: resolving links would take a folder that the user linked into place for an escape
    target = os.path.normpath(Path.cwd() / start / href)
    folder = os.path.normpath(Path.cwd() / base)
    if target != folder and not target.startswith(folder.rstrip("/") + "/"):
        raise CityHeadsError(f"{where}: the path leaves the folder {base}; see the config key 'archive.asset_base'")
    return target


def _relative(base: str, target: str) -> str:
    return Path(target).relative_to(os.path.normpath(Path.cwd() / base)).as_posix()
