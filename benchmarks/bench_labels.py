"""Time the building masks of a whole city against two plain ways: `python benchmarks/bench_labels.py`.

1.08 million generated polygons with the sizes and shapes of New York's buildings become the masks of all 22 parents of
the real run (896 px). The preparation, which happens once, is timed apart from the rasterization. Compared with

* (a) reprojecting and clipping the whole table for each parent, then `rasterio.features.rasterize`,
* (b) `rasterio.features.rasterize` on a table that lies reprojected and indexed in memory,

on the same pixels, which must be identical. Each way runs in a process of its own, whose peak memory is told. (a) takes
minutes; by default it is timed on three of the parents and multiplied.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import resolve

ROOT = Path(__file__).parents[1]
SHEET = ROOT / "config" / "parents.tsv"
CLASSES = [{"name": "not building", "color": "#e8e6e1"}, {"name": "building", "color": "#4b3f72"}]
CONFIG = resolve(
    {
        "grid": {"resolution_m": 10.0, "parent_px": 896, "chips_per_side": 4},
        "archive": {"provider": "simulated"},
        "labels": {"B": {"kind": "footprints", "classes": CLASSES}},
        "heads": {"b": {"label": "B"}},
        "runs": {"multihead": {"heads": ["b"]}, "b": {"heads": ["b"]}},
    }
)
GRID = CONFIG.grid.grid


def generate(path: Path, boundary: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` buildings in EPSG:4326: lots along streets, log-normal areas, a third of them L-shaped."""
    import geopandas as gpd
    import shapely
    from pyproj import Transformer

    from cityheads.core.grid import parent_polygon, read_parents

    squares = [parent_polygon(row, GRID) for row in read_parents(SHEET, GRID)]
    generator = np.random.default_rng(seed)
    home = generator.integers(0, len(squares), count)
    lower = np.array([square.bounds[:2] for square in squares])[home]
    centre = lower + generator.uniform(0, GRID.side_m, (count, 2))
    # the 499 official footprints in the tests have a median of about 90 m2 and a long tail
    area = np.exp(generator.normal(np.log(95), 0.75, count)).clip(10, 50000)
    ratio = generator.uniform(0.35, 1, count)
    length = np.sqrt(area / ratio)
    half = np.column_stack([length, length * ratio]) / 2
    notch = np.where(generator.random(count) < 1 / 3, 0.5, 1.0)
    corners = np.array([[-1, -1], [1, -1], [1, 0], [0, 0], [0, 1], [-1, 1]], float)
    ring = np.repeat(corners[None], count, axis=0)
    # where there is no notch, its two inner corners move onto the rectangle's edge
    ring[notch == 1, 3] = [1, 1]
    ring[notch == 1, 4] = [0, 1]
    ring *= half[:, None]
    angle = np.deg2rad(29) + generator.choice([0, 0.4, 0.9], count)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x = centre[:, :1] + ring[..., 0] * cos - ring[..., 1] * sin
    y = centre[:, 1:] + ring[..., 0] * sin + ring[..., 1] * cos
    to = Transformer.from_crs(32618, 4326, always_xy=True)
    lon, lat = to.transform(x.ravel(), y.ravel())
    coordinates = np.column_stack([lon, lat]).reshape(count, len(corners), 2)
    rings = shapely.linearrings(np.concatenate([coordinates, coordinates[:, :1]], axis=1))
    shapes = shapely.multipolygons(shapely.polygons(rings), indices=np.arange(count))
    columns = {
        "bin": np.arange(count).astype(str),
        "construction_year": generator.integers(1890, 2024, count).astype(str),
        "height_roof": generator.uniform(8, 90, count).round(2).astype(str),
        "feature_code": "2100",
        "last_edited_date": "2017-08-22T18:20:50.000Z",
    }
    gpd.GeoDataFrame(columns, geometry=shapes, crs=4326, index=range(count)).to_parquet(path)
    city = gpd.GeoSeries([shapely.union_all(squares).buffer(-500)], crs=32618)
    gpd.GeoDataFrame(geometry=city).to_crs(4326).to_file(boundary, driver="GeoJSON")


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Run something; give its result and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def prepare(folder: Path) -> dict[str, Any]:
    """Clean, reproject, sort and store, once."""
    from cityheads.core.artifacts.footprints import FOOTPRINTS_SUMMARY
    from cityheads.labels.preparation import prepare_footprints

    _, seconds = timed(
        lambda: prepare_footprints(
            CONFIG, parents=SHEET, label="B", source=folder / "buildings.parquet",
            boundary=folder / "boundary.geojson", out=folder / "p.parquet", boundary_out=folder / "b.parquet",
            summary=folder / "summary.json",
        )
    )  # fmt: skip
    return {**seconds, "parents": 22, "kept": FOOTPRINTS_SUMMARY.read(folder / "summary.json")["kept"]}


def _digest(masks: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(mask.tobytes()).hexdigest() for name, mask in masks.items()}


def ours(folder: Path, only: list[str]) -> dict[str, Any]:
    """Read each parent's own rows and rasterize them."""
    from cityheads.archive.warp import Target
    from cityheads.core.grid import read_parents
    from cityheads.labels.footprints import building_mask, polygons_of
    from cityheads.labels.rasterize import rasterize_polygons

    parents = [row for row in read_parents(SHEET, GRID) if row.parent_id in only]

    def work() -> dict[str, np.ndarray]:
        masks = {}
        for parent in parents:
            target = Target.of_parent(parent, GRID)
            surveyed = rasterize_polygons(polygons_of(folder / "b.parquet", parent, GRID), target, "centre")
            masks[parent.parent_id] = building_mask(
                polygons_of(folder / "p.parquet", parent, GRID), surveyed, target, "centre"
            )
        return masks

    masks, seconds = timed(work)
    return {**seconds, "parents": len(masks), "sha256": _digest(masks)}


