"""Thinking-in-Modalities: a frozen generator beside the encoder that is fine-tuned."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from terratorch.models.backbones.terramind.model import terramind_register
from terratorch.models.backbones.terramind.model.terramind_tim import TerraMindTiM
from test_multihead import PX, make_images, make_masks, make_spec, make_task

from cityheads.config import TimConfig
from cityheads.config.model import GeneratedModality
from cityheads.core.artifacts.model import MODEL
from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import blocks, fine_tuned
from cityheads.model.backbones.build import build_backbone
from cityheads.model.backbones.terramind import select_bands
from cityheads.model.backbones.tim import _SIZES, TARGETS, Sampler, TimEncoder, build_tim
from cityheads.model.backbones.tuning import LowRank, add_low_rank, checkpoint_blocks, merged_state
from cityheads.model.backbones.weights import load_weights
from cityheads.model.builder import build_model, load_model
from cityheads.model.factory import MultiHeadModelFactory
from cityheads.model.multihead import MultiHeadModel

pytestmark = pytest.mark.usefixtures("one_thread")

TIM = "terramind_v1_tiny_tim"


def spec_of(seed: int = 0, tim: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    return make_spec(backbone=TIM, tim=tim, **model) | {"seed": seed}


def tim_of(model: MultiHeadModel) -> TimEncoder:
    assert isinstance(model.encoder, TimEncoder)
    return model.encoder


@pytest.fixture(scope="module")
def shared() -> MultiHeadModel:
    """A model that no test may change."""
    return build_model(spec_of()).eval()


@pytest.fixture
def model(shared: MultiHeadModel) -> MultiHeadModel:
    return copy.deepcopy(shared)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the arguments with which TerraTorch builds a size, without building it."""

    def arguments(size: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def note(**kwargs: Any) -> torch.nn.Module:
            found.update(kwargs)
            return torch.nn.Identity()

        with monkeypatch.context() as patch:
            patch.setattr(terramind_register, "TerraMindTiM", note)
            getattr(terramind_register, f"{size}_tim")()
        return found

    return arguments


@pytest.mark.parametrize("size", list(_SIZES))
def test_sizes_are_those_of_terratorch(size: str, upstream: Any) -> None:
    found = upstream(size)
    assert {name: found[name] for name in _SIZES[size]} == _SIZES[size]
    assert found["mlp_ratio"] == 4
    assert found["num_register_tokens"] == 0
    assert found["norm_layer"].keywords == {"eps": 1e-6, "bias": False}


def test_defaults_are_those_of_the_schema() -> None:
    import inspect

    found = inspect.signature(build_tim).parameters
    for name in TimConfig.model_fields:
        assert found[name].default == getattr(TimConfig(), name), name
    assert set(get_args(GeneratedModality)) == set(TARGETS)


@pytest.mark.parametrize("merge", ["mean", "max", "none"])
def test_it_is_upstreams_model_on_the_same_weights(merge: str, upstream: Any) -> None:
    """Two chained modalities, most probable tokens: upstream's TerraMindTiM on the same weights is the oracle."""
    arguments = {
        name: value
        for name, value in upstream("terramind_v1_tiny").items()
        if name not in ("variant", "pretrained_bands", "tokenizer_dict")
    }
    torch.manual_seed(3)
    oracle = TerraMindTiM(
        modalities=["S2L2A", "S1RTC"], tim_modalities=["LULC", "DEM"], tim_temps=0.0,
        merge_method=None if merge == "none" else merge, **arguments,
    ).eval()  # fmt: skip
    built = build_backbone(TIM, {"S2L2A": 12, "S1RTC": 2}, merge_method=merge, tim={"modalities": ["LULC", "DEM"]})
    assert built.generated == ("LULC", "DEM")
    ours = built.module.eval()
    assert isinstance(ours, TimEncoder)
    state = oracle.state_dict()
    encoder = {name: value for name, value in state.items() if not name.startswith("sampler.")}
    ours.vit.load_state_dict(encoder, strict=True)
    generator = {n.removeprefix("sampler.model."): v for n, v in state.items() if n.startswith("sampler.")}
    ours.generator.load_state_dict(generator, strict=True)
    torch.manual_seed(0)
    images = {"S2L2A": torch.randn(2, 12, 64, 64), "S1RTC": torch.randn(2, 2, 64, 64)}
    with torch.no_grad():
        expected = oracle(dict(images))
        found = ours(dict(images))
    assert len(found) == len(expected) == 12
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    generated = ours.generate(images)
    assert {name: tuple(tokens.shape) for name, tokens in generated.items()} == {"LULC": (2, 16), "DEM": (2, 16)}
    # what is generated matters: without it the encoder gives something else
    with torch.no_grad():
        alone = ours.vit(dict(images))
    if merge != "none":
        assert not torch.allclose(alone[-1], found[-1], atol=1e-3)


def test_nothing_of_the_generator_is_trained_and_all_of_the_encoder_is(model: MultiHeadModel) -> None:
    model.train()
    tim = tim_of(model)
    assert not any(module.training for module in tim.generator.modules())
    assert all(module.training for module in tim.vit.modules())
    assert not any(parameter.requires_grad for parameter in tim.generator.parameters())
    shared_memory = {p.data_ptr() for p in tim.generator.parameters()} & {p.data_ptr() for p in tim.vit.parameters()}
    assert not shared_memory
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = make_task(model, make_spec()["heads"])
    trained = {id(p) for group in task._groups() for p in group["params"]}
    assert not trained & {id(p) for p in tim.generator.parameters()}
    assert {id(p) for p in tim.vit.parameters()} <= trained
    optimizer = torch.optim.AdamW(task._groups(), lr=1e-2)
    loss = task.training_step({"image": make_images(), "mask": make_masks(), "chip_id": []}, 1)
    assert loss is not None
    loss.backward()
    assert all(p.grad is None for p in tim.generator.parameters())
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith("encoder.generator.")]
    for part in ("untok_sen2l2a@224.proj.weight", "tok_lulc@224.token_emb.weight", "tok_lulc@224.mod_emb"):
        assert f"encoder.vit.encoder_embeddings.{part}" in changed


