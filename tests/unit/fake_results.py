"""A plausible results folder without running anything: smooth random cities, noisy predictions, honest counts.

Every artifact has the shape that the workflow gives it; the scores, matrices and tables agree with the arrays, so that
tests can check the figures and the report against numbers computed here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from config_fixtures import merge
from scene_fixtures import chosen_item, chosen_layer, layer_reading, reading, scene_choice

from cityheads.config import Config, load_config, resolve
from cityheads.core.artifacts.calibration import Calibration
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.environment import ENVIRONMENT
from cityheads.core.artifacts.footprints import FOOTPRINTS_SUMMARY
from cityheads.core.artifacts.gate import GATE, Gate, Lead, Needed
from cityheads.core.artifacts.history import write_history
from cityheads.core.artifacts.metrics import METRICS, AblatedHead
from cityheads.core.artifacts.model import MODEL
from cityheads.core.artifacts.quality import QUALITY
from cityheads.core.artifacts.reading import READING
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX, StoredArray
from cityheads.core.artifacts.training import TRAINING
from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.confusion import HeadMetric
from cityheads.core.files import sha256_file, write_bytes
from cityheads.core.grid import SPLITS, Grid, Parent, parent_polygon, read_parents, subchips
from cityheads.core.layout import DatasetFolder, LabelFolder, Layout, RunFolder
from cityheads.core.modalities import MODALITIES, removable
from cityheads.evaluation.ablation import measure
from cityheads.evaluation.compare import compare
from cityheads.evaluation.scores.calibration import fit_head
from cityheads.evaluation.writing import HeadResult, by_parent, confusions_of, write_evaluation
from cityheads.labels.geoparquet import geo_table
from cityheads.verbs import VERBS

#: What the archive of the default config gives.
IMAGERY = ("S2L2A", "S1RTC", "DEM")

ROOT = Path(__file__).parents[2]


@dataclass
class Fake:
    """Where the folder is, and the config it was made for."""

    results: Path
    parents: Path
    config: Config

    def settings(self, verb: str) -> Config:
        """Give the config as the command line hands it to a verb."""
        return self.config.restricted_to(VERBS[verb].sections)

    def change(self, **sections: Any) -> None:
        """Lay sections over the config."""
        self.config = resolve(merge(self.config.to_dict(), sections))

    @property
    def layout(self) -> Layout:
        """Names of the files."""
        return Layout(self.results)

    def gate(self) -> Gate:
        """Read the verdict."""
        return GATE.read(self.layout.gate)


def make(
    root: Path,
    *,
    simulated: bool = True,
    verdict: str | None = None,
    seeds: Sequence[int] = (0,),
    zones: bool = False,
    extra: bool = False,
    seed: int = 3,
    overrides: dict[str, Any] | None = None,
) -> Fake:
    """Write a complete results folder under ``root``.

    Args:
        root: Folder that takes ``parents.tsv`` and ``results/``.
        simulated: Whether the data call themselves simulated.
        verdict: Verdict to put into gate.json; None leaves what the gate says.
        seeds: Seeds of every run.
        zones: Three parents of 2 x 2 sub-chips in three UTM zones in place of the 22.
        extra: A third head (``built``, on the footprints again) and a fourth run of it.
        seed: Seed of the random city.
        overrides: What is laid over the default's config.
    """
    changes: dict[str, Any] = {
        "grid": {"parent_px": 128, "chips_per_side": 4, "resolution_m": 20}, "seeds": list(seeds),
        "model": {"normalization": "pretraining"},  # what is faked has no statistics worth the name
    }  # fmt: skip
    if not simulated:
        changes["archive"] = {"provider": "stac", "catalog": "https://stac.example.org/v1"}
        changes["labels"] = {"BUILDINGS": {"source": "footprints.parquet", "boundary": "city.gpkg"}}
    if extra:
        changes["heads"] = {"built": {"label": "BUILDINGS", "metric": "miou"}}
        changes["runs"] = {
            "multihead": {"heads": ["lulc", "buildings", "built"]},
            "built": {"heads": ["built"]},
            "pair": {"heads": ["lulc", "built"]},
        }
    if zones:
        changes["grid"] = {"parent_px": 64, "chips_per_side": 2, "resolution_m": 10, "aligned": False}
    default = load_config(ROOT / "config" / "config.yaml").to_dict()
    config = resolve(merge(merge(default, changes), overrides or {}))
    results = root / "results"
    sheet = root / "parents.tsv"
    if zones:
        rows = ["chile\t32718\t690011.3\t5713402.7\ttrain", "peru\t32722\t401234.5\t9012345.6\tval",
                "kenya\t32736\t512003.1\t9876543.2\ttest"]  # fmt: skip
        write_bytes(sheet, ("parent_id\tepsg\tleft\ttop\tsplit\n" + "\n".join(rows) + "\n").encode())
    else:
        write_bytes(sheet, (ROOT / "config" / "parents.tsv").read_bytes())
    grid = config.grid.grid
    parents = read_parents(sheet, grid)
    fake = Fake(results, sheet, config)
    layout = fake.layout
    rng = np.random.default_rng(seed)
    splits = _assign(parents)
    kept = _dataset(layout.dataset(0), parents, splits, grid, config, simulated, rng)
    _sources(layout, parents, simulated)
    _boundary(layout.label("BUILDINGS"), parents, grid)
    for run, rule in config.runs.items():
        for number in seeds:
            _train(layout.run(run, 0, number), run, number, rule.heads, config, kept, simulated)
    for run, rule in config.runs.items():
        for number in seeds:
            _evaluate(layout, run, number, rule.heads, config, kept, simulated, rng)
    _controls(layout, config, seeds)
    _gate(fake, verdict)
    _benchmarks(layout.benchmarks, parents, config, seeds)
    return fake


def _assign(parents: list[Parent]) -> dict[str, str]:
    if parents[0].split:
        return {parent.parent_id: str(parent.split) for parent in parents}
    order = ["train", "train", "test", "train", "val", "train", "train", "test"]
    return {parent.parent_id: order[index % len(order)] for index, parent in enumerate(parents)}


def _field(rng: np.random.Generator, px: int, scale: int) -> np.ndarray:
    coarse = rng.normal(size=(px // scale + 3, px // scale + 3))
    at = np.arange(px) / scale
    low = at.astype(int)
    part = at - low
    part = part * part * (3 - 2 * part)
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _dataset(
    out: DatasetFolder,
    parents: list[Parent],
    splits: dict[str, str],
    grid: Grid,
    config: Config,
    simulated: bool,
    rng: np.random.Generator,
) -> pd.DataFrame:
    px = grid.parent_px
    reflect = np.array([[400, 900, 600], [1500, 1450, 1500], [350, 600, 300], [700, 1100, 800], [2100, 2000, 1700]])
    vv = np.array([-20.0, -6.0, -9.0, -12.0, -13.0])
    rows: list[dict[str, Any]] = []
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in (*IMAGERY, *map(mask_layer, config.labels))}
    for parent in parents:
        base = _field(rng, px, px // 4)
        fine = _field(rng, px, px // 16)
        lulc = np.digitize(base + 0.4 * fine, [-0.9, 0.35, 0.8, 1.6])
        house = (lulc == 1) & (np.kron(rng.random((px // 2, px // 2)), np.ones((2, 2))) < 0.45)
        light = np.take(reflect, lulc, axis=0).astype(float) + house[..., None] * 700
        light += rng.normal(0, 60, light.shape)
        s2 = np.repeat(np.clip(light, 1, 9000).transpose(2, 0, 1), 4, axis=0)[
            [8, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        ].astype(np.uint16)
        s1 = np.stack([vv[lulc] + house * 6, vv[lulc] - 6]) + rng.normal(0, 1.5, (2, px, px))
        lulc_mask = lulc.astype(np.uint8)
        mask = house.astype(np.uint8)
        if rng.random() < 0.4:  # outside the surveyed area
            mask[:, : px // 3] = IGNORE
        for piece in subchips(parent, grid):
            cut = (piece.row_slice, piece.col_slice)
            draw = rng.random()
            reason = "" if draw > 0.1 else "too cloudy" if draw > 0.03 else "S1RTC has too many missing pixels"
            row: dict[str, Any] = {
                "chip_id": piece.chip_id, "parent_id": parent.parent_id, "row": piece.row, "col": piece.col,
                "split": splits[parent.parent_id], "kept": not reason, "reason": reason, "epsg": parent.epsg,
                "left": piece.geobox.transform.c, "top": piece.geobox.transform.f, "chip_px": grid.chip_px,
                "resolution_m": grid.resolution_m, "clear_fraction": 0.5 if "cloud" in reason else 0.99,
                "hidden_fraction": 0.5 if "cloud" in reason else 0.01,
                "store_index": -1 if reason else len(arrays["S2L2A"]), "simulated": simulated,
            }  # fmt: skip
            for name in IMAGERY:
                row[f"valid_fraction_{name}"] = 0.6 if name in reason else 1.0
                row[f"scenes_{name}"] = f"{name}-{parent.parent_id}"
                row[f"sha256_{name}"] = "0" * 64
            for label, layer in (("LULC", lulc_mask), ("BUILDINGS", mask)):
                row[f"ignored_fraction_{label}"] = float((layer[cut] == IGNORE).mean())
                row[f"sha256_MASK_{label}"] = "0" * 64
            side = Grid(grid.resolution_m, grid.chip_px, 1)
            row["geometry"] = parent_polygon(Parent(piece.chip_id, parent.epsg, row["left"], row["top"]), side, 4326)
            rows.append(row)
            if not reason:
                arrays["S2L2A"].append(s2[:, cut[0], cut[1]])
                arrays["S1RTC"].append(s1[:, cut[0], cut[1]].astype(np.float32))
                arrays["DEM"].append(np.full((1, grid.chip_px, grid.chip_px), 12, np.float32))
                arrays["MASK_LULC"].append(lulc_mask[cut])
                arrays["MASK_BUILDINGS"].append(mask[cut])
    frame = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    out.store.root.mkdir(parents=True, exist_ok=True)
    squares = np.array([row.pop("geometry") for row in rows], object)
    CHIPS.write(out.chips, geo_table(squares, pa.Table.from_pylist(rows), 4326))
    index = {}
    for name, pieces in arrays.items():
        stack = np.stack(pieces)
        np.save(out.store.array(name), stack)
        index[name] = StoredArray(
            dtype=stack.dtype.name, shape=list(stack.shape), sha256=sha256_file(out.store.array(name))
        )
    kept = frame[frame.kept].reset_index(drop=True)
    STORE_INDEX.write(out.store.index, {"chips": kept.chip_id.tolist(), "chip_px": grid.chip_px, "arrays": index})
    pixels: dict[str, dict[str, list[int]]] = {}
    for split in SPLITS:
        at = kept.index[kept.split == split]
        pixels[split] = {}
        for label, rule in config.labels.items():
            values = np.stack(arrays[mask_layer(label)])[at]
            pixels[split][label] = [int((values == c).sum()) for c in range(len(rule.classes))]
            pixels[split][label].append(int((values == IGNORE).sum()))
    SPLIT_ASSIGNMENT.write(
        out.splits,
        {
            "method": "search", "fold": 0, "folds": 1, "seed": 7, "test_lock": "00000000-00000000", "buffer_m": 0.0,
            "gap_to_training": {"nearest_m": 0.0, "median_m": 2240.0, "touching": 3},
            "parents": splits,
            "tested_in": {parent: 0 if split == "test" else None for parent, split in splits.items()},
            "class_fractions": {
                split: {k: [n / max(sum(v[:-1]), 1) for n in v[:-1]] for k, v in of.items()}
                for split, of in pixels.items()
            },
            "missing": [
                {"split": split, "label": label, "class": rule.classes[i].name}
                for split in SPLITS
                for label, rule in config.labels.items()
                for i, n in enumerate(pixels[split][label][:-1])
                if n == 0
            ],
        },
    )  # fmt: skip
    CLASSES.write(
        out.classes,
        {
            "labels": {
                label: [{"id": i, "name": c.name} for i, c in enumerate(rule.classes)]
                for label, rule in config.labels.items()
            }
        },
    )
    reasons = frame[~frame.kept].reason.value_counts()
    STATISTICS.write(
        out.statistics,
        {
            "modalities": {
                name: {key: list(getattr(MODALITIES[name], key)) for key in ("bands", "mean", "std")}
                for name in IMAGERY
            },
            "class_pixels": pixels,
            "chips": {split: int((kept.split == split).sum()) for split in SPLITS},
            "synthesized": {},
            "dropped": {reason: int(reasons[reason]) for reason in sorted(reasons.index)},
            "simulated": simulated,
        },
    )
    return kept


def _sources(layout: Layout, parents: list[Parent], simulated: bool) -> None:
    for index, parent in enumerate(parents):
        new = index % 3 != 0
        days = [f"2024-07-{day - index % 5:02d}" for day in (20, 18)]
        s2 = [
            chosen_item(
                f"S2{'AB'[index % 2]}_MSIL2A_{days[0].replace('-', '')}T154941_R054_T18T{tile}_20240720T000000",
                collection="sentinel-2-l2a", datetime=f"{days[0]}T15:49:41Z", offset_dn=1000 if new else 0,
                properties={
                    "eo:cloud_cover": 3.25 + index, "s2:processing_baseline": "05.10" if new else "02.14",
                    "s2:mgrs_tile": f"18T{tile}",
                },
            )
            for tile in (["WL", "XL"] if index % 4 == 0 else ["WL"])
        ]  # fmt: skip
        s1 = chosen_item(
            f"S1A_IW_GRDH_1SDV_{days[1].replace('-', '')}T225124_20240718T225149_054821_06ACF1_rtc",
            collection="sentinel-1-rtc", datetime=f"{days[1]}T22:51:36Z",
            properties={"sat:orbit_state": "ascending", "sat:relative_orbit": 33, "platform": "SENTINEL-1A"},
        )  # fmt: skip
        dem = chosen_item("Copernicus_DSM_COG_10_N40_00_W074_00_DEM", collection="cop-dem-glo-30", datetime=None)
        lulc = chosen_item(
            "ESA_WorldCover_10m_2021_v200_N39W075", collection="esa-worldcover", datetime="2021-01-01T00:00:00Z"
        )
        layers = {
            name: chosen_layer(items, collection=items[0]["collection"], why=why, considered=9)
            for name, items, why in (
                ("S2L2A", s2, "clearest over the parent of 9 candidates"),
                ("S1RTC", [s1], "nearest in time, 1.7 days"),
                ("DEM", [dem], "the only one"),
                ("LULC", [lulc], "newest"),
            )
        }
        layers["S2L2A"] |= {
            "rejected": [{"id": "S2A_OTHER", "reason": "cloud over the parent 0.64"}], "clear_fraction": 0.97,
            "cost": {
                "points": 4.2, "cloud_percent": 3.0, "missing_percent": 0.0, "days": 6.0, "cloud_points": 3.0,
                "missing_points": 0.0, "day_points": 1.2,
            },
        }  # fmt: skip
        choice = scene_choice(parent, layers, simulated=simulated, catalog="results/archive/catalog.json")
        SCENES.write(layout.scene_choice(parent.parent_id), choice)
        read = {
            "S2L2A": layer_reading([item["id"] for item in s2], clear_fraction=0.95),
            "S1RTC": layer_reading([s1["id"]], valid_fraction=0.99, median_db={"VV": -8.2, "VH": -14.9}),
        }
        READING.write(layout.parent(parent.parent_id).reading, reading(parent.parent_id, read, simulated=simulated))
        QUALITY.write(layout.chip_quality(parent.parent_id), {"parent_id": parent.parent_id, "chips": []})


def _boundary(out: LabelFolder, parents: list[Parent], grid: Grid) -> None:
    codes = {parent.epsg for parent in parents}
    if len(codes) == 1:
        squares = shapely.union_all([parent_polygon(parent, grid) for parent in parents])
        city = shapely.concave_hull(squares, ratio=0.25).buffer(-grid.side_m / 3)
    else:
        city = shapely.union_all([parent_polygon(parent, grid, 4326).buffer(-0.001) for parent in parents])
    epsg = codes.pop() if len(codes) == 1 else 4326
    out.root.mkdir(parents=True, exist_ok=True)
    frame = gpd.GeoDataFrame({"name": ["city"]}, geometry=[city], crs=epsg)
    frame.to_parquet(out.boundary, index=False)
    FOOTPRINTS_SUMMARY.write(
        out.summary,
        {
            "label": "BUILDINGS", "columns": {"bin": "bin"}, "epsg": epsg, "rows": 120_004, "kept": 119_990,
            "ignored": 40, "feature_codes": {"2100": 119_991, "1000": 13}, "repaired": 12, "unreadable_values": {},
            "unknown_construction_year": 0, "unknown_height": 0, "area_km2": 41.253,
            "dropped": {"no_area": 0, "ground": 13, "duplicate": 1},
            "source": {"file": "footprints.geojson", "sha256": "1" * 64, "crs": "EPSG:4326", "crs_assumed": False},
            "boundary": {
                "file": "boundary.geojson", "sha256": "2" * 64, "crs": "EPSG:4326", "crs_assumed": False, "rows": 1,
                "kept": 1, "repaired": 0, "area_km2": 783.0,
            },
        },
    )  # fmt: skip


def _train(
    out: RunFolder,
    run: str,
    seed: int,
    heads: Sequence[str],
    config: Config,
    kept: pd.DataFrame,
    simulated: bool,
) -> None:
    rng = np.random.default_rng([seed, len(run)])
    epochs = 9
    rows = []
    for epoch in range(epochs):
        row: dict[str, float] = {"epoch": epoch, "lr": 1e-3 * (1 - epoch / epochs)}
        for part, lag in (("train", 0.0), ("val", 0.06)):
            for head in heads:
                row[f"{part}/{head}/loss"] = round(0.25 + lag + 0.5 * np.exp(-epoch / 3) + rng.normal(0, 0.01), 5)
            row[f"{part}/loss"] = round(sum(row[f"{part}/{head}/loss"] for head in heads), 5)
        for head in heads:
            metric = config.heads[head].metric
            row[f"val/{head}/{metric}"] = round(0.62 - 0.4 * np.exp(-epoch / 3) + rng.normal(0, 0.012), 5)
        rows.append(row)
    write_history(out.history, {head: config.heads[head].metric for head in heads}, rows)
    sizes = {head: 740_000 + 1000 * i for i, head in enumerate(heads)}
    total = 6_100_000 + sum(sizes.values())
    TRAINING.write(
        out.training,
        {
            "run": run, "fold": 0, "seed": seed, "checkpoint": "last", "kept_epoch": epochs - 1, "steps": 90,
            "schedule": {
                "epochs": epochs, "batch_size": 16, "accumulate": 1, "lr": 0.003, "warmup_fraction": 0.1,
                "weight_decay": 0.01,
            },
            "chips_seen": 90 * 16, "score": 0.61, "scores": dict.fromkeys(heads, 0.61),
            "settings": {}, "candidates": 1,
            "parameters": {"total": total, "trainable": total, "encoder": 6_100_000, "heads": sizes},
            "chips": {split: int((kept.split == split).sum()) for split in SPLITS},
        },
    )  # fmt: skip
    rules = {head: config.heads[head] for head in heads}
    MODEL.write(
        out.model,
        {
            "run": run, "fold": 0, "seed": seed, "backbone": config.model.backbone,
            "model": config.model.model_dump(mode="json"),
            "modalities": {}, "chip_px": config.grid.grid.chip_px, "simulated": simulated,
            "heads": {
                head: {
                    "label": rule.label, "loss": rule.loss, "weight": rule.weight, "metric": rule.metric,
                    "positive_class": rule.positive_class, "decoder": rule.decoder, "decoder_args": {},
                    "neck": rule.neck, "class_weights": None, "lr": rule.lr,
                    "classes": [
                        {"id": index, "name": name} for index, name in enumerate(config.labels[rule.label].class_names)
                    ],
                }
                for head, rule in rules.items()
            },
        },
    )  # fmt: skip
    ENVIRONMENT.write(
        out.environment,
        {
            "python": "3.11.9", "platform": "Linux x86_64",
            "packages": {"cityheads": "0.1.0", "torch": "2.14.1", "terratorch": "1.2.11", "snakemake": None},
            "revision": "0123456789abcdef0123456789abcdef01234567", "device": "cpu", "threads": 2, "weights": None,
            "wall_s": 61.2, "peak_memory_mb": 1870.5, "peak_gpu_memory_mb": None, "cpu_energy_j": None,
            "inference_chips_per_s": 87.5,
        },
    )  # fmt: skip


def _evaluate(
    layout: Layout,
    run: str,
    seed: int,
    heads: Sequence[str],
    config: Config,
    kept: pd.DataFrame,
    simulated: bool,
    rng: np.random.Generator,
) -> None:
    modalities = removable(config.model.modalities)
    without: dict[str, dict[str, AblatedHead]] = {name: {} for name in modalities}
    hidden: dict[str, dict[str, AblatedHead]] = {"zeroed": {}, "permuted": {}, "image_skip": {}}
    fitted: Calibration | None = None
    # streams of their own: the city must not change with what is measured besides
    for split, draws in (("val", np.random.default_rng([seed, len(run), 1])), ("test", rng)):
        held = kept[kept.split == split]
        parents = held.parent_id.tolist()
        results = {head: _result(layout, head, config, held, draws, [seed, len(run), len(head)]) for head in heads}
        if split == "val":
            calibrated = {
                head: fit_head(one.probabilities, one.masks, parents, one.metric.classes, one.metric.positive_class)
                for head, one in results.items()
                if one.probabilities is not None
            }
            fitted = {
                "run": run, "fold": 0, "seed": seed, "parents": list(dict.fromkeys(parents)), "heads": calibrated,
            }  # fmt: skip
        else:
            for head, one in results.items():
                chance = np.random.default_rng([seed, len(run), len(head)])
                before = by_parent(parents, confusions_of(one))
                for number, (table, name) in enumerate(
                    [(without, name) for name in modalities] + [(hidden, name) for name in hidden]
                ):
                    lost = chance.random(one.masks.shape) < max(0.4 - 0.19 * number, 0.02)
                    worse = replace(one, predictions=np.where(lost, 0, one.predictions).astype(np.uint8))
                    after = by_parent(parents, confusions_of(worse))
                    table[name][head] = measure(
                        np.stack(list(before.values())), np.stack(list(after.values())), one.metric, list(before)
                    )
        beside, asked = split == "test", config.evaluation
        write_evaluation(
            layout.evaluation(run, 0, seed, split),
            run=run,
            fold=0,
            seed=seed,
            split=split,
            kind="run",
            simulated=simulated,
            chips=held.chip_id.tolist(),
            parents=parents,
            resolution_m=config.grid.resolution_m,
            heads=results,
            settings=asked,
            calibration=fitted,
            modality_ablation=without if beside and asked.modality_ablation else None,
            not_ablated={"S2L2A": "the only image that the model sees"} if beside and not modalities else {},
            encoder_occlusion=hidden if beside and asked.encoder_occlusion else None,
        )


def _result(
    layout: Layout, head: str, config: Config, held: pd.DataFrame, rng: np.random.Generator, stream: list[int]
) -> HeadResult:
    """Make predictions with patches of errors, and scores that are too sure of themselves."""
    rule = config.heads[head]
    names = list(config.labels[rule.label].class_names)
    truth = np.load(layout.store.array(mask_layer(rule.label)))[held.index]
    guess = np.where(truth == IGNORE, 0, truth)
    level = rng.uniform(0.05, 0.45, len(held))[:, None, None]
    flip = np.kron(rng.random((len(held), truth.shape[1] // 4, truth.shape[2] // 4)), np.ones((4, 4))) < level
    guess = np.where(flip, rng.integers(0, len(names), truth.shape), guess).astype(np.uint8)
    rest = np.random.default_rng(stream).uniform(0.01, 0.3, truth.shape).astype(np.float32)
    ways = range(len(names))
    scores = np.stack([np.where(guess == i, 1 - rest, rest / (len(names) - 1)) for i in ways], axis=1)
    return HeadResult(
        rule.label, HeadMetric.of(rule.metric, names, rule.positive_class), truth, guess, scores.astype(np.float32)
    )


def _controls(layout: Layout, config: Config, seeds: Sequence[int]) -> None:
    """Write the controls that the config asks for: the tested run's hits, of which each control has its share."""
    tested = METRICS.read(layout.evaluation(config.noninferiority.run, 0, seeds[0]).metrics)
    shares = {"majority": 0.3, "proxy": 0.4, "pixels": 0.6, "pixels_context": 0.7}
    made = [(name, 0) for name in config.untrained_controls]
    made += [(name, seed) for name in config.trained_controls for seed in config.control_seeds]
    for name, seed in made:
        control = copy.deepcopy(tested)
        control |= {"run": name, "seed": seed, "kind": "control" if name in shares else "run"}
        control |= {"modality_ablation": None, "encoder_occlusion": None}
        for part in control["heads"].values():
            for parent in part["per_parent"].values():
                for label, row in enumerate(parent["confusion"]):
                    lost = row[label] - int(row[label] * shares.get(name, 0.8))
                    row[label] -= lost
                    row[(label + 1) % len(row)] += lost
        METRICS.write(layout.evaluation(name, 0, seed).metrics, control)


