"""JPEG 2000: the tiles of a window are all that is fetched, and broken files are refused and nothing worse."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from made_archive import EPSG, LEFT, PX, TOP, complete, read_config, select_config, sheet
from rasterio.env import Env
from rasterio.windows import Window

from cityheads.archive import raster
from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.jp2 import is_jp2, parse
from cityheads.archive.read.parent import read_parent
from cityheads.core.errors import CityHeadsError

with Env() as _gdal:
    pytestmark = pytest.mark.skipif(
        "JP2OpenJPEG" not in _gdal.drivers(), reason="this GDAL has no driver for JPEG 2000 (JP2OpenJPEG)"
    )


def write(path: Path, pixels: np.ndarray, block: int = 64) -> bytes:
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=1, height=pixels.shape[0], width=pixels.shape[1], dtype="uint16",
        crs=f"EPSG:{EPSG}", transform=rasterio.transform.from_origin(LEFT, TOP, 10, 10),
        tiled=True, blockxsize=block, blockysize=block, QUALITY="100", REVERSIBLE="YES",
    ) as made:  # fmt: skip
        made.write(pixels, 1)
    return path.read_bytes()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(1100, 4000, (300, 220)).astype(np.uint16)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, noise: np.ndarray) -> bytes:
    return write(tmp_path_factory.mktemp("jp2") / "a.jp2", noise)


def test_a_window_is_decoded_from_its_tiles_and_the_headers_alone(
    tmp_path: Path, content: bytes, noise: np.ndarray
) -> None:
    sparse = bytearray(len(content))

    def read(start: int, stop: int) -> bytes:
        sparse[start:stop] = content[start:stop]
        return content[start:stop]

    assert is_jp2(read(0, 12))
    level = parse(read).levels[0]
    assert (level.width, level.height, level.block_width, level.block_height) == (220, 300, 64, 64)
    window = Window(70, 100, 50, 25)
    for start, stop in level.spans(70, 100, 120, 125, len(content)):
        read(start, stop)
    assert sparse.count(0) > len(content) / 2, "of 20 tiles one is there"
    path = tmp_path / "sparse.jp2"
    path.write_bytes(sparse)
    with rasterio.open(path, driver="JP2OpenJPEG") as source:
        assert np.array_equal(source.read(1, window=window), noise[100:125, 70:120])


class _Remote:
    """What `cityheads.archive.ranges.RangeFile` is, over bytes: a sparse file of the spans that were asked for."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self._content, self.size = str(path), content, len(content)
        path.write_bytes(bytes(self.size))

    def read(self, start: int, stop: int) -> bytes:
        self.fetch([(start, min(stop, self.size))])
        return self._content[start:stop]

    def fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        with Path(self.path).open("r+b") as sparse:
            for start, stop in spans:
                sparse.seek(start)
                sparse.write(self._content[start:stop])

    def close(self) -> None:
        pass


def test_a_remote_file_costs_the_tiles_of_its_window(tmp_path: Path, content: bytes, noise: np.ndarray) -> None:
    def reopen() -> Any:
        file = _Remote(tmp_path / "sparse.jp2", content)
        return file, raster._layout(file.read)

    opened = raster.Raster("item X", "a.jp2", "a.jp2", reopen)
    window = Window(60, 0, 10, 64)
    assert opened.crs.to_epsg() == EPSG
    assert opened.cost(window) < 0.2 * len(content), "two of 20 tiles"
    assert np.array_equal(opened.read(1, window=window), noise[:64, 60:70])
    opened.close()


def test_an_archive_of_jpeg_2000_is_read_as_one_of_geotiffs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = complete(tmp_path)
    parents, scenes = sheet(tmp_path), tmp_path / "P1.json"

    def read(out: Path) -> np.ndarray:
        select_scenes(select_config(), parents=parents, parent="P1", catalog=str(archive.write()), out=scenes)
        read_parent(read_config(), parents=parents, parent="P1", scenes=scenes, out=out)
        with rasterio.open(out / "S2L2A.tif") as source:
            found: np.ndarray = source.read()
            return found

    before = read(tmp_path / "tiff")
    with rasterio.open(tmp_path / "assets" / "S2_A" / "B02.tif") as source:
        write(tmp_path / "assets" / "S2_A" / "B02.jp2", source.read(1))
    archive.items["sentinel-2-l2a"][0]["assets"]["B02"]["href"] = "../../assets/S2_A/B02.jp2"
    after = read(tmp_path / "jp2")
    assert after.shape == (12, PX, PX)
    assert np.array_equal(after, before)
    path = tmp_path / "assets" / "S2_A" / "B02.jp2"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CityHeadsError, match=r"band B02: .*B02\.jp2 cannot be read"):
        read(tmp_path / "jp2")


def test_a_gdal_without_the_driver_is_told_in_one_line(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jp2").write_bytes(content)
    monkeypatch.setattr("rasterio.env.Env.drivers", lambda self: {"GTiff": "GeoTIFF"})
    with pytest.raises(CityHeadsError, match=r"item X: a\.jp2: it is JPEG 2000, and this GDAL has no driver") as told:
        raster.open_once("a.jp2", str(tmp_path), archive=select_config().archive, where="item X")
    assert "\n" not in str(told.value)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_broken_files_are_refused_and_nothing_worse(content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 8))):
        if broken:
            broken[data.draw(st.integers(0, min(len(broken), 3000) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse(lambda start, stop: bytes(broken[start:stop]))
    except ValueError:
        return
    assert len(found.levels[0].offsets) == len(found.levels[0].counts)
