from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cityheads.core.artifacts.model import MODEL, SavedModel
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES
from cityheads.model.builder import build_model, load_model
from cityheads.model.multihead import MultiHeadModel, tokens_to_map
from cityheads.model.normalization import Normalization
from cityheads.model.seeds import training_seed
from cityheads.training.task import MultiHeadTask

PX = 32


def make_spec(heads: tuple[str, ...] = ("lulc", "buildings"), **model: Any) -> SavedModel:
    classes = {"lulc": 5, "buildings": 2, "roads": 3}
    settings = {
        "backbone": "terramind_v1_tiny",
        "pretrained": False,
        "weights": None,
        "modalities": ["S2L2A", "S1RTC", "DEM"],
        "merge": "mean",
        "decoder_channels": [16, 16, 8, 8],
        "dropout": 0.1,
        "encoder": "trained",
    } | model
    return {
        "run": "multihead",
        "fold": 0,
        "seed": 0,
        "backbone": settings["backbone"],
        "model": settings,
        "modalities": {
            name: {"bands": list(m.bands), "mean": list(m.mean), "std": list(m.std)}
            for name, m in MODALITIES.items()
            if name in settings["modalities"]
        },
        "chip_px": PX,
        "heads": {
            name: {
                "label": name.upper(),
                "classes": [{"id": i, "name": str(i)} for i in range(classes[name])],
                "loss": "dice",
                "weight": 1.0,
                "metric": "miou",
                "positive_class": None,
                "decoder": None,
                "decoder_args": {},
                "neck": "own",
                "class_weights": None,
                "lr": None,
            }
            for name in heads
        },
        "simulated": True,
    }


def make_images(batch: int = 2, height: int = PX, width: int = PX, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (height, width)
    return {
        "S2L2A": torch.randint(1, 6000, (batch, 12, *shape), generator=generator).float(),
        "S1RTC": torch.randn(batch, 2, *shape, generator=generator) * 4 - 12,
        "DEM": torch.rand(batch, 1, *shape, generator=generator) * 50,
    }


def make_masks(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "lulc": torch.randint(0, 5, (batch, PX, PX), generator=generator),
        "buildings": torch.randint(0, 2, (batch, PX, PX), generator=generator),
    }


def make_task(model: MultiHeadModel, heads: dict[str, Any]) -> MultiHeadTask:
    task = MultiHeadTask(heads, model, lr=1e-2, weight_decay=0.0, warmup_fraction=0.0, interference_every=10**6)
    task.log_dict = task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return task


def maps_of(model: MultiHeadModel, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Give the encoder's maps as the heads see them."""
    size = next(iter(inputs.values())).shape[-2:]
    return model._maps(model._layers(inputs), size)


@pytest.fixture(scope="module")
def shared() -> MultiHeadModel:
    """A model that no test may change."""
    return build_model(make_spec()).eval()


@pytest.fixture
def model(shared: MultiHeadModel) -> MultiHeadModel:
    return copy.deepcopy(shared)


def test_logits_have_the_size_of_the_input(shared: MultiHeadModel) -> None:
    with torch.no_grad():
        out = shared(make_images())
    assert {name: tuple(logits.shape) for name, logits in out.items()} == {
        "lulc": (2, 5, PX, PX),
        "buildings": (2, 2, PX, PX),
    }


@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 64), (40, 56)])
def test_sizes_that_are_not_squares_or_whole_patches(shared: MultiHeadModel, height: int, width: int) -> None:
    with torch.no_grad():
        out = shared(make_images(1, height, width))
    assert out["lulc"].shape == (1, 5, height, width)
    assert torch.isfinite(out["lulc"]).all()


def test_tokens_keep_their_place_on_a_grid_that_is_no_square() -> None:
    tokens = torch.arange(8 * 18).float().view(1, -1, 1)
    grid = tokens_to_map(tokens, (8, 18))
    assert grid.shape == (1, 1, 8, 18)
    assert grid[0, 0, 3, 4] == 3 * 18 + 4
    with_class = torch.cat([torch.full((1, 1, 1), -1.0), tokens], dim=1)
    assert torch.equal(tokens_to_map(with_class, (8, 18)), grid)
    with pytest.raises(ValueError, match="144 tokens do not fill a grid of 1 x 12 x 13"):
        tokens_to_map(tokens, (12, 13))


