"""Verdicts from evaluations on disk: ``gate.json`` and its page."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from config_fixtures import make_config

from cityheads.config import Config
from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.metrics import METRICS, HeadScores, Metrics
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_json
from cityheads.evaluation.compare import compare
from cityheads.evaluation.verdict import VERDICTS

CLASSES = {"lulc": ["water", "developed", "forest"], "buildings": ["not building", "building"]}


def config(noninferiority: Mapping[str, Any] | None = None, **sections: Any) -> Config:
    """Give a config with few resamples; what is given is laid over it."""
    return make_config(noninferiority={"resamples": 500, **(noninferiority or {})}, **sections)


def counts(classes: int, iou: float, pixels: int = 10000) -> list[list[int]]:
    """Give a confusion with equal classes and this IoU for each of them."""
    hit = round(pixels * 2 * iou / (1 + iou))
    matrix = np.full((classes, classes), (pixels - hit) // (classes - 1))
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, pixels - matrix.sum(1))
    return matrix.tolist()


def head_scores(head: str, matrices: list[list[list[int]]]) -> HeadScores:
    """Give what an evaluation says of a head; only what `compare` looks at is filled in truly."""
    undefined: list[float | None] = [None] * len(CLASSES[head])
    return {
        "label": head.upper(), "classes": CLASSES[head], "confusion": np.sum(matrices, axis=0).tolist(),
        "iou": undefined, "miou": None, "f1": undefined, "mf1": None, "precision": undefined, "recall": undefined,
        "accuracy": None, "pixels": int(np.sum(matrices)), "ignored": 0,
        "metric": {"name": "miou", "positive_class": None, "value": None}, "interval": None,
        "kappa": {"value": None, "interval": None}, "application": {}, "boundary": {}, "calibration": None,
        "positive": None,
        "per_parent": {f"P{n:02d}": {"confusion": matrix, "value": None} for n, matrix in enumerate(matrices)},
    }  # fmt: skip


def write_metrics(folder: Path, run: str, seed: int, heads: dict[str, list[list[list[int]]]]) -> None:
    parents = [f"P{number:02d}" for number in range(len(next(iter(heads.values()))))]
    content: Metrics = {
        "run": run, "fold": 0, "seed": seed, "split": "test", "kind": "run", "simulated": True, "parents": parents,
        "chips": 16 * len(parents),
        "chips_sha256": "0" * 64, "confidence": 0.95, "modality_ablation": None, "not_ablated": {},
        "encoder_occlusion": None,
        "heads": {head: head_scores(head, matrices) for head, matrices in heads.items()},
    }  # fmt: skip
    METRICS.write(folder / run / "0" / str(seed) / "metrics.json", content)


def lay_out(folder: Path, ious: dict[str, tuple[list[float], list[float]]], seed: int = 0) -> Path:
    """Write evaluations from IoUs per parent: head -> (multi-head, single-task)."""
    multi = {head: [counts(len(CLASSES[head]), iou) for iou in pair[0]] for head, pair in ious.items()}
    write_metrics(folder, "multihead", seed, multi)
    for head, (_, single) in ious.items():
        matrices = {head: [counts(len(CLASSES[head]), iou) for iou in single]}
        write_metrics(folder, head, seed, matrices)
    return folder


def run_compare(folder: Path, conf: Config | None = None) -> tuple[Any, str]:
    compare(conf or config(), evaluation=folder, page=folder / "verdict.md", out=folder / "gate.json")
    return GATE.read(folder / "gate.json"), (folder / "verdict.md").read_text()


BASE = [0.60, 0.65, 0.70, 0.62, 0.68]


def shifted(by: float, spread: float = 0.001) -> tuple[list[float], list[float]]:
    wiggle = [spread, -spread, 0.0, spread, -spread]
    return [iou + by + w for iou, w in zip(BASE, wiggle, strict=True)], BASE


@pytest.mark.parametrize(
    ("lulc", "buildings", "verdict"),
    [(0.01, -0.005, "strong"), (-0.02, 0.05, "acceptable"), (-0.05, 0.02, "mixed"), (-0.05, -0.06, "negative")],
)
def test_each_verdict_can_be_reached(tmp_path: Path, lulc: float, buildings: float, verdict: str) -> None:
    gate, page = run_compare(lay_out(tmp_path, {"lulc": shifted(lulc), "buildings": shifted(buildings)}))
    assert gate["verdict"] == gate["point_verdict"] == verdict
    assert gate["between"] == [verdict, verdict]
    assert gate["advice"] == ""
    assert gate["heads"]["lulc"]["delta_pp"] == pytest.approx(100 * lulc, abs=0.2)
    low, high = gate["heads"]["lulc"]["interval_pp"]
    assert low < gate["heads"]["lulc"]["delta_pp"] < high
    assert page.startswith(f"# Verdict: {verdict}\n")
    assert ("This is a negative result" in page) == (verdict == "negative")
    assert "Simulated archive" in page


def test_wide_intervals_are_inconclusive_and_say_what_would_help(tmp_path: Path) -> None:
    gate, page = run_compare(lay_out(tmp_path, {"lulc": shifted(0.005, 0.03), "buildings": shifted(0.02, 0.001)}))
    assert gate["verdict"] == "inconclusive"
    assert gate["point_verdict"] == "strong"
    assert gate["between"][1] == "strong" != gate["between"][0]
    assert "lulc" in gate["reason"]
    assert "buildings" not in gate["reason"].split(":", 1)[1]
    assert "more test parent" in gate["advice"]
    assert gate["advice"] in page


def test_numbers_on_the_page_are_those_of_the_json_and_subtract(tmp_path: Path) -> None:
    gate, page = run_compare(lay_out(tmp_path, {"lulc": shifted(-0.0123, 0.01), "buildings": shifted(0.0042, 0.007)}))
    for head, part in gate["heads"].items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {head} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2] == f"{part['multihead']:.4f}"
        assert cells[4] == f"{part['single_task']:.4f}"
        assert cells[5] == f"{part['delta_pp']:+.2f}"
        assert cells[6] == "{:+.2f} to {:+.2f}".format(*part["interval_pp"])
        assert round(100 * (float(cells[2]) - float(cells[4])), 2) == part["delta_pp"] == float(cells[5])
    assert gate["balance_pp"] == round(sum(part["delta_pp"] for part in gate["heads"].values()), 2)


def test_delta_is_of_the_pooled_confusion(tmp_path: Path) -> None:
    """Parents differ tenfold in size: pooling and averaging parents give different answers."""
    multi = [counts(2, 0.8, 100000), counts(2, 0.2, 1000), counts(2, 0.3, 1000)]
    single = [counts(2, 0.7, 100000), counts(2, 0.6, 1000), counts(2, 0.6, 1000)]
    conf = config(runs={"multihead": {"heads": ["buildings"]}})
    write_metrics(tmp_path, "multihead", 0, {"buildings": multi})
    write_metrics(tmp_path, "buildings", 0, {"buildings": single})
    gate, _ = run_compare(tmp_path, conf)
    pooled = [np.sum(one, axis=0) for one in (multi, single)]
    ious = [one[1, 1] / (one[1].sum() + one[:, 1].sum() - one[1, 1]) for one in pooled]
    assert gate["heads"]["buildings"]["multihead"] == pytest.approx(ious[0], abs=5e-5)
    assert gate["heads"]["buildings"]["delta_pp"] == pytest.approx(100 * (ious[0] - ious[1]), abs=0.011)
    assert gate["heads"]["buildings"]["delta_pp"] > 0


def test_pairing_cancels_what_both_models_find_hard(tmp_path: Path) -> None:
    """Parents range over 30 pp, the two models differ by 0.5 pp in each: the interval must know that."""
    base = [0.4, 0.5, 0.6, 0.7, 0.45]
    pair = ([iou + 0.005 for iou in base], base)
    gate, _ = run_compare(lay_out(tmp_path, {"lulc": pair, "buildings": pair}))
    low, high = gate["heads"]["lulc"]["interval_pp"]
    assert high - low < 0.3
    assert gate["verdict"] == "strong"


def test_seeds_are_averaged_and_widen_the_interval(tmp_path: Path) -> None:
    conf = config(seeds=[0, 1, 2])
    for seed, lulc in zip(conf.seeds, (-0.02, 0.0, 0.02), strict=True):
        lay_out(tmp_path, {"lulc": shifted(lulc), "buildings": shifted(0.0)}, seed)
    gate, page = run_compare(tmp_path, conf)
    part = gate["heads"]["lulc"]
    assert [item["seed"] for item in part["per_seed"]] == [0, 1, 2]
    assert part["delta_pp"] == pytest.approx(np.mean([item["delta_pp"] for item in part["per_seed"]]), abs=0.011)
    low, high = part["interval_pp"]
    # 2 pp of spread over three seeds: a standard error of 2 / sqrt(3) with about two degrees of freedom
    assert (high - low) / 2 == pytest.approx(4.303 * 2 / math.sqrt(3), rel=0.1)
    assert gate["verdict"] == "inconclusive"
    assert "more seed" in gate["advice"]
    assert "## Per seed" in page
    assert not any("One seed" in caveat for caveat in gate["caveats"])


def test_order_of_heads_does_not_change_the_verdict(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(-0.02, 0.006), "buildings": shifted(0.03, 0.01)})
    one, _ = run_compare(tmp_path)
    two, _ = run_compare(tmp_path, config(runs={"multihead": {"heads": ["buildings", "lulc"]}}))
    assert one["verdict"] == two["verdict"]
    assert one["heads"] == two["heads"]


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0, 0.01), "buildings": shifted(0.0, 0.01)})
    run_compare(tmp_path)
    first = [(tmp_path / name).read_bytes() for name in ("gate.json", "verdict.md")]
    run_compare(tmp_path)
    assert first == [(tmp_path / name).read_bytes() for name in ("gate.json", "verdict.md")]


def test_one_parent_is_inconclusive(tmp_path: Path) -> None:
    gate, page = run_compare(lay_out(tmp_path, {"lulc": ([0.6], [0.5]), "buildings": ([0.6], [0.5])}))
    assert gate["verdict"] == "inconclusive"
    assert gate["point_verdict"] == "strong"
    assert gate["heads"]["lulc"]["interval_pp"] is None
    assert "At least 1 more test parent" in gate["advice"]
    assert "undefined" in page


def drop_class(matrix: list[list[int]], number: int) -> list[list[int]]:
    changed = [list(row) for row in matrix]
    changed[number] = [0] * len(changed)
    return changed


def edit(path: Path, change: Any) -> None:
    loaded = json.loads(path.read_text())
    change(loaded)
    write_json(path, loaded)


@pytest.mark.parametrize(("head", "number", "point"), [("buildings", 1, None), ("lulc", 2, "strong")])
def test_class_absent_from_the_test_split_is_inconclusive(
    tmp_path: Path, head: str, number: int, point: str | None
) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.01), "buildings": shifted(0.01)})

    def change(loaded: dict[str, Any]) -> None:
        for part in loaded["heads"][head]["per_parent"].values():
            part["confusion"] = drop_class(part["confusion"], number)

    for run in ("multihead", head):
        edit(tmp_path / run / "0" / "0" / "metrics.json", change)
    gate, page = run_compare(tmp_path)
    assert gate["verdict"] == "inconclusive"
    assert gate["point_verdict"] == point
    assert CLASSES[head][number] in gate["reason"]
    assert "splits" in gate["advice"]
    if point is None:
        assert gate["heads"][head]["delta_pp"] is None
        assert f"| {head} | IoU of building | undefined |" in page


def test_class_in_too_few_parents_is_inconclusive(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.01), "buildings": shifted(0.01)})

    def change(loaded: dict[str, Any]) -> None:
        for parent, part in loaded["heads"]["buildings"]["per_parent"].items():
            if parent != "P00":
                part["confusion"] = drop_class(part["confusion"], 1)

    for run in ("multihead", "buildings"):
        edit(tmp_path / run / "0" / "0" / "metrics.json", change)
    gate, _ = run_compare(tmp_path)
    assert gate["verdict"] == "inconclusive"
    assert gate["point_verdict"] == "strong"
    assert "too few test parents" in gate["reason"]
    assert any("one test parent only" in caveat for caveat in gate["caveats"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(parents=["X", *m["parents"][1:]]), "test parents"),
        (lambda m: m.update(chips=7), "number of test sub-chips"),
        (lambda m: m.update(chips_sha256="1" * 64), "list of test sub-chips"),
        (lambda m: m.update(simulated=False), "kind of archive"),
        (lambda m: m["heads"]["lulc"].update(classes=["developed", "water", "forest"]), "developed, water, forest"),
        (lambda m: m["heads"]["lulc"]["per_parent"]["P00"].update(confusion=counts(3, 0.5, 999)), "other labels"),
        (lambda m: m["heads"].pop("lulc"), "no head lulc"),
    ],
)
def test_runs_on_different_data_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    path = tmp_path / "lulc" / "0" / "0" / "metrics.json"
    edit(path, change)
    with pytest.raises(CityHeadsError, match=words) as caught:
        run_compare(tmp_path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "gate.json").exists()


def test_missing_evaluation_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    conf = config(seeds=[0, 4])
    with pytest.raises(CityHeadsError, match=r"multihead/0/4/metrics.json: no such file.*forcerun evaluate"):
        run_compare(tmp_path, conf)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused_with_the_way_to_make_the_file_anew(tmp_path: Path, number: str) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    path = tmp_path / "buildings" / "0" / "0" / "metrics.json"
    path.write_text(path.read_text().replace('"accuracy": null', f'"accuracy": {number}'))
    with pytest.raises(CityHeadsError, match=r"key 'heads.buildings.accuracy': .*--forcerun evaluate$") as caught:
        run_compare(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_evaluation_of_another_format_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    edit(tmp_path / "lulc" / "0" / "0" / "metrics.json", lambda loaded: loaded.pop("format_version"))
    with pytest.raises(CityHeadsError, match=r"has no format version.*--forcerun evaluate$"):
        run_compare(tmp_path)


def test_positive_class_need_not_be_the_last(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    gate, page = run_compare(tmp_path, config(heads={"lulc": {"metric": "iou", "positive_class": "developed"}}))
    part = gate["heads"]["lulc"]
    assert (part["metric"], part["positive_class"]) == ("iou", "developed")
    total = np.array(
        json.loads((tmp_path / "lulc" / "0" / "0" / "metrics.json").read_text())["heads"]["lulc"]["confusion"]
    )
    assert part["single_task"] == pytest.approx(
        total[1, 1] / (total[1].sum() + total[:, 1].sum() - total[1, 1]), abs=1e-4
    )
    assert "| lulc | IoU of developed |" in page


def test_positive_class_that_the_evaluation_does_not_know_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.0)})
    with pytest.raises(CityHeadsError, match=r"no class 'other', which config key 'heads.lulc.positive_class' names"):
        run_compare(tmp_path, config(heads={"lulc": {"metric": "iou", "positive_class": "other"}}))


def test_every_combination_of_deltas_and_intervals_has_one_verdict_and_a_reason(tmp_path: Path) -> None:
    seen = set()
    for number, (lulc, buildings, spread) in enumerate(
        itertools.product((-0.05, -0.02, 0.0, 0.04), (-0.05, -0.02, 0.0, 0.04), (0.0005, 0.02))
    ):
        folder = tmp_path / str(number)
        gate, page = run_compare(
            lay_out(folder, {"lulc": shifted(lulc, spread), "buildings": shifted(buildings, spread)})
        )
        seen.add(gate["verdict"])
        assert gate["verdict"] in {*VERDICTS, "inconclusive"}
        assert (gate["verdict"] == "inconclusive") == (gate["between"][0] != gate["between"][1])
        assert bool(gate["advice"]) == (gate["verdict"] == "inconclusive")
        assert "\n" not in gate["reason"] + gate["advice"]
        assert gate["reason"] in page
        if gate["verdict"] == "inconclusive":
            assert "span" in gate["reason"]
    assert seen == {*VERDICTS, "inconclusive"}
