"""The built city: neighbourhoods, their street grids, and building polygons that stand in the blocks.

Neighbourhoods are the cells of a jittered lattice (a Voronoi diagram); each has a street grid of its own angle and a
style of building. Sizes follow what New York's footprints show: 80 m by 270 m blocks in Manhattan, perimeter blocks
with courtyards, detached houses with garages further out, halls of up to 100 m at the port.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
        roofs: Shares of the kinds of roof, in the order of `spectra.ROOFS`.
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
    roofs: tuple[float, float, float, float, float]


STYLES: dict[str, Style] = {
    "core": Style((262, 80), (24, 18), (26, 74), (0.72, 0.97), (0.0, 0.8), 0.5, 0.95, (26, 0.6), 0.0, (1.7, 1.3),
                  (0.42, 0.30, 0.16, 0.08, 0.04)),
    "rows": Style((205, 82), (18, 15), (27, 64), (0.45, 0.70), (0.0, 1.0), 2.5, 0.94, (11, 0.25), 0.0, (1.0, 0.35),
                  (0.52, 0.20, 0.14, 0.04, 0.10)),
    "towers": Style((240, 150), (22, 18), (44, 76), (0.28, 0.46), (6, 14), 9.0, 0.8, (42, 0.35), 0.0, (0.9, -0.2),
                    (0.36, 0.40, 0.18, 0.03, 0.03)),
    "suburb": Style((215, 92), (13, 12), (30, 52), (0.36, 0.52), (3.5, 8), 7.0, 0.88, (7.5, 0.15), 0.18, (0.55, -0.7),
                    (0.46, 0.12, 0.07, 0.07, 0.28)),
    "halls": Style((260, 170), (22, 20), (45, 118), (0.52, 0.9), (4, 12), 6.0, 0.78, (9.5, 0.25), 0.0, (2.0, 1.5),
                   (0.22, 0.24, 0.32, 0.20, 0.02)),
    "empty": Style((300, 220), (20, 16), (60, 90), (0.4, 0.5), (5, 8), 9.0, 0.0, (8, 0.2), 0.0, (1.5, 0.6),
                   (1, 0, 0, 0, 0)),
}  # fmt: skip

#: Shares of the styles by part of the city.
_MIX: dict[str, tuple[tuple[str, float], ...]] = {
    "core": (("core", 0.82), ("towers", 1.0)),
    "rows": (("rows", 0.68), ("core", 0.8), ("towers", 1.0)),
    "port": (("halls", 0.62), ("rows", 1.0)),
    "suburb": (("suburb", 0.76), ("rows", 0.88), ("towers", 1.0)),
    "wild": (("empty", 1.0),),
}

#: Spacing of the neighbourhoods' lattice for parents of 2.56 km, in metres.
_SPACING_M = 1250.0


@dataclass(frozen=True)
class Neighbourhood:
    """A cell of the Voronoi diagram: its seed point, style and street grid."""

    cell: tuple[int, int]
    x: float
    y: float
    angle: float
    style: str


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
            dx, dy, turn, which = (float(hash_uniform(key, i, j, k)) for k in range(4))
            x, y = (i + 0.15 + 0.7 * dx) * spacing, (j + 0.15 + 0.7 * dy) * spacing
            # the part of the city is that of the nearest place
            kind = members[int(np.argmax(-np.abs(centres - (x, y)).max(axis=1)))].kind
            style = next(name for name, share in _MIX[kind] if which < share)
            # Manhattan's avenues run 29 degrees east of north; elsewhere each neighbourhood has its own grid
            angle = math.radians(90 - 29 + 4 * (turn - 0.5)) if style == "core" else math.pi * turn
            found.append(Neighbourhood((i, j), x, y, angle, style))
    return found


def nearest(found: Sequence[Neighbourhood], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Give the number of the nearest neighbourhood for each point of the broadcast coordinates."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    best = np.full(shape, np.inf, np.float32)
    number = np.zeros(shape, np.uint8)
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


def put_up(plan: Plan, place: Place, found: Sequence[Neighbourhood], buildable: NDArray[np.uint8]) -> Buildings:
    """Make the buildings of a place.

    Args:
        plan: The plan.
        place: The place.
        found: Its neighbourhoods.
        buildable: (H, W) on the frame's 5 m cells; 1 + number of the neighbourhood where a block is, else 0.
    """
    parts = [
        _in_neighbourhood(plan, place, number, one, buildable)
        for number, one in enumerate(found)
        if STYLES[one.style].exists > 0
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


def _in_neighbourhood(
    plan: Plan, place: Place, number: int, one: Neighbourhood, buildable: NDArray[np.uint8]
) -> Buildings:
    style, frame = STYLES[one.style], place.frame
    key = name_key(plan.seed, "lot", str(frame.epsg), str(one.cell))
    cos, sin = math.cos(one.angle), math.sin(one.angle)
    # blocks whose centre lies in the frame and not farther from the seed than a cell can reach
    reach = 1.5 * _SPACING_M * plan.scale
    i = np.arange(-math.ceil(reach / style.pitch[0]), math.ceil(reach / style.pitch[0]) + 1)
    j = np.arange(-math.ceil(reach / style.pitch[1]), math.ceil(reach / style.pitch[1]) + 1)
    i, j = (part.ravel() for part in np.meshgrid(i, j))
    x, y = _to_map(one, cos, sin, (i + 0.5) * style.pitch[0], (j + 0.5) * style.pitch[1])
    west, south, east, north = frame.bounds
    slack = style.pitch[0]
    near = (x > west - slack) & (x < east + slack) & (y > south - slack) & (y < north + slack)
    i, j = i[near], j[near]

    width, depth = style.pitch[0] - style.street[0], style.pitch[1] - style.street[1]
    lot = style.lot[0] * (style.lot[1] / style.lot[0]) ** hash_uniform(key, i, j, 0)
    lots = np.maximum(1, np.round(width / lot)).astype(np.int64)
    # one entry per lot: its block, its row (0 at the lower street, 1 at the upper), its number along the row
    block = np.repeat(np.arange(len(i)), 2 * lots)
    slot = np.arange(len(block)) - np.repeat(np.cumsum(2 * lots) - 2 * lots, 2 * lots)
    row, slot = slot % 2, slot // 2
    i, j, lots = i[block], j[block], lots[block]

    def draw(attribute: int) -> NDArray[np.float64]:
        return hash_uniform(key, i, j, row, slot, attribute)

    built = draw(1) < style.exists
    i, j, row, slot, lots = (part[built] for part in (i, j, row, slot, lots))
    gap_low, gap_high = style.gap
    left = slot / lots * width + gap_low + (gap_high - gap_low) * draw(2)
    right = (slot + 1) / lots * width - gap_low - (gap_high - gap_low) * draw(3)
    deep = depth / 2 * (style.depth[0] + (style.depth[1] - style.depth[0]) * draw(4))
    front = style.setback * (0.7 + 0.6 * draw(5))
    deep = np.minimum(deep, depth / 2 - front)
    # from the block's frame to the street grid's: the upper row is the lower one, mirrored
    corner_u = i * style.pitch[0] + style.street[0]
    corner_v = j * style.pitch[1] + style.street[1]
    low_u, high_u = corner_u + left, corner_u + right
    front_v = np.where(row == 0, corner_v + front, corner_v + depth - front)
    sign = np.where(row == 0, 1.0, -1.0)

    form = draw(6)
    wide, tall = high_u - low_u, deep
    courtyard = (form < 0.16) & (wide > 30) & (tall > 20)
    angled = ~courtyard & (form < 0.42) & (wide > 9) & (tall > 7)
    garage = (draw(7) < style.garage) & (front + deep + 9 < depth / 2)
    split = ~courtyard & ~angled & ~garage & (form > 0.97) & (wide > 16)

    def ring(points: Sequence[tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]], who: NDArray[np.bool_]):  # type: ignore[no-untyped-def]
        """Turn (share of the width, share of the depth) corners into closed rings on the map, (N, K + 1, 2)."""
        u = np.stack([(low_u + share * wide)[who] for share, _ in points], axis=1)
        v = np.stack([(front_v + sign * share * tall)[who] for _, share in points], axis=1)
        x, y = _to_map(one, cos, sin, u, v)
        xy = np.stack([x, y], axis=-1)
        return shapely.linearrings(np.concatenate([xy, xy[:, :1]], axis=1))

    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    geometry = np.full(len(i), None, dtype=object)
    plain = ~courtyard & ~angled & ~split
    geometry[plain] = shapely.polygons(ring(square, plain))
    cut_u, cut_v = 0.35 + 0.35 * draw(8), 0.35 + 0.35 * draw(9)
    geometry[angled] = shapely.polygons(
        ring(((0.0, 0.0), (1.0, 0.0), (1.0, cut_v), (cut_u, cut_v), (cut_u, 1.0), (0.0, 1.0)), angled)
    )
    rim_u, rim_v = 9.0 / np.maximum(wide, 1), 7.5 / np.maximum(tall, 1)
    hole = ring(((rim_u, rim_v), (rim_u, 1 - rim_v), (1 - rim_u, 1 - rim_v), (1 - rim_u, rim_v)), courtyard)
    geometry[courtyard] = shapely.polygons(ring(square, courtyard), holes=np.asarray(hole)[:, None])
    for side in (0, 1):
        half = ((0.0, 0.0), (0.42, 0.0), (0.42, 1.0), (0.0, 1.0)) if side == 0 else (
            (0.58, 0.15), (1.0, 0.15), (1.0, 1.0), (0.58, 1.0))  # fmt: skip
        polygons = shapely.polygons(ring(half, split))
        first = polygons if side == 0 else first
    if split.any():
        pairs = np.stack([first, polygons], axis=1)
        geometry[split] = [shapely.MultiPolygon(list(pair)) for pair in pairs]

    stands = _stands(one, cos, sin, low_u, high_u, front_v, sign * tall, frame, number, buildable)
    tone, kind = draw(11), draw(12)
    roof = np.searchsorted(np.cumsum(style.roofs), kind * sum(style.roofs), side="right").clip(0, 4).astype(np.uint8)
    # the middle of the sum of three uniform numbers stands in for a normal one
    spread = (draw(13) + draw(14) + draw(15) - 1.5) * 2
    height = style.height[0] * np.exp(style.height[1] * spread)
    uid = (hash_uniform(key, i, j, row, slot, 16) * 2**53).astype(np.uint64)
    houses = Buildings(
        geometry, uid, height.astype(np.float32), roof, (0.72 + 0.56 * tone).astype(np.float32),
        np.full(len(i), number), np.zeros(len(i), bool),
    ).take(stands)  # fmt: skip

    # garages stand behind their house, in a corner of the lot
    u0 = low_u + np.where(draw(17) < 0.5, 0.0, np.maximum(wide - 6.2, 0))
    v0 = front_v + sign * (tall + 2.5)
    corners = np.stack([np.stack(_to_map(one, cos, sin, u0 + du, v0 + sign * dv), axis=-1)
                        for du, dv in ((0, 0), (6.2, 0), (6.2, 6.2), (0, 6.2), (0, 0))], axis=1)  # fmt: skip
    keep = garage & stands & _stands(one, cos, sin, u0, u0 + 6.2, v0, sign * 6.2, frame, number, buildable)
    sheds = Buildings(
        np.asarray(shapely.polygons(corners), dtype=object), (uid + np.uint64(1)),
        np.full(len(i), 3.2, np.float32), np.where(tone < 0.6, 0, 4).astype(np.uint8),
        (0.75 + 0.5 * tone).astype(np.float32), np.full(len(i), number), np.ones(len(i), bool),
    ).take(keep)  # fmt: skip
    both = {name: np.concatenate([getattr(houses, name), getattr(sheds, name)]) for name in houses.__dataclass_fields__}
    return Buildings(**both)


def _to_map(
    one: Neighbourhood, cos: float, sin: float, u: NDArray[np.float64], v: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn coordinates along the street grid into eastings and northings."""
    return one.x + u * cos - v * sin, one.y + u * sin + v * cos


def _stands(
    one: Neighbourhood,
    cos: float,
    sin: float,
    low_u: NDArray[np.float64],
    high_u: NDArray[np.float64],
    v: NDArray[np.float64],
    tall: NDArray[np.float64],
    frame: Frame,
    number: int,
    buildable: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    """Tell which rectangles lie on the neighbourhood's own blocks: their middle and near their corners and sides."""
    fits = np.ones(len(v), bool)
    for share_u in (0.1, 0.5, 0.9):
        for share_v in (0.15, 0.5, 0.85):
            x, y = _to_map(one, cos, sin, low_u + share_u * (high_u - low_u), v + share_v * tall)
            col = np.floor((x - frame.left) / 5).astype(np.int64)
            row = np.floor((frame.top - y) / 5).astype(np.int64)
            inside = (col >= 0) & (row >= 0) & (col < buildable.shape[1]) & (row < buildable.shape[0])
            fits &= inside
            fits[inside] &= buildable[row[inside], col[inside]] == number + 1
    return fits
