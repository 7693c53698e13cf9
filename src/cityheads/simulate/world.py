"""The simulated ground truth of one place: terrain, ground cover, buildings, and what of them fills each pixel.

Ground cover is drawn on 5 m cells from smooth random fields, buildings on 2.5 m cells from their polygons. All sensors
and the land-cover map look at this one world.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from cityheads.simulate.buildings import STYLES, Buildings, Neighbourhood, nearest, neighbourhoods, put_up
from cityheads.simulate.fields import box_mean, hash_uniform, name_key, noise, rng_for
from cityheads.simulate.plan import Place, Plan, sun_position
from cityheads.simulate.spectra import GROUND, ROOFS, WORLDCOVER_CODE

__all__ = ["World", "make_world", "shift"]

_CODE = {name: code for code, name in enumerate(GROUND)}

#: How much of the place is built up, how green it is and whether it has fields, per part of the city.
_CHARACTER: dict[str, tuple[float, float, float]] = {
    "core": (1.7, -1.0, 0.0),
    "rows": (1.2, -0.45, 0.0),
    "port": (1.0, -0.4, 0.0),
    "suburb": (0.5, 0.1, 0.5),
    "wild": (-0.45, 0.5, 1.0),
}

#: Level of rivers; lower ones are the sea, which no road crosses.
_RIVER_BED = -0.15

Field = Callable[..., NDArray[np.float32]]

#: Look direction of the radar, clockwise from north: right-looking on headings of about -12 and 192 degrees.
LOOK_DEG = {"ascending": 78.0, "descending": 282.0}


@dataclass(frozen=True)
class World:
    """One place's world; arrays of 10 m cells unless said otherwise.

    Attributes:
        ground: (10, H, W) share of each kind of ground, buildings taken off; with ``roofs`` it sums to 1.
        roofs: (5, H, W) share of each kind of roof.
        brightness: (H, W) mean factor on the roofs' reflectance, 1 without roofs.
        shadow: (H, W) share in the shadow of buildings at the hour of the satellite.
        elevation: (H, W) surface height in metres, parts of buildings and trees included, 0 over water.
        cover: (2 H, 2 W) uint8 WorldCover code on 5 m cells.
        bounce: per orbit direction (H, W) linear power that walls send back by double bounce in VV.
        clutter: (H, W) standard normal, the fixed part of the radar texture.
        texture: (2, H, W) standard normal, the fixed part of the optical texture.
        dryness: (H, W) share of dry matter in grass, 0 to 1.
        turbidity: (H, W) factor on the reflectance of water.
        buildings: The buildings that stand.
        listed: The buildings that stand and those that are gone, as the city's table has them before its own errors.
        light_roofs: (H, W) 1 where the district has light roofs and dark yards, else 0.
        moisture: (H, W) how wet and rough the ground is that the radar sees: 1 farmed, -1 planted, 0 other districts.
    """

    ground: NDArray[np.float32]
    roofs: NDArray[np.float32]
    brightness: NDArray[np.float32]
    shadow: NDArray[np.float32]
    elevation: NDArray[np.float32]
    cover: NDArray[np.uint8]
    bounce: dict[str, NDArray[np.float32]]
    clutter: NDArray[np.float32]
    texture: NDArray[np.float32]
    dryness: NDArray[np.float32]
    turbidity: NDArray[np.float32]
    buildings: Buildings
    listed: Buildings
    light_roofs: NDArray[np.float32]
    moisture: NDArray[np.float32]


def make_world(plan: Plan, place: Place, demolished_fraction: float = 0.0) -> World:
    """Make the world of one place.

    Args:
        plan: The plan.
        place: The place.
        demolished_fraction: Share of the buildings that are gone and still in the city's table.
    """
    frame = place.frame
    x, y = frame.centres(5)

    def field(name: str, wavelength_m: float, octaves: int = 1) -> NDArray[np.float32]:
        return noise(plan.seed, f"{frame.epsg}/{name}", x, y, wavelength_m * plan.scale, octaves)

    found = neighbourhoods(plan, frame)
    altitude = _altitude(plan, place, x, y, field)
    kinds, number, block = _ground(plan, place, found, x, y, altitude, field)
    listed = put_up(plan, place, found, np.where(block, number + np.uint16(1), np.uint16(0)))
    gone = hash_uniform(name_key(plan.seed, "demolished"), listed.uid.astype(np.int64)) < demolished_fraction
    buildings = listed.take(~gone)

    # buildings on 2.5 m cells, as their number plus one
    height, width = frame.shape(2.5)
    identity = np.zeros((height, width), np.int32)
    if len(buildings.uid):
        from rasterio.features import rasterize

        rasterize(
            ((shape, index) for index, shape in enumerate(buildings.geometry, start=1)),
            out=identity,
            transform=Affine(2.5, 0, frame.left, 0, -2.5, frame.top),
        )
    tall = np.concatenate([np.zeros(1, np.float32), buildings.height_m])[identity]
    roofed5 = _aggregate((identity > 0).astype(np.float32), 2)
    height5 = tall.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))

    ground, roofs, brightness = _shares(kinds, identity, buildings)
    shadow = _aggregate(_shadows(height5, *sun_position(plan.target, place.lonlat[1])), 2)
    water10 = ground[_CODE["water"]]
    canopy = 9 * ground[_CODE["tree"]] + 2 * ground[_CODE["shrub"]]
    surface = _aggregate(altitude[1], 2) + 0.3 * box_mean(_aggregate(height5 * roofed5, 2) + canopy, 2)
    surface = np.where(water10 > 0.5, np.float32(0), surface).astype(np.float32)
    rough = noise(plan.seed, f"{frame.epsg}/rough", *frame.centres(10), 60, 2)
    surface = np.where(surface > 0, np.maximum(surface + 1.2 * rough, 0.1), 0).astype(np.float32)

    rng = rng_for(plan.seed, "world", place.name)
    shape = frame.shape(10)
    texture = rng.standard_normal((2, *shape), dtype=np.float32)
    return World(
        ground,
        roofs,
        brightness,
        np.asarray(shadow * (1 - 0.7 * roofs.sum(axis=0))),
        surface,
        _cover(kinds, roofed5),
        {orbit: _bounce(height5, roofed5, number, found, LOOK_DEG[orbit]) for orbit in LOOK_DEG},
        rng.standard_normal(shape, dtype=np.float32),
        texture,
        np.clip(0.3 + 0.22 * _aggregate(field("dry", 500, 3), 2), 0, 1),
        np.clip(1 + 0.28 * _aggregate(field("turbid", 1200, 2), 2), 0.4, 2),
        buildings,
        listed,
        np.array([one.light_roofs for one in found])[number[::2, ::2]].astype(np.float32),
        np.array([_MOISTURE[one.land] for one in found])[number[::2, ::2]].astype(np.float32),
    )


def _aggregate(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Average over blocks of cells."""
    height, width = array.shape
    blocks = array.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _blend(
    plan: Plan,
    place: Place,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    values: Callable[[Place], float | NDArray[np.float32]],
    elsewhere: float,
) -> NDArray[np.float32]:
    """Blend what each place wants of its own ground into one field that is the same in every frame.

    Args:
        plan: The plan.
        place: Place whose frame is filled.
        x: (W,) eastings.
        y: (H,) northings.
        values: What a place wants: a number, or an (H, W) array on these coordinates.
        elsewhere: Value far from all places.
    """
    faint = np.float32(1e-6)
    total, weights = np.full((len(y), len(x)), faint * elsewhere, np.float32), np.full((len(y), len(x)), faint)
    for other in plan.places:
        if other.frame.epsg != place.frame.epsg:
            continue
        (cx, cy), half = other.centre, other.half_m
        fade = 0.3 * half
        wx = np.clip((half + fade - np.abs(x - cx)) / fade, 0, 1).astype(np.float32)
        wy = np.clip((half + fade - np.abs(y - cy)) / fade, 0, 1).astype(np.float32)
        if wx.any() and wy.any():
            weight = wy[:, None] * wx[None, :]
            total += weight * values(other)
            weights += weight
    return total / weights


