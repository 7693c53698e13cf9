"""The config: defaults, refusals in one line, and what survives being written and read again."""

from __future__ import annotations

import copy
import datetime
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_fixtures import MINIMAL, make_config, merge
from hypothesis import given, settings
from hypothesis import strategies as st

from cityheads.config import Config, UndeclaredSectionError, load_config, resolve
from cityheads.config.load import write_config
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
    assert config.model_dump(mode="json") == config.to_dict()


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
        ("train.epochs", 0, "config key 'train.epochs': 0 is less than the minimum of 1"),
        ("train.epochs", True, "config key 'train.epochs': true is not a whole number"),
        ("train.epochs", "3", "config key 'train.epochs': '3' is not a whole number; write it without quotes"),
        ("train.epochs", 3.0, "3.0 is not a whole number; write 3"),
        ("train.epochs", None, "null is not a whole number; remove the key for its default"),
        ("train.lr", "fast", "config key 'train.lr': 'fast' is not a number"),
        ("train.lr", float("nan"), "config key 'train.lr': NaN is not a finite number"),
        ("train.lr", 0, "config key 'train.lr': 0 is not above 0"),
        ("train", None, "config key 'train': null is not a mapping of keys to values; write {} for its defaults"),
        ("project.title", False, "config key 'project.title': false is not text; put it in quotes"),
        ("archive.sign", "gcs", "config key 'archive.sign': 'gcs' is none of none, planetary-computer"),
        ("grid.parent_px", 250, "config key 'grid.parent_px': 250 is not a multiple of 64"),
        ("quality.s1_median_db", [5, -30], "5 is not below -30"),
        ("heads.lulc.label", "LAND", "config key 'heads.lulc.label': no label 'LAND'; there are LULC, BUILDINGS"),
        ("heads.lulc.label", "LUCL", "no label 'LUCL'; did you mean 'LULC'?"),
        ("heads.lulc.class_weights", [1, 2], "heads.lulc.class_weights': 5 classes need as many weights, not 2"),
        ("heads.lulc.decoder_args", {"a": {"b": float("inf")}}, "heads.lulc.decoder_args.a.b': inf is not a finite"),
        ("heads.buildings.positive_class", "bulding", "has no class 'bulding'; did you mean 'building'?"),
        ("heads.buildings.positive_class", None, "metric iou is of one class; name it: not building or building"),
        ("heads.Lulc", {"label": "LULC"}, "config key 'heads.Lulc': 'Lulc' is not allowed: lower-case letters"),
        ("heads.train", {"label": "LULC"}, "config key 'heads.train': 'train' is a name of PyTorch's own"),
        ("heads.lulc", {}, "config key 'heads.lulc.label' is missing: The label layer that this head learns."),
        ("runs.multihead.heads", ["lulc", "flood"], "no head 'flood'; there are lulc, buildings"),
        ("runs.multihead.heads", ["lulc", "lulc"], "config key 'runs.multihead.heads': lulc stands there twice"),
        ("runs", {}, "config key 'runs': {} has 0 entries; it takes at least 1"),
        ("runs.lulc", {"heads": ["buildings"]}, "not single-task for lulc"),
        ("seeds", [0, -1], "config key 'seeds.1': -1 is less than the minimum of 0"),
        ("noninferiority.strong_margin_pp", 5, "5 is above noninferiority.acceptable_margin_pp (3)"),
        ("heads.lulc", {"label": "LULC", "loss": "lovasz", "class_weights": [1, 1, 1, 1, 1]}, "lovasz takes none"),
        ("noninferiority.run", "everything", "config key 'noninferiority.run': no run 'everything'"),
        ("noninferiority.baselines", {"lulc": "multihead"}, "is not single-task"),
        ("noninferiority.baselines", {"flood": "lulc"}, "has no such head"),
        ("splits.fractions", {"train": 0.5, "val": 0.1, "test": 0.1}, "sum to 1"),
        ("splits", {"method": "folds", "only_folds": [5]}, "splits.only_folds': 5 is not below splits.folds (5)"),
        ("splits.only_folds", [0], "config key 'splits.only_folds': is for method folds, not search; remove it"),
        ("splits.fold", 0, "config key 'splits.fold' is now 'splits.only_folds', a list such as [0]"),
        ("splits.method", "region", "config key 'splits.region': name the region"),
        ("archive.catalog", "x/catalog.json", "simulated provider makes its own"),
        ("archive.provider", "stac", "config key 'archive.catalog': provider stac needs the URL or path"),
        ("archive.synthesis", {"pretrained": False, "weights": "g.pt"}, "tokenizer_weights': name a file here too"),
        ("archive.imagery", {"S1RTC": {}, "DEM": {}}, "config key 'archive.imagery': S2L2A is needed"),
        ("archive.imagery", {"S2L2A": {}, "DEM": {}}, "config key 'model.modalities': S1RTC is not in archive.imagery"),
        ("archive.imagery", {"S2L2A": {}, "S1GRD": {}, "DEM": {}, "S1RTC": {}}, "simulated archive has no S1GRD"),
        ("archive.imagery.S1RTC", None, "config key 'archive.imagery.S1RTC': null; write {} for"),
        ("archive.imagery.S1RTC", {"collection": None}, "so that missing must be synthesize"),
        ("archive.imagery.S2L2A", {"cloud_asset": "cloud"}, "simulated archive has no cloud probability"),
        ("archive.imagery.S1RTC", {"collection": None, "missing": "synthesize"}, "simulated archive always has one"),
        ("archive.imagery.S2L2A.datetime", "soon", "imagery.S2L2A.datetime': 'soon' is not a time as STAC writes it"),
        ("archive.imagery.S2L2A", {"datetime": "2024-05-01/.."}, "target_date': the period of 'datetime' is open"),
        ("model.modalities", ["coords"], "coords alone show nothing"),
        ("model.modalities", ["S2L2A", "LULC"], "is none of S2L2A, S1RTC, S1GRD, DEM, RGB, NDVI, coords"),
        ("model.bands", {"S1GRD": ["VV"]}, "S1GRD is not in model.modalities"),
        ("model.bands", {"S2L2A": ["B02", "B10"]}, "no band 'B10'"),
        ("model.tim", {}, "config key 'model.tim': terramind_v1_tiny has no Thinking-in-Modalities"),
        ("model", {"modalities": ["RGB", "coords"], "weights": "a.pt"}, "config key 'model.coords_vocabulary'"),
        ("labels.LULC", {"kind": "landcvr"}, "kind': 'landcvr' is none of landcover, footprints, raster, vector"),
        ("labels.LULC", {}, "config key 'labels.LULC.kind' is missing: one of landcover, footprints"),
        ("labels.LULC.ignore_codes", [0, 50], "config key 'labels.LULC': code 50 is mapped twice"),
        ("labels.LULC.source", "x", "is not for a label of kind landcover, only for footprints, raster, vector"),
        ("labels.BUILDINGS.asset", "x", "is not for a label of kind footprints, only for landcover; remove it"),
        (
            "downloads",
            {"data/x.geojson": {"provider": "file", "url": "u"}},
            "config key 'downloads.data/x.geojson': no label",
        ),
        ("labels.lulc", MINIMAL["labels"]["LULC"], "'lulc' is not allowed: upper-case letters"),
    ],
)
def test_a_wrong_config_is_refused_in_one_line_that_names_the_key(
    default: dict[str, Any], key: str, value: Any, says: str
) -> None:
    with pytest.raises(CityHeadsError) as caught:
        resolve(change(default, key, value))
    assert says in str(caught.value)
    assert str(caught.value).startswith("config key '")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("key", "value", "now"),
    [
        ("gate", {"resamples": 200}, "noninferiority"),
        ("noninferiority.strong_pp", 1, "noninferiority.strong_margin_pp"),
        ("noninferiority.acceptable_pp", 1, "noninferiority.acceptable_margin_pp"),
        ("train.recompute", True, "train.gradient_checkpointing"),
        ("model.thinking", {}, "model.tim"),
        ("model.freeze_encoder", True, "model.encoder"),
        ("evaluation.without_modalities", False, "evaluation.modality_ablation"),
        ("simulate.s2_noise", 0.1, "simulate.s2_noise_reflectance"),
    ],
)
def test_a_key_of_before_is_refused_with_its_new_name(default: dict[str, Any], key: str, value: Any, now: str) -> None:
    with pytest.raises(CityHeadsError, match=f"config key '{key}' is now '{now}'"):
        resolve(change(default, key, value))


