"""What the tests of labels share: a config with one label layer, sheets, vector files, grids of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from config_fixtures import make_config

from cityheads.archive.warp import Target
from cityheads.config import Config
from cityheads.core.grid import Parent


def label_config(name: str, label: Mapping[str, Any], parent_px: int = 128, **sections: Any) -> Config:
    """Make a config with one label layer, on a grid of 4 x 4 sub-chips."""
    raw = {
        "archive": {"provider": "simulated"},
        "grid": {"parent_px": parent_px, "chips_per_side": 4},
        "labels": {name: label},
        "heads": {"head": {"label": name}},
        "runs": {"multihead": {"heads": ["head"]}, "head": {"heads": ["head"]}},
    }
    return make_config(raw, **sections)


def write_sheet(path: Path, *parents: Parent) -> Path:
    """Write a parent sheet."""
    rows = [f"{row.parent_id}\t{row.epsg}\t{row.left!r}\t{row.top!r}" for row in parents]
    path.write_text("\n".join(["parent_id\tepsg\tleft\ttop", *rows]) + "\n")
    return path


def write_geojson(
    path: Path, shapes: list[Any], properties: list[dict[str, Any]] | None = None, epsg: int = 4326
) -> Path:
    """Write shapes of any CRS as GeoJSON; without properties they are buildings."""
    frame = gpd.GeoDataFrame(properties or [{"feature_code": "2100"}] * len(shapes), geometry=shapes, crs=epsg)
    frame.to_crs(4326).to_file(path, driver="GeoJSON")
    return path


def target_of(width: int, height: int, left: float = 0.0, top: float = 0.0, step: float = 10.0) -> Target:
    """Make a grid of pixels in UTM 18N."""
    return Target((height, width), Affine(step, 0, left, 0, -step, top), rasterio.crs.CRS.from_epsg(32618))


def pixel_boxes(target: Target) -> np.ndarray:
    """Give every pixel as a box, row by row."""
    rows, columns = np.indices(target.shape)
    step, left, top = target.transform.a, target.transform.c, target.transform.f
    x, y = left + columns.ravel() * step, top - rows.ravel() * step
    return shapely.box(x, y - step, x + step, y)
