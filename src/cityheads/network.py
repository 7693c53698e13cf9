"""Everything that leaves the process: hrefs, documents and rasters, local or remote, none of them trusted."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from cityheads.errors import CityHeadsError

__all__ = [
    "base_of",
    "is_remote",
    "load_json",
    "locate",
    "open_raster",
    "resolve_link",
    "scrub",
    "stored_href",
]

_SCHEMES = ("http", "https", "s3")

#: Largest JSON document that is read; Planetary Computer's collection documents are about 50 kB.
_MAX_JSON_BYTES = 64 * 2**20

#: Query parameters that make a URL a secret: Azure's shared access signatures, AWS's presigned URLs, plain tokens.
_SECRET = re.compile(r"^(sig|se|sp|sv|sr|st|ske|sks|skt|skv|skoid|sktid|x-amz-.*|awsaccesskeyid|signature|.*token.*|"
                     r"api[-_]?key|key)$", re.IGNORECASE)  # fmt: skip

_URL = re.compile(r"((?:https?|s3)://)(?:[^\s/@\"'<>]*@)?([^\s?#\"'<>]+)(?:[?#][^\s\"'<>]*)?", re.IGNORECASE)

_GDAL = {
    # no listing of the folder and no guesses at side files: ten failing requests less per remote raster
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GDAL_NUM_THREADS": "1",
}


def is_remote(href: str) -> bool:
    """Tell whether an href has a scheme that goes over the network."""
    return urlsplit(href).scheme.lower() in _SCHEMES


def scrub(text: str) -> str:
    """Take user names and queries, where signatures live, out of every URL in a text."""
    return _URL.sub(r"\1\2", text)


def base_of(catalog: str, asset_base: str | None) -> str:
    """Give the folder or URL that relative hrefs of a frozen scene choice start from."""
    if asset_base is not None:
        return asset_base.rstrip("/") or "/"
    return posixpath.dirname(catalog) if is_remote(catalog) else str(Path(catalog).parent)


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


def load_json(location: str) -> dict[str, Any]:
    """Read a JSON object from a path or URL.

    Raises:
        CityHeadsError: Not there, not readable, too large, or no JSON object.
    """
    if is_remote(location):
        content = _fetch(location)
    else:
        try:
            with Path(location).open("rb") as stream:
                content = stream.read(_MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise CityHeadsError(f"{location}: no such catalogue file; see the config key 'archive.catalog'") from None
        except OSError as error:
            raise CityHeadsError(f"{location}: cannot be read ({error.strerror})") from None
    if len(content) > _MAX_JSON_BYTES:
        raise CityHeadsError(f"{scrub(location)}: larger than {_MAX_JSON_BYTES >> 20} MiB; not a catalogue document")
    try:
        loaded = json.loads(content)
    except ValueError as error:
        raise CityHeadsError(f"{scrub(location)}: not valid JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise CityHeadsError(f"{scrub(location)}: not a STAC document")
    return loaded


def _fetch(url: str) -> bytes:
    import urllib3

    try:
        response = urllib3.request("GET", url, retries=3, timeout=30)
    except urllib3.exceptions.HTTPError as error:
        raise CityHeadsError(f"{scrub(url)}: cannot be fetched ({scrub(str(error))})") from None
    if response.status != 200:
        raise CityHeadsError(f"{scrub(url)}: the server answers {response.status}")
    return response.data


def sign(url: str, how: str) -> str:
    """Sign a URL at the moment of reading (`archive.sign`)."""
    if how == "none" or not is_remote(url):
        return url
    import planetary_computer

    signed: str = planetary_computer.sign_url(url)
    return signed


def _check_whole(source: Any, size: int) -> None:
    """Refuse a file that ends before its last block: what a broken-off copy leaves, even where the header is fine."""
    rows, columns = source.block_shapes[0]
    last = 0
    for row in range(-(-source.height // rows)):
        for column in range(-(-source.width // columns)):
            offset = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1)
            if offset is not None:  # a block that was never written has none, and reads as nodata
                length = source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1)
                last = max(last, int(offset) + int(length or 0))
    if last > size:
        raise OSError(f"it has {size} bytes and its blocks reach to {last}")


@contextmanager
def open_raster(href: str, base: str, *, archive: Mapping[str, Any], where: str) -> Iterator[Any]:
    """Open a raster of a frozen scene choice; what goes wrong while it is open is told with item and asset.

    Args:
        href: As the scene choice has it.
        base: What `base_of` gives.
        archive: The config's ``archive`` section.
        where: Names item and asset, for messages.

    Raises:
        CityHeadsError: The raster cannot be opened or read.
    """
    import rasterio
    from rasterio.errors import RasterioError

    location = locate(href, base, where)
    size = None
    if is_remote(location):
        location = sign(location, archive["sign"])
    elif not Path(location).exists():
        raise CityHeadsError(f"{where}: {href}: no such file")
    else:
        size = Path(location).stat().st_size
    with rasterio.Env(**_GDAL):
        try:
            # other drivers could make the file's content name further files
            with rasterio.open(location, driver="GTiff") as source:
                if size is not None:
                    _check_whole(source, size)
                yield source
        except (RasterioError, OSError) as error:
            cause = scrub(str(error.__cause__ or error)).replace(location, Path(href).name)
            raise CityHeadsError(
                f"{where}: {scrub(href)} cannot be read ({cause}); the file is truncated or damaged, fetch it again"
            ) from None
        except CityHeadsError as error:
            raise CityHeadsError(f"{where}: {scrub(href)}: {error}") from None
