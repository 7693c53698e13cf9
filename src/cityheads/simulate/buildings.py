"""The built city: neighbourhoods, their street grids, and building polygons that stand in the blocks.

Neighbourhoods are the cells of a jittered lattice (a Voronoi diagram); each has a street grid of its own angle and a
style of building. Sizes follow what New York's footprints show: 80 m by 270 m blocks in Manhattan, perimeter blocks
with courtyards, detached houses with garages further out, halls of up to 100 m at the port.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cityheads.simulate.fields import hash_uniform, name_key
from cityheads.simulate.plan import Frame, Place, Plan

__all__ = ["STYLES", "Buildings", "Neighbourhood", "Style", "neighbourhoods", "put_up"]


@dataclass(frozen=True)
class Style:
    """How a neighbourhood is built; lengths in metres.

    Attributes:
        pitch: Distance from street to street along and across the long side of a block.
        street: Width of the streets that run across and along.
        lot: Least and largest width of a lot.
        depth: Least and largest share of half the block's depth that a building takes.
        gap: Least and largest distance to the side of the lot, on each side.
        setback: Distance from the street.
        exists: Share of the lots that are built on.
        height: Median height, and the standard deviation of its logarithm.
        garage: Share of the buildings with a garage behind.
        green: Share thresholds of the block's open ground, in standard deviations: above the first trees, above the
            second grass, below it pavement.
    """

    pitch: tuple[float, float]
    street: tuple[float, float]
    lot: tuple[float, float]
    depth: tuple[float, float]
    gap: tuple[float, float]
    setback: float
    exists: float
    height: tuple[float, float]
    garage: float
    green: tuple[float, float]


STYLES: dict[str, Style] = {
    "core": Style((262, 80), (24, 18), (26, 74), (0.72, 0.97), (0.0, 0.8), 0.5, 0.95, (26, 0.6), 0.0, (1.7, 1.3)),
    "rows": Style((205, 82), (18, 15), (29, 66), (0.45, 0.70), (0.0, 1.0), 2.5, 0.94, (11, 0.25), 0.0, (1.0, 0.35)),
    "towers": Style((240, 150), (22, 18), (44, 76), (0.28, 0.46), (6, 14), 9.0, 0.8, (42, 0.35), 0.0, (0.9, -0.2)),
    "suburb": Style((215, 92), (13, 12), (30, 52), (0.36, 0.52), (3.5, 8), 7.0, 0.88, (7.5, 0.15), 0.18, (0.55, -0.7)),
    "halls": Style((260, 170), (22, 20), (45, 118), (0.52, 0.9), (4, 12), 6.0, 0.78, (9.5, 0.25), 0.0, (2.0, 1.5)),
    "empty": Style((300, 220), (20, 16), (60, 90), (0.4, 0.5), (5, 8), 9.0, 0.0, (8, 0.2), 0.0, (1.5, 0.6)),
}  # fmt: skip

#: Shares of the styles by part of the city.
_MIX: dict[str, tuple[tuple[str, float], ...]] = {
    "core": (("core", 0.82), ("towers", 1.0)),
    "rows": (("rows", 0.68), ("core", 0.8), ("towers", 1.0)),
    "port": (("halls", 0.62), ("rows", 1.0)),
    "suburb": (("suburb", 0.76), ("rows", 0.88), ("towers", 1.0)),
    "wild": (("empty", 1.0),),
}

#: Use of the land that is not built up, and the share of the neighbourhoods up to and with it, by part of the city.
_LAND: dict[str, tuple[tuple[str, float], ...]] = {
    "core": (("nature", 0.5), ("forestry", 1.0)),
    **dict.fromkeys(("rows", "port", "suburb", "wild"), (("nature", 0.34), ("farm", 0.67), ("forestry", 1.0))),
}

#: Shares of the kinds of roof, in the order of `spectra.ROOFS`, where roofs are light and where they are dark.
_ROOFS = {
    True: (0.05, 0.66, 0.05, 0.18, 0.06),
    False: (0.84, 0.04, 0.02, 0.03, 0.07),
}

#: Spacing of the neighbourhoods' lattice for parents of 2.56 km, in metres.
_SPACING_M = 1500.0


@dataclass(frozen=True)
class Neighbourhood:
    """A cell of the Voronoi diagram: its seed point, style and street grid, tone of the roofs and use of the open land.

    Where roofs are light, yards are dark, and the other way round: what a light pixel is depends on the district.
    """

    cell: tuple[int, int]
    x: float
    y: float
    angle: float
    style: str
    light_roofs: bool
    land: str

    def to_map(
        self, u: NDArray[np.floating], v: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turn coordinates along the street grid into eastings and northings."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.asarray(self.x + u * cos - v * sin), np.asarray(self.y + u * sin + v * cos)


def neighbourhoods(plan: Plan, frame: Frame) -> list[Neighbourhood]:
    """Give all neighbourhoods that may reach into a frame, in a fixed order."""
    spacing = _SPACING_M * plan.scale
    west, south, east, north = frame.bounds
    columns = np.arange(math.floor(west / spacing) - 2, math.floor(east / spacing) + 3)
    rows = np.arange(math.floor(south / spacing) - 2, math.floor(north / spacing) + 3)
    members = [place for place in plan.places if place.frame.epsg == frame.epsg]
    centres = np.array([place.centre for place in members])
    key = name_key(plan.seed, "neighbourhood", str(frame.epsg))
    found = []
    for j in rows.tolist():
        for i in columns.tolist():
            dx, dy, turn, which, tone, use = (float(hash_uniform(key, i, j, k)) for k in range(6))
            x, y = (i + 0.15 + 0.7 * dx) * spacing, (j + 0.15 + 0.7 * dy) * spacing
            # the part of the city is that of the nearest place
            kind = members[int(np.argmax(-np.abs(centres - (x, y)).max(axis=1)))].kind
            style = next(name for name, share in _MIX[kind] if which < share)
            # Manhattan's avenues run 29 degrees east of north; elsewhere each neighbourhood has its own grid
            angle = math.radians(90 - 29 + 4 * (turn - 0.5)) if style == "core" else math.pi * turn
            land = next(name for name, share in _LAND[kind] if use < share)
            found.append(Neighbourhood((i, j), x, y, angle, style, tone < 0.5, land))
    return found


def nearest(found: Sequence[Neighbourhood], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Give the number of the nearest neighbourhood for each point of the broadcast coordinates."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    best = np.full(shape, np.inf, np.float32)
    number = np.zeros(shape, np.uint16)
    for k, one in enumerate(found):
        square = ((x - one.x) ** 2).astype(np.float32) + ((y - one.y) ** 2).astype(np.float32)
        closer = square < best
        number[closer] = k
        np.minimum(best, square, out=best)
    return number


@dataclass(frozen=True)
class Buildings:
    """Buildings of one frame, as parallel arrays of length N.

    Attributes:
        geometry: Polygons and MultiPolygons in the frame's CRS.
        uid: A number per building that is the same whichever frame it was made for.
        height_m: Height of the roof above the ground.
        roof: Kind of roof, index into `spectra.ROOFS`.
        brightness: Factor on the roof's reflectance.
        neighbourhood: Index into the frame's neighbourhoods.
        garage: True for garages.
    """

    geometry: NDArray[np.object_]
    uid: NDArray[np.uint64]
    height_m: NDArray[np.float32]
    roof: NDArray[np.uint8]
    brightness: NDArray[np.float32]
    neighbourhood: NDArray[np.int64]
    garage: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Buildings:
        """Pick some of the buildings."""
        return Buildings(
            self.geometry[index], self.uid[index], self.height_m[index], self.roof[index], self.brightness[index],
            self.neighbourhood[index], self.garage[index],
        )  # fmt: skip


def put_up(plan: Plan, place: Place, found: Sequence[Neighbourhood], buildable: NDArray[np.uint16]) -> Buildings:
    """Make the buildings of a place.

    Args:
        plan: The plan.
        place: The place.
        found: Its neighbourhoods.
        buildable: (H, W) on the frame's 5 m cells; 1 + number of the neighbourhood where a block is, else 0.
    """
    there = set((np.unique(buildable[buildable > 0]).astype(int) - 1).tolist())
    parts = [
        _in_neighbourhood(plan, place.frame, number, one, buildable)
        for number, one in enumerate(found)
        if STYLES[one.style].exists > 0 and number in there
    ]
    parts = [part for part in parts if len(part.uid)]
    if not parts:
        none = np.zeros(0)
        return Buildings(
            none.astype(object), none.astype(np.uint64), none.astype(np.float32), none.astype(np.uint8),
            none.astype(np.float32), none.astype(np.int64), none.astype(bool),
        )  # fmt: skip
    names = ("geometry", "uid", "height_m", "roof", "brightness", "neighbourhood", "garage")
    every = Buildings(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    # the city limit runs along lots, not through houses
    edge = plan.boundaries[place.frame.epsg].boundary
    shapely.prepare(edge)
    return every.take(~shapely.intersects(edge, every.geometry))


@dataclass(frozen=True)
class _Lots:
    """Built-on lots of one neighbourhood, as arrays of length N; lengths along (u) and across (v) the street grid."""

    one: Neighbourhood
    key: int
    name: tuple[NDArray[np.int64], ...]
    low_u: NDArray[np.float64]
    wide: NDArray[np.float64]
    front_v: NDArray[np.float64]
    sign: NDArray[np.float64]
    deep: NDArray[np.float64]
    behind: NDArray[np.float64]

    def draw(self, attribute: int) -> NDArray[np.float64]:
        """Draw a uniform number per lot."""
        return hash_uniform(self.key, *self.name, attribute)

    def take(self, index: NDArray[np.bool_]) -> _Lots:
        """Pick some of the lots."""
        return _Lots(
            self.one, self.key, tuple(part[index] for part in self.name), self.low_u[index], self.wide[index],
            self.front_v[index], self.sign[index], self.deep[index], self.behind[index],
        )  # fmt: skip

    def corners(self, shares: Sequence[tuple[Any, Any]]) -> NDArray[np.float64]:
        """Give closed rings on the map, (N, K + 1, 2), of corners in shares of the building's width and depth."""
        u = np.stack([self.low_u + share * self.wide for share, _ in (*shares, shares[0])], axis=1)
        v = np.stack([self.front_v + self.sign * share * self.deep for _, share in (*shares, shares[0])], axis=1)
        return np.stack(self.one.to_map(u, v), axis=-1)


