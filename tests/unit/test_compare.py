"""Verdicts from evaluations on disk: ``gate.json`` and its page."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from config_fixtures import make_config
from training_fixtures import write_training

from cityheads.config import Config
from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.metrics import METRICS, AblatedHead, HeadScores, Metrics
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_json
from cityheads.core.layout import Layout
from cityheads.evaluation.compare import compare
from cityheads.evaluation.verdict import VERDICTS

CLASSES = {"lulc": ["water", "developed", "forest"], "buildings": ["not building", "building"]}
SEEDS = (0, 1, 2)
#: Share of the models' IoU that the rules reach.
RULES = {"majority": 0.3, "pixels": 0.4, "pixels_context": 0.6}
Matrix: TypeAlias = list[list[int]]


def config(noninferiority: Mapping[str, Any] | None = None, **sections: Any) -> Config:
    """Give a config with three seeds and few sign flips; what is given is laid over it."""
    return make_config(
        **{"seeds": list(SEEDS), "noninferiority": {"resamples": 500, **(noninferiority or {})}, **sections}
    )


def counts(classes: int, iou: float, pixels: int = 10000) -> Matrix:
    """Give a confusion with equal classes and this IoU for each of them."""
    hit = round(pixels * 2 * iou / (1 + iou))
    matrix = np.full((classes, classes), (pixels - hit) // (classes - 1))
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, pixels - matrix.sum(1))
    return matrix.tolist()


def majority(matrix: Matrix) -> Matrix:
    """Give what a model that always says the first class makes of the same labels."""
    return [[sum(row)] + [0] * (len(row) - 1) for row in matrix]


def shuffled(matrix: Matrix) -> Matrix:
    """Give what a model that learnt from shuffled labels makes of the same labels: every class anywhere."""
    classes = len(matrix)
    each = [sum(row) // classes for row in matrix]
    return [[sum(row) - (classes - 1) * one, *[one] * (classes - 1)] for row, one in zip(matrix, each, strict=True)]


def head_scores(head: str, matrices: list[Matrix], parents: list[str]) -> HeadScores:
    """Give what an evaluation says of a head; only what `compare` looks at is filled in truly."""
    undefined: list[float | None] = [None] * len(CLASSES[head])
    return {
        "label": head.upper(), "classes": CLASSES[head], "confusion": np.sum(matrices, axis=0).tolist(),
        "iou": undefined, "miou": None, "f1": undefined, "mf1": None, "precision": undefined, "recall": undefined,
        "accuracy": None, "pixels": int(np.sum(matrices)), "ignored": 0,
        "metric": {"name": "miou", "positive_class": None, "value": None}, "interval": None,
        "per_parent": {name: {"confusion": one, "value": None} for name, one in zip(parents, matrices, strict=True)},
        "kappa": {"value": None, "interval": None}, "application": {}, "boundary": {}, "calibration": None,
        "positive": None,
    }  # fmt: skip


def ablated(matrices: list[Matrix], parents: list[str]) -> AblatedHead:
    return {
        "value": None, "delta_pp": None, "interval_pp": None, "iou": [], "confusion": [],
        "per_parent": {
            name: {"confusion": one, "value": None, "delta_pp": None}
            for name, one in zip(parents, matrices, strict=True)
        },
    }  # fmt: skip


def write_metrics(
    folder: Path,
    run: str,
    seed: int,
    heads: dict[str, list[Matrix]],
    occluded: dict[str, dict[str, list[Matrix]]] | None = None,
    fold: int = 0,
) -> None:
    parents = [f"P{10 * fold + number:02d}" for number in range(len(next(iter(heads.values()))))]
    content: Metrics = {
        "run": run, "fold": fold, "seed": seed, "split": "test", "kind": "run", "simulated": True, "parents": parents,
        "chips": 16 * len(parents),
        "chips_sha256": f"{fold}" * 64, "confidence": 0.95, "modality_ablation": None, "not_ablated": {},
        "heads": {head: head_scores(head, matrices, parents) for head, matrices in heads.items()},
        "encoder_occlusion": None if occluded is None else {
            name: {head: ablated(matrices, parents) for head, matrices in table.items()}
            for name, table in occluded.items()
        },
    }  # fmt: skip
    METRICS.write(folder / run / str(fold) / str(seed) / "metrics.json", content)


def matrices(head: str, ious: Sequence[float], factor: float = 1.0) -> list[Matrix]:
    return [counts(len(CLASSES[head]), factor * iou) for iou in ious]


def write_floor(folder: Path, conf: Config, labels: dict[str, list[float]], fold: int = 0) -> None:
    """Write every control that the config asks for: rules with half the IoU or less, encoders with 0.8 of it."""
    for control in conf.untrained_controls:
        written = {head: matrices(head, one, RULES[control]) for head, one in labels.items()}
        write_metrics(folder, control, 0, written, fold=fold)
    for control in conf.trained_controls:
        for seed in conf.control_seeds:
            written = {head: matrices(head, one, 0.8) for head, one in labels.items()}
            write_metrics(folder, control, seed, written, fold=fold)


def lay_out(
    folder: Path,
    ious: dict[str, tuple[list[float], list[float]]],
    conf: Config | None = None,
    *,
    fold: int = 0,
    change: Callable[[str, str, list[Matrix]], list[Matrix]] = lambda run, head, made: made,
    by_seed: Mapping[int, float] | None = None,
) -> Path:
    """Write evaluations from IoUs per parent, and controls below them.

    Args:
        folder: Where to.
        ious: Per head, of the multi-head and of the single-task run.
        conf: What is asked for; `config` if not given.
        fold: Of what is written.
        change: Called with run, head and counts of what the two runs predict; gives what is written.
        by_seed: What a seed adds to the multi-head run in land cover.
    """
    conf = conf or config()
    for seed in conf.seeds:
        more = {"lulc": (by_seed or {}).get(seed, 0.0)}
        multi = {
            head: change("multihead", head, matrices(head, [one + more.get(head, 0.0) for one in pair[0]]))
            for head, pair in ious.items()
        }
        hidden = {head: matrices(head, pair[0], 0.7) for head, pair in ious.items()}
        write_metrics(folder, "multihead", seed, multi, dict.fromkeys(("zeroed", "permuted"), hidden), fold)
        for head, (_, single) in ious.items():
            write_metrics(folder, head, seed, {head: change(head, head, matrices(head, single))}, fold=fold)
    write_floor(
        folder, conf, {head: [min(two) for two in zip(*pair, strict=True)] for head, pair in ious.items()}, fold
    )
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
        differences = page.split("## The differences")[1].splitlines()
        row = next(line for line in differences if line.startswith(f"| {head} |"))
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
    conf = config(runs={"multihead": {"heads": ["buildings"]}}, controls={"made": []})
    for seed in SEEDS:
        write_metrics(tmp_path, "multihead", seed, {"buildings": multi})
        write_metrics(tmp_path, "buildings", seed, {"buildings": single})
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
    lay_out(tmp_path, {"lulc": shifted(0.0), "buildings": shifted(0.001)}, by_seed={0: -0.02, 2: 0.02})
    gate, page = run_compare(tmp_path)
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


def parts_of(loaded: dict[str, Any], head: str, but: str = "") -> list[dict[str, Any]]:
    """Give what is said of each parent of a head, occluded or not, if the file is about the head."""
    tables = [loaded["heads"], *(loaded["encoder_occlusion"] or {}).values()]
    return [
        part
        for table in tables
        for parent, part in table.get(head, {"per_parent": {}})["per_parent"].items()
        if parent != but
    ]


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
        for part in parts_of(loaded, head):
            part["confusion"] = drop_class(part["confusion"], number)

    for path in tmp_path.glob("*/0/*/metrics.json"):
        edit(path, change)
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
        for part in parts_of(loaded, "buildings", but="P00"):
            part["confusion"] = drop_class(part["confusion"], 1)

    for path in tmp_path.glob("*/0/*/metrics.json"):
        edit(path, change)
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
    conf = config(seeds=[0, 1, 4])
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


# --- planted cases -------------------------------------------------------------------------------------------------

TWO_FOLDS: dict[str, Any] = {"splits": {"method": "folds", "folds": 4, "only_folds": [0, 1]}}
FAIR = {"lulc": shifted(0.005), "buildings": shifted(0.004)}


def test_floor_that_holds_is_told(tmp_path: Path) -> None:
    gate, page = run_compare(lay_out(tmp_path, FAIR))
    assert gate["verdict"] == "strong"
    assert gate["floor"] == {
        "held": True, "measured": ["majority", "pixels", "pixels_context"], "missing": [], "failures": [],
    }  # fmt: skip
    part = gate["heads"]["lulc"]
    assert set(part["controls"]) == {"majority", "pixels", "pixels_context"}
    for one in part["controls"].values():
        assert set(one["models"]) == {"multihead", "lulc"}
        for lead in one["models"].values():
            assert lead["beaten"]
            assert lead["interval_pp"][0] > 0
            assert lead["delta_pp"] == pytest.approx(100 * (lead["score"] - one["score"]), abs=0.011)
    assert part["encoder"]["matters"] is True
    assert part["encoder"]["zeroed"]["models"]["multihead"]["beaten"]
    assert set(part["encoder"]["trained"]) == {"no_encoder", "frozen_encoder"}
    assert part["ceiling"] is None
    assert any("Trained with one seed: frozen_encoder, no_encoder." in one for one in gate["caveats"])
    assert "pixels_context" in page
    assert "good" not in gate["headline"] + gate["reason"]


@pytest.mark.parametrize("heads", [("lulc",), ("lulc", "buildings")])
def test_copied_baseline_is_no_evidence(tmp_path: Path, heads: tuple[str, ...]) -> None:
    same = {head: (BASE, BASE) if head in heads else pair for head, pair in FAIR.items()}
    gate, _ = run_compare(lay_out(tmp_path, same))
    assert gate["point_verdict"] == "strong"
    assert gate["verdict"] == "no evidence"
    assert [one.split(":")[0] for one in gate["floor"]["failures"]] == list(heads)
    assert "one is a copy" in gate["reason"]


@pytest.mark.parametrize("heads", [("lulc",), ("lulc", "buildings")])
@pytest.mark.parametrize("runs", [("multihead",), ("multihead", "lulc", "buildings")])
def test_shuffled_labels_are_no_evidence(tmp_path: Path, heads: tuple[str, ...], runs: tuple[str, ...]) -> None:
    def change(run: str, head: str, made: list[Matrix]) -> list[Matrix]:
        return [shuffled(one) for one in made] if head in heads and run in runs else made

    gate, _ = run_compare(lay_out(tmp_path, FAIR, change=change))
    assert gate["verdict"] == "no evidence"
    for head, part in gate["heads"].items():
        beaten = part["controls"]["pixels_context"]["models"]["multihead"]["beaten"]
        assert beaten == (head not in heads)
    assert all(f"{head}: pixel-wise boosting with context scores" in gate["reason"] for head in heads)


def test_collapsed_baseline_is_no_evidence_however_much_better_the_shared_model_is(tmp_path: Path) -> None:
    def change(run: str, head: str, made: list[Matrix]) -> list[Matrix]:
        return [majority(one) for one in made] if run == "lulc" else made

    gate, page = run_compare(lay_out(tmp_path, FAIR, change=change))
    assert gate["point_verdict"] == "strong"
    assert gate["heads"]["lulc"]["delta_pp"] > 20
    assert gate["verdict"] == "no evidence"
    assert gate["reason"].startswith("lulc: pixel-wise boosting with context scores 0.")
    assert "the single-task model lulc" in gate["reason"]
    assert "the shared model" not in gate["reason"]
    assert page.startswith("# Verdict: no evidence")


def test_models_that_all_say_the_commonest_class_are_no_evidence(tmp_path: Path) -> None:
    gate, _ = run_compare(lay_out(tmp_path, FAIR, change=lambda run, head, made: [majority(one) for one in made]))
    assert gate["point_verdict"] == "strong"
    assert gate["verdict"] == "no evidence"
    for part in gate["heads"].values():
        assert not any(lead["beaten"] for lead in part["controls"]["majority"]["models"].values())


def test_idle_encoder_is_no_evidence(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    for seed in SEEDS:
        path = tmp_path / "multihead" / "0" / str(seed) / "metrics.json"

        def change(loaded: dict[str, Any]) -> None:
            for parent, part in loaded["heads"]["buildings"]["per_parent"].items():
                hidden = loaded["encoder_occlusion"]["permuted"]["buildings"]["per_parent"][parent]
                hidden["confusion"] = part["confusion"]

        edit(path, change)
    gate, _ = run_compare(tmp_path)
    assert gate["verdict"] == "no evidence"
    assert gate["floor"]["failures"] == [gate["reason"]]
    assert gate["reason"].startswith("buildings: the encoder is idle: the shared model scores ")
    assert gate["reason"].endswith("with its encoder's output of another chip.")
    assert gate["heads"]["buildings"]["encoder"]["matters"] is False
    assert gate["heads"]["lulc"]["encoder"]["matters"] is True


def test_decoders_alone_that_do_as_well_are_no_evidence(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    write_metrics(tmp_path, "no_encoder", 0, {head: matrices(head, pair[0]) for head, pair in FAIR.items()})
    gate, _ = run_compare(tmp_path)
    assert gate["verdict"] == "no evidence"
    assert gate["reason"].count("the same model without an encoder") == 2


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([], "lulc: the control majority was not made"),
        (["majority", "pixels", "pixels_context"], "no_encoder was not measured"),
        (["majority", "pixels", "no_encoder"], "the control pixels_context was not made"),
    ],
)
def test_without_controls_there_is_no_evidence(tmp_path: Path, made: list[str], words: str) -> None:
    lay_out(tmp_path, FAIR)
    gate, _ = run_compare(tmp_path, config(controls={"made": made}))
    assert gate["verdict"] == "no evidence"
    assert gate["floor"]["held"] is False
    assert words in gate["reason"]
    assert "controls.made" in gate["advice"]


def test_without_occlusion_there_is_no_evidence(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    for seed in SEEDS:
        edit(tmp_path / "multihead" / "0" / str(seed) / "metrics.json", lambda one: one.update(encoder_occlusion=None))
    gate, _ = run_compare(tmp_path)
    assert gate["verdict"] == "no evidence"
    assert "zeroing the encoder's output was not measured" in gate["reason"]
    assert gate["heads"]["lulc"]["encoder"]["matters"] is None


def test_a_lead_that_is_not_clear_is_told_with_its_interval(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    rough = [iou + wiggle for iou, wiggle in zip(BASE, (-0.08, 0.06, -0.05, 0.06, -0.03), strict=True)]
    write_metrics(tmp_path, "pixels", 0, {head: matrices(head, rough) for head in FAIR})
    gate, _ = run_compare(tmp_path)
    assert gate["verdict"] == "no evidence"
    assert "not clearly more than pixel-wise boosting with 0." in gate["reason"]
    low, high = gate["heads"]["lulc"]["controls"]["pixels"]["models"]["multihead"]["interval_pp"]
    assert low < 0 < high


def test_noise_is_inconclusive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy() -> list[float]:
        return [float(iou) for iou in np.array(BASE) + rng.normal(0, 0.04, len(BASE))]

    gate, _ = run_compare(lay_out(tmp_path, {"lulc": (noisy(), noisy()), "buildings": (noisy(), noisy())}))
    assert gate["floor"]["held"]
    assert gate["verdict"] == "inconclusive"
    assert gate["heads"]["lulc"]["permutation"]["p"] > 0.05
    assert gate["heads"]["lulc"]["power"]["detectable_pp"] > 3


@pytest.mark.parametrize("by", [0.02, -0.06])
def test_one_seed_is_never_a_verdict_on_one_fold(tmp_path: Path, by: float) -> None:
    conf = config(seeds=[0])
    gate, page = run_compare(lay_out(tmp_path, {"lulc": shifted(by), "buildings": shifted(by)}, conf), conf)
    assert gate["verdict"] == "inconclusive"
    assert gate["point_verdict"] == ("strong" if by > 0 else "negative")
    assert gate["between"] == [gate["point_verdict"]] * 2
    assert gate["reason"].startswith("One seed")
    assert "three seeds" in gate["advice"]
    assert gate["heads"]["lulc"]["variation"]["includes_training"] is False
    assert gate["heads"]["lulc"]["power"]["needed"] == []
    assert gate["reason"] in page


def test_folds_are_pooled_and_told_apart(tmp_path: Path) -> None:
    lay_out(tmp_path, {"lulc": shifted(0.002), "buildings": shifted(0.001)}, fold=0)
    lay_out(tmp_path, {"lulc": shifted(-0.01), "buildings": shifted(0.001)}, fold=1, by_seed={1: 0.002})
    gate, page = run_compare(tmp_path, config(**TWO_FOLDS))
    part = gate["heads"]["lulc"]
    assert gate["folds"] == [0, 1]
    assert gate["fold_of"] == {f"P{10 * fold + number:02d}": fold for fold in (0, 1) for number in range(5)}
    assert [(one["fold"], one["parents"]) for one in part["per_fold"]] == [(0, 5), (1, 5)]
    assert part["per_fold"][0]["delta_pp"] == pytest.approx(0.2, abs=0.05)
    assert part["per_fold"][1]["delta_pp"] == pytest.approx(-0.93, abs=0.1)
    assert part["delta_pp"] == pytest.approx(np.mean([one["delta_pp"] for one in part["per_fold"]]), abs=0.1)
    assert [(one["fold"], one["seed"]) for one in part["per_model"]] == list(itertools.product((0, 1), SEEDS))
    assert not any("One fold" in one for one in gate["caveats"])
    assert "## Per fold" in page


def test_a_parent_that_two_folds_test_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    for path in list(tmp_path.glob("*/0/*/metrics.json")):
        copied = json.loads(path.read_text()) | {"fold": 1}
        write_json(path.parents[2] / "1" / path.parent.name / "metrics.json", copied)
    with pytest.raises(CityHeadsError, match=r"1/\d/metrics.json: parent P00 was tested in another fold already"):
        run_compare(tmp_path, config(**TWO_FOLDS))


def test_ceiling_is_told_where_there_is_one(tmp_path: Path) -> None:
    lay_out(tmp_path, FAIR)
    write_metrics(tmp_path, "ceiling", 0, {head: matrices(head, [0.95] * 5) for head in FAIR})
    gate, page = run_compare(tmp_path)
    ceiling = gate["heads"]["lulc"]["ceiling"]
    assert ceiling["score"] == pytest.approx(0.95, abs=0.001)
    assert ceiling["models"]["multihead"]["delta_pp"] < -20
    assert gate["verdict"] == "strong"
    assert "ceiling" in page


def test_trained_control_is_held_to_the_same_seed(tmp_path: Path) -> None:
    """The shared model's mean of three seeds is above the control's one seed; with the same seed it is not."""
    lay_out(tmp_path, FAIR, by_seed={0: -0.03, 1: 0.06, 2: 0.06})
    write_metrics(tmp_path, "no_encoder", 0, {head: matrices(head, pair[0]) for head, pair in FAIR.items()})
    gate, _ = run_compare(tmp_path)
    lead = gate["heads"]["lulc"]["encoder"]["trained"]["no_encoder"]["models"]["multihead"]
    assert lead["delta_pp"] == pytest.approx(-3, abs=0.1)
    assert not lead["beaten"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: part["per_parent"].pop("P01"), "head lulc has no counts of parent P01"),
        (lambda part: part["per_parent"]["P01"].update(confusion=[[1, 2], [3, 4]]), "parent P01 is not 3 x 3 counts"),
        (lambda part: part["per_parent"]["P01"]["confusion"][0].__setitem__(0, -5), "parent P01 is not 3 x 3 counts"),
        (lambda part: part["per_parent"]["P01"]["confusion"][0].__setitem__(0, None), "per_parent.P01.confusion.0.0"),
        (lambda part: part["per_parent"]["P01"]["confusion"][0].__setitem__(0, math.nan), "confusion.0.0"),
    ],
)
@pytest.mark.parametrize("run", ["lulc", "pixels"])
def test_damaged_counts_are_one_line_that_names_the_file(tmp_path: Path, run: str, change: Any, words: str) -> None:
    lay_out(tmp_path, FAIR)
    path = tmp_path / run / "0" / "0" / "metrics.json"
    loaded = json.loads(path.read_text())
    change(loaded["heads"]["lulc"])
    path.write_text(json.dumps(loaded))
    with pytest.raises(CityHeadsError) as caught:
        run_compare(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message
    assert "--forcerun evaluate" in message


def test_swapping_run_and_baseline_turns_the_sign(tmp_path: Path) -> None:
    only = {"runs": {"multihead": {"heads": ["lulc"]}}}
    one, other = shifted(0.02, 0.01)
    found = []
    for name, pair in (("there", (one, other)), ("back", (other, one))):
        gate, _ = run_compare(lay_out(tmp_path / name, {"lulc": pair}, config(**only)), config(**only))
        found.append(gate["heads"]["lulc"])
    assert found[0]["delta_pp"] == -found[1]["delta_pp"]
    assert found[0]["interval_pp"] == [-found[1]["interval_pp"][1], -found[1]["interval_pp"][0]]
    assert found[0]["permutation"] == found[1]["permutation"]


def test_trainings_that_were_not_given_the_same_are_a_caveat(tmp_path: Path) -> None:
    pair = ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    folder = lay_out(tmp_path / "test", {"lulc": pair, "buildings": pair})
    layout = Layout(tmp_path / "results")

    def caveats() -> list[str]:
        at = {"page": tmp_path / "verdict.md", "out": tmp_path / "gate.json"}
        compare(config(), evaluation=folder, results=layout.root, **at)
        found: list[str] = GATE.read(at["out"])["caveats"]
        return found

    for run, heads in config().runs.items():
        for seed in config().seeds:
            write_training(layout, run, seed, heads.heads)
    before = caveats()
    assert not any("not given the same" in caveat for caveat in before)
    write_training(layout, "lulc", config().seeds[0], ["lulc"], checkpoint="best", chips_seen=640)
    favours, chips, rule = [caveat for caveat in caveats() if caveat not in before]
    assert "the rule favours the single-task runs" in favours
    assert "training chips seen 720 in multihead, 640 in lulc" in chips
    assert "checkpoint rule last in multihead, best in lulc" in rule
