"""Where a JPEG 2000 file keeps its tiles: enough of the format to know which bytes a window needs.

ISO/IEC 15444-1: boxes (annex I), codestream markers (annex A). GDAL decodes the pixels, and finds a tile by hopping
from one tile part's header to the next, so that these headers and the window's tiles are all that must be there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cityheads.archive.tiff import Layout, Level

__all__ = ["is_jp2", "parse"]

_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_START, _SIZE, _TILE_PART, _END = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\xd9"

#: Bounds on what a file may claim about itself: a Sentinel-2 band has 121 tiles.
_MAX_BOXES = 64
_MAX_MARKERS = 256
_MAX_TILE_PARTS = 2**14
_MAX_HEADER_BYTES = 2**24


def is_jp2(start: bytes) -> bool:
    """Tell from its first twelve bytes whether a file is JPEG 2000, with boxes or as a bare codestream."""
    return start.startswith(_SIGNATURE) or start.startswith(_START + _SIZE)


def parse(read: Callable[[int, int], bytes]) -> Layout:
    """Read where the tiles of a JPEG 2000 file are.

    Args:
        read: Gives the bytes from a first to before a last; shorter where the file ends.

    Raises:
        ValueError: It is none, is broken, or is beyond bounds.
    """
    try:
        return _parse(read)
    except struct.error as error:
        raise ValueError(f"its headers are broken ({error})") from None


def _parse(read: Callable[[int, int], bytes]) -> Layout:
    at = _codestream(read)
    if read(at, at + 4) != _START + _SIZE:
        raise ValueError("its codestream does not begin with its size")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack(">8I", read(at + 8, at + 40))
    if (left, top, tile_left, tile_top) != (0, 0, 0, 0) or not (width and height and tile_width and tile_height):
        raise ValueError("its image or its tiles do not begin at its corner")
    at = _first_tile_part(read, at + 2)
    if at > _MAX_HEADER_BYTES:
        raise ValueError(f"its headers are {at} bytes long")
    # GDAL reads all of it, also where it is longer than the first bytes that are fetched of any file
    read(0, at)
    count = -(-width // tile_width) * -(-height // tile_height)
    starts, stops = [0] * count, [0] * count
    for _ in range(_MAX_TILE_PARTS):
        header = read(at, at + 12)
        if header[:2] == _END or not header:
            break
        if header[:2] != _TILE_PART:
            raise ValueError(f"no tile part begins at byte {at}, where one should")
        tile, length = struct.unpack(">HI", header[4:10])
        if tile >= count or length < 14:
            raise ValueError(f"its tile part at byte {at} is of tile {tile} and {length} bytes")
        # the parts of a tile need not lie together; what lies between them is fetched with them
        starts[tile] = min(starts[tile] or at, at)
        stops[tile] = max(stops[tile], at + length)
        at += length
    else:
        raise ValueError("it has too many tile parts")
    if not all(starts):
        raise ValueError(f"{starts.count(0)} of its {count} tiles are missing")
    lengths = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    level = Level(width, height, min(tile_width, width), min(tile_height, height), tuple(starts), lengths)
    return Layout((level,), "JP2OpenJPEG")


def _codestream(read: Callable[[int, int], bytes]) -> int:
    """Find the first byte of the codestream."""
    at = 0
    if read(0, 2) == _START:
        return at
    for _ in range(_MAX_BOXES):
        header = read(at, at + 16)
        length, kind = struct.unpack(">I4s", header[:8])
        inner = 8
        if length == 1:
            length, inner = struct.unpack(">Q", header[8:16])[0], 16
        if kind == b"jp2c":
            return at + inner
        if length < inner:
            break
        at += length
    raise ValueError("it holds no codestream")


def _first_tile_part(read: Callable[[int, int], bytes], at: int) -> int:
    """Hop over the markers of the main header."""
    for _ in range(_MAX_MARKERS):
        header = read(at, at + 4)
        if header[:2] == _TILE_PART:
            return at
        at += 2 + struct.unpack(">H", header[2:4])[0]
    raise ValueError("its main header does not end")