def test_tokenizers_are_not_kept(shared: MultiHeadModel) -> None:
    tim = tim_of(shared)
    assert not [name for name, _ in tim.named_parameters() if "tokenizer" in name]
    # encoder 6.1 M and tokens 0.8 M, generator the same and a decoder; with upstream's tokenizer it would be 492 M
    assert sum(p.numel() for p in tim.parameters()) < 20e6


def test_the_outer_random_streams_are_put_back(model: MultiHeadModel) -> None:
    tim = tim_of(model.train())
    tim.temperature = 1.0
    images = {"S2L2A": torch.randn(2, 12, PX, PX)}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    generated = tim.generate(images)
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == str(states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    for seed in (2, 3):
        random.seed(seed)
        torch.manual_seed(seed)
        assert torch.equal(tim.generate(images)["LULC"], generated["LULC"])


def test_the_runs_seed_chooses_the_tokens(model: MultiHeadModel) -> None:
    tim = tim_of(model)
    tim.temperature, tim.top_p = 1.0, 0.0
    images = {"S2L2A": torch.randn(2, 12, 128, 128)}
    here = tim.generate(images)["LULC"]
    assert int(tim.seed) == int(tim_of(build_model(spec_of(0))).seed)
    other = tim_of(build_model(spec_of(1)))
    assert int(other.seed) != int(tim.seed)
    tim.seed.copy_(other.seed)
    assert not torch.equal(tim.generate(images)["LULC"], here)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_chips_answer_does_not_depend_on_its_batch(model: MultiHeadModel, temperature: float, steps: int) -> None:
    tim = tim_of(model)
    tim.temperature, tim.decoding_steps = temperature, steps
    torch.manual_seed(0)
    images = {"S2L2A": torch.randn(6, 12, 64, 64), "S1RTC": torch.randn(6, 2, 64, 64)}
    together = tim.generate(images)["LULC"]
    assert len({tuple(row) for row in together.tolist()}) > 1, "the images must matter"
    for index in (0, 5):
        alone = tim.generate({name: image[[index]] for name, image in images.items()})["LULC"]
        assert torch.equal(alone[0], together[index])
    turned = tim.generate({name: image.flip(0) for name, image in images.items()})["LULC"]
    assert torch.equal(turned.flip(0), together)


def test_noise_draws_from_the_distribution() -> None:
    """Shares of 20 000 draws against the probabilities, and the two filters."""
    sampler = Sampler(torch.nn.Identity())
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    torch.manual_seed(0)
    many = logits.expand(1, 20_000, 4)
    tokens, _ = sampler.sample_tokens_batched(many, temperature=0.7)
    shares = torch.bincount(tokens.flatten(), minlength=4) / 20_000
    assert torch.allclose(shares, (logits / 0.7).softmax(0), atol=0.01)
    assert sampler.sample_tokens_batched(many, temperature=1.0, top_k=2)[0].max() == 1
    assert sampler.sample_tokens_batched(many, temperature=1.0, top_p=0.5)[0].max() == 0
    assert torch.equal(sampler.sample_tokens_batched(many, temperature=0.0)[0], torch.zeros(1, 20_000).long())


def test_steps_of_decoding_are_taken(model: MultiHeadModel) -> None:
    """Upstream decodes everything in the first step, whatever it was asked for."""
    tim = tim_of(model)
    passes: list[int] = []
    decoder: Any = tim.generator.decoder_norm
    decoder.register_forward_hook(lambda module, args, output: passes.append(output.shape[1]))
    images = {"S2L2A": torch.randn(1, 12, 64, 64)}
    tim.generate(images)
    assert passes == [16]
    passes.clear()
    tim.decoding_steps = 4
    tim.generate(images)
    assert passes == [4, 4, 4, 4]
    passes.clear()
    tim.decoding_steps = 99
    tim.generate(images)
    assert passes == [1] * 16


def test_chained_modalities_see_the_ones_before() -> None:
    images = {"S2L2A": torch.randn(1, 12, 64, 64)}
    found = {}
    for chained in (True, False):
        built = build_backbone(TIM, {"S2L2A": 12}, tim={"modalities": ["LULC", "NDVI"], "chained": chained})
        tim = built.module
        assert isinstance(tim, TimEncoder)
        first = found.setdefault("state", tim.state_dict())
        tim.load_state_dict(first)
        found[chained] = tim.generate(images)
    assert torch.equal(found[True]["LULC"], found[False]["LULC"])
    assert not torch.equal(found[True]["NDVI"], found[False]["NDVI"])


@pytest.mark.parametrize("merge", ["mean", "max", "concat", "dict", "none"])
def test_every_merge_with_a_modality_missing(merge: str) -> None:
    built = build_model(spec_of(merge=merge, modality_dropout=0.6)).eval()
    images = make_images()
    with torch.no_grad():
        whole = built(images)
        without = built({name: image for name, image in images.items() if name != "S2L2A"}, drop=["S2L2A"])
    assert whole["lulc"].shape == (2, 5, PX, PX)
    assert not torch.allclose(whole["lulc"], without["lulc"], atol=1e-4)
    built.train()
    torch.manual_seed(0)
    for _ in range(3):
        loss = sum(logits.square().mean() for logits in built(images).values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
    tokens: Any = tim_of(built).vit.encoder_embeddings["tok_lulc@224"]
    assert tokens.token_emb.weight.grad.abs().sum() > 0
    assert "LULC" in tim_of(built).generated
    if merge == "concat":
        merged: Any = built.merge
        assert merged.modalities == ["S2L2A", "S1RTC", "DEM", "LULC"]


def test_only_the_encoder_is_tuned(model: MultiHeadModel) -> None:
    tim = tim_of(model)
    inner: Any = tim.vit
    assert fine_tuned(tim) is inner
    assert [id(block) for block in blocks(tim)] == [id(block) for block in inner.encoder]
    checkpoint_blocks(tim)
    generator: Any = tim.generator
    assert all("forward" in vars(block) for block in inner.encoder)
    assert not any("forward" in vars(block) for block in generator.encoder)
    task = make_task(model, make_spec()["heads"])
    task.layer_decay = 0.5
    rates = {id(p): group["lr"] for group in task._groups() for p in group["params"]}
    assert {rates[id(p)] for p in inner.encoder_norm.parameters()} == {task.lr}
    assert {rates[id(p)] for p in inner.encoder[0].parameters()} == {task.lr * 0.5**12}
    assert {rates[id(p)] for p in inner.encoder_embeddings.parameters()} == {task.lr * 0.5**13}


def test_low_rank_updates_leave_the_generator_alone(model: MultiHeadModel, shared: MultiHeadModel) -> None:
    assert add_low_rank(model.encoder, 4, 8.0, ["attn.qkv"]) == 12
    names = [name for name, module in model.encoder.named_modules() if isinstance(module, LowRank)]
    assert all(name.startswith("vit.encoder.") for name in names)
    torch.manual_seed(0)
    for module in model.encoder.modules():
        if isinstance(module, LowRank):
            torch.nn.init.normal_(module.up, std=0.1)
    plain = build_model(spec_of()).eval()
    plain.load_state_dict(merged_state(model), strict=True)
    with torch.no_grad():
        out, expected, old = plain(make_images()), model(make_images()), shared(make_images())
    assert torch.allclose(out["lulc"], expected["lulc"], atol=1e-4)
    assert not torch.allclose(out["lulc"], old["lulc"], atol=1e-2)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    spec = spec_of(seed=4, tim={"modalities": ["NDVI"], "temperature": 1.0})
    built = build_model(spec).eval()
    save_file(
        {name: value.clone().contiguous() for name, value in built.state_dict().items()}, tmp_path / "model.safetensors"
    )
    MODEL.write(tmp_path / "model.json", spec)
    again, _ = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(make_images())["lulc"], built(make_images())["lulc"])
    MODEL.write(tmp_path / "model.json", spec_of(seed=4, tim={"modalities": ["LULC"]}))
    with pytest.raises(CityHeadsError, match=r"does not fit model\.json"):
        load_model(tmp_path)


def published(tim: TimEncoder) -> dict[str, torch.Tensor]:
    """Make a file like the published ones: one encoder, one decoder, and modalities that nobody asked for."""
    state = {name: torch.randn_like(value) for name, value in tim.generator.state_dict().items()}
    return state | {"encoder_embeddings.tok_ndvi@224.mod_emb": torch.zeros(1, 1, 192)}


def test_one_file_fills_the_encoder_and_the_generator(model: MultiHeadModel, tmp_path: Path) -> None:
    tim = tim_of(model)
    weights = published(tim)
    count = load_weights(tim, weights, "file")
    assert count == len(tim.vit.state_dict()) + len(tim.generator.state_dict())
    name = "encoder.3.attn.qkv.weight"
    assert torch.equal(tim.vit.state_dict()[name], weights[name])
    assert torch.equal(tim.generator.state_dict()[name], weights[name])
    assert not any(p.requires_grad for p in tim.generator.parameters())
    # the same from a config
    path = tmp_path / "TerraMind_v1_tiny.pt"
    torch.save({name: value.clone() for name, value in weights.items()}, path)
    built = build_model(spec_of(weights=str(path)))
    assert torch.equal(tim_of(built).generator.state_dict()["mask_token"], weights["mask_token"])


@pytest.mark.parametrize(
    ("lost", "part"),
    [
        ("decoder.2.cross_attn.kv.weight", "generator"),
        ("decoder_embeddings.tok_lulc@224.to_logits.weight", "generator"),
        ("encoder_embeddings.tok_lulc@224.token_emb.weight", "encoder"),
    ],
)
def test_a_weight_that_is_missing_is_named(model: MultiHeadModel, lost: str, part: str) -> None:
    tim = tim_of(model)
    weights = published(tim)
    del weights[lost]
    before = {name: value.clone() for name, value in tim.state_dict().items()}
    with pytest.raises(CityHeadsError, match=rf"file: 1 of the {part}'s \d+ weights are missing: {lost}"):
        load_weights(tim, weights, "file")
    assert all(torch.equal(value, before[name]) for name, value in tim.state_dict().items())


def test_a_subset_of_bands_is_the_others_at_their_mean(model: MultiHeadModel) -> None:
    tim = tim_of(model)
    image = torch.randn(1, 12, 64, 64)
    zeroed = torch.zeros_like(image)
    zeroed[:, [3, 7]] = image[:, [3, 7]]
    expected = tim.generate({"S2L2A": zeroed})
    with torch.no_grad():
        features = tim({"S2L2A": zeroed})
    select_bands(tim, "S2L2A", ["B04", "B08"])
    assert torch.equal(tim.generate({"S2L2A": image[:, [3, 7]]})["LULC"], expected["LULC"])
    with torch.no_grad():
        assert torch.allclose(tim({"S2L2A": image[:, [3, 7]]})[-1], features[-1], atol=1e-5)
    assert not any(p.requires_grad for p in tim.generator.parameters())
    assert all(p.requires_grad for p in tim.vit.parameters())


def test_a_new_modality_is_for_the_encoder_only() -> None:
    built = build_backbone(TIM, {"S2L2A": 12, "NDVI": 1})
    tim = built.module.eval()
    assert isinstance(tim, TimEncoder)
    image = torch.randn(1, 12, 64, 64)
    first = tim.generate({"S2L2A": image, "NDVI": torch.zeros(1, 1, 64, 64)})
    second = tim.generate({"S2L2A": image, "NDVI": torch.ones(1, 1, 64, 64)})
    assert torch.equal(first["LULC"], second["LULC"])
    assert "NDVI" not in tim.generator.encoder_embeddings
    # nothing that the generator knows is left: the encoder goes on without it
    assert tim.generate({"NDVI": torch.ones(1, 1, 64, 64)}) == {}
    with torch.no_grad():
        assert tim({"NDVI": torch.ones(1, 1, 64, 64)})[-1].shape == (1, 16, 192)


def test_from_terratorchs_command_line_with_coordinates_and_dates() -> None:
    model = MultiHeadModelFactory().build_model(
        heads={"crops": {"classes": 4}}, backbone=TIM, backbone_modalities=["S2L2A", "coords"],
        decoder_channels=[16, 16, 8, 8], backbone_tim_modalities=["LULC", "DEM"], backbone_tim_temps=0.5,
        backbone_tim_decoding_steps=2, backbone_tim_top_p=0.0, backbone_tim_top_k=5,
        backbone_tim_chained_generations=False,
    ).eval()  # fmt: skip
    tim = tim_of(model)
    assert (tim.temperature, tim.decoding_steps, tim.top_p, tim.top_k, tim.chained) == (0.5, 2, 0.0, 5, False)
    assert list(tim.generated) == ["LULC", "DEM"]
    with torch.no_grad():
        out = model({"S2L2A": torch.rand(2, 12, PX, PX), "coords": torch.tensor([[-73.9, 40.7], [10.0, 50.0]])})
    assert out.output.shape == (2, 4, PX, PX)
    dated = MultiHeadModelFactory().build_model(
        heads={"crops": {"classes": 4}}, backbone=TIM, backbone_modalities=["S2L2A"], decoder_channels=[16, 16, 8, 8],
        backbone_use_temporal=True, backbone_temporal_pooling="mean", backbone_temporal_n_timestamps=2,
    ).eval()  # fmt: skip
    with torch.no_grad():
        assert dated({"S2L2A": torch.rand(1, 12, 2, PX, PX)}).output.shape == (1, 4, PX, PX)
    assert len(blocks(dated.encoder)) == 12
    assert all(name.startswith("vit.") for name in _trainable(dated.encoder.encoder))


def _trainable(module: Any) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_mixed_precision_does_not_change_the_tokens(model: MultiHeadModel) -> None:
    tim = tim_of(model)
    images = {"S2L2A": torch.randn(2, 12, 64, 64)}
    expected = tim.generate(images)["LULC"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tim.generate({"S2L2A": images["S2L2A"]})["LULC"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("terramind_v1_tiny", {"modalities": ["LULC"]}, "terramind_v1_tiny has no Thinking-in-Modalities"),
        (TIM, {"modalities": ["S1RTC"]}, "S1RTC is an input already"),
        (TIM, {"modalities": ["RGB"]}, "'RGB' is none of LULC"),
        ("terramind_v01_base_tim", None, "'terramind_v01_base_tim' has no Thinking-in-Modalities"),
    ],
)
def test_what_has_no_generator_is_refused(name: str, options: Any, message: str) -> None:
    with pytest.raises(CityHeadsError, match=message):
        build_backbone(name, {"S2L2A": 12, "S1RTC": 2}, tim=options)


def test_chips_that_are_no_squares_are_refused(shared: MultiHeadModel) -> None:
    with pytest.raises(CityHeadsError, match="needs square chips, not 32 x 64 px"):
        shared(make_images(height=32, width=64))


def test_the_config_knows_which_backbone_has_a_generator() -> None:
    from model_fixtures import small_config

    model = small_config(model={"backbone": TIM, "tim": {"modalities": ["NDVI"]}}).model
    assert model.tim is not None
    assert model.tim.temperature == 0.0
    assert small_config(model={"backbone": TIM}).model.tim is None
    with pytest.raises(CityHeadsError, match=r"'model\.tim': terramind_v1_tiny has no Thinking-in-Modalities"):
        small_config(model={"backbone": "terramind_v1_tiny", "tim": {}})
    with pytest.raises(CityHeadsError, match=r"'model\.tim\.modalities': DEM is an input already"):
        small_config(model={"backbone": TIM, "tim": {"modalities": ["LULC", "DEM"]}})


@pytest.mark.slow
def test_it_trains_by_the_verb_and_twice_the_same(tmp_path: Path) -> None:
    """With low-rank updates, checkpointing and drawn tokens: same bytes twice, and a generator as it was built."""
    from model_fixtures import small_config, write_store
    from safetensors.torch import load_file

    from cityheads.training.run import train

    dataset = write_store(tmp_path / "dataset")
    config = small_config(
        model={"backbone": TIM, "tim": {"temperature": 1.0}, "modality_dropout": 0.3, "lora": {"rank": 4}},
        train={"gradient_checkpointing": True, "epochs": 2},
    )
    for name in ("once", "twice"):
        random.seed(name)
        train(config, run="multihead", seed=3, dataset=dataset, out=tmp_path / name)
    for file in ("model.safetensors", "history.csv"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    loaded, spec = load_model(tmp_path / "once")
    fresh = build_model(spec)
    weights = load_file(tmp_path / "once" / "model.safetensors")
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, weights[name])}
    assert not [name for name in changed if name.startswith("encoder.generator.")]
    assert "encoder.vit.encoder.0.attn.qkv.weight" in changed
    assert "encoder.vit.encoder.0.mlp.fc1.weight" not in changed
    assert int(tim_of(loaded).seed) == int(tim_of(fresh).seed)
