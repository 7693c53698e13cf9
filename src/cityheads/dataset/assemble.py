"""The dataset as one fold splits it: who is held out, what is left, and what the training pixels are like."""

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
from cityheads.core.artifacts.chips import CHIPS, SUBCHIPS, chip_schema, subchip_schema
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT, MissingClass
from cityheads.core.artifacts.statistics import STATISTICS, BandStatistics
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import SPLITS, Grid, Parent, read_parents
from cityheads.core.layout import DatasetFolder, StoreFolder
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.dataset.splits import assign_splits, check_lock, missing_classes, near_held_out
from cityheads.labels.vector_files import geo_table

__all__ = ["assemble_dataset"]

log = logging.getLogger(__name__)


def assemble_dataset(config: Config, *, fold: int, parents: Path, out: Path) -> None:
    """Assign the splits of one fold, and leave out what comes too near to a parent held out.

    Writes ``splits.json``, ``classes.json``, ``statistics.json`` and, last, ``chips.parquet`` (GeoParquet, EPSG:4326,
    one row per sub-chip, kept or dropped with the reason). The pixels stay where they are, in the store.

    Args:
        config: Config with sections ``grid``, ``archive.imagery``, ``labels``, ``heads``, ``runs`` and ``splits``.
        fold: Number of the fold, from 0; the methods without folds have that one only.
        parents: Parent sheet.
        out: Folder of the fold's dataset; the store lies beside it.

    Raises:
        CityHeadsError: The store is missing or of another sheet, there is no such fold, or a split lacks a class while
            ``splits.require_every_class`` holds.
    """
    folder, grid, splitting = DatasetFolder(out), config.grid.grid, config.splits
    sheet, modalities = read_parents(parents, grid), config.archive.imagery.names
    classes = {name: config.labels[name].class_names for name in config.labels_learnt}
    rows = _base(folder.store, sheet, modalities, classes)
    splits = assign_splits(sheet, _pixels_per_parent(rows, classes, sheet), splitting, fold)
    check_lock(splits.lock, splitting.test_lock)
    for row in rows:
        row["split"] = splits.parents[row["parent_id"]]
    _drop_near_held_out([row for row in rows if row["kept"]], sheet, splits.parents, grid, splitting.buffer_m)
    kept = [row for row in rows if row["kept"]]
    per_split = _pixels_per_split(kept, classes)
    missing = _missing(per_split, classes, splits.method, required=splitting.require_every_class)
    SPLIT_ASSIGNMENT.write(
        folder.splits,
        {
            "method": splits.method,
            "fold": fold,
            "folds": splits.folds,
            "seed": None if splits.method == "sheet" else splitting.seed,
            "test_lock": splits.lock,
            "buffer_m": splitting.buffer_m,
            "parents": splits.parents,
            "tested_in": splits.tested_in,
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
    counts = {split: list(splits.parents.values()).count(split) for split in SPLITS}
    log.info("%s: %d of %d sub-chips kept; parents %s", splits.method, len(kept), len(rows), counts)


def _base(
    store: StoreFolder, sheet: Sequence[Parent], modalities: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Read the base table.

    Raises:
        CityHeadsError: It is missing, or of other parents than the sheet's.
    """
    schema = subchip_schema(modalities, {label: len(names) for label, names in classes.items()})
    rows = SUBCHIPS.read(store.subchips, (*schema.names, "geometry"))
    if list(dict.fromkeys(row["parent_id"] for row in rows)) != [parent.parent_id for parent in sheet]:
        raise CityHeadsError(f"{store.subchips}: is of other parents than the sheet; run the workflow again")
    return rows


def _pixels_per_parent(
    rows: list[dict[str, Any]], classes: Mapping[str, Sequence[str]], sheet: Sequence[Parent]
) -> dict[str, np.ndarray]:
    """Count the labelled pixels of the packed sub-chips, (parents, classes) per label."""
    place = {parent.parent_id: index for index, parent in enumerate(sheet)}
    counts = {label: np.zeros((len(sheet), len(names)), np.int64) for label, names in classes.items()}
    for row in rows:
        if row["kept"]:
            for label, of in counts.items():
                of[place[row["parent_id"]]] += row[column.pixels(label)][:-1]
    return counts


def _pixels_per_split(
    kept: list[dict[str, Any]], classes: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, np.ndarray]]:
    """Count the kept pixels of each class and, last, the ignored ones, (classes + 1,) per label."""
    counts: dict[str, dict[str, np.ndarray]] = {
        split: {label: np.zeros(len(names) + 1, np.int64) for label, names in classes.items()} for split in SPLITS
    }
    for row in kept:
        for label, of in counts[row["split"]].items():
            of += row[column.pixels(label)]
    return counts


def _missing(
    per_split: Mapping[str, Mapping[str, np.ndarray]],
    classes: Mapping[str, Sequence[str]],
    method: str,
    *,
    required: bool,
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
                f"{method}: {lacks}; add parents, or accept undefined scores with splits.require_every_class: false"
            )
        log.warning("%s: %s", method, lacks)
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
            row["kept"], row["store_index"] = False, -1
            row["reason"] = f"within {buffer_m:g} m of a {split} parent"


def _fractions(pixels: np.ndarray) -> list[float | None]:
    """Give class shares of the labelled pixels; None where nothing is labelled. The last count is of ignored ones."""
    total = int(pixels[:-1].sum())
    return [float(count / total) if total else None for count in pixels[:-1]]


def _statistics(store: StoreFolder, kept: list[dict[str, Any]], modalities: Sequence[str]) -> dict[str, BandStatistics]:
    """Give mean and standard deviation per band over the valid pixels of the training split, in stored units."""
    train = [row["store_index"] for row in kept if row["split"] == "train"]
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

    squares = shapely.from_wkb([row["geometry"] for row in rows])
    schema = chip_schema(modalities, {label: len(names) for label, names in classes.items()})
    CHIPS.write(path, geo_table(squares, pa.Table.from_pylist(rows, schema=schema), 4326))
