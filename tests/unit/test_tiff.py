"""Where blocks lie, against what GDAL says; and broken files, which must be refused and nothing worse."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

from cityheads.archive.tiff import Layout, parse


def parse_bytes(content: bytes) -> Layout:
    return parse(lambda start, stop: content[start:stop])


def write(path: Path, shape: tuple[int, int] = (300, 220), overviews: bool = False, **how: Any) -> bytes:
    pixels = np.random.default_rng(1).integers(1, 60000, shape).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="uint16", **how
    ) as made:
        made.write(pixels, 1)
    if overviews:
        with rasterio.open(path, "r+") as made:
            made.build_overviews([2, 4], Resampling.nearest)
    return path.read_bytes()


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 32, "compress": "deflate"}


@pytest.mark.parametrize(
    "how",
    [
        TILED,
        {**TILED, "BIGTIFF": "YES"},
        {**TILED, "ENDIANNESS": "BIG"},
        {**TILED, "BIGTIFF": "YES", "ENDIANNESS": "BIG"},
        {"compress": "deflate", "blockysize": 7},
        {},
        {**TILED, "overviews": True},
        {**TILED, "sparse_ok": True, "shape": (65, 65)},
    ],
)
def test_blocks_lie_where_gdal_says(tmp_path: Path, how: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    content = write(path, **how)
    layout = parse_bytes(content)
    with rasterio.open(path) as source:
        factors = source.overviews(1)
        assert len(layout.levels) == 1 + len(factors)
        for index, level in enumerate(layout.levels):
            down = 1 if index == 0 else factors[index - 1]
            assert (level.height, level.width) == (-(-source.height // down), -(-source.width // down))
            if index == 0:
                assert (level.block_height, level.block_width) == source.block_shapes[0]
            across = -(-level.width // level.block_width)
            for number, (offset, count) in enumerate(zip(level.offsets, level.counts, strict=True)):
                name = f"{number % across}_{number // across}"
                overview = None if index == 0 else index - 1
                assert int(source.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", bidx=1, ovr=overview)) == offset
                assert int(source.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", bidx=1, ovr=overview)) == count
    assert layout.end <= len(content)
    assert layout.level_for(1.0) == 0
    assert layout.level_for(2.0) == (1 if factors else 0)
    assert layout.level_for(3.9) == (1 if factors else 0)
    assert layout.level_for(100) == len(factors)


def test_spans_are_those_of_the_touched_blocks(tmp_path: Path) -> None:
    content = write(tmp_path / "a.tif", **TILED)
    level = parse_bytes(content).levels[0]
    found = level.spans(60, 33, 130, 64, len(content))
    expected = [level.offsets[1 * 4 + column] for column in (0, 1, 2)]
    assert [start + 4 for start, _ in found] == expected
    assert all(stop - start - 8 == level.counts[4 + index] for index, (start, stop) in enumerate(found))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    content = bytearray(_tiny(tmp_path_factory))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        layout = parse_bytes(bytes(content))
    except ValueError:
        return
    assert layout.levels


_cache: list[bytes] = []


def _tiny(factory: pytest.TempPathFactory) -> bytes:
    if not _cache:
        _cache.append(write(factory.mktemp("tiff") / "a.tif", (40, 40), tiled=True, blockxsize=16, blockysize=16)[:600])
    return _cache[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a TIFF"),
        (b"<VRTDataset></VRTDataset>", "not a TIFF"),
        (struct.pack("<2sHI", b"II", 42, 8) + bytes(8) + bytes(40), "no image|describes no image|lacks"),
        (struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<H", 60000), "too many entries"),
        (struct.pack("<2sHI", b"II", 42, 1000) + bytes(8), "ends within its directories"),
        # one empty directory that is its own successor
        (struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<HI", 0, 16), "circle|lacks tag"),
        # a tag that claims four gigabytes
        (struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<HHHIII", 1, 324, 4, 2**30, 0, 0), "too large"),
    ],
)
def test_what_a_file_claims_is_bounded(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_bytes(content)
