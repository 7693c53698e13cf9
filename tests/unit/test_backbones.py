"""Encoders beside plain TerraMind, and the ways of training them with less."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_multihead import PX, make_images, make_masks, make_spec, make_task

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import blocks, default_indices
from cityheads.model.backbones.build import build_backbone
from cityheads.model.backbones.prithvi import effective_frames, prithvi_arguments
from cityheads.model.backbones.tuning import LowRank, add_low_rank, checkpoint_blocks, merged_state
from cityheads.model.builder import build_model
from cityheads.model.factory import MultiHeadModelFactory
from cityheads.model.multihead import MultiHeadModel

HEADS = {"crops": {"classes": 4}, "water": {"classes": 2}}


@pytest.fixture(scope="module")
def shared() -> MultiHeadModel:
    return build_model(make_spec()).eval()


@pytest.mark.parametrize(("depth", "expected"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (4, [0, 1, 2, 3])])
def test_heads_see_the_last_layer_of_each_quarter(depth: int, expected: list[int]) -> None:
    assert default_indices(depth) == expected


def test_blocks_are_found(shared: MultiHeadModel) -> None:
    assert len(blocks(shared.encoder)) == 12
    with pytest.raises(ValueError, match="no list of equal blocks"):
        blocks(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("frames", "tubelet", "effective"), [(1, 1, 1), (3, 3, 1), (4, 2, 2), (12, 4, 3)])
def test_frames_that_fill_tubelets(frames: int, tubelet: int, effective: int) -> None:
    assert effective_frames(frames, tubelet) == effective
    arguments, patch, found = prithvi_arguments("prithvi_eo_v2_300", 6, {"num_frames": frames, "tubelet_size": tubelet})
    assert (arguments["patch_size"], patch, found) == ([tubelet, 16, 16], 16, effective)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 3, "tubelet_size": 2}, "3 frames do not fill whole tubelets of 2"),
        ({"num_frames": 4, "patch_size": [3, 16, 16]}, "4 frames do not fill whole tubelets of 3"),
        ({"num_frames": 4, "tubelet_size": 2, "patch_size": [4, 16, 16]}, "contradicts"),
        ({"num_frames": 4, "tubelet_size": 2, "coords_encoding": ["time"]}, "needs a tubelet of 1"),
        ({"num_frames": 4, "patch_size": [16, 16]}, "neither a number nor"),
    ],
)
def test_frames_that_do_not_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CityHeadsError, match=message):
        prithvi_arguments("prithvi_eo_v1_100", 6, arguments)


@pytest.mark.parametrize(
    ("name", "frames", "tubelet"),
    [
        ("prithvi_eo_tiny", 4, 2),
        ("prithvi_eo_v2_tiny_tl", 4, 2),
        ("prithvi_eo_v2_tiny_tl", 3, 1),
        ("prithvi_eo_tiny", 1, 1),
    ],
)
def test_prithvi_with_tubelets_trains_a_step(name: str, frames: int, tubelet: int) -> None:
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone=name, in_channels=6, decoder_channels=[16, 16, 8, 8],
        backbone_num_frames=frames, backbone_tubelet_size=tubelet, backbone_img_size=64,
    )  # fmt: skip
    assert model.backbone["frames"] == frames // tubelet
    image = torch.randn(2, 6, frames, 64, 64)
    out = model(image)
    assert {head: tuple(out[head].output.shape) for head in out} == {"crops": (2, 4, 64, 64), "water": (2, 2, 64, 64)}
    out.output.mean().backward()
    assert model.encoder.patch_embed.proj.weight.grad.abs().sum() > 0


def test_the_reported_classification_case_trains_a_step() -> None:
    """Prithvi of 100 M shape, IdentityDecoder, patches of 3, images of 15 px, 3 frames in one tubelet of 3.

    Upstream's sizes followed num_frames where the embedding followed num_frames // tubelet, and the step failed with
    "Expected size for first two dimensions of batch2 tensor to be: [80, 19200] but got: [80, 9216]".
    """
    from terratorch.models import EncoderDecoderFactory

    built = build_backbone(
        "prithvi_eo_v1_100", {"image": 6}, num_frames=3, tubelet_size=3, patch_size=3, img_size=15,
        depth=2, mlp_ratio=1.0,
    )  # fmt: skip
    assert built.frames == 1
    assert built.module.out_channels == [768, 768]
    model = EncoderDecoderFactory().build_model(
        task="classification", backbone=built.module, decoder="IdentityDecoder", num_classes=3,
        necks=[{"name": "AggregateTokens"}], head_dim_list=[32],
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    image, label = torch.randn(4, 6, 3, 15, 15), torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(model(image).output, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_several_dates_with_a_static_elevation() -> None:
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="terramind_v1_tiny", backbone_modalities=["S2L2A", "DEM"],
        decoder_channels=[16, 16, 8, 8],
        backbone_use_temporal=True, backbone_temporal_pooling="mean", backbone_temporal_n_timestamps=3,
    ).eval()  # fmt: skip
    series = {"S2L2A": torch.rand(2, 12, 3, PX, PX), "DEM": torch.rand(2, 1, PX, PX)}
    with torch.no_grad():
        out = model(series)
        repeated = model({**series, "DEM": series["DEM"].unsqueeze(2).expand(-1, -1, 3, -1, -1)})
    assert out["crops"].output.shape == (2, 4, PX, PX)
    assert torch.equal(out.output, repeated.output)
    assert series["DEM"].dim() == 4
    # the mean over dates does not mind their order
    with torch.no_grad():
        turned = model({**series, "S2L2A": series["S2L2A"].flip(2)})
    assert torch.allclose(out.output, turned.output, atol=1e-5)


def build_series(**arguments: Any) -> Any:
    return MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="terramind_v1_tiny", backbone_modalities=["S2L2A", "DEM"],
        decoder_channels=[16, 16, 8, 8], backbone_use_temporal=True,
        **{f"backbone_temporal_{name}": value for name, value in arguments.items()},
    ).eval()  # fmt: skip


def make_series(steps: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(steps)
    shape = (2, 12, steps, PX, PX)
    return {"S2L2A": torch.rand(shape, generator=generator), "DEM": torch.rand(2, 1, PX, PX, generator=generator)}


@pytest.mark.parametrize(
    ("arguments", "steps", "wide"),
    [
        ({"pooling": "max"}, 3, 1),
        ({"pooling": "diff"}, 2, 1),
        ({"pooling": "concat", "n_timestamps": 3}, 3, 3),
        ({"pooling": "diff", "subset_lengths": [1, 2]}, 3, 1),
        ({"pooling": "concat", "subset_lengths": [1, 2]}, 3, 2),
    ],
)
def test_dates_are_pooled_as_asked(arguments: dict[str, Any], steps: int, wide: int) -> None:
    model, series = build_series(**arguments), make_series(steps)
    assert model.encoder.out_channels == [192 * wide] * 12
    single = model.encoder.encoder
    with torch.no_grad():
        inputs = model._inputs(series, ())
        assert inputs["DEM"].shape == (2, 1, steps, PX, PX)
        found = model.encoder(dict(inputs))[7]
        dates = [single({name: tensor[:, :, date] for name, tensor in inputs.items()})[7] for date in range(steps)]
        if "subset_lengths" in arguments:
            dates = [dates[0], (dates[1] + dates[2]) / 2]
        expected = {
            "max": lambda: torch.stack(dates).amax(0),
            "diff": lambda: dates[0] - dates[1],
            "concat": lambda: torch.cat(dates, dim=-1),
        }[arguments["pooling"]]()
        assert torch.allclose(found, expected, atol=1e-5)
        assert model(series)["crops"].output.shape == (2, 4, PX, PX)
    assert series["DEM"].dim() == 4


@pytest.mark.parametrize(
    ("arguments", "steps", "message"),
    [
        ({"pooling": "concat", "n_timestamps": 3}, 2, "with 3 time steps; it was given 2"),
        ({"pooling": "diff"}, 3, "with 2 time steps; it was given 3"),
        ({"pooling": "mean", "n_timestamps": 2}, 3, "with 2 time steps; it was given 3"),
        ({"pooling": "max"}, 0, "as many time steps in all modalities; it was given no time axis"),
    ],
)
def test_a_wrong_number_of_dates_is_one_clear_line(arguments: dict[str, Any], steps: int, message: str) -> None:
    series = make_series(steps or 1)
    if not steps:
        series["S2L2A"] = series["S2L2A"][:, :, 0]
    with pytest.raises(CityHeadsError, match=message) as caught:
        build_series(**arguments)(series)
    assert "\n" not in str(caught.value)


def test_modalities_must_have_the_same_dates() -> None:
    series = make_series(3)
    series["DEM"] = series["DEM"].unsqueeze(2).expand(-1, -1, 2, -1, -1)
    with pytest.raises(CityHeadsError, match="it was given 2 and 3"):
        build_series(pooling="mean")(series)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "keep"}, "'keep' is none of mean, max, diff, concat"),
        ({"pooling": "concat"}, "'concat' needs temporal_n_timestamps"),
        ({"pooling": "diff", "n_timestamps": 3}, "'diff' is of two dates"),
        ({"pooling": "mean", "n_timestamps": 3, "subset_lengths": [1, 1]}, "do not add up to temporal_n_timestamps 3"),
    ],
)
def test_ways_of_pooling_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CityHeadsError, match=message):
        build_series(**arguments)


def test_prithvi_is_given_the_frames_it_was_built_for() -> None:
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="prithvi_eo_tiny", in_channels=6, decoder_channels=[16, 16, 8, 8],
        backbone_num_frames=4, backbone_tubelet_size=2, backbone_img_size=64,
    )  # fmt: skip
    for image, given in ((torch.rand(1, 6, 2, 64, 64), "2"), (torch.rand(1, 6, 64, 64), "no time axis")):
        with pytest.raises(CityHeadsError, match=f"with 4 time steps; it was given {given}"):
            model(image)
    with pytest.raises(CityHeadsError, match="leave num_frames out"):
        build_backbone("prithvi_eo_tiny", {"image": 6}, num_frames=2, use_temporal=True)
    each = build_backbone("prithvi_eo_tiny", {"image": 6}, use_temporal=True, temporal_pooling="max")
    with torch.no_grad():
        assert each.module(torch.rand(1, 6, 3, 32, 32))[0].shape == (1, 5, 256)


@pytest.mark.parametrize("names", [["RGB"], ["S1GRD", "S2L2A"], ["S2L1C", "DEM"]])
def test_other_pretrained_modalities(names: list[str]) -> None:
    bands = {"RGB": 3, "S1GRD": 2, "S2L2A": 12, "S2L1C": 13, "DEM": 1}
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="terramind_v1_tiny", backbone_modalities=names, decoder_channels=[16, 16, 8, 8],
        normalization="pretraining",
    ).eval()  # fmt: skip
    with torch.no_grad():
        out = model({name: torch.rand(1, bands[name], PX, PX) for name in names})
    assert out["water"].output.shape == (1, 2, PX, PX)


def test_a_low_rank_update_starts_at_nothing_and_merges_exactly(shared: MultiHeadModel) -> None:
    model = copy.deepcopy(shared)
    torch.manual_seed(0)
    assert add_low_rank(model.encoder, 4, 8.0, ["attn.qkv", "mlp.fc1"]) == 24
    images = make_images()
    with torch.no_grad():
        assert all(
            torch.allclose(a, b, atol=1e-6)
            for a, b in zip(shared(images).values(), model(images).values(), strict=True)
        )
    trainable = [name for name, p in model.encoder.named_parameters() if p.requires_grad]
    assert trainable
    assert all(name.endswith((".up", ".down")) for name in trainable)
    before = {name: p.detach().clone() for name, p in model.encoder.named_parameters() if not p.requires_grad}
    task = make_task(model.train(), make_spec()["heads"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        loss = task.training_step({"image": images, "mask": make_masks(), "chip_id": []}, 1)
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.encoder.named_parameters() if name in before)
    plain = build_model(make_spec())
    plain.load_state_dict(merged_state(model), strict=True)
    model.eval()
    plain.eval()
    with torch.no_grad():
        out, expected, old = plain(images), model(images), shared(images)
    assert torch.allclose(out["lulc"], expected["lulc"], atol=1e-4)
    assert not torch.allclose(out["lulc"], old["lulc"], atol=1e-2)


def test_a_low_rank_update_of_nothing_is_refused(shared: MultiHeadModel) -> None:
    with pytest.raises(CityHeadsError, match=r"'attn\.query' is no linear layer"):
        add_low_rank(copy.deepcopy(shared).encoder, 4, 4.0, ["attn.query"])
    layer = LowRank(torch.nn.Linear(3, 5), 2, 4.0)
    torch.nn.init.normal_(layer.up)
    x = torch.randn(7, 3)
    merged = torch.nn.functional.linear(x, layer.merged_weight(), layer.base.bias)
    assert torch.allclose(layer(x), merged, atol=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients_and_names(shared: MultiHeadModel) -> None:
    plain, checkpointed = copy.deepcopy(shared), copy.deepcopy(shared)
    checkpoint_blocks(checkpointed.encoder)
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    saved: dict[str, int] = {}
    for name, model in (("plain", plain), ("checkpointed", checkpointed)):
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum(logits.square().mean() for logits in model(make_images()).values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        saved[name] = sum(sizes)
    assert saved["checkpointed"] < saved["plain"] / 2
    for (name, a), (_, b) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_coordinates_reach_the_encoder() -> None:
    """Which place they name is lost upstream: TerraTorch 1.2.11 gave the same tokens for all places tried."""
    model = MultiHeadModelFactory().build_model(
        heads=HEADS, backbone="terramind_v1_tiny", backbone_modalities=["S2L2A", "coords"],
        decoder_channels=[16, 16, 8, 8],
    ).eval()  # fmt: skip
    image = torch.rand(1, 12, PX, PX)
    with torch.no_grad():
        here = model({"S2L2A": image, "coords": torch.tensor([[-73.9, 40.7]])}).output
        unknown = model({"S2L2A": image}, drop=["coords"]).output
    assert here.shape == (1, 6, PX, PX)
    assert not torch.equal(here, unknown)
    with pytest.raises(CityHeadsError, match="needs modality coords"):
        model({"S2L2A": image})