def test_a_key_that_is_gone_is_refused_with_what_to_do(default: dict[str, Any]) -> None:
    with pytest.raises(
        CityHeadsError, match=r"'train\.patience' is gone: remove it; every run trains for train\.epochs"
    ):
        resolve(change(default, "train.patience", 5))


def test_of_several_faults_the_one_nearest_to_the_root_is_told(default: dict[str, Any]) -> None:
    wrong = change(change(default, "labels.LULC.classes", [{"name": "a", "color": "red"}]), "train.epochs", 0)
    with pytest.raises(CityHeadsError, match=r"train\.epochs"):
        resolve(wrong)


def test_heads_that_merge_modalities_share_no_neck(default: dict[str, Any]) -> None:
    with pytest.raises(CityHeadsError, match=r"heads\.lulc\.neck': with model\.merge none each head merges"):
        resolve(merge(default, {"model": {"merge": "none"}, "heads": {"lulc": {"neck": "shared"}}}))


def test_classes_are_checked_one_by_one(default: dict[str, Any]) -> None:
    for change_of, says in (
        ({"codes": []}, "config key 'labels.LULC.classes': class 'water' has no codes"),
        ({"color": None}, "config key 'labels.LULC.classes.0.color': null is not text; put it in quotes"),
        ({"color": "red"}, "'red' is not allowed: a colour is written as"),
        ({"values": ["a"]}, "config key 'labels.LULC.classes.0.values' is not for a label of kind landcover"),
        ({"code": [1]}, "config key 'labels.LULC.classes.0.code' is unknown; did you mean 'codes'?"),
        ({"name": "developed"}, "config key 'labels.LULC.classes': two classes share a name"),
    ):
        wrong = copy.deepcopy(default)
        wrong["labels"]["LULC"]["classes"][0] |= change_of
        with pytest.raises(CityHeadsError) as caught:
            resolve(wrong)
        assert says in str(caught.value)


