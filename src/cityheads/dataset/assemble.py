"""The dataset: a row for every sub-chip, the splits, and one packed store for training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cityheads.config import Config
from cityheads.core.artifacts import chips as column
from cityheads.core.artifacts.chips import CHIPS, chip_schema
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.quality import QUALITY
from cityheads.core.artifacts.scenes import read_scenes
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT, MissingClass
from cityheads.core.artifacts.statistics import STATISTICS, BandStatistics
from cityheads.core.artifacts.store import STORE_INDEX, StoredArray
from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, sha256_file
from cityheads.core.grid import SPLITS, Grid, Parent, chip_ids, parent_polygon, read_parents, subchips
from cityheads.core.layout import DatasetFolder, StoreFolder, chip_file, parent_file
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.core.raster import read_raster
from cityheads.dataset.splits import assign_splits, check_lock, lock_of, missing_classes, near_held_out
from cityheads.labels.vector_files import geo_table

__all__ = ["assemble_dataset"]

log = logging.getLogger(__name__)


def assemble_dataset(config: Config, *, parents: Path, scenes: Path, quality: Path, chips: Path, out: Path) -> None:
    """Account for every sub-chip, assign the splits, and pack the kept sub-chips.

    Writes ``store/`` (one array per layer), ``splits.json``, ``classes.json``, ``statistics.json`` and, last,
    ``chips.parquet`` (GeoParquet, EPSG:4326, one row per sub-chip, kept or dropped with the reason). Only the labels
    that some head of some run learns are looked at: another one changes nothing here, the splits neither.

    Args:
        config: Config with sections ``grid``, ``archive.imagery``, ``labels``, ``heads``, ``runs`` and ``splits``.
        parents: Parent sheet.
        scenes: Folder of the frozen scene choices.
        quality: Folder of the quality files.
        chips: Folder of the sub-chips.
        out: Folder of the dataset.

    Raises:
        CityHeadsError: A file is missing or unreadable, every sub-chip was dropped, or a split lacks a class while
            ``splits.require_every_class`` holds.
    """
    grid = config.grid.grid
    sheet = read_parents(parents, grid)
    modalities, splitting = config.archive.imagery.names, config.splits
    classes = {name: config.labels[name].class_names for name in config.labels_learnt}
    rows: list[dict[str, Any]] = []
    for parent in sheet:
        rows += _rows(parent, grid, scenes, quality, chips, modalities, classes)
    if not any(row["kept"] for row in rows):
        reasons = "; ".join(f"{reason}: {number}" for reason, number in Counter(r["reason"] for r in rows).items())
        raise CityHeadsError(f"all {len(rows)} sub-chips were dropped ({reasons}); see the thresholds in 'quality'")

    pixels = {label: np.stack([row.pop(f"pixels_{label}") for row in rows]) for label in classes}
    assigned, method = assign_splits(sheet, _pixels_per_parent(rows, pixels, sheet), splitting)
    lock = lock_of(sheet, assigned)
    check_lock(lock, splitting.test_lock)
    for row in rows:
        row["split"] = assigned[row["parent_id"]]
    _drop_near_held_out([row for row in rows if row["kept"]], sheet, assigned, grid, splitting.buffer_m)
    per_split = _pixels_per_split(rows, pixels)
    missing = _missing(per_split, classes, required=splitting.require_every_class)

    folder = DatasetFolder(out)
    kept = [row for row in rows if row["kept"]]
    for index, row in enumerate(kept):
        row["store_index"] = index
    _pack(folder.store, kept, grid, chips, modalities, list(classes))
    SPLIT_ASSIGNMENT.write(
        folder.splits,
        {
            "method": method,
            "seed": None if method == "sheet" else splitting.seed,
            "test_lock": lock,
            "buffer_m": splitting.buffer_m,
            "parents": assigned,
            "class_fractions": {
                split: {label: _fractions(of[label]) for label in classes} for split, of in per_split.items()
            },
            "missing": missing,
        },
    )
    CLASSES.write(
        folder.classes,
        {"labels": {k: [{"id": number, "name": name} for number, name in enumerate(v)] for k, v in classes.items()}},
    )
    STATISTICS.write(
        folder.statistics,
        {
            "modalities": _statistics(folder.store, kept, modalities),
            "class_pixels": {split: {k: of[k].tolist() for k in classes} for split, of in per_split.items()},
            "chips": {split: sum(row["split"] == split for row in kept) for split in SPLITS},
            "synthesized": {
                name: {
                    split: sum(row["split"] == split and row[column.synthesized(name)] for row in kept)
                    for split in SPLITS
                }
                for name in modalities
                if name in RADAR
            },
            "dropped": dict(sorted(Counter(row["reason"] for row in rows if not row["kept"]).items())),
            "simulated": any(row["simulated"] for row in rows),
        },
    )
    _write_chip_table(folder.chips, rows, modalities, classes)
    log.info("%d sub-chips, %d kept; %s", len(rows), len(kept), {s: list(assigned.values()).count(s) for s in SPLITS})


def _pixels_per_parent(
    rows: list[dict[str, Any]], pixels: Mapping[str, np.ndarray], sheet: list[Parent]
) -> dict[str, np.ndarray]:
    """Count the labelled pixels of the kept sub-chips, (parents, classes) per label."""
    kept = np.array([row["kept"] for row in rows])
    parent = np.array([row["parent_id"] for row in rows])
    return {
        label: np.stack([of[kept & (parent == p.parent_id), :-1].sum(axis=0) for p in sheet])
        for label, of in pixels.items()
    }


def _pixels_per_split(rows: list[dict[str, Any]], pixels: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Count the kept pixels of each class and, last, the ignored ones, (classes + 1,) per label."""
    kept = np.array([row["kept"] for row in rows])
    split_of = np.array([row["split"] for row in rows])
    return {
        split: {label: of[kept & (split_of == split)].sum(axis=0) for label, of in pixels.items()} for split in SPLITS
    }


