"""Modalities out of other modalities, and tokens of a sub-chip: real models with random weights, small windows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from made_archive import PX, complete, read_config, select_config, sheet
from model_fixtures import write_store
from pyarrow import parquet

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.parent import read_parent
from cityheads.cli import main
from cityheads.config import RtcConfig, SynthesisConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES
from cityheads.evaluation.reconstruction import compare_pixels, reconstruct
from cityheads.model.backbones.tim import build_generator
from cityheads.model.synthesis import (
    Synthesizer,
    build_synthesizer,
    in_units,
    load_tokenizer,
    padded,
    paint,
    standardised,
    synthesize,
)

pytestmark = pytest.mark.usefixtures("one_thread")

S1, S2, DEM = MODALITIES["S1RTC"], MODALITIES["S2L2A"], MODALITIES["DEM"]
UNTRAINED = {
    "backbone": "terramind_v1_tiny_generate", "pretrained": False, "weights": None, "tokenizer_weights": None,
    "steps": 2, "temperature": 0.0, "seed": 0, "threads": 1,
}  # fmt: skip


def awaken(tokenizer: Any) -> Any:
    """Give random weights to the layers that start at zero: an untrained diffusion paints the mean only."""
    torch.manual_seed(1)
    for parameter in tokenizer.decoder.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return tokenizer


@pytest.fixture(scope="module")
def maker() -> Synthesizer:
    made = build_synthesizer("S1RTC", ("S2L2A", "DEM"), SynthesisConfig(**UNTRAINED))
    awaken(made.tokenizer)
    return made


def layers_of(px: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0.2, 2.0, (12, 1, 1)) * rng.uniform(0.2, 2.0, (12, px // 16, px // 16)).repeat(16, 1).repeat(
        16, 2
    )
    return {
        "S2L2A": (rng.uniform(500, 5000, (12, px, px)) * levels).astype(np.uint16),
        "DEM": rng.uniform(0, 50, (1, px, px)).astype(np.float32),
    }


def window(maker: Synthesizer, layers: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    return maker.window(layers, **({"steps": 2, "temperature": 0.0, "seed": 0} | options))


def test_what_is_made_is_in_stored_units_and_follows_the_inputs(maker: Synthesizer) -> None:
    layers = layers_of()
    before = {name: array.copy() for name, array in layers.items()}
    made = window(maker, layers)
    assert made.shape == (2, 64, 64)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    # the diffusion clips at one standard deviation around the mean, in dB
    for band, mean, std in zip(made, S1.mean, S1.std, strict=True):
        assert mean - std - 1e-4 <= band.min() < band.max() <= mean + std + 1e-4
    assert all(np.array_equal(layers[name], before[name]) for name in layers), "the caller's arrays are left alone"
    assert not np.array_equal(made, window(maker, layers_of(seed=1)))
    assert np.array_equal(made, window(maker, layers))
    assert not np.array_equal(made, window(maker, layers, seed=1))
    assert not np.array_equal(made, window(maker, layers, steps=3))


def test_the_outer_random_streams_are_left_alone(maker: Synthesizer) -> None:
    random.seed(3)
    torch.manual_seed(3)
    states = random.getstate(), torch.get_rng_state()
    first = window(maker, layers_of(), temperature=1.0)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    random.seed(4)
    torch.manual_seed(4)
    assert np.array_equal(window(maker, layers_of(), temperature=1.0), first)


def test_missing_pixels_go_in_as_the_mean(maker: Synthesizer) -> None:
    layers = layers_of()
    layers["S2L2A"][:, :16, :16] = 0
    layers["DEM"][:, :16, :16] = np.nan
    made = window(maker, layers)
    gone = np.zeros((64, 64), bool)
    gone[:16, :16] = True
    assert np.array_equal(np.isnan(made), np.stack([gone, gone])), "missing where no input has data, nowhere else"
    filled = {"S2L2A": layers["S2L2A"].astype(np.float32), "DEM": layers["DEM"].copy()}
    for name, modality in (("S2L2A", S2), ("DEM", DEM)):
        filled[name][:, :16, :16] = np.array(modality.mean, np.float32)[:, None, None]
    assert np.allclose(window(maker, filled)[:, ~gone], made[:, ~gone], atol=1e-4)
    layers["DEM"][:] = 7.0
    assert np.isfinite(window(maker, layers)).all()
    empty = {"S2L2A": np.zeros_like(layers["S2L2A"]), "DEM": np.full_like(layers["DEM"], np.nan)}
    assert np.isnan(window(maker, empty)).all()


def test_windows_that_are_no_multiples_of_32(maker: Synthesizer) -> None:
    assert window(maker, layers_of(48)).shape == (2, 48, 48)
    assert window(maker, layers_of(16)).shape == (2, 16, 16)
    image = torch.arange(16.0).expand(1, 1, 16, 16)
    assert torch.equal(padded(image)[0, 0, 0], torch.tensor([*range(16), *range(14, -1, -1), 1.0]))
    assert padded(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_units_there_and_back() -> None:
    rng = np.random.default_rng(0)
    s2 = rng.integers(1, 10000, (12, 4, 4)).astype(np.uint16)
    assert np.array_equal(in_units(standardised(s2, S2)[0].numpy(), S2), s2)
    assert in_units(np.full((12, 2, 2), -9.0, np.float32), S2).min() == 1, "0 would be nodata"
    assert in_units(np.full((12, 2, 2), 99.0, np.float32), S2).max() == 65535
    s1 = rng.normal(-12, 4, (2, 4, 4)).astype(np.float32)
    expected = (s1[1] - -17.329) / 4.459
    assert np.allclose(standardised(s1, S1)[0, 1].numpy(), expected, atol=1e-6)
    assert np.allclose(in_units(standardised(s1, S1)[0].numpy(), S1), s1, atol=1e-5)


def test_a_parent_is_made_window_by_window(maker: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cityheads.model.synthesis.build_synthesizer", lambda *args: maker)
    layers = layers_of(64)
    made, origin = synthesize(layers, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=32, name="P1")
    assert made.shape == (2, 64, 64)
    other = {name: array.copy() for name, array in layers.items()}
    other["S2L2A"][:, 32:, 32:] = 1
    changed = (synthesize(other, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=32, name="P1")[0] != made).any(axis=0)
    assert changed[32:, 32:].any()
    changed[32:, 32:] = False
    assert not changed.any(), "a window knows nothing of the others"
    # the same ground in another window or parent gets another noise
    tiled = {name: np.tile(array[:, :32, :32], (1, 2, 2)) for name, array in layers.items()}
    made, _ = synthesize(tiled, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=32, name="P1")
    assert not np.array_equal(made[:, :32, :32], made[:, :32, 32:])
    assert not np.array_equal(
        made, synthesize(tiled, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=32, name="P2")[0]
    )
    assert origin["from"] == ["S2L2A", "DEM"]
    assert origin["generator"] == "untrained generator (terramind_v1_tiny_generate)"
    assert (origin["trained"], origin["weights"], origin["tokenizer_weights"]) == (False, None, None)
    with pytest.raises(ValueError, match="do not divide"):
        synthesize(layers, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=48, name="P1")
    with pytest.raises(CityHeadsError, match="P1: S1RTC cannot be made"):
        synthesize({"S1RTC": made}, "S1RTC", SynthesisConfig(**UNTRAINED), window_px=32, name="P1")


def test_the_generator_is_upstreams(maker: Synthesizer) -> None:
    """TerraMindGeneration on the same weights, at temperature 0 and with the same noise, is the oracle."""
    from terratorch.models.backbones.terramind.model.terramind_generation import TerraMindGeneration

    from cityheads.model.backbones.tim import _SIZES

    layers = layers_of()
    oracle = TerraMindGeneration(
        modalities=["S2L2A", "DEM"], output_modalities=["S1RTC"], temps=0.0, tokenizer_dict={}, **_NORM,
        **_SIZES["terramind_v1_tiny"],
    ).eval()  # fmt: skip
    oracle.tokenizer = torch.nn.ModuleDict({"tok_sen1rtc@224": maker.tokenizer})
    oracle.sampler.model.load_state_dict(maker.generator.state_dict(), strict=True)
    found = {}
    maker.tokenizer.decode_tokens, original = (
        lambda tokens, **kwargs: found.setdefault("tokens", tokens), maker.tokenizer.decode_tokens,
    )  # fmt: skip
    try:
        with torch.no_grad():
            oracle({name: standardised(layers[name], MODALITIES[name]) for name in layers})
    finally:
        maker.tokenizer.decode_tokens = original
    decoded = paint(maker.tokenizer, found["tokens"], steps=2, seed=0)[0].numpy()
    assert np.allclose(in_units(decoded, S1), window(maker, layers), atol=1e-3)


def _norm() -> dict[str, Any]:
    from functools import partial

    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    return {"norm_layer": partial(LayerNorm, eps=1e-6, bias=False)}


_NORM = _norm()


def test_weights_are_all_there_or_an_error(maker: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build_generator("terramind_v1_tiny", ["untok_sen2l2a@224", "untok_dem@224"], ["tok_sen1rtc@224"], 224)
    state = {name: torch.randn_like(value) for name, value in generator.state_dict().items()}
    torch.save(state, tmp_path / "generator.pt")
    monkeypatch.setattr(
        "cityheads.model.synthesis.load_tokenizer", lambda *args, **kwargs: (maker.tokenizer, {"file": "t"})
    )
    options = SynthesisConfig(**UNTRAINED | {"weights": str(tmp_path / "generator.pt"), "tokenizer_weights": "t.pt"})
    built = build_synthesizer("S1RTC", ("S2L2A", "DEM"), options)
    assert torch.equal(built.generator.state_dict()["mask_token"], state["mask_token"])
    assert built.origin["generator"] == "terramind_v1_tiny_generate"
    assert built.origin["trained"] is True
    assert built.origin["weights"]["file"] == "generator.pt"
    assert len(built.origin["weights"]["sha256"]) == 64
    del state["decoder.1.norm1.weight"]
    torch.save(state, tmp_path / "generator.pt")
    with pytest.raises(CityHeadsError, match=r"generator\.pt: 1 of .* missing: decoder\.1\.norm1\.weight"):
        build_synthesizer("S1RTC", ("S2L2A", "DEM"), options)


def test_published_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**kwargs: Any) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(
        CityHeadsError, match=r"'archive\.synthesis\.pretrained': .*TerraMind-1\.0-tiny.* cannot be had"
    ):
        build_synthesizer("S1RTC", ("S2L2A",), SynthesisConfig(**UNTRAINED | {"pretrained": True}))


@pytest.mark.slow
def test_a_tokenizers_weights_are_strict(maker: Synthesizer, tmp_path: Path) -> None:
    state = maker.tokenizer.state_dict()
    path = tmp_path / "tokenizer.pt"
    torch.save(state, path)
    loaded, origin = load_tokenizer("S1RTC", path, pretrained=False, seed=9, asked="", instead="")
    assert origin is not None
    assert origin["file"] == "tokenizer.pt"
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    del state["quant_proj.bias"]
    torch.save(state, path)
    with pytest.raises(CityHeadsError, match=r"missing: quant_proj\.bias"):
        load_tokenizer("S1RTC", path, pretrained=False, seed=9, asked="", instead="")


# --- the archive ---------------------------------------------------------------------------------------------------


def without_radar(folder: Path) -> Path:
    archive = complete(folder)
    item = archive.items["sentinel-1-rtc"][0]
    item["properties"]["datetime"] = "2023-01-01T00:00:00Z"
    return archive.write()


def settings_of(rule: str) -> dict[str, Any]:
    return {"S1RTC": {"missing": rule}, "synthesis": UNTRAINED}


def test_a_parent_without_radar_is_an_error_by_default(tmp_path: Path) -> None:
    catalog = without_radar(tmp_path / "archive")
    with pytest.raises(CityHeadsError, match="S1RTC: collection 'sentinel-1-rtc': none of 1 item"):
        select_scenes(
            select_config(), parents=sheet(tmp_path), parent="P1", catalog=str(catalog), out=tmp_path / "P1.json"
        )
    assert not (tmp_path / "P1.json").exists()


def test_a_parent_without_radar_goes_through(
    maker: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choice and reading call a synthesized layer one; the bytes are the same twice."""
    monkeypatch.setattr("cityheads.model.synthesis.load_tokenizer", lambda *args, **kwargs: (maker.tokenizer, None))
    catalog = without_radar(tmp_path / "archive")
    parents, scenes = sheet(tmp_path), tmp_path / "scenes" / "P1.json"
    select_scenes(
        select_config(**settings_of("synthesize")), parents=parents, parent="P1", catalog=str(catalog), out=scenes
    )
    layer = json.loads(scenes.read_text())["layers"]["S1RTC"]
    assert layer["items"] == []
    assert layer["synthesized"] is True
    assert layer["why"].startswith("synthesized: none of 1 item(s) over the parent is usable; S1_A: ")
    assert [entry["id"] for entry in layer["rejected"]] == ["S1_A"]

    settings = read_config(**settings_of("synthesize"))
    folders = [tmp_path / "once", tmp_path / "twice"]
    for folder in folders:
        read_parent(settings, parents=parents, parent="P1", scenes=scenes, out=folder)
    for name in ("S1RTC.tif", "reading.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    with rasterio.open(folders[0] / "S1RTC.tif") as made, rasterio.open(folders[0] / "S2L2A.tif") as read:
        assert made.tags()["synthesized"] == "true"
        assert "synthesized" not in read.tags()
        assert made.transform == read.transform
        assert (made.dtypes, made.descriptions) == (("float32", "float32"), ("VV", "VH"))
        pixels = made.read()
    assert np.isfinite(pixels).all()
    assert pixels.std() > 0.1
    assert np.abs(pixels - np.array(S1.mean)[:, None, None]).max() <= max(S1.std) + 1e-3
    reading = json.loads((folders[0] / "reading.json").read_text())["layers"]
    origin = reading["S1RTC"]["synthesized"]
    assert origin["generator"] == "untrained generator (terramind_v1_tiny_generate)"
    assert (origin["seed"], origin["from"], origin["window_px"]) == (0, ["S2L2A", "DEM"], PX // 2)
    assert reading["S1RTC"]["items"] == []
    assert reading["S1RTC"]["valid_fraction"] == 1.0
    assert "synthesized" not in reading["S2L2A"]
    # nothing but the choice decides: the model is not looked at where scenes were found
    monkeypatch.setattr("cityheads.model.synthesis.load_tokenizer", lambda *args, **kwargs: pytest.fail("was loaded"))
    full = complete(tmp_path / "full").write()
    select_scenes(
        select_config(**settings_of("synthesize")), parents=parents, parent="P1", catalog=str(full),
        out=tmp_path / "other" / "P1.json",
    )  # fmt: skip
    read_parent(settings, parents=parents, parent="P1", scenes=tmp_path / "other" / "P1.json", out=tmp_path / "plain")
    with rasterio.open(tmp_path / "plain" / "S1RTC.tif") as read:
        assert "synthesized" not in read.tags()


def test_a_shipped_choice_may_hold_a_synthesized_layer_where_the_config_allows_it(tmp_path: Path) -> None:
    catalog, parents, shipped = without_radar(tmp_path / "archive"), sheet(tmp_path), tmp_path / "shipped"
    arguments: dict[str, Any] = {"parents": parents, "parent": "P1", "catalog": str(catalog)}
    select_scenes(select_config(**settings_of("synthesize")), **arguments, out=shipped / "P1.json")
    frozen = {"frozen_scenes": str(shipped)}
    select_scenes(select_config(**settings_of("synthesize"), **frozen), **arguments, out=tmp_path / "P1.json")
    assert json.loads((tmp_path / "P1.json").read_text())["layers"]["S1RTC"]["synthesized"] is True
    with pytest.raises(CityHeadsError, match="has no layer S1RTC"):
        select_scenes(select_config(**settings_of("error"), **frozen), **arguments, out=tmp_path / "P2.json")


def test_a_catalogue_without_radar_says_so_in_the_config(tmp_path: Path) -> None:
    archive = complete(tmp_path / "archive")
    del archive.items["sentinel-1-rtc"]
    arguments: dict[str, Any] = {"parents": sheet(tmp_path), "parent": "P1", "catalog": str(archive.write())}
    with pytest.raises(CityHeadsError, match="no collection 'sentinel-1-rtc'"):
        select_scenes(select_config(**settings_of("synthesize")), **arguments, out=tmp_path / "P1.json")
    rule = {"S1RTC": {"missing": "synthesize", "collection": None}, "synthesis": UNTRAINED}
    select_scenes(select_config(**rule), **arguments, out=tmp_path / "P1.json")
    layer = json.loads((tmp_path / "P1.json").read_text())["layers"]["S1RTC"]
    assert (layer["synthesized"], layer["collection"]) == (True, None)
    assert layer["why"] == "synthesized: the catalogue has no collection"
    with pytest.raises(CityHeadsError, match=r"S1RTC\.collection': null means that the catalogue has none"):
        select_config(S1RTC={"collection": None})
    with pytest.raises(CityHeadsError, match=r"'archive\.synthesis\.tokenizer_weights': name a file here too"):
        select_config(synthesis=UNTRAINED | {"weights": "g.pt"})


def test_the_schema_offers_every_option() -> None:
    assert set(SynthesisConfig.model_fields) == set(UNTRAINED)
    assert SynthesisConfig().pretrained is True
    assert RtcConfig().missing == "error"


# --- reconstruction ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("dataset"))


def test_a_chip_is_encoded_and_decoded(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = load_tokenizer("S2L2A", None, pretrained=False, seed=0, asked="", instead="")
    awaken(made)
    monkeypatch.setattr("cityheads.evaluation.reconstruction.load_tokenizer", lambda *args, **kwargs: (made, None))
    for name in ("once", "twice"):
        reconstruct(dataset=dataset, chip="P00_r0c0", modality="S2L2A", out=tmp_path / name, steps=2, seed=3)
    for name in ("tokens.npy", "S2L2A.tif", "reconstruction.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    out = tmp_path / "once"
    tokens = np.load(out / "tokens.npy")
    assert tokens.shape == (2, 2)
    assert tokens.dtype == np.int32
    original = np.load(dataset.parent / "store" / "S2L2A.npy")[0]
    assert np.array_equal(tokens, made.tokenize(standardised(original, S2))[0].numpy())
    with rasterio.open(out / "S2L2A.tif") as source:
        pixels = source.read()
        assert source.nodata == 0
        row = parquet.read_table(dataset / "chips.parquet").to_pylist()[0]
        step = row["resolution_m"]
        assert tuple(source.transform)[:6] == (step, 0.0, row["left"], 0.0, -step, row["top"])
        assert source.crs.to_epsg() == row["epsg"]
        assert source.tags()["trained"] == "false"
    # the store's first chip has a corner without data
    assert (pixels[:, :4, :4] == 0).all()
    assert (pixels[:, 4:, 4:] > 0).all()
    found = json.loads((out / "reconstruction.json").read_text())
    assert found["tokenizer"] == "untrained tokenizer (terramind_v1_tokenizer_s2l2a)"
    assert (found["trained"], found["weights"]) == (False, None)
    assert found["tokens"] == {"shape": [2, 2], "used": len(np.unique(tokens)), "codebook": 8 * 8 * 8 * 6 * 5}
    known = original[3] != 0
    difference = pixels[3][known].astype(float) - original[3][known]
    assert found["bands"]["B04"]["mae"] == pytest.approx(np.abs(difference).mean(), abs=1e-5)
    assert found["bands"]["B04"]["rmse"] == pytest.approx(np.sqrt((difference**2).mean()), abs=1e-5)
    spread = np.ptp(original[3][known].astype(float))
    assert found["bands"]["B04"]["psnr_db"] == pytest.approx(
        10 * np.log10(spread**2 / (difference**2).mean()), abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["S1RTC", "DEM"])
def test_the_verb_with_random_weights(dataset: Path, tmp_path: Path, modality: str) -> None:
    place = ["--dataset", str(dataset), "--chip", "P01_r0c1", "--modality", modality, "--out", str(tmp_path)]
    assert main(["reconstruct", *place, "--steps", "1"]) == 0
    found = json.loads((tmp_path / "reconstruction.json").read_text())
    assert list(found["bands"]) == list(MODALITIES[modality].bands)
    with rasterio.open(tmp_path / f"{modality}.tif") as source:
        # a diffusion that has not learnt anything paints the mean
        expected = np.broadcast_to(np.array(MODALITIES[modality].mean)[:, None, None], (source.count, 32, 32))
        assert np.allclose(source.read(), expected, atol=1e-3)


def test_measures_that_are_undefined_are_null() -> None:
    before = np.stack([np.full((4, 4), np.nan), np.full((4, 4), -9.0)]).astype(np.float32)
    found = compare_pixels(before, np.nan_to_num(before + 1), S1)
    assert found == {
        "VV": {"mae": None, "rmse": None, "psnr_db": None},
        "VH": {"mae": 1.0, "rmse": 1.0, "psnr_db": None},
    }
    ramp = np.stack([np.linspace(-20, -10, 16).reshape(4, 4)] * 2).astype(np.float32)
    assert compare_pixels(ramp, ramp, S1)["VV"] == {"mae": 0.0, "rmse": 0.0, "psnr_db": None}
    assert compare_pixels(ramp, ramp + 1, S1)["VV"]["psnr_db"] == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chip": "P77_r0c0"}, "--chip P77_r0c0: .* has no such kept sub-chip"),
        ({"chip": "P99_r0c0"}, "has no such kept sub-chip"),
        ({"modality": "LULC"}, "--modality LULC: TerraMind has no tokenizer"),
        ({"modality": "S1GRD"}, "no layer 'S1GRD'"),
        ({"steps": 0}, "--steps 0"),
        ({"seed": -1}, "--seed -1"),
        ({"weights": Path("x.pt"), "pretrained": True}, "give one of them"),
    ],
)
def test_what_cannot_be_reconstructed(dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"chip": "P00_r0c0", "modality": "S2L2A"} | changes
    with pytest.raises(CityHeadsError, match=message):
        reconstruct(dataset=dataset, out=tmp_path, **arguments)


def test_a_missing_file_of_weights_is_named(dataset: Path, tmp_path: Path) -> None:
    place = {"dataset": dataset, "chip": "P00_r0c0", "modality": "DEM", "out": tmp_path}
    with pytest.raises(CityHeadsError, match=r"nowhere\.pt: no such weights file"):
        reconstruct(**place, weights=Path("nowhere.pt"))


def test_reading_loads_the_model_only_where_it_generates() -> None:
    import subprocess
    import sys

    code = "import sys, cityheads.archive.read.parent; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