def test_every_parameter_is_optimised_and_moves(model: MultiHeadModel) -> None:
    spec = make_spec()
    task = make_task(model.train(), spec["heads"])
    task.trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()  # type: ignore[assignment]
    optimizer = task.configure_optimizers()["optimizer"]
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in model.parameters()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for seed in range(2):
        optimizer.zero_grad()
        batch = {"image": make_images(seed=seed), "mask": make_masks(), "chip_id": ["a", "b"]}
        loss = task.training_step(batch, 0)
        assert loss is not None
        loss.backward()
        optimizer.step()
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    # a convolution's bias ahead of a batch norm has no effect, so its gradient is rounding noise or 0
    assert [name for name in still if not name.endswith("fpn1.0.bias")] == []


@pytest.mark.parametrize(("ignored", "other"), [("lulc", "buildings"), ("buildings", "lulc")])
def test_a_head_without_labels_gets_no_gradient_and_the_others_do(
    model: MultiHeadModel, ignored: str, other: str
) -> None:
    task = make_task(model.train(), make_spec()["heads"])
    masks = make_masks()
    masks[ignored].fill_(255)
    loss = task.training_step({"image": make_images(), "mask": masks, "chip_id": ["a", "b"]}, 0)
    assert loss is not None
    assert torch.isfinite(loss)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.heads[ignored].parameters())
    assert all(parameter.grad is not None for parameter in model.heads[other].parameters())
    assert all(parameter.grad is not None for parameter in model.encoder.encoder.parameters())


def test_a_batch_without_any_label_makes_no_step(model: MultiHeadModel) -> None:
    task = make_task(model.train(), make_spec()["heads"])
    masks = {name: torch.full_like(mask, 255) for name, mask in make_masks().items()}
    assert task.training_step({"image": make_images(), "mask": masks, "chip_id": ["a", "b"]}, 0) is None


def test_normalization_equals_numpy(shared: MultiHeadModel) -> None:
    images = make_images()
    for name, module in shared.normalization.items():
        modality = MODALITIES[name]
        stored = images[name].numpy().astype(np.float64)
        expected = (stored - np.array(modality.mean)[:, None, None]) / np.array(modality.std)[:, None, None]
        assert np.allclose(module(images[name]).numpy(), expected, atol=1e-5)


def test_missing_pixels_become_the_mean() -> None:
    s2 = Normalization([100.0, 200.0], [10.0, 10.0], nodata=0)
    image = torch.tensor([[[0.0, 110.0]], [[210.0, 0.0]]])[None]
    assert torch.equal(s2(image), torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])[None])
    db = Normalization([-10.0], [5.0], nodata=float("nan"))
    assert torch.equal(db(torch.tensor([[[[float("nan"), 0.0]]]])), torch.tensor([[[[0.0, 2.0]]]]))


def test_missing_pixels_do_not_reach_the_logits_as_nan(shared: MultiHeadModel) -> None:
    images = make_images()
    images["S1RTC"][:, :, :5] = torch.nan
    images["S2L2A"][:, :, 5:9] = 0
    with torch.no_grad():
        assert all(torch.isfinite(logits).all() for logits in shared(images).values())


def test_the_callers_dict_is_left_alone(shared: MultiHeadModel) -> None:
    images = make_images() | {"cloud_mask": torch.zeros(2, 1, PX, PX)}
    before = {name: tensor.clone() for name, tensor in images.items()}
    with torch.no_grad():
        shared(images)
    assert list(images) == list(before)
    assert all(torch.equal(images[name], before[name]) for name in before)


def test_a_missing_modality_is_named(shared: MultiHeadModel) -> None:
    images = make_images()
    del images["DEM"]
    with pytest.raises(CityHeadsError, match="needs modality DEM"):
        shared(images)


def test_the_order_of_heads_does_not_matter(shared: MultiHeadModel) -> None:
    other = build_model(make_spec(heads=("buildings", "lulc"))).eval()
    alone = build_model(make_spec(heads=("lulc",))).eval()
    images = make_images()
    with torch.no_grad():
        expected, out, single = shared(images), other(images), alone(images)
    assert list(out) == ["buildings", "lulc"]
    assert all(torch.equal(out[name], expected[name]) for name in expected)
    assert torch.equal(single["lulc"], expected["lulc"])


