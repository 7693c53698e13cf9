"""The config: defaults, refusals, and the documents that list its keys."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cityheads.config import load_config, resolve
from cityheads.core.errors import CityHeadsError


@pytest.fixture(scope="module")
def default(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / "config/config.yaml").read_text())


def change(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    place = changed
    *path, last = key.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return changed


@pytest.mark.parametrize(
    "name", ["config.yaml", "terramesh.yaml", "nyc.yaml", "nyc-lite.yaml", "nyc-earth-search.yaml"]
)
def test_every_config_of_the_repository_is_right(repository: Path, name: str) -> None:
    config = load_config(repository / "config" / name)
    assert resolve(config.model_dump(mode="json")) == config, "a resolved config resolves to itself"


def test_defaults_are_filled_at_every_depth_and_the_argument_is_left_alone(default: dict[str, Any]) -> None:
    before = copy.deepcopy(default)
    config = resolve(default)
    assert default == before
    assert config.archive.imagery.S1RTC.assets == {"VV": "vv", "VH": "vh"}
    assert config.labels["BUILDINGS"].rule == "centre"
    assert config.noninferiority.baselines == {"lulc": "lulc", "buildings": "buildings"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trian.epochs", 3, "config key 'trian' is unknown; did you mean 'train'?"),
        ("train.epocs", 3, "config key 'train.epocs' is unknown; did you mean 'epochs'?"),
        ("train.epochs", 0, "train.epochs"),
        ("train.lr", "fast", "train.lr"),
        ("archive.sign", "s3", "is none of none, planetary-computer"),
        ("grid.parent_px", 250, "not a multiple of 64"),
        ("heads.lulc.label", "LAND", "no label 'LAND'"),
        ("runs.multihead.heads", ["lulc", "flood"], "no head 'flood'"),
        ("noninferiority.run", "everything", "no run 'everything'"),
        ("noninferiority.baselines", {"lulc": "multihead"}, "is not single-task"),
        ("noninferiority.baselines", {"flood": "lulc"}, "has no such head"),
        ("runs.lulc", {"heads": ["buildings"]}, "not single-task for lulc"),
        ("splits.fractions", {"train": 0.5, "val": 0.1, "test": 0.1}, "sum to 1"),
        ("splits.fold", 5, "not below splits.folds"),
        ("splits.method", "region", "splits.region"),
        ("archive.catalog", "x/catalog.json", "simulated provider makes its own"),
        ("archive.provider", "stac", "needs the URL or path"),
        ("labels.LULC.ignore_codes", [0, 50], "code 50 is mapped twice"),
        ("archive.imagery", {"S1RTC": {}, "DEM": {}}, "config key 'archive.imagery': S2L2A is needed"),
        ("archive.imagery", {"S2L2A": {}, "DEM": {}}, "S1RTC is not in archive.imagery"),
        ("archive.imagery", {"S2L2A": {}, "S1GRD": {}, "DEM": {}, "S1RTC": {}}, "simulated archive has no S1GRD"),
        ("model.modalities", ["coords"], "coords alone show nothing"),
        ("model.modalities", ["S2L2A", "LULC"], "is none of S2L2A, S1RTC, S1GRD, DEM, RGB, NDVI, coords"),
        ("model.bands", {"S1GRD": ["VV"]}, "S1GRD is not in model.modalities"),
        ("model.bands", {"S2L2A": ["B02", "B10"]}, "no band 'B10'"),
        ("model", {"modalities": ["RGB", "coords"], "weights": "a.pt"}, "config key 'model.coords_vocabulary'"),
        ("heads.Lulc", {"label": "LULC"}, "Lulc"),
    ],
)
def test_a_wrong_config_is_refused_in_one_line_that_names_the_key(
    default: dict[str, Any], key: str, value: Any, says: str
) -> None:
    with pytest.raises(CityHeadsError) as caught:
        resolve(change(default, key, value))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_codes_and_footprints_without_a_file_are_refused(default: dict[str, Any]) -> None:
    wrong = copy.deepcopy(default)
    del wrong["labels"]["LULC"]["classes"][0]["codes"]
    with pytest.raises(CityHeadsError, match="class 'water' has no codes"):
        resolve(wrong)
    real = change(change(default, "archive.provider", "stac"), "archive.catalog", "catalog.json")
    with pytest.raises(CityHeadsError, match=r"labels\.BUILDINGS\.source"):
        resolve(real)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"none\.yaml: no such config file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(CityHeadsError, match=r"broken\.yaml: not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(CityHeadsError, match="mapping"):
        load_config(tmp_path / "list.yaml")


def test_the_configuration_page_is_the_schema(repository: Path) -> None:
    from cityheads.config.document import document

    assert (repository / "docs/configuration.md").read_text() == document(), "run: cityheads document_config"
