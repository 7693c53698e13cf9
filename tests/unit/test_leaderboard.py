"""The leaderboard: scores on validation with intervals, costs, and the front that no other row beats."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from config_fixtures import make_config
from training_fixtures import write_training

from cityheads.core.artifacts.leaderboard import LEADERBOARD, Leaderboard
from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.core.layout import Layout, LeaderboardFolder
from cityheads.evaluation.leaderboard import leaderboard, pareto_front
from cityheads.verbs import VERBS


def test_the_front_is_what_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    for trial in range(200):
        count, dims = int(rng.integers(1, 12)), int(rng.integers(1, 4))
        points = rng.integers(0, 5, (count, dims)).astype(float)  # small whole numbers, so that many are equal
        if trial % 2:
            points[rng.random((count, dims)) < 0.15] = np.nan
        expected = []
        for one in points:
            beaten = any(
                all(a <= b for a, b in zip(other, one, strict=True))
                and any(a < b for a, b in zip(other, one, strict=True))
                for other in points
                if not any(np.isnan(other))
            )
            expected.append(not beaten and not any(np.isnan(one)))
        assert pareto_front(points).tolist() == expected


def test_the_front_of_a_known_case() -> None:
    points = np.array([[-0.8, 6.0], [-0.7, 2.0], [-0.7, 3.0], [-0.8, 6.0], [np.nan, 1.0], [-0.1, 2.0]])
    assert pareto_front(points).tolist() == [True, True, False, True, False, False]


#: IoU of each validation parent, by run; a seed adds a hundredth.
IOUS = {
    "multihead": {"lulc": [0.6, 0.7, 0.5], "buildings": [0.3, 0.5, 0.4]},
    "lulc": {"lulc": [0.62, 0.71, 0.5]},
    "buildings": {"buildings": [0.31, 0.45, 0.4]},
    "small": {"lulc": [0.6, 0.7, 0.5], "buildings": [0.3, 0.5, 0.4]},
    "same": {"lulc": [0.6, 0.7, 0.5], "buildings": [0.3, 0.5, 0.4]},
}
CLASSES = {"lulc": ["water", "land"], "buildings": ["not building", "building"]}


@dataclass(frozen=True)
class Place:
    """A results folder with trainings and their evaluations on validation, and a sheet beside it."""

    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root / "results")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    sheet = tmp_path / "experiments.tsv"
    sheet.write_text("name\tset\tcomment\nsmall\tmodel.merge=max model.modalities=[S2L2A]\tless of all\nsame\t\t\n")
    found = Place(tmp_path)
    for run, heads in IOUS.items():
        for seed in (0, 1):
            write_run(found.layout, run, seed, heads)
    return found


def write_run(layout: Layout, run: str, seed: int, heads: dict[str, list[float]]) -> None:
    write_training(layout, run, seed, list(heads))
    parents = ["P1", "P2", "P3"]
    METRICS.write(
        layout.evaluation(run, 0, seed, "val").metrics,
        {
            "run": run, "fold": 0, "seed": seed, "split": "val", "kind": "run", "simulated": True, "parents": parents,
            "chips": 12, "chips_sha256": "0" * 64, "confidence": 0.95, "modality_ablation": None, "not_ablated": {},
            "encoder_occlusion": None,
            "heads": {head: scores(head, ious, seed, parents) for head, ious in heads.items()},
        },
    )  # fmt: skip


def scores(head: str, ious: list[float], seed: int, parents: list[str]) -> Any:
    """Give what an evaluation says of a head; only what the leaderboard looks at is filled in truly."""
    # of 1000 pixels a class, k right in both classes make an IoU of k / (2000 - k)
    right = [round(2000 * (iou + 0.01 * seed) / (1 + iou + 0.01 * seed)) for iou in ious]
    counts = [[[one, 1000 - one], [1000 - one, one]] for one in right]
    positive = "building" if head == "buildings" else None
    empty: list[float | None] = [None, None]
    return {
        "label": head.upper(), "classes": CLASSES[head], "confusion": np.sum(counts, axis=0).tolist(), "iou": empty,
        "miou": None, "f1": empty, "mf1": None, "precision": empty, "recall": empty, "accuracy": None, "pixels": 6000,
        "ignored": 0, "interval": None, "kappa": {"value": None, "interval": None}, "application": {}, "boundary": {},
        "calibration": None, "positive": None,
        "metric": {"name": "iou" if positive else "miou", "positive_class": positive, "value": None},
        "per_parent": {name: {"confusion": one, "value": None} for name, one in zip(parents, counts, strict=True)},
    }  # fmt: skip


def made(place: Place, sheet: bool = True) -> tuple[Leaderboard, LeaderboardFolder]:
    folder = place.layout.leaderboard
    leaderboard(
        make_config(seeds=[0, 1]).restricted_to(VERBS["leaderboard"].sections),
        results=place.layout.root,
        out=folder.root,
        experiments=place.root / "experiments.tsv" if sheet else None,
    )
    return LEADERBOARD.read(folder.record), folder


def test_runs_and_experiments_stand_side_by_side(place: Place) -> None:
    # half the parameters and half the time, at the same score: the copy of the run under test is beaten
    for seed in (0, 1):
        path = place.layout.run("small", 0, seed).training
        one = read_json(path)
        write_json(path, one | {"parameters": one["parameters"] | {"total": 3_000_000}})
        where = place.layout.run("small", 0, seed).environment
        write_json(
            where, read_json(where) | {"wall_s": 10.0 + seed, "cpu_energy_j": 700.0, "peak_memory_mb": 900.0 + seed}
        )
    board, folder = made(place)
    entries = {entry["name"]: entry for entry in board["entries"]}
    assert [entry["name"] for entry in board["entries"]] == ["multihead", "same", "small", "buildings", "lulc"]
    small, same = entries["small"], entries["same"]
    assert small["set"] == {"model.merge": "max", "model.modalities": ["S2L2A"]}
    assert small["comment"] == "less of all"
    assert (small["experiment"], entries["multihead"]["experiment"]) == (True, False)
    assert (small["heads"]["lulc"]["delta_pp"], small["heads"]["lulc"]["delta_interval_pp"]) == (0, [0, 0])
    assert entries["lulc"]["heads"]["lulc"]["delta_pp"] == pytest.approx(1, abs=0.5), "about +2, +1 and 0 points"
    assert entries["multihead"]["heads"]["lulc"]["delta_pp"] is None
    assert small["cost"]["train_s"] == 10.5
    assert (small["cost"]["cpu_energy_j"], same["cost"]["cpu_energy_j"]) == (700.0, None)
    assert small["cost"]["peak_memory_mb"] == 901.0
    assert small["front"] == {"parameters": True, "train_s": True}
    assert same["front"] == {"parameters": False, "train_s": False}
    assert entries["lulc"]["front"] == {"parameters": True, "train_s": True}, "it is no rival: it has other heads"
    # the scores are those of all validation parents together, averaged over the seeds
    found = [METRICS.read(place.layout.evaluation("small", 0, seed, "val").metrics) for seed in (0, 1)]
    for head, part in small["heads"].items():
        first = found[0]["heads"][head]
        metric = HeadMetric.of(part["metric"], first["classes"], part["positive_class"])
        expected = [float(metric(np.array(one["heads"][head]["confusion"]))) for one in found]
        assert part["score"] == pytest.approx(np.mean(expected))
        assert part["interval"] is not None
        assert part["interval"][0] < part["score"] < part["interval"][1]
    assert small["score"] == pytest.approx(np.mean([part["score"] for part in small["heads"].values()]))
    table = pq.read_table(folder.table).to_pylist()
    assert [(row["name"], row["head"]) for row in table[:2]] == [("multihead", "lulc"), ("multihead", "buildings")]
    lines = list(csv.DictReader(folder.csv.open()))
    assert [row["score"] for row in table] == [float(line["score"]) for line in lines]
    assert lines[4]["set"] == "model.merge=max model.modalities=[S2L2A]"
    page = folder.page.read_text()
    assert "| small | `model.merge=max model.modalities=[S2L2A]` |" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| small |")]
    assert row.endswith("| 3.00 (7.58) | 10.5 s | 901 | 700 | 88 | parameters, training time |")
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) == 1
    assert "small: less of all" in page
    assert "validation parents only: the intervals are wide" in page


def test_the_same_results_give_the_same_bytes(place: Place) -> None:
    _, folder = made(place)
    first = {path.name: path.read_bytes() for path in folder.root.iterdir()}
    made(place)
    assert {path.name: path.read_bytes() for path in folder.root.iterdir()} == first
    assert set(first) == {"leaderboard.parquet", "leaderboard.csv", "leaderboard.json", "leaderboard.md"}


def test_the_test_split_is_not_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    kind = type(METRICS)
    original = kind.read

    def noted(self: Any, path: Path) -> Any:
        read.append(path)
        return original(self, path)

    monkeypatch.setattr(kind, "read", noted)
    made(place)
    assert any("val" in path.parts for path in read)
    assert not any("test" in path.parts for path in read)


def test_an_undefined_score_is_last_and_on_no_front(place: Place) -> None:
    for seed in (0, 1):
        path = place.layout.evaluation("small", 0, seed, "val").metrics
        one = read_json(path)
        for part in one["heads"]["buildings"]["per_parent"].values():
            part["confusion"] = [[0, 0], [0, 0]]
        write_json(path, one)
    board, folder = made(place)
    names = [entry["name"] for entry in board["entries"]]
    assert names.index("small") == 2, "last of those with both heads"
    (small,) = [entry for entry in board["entries"] if entry["name"] == "small"]
    assert small["score"] is None
    assert small["heads"]["buildings"]["score"] is None
    assert small["heads"]["lulc"]["score"] is not None
    assert not any(small["front"].values())
    assert "undefined" in folder.page.read_text()


def test_what_was_not_the_same_is_noted(place: Place) -> None:
    path = place.layout.run("same", 0, 1).training
    write_json(path, read_json(path) | {"steps": 45})
    board, _ = made(place)
    assert any("optimizer steps 90 in multihead, 45 in same (fold 0, seed 1)" in note for note in board["notes"])


def test_without_a_sheet_the_compared_runs_are_listed(place: Place) -> None:
    board, _ = made(place, sheet=False)
    assert [entry["name"] for entry in board["entries"]] == ["multihead", "buildings", "lulc"]


def test_what_is_missing_or_of_other_parents_is_named(place: Place) -> None:
    path = place.layout.evaluation("small", 0, 1, "val").metrics
    whole = read_json(path)
    path.unlink()
    with pytest.raises(CityHeadsError, match=r"evaluation/val/small/0/1/metrics\.json: no such file"):
        made(place)
    for seed in (0, 1):
        at = place.layout.evaluation("small", 0, seed, "val").metrics
        parent, *rest = whole["parents"]
        heads = {
            head: part | {"per_parent": {name: one for name, one in part["per_parent"].items() if name != parent}}
            for head, part in whole["heads"].items()
        }
        write_json(at, whole | {"seed": seed, "parents": rest, "heads": heads})
    with pytest.raises(CityHeadsError, match="was evaluated on other parents than the first run"):
        made(place)
