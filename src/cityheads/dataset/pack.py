"""The store: every sub-chip accounted for, and those that are good enough packed once, whatever the split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config
from cityheads.core.artifacts import chips as column
from cityheads.core.artifacts.chips import SUBCHIPS, subchip_schema
from cityheads.core.artifacts.quality import QUALITY
from cityheads.core.artifacts.scenes import read_scenes
from cityheads.core.artifacts.store import STORE_INDEX, StoredArray
from cityheads.core.classes import CLOUD_MASK, IGNORE, mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, sha256_file
from cityheads.core.grid import Grid, Parent, chip_ids, parent_polygon, read_parents, subchips
from cityheads.core.layout import StoreFolder, chip_file, parent_file
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.core.raster import read_raster
from cityheads.dataset.cloud_mask import SEEN
from cityheads.labels.geoparquet import geo_table

__all__ = ["pack_store"]

log = logging.getLogger(__name__)


def pack_store(config: Config, *, parents: Path, scenes: Path, quality: Path, chips: Path, out: Path) -> None:
    """Account for every sub-chip and pack those that are good enough.

    Writes one array per layer, ``subchips.parquet`` (GeoParquet, EPSG:4326, one row per sub-chip, kept or dropped with
    the reason) and, last, ``index.json``. Only the labels that some head of some run learns are looked at: another one
    changes nothing here. Nor does a split: the folds take their part of the store by the table.

    Where the image does not show the ground (cloud, shadow, no data; the layer ``CLOUDMASK``) the packed masks say
    ignore, whatever the label; the files in ``chips/MASK_*`` keep the label itself, so that another scene or another
    mask rasterizes nothing again.

    Args:
        config: Config with sections ``grid``, ``archive.imagery``, ``labels``, ``heads`` and ``runs``.
        parents: Parent sheet.
        scenes: Folder of the frozen scene choices.
        quality: Folder of the quality files.
        chips: Folder of the sub-chips.
        out: Folder of the store.

    Raises:
        CityHeadsError: A file is missing or unreadable, or every sub-chip was dropped.
    """
    grid, modalities = config.grid.grid, config.archive.imagery.names
    classes = {name: config.labels[name].class_names for name in config.labels_learnt}
    rows: list[dict[str, Any]] = []
    for parent in read_parents(parents, grid):
        rows += _rows(parent, grid, scenes, quality, chips, modalities, classes)
    kept = [row for row in rows if row["kept"]]
    if not kept:
        reasons = "; ".join(f"{reason}: {number}" for reason, number in Counter(r["reason"] for r in rows).items())
        raise CityHeadsError(f"all {len(rows)} sub-chips were dropped ({reasons}); see the thresholds in 'quality'")
    for index, row in enumerate(kept):
        row["store_index"] = index
    store = StoreFolder(out)
    arrays = _pack(store, kept, grid, chips, modalities, list(classes))
    _write_table(store.subchips, rows, modalities, classes)
    STORE_INDEX.write(
        store.index, {"chips": [row["chip_id"] for row in kept], "chip_px": grid.chip_px, "arrays": arrays}
    )
    log.info("%d sub-chips, %d packed", len(rows), len(kept))


def _rows(
    parent: Parent,
    grid: Grid,
    scenes: Path,
    quality: Path,
    chips: Path,
    modalities: Sequence[str],
    classes: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Give a parent's rows of the base table."""
    chosen = read_scenes(parent_file(scenes, parent.parent_id), parent)
    place = parent_file(quality, parent.parent_id)
    measured = {chip["chip_id"]: chip for chip in QUALITY.read(place)["chips"]}
    if list(measured) != chip_ids(parent.parent_id, grid.chips_per_side):
        raise CityHeadsError(f"{place}: lists other sub-chips than the grid; run again")
    rows = []
    for piece in subchips(parent, grid):
        found = measured[piece.chip_id]
        row: dict[str, Any] = {
            "chip_id": piece.chip_id,
            "parent_id": parent.parent_id,
            "row": piece.row,
            "col": piece.col,
            "kept": not found["reasons"],
            "reason": "; ".join(found["reasons"]),
            "epsg": parent.epsg,
            "left": piece.geobox.transform.c,
            "top": piece.geobox.transform.f,
            "chip_px": grid.chip_px,
            "resolution_m": grid.resolution_m,
            "clear_fraction": found["clear_fraction"],
            "hidden_fraction": sum(found["hidden_fraction"].values()),
            column.sha256(CLOUD_MASK): sha256_file(_chip(chips, CLOUD_MASK, piece.chip_id)),
            "store_index": -1,
            "simulated": chosen["simulated"],
        }
        for name in modalities:
            row[column.valid_fraction(name)] = found["valid_fraction"][name]
            row[column.in_range_fraction(name)] = found["in_range_fraction"][name]
            row[column.scene_ids(name)] = ";".join(item["id"] for item in chosen["layers"][name]["items"])
            row[column.sha256(name)] = sha256_file(_chip(chips, name, piece.chip_id))
            if name in RADAR:
                row[column.synthesized(name)] = bool(chosen["layers"][name].get("synthesized"))
        for label, names in classes.items():
            layer = mask_layer(label)
            path = _chip(chips, layer, piece.chip_id)
            mask = _labels(chips, layer, piece.chip_id)
            count = np.bincount(mask.ravel(), minlength=IGNORE + 1)
            if count[len(names) : IGNORE].any():
                raise CityHeadsError(f"{path}: holds a class beyond {len(names) - 1}; delete it and run again")
            labelled = int(count[: len(names)].sum())
            row[column.pixels(label)] = [*count[: len(names)].tolist(), int(count[IGNORE])]
            row[column.ignored_fraction(label)] = float(count[IGNORE] / mask.size)
            for index, pixels in enumerate(count[: len(names)]):
                row[column.class_fraction(label, index)] = float(pixels / labelled) if labelled else None
            row[column.sha256(layer)] = sha256_file(path)
        rows.append(row)
    return rows


