"""What the sensors and the map makers see of a simulated world: rasters in the units and grids of the real products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from cityheads.archive.products import S1_NODATA
from cityheads.config import SimulateConfig
from cityheads.core.modalities import MODALITIES
from cityheads.simulate.fields import box_mean, noise, rng_for
from cityheads.simulate.plan import Frame, Place, Plan, Radar, Scene, season_greenness, sun_position
from cityheads.simulate.spectra import (
    BACKSCATTER_DB,
    CLOUD_REFLECTANCE,
    DRY_VEGETATION,
    GROUND,
    HAZE,
    ROOF_BACKSCATTER_DB,
    VEGETATION,
    WORLDCOVER_LEGEND,
    drawn_together,
)
from cityheads.simulate.world import World, shift

__all__ = ["Layer", "dem", "encode", "land_cover", "sentinel1", "sentinel2", "true_cover"]

_BANDS = MODALITIES["S2L2A"].bands
_GSD = dict(zip(_BANDS, MODALITIES["S2L2A"].native_gsd_m, strict=True))
#: How much of what grows dries in summer, as a share of the grass's part.
_DROUGHT = {"grass": 1.0, "crop": 1.0, "young": 0.9, "shrub": 0.35, "wetland": 0.2, "lush": 0.05, "tree": 0.0}
_CODE = {name: code for code, name in enumerate(GROUND)}

#: Ground track of a sun-synchronous orbit at middle latitudes, from north.
_TRACK_DEG = {"ascending": -12.0, "descending": 12.0}
#: Height of the clouds' base, in metres; their shadows fall beside them.
_CLOUD_BASE_M = 700.0
#: Side of a pixel: Copernicus DEM GLO-30 product handbook, table of the longitudinal spacing, below 50 degrees.
_DEM_DEG = 1 / 3600
#: What the land-cover map takes a code for where it is wrong: neighbours in the confusion matrix of its validation
#: report (ESA WorldCover Product Validation Report V2.0): trees and shrubs with grass, crops with bare ground.
_MISTAKEN = np.arange(256, dtype=np.uint8)
_MISTAKEN[[10, 20, 30, 40, 50, 60, 90, 95]] = [30, 30, 10, 60, 60, 30, 10, 10]
_COVER_COLORS = {
    value: (int(color[:2], 16), int(color[2:4], 16), int(color[4:], 16), 255) for value, _, color in WORLDCOVER_LEGEND
}
#: Side of a pixel: ESA WorldCover Product User Manual V2.0.
_COVER_DEG = 1 / 12000


@dataclass(frozen=True)
class Layer:
    """One raster.

    Attributes:
        array: (H, W).
        transform: Upper left corner and pixel size.
        crs: ``EPSG:N``.
        nodata: Declared nodata value or None.
        footprint: Where the raster has data, in its CRS.
        colors: Colour table of a uint8 layer.
        point: The origin tag says pixel-is-point, as the DEM's does.
    """

    array: NDArray[np.generic]
    transform: Affine
    crs: str
    nodata: float | None
    footprint: shapely.Geometry
    colors: dict[int, tuple[int, int, int, int]] | None = None
    point: bool = False


def encode(layer: Layer) -> bytes:
    """Write a raster as a cloud-optimised GeoTIFF in memory: tiled, deflate, overviews where it exceeds a tile."""
    from rasterio.io import MemoryFile

    height, width = layer.array.shape
    predictor = 3 if layer.array.dtype.kind == "f" else 2
    profile = {
        "count": 1,
        "height": height,
        "width": width,
        "dtype": layer.array.dtype.name,
        "crs": layer.crs,
        "transform": layer.transform,
        "nodata": layer.nodata,
        "compress": "deflate",
    }
    if max(height, width) > 512:
        profile |= {"driver": "COG", "blocksize": 512, "level": 6, "num_threads": 1,
                    "predictor": "floating_point" if predictor == 3 else "standard",
                    "overview_resampling": "nearest" if layer.colors else "average"}  # fmt: skip
    else:
        # one tile: the plain driver lays it out as the COG driver would, in half the time
        tile = -(-max(height, width) // 16) * 16
        profile |= {"driver": "GTiff", "tiled": True, "blockxsize": tile, "blockysize": tile, "zlevel": 6,
                    "predictor": predictor, "num_threads": 1}  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            if layer.point:
                target.update_tags(AREA_OR_POINT="Point")
            target.write(layer.array, 1)
            if layer.colors:
                target.write_colormap(1, layer.colors)
        return bytes(memory.getbuffer())


def _box(frame: Frame) -> shapely.Polygon:
    return shapely.box(*frame.bounds)


def _swath(place: Place, cut: float, orbit: str, toward: float) -> tuple[float, float, float]:
    """Give the line a x + b y = c behind which a swath ends that misses a share of the parent.

    Args:
        place: The place.
        cut: Share of the parent beyond the swath.
        orbit: Orbit direction, which tilts the line.
        toward: 1 where the east is missing, -1 where the west is.
    """
    tilt = math.radians(_TRACK_DEG[orbit])
    a, b = toward * math.cos(tilt), -toward * math.sin(tilt)
    cx, cy = place.centre
    # for a small tilt the line through (1 - 2 cut) of the half side leaves that share out
    return a, b, a * cx + b * cy + (1 - 2 * cut) * place.half_m


def _beyond(line: tuple[float, float, float], frame: Frame, gsd: float) -> NDArray[np.bool_]:
    x, y = frame.centres(gsd)
    return np.asarray(line[0] * x[None, :] + line[1] * y[:, None] > line[2])


def _reached(line: tuple[float, float, float], box: shapely.Polygon) -> shapely.Geometry:
    """Cut a box to the side of a line that the swath reaches."""
    a, b, c = line
    far = 4 * math.hypot(box.bounds[2] - box.bounds[0], box.bounds[3] - box.bounds[1])
    cx, cy = box.centroid.x, box.centroid.y
    gap = c - a * cx - b * cy
    px, py = cx + a * gap, cy + b * gap
    corners = [
        (px - b * far, py + a * far),
        (px + b * far, py - a * far),
        (px + b * far - a * far, py - a * far - b * far),
        (px - b * far - a * far, py + a * far - b * far),
    ]
    return shapely.intersection(box, shapely.Polygon(corners))


def sentinel2(plan: Plan, place: Place, world: World, scene: Scene, simulate: SimulateConfig) -> list[dict[str, Layer]]:
    """Make the rasters of one Sentinel-2 acquisition: one dictionary per item, two where a tile ends in the parent.

    Args:
        plan: The plan.
        place: The place.
        world: Its world.
        scene: The acquisition.
        simulate: What makes the archive hard.

    Returns:
        Band name (and ``SCL``) to layer: uint16 reflectance x 10000 + the scene's offset, nodata 0.
    """
    stamp = scene.when.isoformat()
    rng = rng_for(plan.seed, "s2", place.name, stamp)
    reflectance = _surface(plan, place, world, scene, simulate)
    noise_reflectance = simulate.s2_noise_reflectance
    cloud, shade = _clouds(plan, place, scene, rng)
    if cloud is not None and shade is not None:
        reflectance *= 1 - 0.62 * shade
        # thinner and thicker parts differ in brightness
        bright = CLOUD_REFLECTANCE[:, None, None] * (0.72 + 0.28 * box_mean(cloud, 3))
        reflectance += cloud * (bright - reflectance)
    frame = place.frame
    arrays: dict[str, NDArray[np.generic]] = {}
    coarse = np.stack([_mean(band, 2) for band in reflectance])
    for index, band in enumerate(_BANDS):
        gsd = _GSD[band]
        seen = reflectance[index] if gsd == 10 else coarse[index] if gsd == 20 else _mean(coarse[index], 3)
        level = np.clip(seen / 0.15, 0.2, 1.3)
        # what differs from date to date is a third of the noise within a material
        seen = seen + np.float32(0.35 * noise_reflectance) * level * rng.standard_normal(seen.shape, dtype=np.float32)
        arrays[band] = np.clip(np.rint(seen * 10000) + scene.offset_dn, 1, 65535).astype(np.uint16)
    arrays["SCL"] = _classify(coarse, cloud, shade, rng)
    box: shapely.Geometry = _box(frame)
    if scene.swath_cut:
        line = _swath(place, scene.swath_cut, "descending", 1.0 if place.index % 2 else -1.0)
        box = _reached(line, _box(frame))
        for name, array in arrays.items():
            array[_beyond(line, frame, _GSD.get(name, 20))] = 0
    full = {
        name: Layer(array, Affine(_GSD.get(name, 20), 0, frame.left, 0, -_GSD.get(name, 20), frame.top),
                    f"EPSG:{frame.epsg}", 0, box)
        for name, array in arrays.items()
    }  # fmt: skip
    if scene.tile_edge is None:
        return [full]
    return [
        {name: _cut(layer, first, last, scene.tile_edge) for name, layer in full.items()}
        for first, last in _tiles(plan, place, scene.tile_edge)
    ]


def _tiles(plan: Plan, place: Place, axis: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give first and last 60 m cell of two tiles that meet inside the parent and overlap a little."""
    frame = place.frame
    rng = rng_for(plan.seed, "tiles", place.name)
    west, south, east, north = place.window
    low, high = (west - frame.left, east - frame.left) if axis == "x" else (frame.top - north, frame.top - south)
    middle = low + (high - low) * rng.uniform(0.35, 0.65)
    overlap = min(0.12 * (high - low), 600)
    first, last = math.floor((middle - overlap / 2) / 60), math.ceil((middle + overlap / 2) / 60)
    return (0, last), (first, frame.cols if axis == "x" else frame.rows)


