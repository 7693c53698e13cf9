"""Draw the three rules of rasterization side by side: `python docs/draw_label_rules.py FOOTPRINTS OUT.png`.

FOOTPRINTS is a vector file of the Murray Hill block (or of any place in UTM zone 18N); docs/labels.md shows the result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import rasterio
from affine import Affine
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from shapely import get_coordinates, get_parts, get_rings

from cityheads.archive.warp import Target
from cityheads.labels.rasterize import covered_fraction, rasterize_polygons
from cityheads.labels.shapes import project
from cityheads.labels.vector_files import read_vectors

EPSG, STEP_M = 32618, 10.0
#: The piece that is drawn: this many pixels from this row and column of the block.
ROW, COLUMN, SIDE = 22, 60, 32


def main(source: Path, out: Path) -> None:
    """Rasterize the whole block by each rule, and draw a piece of it."""
    vectors = read_vectors(source)
    polygons = project(vectors.geometry, vectors.crs, EPSG)
    corners = get_coordinates(polygons)
    left = np.floor(corners[:, 0].min() / STEP_M) * STEP_M
    top = np.ceil(corners[:, 1].max() / STEP_M) * STEP_M
    width = int(np.ceil((corners[:, 0].max() - left) / STEP_M))
    height = int(np.ceil((top - corners[:, 1].min()) / STEP_M))
    block = Target((height, width), Affine(STEP_M, 0, left, 0, -STEP_M, top), rasterio.crs.CRS.from_epsg(EPSG))
    masks = {
        "centre": rasterize_polygons(polygons, block, "centre"),
        "all_touched": rasterize_polygons(polygons, block, "all_touched"),
        "area, threshold 0.5": rasterize_polygons(polygons, block, "area", 0.5),
    }
    covered = covered_fraction(polygons, block).mean()
    west, north = left + COLUMN * STEP_M, top - ROW * STEP_M
    extent = (west, west + SIDE * STEP_M, north - SIDE * STEP_M, north)
    outlines = [get_coordinates(ring) for ring in get_rings(get_parts(polygons))]
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
    for axis, (name, mask) in zip(axes, masks.items(), strict=True):
        piece = mask[ROW : ROW + SIDE, COLUMN : COLUMN + SIDE]
        axis.imshow(
            piece, cmap=ListedColormap(["#efede8", "#b9a7e0"]), extent=extent, interpolation="nearest", vmin=0, vmax=1
        )
        axis.add_collection(PolyCollection(outlines, facecolors="none", edgecolors="#2b2145", linewidths=0.7))
        axis.set_xlim(extent[:2])
        axis.set_ylim(extent[2:])
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"{name}: {100 * mask.mean():.1f} % of the block")
    figure.supxlabel(
        f"Murray Hill, Manhattan: {SIDE} x {SIDE} px of {width} x {height}; true cover {100 * covered:.1f} %",
        fontsize=10,
    )
    figure.savefig(out, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