def _missing(
    per_split: Mapping[str, Mapping[str, np.ndarray]], classes: Mapping[str, Sequence[str]], *, required: bool
) -> list[MissingClass]:
    """List the classes that a split lacks.

    Raises:
        CityHeadsError: There are some, and ``required`` holds.
    """
    missing = missing_classes({s: {k: v[:-1].tolist() for k, v in of.items()} for s, of in per_split.items()}, classes)
    if missing:
        lacks = "; ".join(f"{gap['split']} has no {gap['label']} '{gap['class']}'" for gap in missing)
        if required:
            raise CityHeadsError(
                f"{lacks}; add parents, or accept undefined scores with splits.require_every_class: false"
            )
        log.warning("%s", lacks)
    return missing


def _drop_near_held_out(
    kept: list[dict[str, Any]], sheet: list[Parent], assigned: Mapping[str, str], grid: Grid, buffer_m: float
) -> None:
    """Mark the kept rows that come too near to a parent held out from them as dropped, with the reason."""
    of = {parent.parent_id: parent for parent in sheet}
    side = grid.chip_px * grid.resolution_m
    boxes = [
        (of[row["parent_id"]], shapely.box(row["left"], row["top"] - side, row["left"] + side, row["top"]))
        for row in kept
    ]
    near = near_held_out(boxes, [row["split"] for row in kept], sheet, assigned, grid, buffer_m)
    for row, split in zip(kept, near, strict=True):
        if split is not None:
            row["kept"], row["reason"] = False, f"within {buffer_m:g} m of a {split} parent"