def _altitude(
    plan: Plan, place: Place, x: NDArray[np.float64], y: NDArray[np.float64], field: Field
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the level that decides between land (above 0) and water, and the height of the land in metres."""

    def shore(other: Place) -> float | NDArray[np.float32]:
        if other.coast is None:
            return 1.5
        direction, water = other.coast
        (cx, cy), half = other.centre, other.half_m
        plane = ((x - cx) / half * math.cos(direction))[None, :] + ((y - cy) / half * math.sin(direction))[:, None]
        return np.asarray(1.5 * (plane + 1 - 2 * water), np.float32)

    level = 0.42 * field("relief", 2400, 4) + _blend(plan, place, x, y, shore, 1.5)
    # a river runs where a field changes sign, and fades out into springs
    river = _from_line(field("river", 3600, 3)) / (28 + 22 * np.clip(field("flow", 4000), -1.27, 1.5)) / plan.scale
    level = np.where(level > 0.05, np.minimum(level, np.maximum((river - 1) * 0.6, _RIVER_BED)), level)
    level = np.where((level > 0.1) & (field("pond", 620, 2) > 2.15), np.float32(-0.1), level).astype(np.float32)
    hills = 4 + 14 * np.maximum(0, 1 + field("hills", 1500, 3))
    height = (1 - np.exp(-5 * np.maximum(level, 0))) * hills + 0.3
    return level, np.where(level > 0, height, 0).astype(np.float32)


def _from_line(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the distance in metres, about, from the line on which a field on 5 m cells changes sign."""
    down, right = np.gradient(field, np.float32(5))
    return np.abs(field) / np.maximum(np.hypot(down, right), np.float32(1e-5))


def _ground(
    plan: Plan,
    place: Place,
    found: list[Neighbourhood],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    altitude: tuple[NDArray[np.float32], NDArray[np.float32]],
    field: Field,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.bool_]]:
    """Give the kind of ground per 5 m cell, the neighbourhood's number, and where blocks to build on are."""
    level = altitude[0]
    character = [
        _blend(plan, place, x, y, lambda other, k=k: _CHARACTER[other.kind][k], (0.0, 0.2, 0.5)[k])  # type: ignore[misc]
        for k in range(3)
    ]
    trees, moist, soil = field("trees", 300, 3), field("moist", 420, 2), field("soil", 430, 3)
    park = field("park", 950, 3)

    # nature first: woods, meadows, thickets between and besides them, fields
    wood = trees + 0.35 * park
    kinds = np.where(wood > 0.15, np.uint8(_CODE["tree"]), np.uint8(_CODE["grass"]))
    kinds[(np.abs(wood - 0.15) < 0.22) & (moist > -0.2)] = _CODE["shrub"]
    kinds[(soil > 0.75) & (wood < 0.6)] = _CODE["bare"]

    # the city, with its parks left out
    built = (character[0] + 0.65 * field("urban", 1500, 3) > 0) & (park + character[1] < 0.75) & (level > 0.1)
    number_coarse = nearest(found, x[::2][None, :] + 2.5, y[::2][:, None] - 2.5)
    number = np.repeat(np.repeat(number_coarse, 2, axis=0), 2, axis=1)
    for k in np.unique(number[~built]).tolist():
        if found[k].land != "nature":
            rows, cols = np.nonzero(~built & (number == k))
            kinds[rows, cols] = _managed(plan, place, found[k], x[cols], y[rows])
    yard = field("yard", 60 / plan.scale, 2) + 0.45 * trees
    street = np.zeros_like(built)
    for k in np.unique(number[built]).tolist():
        one, style = found[k], STYLES[found[k].style]
        cos, sin = math.cos(one.angle), math.sin(one.angle)
        rows, cols = np.nonzero(built & (number == k))
        u = (x[cols] - one.x) * cos + (y[rows] - one.y) * sin
        v = (y[rows] - one.y) * cos - (x[cols] - one.x) * sin
        road = (u % style.pitch[0] < style.street[0]) | (v % style.pitch[1] < style.street[1])
        # light roofs go with dark yards, and with fewer trees
        green = yard[rows, cols] - np.float32(0.3 if one.light_roofs else -0.3)
        open_ground = _CODE["street"] if one.light_roofs else _CODE["paved"]
        lot = np.where(green > style.green[0], _CODE["tree"],
                       np.where(green > style.green[1], _CODE["grass"], open_ground))  # fmt: skip
        # trees line the streets where the yards are green
        lined = road & (green > style.green[0] + 0.7)
        kinds[rows, cols] = np.where(lined, _CODE["tree"], np.where(road, _CODE["street"], lot))
        street[rows, cols] = road
    block = built & ~street

    # bare ground: building sites and fill anywhere on land, beaches at the water
    bare = built & (soil > 1.5) & (level > 0.05) & ~street
    kinds[bare] = _CODE["bare"]
    block &= ~bare
    shore = (level > 0) & (level <= 0.1)
    kinds[shore & ~built] = np.where(
        moist > 0.25, _CODE["wetland"], np.where(soil > -0.3, _CODE["sand"], _CODE["grass"])
    )[shore & ~built]
    marsh = (level > 0.1) & (level < 0.4) & (moist > 0.5) & ~built
    kinds[marsh] = _CODE["wetland"]
    highway = (_from_line(field("highway", 5200, 2)) < 17) & (level >= _RIVER_BED)
    kinds[highway] = _CODE["street"]
    block &= ~highway
    kinds[(level <= 0) & ~highway] = _CODE["water"]
    return kinds, number, block