_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_GARAGE_M = 6.2


def _lots(plan: Plan, frame: Frame, number: int, one: Neighbourhood, buildable: NDArray[np.uint16]) -> _Lots:
    """Divide the blocks of a neighbourhood into lots, and keep those on which a building fits."""
    style = STYLES[one.style]
    key = name_key(plan.seed, "lot", str(frame.epsg), str(one.cell))
    # blocks whose centre lies in the frame and not farther from the seed point than a cell can reach
    reach = 1.5 * _SPACING_M * plan.scale
    across, along = (np.arange(-math.ceil(reach / pitch), math.ceil(reach / pitch) + 1) for pitch in style.pitch)
    i, j = (part.ravel() for part in np.meshgrid(across, along))
    x, y = one.to_map((i + 0.5) * style.pitch[0], (j + 0.5) * style.pitch[1])
    west, south, east, north = frame.bounds
    slack = style.pitch[0]
    near = (x > west - slack) & (x < east + slack) & (y > south - slack) & (y < north + slack)
    i, j = i[near], j[near]

    width, depth = style.pitch[0] - style.street[0], style.pitch[1] - style.street[1]
    lot = style.lot[0] * (style.lot[1] / style.lot[0]) ** hash_uniform(key, i, j, 0)
    count = np.maximum(1, np.round(width / lot)).astype(np.int64)
    # one entry per lot: its block, its row (0 at the lower street, 1 at the upper), its number along the row
    block = np.repeat(np.arange(len(i)), 2 * count)
    slot = np.arange(len(block)) - np.repeat(np.cumsum(2 * count) - 2 * count, 2 * count)
    row, slot = slot % 2, slot // 2
    i, j, count = i[block], j[block], count[block]

    def draw(attribute: int) -> NDArray[np.float64]:
        return hash_uniform(key, i, j, row, slot, attribute)

    gap_low, gap_high = style.gap
    left = slot / count * width + gap_low + (gap_high - gap_low) * draw(2)
    right = (slot + 1) / count * width - gap_low - (gap_high - gap_low) * draw(3)
    front = style.setback * (0.7 + 0.6 * draw(5))
    deep = depth / 2 * (style.depth[0] + (style.depth[1] - style.depth[0]) * draw(4))
    deep = np.minimum(deep, depth / 2 - front)
    low_u = i * style.pitch[0] + style.street[0] + left
    # the upper row is the lower one, mirrored
    corner_v = j * style.pitch[1] + style.street[1]
    front_v = np.where(row == 0, corner_v + front, corner_v + depth - front)
    lots = _Lots(
        one, key, (i, j, row, slot), low_u, right - left, front_v, np.where(row == 0, 1.0, -1.0), deep,
        depth / 2 - front - deep,
    )  # fmt: skip
    return lots.take((draw(1) < style.exists) & _stands(lots, frame, number, buildable))