def _rows(
    parent: Parent,
    grid: Grid,
    scenes: Path,
    quality: Path,
    chips: Path,
    modalities: Sequence[str],
    classes: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Give a parent's rows of the chip table, and in ``pixels_{label}`` the pixels per class, last the ignored ones."""
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
            "split": "",
            "kept": not found["reasons"],
            "reason": "; ".join(found["reasons"]),
            "epsg": parent.epsg,
            "left": piece.geobox.transform.c,
            "top": piece.geobox.transform.f,
            "chip_px": grid.chip_px,
            "resolution_m": grid.resolution_m,
            "clear_fraction": found["clear_fraction"],
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
            mask = read_raster(path)[0][0]
            count = np.bincount(mask.ravel(), minlength=IGNORE + 1)
            if count[len(names) : IGNORE].any():
                raise CityHeadsError(f"{path}: holds a class beyond {len(names) - 1}; delete it and run again")
            row[f"pixels_{label}"] = np.append(count[: len(names)], count[IGNORE])
            row[column.ignored_fraction(label)] = float(count[IGNORE] / mask.size)
            for index, share in enumerate(_fractions(row[f"pixels_{label}"])):
                row[column.class_fraction(label, index)] = share
            row[column.sha256(layer)] = sha256_file(path)
        rows.append(row)
    return rows


def _chip(chips: Path, layer: str, chip: str) -> Path:
    path = chip_file(chips, layer, chip)
    if not path.exists():
        raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
    return path


def _fractions(pixels: np.ndarray) -> list[float | None]:
    """Give class shares of the labelled pixels; None where nothing is labelled. The last count is of ignored ones."""
    total = int(pixels[:-1].sum())
    return [float(count / total) if total else None for count in pixels[:-1]]


def _pack(
    store: StoreFolder,
    kept: list[dict[str, Any]],
    grid: Grid,
    chips: Path,
    modalities: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Write one array per layer, chip after chip, straight to disk; and the index, last."""
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
                array = read_raster(_chip(chips, name, row["chip_id"]))[0]
                target[index] = array if name in MODALITIES else array[0]
            target.flush()
            del target
        arrays[name] = {"dtype": dtype, "shape": list(shape), "sha256": sha256_file(path)}
    STORE_INDEX.write(store.index, {"chips": [row["chip_id"] for row in kept], "chip_px": px, "arrays": arrays})


def _statistics(store: StoreFolder, kept: list[dict[str, Any]], modalities: Sequence[str]) -> dict[str, BandStatistics]:
    """Give mean and standard deviation per band over the valid pixels of the training split, in stored units."""
    train = [index for index, row in enumerate(kept) if row["split"] == "train"]
    found: dict[str, BandStatistics] = {}
    for name in modalities:
        modality = MODALITIES[name]
        array = np.load(store.array(name), mmap_mode="r")
        count = np.zeros(len(modality.bands))
        first = np.zeros(len(modality.bands))
        second = np.zeros(len(modality.bands))
        # sums of differences to the pretraining mean: no cancellation where the spread is small beside the mean
        shift = np.array(modality.mean)
        for index in train:
            values = array[index].astype(np.float64).reshape(len(modality.bands), -1)
            valid = np.isfinite(values) if np.isnan(modality.nodata) else values != modality.nodata
            centred = np.where(valid, values - shift[:, None], 0.0)
            count += valid.sum(axis=1)
            first += centred.sum(axis=1)
            second += (centred**2).sum(axis=1)
        if not count.all():
            raise CityHeadsError(f"the training split has no valid {name} pixel; see the thresholds in 'quality'")
        mean = first / count
        found[name] = {
            "bands": list(modality.bands),
            "mean": (mean + shift).tolist(),
            "std": np.sqrt(np.maximum(second / count - mean**2, 0)).tolist(),
        }
    return found


def _write_chip_table(
    path: Path, rows: list[dict[str, Any]], modalities: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> None:
    """Write the chip table with each sub-chip's square in longitude and latitude."""
    import pyarrow as pa

    squares = [
        parent_polygon(
            Parent(row["chip_id"], row["epsg"], row["left"], row["top"]),
            Grid(row["resolution_m"], row["chip_px"], 1),
            4326,
        )
        for row in rows
    ]
    schema = chip_schema(modalities, {label: len(names) for label, names in classes.items()})
    CHIPS.write(path, geo_table(np.array(squares, object), pa.Table.from_pylist(rows, schema=schema), 4326))
