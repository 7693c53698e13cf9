"""What each place of the simulated archive holds: its part of the city, its acquisitions, its difficulties.

The plan is made once, from the sheet and the config, before any pixel: which places lie in the dense core, where the
city limit runs, which scenes are cloudy, cut by a tile or a swath, or of an old processing baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cityheads.archive.products import OFFSET_DN
from cityheads.config import Config, OpticalConfig
from cityheads.core.grid import Grid, Parent
from cityheads.simulate.fields import rng_for

__all__ = ["Frame", "Place", "Plan", "Radar", "Scene", "make_plan", "season_greenness", "sun_position"]

#: Edge of the coarsest Sentinel-2 band, in metres: every tile's corner lies on a multiple of it.
COARSE_M = 60
#: Least distance from a parent to the edge of its rasters, in metres.
_MARGIN_M = 150
#: Day from which Level-2A digital numbers carry an offset (processing baseline 04.00).
OFFSET_DAY = date(2022, 1, 25)

#: Parts of the city from its centre outwards: name, and the share of the places up to and with it.
_KINDS = (("core", 0.14), ("rows", 0.34), ("port", 0.53), ("suburb", 0.87), ("wild", 1.0))


@dataclass(frozen=True)
class Frame:
    """A north-up square raster frame in a UTM zone, on the 60 m lattice.

    Attributes:
        epsg: UTM zone.
        left: Easting of the west edge, in metres.
        top: Northing of the north edge, in metres.
        cols: Width in 60 m cells.
        rows: Height in 60 m cells.
    """

    epsg: int
    left: float
    top: float
    cols: int
    rows: int

    def shape(self, gsd: float) -> tuple[int, int]:
        """Give (height, width) in pixels of ``gsd`` metres."""
        return round(self.rows * COARSE_M / gsd), round(self.cols * COARSE_M / gsd)

    def centres(self, gsd: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the eastings of the columns and the northings of the rows, at pixel centres."""
        height, width = self.shape(gsd)
        x = self.left + (np.arange(width, dtype=np.float64) + 0.5) * gsd
        return x, self.top - (np.arange(height, dtype=np.float64) + 0.5) * gsd

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        return self.left, self.top - self.rows * COARSE_M, self.left + self.cols * COARSE_M, self.top


@dataclass(frozen=True)
class Scene:
    """One Sentinel-2 acquisition of a place.

    Attributes:
        when: Start of the datatake, UTC.
        baseline: Processing baseline, such as ``05.10``.
        offset_dn: What was added to the digital numbers: 1000 from baseline 04.00 on, else 0.
        boa_offset_applied: Earth Search's flag, where the config keys the offset on it; else None.
        cloud_fraction: Share of the place under cloud, about.
        cloud_percent: ``eo:cloud_cover``, which speaks of a whole tile and not of this place.
        tile_edge: ``x`` or ``y`` where two tiles meet inside the parent and the scene is two items.
        swath_cut: Share of the parent that the orbit's swath does not reach.
    """

    when: datetime
    baseline: str
    offset_dn: int
    boa_offset_applied: bool | None
    cloud_fraction: float
    cloud_percent: float
    tile_edge: str | None = None
    swath_cut: float = 0.0


@dataclass(frozen=True)
class Radar:
    """One Sentinel-1 acquisition of a place.

    Attributes:
        when: Start of the slice, UTC.
        orbit: ``ascending`` or ``descending``.
        swath_cut: Share of the parent that the swath does not reach.
    """

    when: datetime
    orbit: str
    swath_cut: float = 0.0