def test_the_weights_depend_on_the_seed_and_nothing_else(shared: MultiHeadModel) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = build_model(make_spec()).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in shared.state_dict().items())
    other = build_model(make_spec() | {"seed": 1}).state_dict()
    assert not torch.equal(other["encoder.encoder.0.attn.qkv.weight"], again["encoder.encoder.0.attn.qkv.weight"])
    assert not torch.equal(other["heads.lulc.head.head.2.weight"], again["heads.lulc.head.head.2.weight"])


def test_a_frozen_encoder_is_in_evaluation_mode_and_stays(model: MultiHeadModel) -> None:
    model.freeze_encoder()
    model.train()
    assert not any(module.training for module in model.encoder.modules())
    assert model.heads.training
    task = make_task(model, make_spec()["heads"])
    loss = task.training_step({"image": make_images(), "mask": make_masks(), "chip_id": ["a", "b"]}, 0)
    assert loss is not None
    loss.backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.heads.parameters())


def test_an_occlusion_hides_the_encoder_or_the_image_from_the_decoders(
    shared: MultiHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    necks: list[list[torch.Tensor]] = []
    for name in shared.heads:
        neck = shared.heads[name].neck
        monkeypatch.setattr(
            neck, "forward", lambda maps, _own=neck.forward, **kw: (necks.append(maps), _own(maps, **kw))[1]
        )
    images = {
        name: image.repeat(2, 1, 1, 1) + torch.arange(4).view(4, 1, 1, 1) for name, image in make_images().items()
    }
    with torch.no_grad():
        plain = shared(images)
        (maps, _), necks[:] = necks, []
        zeroed = shared(images, occlude="zeroed")
        assert all(not one.any() for found in necks for one in found)
        necks.clear()
        permuted = shared(images, occlude="permuted")
    for found in necks:
        for one, before in zip(found, maps, strict=True):
            assert torch.equal(one, before[[2, 3, 0, 1]])
    for name in shared.heads:
        assert not torch.allclose(zeroed[name], plain[name])
        assert not torch.allclose(permuted[name], plain[name])
        # this decoder sees nothing but the maps
        assert torch.equal(zeroed[name][0], zeroed[name][3])
    single = {name: image[:1] for name, image in images.items()}
    with torch.no_grad():
        alone, nothing = (shared(single, occlude=how)["lulc"] for how in ("permuted", "zeroed"))
    assert torch.equal(alone, nothing)
    with pytest.raises(ValueError, match="occlude 'blurred' is none of zeroed, permuted, image_skip"):
        shared(images, occlude="blurred")  # type: ignore[arg-type]


def test_the_image_skip_can_be_hidden_alone() -> None:
    spec = make_spec(heads=("lulc",))
    spec["heads"]["lulc"]["decoder"] = "FullResolutionDecoder"
    built = build_model(spec).eval()
    images, other = make_images(), {name: image.flip(-1) for name, image in make_images().items()}
    with torch.no_grad():
        plain, without = built(images)["lulc"], built(images, occlude="image_skip")["lulc"]
        assert not torch.allclose(plain, without)
        # nothing of the input is left when both are hidden
        for stem in built.heads["lulc"].decoder.stems:
            stem.register_forward_pre_hook(lambda _, inputs: (torch.zeros_like(inputs[0]),))
        assert torch.equal(built(images)["lulc"], without)
        assert torch.equal(built(images, occlude="zeroed")["lulc"], built(other, occlude="zeroed")["lulc"])


@pytest.mark.parametrize("merge", ["mean", "concat", "dict", "none"])
def test_an_absent_encoder_leaves_the_decoders_as_they_are(merge: str) -> None:
    spec, plain = (make_spec(merge=merge, encoder=how, pretrained=how == "absent") for how in ("absent", "trained"))
    for one in (spec, plain):
        one["heads"]["buildings"]["decoder"] = "FullResolutionDecoder"
    built, other = build_model(spec), build_model(plain)
    assert not list(built.encoder.parameters())
    assert not any(name.startswith(("encoder.", "merge.")) for name in built.state_dict())
    theirs = {name: value for name, value in other.heads.state_dict().items() if ".merge." not in f".{name}"}
    assert list(built.heads.state_dict()) == list(theirs)
    assert [value.shape for value in built.heads.state_dict().values()] == [value.shape for value in theirs.values()]
    images = make_images()
    with torch.no_grad():
        built.eval()
        full, hidden = built(images), built(images, occlude="zeroed")
    assert all(torch.equal(full[name], hidden[name]) for name in full)
    assert torch.equal(full["lulc"][0], full["lulc"][1])
    assert not torch.equal(full["buildings"][0], full["buildings"][1])


def test_an_absent_encoder_trains_and_has_the_heads_start_alike() -> None:
    built, other = build_model(make_spec(encoder="absent")), build_model(make_spec())
    ours = built.heads.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in other.heads.state_dict().items())
    task = make_task(built, make_spec()["heads"])
    task.layer_decay, task.interference_every = 0.5, 1
    loss = task.training_step({"image": make_images(), "mask": make_masks(), "chip_id": ["a", "b"]}, 0)
    assert loss is not None
    loss.backward()
    assert len(task._groups()) == 1


