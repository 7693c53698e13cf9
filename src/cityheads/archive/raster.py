"""Rasters of a scene choice, local or remote; a remote one is a file whose blocks for a window are fetched at once."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cityheads.archive import jp2, tiff
from cityheads.archive.addresses import Guard
from cityheads.archive.hrefs import is_remote, locate, s3_to_https
from cityheads.archive.http import ChangedError, check_online, client
from cityheads.archive.ranges import RangeFile
from cityheads.archive.signing import advice, signer
from cityheads.config import ArchiveConfig
from cityheads.core.errors import BadSceneError, CityHeadsError
from cityheads.core.redaction import scrub

__all__ = ["Raster", "named", "open_once", "open_raster"]

#: Readings of a remote raster whose bytes came but cannot be decoded, before it has failed.
_DECODE_ATTEMPTS = 3

_GDAL = {
    # no listing of the folder and no guesses at side files: ten failing requests less per remote raster
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GDAL_NUM_THREADS": "1",
}


class _PlacelessError(ValueError):
    """A raster that does not say where it lies; over the network it may be a garbled one, so it is asked for again."""

    def __init__(self, *, placed_by_points: bool) -> None:
        advice = (
            "it has ground control points instead, as a Level-1 GRD does; take a collection that is terrain corrected, "
            "such as sentinel-1-rtc"
            if placed_by_points
            else "write it into the file (gdal_edit.py -a_srs EPSG:...), or take another source"
        )
        super().__init__(f"the raster has no CRS; {advice}")


class Raster:
    """An open raster, local or remote; everything but `read`, `cost` and `close` is the rasterio dataset's own.

    Reading a window of a remote raster fetches exactly the blocks that it touches, at once, and tries again when they
    cannot be decoded.
    """

    def __init__(
        self,
        where: str,
        href: str,
        path: str,
        reopen: Callable[[], tuple[RangeFile, tiff.Layout]] | None,
        driver: str = "GTiff",
    ) -> None:
        self._where = where
        self._href = href
        self._path = path
        self._reopen = reopen
        self._driver = driver
        self._file: RangeFile | None = None
        self._layout: tiff.Layout | None = None
        self._dataset: Any = None
        self._start()

    def _start(self) -> None:
        if self._reopen is not None:
            self._file, self._layout = self._reopen()
            self._path, self._driver = self._file.path, self._layout.driver
        try:
            self._dataset = self._open(0)
            if self._dataset.crs is None:
                raise _PlacelessError(placed_by_points=bool(self._dataset.gcps[0]))
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
        return rasterio.open(self._path, driver=self._driver, **how)

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
                    if isinstance(error, ChangedError) and attempt + 1 < attempts:
                        continue
                    raise _placed(error, self._where) from None
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


def open_once(href: str, base: str, *, archive: ArchiveConfig, where: str) -> Raster:
    """Open a raster of a frozen scene choice; the caller closes it, and may do so in another thread.

    Args:
        href: As the scene choice has it.
        base: What `base_of` gives.
        archive: Whether and how the network is used.
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
                return _open_remote(location, base, archive, where)
            if not Path(location).exists():
                raise BadSceneError(f"{where}: {href}: no such file")
            with named(where, href):
                driver = _check_whole(location)
            return Raster(where, href, location, None, driver)
        except (RasterioError, OSError, ValueError) as error:
            raise _unreadable(where, href, error, location) from None


@contextmanager
def open_raster(href: str, base: str, *, archive: ArchiveConfig, where: str) -> Iterator[Raster]:
    """Open a raster of a frozen scene choice; what goes wrong while it is open is told with item and asset.

    Args and errors as `open_once`.
    """
    raster = open_once(href, base, archive=archive, where=where)
    try:
        with named(where, href):
            yield raster
    finally:
        raster.close()


@contextmanager
def named(where: str, href: str) -> Iterator[None]:
    """Add item and asset to what code says that knows the pixels but not whose they are."""
    try:
        yield
    except CityHeadsError as error:
        if str(error).startswith(where):
            raise
        raise CityHeadsError(f"{where}: {scrub(href)}: {error}") from None


def _open_remote(location: str, base: str, archive: ArchiveConfig, where: str) -> Raster:
    from rasterio.errors import RasterioError

    check_online(archive, f"{where} ({scrub(location)})")
    http = client(archive.network, Guard.of(archive, base))
    url = s3_to_https(location)
    signs = signer(archive.sign, http)

    def reopen() -> tuple[RangeFile, tiff.Layout]:
        file = RangeFile(http, url, signs, functools.partial(advice, archive.sign))
        try:
            return file, _layout(file.read)
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
            raise _placed(error, where) from None
    raise AssertionError("unreachable")


def _placed(error: CityHeadsError, where: str) -> CityHeadsError:
    """Add item and asset to what a request says; that another scene can help stays known."""
    return (BadSceneError if isinstance(error, BadSceneError) else CityHeadsError)(f"{where}: {error}")


def _layout(read: Callable[[int, int], bytes]) -> tiff.Layout:
    """Read where a raster's blocks are: a GeoTIFF's, or, where GDAL can decode it, a JPEG 2000 file's."""
    import rasterio

    if not jp2.is_jp2(read(0, 12)):
        return tiff.parse(read)
    layout = jp2.parse(read)
    with rasterio.Env() as gdal:
        if layout.driver not in gdal.drivers():
            raise CityHeadsError(
                f"it is JPEG 2000, and this GDAL has no driver {layout.driver}; install rasterio from PyPI or "
                "conda-forge, or take a catalogue of GeoTIFFs"
            )
    return layout


def _check_whole(location: str) -> str:
    """Give GDAL's driver for a file, and refuse one that ends before its last block.

    That is what a broken-off copy leaves, even where the header is fine.
    """
    size = Path(location).stat().st_size
    with Path(location).open("rb") as stream:

        def read(start: int, stop: int) -> bytes:
            stream.seek(start)
            return stream.read(stop - start)

        layout = _layout(read)
    if layout.end > size:
        raise ValueError(f"it has {size} bytes and its blocks reach to {layout.end}")
    return layout.driver


def _unreadable(where: str, href: str, error: Exception, path: str) -> CityHeadsError:
    """Say which file is damaged; what GDAL says about it stands behind the exception that rasterio raises."""
    if isinstance(error, _PlacelessError):
        return CityHeadsError(f"{where}: {scrub(href)}: {error}")
    cause = scrub(str(error.__cause__ or error)).replace(path, posixpath.basename(urlsplit(href).path))
    return BadSceneError(
        f"{where}: {scrub(href)} cannot be read ({cause}); the file is truncated or damaged, fetch it again"
    )