def _shapes(lots: _Lots) -> NDArray[np.object_]:
    """Draw the buildings: rectangles, angles, blocks around a courtyard, and pairs of houses."""
    form, wide, deep = lots.draw(6), lots.wide, lots.deep
    courtyard = (form < 0.16) & (wide > 30) & (deep > 20)
    angled = ~courtyard & (form < 0.42) & (wide > 9) & (deep > 7)
    pair = ~courtyard & ~angled & (form > 0.97) & (wide > 16)
    geometry: NDArray[np.object_] = np.asarray(shapely.polygons(lots.corners(_SQUARE)), dtype=object)
    if angled.any():
        some = lots.take(angled)
        u, v = 0.35 + 0.35 * some.draw(8), 0.35 + 0.35 * some.draw(9)
        ring = some.corners(((0.0, 0.0), (1.0, 0.0), (1.0, v), (u, v), (u, 1.0), (0.0, 1.0)))
        geometry[angled] = shapely.polygons(ring)
    if courtyard.any():
        some = lots.take(courtyard)
        u, v = 9.0 / some.wide, 7.5 / some.deep
        holes = shapely.linearrings(some.corners(((u, v), (u, 1 - v), (1 - u, 1 - v), (1 - u, v))))
        geometry[courtyard] = shapely.polygons(
            shapely.linearrings(some.corners(_SQUARE)), holes=np.asarray(holes)[:, None]
        )
    if pair.any():
        some = lots.take(pair)
        left = some.corners(((0.0, 0.0), (0.42, 0.0), (0.42, 1.0), (0.0, 1.0)))
        right = some.corners(((0.58, 0.15), (1.0, 0.15), (1.0, 1.0), (0.58, 1.0)))
        # (N, 2) polygons, the two of a pair side by side
        polygons = shapely.polygons(np.stack([left, right], axis=1))
        geometry[pair] = shapely.multipolygons(polygons)
    return geometry