#: Size of a parcel or stand, in metres, along and across the neighbourhood's grid, and the share of the parcels up to
#: and with each kind. Fields are small and nearly square, stands are felled and planted in strips.
_PARCELS: dict[str, tuple[tuple[float, float], tuple[tuple[str, float], ...]]] = {
    "farm": ((110.0, 85.0), (("lush", 0.27), ("crop", 0.57), ("stubble", 0.75), ("fallow", 1.0))),
    "forestry": ((560.0, 80.0), (("tree", 0.40), ("young", 0.72), ("felled", 1.0))),
}


def _managed(
    plan: Plan, place: Place, one: Neighbourhood, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Give the kind of ground of farmed or planted land at points: what grows there differs from parcel to parcel."""
    (long, wide), kinds = _PARCELS[one.land]
    cos, sin = math.cos(one.angle), math.sin(one.angle)
    u, v = (x - one.x) * cos + (y - one.y) * sin, (y - one.y) * cos - (x - one.x) * sin
    across = np.floor(v / (wide * plan.scale)).astype(np.int64)
    # each row of parcels is shifted against the next one
    key = name_key(plan.seed, "parcel", str(place.frame.epsg), str(one.cell))
    along = np.floor(u / (long * plan.scale) + hash_uniform(key, across, 1)).astype(np.int64)
    draw = hash_uniform(key, along, across, 0)
    names, shares = zip(*kinds, strict=True)
    codes = np.array([_CODE[name] for name in names], np.uint8)
    return np.asarray(codes[np.searchsorted(shares, draw, side="right").clip(0, len(codes) - 1)])


#: What the radar's mean level tells of a district: irrigated fields are wet and rough, planted stands are drained.
_MOISTURE = {"nature": 0.0, "farm": 1.0, "forestry": -1.0}


def _shares(
    kinds: NDArray[np.uint8], identity: NDArray[np.int32], buildings: Buildings
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Give the share of each kind of ground and roof, and the mean brightness of the roofs, per 10 m cell."""
    height, width = kinds.shape[0] // 2, kinds.shape[1] // 2
    cells = height * width
    cell = (np.arange(kinds.shape[0])[:, None] // 2) * width + np.arange(kinds.shape[1])[None, :] // 2
    counts = np.bincount((cell + kinds * np.int64(cells)).ravel(), minlength=len(GROUND) * cells)
    ground = (counts.reshape(len(GROUND), height, width) / 4).astype(np.float32)
    row, col = np.nonzero(identity)
    who = identity[row, col] - 1
    cell = (row // 4) * width + col // 4
    counts = np.bincount(cell + buildings.roof[who].astype(np.int64) * cells, minlength=len(ROOFS) * cells)
    roofs = (counts.reshape(len(ROOFS), height, width) / 16).astype(np.float32)
    bright = np.bincount(cell, weights=buildings.brightness[who], minlength=cells).reshape(height, width)
    share = roofs.sum(axis=0)
    brightness = np.where(share > 0, bright / 16 / np.maximum(share, 1e-6), 1).astype(np.float32)
    return np.asarray(ground * (1 - share)), roofs, brightness


def _shadows(height5: NDArray[np.float32], azimuth: float, zenith: float) -> NDArray[np.float32]:
    """Cast the buildings' shadows away from the sun, on 5 m cells.

    Args:
        height5: (H, W) height of buildings in metres, 0 elsewhere.
        azimuth: Of the sun, radians clockwise from north.
        zenith: Of the sun, radians.
    """
    shaded = np.zeros(height5.shape, np.float32)
    slope = math.tan(zenith)
    for step in range(1, int(min(height5.max() * slope, 250) / 5) + 1):
        # a cell lies in the shadow of what stands this many cells towards the sun and is tall enough
        d_row, d_col = round(-step * math.cos(azimuth)), round(step * math.sin(azimuth))
        shaded = np.maximum(shaded, shift(height5, d_row, d_col) * slope >= step * 5)
    return shaded * (height5 < 6)


def shift(array: NDArray[Any], d_row: int, d_col: int) -> NDArray[Any]:
    """Give at each cell the value that lies ``d_row`` rows down and ``d_col`` columns right; 0 beyond the edge."""
    height, width = array.shape
    moved = np.zeros_like(array)
    if abs(d_row) < height and abs(d_col) < width:
        moved[max(0, -d_row) : height - max(0, d_row), max(0, -d_col) : width - max(0, d_col)] = array[
            max(0, d_row) : height - max(0, -d_row), max(0, d_col) : width - max(0, -d_col)
        ]
    return moved


def _bounce(
    height5: NDArray[np.float32],
    roofed5: NDArray[np.float32],
    number: NDArray[np.uint16],
    found: list[Neighbourhood],
    look_deg: float,
) -> NDArray[np.float32]:
    """Give the linear power that walls facing the radar send back, per 10 m cell.

    A wall and the ground before it form a corner that returns most when the wall lies along the flight path and falls
    off within some ten degrees (Ferro et al. 2011, "On the relationship between double bounce and the orientation of
    buildings in VHR SAR images", IEEE GRSL 8, 612-616); the return grows with the wall's height.
    """
    look = math.radians(look_deg)
    d_row, d_col = round(math.cos(look)), round(-math.sin(look))
    # a roofed cell whose neighbour towards the radar is open ground carries a wall
    wall = (roofed5 > 0.5) & (shift(roofed5, d_row, d_col) <= 0.5)
    gain = []
    for one in found:
        turn = (math.pi / 2 - look - one.angle) % (math.pi / 2)
        turn = min(turn, math.pi / 2 - turn)
        gain.append(0.35 + 0.65 * math.exp(-((turn / math.radians(15)) ** 2)))
    power = wall * np.asarray(gain, np.float32)[number] * (np.minimum(height5, 60) / 10) ** np.float32(0.7)
    return np.float32(0.6) * _aggregate(power.astype(np.float32), 2)


def _cover(kinds: NDArray[np.uint8], roofed5: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give the WorldCover code per 5 m cell: the kind that fills most of the surroundings.

    The product calls a place built-up rather than green where both mix, so built cells weigh more.
    """
    code = WORLDCOVER_CODE[kinds]
    code[roofed5 > 0.5] = 50
    best = np.zeros(code.shape, np.float32)
    cover = code.copy()
    for value in sorted(set(WORLDCOVER_CODE.tolist())):
        here = (code == value).astype(np.float32)
        if here.any():
            weight = box_mean(here, 2) * np.float32(1.35 if value == 50 else 1)
            closer = weight > best
            cover[closer] = value
            best = np.maximum(best, weight)
    return cover
