"""Everything that leaves the process: hrefs, documents and rasters, local or remote, none of them trusted."""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from cityheads.core.errors import CityHeadsError

if TYPE_CHECKING:
    from cityheads.archive.http import RangeFile
    from cityheads.archive.tiff import Layout

__all__ = [
    "Raster",
    "base_of",
    "check_online",
    "is_remote",
    "load_json",
    "locate",
    "named",
    "open_once",
    "open_raster",
    "resolve_link",
    "scrub",
    "stored_document",
    "stored_href",
]

_SCHEMES = ("http", "https", "s3")

#: Largest JSON document that is read; Planetary Computer's collection documents are about 50 kB.
_MAX_JSON_BYTES = 64 * 2**20

#: Query parameters that make a URL a secret: Azure's shared access signatures, AWS's presigned URLs, plain tokens.
_SECRET = re.compile(r"^(sig|se|sp|sv|sr|st|ske|sks|skt|skv|skoid|sktid|x-amz-.*|awsaccesskeyid|signature|.*token.*|"
                     r"api[-_]?key|key)$", re.IGNORECASE)  # fmt: skip

_URL = re.compile(r"((?:https?|s3)://)(?:[^\s/@\"'<>]*@)?([^\s?#\"'<>]+)(?:[?#][^\s\"'<>]*)?", re.IGNORECASE)
#: Queries also stand alone in messages of HTTP libraries ("/path?sig=...").
_QUERY = re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*")

#: Readings of a remote raster whose bytes came but cannot be decoded, before it has failed.
_DECODE_ATTEMPTS = 3

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
    return _QUERY.sub("", _URL.sub(r"\1\2", text))


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


def stored_document(document: str, root: str) -> str:
    """Give the place of an item's document: its URL without secrets, or its path relative to the catalogue's folder."""
    return scrub(document) if is_remote(document) else _relative(root, os.path.normpath(Path.cwd() / document))


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