def test_freezing_the_decoders_freezes_the_necks_too(model: MultiHeadModel) -> None:
    model.freeze_decoder()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    classifiers = {f"heads.{head}.head.head.2.{kind}" for head in model.heads for kind in ("weight", "bias")}
    assert {name for name in trainable if not name.startswith("encoder.")} == classifiers
    model.freeze_head()
    assert all(n.startswith("encoder.") for n, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("merge", ["mean", "max"])
def test_a_modality_can_be_left_out(merge: str) -> None:
    built = build_model(make_spec(merge=merge)).eval()
    images = make_images()
    with torch.no_grad():
        full, without = built(images), built(images, drop=["S1RTC"])
        del images["S1RTC"]
        absent = built(images, drop=["S1RTC"])
    assert torch.isfinite(without["lulc"]).all()
    assert not torch.allclose(full["lulc"], without["lulc"])
    assert torch.equal(without["lulc"], absent["lulc"])
    with pytest.raises(CityHeadsError, match="all image modalities are left out"):
        built(images, drop=["S1RTC", "S2L2A", "DEM"])


def test_side_by_side_tokens_keep_their_places_when_one_is_missing() -> None:
    built = build_model(make_spec(merge="concat")).eval()
    assert built.merge is not None
    assert built.merge.missing.abs().max() < 0.2
    images = make_images()
    with torch.no_grad():
        inputs = {name: module(images[name]) for name, module in built.normalization.items()}
        (full, *_), dim = maps_of(built, inputs), built.merge.missing.numel()
        (less, *_) = maps_of(built, {name: tensor for name, tensor in inputs.items() if name != "S1RTC"})
    assert full.shape == less.shape == (2, 3 * dim, PX // 16, PX // 16)
    # S1RTC's place holds the learnt token and DEM's place still holds DEM
    assert torch.equal(less[:, dim : 2 * dim], built.merge.missing.view(1, -1, 1, 1).expand_as(less[:, :dim]))
    similar = torch.cosine_similarity(full[:, 2 * dim :].flatten(), less[:, 2 * dim :].flatten(), dim=0)
    assert similar > 0.8


def test_modality_dropout_acts_in_training_only(shared: MultiHeadModel) -> None:
    built = build_model(make_spec(modality_dropout=0.6))
    images = make_images()
    with torch.no_grad():
        assert torch.equal(built.eval()(images)["lulc"], shared(images)["lulc"])
    built.train()
    torch.manual_seed(0)
    kept = [tuple(built._inputs(images, ())) for _ in range(40)]
    assert len(set(kept)) >= 6
    assert all(kept)
    torch.manual_seed(0)
    assert [tuple(built._inputs(images, ())) for _ in range(40)] == kept


def test_a_subset_of_bands_takes_their_weights(shared: MultiHeadModel, tmp_path: Path) -> None:
    save_file(shared.encoder.state_dict(), tmp_path / "all.safetensors")
    spec = make_spec(weights=str(tmp_path / "all.safetensors"))
    stored = MODALITIES["S2L2A"]
    chosen = ["B08", "B04", "B02"]
    positions = [stored.bands.index(band) for band in chosen]
    spec["modalities"]["S2L2A"] = {
        "bands": chosen,
        "mean": [stored.mean[p] for p in positions],
        "std": [stored.std[p] for p in positions],
    }
    built = build_model(spec).eval()
    key = "encoder_embeddings.untok_sen2l2a@224.proj.weight"
    full = shared.encoder.state_dict()[key].view(192, 256, 12)
    assert torch.equal(built.encoder.state_dict()[key].view(192, 256, 3), full[..., positions])
    # with every other band at its mean, all bands and the three must agree
    images = make_images()
    other = [p for p in range(12) if p not in positions]
    images["S2L2A"][:, other] = torch.tensor(stored.mean)[other].view(-1, 1, 1)
    with torch.no_grad():
        expected = maps_of(shared, {n: m(images[n]) for n, m in shared.normalization.items()})
        found = maps_of(built, {n: m(images[n]) for n, m in built.normalization.items()})
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(expected, found, strict=True))


def test_a_new_modality_is_computed_and_used() -> None:
    spec = make_spec()
    spec["modalities"]["NDVI"] = {"bands": ["NDVI"], "mean": [0.327], "std": [0.322]}
    built = build_model(spec).eval()
    assert built.input_modalities == ["S2L2A", "S1RTC", "DEM"]
    images = make_images()
    images["S2L2A"][:, :, 0, 0] = 0
    inputs = built._inputs(images, ())
    red, near = images["S2L2A"][:, 3], images["S2L2A"][:, 7]
    expected = ((near - red) / (near + red) - 0.327) / 0.322
    expected[:, 0, 0] = 0
    assert torch.allclose(inputs["NDVI"][:, 0], expected, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(built(images)["lulc"], built(images, drop=["NDVI"])["lulc"])


@pytest.mark.parametrize("name", ["S2L2A-B", "S1X", "demography", "rgb2"])
def test_a_modality_that_upstream_would_mistake_is_refused(name: str) -> None:
    spec = make_spec()
    spec["modalities"][name] = {"bands": ["a"], "mean": [0.0], "std": [1.0]}
    with pytest.raises(CityHeadsError, match=f"'{name}' would be taken for one of"):
        build_model(spec)


def test_heads_can_have_their_own_decoders_and_share_a_neck() -> None:
    spec = make_spec(heads=("lulc", "buildings", "roads"))
    spec["heads"]["lulc"] |= {"neck": "shared"}
    spec["heads"]["buildings"] |= {"decoder": "FullResolutionDecoder", "neck": "shared"}
    spec["heads"]["roads"] |= {"decoder": "FCNDecoder", "decoder_args": {"channels": 8, "num_convs": 1}}
    built = build_model(spec).eval()
    assert built.neck is not None
    assert [built.heads[name].neck is None for name in ("lulc", "buildings", "roads")] == [True, True, False]
    with torch.no_grad():
        out = built(make_images(1, 48, 64))
    assert {name: tuple(o.shape) for name, o in out.items()} == {
        "lulc": (1, 5, 48, 64), "buildings": (1, 2, 48, 64), "roads": (1, 3, 48, 64)
    }  # fmt: skip
    spec["heads"]["roads"] |= {"decoder": "NoDecoder"}
    with pytest.raises(CityHeadsError, match="'NoDecoder' is not in"):
        build_model(spec)
    spec["heads"]["roads"] |= {"decoder": "FCNDecoder", "decoder_args": {"channel": 8}}
    with pytest.raises(CityHeadsError, match="'FCNDecoder' does not take these arguments"):
        build_model(spec)


def test_the_full_resolution_decoder_sees_single_pixels(shared: MultiHeadModel) -> None:
    spec = make_spec(heads=("buildings",))
    spec["heads"]["buildings"] |= {"decoder": "FullResolutionDecoder"}
    built = build_model(spec).eval()
    images = make_images(1)
    changed = {name: tensor.clone() for name, tensor in images.items()}
    changed["S1RTC"][0, :, 10, 10] += 20

    def sharpness(model: MultiHeadModel) -> float:
        """Share of the change that lies within 4 px of the changed pixel."""
        with torch.no_grad():
            difference = (model(images)["buildings"] - model(changed)["buildings"]).abs().sum(1)[0]
        return float(difference[6:15, 6:15].sum() / difference.sum())

    assert sharpness(built) > 3 * sharpness(shared)


def write_run(folder: Path, model: MultiHeadModel, spec: dict[str, Any]) -> Path:
    folder.mkdir()
    MODEL.write(folder / "model.json", spec)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def test_a_saved_model_gives_the_same_logits(shared: MultiHeadModel, tmp_path: Path) -> None:
    # statistics that are not the pretraining ones, so that the buffers are seen to travel
    spec = make_spec()
    spec["modalities"]["DEM"]["mean"] = [12.5]
    model = build_model(spec).eval()
    loaded, read = load_model(write_run(tmp_path / "run", model, spec))
    assert read == spec
    assert not loaded.training
    images = make_images()
    with torch.no_grad():
        expected, out = model(images), loaded(images)
    assert all(torch.equal(expected[name], out[name]) for name in expected)
    assert not torch.equal(expected["lulc"], shared(images)["lulc"])


def test_a_saved_model_must_fit_exactly(shared: MultiHeadModel, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shared, make_spec(heads=("lulc", "buildings", "roads")))
    with pytest.raises(CityHeadsError, match=r"does not fit model\.json"):
        load_model(run)
    MODEL.write(run / "model.json", make_spec(heads=("lulc",)))
    with pytest.raises(CityHeadsError, match=r"does not fit model\.json"):
        load_model(run)
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CityHeadsError, match="cannot be read as weights"):
        load_model(run)
    (run / "model.json").write_text(json.dumps(make_spec() | {"format_version": 9}))
    with pytest.raises(CityHeadsError, match="has format version 9"):
        load_model(run)
    other = make_spec()
    other["model"]["merge"] = "sum"
    MODEL.write(run / "model.json", other)
    save_file(dict(shared.state_dict()), run / "model.safetensors")
    with pytest.raises(CityHeadsError, match=r"model.json of run multihead: key 'model.merge': .*; train again"):
        load_model(run)


def test_local_weights_are_loaded_completely(shared: MultiHeadModel, tmp_path: Path) -> None:
    state = {name: value + 0.01 for name, value in shared.encoder.state_dict().items()}
    extra = {"decoder.something": torch.zeros(3)}
    torch.save(state | extra, tmp_path / "plain.pt")
    prefixed = {f"backbone.{name}": value for name, value in state.items()}
    torch.save({"state_dict": prefixed}, tmp_path / "lightning.ckpt")
    save_file(state, tmp_path / "plain.safetensors")
    for name in ("plain.pt", "lightning.ckpt", "plain.safetensors"):
        model = build_model(make_spec(weights=str(tmp_path / name)))
        loaded = model.encoder.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items()), name


