"""Weights of every kind of encoder: complete, or an error that names what is missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import small_config, write_store
from safetensors.torch import save_file
from terratorch.models.backbones.prithvi_vit import _create_prithvi
from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.build import build_backbone
from cityheads.model.backbones.prithvi import prithvi_statistics
from cityheads.model.factory import MultiHeadModelFactory, TerraTorchMultiHeadModel
from cityheads.training.run import train

HEADS = {"water": {"classes": 2, "decoder": "FCNDecoder", "decoder_args": {"channels": 8}}}
NAMES = ("prithvi_eo_tiny", "prithvi_eo_v2_tiny_tl")
#: Sentinel-2's names of the six bands that Prithvi was trained on.
SIX = ["B02", "B03", "B04", "B8A", "B11", "B12"]


def masked_autoencoder(name: str, layout: str) -> dict[str, Tensor]:
    """Give a checkpoint of encoder and decoder, as version 2 lays it out, or version 1, or an old TerraTorch."""
    torch.manual_seed(3)
    state = _create_prithvi(name, encoder_only=False, num_frames=3, img_size=224).state_dict()
    if layout == "v2":
        return dict(state)
    state = {key.removeprefix("encoder.").removeprefix("decoder."): value for key, value in state.items()}
    return {f"_timm_module.{key}": value for key, value in state.items()} if layout == "timm" else state


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    return {name: masked_autoencoder(name, "v2") for name in NAMES}


def build(name: str, path: Path, **arguments: Any) -> TerraTorchMultiHeadModel:
    arguments = {"backbone_img_size": 64} | arguments
    if "backbone_bands" not in arguments:
        arguments = {"in_channels": 6} | arguments
    return MultiHeadModelFactory().build_model(heads=HEADS, backbone=name, backbone_ckpt_path=str(path), **arguments)


def learned(model: TerraTorchMultiHeadModel) -> dict[str, Tensor]:
    return {key: value for key, value in model.encoder.state_dict().items() if key != "pos_embed"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["v2", "v1", "timm"])
def test_a_masked_autoencoder_gives_a_prithvi_all_its_weights(name: str, layout: str, tmp_path: Path) -> None:
    state = masked_autoencoder(name, layout)
    torch.save({"model": state} if layout == "timm" else state, tmp_path / "prithvi.pt")
    model = build(name, tmp_path / "prithvi.pt", backbone_num_frames=2)
    prefix = {"v2": "encoder.", "v1": "", "timm": "_timm_module."}[layout]
    found = learned(model)
    assert all(torch.equal(value, state[prefix + key]) for key, value in found.items())
    # the position table is that of 2 frames of 64 px, not of the checkpoint's 3 of 224
    fresh = build_backbone(name, {"image": 6}, num_frames=2, img_size=64).module
    assert torch.equal(model.encoder.pos_embed, fresh.pos_embed)
    assert set(found) == set(fresh.state_dict()) - {"pos_embed"}


@pytest.mark.parametrize("name", NAMES)
def test_upstream_loads_the_same(name: str, states: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    torch.save(states[name], tmp_path / "prithvi.pt")
    bands = ["RED", "BLUE", "SWIR_2"]
    theirs = _create_prithvi(
        name, pretrained=True, ckpt_path=str(tmp_path / "prithvi.pt"), model_bands=bands, num_frames=1, img_size=64
    )
    ours = build(name, tmp_path / "prithvi.pt", backbone_bands=["B04", "BLUE", "B12"]).encoder
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_anything_short_of_complete_is_an_error(states: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    name = NAMES[1]
    path = tmp_path / "prithvi.safetensors"

    def refused(message: str, state: dict[str, Tensor], **arguments: Any) -> None:
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        with pytest.raises(CityHeadsError, match=message) as caught:
            build(name, path, **arguments)
        assert "\n" not in str(caught.value)

    state = states[name]
    for key in (
        "encoder.blocks.3.attn.qkv.bias",
        "encoder.temporal_embed_enc.scale",
        "encoder.patch_embed.proj.weight",
    ):
        less = {other: value for other, value in state.items() if other != key}
        short = key.removeprefix("encoder.").replace(".", r"\.")
        refused(rf"1 of the encoder's \d+ weights are missing: {short}$", less)
    refused(r"blocks\.0\.mlp\.fc1\.bias is \[5\]", state | {"encoder.blocks.0.mlp.fc1.bias": torch.zeros(5)})
    refused(r"patch_embed\.proj\.weight is \[192, 6, 1, 16, 16\], the encoder takes \[192, 4, ", state, in_channels=4)
    refused("no weights for band 'B05'; there are BLUE,", state, backbone_bands=["B02", "B05"])
    refused(r"is \[192, 6, 1, 16, 16\], the encoder takes \[192, 6, 3, 16, 16\]", state, backbone_num_frames=3,
            backbone_tubelet_size=3)  # fmt: skip
    refused("weights are missing", {key: value for key, value in state.items() if key.startswith("decoder.")})
    narrow = state | {"encoder.patch_embed.proj.weight": state["encoder.patch_embed.proj.weight"][:, :4]}
    refused("is of 4 bands, not of 6", narrow, backbone_bands=["B02"])
    # one without place and time cannot fill one with them, the other way round is fine
    plain = {key: value for key, value in state.items() if "_embed_enc" not in key}
    refused(r"2 of the encoder's \d+ weights are missing: location_embed_enc\.scale, temporal_embed_enc\.scale", plain)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    assert "temporal_embed_enc.scale" not in build(name, path, backbone_coords_encoding=[]).encoder.state_dict()


def test_other_bands_of_a_checkpoint_can_be_named(states: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    state = dict(states[NAMES[0]])
    key = "encoder.patch_embed.proj.weight"
    state[key] = state[key][:, :4].clone()
    torch.save(state, tmp_path / "four.pt")
    model = build(
        NAMES[0], tmp_path / "four.pt", backbone_bands=["B08", "B02"],
        backbone_pretrained_bands=["B02", "B03", "B04", "B08"],
    )  # fmt: skip
    assert torch.equal(model.encoder.patch_embed.proj.weight, state[key][:, [3, 0]])


def test_no_code_of_a_prithvi_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"encoder.norm.bias": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CityHeadsError, match="cannot be read as weights"):
        build(NAMES[0], tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_weights_go_into_an_encoder_that_looks_at_each_date(tmp_path: Path) -> None:
    plain = build_backbone("terramind_v1_tiny", {"S2L2A": 12}, merge_method="mean").module
    torch.save(plain.state_dict(), tmp_path / "terramind.pt")
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="terramind_v1_tiny", backbone_modalities=["S2L2A"], backbone_bands={"S2L2A": ["B04"]},
        backbone_ckpt_path=str(tmp_path / "terramind.pt"), backbone_use_temporal=True,
    )  # fmt: skip
    found, expected = model.encoder.encoder.state_dict(), plain.state_dict()
    assert torch.equal(found["encoder.11.mlp.fc2.weight"], expected["encoder.11.mlp.fc2.weight"])
    key = "encoder_embeddings.untok_sen2l2a@224.proj.weight"
    assert torch.equal(found[key].view(192, 256), expected[key].view(192, 256, 12)[..., 3])


class Toy(nn.Module):
    """An encoder whose library loads what it finds, as TerraTorch's and torchgeo's do."""

    patch_size = 16
    file = ""

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = [4, 4, 4, 4]
        self.stem = nn.Conv2d(3, 4, 16, stride=16)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.norm(self.stem(x))] * 4


@pytest.fixture
def toy(tmp_path: Path) -> Any:
    def cityheads_toy(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        model = Toy()
        if pretrained:
            state = torch.load(tmp_path / "toy.pt", weights_only=False)
            model.load_state_dict(state, strict=False)
        del model.head  # a classifier that the encoder does not need may be missing
        return model

    TERRATORCH_BACKBONE_REGISTRY.register(cityheads_toy)
    yield "cityheads_toy"
    TERRATORCH_BACKBONE_REGISTRY._registry.pop("cityheads_toy")


def test_a_library_that_loads_by_itself_is_watched(toy: str, tmp_path: Path) -> None:
    def build_toy(**arguments: Any) -> TerraTorchMultiHeadModel:
        return MultiHeadModelFactory().build_model(heads=HEADS, backbone=toy, in_channels=3, **arguments)

    torch.manual_seed(1)
    state = {key: value for key, value in Toy().state_dict().items() if not key.startswith("head.")}
    torch.save(state, tmp_path / "toy.pt")
    model = build_toy(backbone_pretrained=True)
    assert torch.equal(model.encoder.stem.weight, state["stem.weight"])
    for key in ("stem.bias", "norm.running_var"):
        torch.save({other: value for other, value in state.items() if other != key}, tmp_path / "toy.pt")
        with pytest.raises(CityHeadsError, match=rf"cityheads_toy: 1 of the encoder's 6 weights are missing: {key}$"):
            build_toy(backbone_pretrained=True)
        with pytest.raises(CityHeadsError, match=rf"toy\.pt: 1 of the encoder's \d weights are missing: {key}$"):
            build_toy(backbone_ckpt_path=str(tmp_path / "toy.pt"))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"stem.bias": Evil()}, tmp_path / "toy.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        build_toy(backbone_pretrained=True)
    assert not (tmp_path / "executed").exists()
    assert nn.Module.load_state_dict.__name__ == "load_state_dict"


def test_prithvi_is_standardised_as_it_was_trained() -> None:
    mean, std = prithvi_statistics("prithvi_eo_v1_100", ["B04", "NIR_NARROW"])
    assert (mean, std) == ([1229.0, 2497.0], [1399.0, 1368.0])
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="prithvi_eo_v2_tiny_tl", backbone_bands=SIX[:2], normalization="pretraining"
    )
    assert model.normalization["image"].mean.flatten().tolist() == [1087.0, 1342.0]
    with pytest.raises(CityHeadsError, match="was not trained on band 'B05'"):
        prithvi_statistics("prithvi_eo_v2_300", ["B05"])


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("weights") / "dataset")


def test_a_run_of_the_workflow_starts_from_prithvi(
    dataset_dir: Path, states: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    torch.save(states[NAMES[1]], tmp_path / "prithvi.pt")
    model = {
        "backbone": NAMES[1], "modalities": ["S2L2A"], "weights": str(tmp_path / "prithvi.pt"), "encoder": "frozen",
    }  # fmt: skip
    with pytest.raises(CityHeadsError, match="was not trained on band 'B01'; choose of B02, B03,"):
        train(small_config(model=model), run="lulc", seed=0, dataset=dataset_dir, out=tmp_path / "run")
    config = small_config(model=model | {"bands": {"S2L2A": SIX}}, train={"epochs": 1})
    train(config, run="lulc", seed=0, dataset=dataset_dir, out=tmp_path / "run")
    from cityheads.model.builder import load_model

    trained, spec = load_model(tmp_path / "run")
    assert torch.equal(trained.encoder.blocks[7].attn.qkv.weight, states[NAMES[1]]["encoder.blocks.7.attn.qkv.weight"])
    assert spec["modalities"]["S2L2A"]["bands"] == SIX
    assert spec["modalities"]["S2L2A"]["mean"] == prithvi_statistics(NAMES[1])[0]
    # the six bands of the store reach the encoder in Prithvi's order
    image = torch.rand(1, 12, 32, 32) * 3000
    mean = torch.tensor(spec["modalities"]["S2L2A"]["mean"]).view(-1, 1, 1)
    std = torch.tensor(spec["modalities"]["S2L2A"]["std"]).view(-1, 1, 1)
    expected = (image[:, [1, 2, 3, 8, 10, 11]] - mean) / std
    assert torch.allclose(trained.normalization["S2L2A"](image), expected, atol=1e-5)


def fill_cache(cache: Path, repository: str, name: str, file: Path) -> str:
    """Lay a file out as Hugging Face's cache does; give its revision."""
    revision = hashlib.sha1(repository.encode()).hexdigest()
    folder = cache / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    (folder / "blobs").mkdir()
    (folder / "snapshots" / revision).mkdir(parents=True)
    blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
    blob.write_bytes(file.read_bytes())
    (folder / "snapshots" / revision / name).symlink_to(blob)
    return revision


TRAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from model_fixtures import small_config
from cityheads.training.run import train
model = {"backbone": sys.argv[4], "pretrained": True, "modalities": ["S2L2A"], "encoder": "frozen"}
if sys.argv[4].startswith("prithvi"):
    model["bands"] = {"S2L2A": ["B02", "B03", "B04", "B8A", "B11", "B12"]}
config = small_config(model=model, train={"epochs": 1})
train(config, run="lulc", seed=0, dataset=Path(sys.argv[2]), out=Path(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "repository", "name"),
    [
        ("terramind_v1_tiny", "ibm-esa-geospatial/TerraMind-1.0-tiny", "TerraMind_v1_tiny.pt"),
        ("prithvi_eo_v2_tiny_tl", "ibm-nasa-geospatial/Prithvi-EO-2.0-tiny-TL", "Prithvi_EO_V2_tiny_TL.pt"),
    ],
)
def test_the_revision_in_the_cache_reaches_the_record(
    backbone: str, repository: str, name: str, dataset_dir: Path, tmp_path: Path, states: dict[str, dict[str, Tensor]]
) -> None:
    import os
    import subprocess
    import sys

    from cityheads.model.builder import load_model

    torch.manual_seed(4)
    state = states.get(backbone)
    if state is None:
        state = build_backbone(backbone, {"S2L2A": 12}, merge_method="mean").module.state_dict()
    torch.save(state, tmp_path / "weights.pt")
    revision = fill_cache(tmp_path / "cache", repository, name, tmp_path / "weights.pt")
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    arguments = [str(Path(__file__).parent), str(dataset_dir), str(tmp_path / "run"), backbone]
    subprocess.run([sys.executable, "-c", TRAIN, *arguments], env=environment, check=True)
    origin = json.loads((tmp_path / "run" / "environment.json").read_text())["weights"]
    assert origin == {"repository": repository, "file": name, "revision": revision}
    model, _ = load_model(tmp_path / "run")
    key = "blocks.5.mlp.fc1.weight" if backbone.startswith("prithvi") else "encoder.5.mlp.fc1.weight"
    prefix = "encoder." if backbone.startswith("prithvi") else ""
    assert torch.equal(model.encoder.state_dict()[key], state[prefix + key])