@dataclass(frozen=True)
class Place:
    """One parent and everything the archive holds of it.

    Attributes:
        parent: Row of the sheet.
        index: Its number in the sheet.
        frame: Frame of the world model and of the Sentinel-2 rasters.
        window: West, south, east, north of the parent in the frame's CRS.
        lonlat: Centre in degrees.
        kind: Part of the city.
        coast: Direction (radians) towards the land, and share of the place under water; None inland.
        limit: Direction (radians) in which the city ends inside this place; None where it does not.
        scenes: Sentinel-2 acquisitions.
        radars: Sentinel-1 acquisitions.
    """

    parent: Parent
    index: int
    frame: Frame
    window: tuple[float, float, float, float]
    lonlat: tuple[float, float]
    kind: str
    coast: tuple[float, float] | None
    limit: float | None
    scenes: tuple[Scene, ...]
    radars: tuple[Radar, ...]

    @property
    def name(self) -> str:
        """The parent's id."""
        return self.parent.parent_id

    @property
    def centre(self) -> tuple[float, float]:
        """Easting and northing of the centre."""
        west, south, east, north = self.window
        return (west + east) / 2, (south + north) / 2

    @property
    def half_m(self) -> float:
        """Half the side of the parent."""
        return (self.window[2] - self.window[0]) / 2


@dataclass(frozen=True)
class Plan:
    """The whole archive before any pixel.

    Attributes:
        seed: Seed of the archive.
        places: One per parent.
        scale: Size of the landscape's patterns; 1 for parents of 2.56 km and more, less for smaller ones.
        boundaries: Surveyed area per UTM zone, in that zone's metres.
        target: Day around which the scenes lie.
    """

    seed: int
    places: tuple[Place, ...]
    scale: float
    boundaries: dict[int, shapely.Geometry]
    target: date


def make_plan(config: Config, parents: list[Parent]) -> Plan:
    """Decide what every place of the archive holds."""
    grid, seed = config.grid.grid, config.simulate.seed
    imagery = config.archive.imagery
    frames = [_frame(parent, grid) for parent in parents]
    rng = rng_for(seed, "plan")
    count = len(parents)
    # the distances from the middle, per zone, with a jitter, order the places from core to country
    centres = np.array([((w + e) / 2, (s + n) / 2) for _, (w, s, e, n), _ in frames])
    distance = np.zeros(count)
    for epsg in {frame.epsg for frame, _, _ in frames}:
        members = [k for k in range(count) if frames[k][0].epsg == epsg]
        distance[members] = np.hypot(*(centres[members] - centres[members].mean(axis=0)).T)
    order = np.argsort(distance * rng.uniform(0.7, 1.3, count) + rng.uniform(0, 1, count), kind="stable")
    kinds = [""] * count
    for rank, k in enumerate(order):
        kinds[k] = next(name for name, share in _KINDS if (rank + 0.5) / count <= share)
    limits = _limits(frames, kinds, centres)

    target, period = target_day(imagery.s2)
    cloudy_share = config.simulate.cloudy_fraction
    pick = {
        "cloudy": _some(rng, count, cloudy_share) if cloudy_share > 0 else set(),
        "tile_edge": _some(rng, count, 0.18),
        "old": _some(rng, count, 0.25),
        "partial": _some(rng, count, 0.1),
        "swath": _some(rng, count, 0.1),
        "swath_nearest": _some(rng, count, 0.1),
        "coast": _some(rng, count, 0.7),
    }
    places = []
    for k, parent in enumerate(parents):
        frame, window, lonlat = frames[k]
        own = rng_for(seed, "plan", parent.parent_id)
        direction, water = own.uniform(0, 2 * np.pi), own.uniform(0.05, 0.28)
        marks = {name: k in chosen for name, chosen in pick.items()}
        scenes = _scenes(imagery.s2, own, k, lonlat, target, period, marks)
        clear = next(scene for scene in scenes if scene.cloud_fraction < 0.3 and not scene.swath_cut)
        radars = _radars(clear.when, lonlat, own, k, marks) if imagery.S1RTC is not None else ()
        coast = (direction, water) if marks["coast"] else None
        places.append(Place(parent, k, frame, window, lonlat, kinds[k], coast, limits.get(k), scenes, radars))
    scale = float(np.clip(grid.side_m / 2560, 0.3, 1))
    return Plan(seed, tuple(places), scale, _boundaries(seed, places), target)