def load_json(location: str, archive: Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON object from a path or URL.

    Raises:
        CityHeadsError: Not there, not readable, too large, or no JSON object.
    """
    if is_remote(location):
        check_online(archive, f"the catalogue {scrub(location)}")
        from cityheads.archive.http import client

        loaded = client(archive).get_json(location, limit=_MAX_JSON_BYTES, headers={"Accept": "application/json, */*"})
    else:
        try:
            with Path(location).open("rb") as stream:
                content = stream.read(_MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise CityHeadsError(f"{location}: no such catalogue file; see the config key 'archive.catalog'") from None
        except OSError as error:
            raise CityHeadsError(f"{location}: cannot be read ({error.strerror})") from None
        if len(content) > _MAX_JSON_BYTES:
            raise CityHeadsError(f"{location}: larger than {_MAX_JSON_BYTES >> 20} MiB; not a catalogue document")
        try:
            loaded = json.loads(content)
        except ValueError as error:
            raise CityHeadsError(f"{location}: not valid JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise CityHeadsError(f"{scrub(location)}: not a STAC document")
    return loaded


def check_online(archive: Mapping[str, Any], what: str) -> None:
    """Fail where the network is needed and the config forbids it.

    Raises:
        CityHeadsError: ``archive.offline`` is set; the message says what is missing.
    """
    if archive["offline"]:
        raise CityHeadsError(f"offline (config key 'archive.offline'), but {what} is not on this machine")


class Raster:
    """An open raster, local or remote; everything but `read`, `cost` and `close` is the rasterio dataset's own.

    Reading a window of a remote raster fetches exactly the blocks that it touches, at once, and tries again when they
    cannot be decoded.
    """

    def __init__(self, where: str, href: str, path: str, reopen: Callable[[], tuple[RangeFile, Layout]] | None) -> None:
        self._where = where
        self._href = href
        self._path = path
        self._reopen = reopen
        self._file: RangeFile | None = None
        self._layout: Layout | None = None
        self._dataset: Any = None
        self._start()

    def _start(self) -> None:
        if self._reopen is not None:
            self._file, self._layout = self._reopen()
            self._path = self._file.path
        try:
            self._dataset = self._open(0)
            if self._file is not None and self._dataset.crs is None:
                raise ValueError("it has no CRS")
        except BaseException:
            if self._file is not None:
                self._file.close()
            raise

    def _open(self, level: int) -> Any:
        import rasterio

        how: dict[str, Any] = {}
        if self._file is not None:
            # GDAL must not choose an overview by itself: its blocks might not be there
            how["OVERVIEW_LEVEL"] = "NONE" if level == 0 else f"{level - 1}only"
        # other drivers could make the file's content name further files
        return rasterio.open(self._path, driver="GTiff", **how)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def close(self) -> None:
        """Close it; closing twice is fine."""
        self._dataset.close()
        if self._file is not None:
            self._file.close()

    def read(self, band: int, *, window: Any = None, out_shape: tuple[int, int] | None = None, **how: Any) -> Any:
        """Read a window of one band, as rasterio's ``read`` does.

        Raises:
            CityHeadsError: It cannot be had; the message names item and asset.
        """
        import rasterio
        from rasterio.errors import RasterioError

        attempts = 1 if self._reopen is None else _DECODE_ATTEMPTS
        for attempt in range(attempts):
            with rasterio.Env(**_GDAL):
                try:
                    if attempt:
                        self.close()
                        self._start()
                    if self._file is None:
                        return self._dataset.read(band, window=window, out_shape=out_shape, **how)
                    return self._read_remote(band, window, out_shape, how)
                except CityHeadsError as error:
                    raise CityHeadsError(f"{self._where}: {error}") from None
                except (RasterioError, OSError, ValueError) as error:
                    if attempt + 1 == attempts:
                        raise _unreadable(self._where, self._href, error, self._path) from None
        raise AssertionError("unreachable")

    def _read_remote(self, band: int, window: Any, out_shape: tuple[int, int] | None, how: dict[str, Any]) -> Any:
        from rasterio.windows import Window

        assert self._file is not None
        if window is None:
            window = Window(0, 0, self.width, self.height)
        level, spans = self._blocks(window, out_shape)
        self._file.fetch(spans)
        # opened after the fetch: an earlier handle may have buffered the pages of the sparse file as they were before
        with self._open(level) as dataset:
            across, down = self.width / dataset.width, self.height / dataset.height
            inner = Window(window.col_off / across, window.row_off / down, window.width / across, window.height / down)
            return dataset.read(band, window=inner, out_shape=out_shape, **how)

    def cost(self, window: Any, out_shape: tuple[int, int] | None = None) -> int:
        """Give the bytes that reading a window will fetch; 0 for a local file."""
        if self._file is None or window is None:
            return 0
        return sum(stop - start for start, stop in self._blocks(window, out_shape)[1])

    def _blocks(self, window: Any, out_shape: tuple[int, int] | None) -> tuple[int, list[tuple[int, int]]]:
        """Give the overview to read and the byte spans of its blocks that a window touches."""
        assert self._layout is not None
        assert self._file is not None
        shrink = 1.0
        if out_shape is not None:
            shrink = min(window.width / out_shape[1], window.height / out_shape[0])
        index = self._layout.level_for(shrink)
        level = self._layout.levels[index]
        across, down = self.width / level.width, self.height / level.height
        spans = level.spans(
            window.col_off / across,
            window.row_off / down,
            (window.col_off + window.width) / across,
            (window.row_off + window.height) / down,
            self._file.size,
        )
        return index, spans


def _unreadable(where: str, href: str, error: Exception, path: str) -> CityHeadsError:
    """Say which file is damaged; what GDAL says about it stands behind the exception that rasterio raises."""
    cause = scrub(str(error.__cause__ or error)).replace(path, posixpath.basename(urlsplit(href).path))
    return CityHeadsError(
        f"{where}: {scrub(href)} cannot be read ({cause}); the file is truncated or damaged, fetch it again"
    )


def open_once(href: str, base: str, *, archive: Mapping[str, Any], where: str) -> Raster:
    """Open a raster of a frozen scene choice; the caller closes it, and may do so in another thread.

    Args:
        href: As the scene choice has it.
        base: What `base_of` gives.
        archive: The config's ``archive`` section.
        where: Names item and asset, for messages.

    Raises:
        CityHeadsError: The raster cannot be opened.
    """
    import rasterio
    from rasterio.errors import RasterioError

    location = locate(href, base, where)
    with rasterio.Env(**_GDAL):
        try:
            if is_remote(location):
                return _open_remote(location, archive, where)
            if not Path(location).exists():
                raise CityHeadsError(f"{where}: {href}: no such file")
            _check_whole(location)
            return Raster(where, href, location, None)
        except (RasterioError, OSError, ValueError) as error:
            raise _unreadable(where, href, error, location) from None


@contextmanager
def named(where: str, href: str) -> Iterator[None]:
    """Add item and asset to what code says that knows the pixels but not whose they are."""
    try:
        yield
    except CityHeadsError as error:
        if str(error).startswith(where):
            raise
        raise CityHeadsError(f"{where}: {scrub(href)}: {error}") from None


@contextmanager
def open_raster(href: str, base: str, *, archive: Mapping[str, Any], where: str) -> Iterator[Raster]:
    """Open a raster of a frozen scene choice; what goes wrong while it is open is told with item and asset.

    Args and errors as `open_once`.
    """
    raster = open_once(href, base, archive=archive, where=where)
    try:
        with named(where, href):
            yield raster
    finally:
        raster.close()


def _check_whole(location: str) -> None:
    """Refuse a file that ends before its last block: what a broken-off copy leaves, even where the header is fine."""
    from cityheads.archive.tiff import parse

    size = Path(location).stat().st_size
    with Path(location).open("rb") as stream:

        def read(start: int, stop: int) -> bytes:
            stream.seek(start)
            return stream.read(stop - start)

        end = parse(read).end
    if end > size:
        raise ValueError(f"it has {size} bytes and its blocks reach to {end}")


def _open_remote(location: str, archive: Mapping[str, Any], where: str) -> Raster:
    from rasterio.errors import RasterioError

    from cityheads.archive import http as remote
    from cityheads.archive.tiff import parse

    check_online(archive, f"{where} ({scrub(location)})")
    http = remote.client(archive)
    url = remote.s3_to_https(location)
    signer = functools.partial(remote.sign, http=http) if archive["sign"] == "planetary-computer" else None

    def reopen() -> tuple[RangeFile, Layout]:
        file = remote.RangeFile(http, url, signer)
        try:
            return file, parse(file.read)
        except BaseException:
            file.close()
            raise

    for attempt in range(_DECODE_ATTEMPTS):
        try:
            return Raster(where, location, location, reopen)
        except (RasterioError, ValueError):
            # the bytes came, and are no raster: garbled on the way, or so on the server
            if attempt + 1 == _DECODE_ATTEMPTS:
                raise
        except CityHeadsError as error:
            raise CityHeadsError(f"{where}: {error}") from None
    raise AssertionError("unreachable")