def _in_neighbourhood(
    plan: Plan, frame: Frame, number: int, one: Neighbourhood, buildable: NDArray[np.uint16]
) -> Buildings:
    """Make the buildings of one neighbourhood and their garages."""
    style = STYLES[one.style]
    lots = _lots(plan, frame, number, one, buildable)
    count, tone = len(lots.low_u), lots.draw(11)
    shares = _ROOFS[one.light_roofs]
    roof = np.searchsorted(np.cumsum(shares), lots.draw(12) * sum(shares), side="right").clip(0, 4)
    # three uniform numbers add up to a nearly normal one of unit variance, after the scaling
    spread = (lots.draw(13) + lots.draw(14) + lots.draw(15) - 1.5) * 2
    height = style.height[0] * np.exp(style.height[1] * spread)
    uid = (lots.draw(16) * 2**53).astype(np.uint64)
    houses = Buildings(
        _shapes(lots), uid, height.astype(np.float32), roof.astype(np.uint8),
        (0.72 + 0.56 * tone).astype(np.float32), np.full(count, number), np.zeros(count, bool),
    )  # fmt: skip
    # garages stand behind their house, in a corner of the lot
    corner = lots.low_u + np.where(lots.draw(17) < 0.5, 0.0, np.maximum(lots.wide - _GARAGE_M, 0))
    size = np.full(count, _GARAGE_M)
    sheds = _Lots(one, lots.key, lots.name, corner, size, lots.front_v + lots.sign * (lots.deep + 2.5), lots.sign,
                  size, lots.behind)  # fmt: skip
    keep = (lots.draw(7) < style.garage) & (lots.behind > _GARAGE_M + 3) & _stands(sheds, frame, number, buildable)
    garages = Buildings(
        np.asarray(shapely.polygons(sheds.corners(_SQUARE)), dtype=object), uid + np.uint64(1),
        np.full(count, 3.2, np.float32), np.full(count, 1 if one.light_roofs else 0, np.uint8),
        (0.75 + 0.5 * tone).astype(np.float32), np.full(count, number), np.ones(count, bool),
    ).take(keep)  # fmt: skip
    names = houses.__dataclass_fields__
    return Buildings(**{name: np.concatenate([getattr(houses, name), getattr(garages, name)]) for name in names})


def _stands(lots: _Lots, frame: Frame, number: int, buildable: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Tell which rectangles lie on the neighbourhood's own blocks: their middle and near their corners and sides."""
    fits = np.ones(len(lots.low_u), bool)
    for share_u in (0.1, 0.5, 0.9):
        for share_v in (0.15, 0.5, 0.85):
            x, y = lots.one.to_map(lots.low_u + share_u * lots.wide, lots.front_v + lots.sign * share_v * lots.deep)
            col = np.floor((x - frame.left) / 5).astype(np.int64)
            row = np.floor((frame.top - y) / 5).astype(np.int64)
            inside = (col >= 0) & (row >= 0) & (col < buildable.shape[1]) & (row < buildable.shape[0])
            fits &= inside
            fits[inside] &= buildable[row[inside], col[inside]] == number + 1
    return fits