def _some(rng: np.random.Generator, count: int, share: float) -> set[int]:
    """Pick that share of the places, at least one."""
    return set(rng.permutation(count)[: min(count, max(1, round(share * count)))].tolist())


def _frame(parent: Parent, grid: Grid) -> tuple[Frame, tuple[float, float, float, float], tuple[float, float]]:
    """Give the raster frame of a parent, the parent's bounds in it, and its centre in degrees."""
    from pyproj import Transformer

    side = grid.side_m
    to_lonlat = Transformer.from_crs(parent.epsg, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(parent.left + side / 2, parent.top - side / 2)
    west, south, east, north = parent.left, parent.top - side, parent.left + side, parent.top
    epsg = parent.epsg
    if not (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760):
        # Sentinel tiles are always in UTM
        epsg = (32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1
        to_utm = Transformer.from_crs(parent.epsg, epsg, always_xy=True)
        west, south, east, north = to_utm.transform_bounds(west, south, east, north, densify_pts=21)
    left = math.floor((west - _MARGIN_M) / COARSE_M) * COARSE_M
    top = math.ceil((north + _MARGIN_M) / COARSE_M) * COARSE_M
    cols = math.ceil((east + _MARGIN_M - left) / COARSE_M)
    rows = math.ceil((top - south + _MARGIN_M) / COARSE_M)
    return Frame(epsg, float(left), float(top), cols, rows), (west, south, east, north), (lon, lat)


def target_day(s2: OpticalConfig) -> tuple[date, tuple[date, date]]:
    """Give the day around which the scenes lie, and the first and last day of the period."""
    start, end = (_day(text) for text in s2.datetime.partition("/")[::2])
    if start is None and end is None:
        start, end = date(2024, 5, 1), date(2024, 9, 30)
    elif start is None and end is not None:
        start = end - timedelta(days=150)
    elif end is None and start is not None:
        # a single day stands for itself, an open end for a season
        end = start + timedelta(days=150 if "/" in s2.datetime else 0)
    assert start is not None, "set above"
    assert end is not None, "set above"
    target = _day(s2.target_date or "") or start + (end - start) / 2
    return min(max(target, start), end), (start, end)


def _day(text: str) -> date | None:
    return None if text in ("", "..") else date.fromisoformat(text[:10])


def _baseline(day: date) -> str:
    """Give the processing baseline in force on a day (ESA, Sentinel-2 Products Specification, history of baselines)."""
    steps = (
        (date(2024, 7, 23), "05.11"), (date(2023, 12, 13), "05.10"), (date(2022, 12, 6), "05.09"),
        (OFFSET_DAY, "04.00"), (date(2021, 6, 30), "03.01"), (date(2021, 3, 30), "03.00"),
    )  # fmt: skip
    return next((name for first, name in steps if day >= first), "02.14")


def _scenes(
    s2: OpticalConfig,
    rng: np.random.Generator,
    index: int,
    lonlat: tuple[float, float],
    target: date,
    period: tuple[date, date],
    marks: dict[str, bool],
) -> tuple[Scene, ...]:
    """Draw the Sentinel-2 acquisitions of a place: a clear and a cloudy one, and for some an old and a cut one."""
    start, end = period
    most = s2.max_cloud_percent
    # passes of one relative orbit, five days apart; the cloudy one is nearer to the target day than the clear one
    clear_days, cloudy_days = ((-11, -6), (4, -1), (14, 9))[index % 3]
    shrink = min(1.0, (end - start).days / 2 / 15)

    def day(offset: int, around: date = target) -> date:
        moved = around + timedelta(days=round(offset * shrink))
        return min(max(moved, start), end) if around == target else moved

    other_year = target.replace(year=2021 if target >= OFFSET_DAY else 2024, day=min(target.day, 28))
    clear_day = day(clear_days)
    if marks["old"] and start <= other_year <= end:
        # the only clear scene of the period is of the other side of baseline 04.00
        clear_day = day(clear_days, other_year)
    draws = rng.uniform(size=6)

    def scene(on: date, cloud: float, percent: float, **more: Any) -> Scene:
        baseline = _baseline(on)
        offset, applied = (OFFSET_DN if baseline >= "04.00" else 0), None
        if s2.offset == "none":
            offset = 0
        elif s2.offset == "item":
            # Earth Search: true means that the offset has been taken off already
            applied = offset == 0 or index % 2 == 0
            offset = 0 if applied else offset
        return Scene(
            _local_time(on, lonlat[0], 10.75, seconds=19), baseline, offset, applied, cloud, round(percent, 6), **more
        )

    edge = ("x", "y")[index % 2] if marks["tile_edge"] else None
    if marks["cloudy"]:
        scenes = [scene(clear_day, 0.12 + 0.1 * draws[0], most * (0.3 + 0.4 * draws[1]), tile_edge=edge)]
    else:
        scenes = [scene(clear_day, 0.0, most * (0.01 + 0.2 * draws[1]), tile_edge=edge)]
    # every other cloudy scene passes the search by its tile's cloud cover, and only its own pixels tell
    percent = most * (0.3 + 0.65 * draws[2]) if index % 2 else min(100.0, most + (100 - most) * (0.2 + 0.7 * draws[2]))
    scenes.append(scene(day(cloudy_days), 0.45 + 0.4 * draws[3], percent))
    if marks["old"] and not start <= other_year <= end:
        scenes.append(scene(day(clear_days, other_year), 0.0, most * (0.01 + 0.2 * draws[4])))
    if marks["partial"] and shrink > 0.5:
        # clear and nearest to the target day, but the swath ends inside the parent
        scenes.append(scene(day(1), 0.0, most * 0.05 * draws[4], swath_cut=0.3 + 0.3 * draws[5]))
    return tuple(scenes)


def _radars(
    around: datetime, lonlat: tuple[float, float], rng: np.random.Generator, index: int, marks: dict[str, bool]
) -> tuple[Radar, ...]:
    """Draw the Sentinel-1 acquisitions of a place: one per orbit direction, within days of the clear scene."""
    cut = 0.16 + 0.12 * rng.uniform(size=2)
    both, nearest = marks["swath"], marks["swath_nearest"] and not marks["swath"]
    day, seconds = around.date(), 25 * index
    return (
        Radar(_local_time(day - timedelta(days=2), lonlat[0], 18.0, seconds), "ascending",
              float(cut[0]) if both or nearest else 0.0),
        Radar(_local_time(day + timedelta(days=3), lonlat[0], 6.0, seconds), "descending",
              float(cut[1]) if both else 0.0),
    )  # fmt: skip


def _local_time(day: date, lon: float, hour: float, seconds: int) -> datetime:
    """Give the UTC moment of a local mean solar hour, the same to the minute for places within a few degrees."""
    utc_minutes = round((hour - round(lon / 6) * 6 / 15) * 60)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=utc_minutes, seconds=seconds)


def sun_position(day: date, lat: float, hour: float = 10.75) -> tuple[float, float]:
    """Give the sun's azimuth (clockwise from north) and zenith in radians at a local solar hour."""
    declination = -math.radians(23.44) * math.cos(2 * math.pi * (day.timetuple().tm_yday + 10) / 365.25)
    latitude, angle = math.radians(lat), math.radians(15 * (hour - 12))
    east = -math.cos(declination) * math.sin(angle)
    north = math.sin(declination) * math.cos(latitude) - math.cos(declination) * math.cos(angle) * math.sin(latitude)
    up = math.sin(declination) * math.sin(latitude) + math.cos(declination) * math.cos(angle) * math.cos(latitude)
    # a sun below 10 degrees would shade everything; no scene is taken then
    return math.atan2(east, north) % (2 * math.pi), min(math.acos(up), math.radians(80))


def season_greenness(day: date, lat: float) -> float:
    """Give how green vegetation is, 0 to 1: a cosine of the year beyond the tropics, always green within them."""
    swing = min(1.0, max(0.0, (abs(lat) - 15) / 20))
    phase = (day.timetuple().tm_yday - 196) / 365.25 + (0.5 if lat < 0 else 0.0)
    summer = 0.5 + 0.5 * math.cos(2 * math.pi * phase)
    return 1 - swing * (1 - summer**0.6) * 0.9


def _limits(frames: list[Any], kinds: list[str], centres: NDArray[np.float64]) -> dict[int, float]:
    """Choose the places where the city ends, and in which direction: outer ones with buildings, about a quarter."""
    limits: dict[int, float] = {}
    for epsg in sorted({frame.epsg for frame, _, _ in frames}):
        members = [k for k in range(len(frames)) if frames[k][0].epsg == epsg]
        middle = centres[members].mean(axis=0)
        spread = np.hypot(*(centres[members] - middle).T).max() + 1.0
        remote = {k: float(np.hypot(*(centres[k] - middle)) / spread) - (kinds[k] == "wild") for k in members}
        chosen = sorted(members, key=lambda k: (-remote[k], k))[: max(1, round(0.27 * len(members)))]
        for k in chosen:
            east, north = centres[k] - middle if len(members) > 1 else (1.0, 0.0)
            # along an axis, so that a whole column or row of sub-chips lies outside
            limits[k] = math.pi / 2 * round(math.atan2(north, east) / (math.pi / 2))
    return limits


def _boundaries(seed: int, places: list[Place]) -> dict[int, shapely.Geometry]:
    """Draw the surveyed area of each zone: the hull of the places, without what lies beyond the city limits."""
    boundaries = {}
    for epsg in sorted({place.frame.epsg for place in places}):
        members = [place for place in places if place.frame.epsg == epsg]
        boxes = {place.index: shapely.box(*place.frame.bounds) for place in members}
        area = shapely.buffer(shapely.convex_hull(shapely.union_all(list(boxes.values()))), 400, join_style="mitre")
        whole = [shapely.buffer(boxes[place.index], 60) for place in members if place.limit is None]
        limited = [place for place in members if place.limit is not None]
        bites = [_bite(seed, place) for place in limited]
        area = shapely.union(shapely.difference(area, shapely.union_all(bites)), shapely.union_all(whole))
        # what another place's ground adds must not reach into the outside of a limited one
        beyond = [shapely.intersection(bite, boxes[place.index]) for bite, place in zip(bites, limited, strict=True)]
        area = shapely.difference(area, shapely.union_all(beyond))
        boundaries[epsg] = area
    return boundaries


def _bite(seed: int, place: Place) -> shapely.Geometry:
    """Give the ground beyond a place's city limit: a wavy line across the place, and all behind it."""
    assert place.limit is not None
    rng = rng_for(seed, "limit", place.name)
    half, reach = place.half_m, 3.0 * place.half_m
    start, tilt = rng.uniform(-0.05, 0.2), rng.uniform(-0.1, 0.1)
    along = np.linspace(-1.5, 1.5, 61)
    waves = sum(rng.uniform(0.01, 0.04) * np.sin(along * rng.uniform(2, 12) + rng.uniform(0, 6)) for _ in range(3))
    line = np.column_stack([start + tilt * along + waves, along]) * half
    shape = np.vstack([line, [[reach, 1.5 * half], [reach, -1.5 * half]]])
    cos, sin = math.cos(place.limit), math.sin(place.limit)
    x, y = place.centre
    return shapely.Polygon(
        np.column_stack([x + shape[:, 0] * cos - shape[:, 1] * sin, y + shape[:, 0] * sin + shape[:, 1] * cos])
    )
