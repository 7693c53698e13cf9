"""The leaderboard: scores on validation with intervals, costs, and the front that no other row beats."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import fake_results
import numpy as np
import pyarrow.parquet as pq
import pytest

from cityheads.core.artifacts.leaderboard import LEADERBOARD, Leaderboard
from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.core.layout import LeaderboardFolder
from cityheads.evaluation.leaderboard import leaderboard, pareto_front


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


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> fake_results.Fake:
    root = tmp_path_factory.mktemp("leaderboard")
    made = fake_results.make(root, seeds=(0, 1))
    sheet = root / "experiments.tsv"
    sheet.write_text("name\tset\tcomment\nsmall\tmodel.merge=max model.modalities=[S2L2A]\tless of all\nsame\t\t\n")
    for name in ("small", "same"):
        for seed in (0, 1):
            add(made, name, seed)
    return made


@pytest.fixture
def fake(original: fake_results.Fake, tmp_path: Path) -> fake_results.Fake:
    """Give a copy of what the leaderboard reads, to change."""
    for name in ("runs", "evaluation/val"):
        shutil.copytree(original.results / name, tmp_path / "results" / name)
    for path in original.parents.parent.glob("*.tsv"):
        shutil.copy(path, tmp_path)
    return fake_results.Fake(tmp_path / "results", tmp_path / original.parents.name, original.config)


def add(fake: fake_results.Fake, name: str, seed: int) -> None:
    """Put an experiment beside the runs: a copy of the run under test."""
    layout = fake.layout
    there, here = layout.run("multihead", 0, seed), layout.run(name, 0, seed)
    write_json(here.training, read_json(there.training) | {"run": name})
    write_json(here.environment, read_json(there.environment))
    metrics = layout.evaluation("multihead", 0, seed, "val").metrics
    write_json(layout.evaluation(name, 0, seed, "val").metrics, read_json(metrics) | {"run": name})


def made(fake: fake_results.Fake, sheet: bool = True) -> tuple[Leaderboard, LeaderboardFolder]:
    folder = fake.layout.leaderboard
    leaderboard(
        fake.settings("leaderboard"),
        results=fake.results,
        out=folder.root,
        experiments=fake.parents.parent / "experiments.tsv" if sheet else None,
    )
    return LEADERBOARD.read(folder.record), folder


def test_runs_and_experiments_stand_side_by_side(fake: fake_results.Fake) -> None:
    # half the parameters and half the time, at the same score: the copy of the run under test is beaten
    for seed in (0, 1):
        path = fake.layout.run("small", 0, seed).training
        one = read_json(path)
        write_json(path, one | {"parameters": one["parameters"] | {"total": 3_000_000}})
        where = fake.layout.run("small", 0, seed).environment
        write_json(
            where, read_json(where) | {"wall_s": 10.0 + seed, "cpu_energy_j": 700.0, "peak_memory_mb": 900.0 + seed}
        )
    board, folder = made(fake)
    entries = {entry["name"]: entry for entry in board["entries"]}
    assert [entry["name"] for entry in board["entries"]] == ["multihead", "same", "small", "buildings", "lulc"]
    small, same = entries["small"], entries["same"]
    assert small["set"] == {"model.merge": "max", "model.modalities": ["S2L2A"]}
    assert small["comment"] == "less of all"
    assert (small["experiment"], entries["multihead"]["experiment"]) == (True, False)
    assert small["cost"]["train_s"] == 10.5
    assert (small["cost"]["cpu_energy_j"], same["cost"]["cpu_energy_j"]) == (700.0, None)
    assert small["cost"]["peak_memory_mb"] == 901.0
    assert small["front"] == {"parameters": True, "train_s": True}
    assert same["front"] == {"parameters": False, "train_s": False}
    assert entries["lulc"]["front"] == {"parameters": True, "train_s": True}, "it is no rival: it has other heads"
    # the scores are those of all validation parents together, averaged over the seeds
    found = [METRICS.read(fake.layout.evaluation("small", 0, seed, "val").metrics) for seed in (0, 1)]
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


def test_the_same_results_give_the_same_bytes(fake: fake_results.Fake) -> None:
    _, folder = made(fake)
    first = {path.name: path.read_bytes() for path in folder.root.iterdir()}
    made(fake)
    assert {path.name: path.read_bytes() for path in folder.root.iterdir()} == first
    assert set(first) == {"leaderboard.parquet", "leaderboard.csv", "leaderboard.json", "leaderboard.md"}


def test_the_test_split_is_not_looked_at(fake: fake_results.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    kind = type(METRICS)
    original = kind.read

    def noted(self: Any, path: Path) -> Any:
        read.append(path)
        return original(self, path)

    monkeypatch.setattr(kind, "read", noted)
    made(fake)
    assert any("val" in path.parts for path in read)
    assert not any("test" in path.parts for path in read)


def test_an_undefined_score_is_last_and_on_no_front(fake: fake_results.Fake) -> None:
    for seed in (0, 1):
        path = fake.layout.evaluation("small", 0, seed, "val").metrics
        one = read_json(path)
        for part in one["heads"]["buildings"]["per_parent"].values():
            part["confusion"] = [[0, 0], [0, 0]]
        write_json(path, one)
    board, folder = made(fake)
    names = [entry["name"] for entry in board["entries"]]
    assert names.index("small") == 2, "last of those with both heads"
    (small,) = [entry for entry in board["entries"] if entry["name"] == "small"]
    assert small["score"] is None
    assert small["heads"]["buildings"]["score"] is None
    assert small["heads"]["lulc"]["score"] is not None
    assert not any(small["front"].values())
    assert "undefined" in folder.page.read_text()


def test_what_was_not_the_same_is_noted(fake: fake_results.Fake) -> None:
    path = fake.layout.run("same", 0, 1).training
    write_json(path, read_json(path) | {"steps": 45})
    board, _ = made(fake)
    assert any("optimizer steps 90 in multihead, 45 in same (fold 0, seed 1)" in note for note in board["notes"])


def test_without_a_sheet_the_compared_runs_are_listed(fake: fake_results.Fake) -> None:
    board, _ = made(fake, sheet=False)
    assert [entry["name"] for entry in board["entries"]] == ["multihead", "buildings", "lulc"]


def test_what_is_missing_or_of_other_parents_is_named(fake: fake_results.Fake) -> None:
    path = fake.layout.evaluation("small", 0, 1, "val").metrics
    whole = read_json(path)
    path.unlink()
    with pytest.raises(CityHeadsError, match=r"evaluation/val/small/0/1/metrics\.json: no such file"):
        made(fake)
    for seed in (0, 1):
        at = fake.layout.evaluation("small", 0, seed, "val").metrics
        parent, *rest = whole["parents"]
        heads = {
            head: part | {"per_parent": {name: one for name, one in part["per_parent"].items() if name != parent}}
            for head, part in whole["heads"].items()
        }
        write_json(at, whole | {"seed": seed, "parents": rest, "heads": heads})
    with pytest.raises(CityHeadsError, match="was evaluated on other parents than the first run"):
        made(fake)
