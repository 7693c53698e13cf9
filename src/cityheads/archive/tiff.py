"""Where a TIFF keeps its blocks: enough of the format to know which bytes a window needs.

TIFF 6.0 (Adobe 1992) and BigTIFF (AWare Systems 2007); tag numbers are theirs. GDAL decodes the pixels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Layout", "Level", "parse"]

_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SUBFILE, _WIDTH, _HEIGHT, _ROWS_PER_STRIP = 254, 256, 257, 278
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 322, 323, 324, 325

#: Bounds on what a file may claim about itself: the directories of a 36000 px WorldCover tile take 20 kB.
_MAX_DIRECTORIES = 64
_MAX_ENTRIES = 1024
_MAX_VALUE_BYTES = 32 * 2**20

#: GDAL's COGs keep each block's size in four bytes before it, and repeat its last four bytes after it.
_LEADER_BYTES = 4


@dataclass(frozen=True)
class Level:
    """One image of a file: the full one, or an overview.

    Attributes:
        width: Columns.
        height: Rows.
        block_width: Columns of a block.
        block_height: Rows of a block.
        offsets: First byte per block, row by row; 0 for a block that was never written.
        counts: Bytes per block.
    """

    width: int
    height: int
    block_width: int
    block_height: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    def spans(self, left: float, top: float, right: float, bottom: float, size: int) -> list[tuple[int, int]]:
        """Give the byte spans of the blocks that a pixel range touches, in a file of ``size`` bytes."""
        across = -(-self.width // self.block_width)
        found = []
        for row in range(int(top // self.block_height), math.ceil(min(bottom, self.height) / self.block_height)):
            for column in range(int(left // self.block_width), math.ceil(min(right, self.width) / self.block_width)):
                index = row * across + column
                start, count = self.offsets[index], self.counts[index]
                if count:
                    stop = start + count
                    # the leader and the trailer, unless that is past the end of a file without them
                    found.append((max(0, start - _LEADER_BYTES), max(stop, min(stop + _LEADER_BYTES, size))))
        return found


@dataclass(frozen=True)
class Layout:
    """The images of a file, the full one first, then the overviews from fine to coarse.

    Attributes:
        levels: The images.
        driver: GDAL's driver that decodes them.
    """

    levels: tuple[Level, ...]
    driver: str = "GTiff"

    @property
    def end(self) -> int:
        """The byte after the last block."""
        return max(
            (start + count for level in self.levels for start, count in zip(level.offsets, level.counts, strict=True)),
            default=0,
        )

    def level_for(self, shrink: float) -> int:
        """Pick the coarsest image that is no coarser than a read that shrinks so much."""
        best = 0
        for index, level in enumerate(self.levels):
            if self.levels[0].width / level.width <= shrink * 1.01:
                best = index
        return best


def parse(read: Callable[[int, int], bytes]) -> Layout:
    """Read the directories of a TIFF.

    Args:
        read: Gives the bytes from a first to before a last; shorter where the file ends.

    Raises:
        ValueError: No TIFF, or one that is broken or beyond bounds.
    """
    try:
        return _parse(read)
    except (IndexError, struct.error) as error:
        raise ValueError(f"its directories are broken ({error})") from None


def _parse(read: Callable[[int, int], bytes]) -> Layout:
    header = read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None or len(header) < 16:
        raise ValueError("it is not a TIFF")
    magic = struct.unpack(order + "H", header[2:4])[0]
    if magic not in (42, 43):
        raise ValueError("it is not a TIFF")
    big = magic == 43
    at = struct.unpack(order + "Q", header[8:16])[0] if big else struct.unpack(order + "I", header[4:8])[0]
    levels: list[Level] = []
    seen: set[int] = set()
    while at:
        if at in seen or len(seen) >= _MAX_DIRECTORIES:
            raise ValueError("its directories run in a circle or are too many")
        seen.add(at)
        tags, at = _directory(read, order, big, at)
        level = _level(tags)
        if level is not None:
            levels.append(level)
    if not levels:
        raise ValueError("it holds no image")
    return Layout((levels[0], *sorted(levels[1:], key=lambda level: -level.width)))


def _directory(
    read: Callable[[int, int], bytes], order: str, big: bool, at: int
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read one directory: its numeric tags, and where the next one is."""
    count_bytes, entry_bytes, word, inline = (8, 20, "Q", 8) if big else (2, 12, "I", 4)
    count = struct.unpack(order + ("Q" if big else "H"), _exactly(read, at, count_bytes))[0]
    if count > _MAX_ENTRIES:
        raise ValueError("a directory has too many entries")
    body = _exactly(read, at + count_bytes, count * entry_bytes + inline)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        entry = body[index * entry_bytes : (index + 1) * entry_bytes]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        number = struct.unpack(order + word, entry[4 : 4 + inline])[0]
        length = _TYPES.get(kind, 1) * number
        if length > _MAX_VALUE_BYTES:
            raise ValueError(f"its tag {tag} is too large")
        value = entry[4 + inline :]
        if length > inline:
            # also the values that are not looked at here, since GDAL will
            value = _exactly(read, struct.unpack(order + word, value)[0], length)
        if kind in _LETTERS:
            tags[tag] = struct.unpack(f"{order}{number}{_LETTERS[kind]}", value[:length])
    return tags, struct.unpack(order + word, body[count * entry_bytes :])[0]


def _exactly(read: Callable[[int, int], bytes], start: int, length: int) -> bytes:
    found = read(start, start + length)
    if len(found) != length:
        raise ValueError(f"it ends within its directories, at byte {start + len(found)}")
    return found


def _level(tags: dict[int, tuple[int, ...]]) -> Level | None:
    """Make a level of a directory; None for a mask."""
    if tags.get(_SUBFILE, (0,))[0] & 4:
        return None
    try:
        width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
        if _TILE_OFFSETS in tags or _TILE_WIDTH in tags:
            block_width, block_height = tags[_TILE_WIDTH][0], tags[_TILE_HEIGHT][0]
            offsets, counts = (
                tags.get(_TILE_OFFSETS, tags.get(_STRIP_OFFSETS)),
                tags.get(_TILE_COUNTS, tags.get(_STRIP_COUNTS)),
            )
        else:
            block_width, block_height = width, min(tags.get(_ROWS_PER_STRIP, (height,))[0], height)
            offsets, counts = tags[_STRIP_OFFSETS], tags[_STRIP_COUNTS]
    except KeyError as error:
        raise ValueError(f"a directory lacks tag {error}") from None
    if not (width and height and block_width and block_height) or offsets is None or counts is None:
        raise ValueError("a directory describes no image")
    blocks = -(-width // block_width) * -(-height // block_height)
    if len(offsets) != len(counts) or len(offsets) < blocks:
        raise ValueError("a directory lacks blocks")
    return Level(width, height, block_width, block_height, offsets, counts)