def _plain_mask(shapes: Any, boundary: Any, parent: Any, grid: Any) -> np.ndarray:
    from rasterio.features import rasterize

    from cityheads.archive.warp import Target

    target = Target.of_parent(parent, grid)
    inside = rasterize(boundary, target.shape, transform=target.transform)
    mask = np.where(inside == 1, 0, 255).astype(np.uint8)
    if len(shapes):
        mask[rasterize(shapes, target.shape, transform=target.transform) == 1] = 1
    return mask


def whole_table(folder: Path, only: list[str]) -> dict[str, Any]:
    """(a) Reproject and clip the whole table for each parent."""
    import geopandas as gpd

    from cityheads.core.grid import parent_polygon, read_parents

    parents = [row for row in read_parents(SHEET, GRID) if row.parent_id in only]
    table = gpd.read_parquet(folder / "buildings.parquet")
    outline = gpd.read_file(folder / "boundary.geojson")

    def work() -> dict[str, np.ndarray]:
        masks = {}
        for parent in parents:
            here = table.to_crs(parent.epsg).clip(parent_polygon(parent, GRID))
            here = here[here.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
            masks[parent.parent_id] = _plain_mask(
                here.geometry.to_numpy(), outline.to_crs(parent.epsg).geometry.to_numpy(), parent, GRID
            )
        return masks

    masks, seconds = timed(work)
    return {**seconds, "parents": len(masks), "sha256": _digest(masks)}


def indexed_table(folder: Path, only: list[str]) -> dict[str, Any]:
    """(b) Pick each parent's polygons from an indexed table in memory, and rasterize them."""
    import geopandas as gpd
    import shapely

    from cityheads.core.grid import parent_polygon, read_parents

    parents = [row for row in read_parents(SHEET, GRID) if row.parent_id in only]

    def build() -> tuple[np.ndarray, Any, np.ndarray]:
        shapes = gpd.read_parquet(folder / "p.parquet", columns=["geometry"]).geometry.to_numpy()
        return shapes, shapely.STRtree(shapes), gpd.read_parquet(folder / "b.parquet").geometry.to_numpy()

    (shapes, tree, outline), building = timed(build)

    def work() -> dict[str, np.ndarray]:
        masks = {}
        for parent in parents:
            near = np.sort(tree.query(parent_polygon(parent, GRID)))
            masks[parent.parent_id] = _plain_mask(shapes[near], outline, parent, GRID)
        return masks

    masks, seconds = timed(work)
    return {**seconds, "parents": len(masks), "sha256": _digest(masks), "read_and_index_s": building["wall_s"]}


WAYS: dict[str, Any] = {
    "prepare": lambda folder, _: prepare(folder),
    "ours": ours,
    "a": whole_table,
    "b": indexed_table,
}


def in_own_process(way: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run one way in a process of its own; started from a small one, or it would inherit the peak memory."""
    command = [sys.executable, __file__, "--folder", str(folder), "--way", way, *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Generate, run all ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/cityheads-bench-labels"), help="scratch folder")
    parser.add_argument("--count", type=int, default=1_080_000, help="number of polygons")
    parser.add_argument("--all", action="store_true", help="time (a) on all parents, not on three")
    parser.add_argument("--way", choices=[*WAYS, "generate"], help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder: Path = options.folder
    if options.way == "generate":
        generate(folder / "buildings.parquet", folder / "boundary.geojson", options.count)
        print("{}")
        return
    if options.way:
        result = WAYS[options.way](folder, options.only)
        result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result))
        return
    from cityheads.core.grid import read_parents

    everyone = [row.parent_id for row in read_parents(SHEET, GRID)]
    folder.mkdir(parents=True, exist_ok=True)
    in_own_process("generate", folder, "--count", str(options.count))
    few = everyone if options.all else everyone[:: len(everyone) // 3][:3]
    plan = {"prepare": everyone, "ours": everyone, "b": everyone, "a": few}
    results = {way: in_own_process(way, folder, "--only", *only) for way, only in plan.items()}
    names = {
        "prepare": "preparation, once",
        "ours": "cityheads, 22 masks",
        "a": f"(a) whole table per parent, {len(few)} timed",
        "b": "(b) indexed table, rasterio",
    }
    scaled = {way: result["wall_s"] * len(everyone) / result["parents"] for way, result in results.items()}
    print(f"{options.count:,} polygons, {len(everyone)} parents of {GRID.parent_px} px, rule centre")
    print(f"{'':40}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}{'ours is':>10}")
    for way, result in results.items():
        cpu = result["cpu_s"] * len(everyone) / result["parents"]
        ratio = f"{scaled[way] / scaled['ours']:.1f} x" if way in ("a", "b") else ""
        print(f"{names[way]:40}{scaled[way]:9.1f}{cpu:9.1f}{result['peak_gb']:9.2f}{ratio:>10}")
    print(f"(b) besides: {results['b']['read_and_index_s']:.1f} s to read and index the table")
    total = scaled["prepare"] + scaled["ours"]
    print(f"preparation included, (a) takes {scaled['a'] / total:.1f} times as long as ours")
    for way in ("a", "b"):
        same = all(results["ours"]["sha256"][name] == digest for name, digest in results[way]["sha256"].items())
        print(f"identical pixels with ({way}): {'yes' if same else 'NO'} ({results[way]['parents']} masks)")


if __name__ == "__main__":
    main()
