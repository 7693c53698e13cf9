"""The dataset: a row for every sub-chip, the splits, and one packed store for training."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, read_json, sha256_file, write_json
from cityheads.core.grid import SPLITS, Grid, Parent, chip_ids, parent_polygon, read_parents, subchips
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.core.raster import read_raster
from cityheads.dataset.splits import assign_splits, check_lock, lock_of, missing_classes, near_held_out

__all__ = ["assemble_dataset"]

log = logging.getLogger(__name__)


def assemble_dataset(
    settings: dict[str, Any], *, parents: Path, scenes: Path, quality: Path, chips: Path, out: Path
) -> None:
    """Account for every sub-chip, assign the splits, and pack the kept sub-chips.

    Writes ``store/`` (one array per layer), ``splits.json``, ``classes.json``, ``statistics.json`` and, last,
    ``chips.parquet`` (GeoParquet, EPSG:4326, one row per sub-chip, kept or dropped with the reason).

    Args:
        settings: Sections ``grid``, ``archive.imagery``, ``labels``, ``splits`` and ``quality`` of the config.
        parents: Parent sheet.
        scenes: Folder of the frozen scene choices.
        quality: Folder of the quality files.
        chips: Folder of the sub-chips.
        out: Folder of the dataset.

    Raises:
        CityHeadsError: A file is missing or unreadable, every sub-chip was dropped, or a split lacks a class while
            ``splits.require_every_class`` holds.
    """
    grid = Grid.from_settings(settings["grid"])
    sheet = read_parents(parents, grid)
    labels: dict[str, Any] = settings["labels"]
    modalities = list(settings["archive.imagery"])
    rows: list[dict[str, Any]] = []
    for parent in sheet:
        rows += _rows(parent, grid, scenes, quality, chips, modalities, labels)
    kept = [row for row in rows if row["kept"]]
    if not kept:
        reasons = "; ".join(f"{reason}: {number}" for reason, number in Counter(r["reason"] for r in rows).items())
        raise CityHeadsError(f"all {len(rows)} sub-chips were dropped ({reasons}); see the thresholds in 'quality'")

    pixels = {label: np.stack([row.pop(f"pixels_{label}") for row in rows]) for label in labels}
    keep = np.array([row["kept"] for row in rows])
    of_parent = np.array([row["parent_id"] for row in rows])
    counts = {
        label: np.stack([pixels[label][keep & (of_parent == p.parent_id), :-1].sum(axis=0) for p in sheet])
        for label in labels
    }
    assigned, method = assign_splits(sheet, counts, settings["splits"])
    lock = lock_of(sheet, assigned)
    check_lock(lock, settings["splits"]["test_lock"])
    for row in rows:
        row["split"] = assigned[row["parent_id"]]
    _drop_near_held_out(kept, sheet, assigned, grid, settings["splits"]["buffer_m"])
    kept = [row for row in kept if row["kept"]]
    keep = np.array([row["kept"] for row in rows])
    per_split = {
        split: {
            label: pixels[label][keep & np.array([row["split"] == split for row in rows])].sum(axis=0)
            for label in labels
        }
        for split in SPLITS
    }
    names = {label: [item["name"] for item in rule["classes"]] for label, rule in labels.items()}
    missing = missing_classes({s: {k: v[:-1].tolist() for k, v in of.items()} for s, of in per_split.items()}, names)
    if missing:
        lacks = "; ".join(f"{gap['split']} has no {gap['label']} '{gap['class']}'" for gap in missing)
        if settings["splits"]["require_every_class"]:
            raise CityHeadsError(
                f"{lacks}; add parents, or accept undefined scores with splits.require_every_class: false"
            )
        log.warning("%s", lacks)

    _pack(out / "store", kept, grid, chips, modalities, list(labels))
    for index, row in enumerate(kept):
        row["store_index"] = index
    simulated = any(row["simulated"] for row in rows)
    write_json(
        out / "splits.json",
        {
            "method": method,
            "seed": None if method == "sheet" else settings["splits"]["seed"],
            "test_lock": lock,
            "buffer_m": settings["splits"]["buffer_m"],
            "parents": assigned,
            "class_fractions": {
                split: {label: _fractions(of[label]) for label in labels} for split, of in per_split.items()
            },
            "missing": missing,
        },
    )
    write_json(
        out / "classes.json",
        {
            label: [{"id": i, "name": c["name"], "color": c["color"]} for i, c in enumerate(rule["classes"])]
            for label, rule in labels.items()
        },
    )
    write_json(
        out / "statistics.json",
        {
            "modalities": _statistics(out / "store", kept, modalities),
            "class_pixels": {split: {label: of[label].tolist() for label in labels} for split, of in per_split.items()},
            "chips": {split: sum(row["split"] == split for row in kept) for split in SPLITS},
            "synthesized": {
                name: {
                    split: sum(row["split"] == split and row[f"synthesized_{name}"] for row in kept) for split in SPLITS
                }
                for name in modalities
                if name in RADAR
            },
            "dropped": dict(sorted(Counter(row["reason"] for row in rows if not row["kept"]).items())),
            "simulated": simulated,
        },
    )
    _write_manifest(out / "chips.parquet", rows)
    log.info("%d sub-chips, %d kept; %s", len(rows), len(kept), {s: list(assigned.values()).count(s) for s in SPLITS})


def _drop_near_held_out(
    kept: list[dict[str, Any]], sheet: list[Parent], assigned: dict[str, str], grid: Grid, buffer_m: float
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
    modalities: list[str],
    labels: dict[str, Any],
) -> list[dict[str, Any]]:
    chosen = read_json(scenes / f"{parent.parent_id}.json")
    measured = {chip["chip_id"]: chip for chip in read_json(quality / f"{parent.parent_id}.json")["chips"]}
    if list(measured) != chip_ids(parent.parent_id, grid.chips_per_side):
        raise CityHeadsError(f"{quality / parent.parent_id}.json: lists other sub-chips than the grid; run again")
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
            "simulated": bool(chosen["simulated"]),
        }
        for name in modalities:
            row[f"valid_fraction_{name}"] = found["valid_fraction"][name]
            row[f"in_range_fraction_{name}"] = found["in_range_fraction"][name]
            row[f"scenes_{name}"] = ";".join(item["id"] for item in chosen["layers"][name]["items"])
            row[f"sha256_{name}"] = sha256_file(_chip(chips, name, piece.chip_id))
            if name in RADAR:
                row[f"synthesized_{name}"] = bool(chosen["layers"][name].get("synthesized"))
        for label, rule in labels.items():
            path = _chip(chips, f"MASK_{label}", piece.chip_id)
            mask = read_raster(path)[0][0]
            count = np.bincount(mask.ravel(), minlength=IGNORE + 1)
            classes = len(rule["classes"])
            if count[classes:IGNORE].any():
                raise CityHeadsError(f"{path}: holds a class beyond {classes - 1}; delete it and run again")
            row[f"pixels_{label}"] = np.append(count[:classes], count[IGNORE])
            row[f"ignored_fraction_{label}"] = float(count[IGNORE] / mask.size)
            for index, share in enumerate(_fractions(row[f"pixels_{label}"])):
                row[f"fraction_{label}_{index}"] = share
            row[f"sha256_MASK_{label}"] = sha256_file(path)
        row["geometry"] = parent_polygon(
            Parent(piece.chip_id, parent.epsg, row["left"], row["top"]),
            Grid(grid.resolution_m, grid.chip_px, 1),
            4326,
        )
        rows.append(row)
    return rows


def _chip(chips: Path, layer: str, chip: str) -> Path:
    path = chips / layer / f"{chip}.tif"
    if not path.exists():
        raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
    return path


def _fractions(pixels: np.ndarray) -> list[float | None]:
    """Give class shares of the labelled pixels; None where nothing is labelled. The last count is of ignored ones."""
    total = int(pixels[:-1].sum())
    return [float(count / total) if total else None for count in pixels[:-1]]


def _pack(
    store: Path, kept: list[dict[str, Any]], grid: Grid, chips: Path, modalities: list[str], labels: list[str]
) -> None:
    """Write one array per layer, chip after chip, straight to disk; and the index, last."""
    px = grid.chip_px
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        name: ((len(kept), len(MODALITIES[name].bands), px, px), MODALITIES[name].dtype) for name in modalities
    }
    shapes |= {f"MASK_{label}": ((len(kept), px, px), "uint8") for label in labels}
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        path = store / f"{name}.npy"
        with atomic_path(path) as part:
            target = np.lib.format.open_memmap(part, mode="w+", dtype=np.dtype(dtype), shape=shape)
            for index, row in enumerate(kept):
                array = read_raster(_chip(chips, name, row["chip_id"]))[0]
                target[index] = array if name in MODALITIES else array[0]
            target.flush()
            del target
        arrays[name] = {"dtype": dtype, "shape": list(shape), "sha256": sha256_file(path)}
    write_json(
        store / "index.json",
        {"format": 1, "chips": [row["chip_id"] for row in kept], "chip_px": px, "arrays": arrays},
    )


def _statistics(store: Path, kept: list[dict[str, Any]], modalities: list[str]) -> dict[str, Any]:
    """Give mean and standard deviation per band over the valid pixels of the training split, in stored units."""
    train = [index for index, row in enumerate(kept) if row["split"] == "train"]
    found = {}
    for name in modalities:
        modality = MODALITIES[name]
        array = np.load(store / f"{name}.npy", mmap_mode="r")
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


def _write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    import geopandas as gpd

    frame = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    with atomic_path(path) as part:
        frame.to_parquet(part, index=False, write_covering_bbox=True, schema_version="1.1.0")