def test_incomplete_or_wrong_weights_are_refused(shared: MultiHeadModel, tmp_path: Path) -> None:
    state = dict(shared.encoder.state_dict())

    def refused(message: str, content: Any = None) -> None:
        path = tmp_path / "weights.pt"
        if content is not None:
            torch.save(content, path)
        with pytest.raises(CityHeadsError, match=message):
            build_model(make_spec(weights=str(path)))

    refused("no such weights file")
    less = {name: value for name, value in state.items() if "encoder.3.attn" not in name}
    refused(r"4 of the encoder's \d+ weights are missing: encoder\.3\.attn", less)
    refused("takes", state | {"encoder_norm.weight": torch.zeros(7)})
    refused("weights are missing", {"something.else": torch.zeros(2)})
    refused("holds no weights", {"note": "nothing"})
    (tmp_path / "weights.pt").write_bytes(b"not a checkpoint")
    refused("cannot be read as weights")


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CityHeadsError, match="cannot be read as weights"):
        build_model(make_spec(weights=str(tmp_path / "evil.pt")))
    assert not (tmp_path / "executed").exists()


def test_published_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CityHeadsError, match=r"TerraMind-1\.0-tiny.*cannot be had"):
        build_model(make_spec(pretrained=True))


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(CityHeadsError, match="no backbone 'terramind_v9_giant'"):
        build_model(make_spec(backbone="terramind_v9_giant"))


def test_folds_start_from_weights_of_their_own() -> None:
    first, other = (build_model(make_spec(("lulc",)) | {"fold": fold}) for fold in (0, 1))
    again = build_model(make_spec(("lulc",)) | {"fold": 1})
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs if one.ndim > 1)
    assert all(torch.equal(one, two) for one, two in zip(other.parameters(), again.parameters(), strict=True))
    assert training_seed(0, 5) == 5
    assert len({training_seed(fold, seed) for fold in range(5) for seed in range(5)}) == 25
