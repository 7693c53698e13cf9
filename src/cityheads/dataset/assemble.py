"""The dataset as one fold splits it: who is held out, what is left, and what the training pixels are like."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cityheads.config import Config
from cityheads.core.artifacts import chips as column
from cityheads.core.artifacts.chips import CHIPS, SUBCHIPS, chip_schema, subchip_schema
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.splits import PARENT_ASSIGNMENT, SPLIT_ASSIGNMENT, MissingClass
from cityheads.core.artifacts.statistics import STATISTICS, BandStatistics
from cityheads.core.classes import mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_bytes
from cityheads.core.grid import SPLITS, Grid, Parent, read_parents
from cityheads.core.layout import DatasetFolder, StoreFolder
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.dataset.splits import (
    check_lock,
    gap_to_training,
    lock_of,
    missing_classes,
    near_held_out,
    seek_assignment,
    splits_of,
)
from cityheads.labels.geoparquet import geo_table

__all__ = ["assemble_dataset", "assign_splits"]

log = logging.getLogger(__name__)


def assign_splits(config: Config, *, parents: Path, table: Path, out: Path) -> None:
    """Say which parents are held out when, for all folds.

    The workflow keeps what this wrote when labels, heads or pixels change: scores before and after then compare.

    Args:
        config: Config with sections ``grid`` and ``splits``.
        parents: Parent sheet.
        table: The store's base table, whose labelled pixels per class are balanced.
        out: ``assignment.json``.

    Raises:
        CityHeadsError: The table is missing or of another sheet, or the split is impossible.
    """
    sheet = read_parents(parents, config.grid.grid)
    labels = [name for name in SUBCHIPS.columns(table) if name.startswith(column.pixels(""))]
    rows = SUBCHIPS.read(table, ("parent_id", "kept", *labels))
    _check_parents(table, rows, sheet)
    place = {parent.parent_id: index for index, parent in enumerate(sheet)}
    counts = {name: np.zeros((len(sheet), len(rows[0][name]) - 1), np.int64) for name in labels}
    for row in rows:
        if row["kept"]:
            for name, of in counts.items():
                of[place[row["parent_id"]]] += row[name][:-1]
    PARENT_ASSIGNMENT.write(out, seek_assignment(sheet, counts, config.splits))


def assemble_dataset(config: Config, *, fold: int, parents: Path, assignment: Path, out: Path) -> None:
    """Split what is packed as one fold does, and leave out what comes too near to a parent held out.

    Writes ``splits.json``, ``classes.json``, ``statistics.json`` and, last, ``chips.parquet`` (GeoParquet, EPSG:4326,
    one row per sub-chip, kept or dropped with the reason). The pixels stay where they are, in the store.

    Args:
        config: Config with sections ``grid``, ``archive.imagery``, ``labels``, ``heads``, ``runs`` and ``splits``.
        fold: Number of the fold, from 0; the methods without folds have that one only.
        parents: Parent sheet.
        assignment: What `assign_splits` wrote.
        out: Folder of the fold's dataset; the store lies beside it.

    Raises:
        CityHeadsError: The store is missing or of another sheet, there is no such fold, or a split lacks a class while
            ``splits.require_every_class`` holds.
    """
    folder, grid, splitting = DatasetFolder(out), config.grid.grid, config.splits
    sheet, modalities = read_parents(parents, grid), config.archive.imagery.names
    classes = {name: config.labels[name].class_names for name in config.labels_learnt}
    rows = _base(folder.store, sheet, modalities, classes)
    assigned = PARENT_ASSIGNMENT.read(assignment)
    splits = splits_of(assigned, sheet, fold)
    lock = lock_of(sheet, grid, splits.tested_in, _label_hashes(folder.store, rows, classes, sheet))
    check_lock(lock, splitting.test_lock)
    for row in rows:
        row["split"] = splits.parents[row["parent_id"]]
    _drop_near_held_out([row for row in rows if row["kept"]], sheet, splits.parents, grid, splitting.buffer_m)
    kept = [row for row in rows if row["kept"]]
    gap = gap_to_training(_boxes(kept, sheet, grid), [row["split"] for row in kept])
    per_split = _pixels_per_split(kept, classes)
    missing = _missing(per_split, classes, splits.method, required=splitting.require_every_class)
    SPLIT_ASSIGNMENT.write(
        folder.splits,
        {
            "method": splits.method,
            "fold": fold,
            "folds": assigned["folds"],
            "seed": assigned["seed"],
            "test_lock": lock,
            "buffer_m": splitting.buffer_m,
            "parents": splits.parents,
            "tested_in": splits.tested_in,
            "gap_to_training": None
            if gap is None
            else {"nearest_m": gap.nearest_m, "median_m": gap.median_m, "touching": gap.touching},
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
    _check_parents(store.subchips, rows, sheet)
    return rows


def _check_parents(table: Path, rows: Sequence[Mapping[str, Any]], sheet: Sequence[Parent]) -> None:
    if list(dict.fromkeys(row["parent_id"] for row in rows)) != [parent.parent_id for parent in sheet]:
        raise CityHeadsError(f"{table}: is of other parents than the sheet; run the workflow again")


def _label_hashes(
    store: StoreFolder, rows: list[dict[str, Any]], classes: Iterable[str], sheet: Sequence[Parent]
) -> dict[str, dict[str, str]]:
    """Hash the label pixels of each packed sub-chip, by parent and place in it (``r0c1``)."""
    masks = {label: np.load(store.array(mask_layer(label)), mmap_mode="r") for label in sorted(classes)}
    found: dict[str, dict[str, str]] = {parent.parent_id: {} for parent in sheet}
    for row in rows:
        if row["kept"]:
            pixels = b"".join(label.encode() + mask[row["store_index"]].tobytes() for label, mask in masks.items())
            found[row["parent_id"]][f"r{row['row']}c{row['col']}"] = sha256_bytes(pixels)
    return found


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
    near = near_held_out(_boxes(kept, sheet, grid), [row["split"] for row in kept], sheet, assigned, grid, buffer_m)
    for row, split in zip(kept, near, strict=True):
        if split is not None:
            row["kept"], row["store_index"] = False, -1
            row["reason"] = f"within {buffer_m:g} m of a {split} parent"


def _boxes(rows: list[dict[str, Any]], sheet: Sequence[Parent], grid: Grid) -> list[tuple[Parent, shapely.Geometry]]:
    """Give the parent and the square of each sub-chip."""
    of = {parent.parent_id: parent for parent in sheet}
    side = grid.chip_px * grid.resolution_m
    return [
        (of[row["parent_id"]], shapely.box(row["left"], row["top"] - side, row["left"] + side, row["top"]))
        for row in rows
    ]


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
