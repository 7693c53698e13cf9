"""TerraMind's input side, as a config can ask for it: every modality, coordinates, and every way of merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import small_config, write_store
from safetensors.torch import save_file
from terratorch.models.backbones.terramind.model import terramind_register
from test_multihead import PX, make_images, make_spec
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES, stored
from cityheads.evaluation.evaluate import evaluate
from cityheads.model.backbones.terramind import (
    AttentionMerge,
    CoordinateTokens,
    GatedMerge,
    published_coordinate_tokens,
    read_coordinate_tokens,
)
from cityheads.model.builder import build_model, load_model
from cityheads.model.derived import derive
from cityheads.model.factory import MultiHeadModelFactory
from cityheads.training.run import train
from cityheads.training.spec import make_spec as spec_of_run

PLACES = torch.tensor([[-73.97, 40.78], [-74.0, 40.5], [151.2, -33.87]])


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("dataset"))


def with_inputs(names: list[str], **model: Any) -> dict[str, Any]:
    spec = make_spec(modalities=names, **model)
    spec["modalities"] = {}
    for name in names:
        if name == COORDS:
            spec["modalities"][name] = {"bands": ["longitude", "latitude"], "mean": [0.0] * 2, "std": [1.0] * 2}
        else:
            m = (DERIVED | MODALITIES)[name]
            spec["modalities"][name] = {"bands": list(m.bands), "mean": list(m.mean), "std": list(m.std)}
    return spec


@pytest.mark.parametrize("name", [*MODALITIES, *DERIVED])
def test_statistics_are_those_of_the_pretraining(name: str) -> None:
    modality = (MODALITIES | DERIVED)[name]
    key = {"S2L2A": "untok_sen2l2a", "S1RTC": "untok_sen1rtc", "S1GRD": "untok_sen1grd", "DEM": "untok_dem",
           "RGB": "untok_sen2rgb", "NDVI": "tok_ndvi"}[name]  # fmt: skip
    assert list(modality.mean) == terramind_register.v1_pretraining_mean[f"{key}@224"]
    assert list(modality.std) == terramind_register.v1_pretraining_std[f"{key}@224"]


def test_what_must_be_read_for_a_model() -> None:
    assert stored(["NDVI", "S1GRD", "RGB", "S2L2A", COORDS]) == ["S2L2A", "S1GRD"]
    with pytest.raises(KeyError):
        stored(["S3"])


def test_true_colour_equals_numpy() -> None:
    images = make_images()["S2L2A"]
    images[0, 3, 0, 0] = 0
    found = derive("RGB", images)
    expected = np.minimum(images.numpy()[:, [3, 2, 1]] * 255 / 2000, 255)
    expected[0, 0, 0, 0] = np.nan
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert found[0, 1:, 0, 0].isfinite().all()


@pytest.mark.parametrize("name", ["S1GRD", "RGB", "NDVI"])
def test_an_input_of_its_own_kind_is_used(name: str) -> None:
    built = build_model(with_inputs(["DEM", name])).eval()
    images = make_images()
    source = "S1GRD" if name == "S1GRD" else "S2L2A"
    images["S1GRD"] = images["S1RTC"]
    assert built.input_modalities == ["DEM", source]
    given = {key: images[key] for key in built.input_modalities}
    with torch.no_grad():
        full, without = built(given), built(given, drop=[source])
        changed = built(given | {source: given[source].flip(-1)})
    assert full["lulc"].shape == (2, 5, PX, PX)
    assert not torch.allclose(full["lulc"], without["lulc"])
    assert not torch.allclose(full["lulc"], changed["lulc"])


def test_with_sentinel_2_goes_what_is_computed_from_it() -> None:
    built = build_model(with_inputs(["S2L2A", "NDVI", "RGB", "DEM"])).eval()
    assert list(built._inputs(make_images(), ["S2L2A"])) == ["DEM"]
    assert list(built._inputs(make_images(), ["NDVI"])) == ["S2L2A", "RGB", "DEM"]
    alone = build_model(with_inputs(["NDVI", "RGB"])).eval()
    with pytest.raises(CityHeadsError, match="all image modalities are left out"):
        alone(make_images(), drop=["S2L2A"])


@pytest.mark.parametrize("merge", ["dict", "none"])
def test_heads_that_merge_by_themselves(merge: str) -> None:
    """They start as the mean, learn each on its own, and cope with a missing modality."""
    spec, plain = with_inputs(["S2L2A", "S1RTC", "DEM"], merge=merge), build_model(make_spec()).eval()
    built = build_model(spec).eval()
    state = built.state_dict()
    images = make_images()
    with torch.no_grad():
        maps, expected = [
            model._maps(model._layers(model._inputs(images, ())), (PX, PX), head)
            for model, head in ((built, built.heads["lulc"].merge), (plain, None))
        ]
    for found, mean in zip(maps, expected, strict=True):
        assert torch.allclose(found, mean, atol=1e-5)
    for head in ("lulc", "buildings"):
        assert [name for name in state if name.startswith(f"heads.{head}.merge.")]
    built.train()
    built(images)["lulc"].sum().backward()
    moved = {name for name, p in built.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any(name.startswith("heads.lulc.merge.") for name in moved)
    assert not any(name.startswith("heads.buildings.") for name in moved)
    with torch.no_grad():
        without = built.eval()(images, drop=["S1RTC"])
    assert without["lulc"].isfinite().all()
    spec["heads"]["lulc"]["neck"] = "shared"
    with pytest.raises(CityHeadsError, match=r"needs a neck of its own"):
        build_model(spec)


def test_a_gate_weighs_place_by_place() -> None:
    gate = GatedMerge(4)
    with torch.no_grad():
        gate.score.weight.copy_(torch.tensor([[100.0, 0, 0, 0]]))
    loud, quiet = torch.tensor([3.0, -1, -1, -1]), torch.tensor([-3.0, 1, 1, 1])
    a = torch.stack([loud, quiet]).expand(2, 2, 4)
    b = torch.stack([quiet, loud]).expand(2, 2, 4)
    with torch.no_grad():
        assert torch.allclose(gate({"a": a, "b": b}), loud.expand(2, 2, 4), atol=1e-4)


def test_attention_equals_torchs_own() -> None:
    merge = AttentionMerge(64)
    tokens = torch.randn(2, 2 * 9 + 3, 64)
    with torch.no_grad():
        torch.nn.init.normal_(merge.out.weight)
        other = torch.nn.MultiheadAttention(64, 1, batch_first=True)
        other.in_proj_weight.copy_(torch.cat([merge.query.weight, merge.key_value.weight]))
        other.in_proj_bias.copy_(torch.cat([merge.query.bias, merge.key_value.bias]))
        other.out_proj.load_state_dict(merge.out.state_dict())
        mean = (tokens[:, :9] + tokens[:, 9:18]) / 2
        normed = merge.norm(tokens)
        expected = mean + other(merge.norm(mean), normed, normed, need_weights=False)[0]
        assert torch.allclose(merge(tokens, 9), expected, atol=1e-5)
    with pytest.raises(ValueError, match="do not divide"):
        AttentionMerge(100)


@pytest.mark.parametrize("merge", ["mean", "concat", "dict", "none"])
def test_places_are_told_apart(merge: str) -> None:
    """TerraTorch by itself gives every place the token "unknown" where no vocabulary file is at hand."""
    built = build_model(with_inputs(["S2L2A", COORDS], merge=merge)).eval()
    image = {"S2L2A": make_images(1)["S2L2A"]}
    with torch.no_grad():
        outs = [built(image | {COORDS: place[None]})["lulc"] for place in PLACES]
        near = built(image | {COORDS: PLACES[:1] + 0.01})["lulc"]
        unknown = built(image, drop=[COORDS])["lulc"]
    assert torch.equal(outs[0], near)
    for one in (*outs[1:], unknown):
        assert not torch.allclose(outs[0], one, atol=1e-6)


def test_token_ids_of_coordinates() -> None:
    tokens = CoordinateTokens().encode(PLACES)["tensor"]
    # latitude from -90, longitude from -180, in quarters of a degree
    assert tokens.tolist()[0] == [7 + round((40.75 + 90) * 4), 7 + 721 + (-74 + 180) * 4, 3]
    corners = CoordinateTokens().encode(torch.tensor([[-180.0, -90.0], [180.0, 90.0]]))["tensor"]
    assert corners.tolist() == [[7, 728, 3], [727, 728 + 1440, 3]]
    assert int(corners.max()) < 30_000
    for wrong in ([[-73.9, 95.0]], [[float("nan"), 40.0]]):
        with pytest.raises(ValueError, match="longitude and latitude"):
            CoordinateTokens().encode(torch.tensor(wrong))


def write_vocabulary(path: Path, *, forget: str = "") -> Path:
    values = [f"lat={i / 4:.2f}" for i in range(-360, 361)] + [f"lon={i / 4:.2f}" for i in range(-720, 721)]
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[SOS]": 2, "[EOS]": 3}
    vocabulary |= {word: 29_000 - i for i, word in enumerate(values) if word != forget}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def test_a_vocabulary_file_is_read_once_and_kept_with_the_weights(tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "config.json")
    tokens = read_coordinate_tokens(file)
    upstream = Tokenizer.from_file(str(file))
    for (lon, lat), found in zip(PLACES.tolist(), tokens.encode(PLACES)["tensor"].tolist(), strict=True):
        text = f"lat={round(lat * 4) / 4:.2f} lon={round(lon * 4) / 4:.2f} [EOS]"
        assert found == upstream.encode(text).ids
    other = CoordinateTokens()
    other.load_state_dict(tokens.state_dict(), strict=True)
    assert torch.equal(other.encode(PLACES)["tensor"], tokens.encode(PLACES)["tensor"])
    with pytest.raises(CityHeadsError, match=r"two quarter degrees share a token|no single token"):
        read_coordinate_tokens(write_vocabulary(tmp_path / "less.json", forget="lon=-74.00"))
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(CityHeadsError, match="cannot be read as a vocabulary"):
        read_coordinate_tokens(tmp_path / "text.json")
    with pytest.raises(CityHeadsError, match="no such vocabulary"):
        read_coordinate_tokens(tmp_path / "none.json")


def test_a_published_vocabulary_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CityHeadsError, match=r"coords: .*TerraMind-1\.0-Tokenizer-Coords/config\.json cannot be had"):
        published_coordinate_tokens()


def test_terratorchs_factory_takes_the_same_inputs(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "heads": {"lulc": {"classes": 5}},
        "backbone_modalities": ["S2L2A", COORDS],
        "decoder_channels": [16, 16, 8, 8],
        "backbone_merge_method": "dict",
    }
    first = MultiHeadModelFactory().build_model(**arguments)
    save_file(first.encoder.state_dict(), tmp_path / "encoder.safetensors")
    arguments["backbone_ckpt_path"] = str(tmp_path / "encoder.safetensors")
    with pytest.raises(CityHeadsError, match="backbone_coords_vocabulary"):
        MultiHeadModelFactory().build_model(**arguments)
    arguments["backbone_coords_vocabulary"] = str(write_vocabulary(tmp_path / "config.json"))
    second = MultiHeadModelFactory().build_model(**arguments).eval()
    tokens: Any = second.encoder.tokenizer[COORDS]
    assert tokens.encode(PLACES)["tensor"][0, -1] == 3
    assert tokens.encode(PLACES)["tensor"][0, 0] > 20_000
    key = "encoder_embeddings.coords.token_emb.weight"
    assert torch.equal(first.encoder.state_dict()[key], second.encoder.state_dict()[key])
    with torch.no_grad():
        here, there = (second(make_images(1) | {COORDS: place[None]}).output for place in PLACES[:2])
    assert not torch.equal(here, there)
    assert [name for name in second.state_dict() if name.startswith("heads.lulc.merge.3.score")]


def test_terratorchs_factory_computes_what_is_derived() -> None:
    arguments: dict[str, Any] = {
        "heads": {"lulc": {"classes": 5}},
        "backbone_modalities": ["DEM", "RGB", {"NDVI": 1}],
        "decoder_channels": [16, 16, 8, 8],
        "derived": ["RGB", "NDVI"],
    }
    with pytest.raises(CityHeadsError, match="set normalization to pretraining"):
        MultiHeadModelFactory().build_model(**arguments)
    built = MultiHeadModelFactory().build_model(**arguments, normalization="pretraining").eval()
    assert built.input_modalities == ["DEM", "S2L2A"]
    images = make_images(1)
    found = built._inputs(images, ())
    expected = build_model(with_inputs(["DEM", "RGB", "NDVI"])).eval()._inputs(images, ())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    "model",
    [
        {"modalities": ["RGB", "NDVI", "S1RTC", COORDS], "normalization": "train"},
        {"modalities": ["S2L2A", "S1RTC", "DEM"], "bands": {"S2L2A": ["B08", "B04"], "S1RTC": ["VV"]}, "merge": "dict"},
    ],
)
def test_a_run_with_other_inputs_goes_through(model: dict[str, Any], dataset_dir: Path, tmp_path: Path) -> None:
    config = small_config(model=model, train={"epochs": 1}, evaluation={"modality_ablation": False})
    train(config, run="multihead", seed=0, dataset=dataset_dir, out=tmp_path / "run")
    built, spec = load_model(tmp_path / "run")
    assert list(spec["modalities"]) == model["modalities"]
    evaluate(
        config, run="multihead", seed=0, dataset=dataset_dir, run_dir=tmp_path / "run", out=tmp_path / "evaluation"
    )
    assert read_json(tmp_path / "evaluation" / "metrics.json")["chips"] == 4
    if COORDS in model["modalities"]:
        assert built.input_modalities == ["S2L2A", "S1RTC", COORDS]


def test_statistics_of_computed_inputs_are_measured_on_the_training_split(dataset_dir: Path) -> None:
    config = small_config(model={"modalities": ["RGB", "NDVI"], "normalization": "train"})
    spec = spec_of_run(config, run="multihead", seed=0, dataset=dataset_dir)
    s2 = np.load(dataset_dir.parent / "store" / "S2L2A.npy")[:16].astype(np.float64)
    known = (s2[:, 3] > 0) & (s2[:, 7] > 0)
    index = ((s2[:, 7] - s2[:, 3]) / (s2[:, 7] + s2[:, 3] + ~known))[known]
    assert spec["modalities"]["NDVI"]["mean"] == pytest.approx([index.mean()], rel=1e-5)
    assert spec["modalities"]["NDVI"]["std"] == pytest.approx([index.std()], rel=1e-4)
    red = np.minimum(s2[:, 3][s2[:, 3] > 0] * 255 / 2000, 255)
    assert spec["modalities"]["RGB"]["mean"][0] == pytest.approx(red.mean(), rel=1e-5)
    assert spec["modalities"]["RGB"]["std"][0] == pytest.approx(red.std(), rel=1e-4)