def chip_rows(fake: Fake) -> list[dict[str, Any]]:
    """Read ids and store indices of the sub-chips."""
    return CHIPS.read(fake.layout.dataset(0).chips, ("chip_id", "store_index"))


def held_against(gate: Gate) -> Gate:
    """Add a ceiling and what more data would bring, where the evaluations that the verdict was made of show neither."""
    for part in gate["heads"].values():
        score = min(0.97, (part["multihead"] or 0.5) + 0.2)
        models: dict[str, Lead] = {}
        for run, own in ((gate["run"], part["multihead"]), (part["baseline"], part["single_task"])):
            delta = None if own is None else 100 * (own - score)
            ends = None if delta is None else [delta - 2, delta + 2]
            models[run] = {"score": own, "delta_pp": delta, "interval_pp": ends, "beaten": False}
        part["ceiling"] = {"score": score, "interval": [score - 0.02, score + 0.02], "models": models}
        needed: list[Needed] = [
            {"margin_pp": 1.0, "parents": 31, "seeds": 7, "both": [18, 4]},
            {"margin_pp": 3.0, "parents": 6, "seeds": None, "both": None},
        ]
        part["power"] = {"power": 0.8, "detectable_pp": 2.4, "needed": needed}
    return gate


def _gate(fake: Fake, verdict: str | None) -> None:
    """Let the comparison decide; then, where a test wants another verdict, put that in its place."""
    layout = fake.layout
    compare(fake.settings("compare"), evaluation=layout.evaluations / "test", page=layout.verdict_page, out=layout.gate)
    GATE.write(layout.gate, held_against(fake.gate()))
    if verdict is not None:
        found = fake.gate()
        found |= {"verdict": verdict, "reason": f"The rule says {verdict} & gives <these> numbers.", "advice": ""}
        if verdict == "inconclusive":
            found["advice"] = "If the deltas stay as they are, 14 more test parents (19 in all) would decide it."
        GATE.write(layout.gate, found)


def _benchmarks(out: Path, parents: list[Parent], config: Config, seeds: Sequence[int]) -> None:
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    jobs = {
        "simulate_archive": ["all"],
        "prepare_footprints": ["BUILDINGS"],
        "pack_store": ["store"],
        "assemble_dataset": ["0"],
    }
    for rule in ("select_scenes", "read_parent", "slice_parent", "rasterize_landcover", "rasterize_buildings"):
        jobs[rule] = [parent.parent_id for parent in parents]
    for rule in ("train", "evaluate"):
        jobs[rule] = [f"{run}_0_{seed}" for run in config.runs for seed in seeds]
    jobs["compare"] = ["all"]
    for number, (rule, names) in enumerate(jobs.items()):
        for index, name in enumerate(names):
            seconds = {"train": 70.0, "evaluate": 16.0, "simulate_archive": 14.0}.get(rule, 1.1) + index * 0.05
            memory = "NA" if rule == "compare" else f"{80 + 60 * number}.00"
            row = [f"{seconds:.4f}", "0:00:01", memory] + ["10.0"] * 7
            write_bytes(out / rule / f"{name}.tsv", (head + "\t".join(row) + "\n").encode())