def _cut(layer: Layer, first: int, last: int, axis: str) -> Layer:
    """Take columns (or rows) of 60 m cells ``first`` to ``last``."""
    gsd = layer.transform.a
    pixels = slice(round(first * 60 / gsd), round(last * 60 / gsd))
    shift = (pixels.start, 0) if axis == "x" else (0, pixels.start)
    array = layer.array[:, pixels] if axis == "x" else layer.array[pixels]
    transform = layer.transform * Affine.translation(*shift)
    left, top = transform * (0, 0)
    right, bottom = transform * (array.shape[1], array.shape[0])
    footprint = shapely.intersection(layer.footprint, shapely.box(left, bottom, right, top))
    return Layer(np.ascontiguousarray(array), transform, layer.crs, layer.nodata, footprint)


def _mean(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    height, width = array.shape
    blocks = array.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _surface(plan: Plan, place: Place, world: World, scene: Scene, simulate: SimulateConfig) -> NDArray[np.float32]:
    """Give the reflectance of the ground in 12 bands on 10 m pixels, (12, H, W), as seen on the scene's day."""
    day = scene.when.date()
    green = season_greenness(day, place.lonlat[1])
    own = rng_for(plan.seed, "pass", str(place.frame.epsg), scene.when.isoformat())
    ground_reflectance, roof_reflectance = drawn_together(simulate.material_overlap)

    def field(name: str, wavelength_m: float, octaves: int = 1) -> NDArray[np.float32]:
        named = f"{place.frame.epsg}/{name}"
        return noise(plan.seed, named, *place.frame.centres(10), wavelength_m * plan.scale, octaves)

    # vegetation is ahead in one part of the city and behind in another
    dryness = np.clip(world.dryness + np.float32(simulate.phenology) * field("phenology", 2600, 2), 0, 1)
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    dry = np.zeros(world.shadow.shape, np.float32)
    for code, name in enumerate(GROUND):
        share = world.ground[code]
        if name in VEGETATION:
            # grass and fields also dry in summer; woods keep some green in winter
            drought = _DROUGHT[name]
            season = max(green, 0.35 if name == "tree" else 0.1)
            alive = share * (np.float32(season) * (1 - np.float32(drought) * dryness))
            dry += share - alive
            share = alive
        elif name == "water":
            share = share * world.turbidity
        parts.append((share, ground_reflectance[code]))
    parts.append((dry, DRY_VEGETATION))
    parts += [(roof * world.brightness, roof_reflectance[code]) for code, roof in enumerate(world.roofs)]
    light = (1 - np.float32(0.7) * world.shadow) * np.exp(np.float32(simulate.illumination) * field("light", 900, 3))
    # brightness within a material also varies from lot to lot and from field to field
    light *= np.exp(np.float32(simulate.texture_contrast) * field("patches", 150, 2))
    gain = own.normal(1, 0.02)
    haze = np.float32(simulate.haze_reflectance) * np.clip(1 + own.normal(0, 0.5) + field("haze", 3200, 2), 0, None)
    bands = []
    level = np.zeros_like(light)
    for band in range(len(_BANDS)):
        seen = np.zeros_like(light)
        for share, spectrum in parts:
            seen += share * spectrum[band]
        seen = _blur(seen * light)
        bands.append(seen)
        level += seen / np.float32(len(_BANDS))
    # within a material, pixels differ in brightness, and in how much the short-wave infrared follows
    level = np.clip(level / 0.15, 0.2, 1.3) * np.float32(simulate.s2_noise_reflectance)
    tilt = np.linspace(-1, 1, len(_BANDS), dtype=np.float32)
    for band, seen in enumerate(bands):
        seen += level * (np.float32(0.8) * world.texture[0] + np.float32(0.5) * tilt[band] * world.texture[1])
        seen *= np.float32(gain)
        seen += haze * HAZE[band]
    return np.stack(bands)


def _blur(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spread a share of each pixel over its neighbours, as the sensor's point spread does."""
    return np.float32(0.55) * array + np.float32(0.45) * box_mean(array)


def _clouds(
    plan: Plan, place: Place, scene: Scene, rng: np.random.Generator
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Give the opacity of clouds and of their shadows on 10 m pixels, or None for a clear scene."""
    if scene.cloud_fraction <= 0:
        return None, None
    frame = place.frame
    x, y = frame.centres(10)
    shape = noise(plan.seed, f"{frame.epsg}/cloud/{scene.when.isoformat()}", x, y, 1100 * plan.scale, 4)
    if scene.cloud_fraction < 0.3:
        # one cloud over some sub-chips, not a sky full of them
        (cx, cy), half = place.centre, place.half_m
        at = cx + half * rng.uniform(-0.5, 0.5), cy + half * rng.uniform(-0.5, 0.5)
        away = ((x - at[0]) / half)[None, :] ** 2 + ((y - at[1]) / half)[:, None] ** 2
        shape = (0.45 * shape - 2.2 * away).astype(np.float32)
    opaque = np.clip((shape - np.quantile(shape, 1 - scene.cloud_fraction)) / np.float32(0.6), -0.15, 1)
    cloud = (np.clip((opaque + 0.15) / 1.15, 0, 1) ** np.float32(0.9) * np.float32(0.96)).astype(np.float32)
    azimuth, zenith = sun_position(scene.when.date(), place.lonlat[1])
    away_px = _CLOUD_BASE_M * plan.scale * math.tan(zenith) / 10
    shade = shift(cloud, round(-away_px * math.cos(azimuth)), round(away_px * math.sin(azimuth)))
    return cloud, box_mean(shade, 2)


def _classify(
    coarse: NDArray[np.float32],
    cloud: NDArray[np.float32] | None,
    shade: NDArray[np.float32] | None,
    rng: np.random.Generator,
) -> NDArray[np.generic]:
    """Give the scene classification on 20 m pixels from the reflectances, with the thresholds' own mistakes.

    Codes as in the Level-2A product: 2 dark, 3 cloud shadow, 4 vegetation, 5 bare and built, 6 water, 7 unclassified,
    8 and 9 cloud of medium and high probability, 10 thin cirrus.
    """
    green, red, near, short = (coarse[_BANDS.index(band)] for band in ("B03", "B04", "B8A", "B11"))
    greenness = (near - red) / np.maximum(near + red, 1e-4)
    wetness = (green - near) / np.maximum(green + near, 1e-4)
    scl = np.full(red.shape, 5, np.uint8)
    scl[(greenness > 0.32) & (greenness <= 0.4)] = 7
    scl[greenness > 0.4] = 4
    scl[(near < 0.075) & (short < 0.075)] = 2
    scl[(wetness > 0.1) & (short < 0.06)] = 6
    # very bright roofs pass for cloud now and then
    bright = coarse[_BANDS.index("B02")] > 0.36
    scl[bright & (rng.random(red.shape, dtype=np.float32) < 0.3)] = 8
    if cloud is not None and shade is not None:
        opacity = _mean(cloud, 2)
        scl[_mean(shade, 2) > 0.35] = 3
        scl[opacity > 0.07] = 10
        scl[opacity > 0.3] = 8
        scl[opacity > 0.65] = 9
    return scl


def sentinel1(
    plan: Plan, place: Place, world: World, radar: Radar, simulate: SimulateConfig, unit: str
) -> dict[str, Layer]:
    """Make the VV and VH rasters of one Sentinel-1 acquisition.

    Mean backscatter is the sum over what fills the pixel plus the double bounce of its walls; speckle multiplies it,
    gamma distributed with mean 1 and ``looks`` looks.

    Args:
        plan: The plan.
        place: The place.
        world: Its world.
        radar: The acquisition.
        simulate: What makes the archive hard.
        unit: ``linear_power`` or ``db``.

    Returns:
        ``VV`` and ``VH`` to layer: float32, nodata -32768.
    """
    rng = rng_for(plan.seed, "s1", place.name, radar.when.isoformat())
    own = rng_for(plan.seed, "wind", str(place.frame.epsg), radar.when.date().isoformat())
    calm = own.uniform(-2.5, 4.0)
    frame = place.frame
    # the rasters of the real product share a 10 m lattice with Sentinel-2 but not its tiles
    west, north, east, south = (int(cells) for cells in rng.integers(2, 9, 4))
    height, width = frame.shape(10)
    rows, cols = slice(north, height - south), slice(west, width - east)
    transform = Affine(10, 0, frame.left + west * 10, 0, -10, frame.top - north * 10)
    box = shapely.box(frame.left + west * 10, frame.top - (height - south) * 10,
                      frame.left + (width - east) * 10, frame.top - north * 10)  # fmt: skip
    footprint: shapely.Geometry = box
    beyond = None
    if radar.swath_cut:
        line = _swath(place, radar.swath_cut, radar.orbit, -1.0 if place.index % 2 else 1.0)
        footprint, beyond = _reached(line, box), _beyond(line, frame, 10)
    layers = {}
    roof_share = world.roofs.sum(axis=0)
    named = f"{frame.epsg}/moisture/{radar.when.date().isoformat()}"
    land = 1 - world.ground[_CODE["water"]]
    # cars, containers and fences on paved ground return like walls, more of them in districts of dark yards
    lots = (world.ground[_CODE["paved"]] + world.ground[_CODE["street"]]) * (
        np.float32(0.012) + np.float32(0.04) * world.light_roofs
    )
    for index, name in enumerate(("VV", "VH")):
        mean = roof_share * np.float32(10 ** (ROOF_BACKSCATTER_DB[index] / 10))
        for code in range(len(GROUND)):
            level = BACKSCATTER_DB[code, index] + (calm * (1 - 0.4 * index) if code == _CODE["water"] else 0)
            mean += world.ground[code] * np.float32(10 ** (level / 10))
        # a rough tenth of the double bounce comes back cross-polarised
        walls = world.bounce[radar.orbit] * np.exp(np.float32(0.9) * world.clutter)
        mean += (walls + lots * np.exp(world.clutter)) * np.float32((1.0, 0.11)[index])
        # patches differ in each polarisation, or their ratio would show the tone of the roofs in a few pixels
        patches = noise(plan.seed, f"{named}/{name}", *frame.centres(10), 150 * plan.scale, 2)
        district = world.moisture + np.float32((0.4, -0.4)[index]) * (2 * world.light_roofs - 1)
        level_db = np.float32(simulate.s1_moisture_db) * patches + np.float32(simulate.s1_district_db) * district
        mean *= np.float32(10) ** (level_db / np.float32(10) * land)
        mean *= np.exp(np.float32(0.12) * world.texture[0] * land)
        mean = np.float32(0.6) * mean + np.float32(0.4) * box_mean(mean)
        # a resolution cell is two pixels wide: speckle of a quarter of the looks, averaged over 2 x 2 pixels
        looks = simulate.s1_looks / 4
        single = rng.gamma(looks, 1 / looks, (height + 1, width + 1)).astype(np.float32)
        speckle = (single[1:, 1:] + single[:-1, 1:] + single[1:, :-1] + single[:-1, :-1]) / np.float32(4)
        power = np.maximum(mean * speckle, np.float32(1e-5))
        if unit == "db":
            power = np.float32(10) * np.log10(power)
        power = _round_mantissa(power)
        if beyond is not None:
            power[beyond] = S1_NODATA
        layers[name] = Layer(
            np.ascontiguousarray(power[rows, cols]), transform, f"EPSG:{frame.epsg}", S1_NODATA, footprint
        )
    return layers


def _round_mantissa(array: NDArray[np.float32], bits: int = 12) -> NDArray[np.float32]:
    """Keep 12 bits of the mantissa (0.001 dB), so that the files compress."""
    whole = array.astype(np.float32).view(np.uint32)
    drop = 23 - bits
    whole = (whole + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return whole.view(np.float32)


def _lattice(place: Place, degrees_x: float, degrees_y: float, half_pixel: bool) -> tuple[Affine, tuple[int, int]]:
    """Give transform and shape of the product's own lattice over a place and a little around it."""
    from pyproj import Transformer

    west, south, east, north = place.window
    to_lonlat = Transformer.from_crs(place.frame.epsg, 4326, always_xy=True)
    slack = min(0.3 * place.half_m, 100.0)
    bounds = to_lonlat.transform_bounds(west - slack, south - slack, east + slack, north + slack, densify_pts=11)
    shift = 0.5 if half_pixel else 0.0
    first_col, first_row = math.floor(bounds[0] / degrees_x + shift) - 1, math.floor(-bounds[3] / degrees_y + shift) - 1
    last_col, last_row = math.ceil(bounds[2] / degrees_x + shift) + 1, math.ceil(-bounds[1] / degrees_y + shift) + 1
    left, top = (first_col - shift) * degrees_x, -(first_row - shift) * degrees_y
    return Affine(degrees_x, 0, left, 0, -degrees_y, top), (last_row - first_row, last_col - first_col)


def _positions(place: Place, transform: Affine, shape: tuple[int, int]) -> tuple[NDArray[np.float64], ...]:
    """Give the metres from the frame's upper left corner, east and south, of each pixel centre, (H, W) each.

    Every eighth pixel is projected and the others lie between: a curve of a part in a million over 80 m.
    """
    from pyproj import Transformer

    to_utm = Transformer.from_crs(4326, place.frame.epsg, always_xy=True)
    height, width = shape
    knots_r, knots_c = np.arange(0, height + 8, 8), np.arange(0, width + 8, 8)
    lon = transform.c + (knots_c + 0.5) * transform.a
    lat = transform.f + (knots_r + 0.5) * transform.e
    x, y = to_utm.transform(*np.meshgrid(lon, lat))
    east, south = np.asarray(x) - place.frame.left, place.frame.top - np.asarray(y)
    row, col = np.arange(height) // 8, np.arange(width) // 8
    fr, fc = (np.arange(height) % 8 / 8)[:, None], (np.arange(width) % 8 / 8)[None, :]

    def between(knots: NDArray[np.float64]) -> NDArray[np.float64]:
        upper, lower = knots[row], knots[row + 1]
        rows = upper * (1 - fr) + lower * fr
        return np.asarray(rows[:, col] * (1 - fc) + rows[:, col + 1] * fc)

    return between(east), between(south)


def dem(place: Place, world: World) -> Layer:
    """Make the elevation raster: float32 metres on the 1/3600 degree lattice, without a nodata value, 0 over water."""
    latitude = abs(place.lonlat[1])
    # the product widens its pixels towards the poles (Copernicus DEM product handbook)
    widening = next(
        factor for limit, factor in ((50, 1), (60, 1.5), (70, 2), (75, 3), (80, 5), (91, 10)) if latitude < limit
    )
    transform, shape = _lattice(place, _DEM_DEG * widening, _DEM_DEG, half_pixel=True)
    east, south = _positions(place, transform, shape)
    smooth = box_mean(world.elevation)
    wet = box_mean((world.elevation <= 0).astype(np.float32)) > 0.5
    row, col = np.clip(south / 10 - 0.5, 0, None), np.clip(east / 10 - 0.5, 0, None)
    r0 = np.minimum(row.astype(np.int64), smooth.shape[0] - 2)
    c0 = np.minimum(col.astype(np.int64), smooth.shape[1] - 2)
    fr, fc = np.clip(row - r0, 0, 1), np.clip(col - c0, 0, 1)
    value = (smooth[r0, c0] * (1 - fr) * (1 - fc) + smooth[r0 + 1, c0] * fr * (1 - fc)
             + smooth[r0, c0 + 1] * (1 - fr) * fc + smooth[r0 + 1, c0 + 1] * fr * fc)  # fmt: skip
    value = np.where(wet[np.rint(r0 + fr).astype(int), np.rint(c0 + fc).astype(int)], 0, np.round(value, 3))
    return Layer(value.astype(np.float32), transform, "EPSG:4326", None, _raster_box(transform, shape), point=True)


def land_cover(plan: Plan, place: Place, world: World, year: int, error_fraction: float) -> Layer:
    """Make the land-cover raster: WorldCover codes on the 1/12000 degree lattice, nodata 0.

    Each pixel reads the cover a few metres off its centre, so that borders between classes fray as a classifier's do
    and the inside of areas stays clean; the 2020 map frays more than the 2021 one. In patches of some 100 m it has
    another class altogether.

    Args:
        plan: The plan.
        place: The place.
        world: Its world.
        year: 2020 or 2021.
        error_fraction: Share of the area in patches of a wrong class.
    """
    transform, shape = _lattice(place, _COVER_DEG, _COVER_DEG, half_pixel=False)
    east, south = _positions(place, transform, shape)
    rng = rng_for(plan.seed, "cover", place.name, str(year))
    fray = 4.0 if year >= 2021 else 8.0
    east = east + fray * rng.standard_normal(shape)
    south = south + fray * rng.standard_normal(shape)
    height, width = world.cover.shape
    row = np.clip(np.floor(south / 5).astype(np.int64), 0, height - 1)
    col = np.clip(np.floor(east / 5).astype(np.int64), 0, width - 1)
    code = world.cover[row, col]
    if error_fraction > 0:
        where = f"{place.frame.epsg}/cover error/{year}"
        patches = noise(plan.seed, where, *place.frame.centres(10), 240 * plan.scale, 2)[row // 2, col // 2]
        code = np.where(patches > NormalDist().inv_cdf(1 - error_fraction), _MISTAKEN[code], code)
    return Layer(code, transform, "EPSG:4326", 0, _raster_box(transform, shape), _COVER_COLORS)


def true_cover(place: Place, world: World) -> Layer:
    """Make the land cover without a mapper's errors: codes as in the land-cover raster and on its lattice."""
    transform, shape = _lattice(place, _COVER_DEG, _COVER_DEG, half_pixel=False)
    east, south = _positions(place, transform, shape)
    height, width = world.cover.shape
    row = np.clip(np.floor(south / 5).astype(np.int64), 0, height - 1)
    col = np.clip(np.floor(east / 5).astype(np.int64), 0, width - 1)
    return Layer(world.cover[row, col], transform, "EPSG:4326", 0, _raster_box(transform, shape), _COVER_COLORS)


def _raster_box(transform: Affine, shape: tuple[int, int]) -> shapely.Polygon:
    left, top = transform * (0, 0)
    right, bottom = transform * (shape[1], shape[0])
    return shapely.box(left, bottom, right, top)