def test_footprints_of_a_real_archive_need_files(default: dict[str, Any]) -> None:
    real = change(change(default, "archive.provider", "stac"), "archive.catalog", "catalog.json")
    with pytest.raises(CityHeadsError, match=r"labels\.BUILDINGS\.source"):
        resolve(real)


def test_what_yaml_misreads_is_taken_as_it_is_meant(default: dict[str, Any]) -> None:
    # Snakemake reads a config with PyYAML, to which 1e-3 is text and an unquoted date no text
    raw = merge(
        default,
        {
            "train": {"lr": "1e-3", "batch_size": "1e1"},
            "archive": {"imagery": {"S2L2A": {"target_date": datetime.date(2024, 7, 15)}}},
        },
    )
    config = resolve(raw)
    assert (config.train.lr, config.train.batch_size) == (0.001, 10)
    assert config.archive.imagery.s2.target_date == "2024-07-15"
    assert raw["train"]["lr"] == "1e-3", "the argument is left alone"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1,", "not valid YAML: line 2, column 1: "),
        (b"- 1", "a config is a mapping of keys to values"),
        (b"", "a config is a mapping of keys to values"),
        (b"train: {lr: 0.1}\ntrain: {}\n", "line 2, column 1: key 'train' stands twice, also in line 1; remove one"),
        (b"train:\n  lr: 1\n  epochs: 2\n  lr: 3", "line 4, column 3: key 'lr' stands twice, also in line 2"),
        ("a: ü".encode("latin-1"), "line 1, column 4: not UTF-8; save the file in that encoding"),
        (b"a: 1\nb: \x07", "line 2, column 4: character '\\x07' is not allowed in YAML; remove it"),
        (b"a: !!python/object:os.system {}", "not valid YAML: line 1, column 4"),
        (b"a: 1\n---\nb: 2", "not valid YAML: line 2, column 1"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_column(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(CityHeadsError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_written_config_with_credentials_is_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for catalog, mode in (("https://a.example/v1", 0o644), ("https://a.example/v1?sig=abc", 0o600)):
        config = make_config(project={"notes": f"See {catalog}."})
        before = os.umask(0o022)
        try:
            write_config(config, path)
        finally:
            os.umask(before)
        assert load_config(path) == config
        assert path.stat().st_mode & 0o777 == mode


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"none\.yaml: no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(CityHeadsError, match="cannot be read"):
        load_config(tmp_path)


def test_merge_keys_and_anchors_are_yaml_too(tmp_path: Path) -> None:
    more = "  other: &other {label: LULC}\n  last: {<<: *other, weight: 2}\n"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(MINIMAL).replace("heads:\n", f"heads:\n{more}", 1))
    assert load_config(tmp_path / "c.yaml").heads["last"].weight == 2


def test_the_config_is_frozen_at_every_depth() -> None:
    config = make_config(heads={"lulc": {"decoder_args": {"channels": [8, 8]}}})
    for change_it in (
        lambda: setattr(config, "seeds", (1,)),
        lambda: setattr(config.train, "epochs", 1),
        lambda: config.labels.update({}),
        lambda: config.runs.pop("lulc"),
        lambda: config.noninferiority.baselines.__setitem__("lulc", "x"),
        lambda: config.archive.imagery.S1RTC.assets.clear(),
    ):
        with pytest.raises((TypeError, ValueError)):
            change_it()
    assert hash(config.labels["LULC"]) == hash(make_config().labels["LULC"])
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_restricted_configs_show_what_was_declared_and_nothing_else() -> None:
    config = make_config()
    seen = config.restricted_to(("grid", "archive.imagery"))
    assert isinstance(seen, Config)
    assert seen.grid.parent_px == 896
    assert seen.archive.imagery.names == ("S2L2A", "S1RTC", "DEM")
    for read in (lambda: seen.train, lambda: seen.archive.provider, lambda: seen.archive.network):
        with pytest.raises(UndeclaredSectionError, match="table of verbs"):
            read()
    assert set(seen.to_dict()) == {"grid", "archive"}
    assert set(seen.to_dict()["archive"]) == {"imagery"}
    assert pickle.loads(pickle.dumps(seen)).grid == config.grid
    assert config.restricted_to(("archive", "archive.imagery")).archive == config.archive
    with pytest.raises(UndeclaredSectionError, match="no section 'gate'"):
        config.restricted_to(("gate",))
    with pytest.raises(AttributeError):
        _ = seen.nothing


RESAMPLED = {"S2L2A": {"resampling_of": {"B01": "cubic"}}, "S1RTC": {}, "DEM": {"resampling": "cubic"}}
SECTIONS = ("grid", "archive", "quality", "labels", "heads", "runs", "model", "train")


@pytest.mark.parametrize(
    ("changes", "how", "same"),
    [
        ({"train": {"workers": 4}}, {}, True),
        ({"train": {"threads": 4}}, {}, False),
        ({"archive": {"workers": 9, "offline": True, "network": {"attempts": 1, "timeout_s": 3}}}, {}, True),
        ({"archive": {"sign": "planetary-computer"}}, {}, False),
        ({"archive": {"imagery": RESAMPLED}}, {}, False),
        ({"archive": {"imagery": RESAMPLED}}, {"reading": False}, True),
        ({"archive": {"synthesis": {"steps": 3}}}, {}, False),
        ({"archive": {"synthesis": {"steps": 3}}}, {"scene_search": True}, True),
        ({"labels": {"LULC": {"collection": "other"}}}, {"scene_search": True}, False),
        ({"labels": {"BUILDINGS": {"rule": "area"}}}, {}, False),
        ({"labels": {"BUILDINGS": {"rule": "area"}}}, {"scene_search": True}, True),
        ({"grid": {"resolution_m": 10}}, {}, True),
        ({"seeds": [1]}, {}, True),
    ],
)
def test_fingerprints_change_with_what_can_change_a_result(
    changes: dict[str, Any], how: dict[str, bool], same: bool
) -> None:
    before, after = make_config(), make_config(**changes)
    assert (before.fingerprint(SECTIONS, **how) == after.fingerprint(SECTIONS, **how)) is same


def test_colours_count_for_what_draws_them_only() -> None:
    painted = copy.deepcopy(MINIMAL)
    painted["labels"]["LULC"]["classes"][0]["color"] = "#000000"
    before, after = make_config(), make_config(painted)
    assert before.fingerprint(["labels"]) == after.fingerprint(["labels"])
    assert before.fingerprint(["labels"], colors=True) != after.fingerprint(["labels"], colors=True)


def test_jobs_of_a_label_or_a_run_look_at_their_own_only() -> None:
    before = make_config()
    other = make_config(labels={"BUILDINGS": {"rule": "area"}}, heads={"buildings": {"weight": 2}})
    sections = ("labels", "heads", "runs")
    assert before.for_label("LULC").fingerprint(["labels"]) == other.for_label("LULC").fingerprint(["labels"])
    assert before.for_run("lulc").fingerprint(sections) == other.for_run("lulc").fingerprint(sections)
    assert before.for_run("multihead").fingerprint(sections) != other.for_run("multihead").fingerprint(sections)
    assert json.loads(before.for_run("lulc").fingerprint(["runs"])) == {
        "runs": {"lulc": {"heads": ["lulc"], "set": {}}}
    }


FRACTIONS = st.floats(0, 1)
S2L2A = st.fixed_dictionaries(
    {},
    optional={
        "target_date": st.dates(datetime.date(2024, 5, 1), datetime.date(2024, 9, 30)).map(str) | st.none(),
        "max_cloud_percent": st.floats(0, 100),
        "assets": st.dictionaries(st.text("B018A"), st.text("abc")),
        "scl_asset": st.none() | st.just("scl"),
        "resampling_of": st.dictionaries(st.sampled_from(["B01", "B09"]), st.sampled_from(["nearest", "cubic"])),
    },
)
LEAVES = {
    "project.title": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    "grid.resolution_m": st.floats(1e-3, 1e6) | st.integers(1, 100),
    "grid.parent_px": st.sampled_from([64, 128, 896]),
    "archive.workers": st.integers(1, 64),
    "archive.network.backoff_s": st.floats(0, 1e300),
    "archive.imagery": st.fixed_dictionaries({"S2L2A": S2L2A, "S1RTC": st.just({}), "DEM": st.just({})}),
    "quality.min_clear_fraction": FRACTIONS,
    "labels.BUILDINGS.feature_codes": st.lists(st.integers()),
    "heads.lulc.class_weights": st.none() | st.lists(st.floats(0.1, 9), min_size=5, max_size=5),
    "heads.lulc.decoder_args": st.dictionaries(
        st.text("abc"), st.recursive(st.integers() | st.text("xy1e-") | st.booleans() | st.none(), st.lists)
    ),
    "seeds": st.lists(st.integers(0), min_size=1, unique=True),
    "model.tim": st.none(),
    "model.lora": st.none() | st.just({"rank": 2}),
    "model.bands": st.dictionaries(st.just("S1RTC"), st.just(["VH"])),
    "train.lr": st.floats(0, exclude_min=True, allow_infinity=False, allow_subnormal=True),
    "train.accelerator": st.sampled_from(["cpu", "cuda", "auto"]),
    "noninferiority.baselines": st.dictionaries(st.just("lulc"), st.just("lulc")),
}


@given(st.fixed_dictionaries({}, optional=LEAVES))
@settings(max_examples=60, deadline=None)
def test_a_config_survives_being_written_and_read(tmp_path_factory: pytest.TempPathFactory, leaves: Any) -> None:
    raw = copy.deepcopy(MINIMAL)
    for key, value in leaves.items():
        raw = change(raw, key, value)
    config = resolve(raw)
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert Config.model_validate(json.loads(json.dumps(config.to_dict()))) == config
    path = tmp_path_factory.mktemp("config") / "resolved.yaml"
    write_config(config, path)
    assert load_config(path) == config
    assert load_config(path).fingerprint(SECTIONS) == config.fingerprint(SECTIONS)


def test_a_run_can_set_keys_of_its_own_training(default: dict[str, Any]) -> None:
    other = {"heads": ["lulc"], "set": {"train.lr": 0.5, "model.merge": "concat", "heads.lulc.loss": "ce"}}
    config = resolve(default | {"runs": default["runs"] | {"other": other}})
    own = config.for_run("other")
    assert (own.train.lr, own.model.merge, own.heads["lulc"].loss) == (0.5, "concat", "ce")
    assert config.train.lr != 0.5
    assert config.for_run("lulc").train.lr == config.train.lr
    # the part that a verb sees is narrowed alike
    seen = config.restricted_to(["runs", "train.lr", "train.epochs"]).for_run("other")
    assert (seen.train.lr, seen.train.epochs) == (0.5, config.train.epochs)
    assert config.for_run("other").fingerprint(["train"]) != config.for_run("lulc").fingerprint(["train"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.lrr", 1, "config key 'runs.lulc.set': 'train.lrr' is unknown; did you mean 'lr'?"),
        ("train.lr", -1.0, "config key 'runs.lulc.set': 'train.lr': -1.0 is not above 0"),
        ("grid.parent_px", 8, "config key 'runs.lulc.set': 'grid.parent_px' cannot be set for a run"),
        ("heads.lulc.label", "BUILDINGS", "cannot be set for a run"),
        ("heads.buildings.loss", "ce", "config key 'runs.lulc.set': heads.buildings.loss: the run has no head"),
        ("model.modalities", ["S1GRD"], "config key 'runs.lulc.set': 'model.modalities': S1GRD is not in"),
    ],
)
def test_what_a_run_sets_is_checked(default: dict[str, Any], key: str, value: Any, said: str) -> None:
    raw = copy.deepcopy(default)
    raw["runs"]["lulc"]["set"] = {key: value}
    with pytest.raises(CityHeadsError, match=re.escape(said)):
        resolve(raw)


def test_the_folds_that_are_run() -> None:
    def folds(**splits: Any) -> tuple[int, ...]:
        return make_config(MINIMAL, splits=splits).folds

    assert folds() == folds(method="search", folds=9) == folds(method="region", region="bronx") == (0,)
    assert folds(method="folds", folds=4) == (0, 1, 2, 3)
    assert folds(method="folds", folds=4, only_folds=[3, 1]) == (1, 3)
    one, all_of_them = ({"method": "folds", "only_folds": only} for only in ([2], None))
    sections = ("splits.method", "splits.folds", "splits.only_folds")
    assert make_config(MINIMAL, splits=one).restricted_to(sections).folds == (2,)
    texts = {make_config(MINIMAL, splits=splits).fingerprint(["splits"]) for splits in (one, all_of_them)}
    assert len(texts) == 1, "a result does not depend on which folds are run besides"