def _chip(chips: Path, layer: str, chip: str) -> Path:
    path = chip_file(chips, layer, chip)
    if not path.exists():
        raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
    return path


def _labels(chips: Path, layer: str, chip: str) -> np.ndarray:
    """Read a sub-chip's mask, (H, W) uint8, with ignore where its image does not show the ground."""
    mask = read_raster(_chip(chips, layer, chip))[0][0]
    hidden = read_raster(_chip(chips, CLOUD_MASK, chip))[0][0] != SEEN
    return np.where(hidden, np.uint8(IGNORE), mask)


def _pack(
    store: StoreFolder,
    kept: list[dict[str, Any]],
    grid: Grid,
    chips: Path,
    modalities: Sequence[str],
    labels: Sequence[str],
) -> dict[str, StoredArray]:
    """Write one array per layer, chip after chip, straight to disk."""
    px = grid.chip_px
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        name: ((len(kept), len(MODALITIES[name].bands), px, px), MODALITIES[name].dtype) for name in modalities
    }
    shapes |= {mask_layer(label): ((len(kept), px, px), "uint8") for label in labels}
    arrays: dict[str, StoredArray] = {}
    for name, (shape, dtype) in shapes.items():
        path = store.array(name)
        with atomic_path(path) as part:
            target = np.lib.format.open_memmap(part, mode="w+", dtype=np.dtype(dtype), shape=shape)
            for index, row in enumerate(kept):
                if name in MODALITIES:
                    target[index] = read_raster(_chip(chips, name, row["chip_id"]))[0]
                else:
                    target[index] = _labels(chips, name, row["chip_id"])
            target.flush()
            del target
        arrays[name] = {"dtype": dtype, "shape": list(shape), "sha256": sha256_file(path)}
    return arrays


def _write_table(
    path: Path, rows: list[dict[str, Any]], modalities: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> None:
    """Write the base table with each sub-chip's square in longitude and latitude."""
    import pyarrow as pa

    squares = [
        parent_polygon(
            Parent(row["chip_id"], row["epsg"], row["left"], row["top"]),
            Grid(row["resolution_m"], row["chip_px"], 1),
            4326,
        )
        for row in rows
    ]
    schema = subchip_schema(modalities, {label: len(names) for label, names in classes.items()})
    SUBCHIPS.write(path, geo_table(np.array(squares, object), pa.Table.from_pylist(rows, schema=schema), 4326))
