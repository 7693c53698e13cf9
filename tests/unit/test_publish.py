"""The bundle: complete, checkable, portable, and honest about the verdict."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import product_fixtures
import pytest
import yaml
from fake_results import Fake

from cityheads.config import load_config
from cityheads.core.artifacts.bundle import BUNDLE_CLASSES
from cityheads.core.artifacts.model import MODEL
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.core.modalities import MODALITIES
from cityheads.product.bundle import FILES, OPTIONAL, verify_bundle
from cityheads.product.publish import choose_seed, publish


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return product_fixtures.make(tmp_path_factory.mktemp("product"), seeds=(0, 1))


def write(fake: Fake, out: Path) -> Path:
    publish(fake.settings("publish"), parents=fake.parents, results=fake.results, out=out)
    return out


@pytest.fixture(scope="module")
def bundle(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    edit(fake.results / "runs" / "multihead" / "0" / "1" / "training.json", score=0.7)
    return write(fake, tmp_path_factory.mktemp("out") / "bundle")


def edit(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


@pytest.fixture
def copy(fake: Fake, tmp_path: Path) -> Fake:
    shutil.copytree(fake.results, tmp_path / "results")
    shutil.copy(fake.parents, tmp_path / "parents.tsv")
    return Fake(tmp_path / "results", tmp_path / "parents.tsv", fake.config)


def test_calibration_of_the_published_seed_goes_along_and_an_old_one_does_not_stay(copy: Fake, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    edit(copy.results / "runs" / "multihead" / "0" / "1" / "training.json", score=0.7)
    write(copy, out)
    assert (read_json(out / "calibration.json")["seed"], read_json(out / "model.json")["seed"]) == (1, 1)
    copy.layout.evaluation("multihead", 0, 1).calibration.unlink()
    write(copy, out)
    verify_bundle(out)
    assert not (out / "calibration.json").exists()


def test_sums_list_every_file_and_hold(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == sorted([*FILES, *OPTIONAL, "SHA256SUMS"])
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == sorted([*FILES, *OPTIONAL])
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    verify_bundle(bundle)


def test_nothing_in_it_can_execute_code(bundle: Path) -> None:
    for path in bundle.iterdir():
        if path.suffix != ".safetensors":
            path.read_text()
    content = (bundle / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} <= {"F32", "I64", "F64"}


def test_model_is_that_of_the_seed_with_the_best_validation_score(fake: Fake, bundle: Path) -> None:
    from cityheads.model.builder import load_model

    published, spec = load_model(bundle)
    assert spec["seed"] == 1
    trained, _ = load_model(fake.results / "runs" / "multihead" / "0" / "1")
    for name, value in trained.state_dict().items():
        assert published.state_dict()[name].equal(value), name
    assert read_json(bundle / "metrics.json")["seed"] == 1
    assert "Seed 1, whose validation score (0.7000) is the best of 2 seeds" in (bundle / "card.md").read_text()


def test_recipe_is_the_resolved_config(fake: Fake, bundle: Path) -> None:
    recipe = load_config(bundle / "recipe.yaml")
    assert recipe == fake.config.model_copy(update={"parents": "parents.tsv", "experiments": None})
    assert (bundle / "parents.tsv").read_bytes() == fake.parents.read_bytes()
    # nothing was left to the defaults of some later version
    raw = yaml.safe_load((bundle / "recipe.yaml").read_text())
    assert raw == {key: value for key, value in recipe.to_dict().items() if key != "results"}


def test_classes_are_those_of_the_model_in_its_order_with_the_colours_of_the_config(fake: Fake, bundle: Path) -> None:
    tables, spec = BUNDLE_CLASSES.read(bundle / "classes.json")["labels"], MODEL.read(bundle / "model.json")
    assert {rule["label"] for rule in spec["heads"].values()} == set(tables)
    for rule in spec["heads"].values():
        table = tables[rule["label"]]
        assert [(item["id"], item["name"]) for item in table] == [(c["id"], c["name"]) for c in rule["classes"]]
        assert {item["id"]: item["color"] for item in table} == fake.config.labels[rule["label"]].colors


def test_same_results_give_the_same_bytes(fake: Fake, bundle: Path, tmp_path: Path) -> None:
    again = write(fake, tmp_path / "bundle")
    for name in [*FILES, "SHA256SUMS"]:
        assert (again / name).read_bytes() == (bundle / name).read_bytes(), name


def test_publishing_again_replaces(bundle: Path, copy: Fake, tmp_path: Path) -> None:
    out = write(copy, tmp_path / "bundle")
    (out / ".snakemake_timestamp").touch()
    edit(copy.results / "runs" / "multihead" / "0" / "0" / "training.json", score=0.9)
    write(copy, out)
    assert read_json(out / "model.json")["seed"] == 0
    verify_bundle(out)


def test_card_says_what_gate_and_evaluation_say(bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    gate, metrics = read_json(bundle / "gate.json"), read_json(bundle / "metrics.json")
    titles = {"lulc": "mIoU", "buildings": "IoU of building"}
    for head, part in gate["heads"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {head} | {titles[head]} |"))
        assert f"{part['multihead']:.4f}" in row
        assert f"{part['single_task']:.4f}" in row
        assert f"{part['delta_pp']:+.2f}" in row
    for head, part in metrics["heads"].items():
        for index, name in enumerate(part["classes"]):
            row = next(line for line in card.splitlines() if line.startswith(f"| {head} | {name} |"))
            assert row.split(" | ")[2] == (
                f"{part['iou'][index]:.4f}" if part["iou"][index] is not None else "undefined"
            )
        best = max(gate["heads"][head]["controls"].items(), key=lambda one: one[1]["score"])
        row = next(line for line in card.splitlines() if line.startswith(f"| {head} | floor: "))
        beaten = "yes" if best[1]["models"]["multihead"]["beaten"] else "no"
        assert row.endswith(f" | {best[1]['score']:.4f} | {beaten} |")
        assert f"| {head} | ceiling: " in card
    assert gate["headline"] in card
    assert "The verdict is about sharing one encoder, not about how good the maps are." in card
    assert "Simulated data" in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    scores = {one["name"]: one["value"] for result in front["model-index"][0]["results"] for one in result["metrics"]}
    value = metrics["heads"]["lulc"]["metric"]["value"]
    assert scores["test/lulc/miou"] == round(value, 4)


def table(card: str, section: str) -> list[list[str]]:
    """Give the rows of the first table of a section, header first."""
    lines = card.split(f"## {section}\n")[1].split("\n## ")[0].splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[:1] + rows[2:]]


def test_card_says_of_which_fold_the_model_is(copy: Fake, bundle: Path, tmp_path: Path) -> None:
    assert "of a cross-validation" not in (bundle / "card.md").read_text()
    edit(copy.layout.dataset(0).splits, method="fold 0 of 5", folds=5)
    assert (
        "This model is of fold 0 of a cross-validation with 5 folds"
        in (write(copy, tmp_path / "bundle") / "card.md").read_text()
    )


def test_card_tells_what_a_missing_modality_costs(bundle: Path) -> None:
    card, metrics = (bundle / "card.md").read_text(), read_json(bundle / "metrics.json")
    header, nothing, *rows = table(card, "Modality ablation")
    assert header == ["without", "lulc", "delta (pp)", "buildings", "delta (pp)"]
    assert nothing[1::2] == [f"{part['metric']['value']:.4f}" for part in metrics["heads"].values()]
    assert [row[0] for row in rows] == ["S2L2A", "S1RTC", "DEM"] == list(metrics["modality_ablation"])
    for name, *cells in rows:
        for part, value, delta in zip(
            metrics["modality_ablation"][name].values(), cells[::2], cells[1::2], strict=True
        ):
            assert value == f"{part['value']:.4f}"
            # one test parent: no interval
            assert part["interval_pp"] is None
            assert delta == f"{part['delta_pp']:+.2f} (no interval)"
    assert "a missing input had never been seen" in card
    assert "not what the sensor is worth" in card


def test_card_of_another_table_or_of_none(copy: Fake, tmp_path: Path) -> None:
    where = copy.results / "evaluation" / "test" / "multihead" / "0" / "1" / "metrics.json"
    metrics = read_json(where)
    metrics["modality_ablation"]["DEM"]["lulc"] |= {"value": None, "delta_pp": None}
    metrics["modality_ablation"]["DEM"]["buildings"] |= {"delta_pp": -4.5, "interval_pp": [-6.25, -2.75]}
    write_json(where, metrics)
    rows = table((write(copy, tmp_path / "one") / "card.md").read_text(), "Modality ablation")
    assert rows[-1][:3] == ["DEM", "undefined", "undefined"]
    assert rows[-1][4] == "-4.50 [-6.25, -2.75]"
    write_json(where, metrics | {"modality_ablation": {}, "not_ablated": {"S2L2A": "the only image"}})
    assert "S2L2A was not left out: it is the only image." in (write(copy, tmp_path / "two") / "card.md").read_text()
    write_json(where, metrics | {"modality_ablation": None, "not_ablated": {}})
    assert "Modality ablation" not in (write(copy, tmp_path / "three") / "card.md").read_text()


@pytest.mark.parametrize(
    ("model", "rows", "words"),
    [
        (
            {"modalities": ["S2L2A", "S1RTC", "DEM"]},
            {"S2L2A": "all", "S1RTC": "all", "DEM": "all"},
            "",
        ),
        (
            {"modalities": ["S2L2A", "NDVI"], "bands": {"S2L2A": ["B03", "B02"]}},
            {"S2L2A": "B02 B03 B04 B08"},
            "The model computes NDVI (from B04 B08) itself",
        ),
        (
            {"modalities": ["DEM", "RGB", "NDVI", "coords"]},
            {"DEM": "all", "S2L2A": "B02 B03 B04 B08", "coords": "all"},
            "The model computes RGB (from B04 B03 B02) and NDVI (from B04 B08) itself",
        ),
    ],
)
def test_card_lists_the_inputs_really_used(
    tmp_path: Path, model: dict[str, Any], rows: dict[str, str], words: str
) -> None:
    fake = product_fixtures.make(tmp_path / "fake", model=model)
    card = (write(fake, tmp_path / "bundle") / "card.md").read_text()
    _, *found = table(card.split("| head | label |")[0], "Inputs and outputs")
    assert {row[0]: row[2] for row in found} == rows
    for row in found:
        if row[0] in MODALITIES:
            assert row[1].split() == list(MODALITIES[row[0]].bands), "a tensor is given whole, whatever is looked at"
    assert ("The model computes" in card) == bool(words)
    assert words in card
    assert ("sentinel-1" in yaml.safe_load(card.split("---")[1])["tags"]) == ("S1RTC" in rows)


@pytest.mark.parametrize("verdict", ["strong", "acceptable", "mixed", "negative", "inconclusive"])
def test_card_tells_every_verdict(copy: Fake, tmp_path: Path, verdict: str) -> None:
    edit(copy.results / "gate.json", verdict=verdict, reason="Because of <numbers>.", advice="Add parents.")
    card = (write(copy, tmp_path / "bundle") / "card.md").read_text()
    assert f"## Verdict: {verdict}" in card
    assert "Because of <numbers>." in card
    assert "Add parents." in card
    assert ("negative result" in card) == (verdict == "negative")


def test_real_data_are_attributed_and_not_called_simulated(tmp_path: Path) -> None:
    fake = product_fixtures.make(tmp_path / "real", simulated=False)
    fake.change(
        project={"name": "nyc"},
        labels={"BUILDINGS": {"source": "/home/someone/footprints.parquet"}},
        archive={
            "catalog": "https://user:secret@stac.example.org/v1?sig=abc",
            "asset_base": "s3://user:secret@bucket/pixels?sig=abc",
            "frozen_scenes": "/home/someone/scenes",
            "synthesis": {"weights": "/home/someone/generator.pt", "tokenizer_weights": "/home/someone/tokens.pt"},
        },
    )
    fake.change(project={"notes": "As in https://user:secret@wiki.example.org/x?sig=abc and /home/someone/notes.txt."})
    bundle = write(fake, tmp_path / "bundle")
    card = (bundle / "card.md").read_text()
    assert "simulated" not in card.lower()
    assert "Contains modified Copernicus Sentinel-2 data 2024." in card
    assert "CC BY 4.0" in card
    assert "BUILDINGS: footprints.parquet" in card
    for path in bundle.iterdir():
        text = path.read_bytes()
        for secret in (b"/home/someone", b"secret", b"sig=abc", str(tmp_path).encode()):
            assert secret not in text, path.name
    assert load_config(bundle / "recipe.yaml").archive.catalog == "https://stac.example.org/v1"


def test_card_names_the_decoders_and_no_local_file_is_named(tmp_path: Path) -> None:
    fake = product_fixtures.make(tmp_path / "fake")
    path = fake.results / "runs" / "multihead" / "0" / "0" / "model.json"
    spec = read_json(path)
    spec["model"] |= {"weights": "/home/someone/tiny.safetensors", "coords_vocabulary": "/home/someone/words.json"}
    spec["heads"]["lulc"]["decoder"] = "FullResolutionDecoder"
    spec["heads"]["buildings"]["decoder"] = None
    write_json(path, spec)
    fake.change(model={key: spec["model"][key] for key in ("weights", "coords_vocabulary")})
    bundle = write(fake, tmp_path / "bundle")
    card = (bundle / "card.md").read_text()
    assert "decoders: FullResolutionDecoder (lulc), UNetDecoder (buildings);" in card
    for name in ("model.json", "recipe.yaml"):
        text = (bundle / name).read_text()
        assert "words.json" in text
        assert "someone" not in text


@pytest.mark.parametrize(
    ("scores", "seed", "words"),
    [
        ({4: 0.5}, 4, "the only one"),
        ({4: 0.5, 2: 0.6, 9: 0.6}, 2, "best of 3 seeds"),
        ({4: None, 2: 0.1}, 2, "best of 2 seeds"),
        ({4: None, 2: math.nan}, 4, "no seed has a defined"),
    ],
)
def test_seed_is_chosen_by_validation(scores: dict[int, float | None], seed: int, words: str) -> None:
    chosen, why = choose_seed({one: {"score": score} for one, score in scores.items()})
    assert chosen == seed
    assert words in why


def test_folder_with_other_files_is_left_alone(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "weights.pkl").write_bytes(b"x")
    with pytest.raises(CityHeadsError, match=r"weights.pkl, which is no part of a bundle"):
        write(fake, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pkl"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gate.json", "gate.json: no such file"),
        ("runs/multihead/0/1/training.json", "training.json: no such file"),
        ("runs/multihead/0/1/model.safetensors", "model.safetensors: no such file"),
        ("evaluation/test/multihead/0/1/metrics.json", "metrics.json: no such file"),
        ("scenes/kenya.json", "kenya.json: no such file"),
    ],
)
def test_missing_artifact_is_named_and_no_bundle_is_left(bundle: Path, copy: Fake, name: str, words: str) -> None:
    (copy.results / name).unlink()
    out = copy.results / "bundle"
    with pytest.raises(CityHeadsError, match=words):
        write(copy, out)
    with pytest.raises(CityHeadsError, match="is no bundle"):
        verify_bundle(out)


def test_classes_in_another_order_than_trained_are_refused(copy: Fake, tmp_path: Path) -> None:
    path = copy.results / "dataset" / "0" / "classes.json"
    tables = read_json(path)
    tables["labels"]["LULC"].reverse()
    write_json(path, tables)
    with pytest.raises(CityHeadsError, match="trained on the classes water, developed"):
        write(copy, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "SHA256SUMS").unlink(), "is no bundle"),
        (lambda folder: (folder / "card.md").unlink(), "no such file, though"),
        (lambda folder: (folder / "model.json").write_text("{}"), "its bytes are not those"),
        (lambda folder: (folder / "SHA256SUMS").write_text("0  ../x\n"), "does not list"),
    ],
)
def test_damaged_bundle_is_refused(bundle: Path, tmp_path: Path, harm: Any, words: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    harm(folder)
    with pytest.raises(CityHeadsError, match=words):
        verify_bundle(folder)
