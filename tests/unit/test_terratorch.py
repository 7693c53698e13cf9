"""The multi-head model as TerraTorch's users meet it: registry, interface, tiled inference, command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from model_fixtures import write_store
from terratorch.models.model import Model, ModelOutput
from terratorch.registry import MODEL_FACTORY_REGISTRY
from terratorch.tasks.tiled_inference import tiled_inference

from cityheads.core.errors import CityHeadsError
from cityheads.model.factory import MultiHeadModelFactory, TerraTorchMultiHeadModel
from cityheads.training.task import MultiHeadTask

HEADS: dict[str, dict[str, Any]] = {
    "lulc": {"classes": ["water", "developed", "forest"], "loss": "ce", "class_weights": [1.0, 2.0, 1.0]},
    "buildings": {
        "classes": 2,
        "loss": "focal",
        "metric": "iou",
        "positive_class": 1,
        "decoder": "FullResolutionDecoder",
        "lr": 1e-2,
    },
    "height": {"target": "regression", "loss": "mae", "decoder": "FCNDecoder", "decoder_args": {"channels": 8}},
}  # fmt: skip
ARGUMENTS: dict[str, Any] = {
    "backbone": "terramind_v1_tiny",
    "backbone_modalities": ["S2L2A", "S1RTC", "DEM"],
    "decoder_channels": [16, 16, 8, 8],
    "normalization": "pretraining",
}


def images(batch: int = 2, px: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "S2L2A": torch.rand(batch, 12, px, px, generator=generator) * 4000,
        "S1RTC": torch.randn(batch, 2, px, px, generator=generator) - 12,
        "DEM": torch.rand(batch, 1, px, px, generator=generator) * 30,
    }


def batch_of(px: int = 32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    height = torch.rand(2, px, px, generator=generator)
    height[0] = torch.nan
    return {
        "image": images(px=px),
        "mask": {
            "lulc": torch.randint(0, 3, (2, px, px), generator=generator),
            "buildings": torch.randint(0, 2, (2, px, px), generator=generator),
            "height": height,
        },
    }


def quiet(task: MultiHeadTask) -> dict[str, Any]:
    """Collect what a task logs."""
    logged: dict[str, Any] = {}
    task.log_dict = lambda values, **kwargs: logged.update(values)  # type: ignore[method-assign]
    task.log = lambda name, value, **kwargs: logged.update({name: value})  # type: ignore[method-assign]
    return logged


@pytest.fixture(scope="module")
def model() -> TerraTorchMultiHeadModel:
    torch.manual_seed(0)
    return MODEL_FACTORY_REGISTRY.build("MultiHeadModelFactory").build_model(heads=HEADS, **ARGUMENTS).eval()


def test_the_output_is_a_mapping_and_a_model_output(model: TerraTorchMultiHeadModel) -> None:
    assert isinstance(model, Model)
    with torch.no_grad():
        out = model(images())
    assert isinstance(out, ModelOutput)
    assert list(out) == list(HEADS)
    assert all(isinstance(value, ModelOutput) for _, value in out.items())
    assert {name: out[name].output.shape[1] for name in out} == {"lulc": 3, "buildings": 2, "height": 1}
    assert torch.equal(out.output, torch.cat([out[name].output for name in out], dim=1))
    assert "buildings" in out


def test_wrong_arguments_are_named() -> None:
    build = MultiHeadModelFactory().build_model
    with pytest.raises(CityHeadsError, match="unknown argument 'decoder'"):
        build(heads=HEADS, **ARGUMENTS, decoder="UNetDecoder")
    with pytest.raises(CityHeadsError, match="there are no heads"):
        build(**ARGUMENTS)
    with pytest.raises(CityHeadsError, match="modality 'Sentinel' is new"):
        build(heads=HEADS, **ARGUMENTS | {"backbone_modalities": ["Sentinel"]})
    with pytest.raises(CityHeadsError, match="neither none nor pretraining"):
        build(heads=HEADS, **ARGUMENTS | {"normalization": "imagenet"})
    with pytest.raises(CityHeadsError, match="no such weights file"):
        build(heads=HEADS, **ARGUMENTS, backbone_ckpt_path="nowhere.pt")


def test_a_step_of_the_task_trains_all_heads(model: TerraTorchMultiHeadModel) -> None:
    task = MultiHeadTask(HEADS, model_args=ARGUMENTS, lr=1e-3)
    logged = quiet(task)
    task.train()
    loss = task.training_step(batch_of(), 0)
    assert loss is not None
    loss.backward()
    # FCNDecoder looks at the deepest map only, so the finer branches of that head's neck have nothing to learn
    unused = [name for name, parameter in task.model.heads.named_parameters() if parameter.grad is None]
    assert all(name.startswith(("height.neck.0.fpn1", "height.neck.0.fpn2")) for name in unused)
    assert float(logged["train/height/chips"]) == 1
    assert float(logged["train/lulc/chips"]) == 2
    assert -1 <= float(logged["train/gradient_cosine"]) <= 1
    task.trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()  # type: ignore[assignment]
    groups = task.configure_optimizers()["optimizer"].param_groups
    rates = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    assert {rates[id(p)] for p in task.model.heads["buildings"].parameters()} == {1e-2}
    assert {rates[id(p)] for p in task.model.encoder.parameters()} == {1e-3}
    assert len(rates) == len(list(task.parameters()))


def test_layer_decay_falls_block_by_block() -> None:
    task = MultiHeadTask(HEADS, model_args=ARGUMENTS, lr=1e-3, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in task._groups() for p in group["params"]}
    encoder = task.model.encoder
    found = [rates[id(block.attn.qkv.weight)] for block in encoder.encoder]
    assert found == pytest.approx([1e-3 * 0.5 ** (12 - index) for index in range(12)])
    assert rates[id(next(encoder.encoder_embeddings.parameters()))] == pytest.approx(1e-3 * 0.5**13)
    assert rates[id(encoder.encoder_norm.weight)] == 1e-3
    assert rates[id(next(task.model.heads["lulc"].parameters()))] == 1e-3


def test_the_regression_meter_equals_sklearn(model: TerraTorchMultiHeadModel) -> None:
    from sklearn.metrics import r2_score

    task = MultiHeadTask(HEADS, model)
    logged = quiet(task)
    task.eval()
    task.on_validation_epoch_start()
    batch = batch_of()
    with torch.no_grad():
        task.validation_step(batch, 0)
        predicted = model(batch["image"])["height"].output[1, 0].flatten()
    task.on_validation_epoch_end()
    expected = r2_score(batch["mask"]["height"][1].flatten().numpy(), predicted.numpy())
    assert float(logged["val/height/r2"]) == pytest.approx(expected, rel=1e-4)


def test_tiled_inference_works_on_all_heads(model: TerraTorchMultiHeadModel) -> None:
    tiles = {"h_crop": 32, "w_crop": 32, "h_stride": 16, "w_stride": 16, "delta": 4}
    task = MultiHeadTask(HEADS, model, tiled_inference_parameters=tiles)
    big = images(1, 64)
    with torch.no_grad():
        tiled = task._logits({"image": big}, tiled=True)
        joined = tiled_inference(lambda x: model(x).output, big, **tiles)
    assert {name: tuple(tensor.shape) for name, tensor in tiled.items()} == {
        "lulc": (1, 3, 64, 64), "buildings": (1, 2, 64, 64), "height": (1, 1, 64, 64)
    }  # fmt: skip
    assert torch.equal(tiled["lulc"], joined[:, :3])
    assert torch.equal(tiled["buildings"], joined[:, 3:5])
    maps, names = task.predict_step({"image": big, "filename": ["a.tif"]}, 0)
    assert [name for _, name in maps] == list(HEADS)
    assert names == ["a.tif"]
    assert torch.equal(maps[1][0], tiled["buildings"].argmax(1))


def test_uncertainty_weighting_learns_the_weights_of_labelled_heads(model: TerraTorchMultiHeadModel) -> None:
    task = MultiHeadTask(HEADS, model, balance="uncertainty", interference_every=10**6)
    logged = quiet(task)
    batch = batch_of()
    batch["mask"]["lulc"].fill_(255)
    loss = task.training_step(batch, 1)
    assert loss is not None
    losses = [float(logged[f"train/{name}/loss"]) for name in HEADS]
    assert float(loss.detach()) == pytest.approx(sum(losses))  # all log variances start at 0
    loss.backward()
    assert task.log_variance["lulc"].grad is None
    # d/ds [exp(-s) L + s / 2] at s = 0
    for name in ("buildings", "height"):
        assert float(task.log_variance[name].grad) == pytest.approx(0.5 - float(logged[f"train/{name}/loss"]), rel=1e-4)


def test_projected_gradients_no_longer_conflict() -> None:
    import random

    from cityheads.training.balancing import project_conflicts

    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    joined = project_conflicts([a, b], random.Random(0))
    # by hand: a loses its part along b, (1, 0) + 1/2 (-1, 1); b loses its part along a, (-1, 1) + (1, 0)
    assert torch.allclose(joined, torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0]))
    agreeing = torch.tensor([1.0, 1.0])
    assert torch.allclose(project_conflicts([a, agreeing], random.Random(0)), a + agreeing)


def test_heads_that_share_nothing_trainable_get_their_own_gradients() -> None:
    """As under a frozen encoder: there is nothing to project."""
    import random

    from cityheads.training.balancing import projected_backward

    own = {name: torch.nn.Parameter(torch.tensor([value])) for name, value in (("a", 2.0), ("b", 3.0))}
    shares = {name: parameter.square().sum() for name, parameter in own.items()}
    projected_backward(shares, torch.tensor(10.0), {n: [p] for n, p in own.items()}, [], random.Random(0))
    assert [float(p.grad) for p in own.values() if p.grad is not None] == [40.0, 60.0]


def test_pcgrad_changes_the_shared_part_only() -> None:
    heads = {name: HEADS[name] for name in ("lulc", "buildings")}
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    for balance in ("fixed", "pcgrad"):
        # a start from which the heads pull the encoder apart; where they agree, there is nothing to project
        torch.manual_seed(2)
        task = MultiHeadTask(heads, model_args=ARGUMENTS, balance=balance, interference_every=10**6)
        quiet(task)
        task.trainer = type("Trainer", (), {"global_step": 0})()  # type: ignore[assignment]
        loss = task.training_step(batch_of(), 1)
        assert loss is not None
        if balance == "fixed":
            loss.backward()
        else:
            task.backward(loss * 2)  # as a gradient scaler of 2 would
        gradients[balance] = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
    assert gradients["fixed"].keys() == gradients["pcgrad"].keys()
    for name, gradient in gradients["fixed"].items():
        if name.startswith("heads."):
            assert torch.allclose(2 * gradient, gradients["pcgrad"][name], atol=1e-5), name
    name = "encoder.encoder.5.mlp.fc1.weight"
    assert gradients["pcgrad"][name].norm() > 0
    assert not torch.allclose(2 * gradients["fixed"][name], gradients["pcgrad"][name], rtol=1e-3)


def test_an_auxiliary_head_has_its_own_classes_and_mask() -> None:
    heads = {
        "lulc": {"classes": 3},
        "edges": {"classes": 2, "mask": "buildings", "weight": 0.1, "neck": "shared", "decoder": "FCNDecoder"},
    }
    task = MultiHeadTask(heads, model_args=ARGUMENTS)
    logged = quiet(task)
    loss = task.training_step(batch_of(), 1)
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(
        float(logged["train/lulc/loss"]) + 0.1 * float(logged["train/edges/loss"]), rel=1e-5
    )
    with pytest.raises(CityHeadsError, match="an auxiliary decoder is one more head"):
        MultiHeadModelFactory().build_model(heads=heads, **ARGUMENTS, aux_decoders=[object()])


def test_a_head_has_its_own_label_for_unknown() -> None:
    """-1 in one head and 0 in another are what 255 is elsewhere: no loss, no metric, no count."""
    heads = {"lulc": {"classes": 3, "ignore_index": -1}, "roads": {"classes": 3, "ignore_index": 0, "loss": "ce"}}
    task = MultiHeadTask(heads, model_args=ARGUMENTS)
    logged = quiet(task)
    lulc = torch.randint(0, 3, (2, 32, 32))
    lulc[0] = -1
    masks = {"lulc": lulc, "roads": torch.zeros_like(lulc)}
    loss = task.training_step({"image": images(), "mask": masks}, 1)
    assert loss is not None
    assert loss.isfinite()
    assert [int(logged[f"train/{name}/chips"]) for name in heads] == [1, 0]
    assert float(logged["train/lulc/loss"]) > 0 == float(logged["train/roads/loss"])
    task._start()
    for name, mask in masks.items():
        task._meter(name).update(torch.zeros(2, 3, 32, 32), mask)
    assert [int(meter.counts.sum()) for meter in task.meters.values()] == [32 * 32, 0]


def test_frozen_decoders_stay_what_they_are() -> None:
    heads = {
        "lulc": {"classes": 3, "decoder": "smp_FPN"},
        "edges": {"classes": 2, "mask": "buildings", "neck": "shared", "decoder": "FullResolutionDecoder"},
    }
    torch.manual_seed(0)
    task = MultiHeadTask(heads, model_args=ARGUMENTS, freeze_decoder=True, lr=1e-2)
    quiet(task)
    task.train()
    state = {name: value.clone() for name, value in task.model.state_dict().items()}
    optimizer = torch.optim.AdamW(task._groups(), weight_decay=0.1)
    loss = task.training_step(batch_of(), 1)
    assert loss is not None
    loss.backward()
    optimizer.step()
    now = task.model.state_dict()
    moved = {name for name, value in state.items() if not torch.equal(value, now[name])}
    # necks (own and shared), decoders and the running statistics of their batch norms have not moved
    assert {name for name in moved if not name.startswith("encoder.")} == {
        f"heads.{head}.head.head.{part}" for head in heads for part in ("2.weight", "2.bias")
    }
    assert "encoder.encoder.0.attn.qkv.weight" in moved


LORA = {"rank": 2, "alpha": 8.0, "targets": ["attn.qkv", "mlp.fc1"]}


def test_low_rank_updates_are_exported_as_plain_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    torch.manual_seed(0)
    task = MultiHeadTask(HEADS, model_args=ARGUMENTS | {"lora": LORA}, lr=1e-2)
    quiet(task)
    encoder = task.model.encoder
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and not n.endswith((".up", ".down"))] == []
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        loss = task.training_step(batch_of(), 1)
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.export(tmp_path / "model.safetensors")
    torch.manual_seed(5)
    plain = MultiHeadModelFactory().build_model(heads=HEADS, **ARGUMENTS)
    before = plain.encoder.state_dict()["encoder.3.mlp.fc1.weight"].clone()
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert not torch.equal(plain.encoder.state_dict()["encoder.3.mlp.fc1.weight"], before)
    plain.eval()
    task.eval()
    with torch.no_grad():
        assert torch.allclose(plain(images()).output, task(images()).output, atol=1e-4)
    defaults = MultiHeadModelFactory().build_model(heads=HEADS, **ARGUMENTS, lora={"rank": 1})
    assert sum("attn.qkv.up" in name or "attn.proj.up" in name for name in defaults.state_dict()) == 24
    with pytest.raises(CityHeadsError, match="lora or peft_config, not both"):
        MultiHeadModelFactory().build_model(heads=HEADS, **ARGUMENTS, lora=LORA, peft_config={"method": "LORA"})
    with pytest.raises(CityHeadsError, match=r"'attn\.query' is no linear layer"):
        MultiHeadModelFactory().build_model(heads=HEADS, **ARGUMENTS, lora=LORA | {"targets": ["attn.query"]})


def write_config(folder: Path, dataset: Path, repository: Path) -> Path:
    """Fill the places of the shipped example in."""
    config = yaml.safe_load((repository / "examples" / "terratorch_multihead.yaml").read_text())
    config["trainer"] |= {"max_epochs": 1, "default_root_dir": str(folder), "accelerator": "cpu", "logger": False}
    config["data"]["init_args"] |= {"dataset_dir": str(dataset), "chips_dir": str(folder / "chips"), "batch_size": 8}
    config["model"]["init_args"]["heads"]["lulc"]["classes"] = ["water", "developed", "forest"]
    config["model"]["init_args"]["model_args"]["decoder_channels"] = [16, 16, 8, 8]
    config["model"]["init_args"]["model_args"]["lora"] = {"rank": 2}
    path = folder / "example.yaml"  # Lightning writes a config.yaml of its own
    path.write_text(yaml.safe_dump(config))
    return path


def terratorch(*arguments: str, cwd: Path) -> str:
    command = [str(Path(sys.executable).with_name("terratorch")), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"GOMP_SPINCOUNT": "1000"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def check_export(checkpoint: Path, folder: Path) -> None:
    """Weights trained with low-rank updates load strictly into the plain model and answer alike."""
    from safetensors.torch import load_file

    task = MultiHeadTask.load_from_checkpoint(checkpoint, weights_only=True).eval()
    assert any(name.endswith("attn.qkv.up") for name in task.state_dict())
    task.export(folder / "model.safetensors")
    arguments = {name: value for name, value in task.model_args.items() if name != "lora"}
    plain = MultiHeadModelFactory().build_model(heads=task.head_specs, **arguments).eval()
    plain.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.allclose(plain(images()).output, task(images()).output, atol=1e-4)


@pytest.mark.slow
def test_the_command_line_fits_validates_tests_and_predicts(tmp_path: Path, repository: Path) -> None:
    import rasterio
    from rasterio.transform import from_origin

    dataset = write_store(tmp_path / "dataset")
    config = write_config(tmp_path, dataset, repository)
    terratorch("fit", "--config", str(config), cwd=tmp_path)
    (checkpoint, *_) = sorted(path for path in tmp_path.rglob("*.ckpt") if "state_dict" not in path.name)
    given = ("--config", str(config), "--ckpt_path", str(checkpoint))
    output = terratorch("validate", *given, cwd=tmp_path)
    assert "val/lulc/miou" in output
    assert "val/score" in output
    assert "test/lulc/miou" in terratorch("test", *given, cwd=tmp_path)
    check_export(checkpoint, tmp_path)
    chips = tmp_path / "chips" / "S2L2A"
    chips.mkdir(parents=True)
    stored = np.load(dataset.parent / "store" / "S2L2A.npy")
    for index in range(20, 24):
        name = f"P{index // 4:02d}_r{index % 4 // 2}c{index % 2}"
        place = from_origin(500000 + 320 * index, 4500000, 10, 10)
        with rasterio.open(
            chips / f"{name}.tif", "w", driver="GTiff", width=32, height=32, count=12, dtype="uint16", nodata=0,
            crs="EPSG:32618", transform=place,
        ) as target:  # fmt: skip
            target.write(stored[index])
    out = tmp_path / "predictions"
    terratorch(
        "predict", "--config", str(config), "--ckpt_path", str(checkpoint), "--predict_output_dir", str(out),
        cwd=tmp_path,
    )  # fmt: skip
    written = sorted(path.name for path in out.glob("*.tif"))
    assert len(written) == 8
    assert "P05_r0c0_lulc.tif" in written
    with rasterio.open(out / "P05_r1c1_buildings.tif") as source:
        assert source.transform == from_origin(500000 + 320 * 23, 4500000, 10, 10)
        assert set(np.unique(source.read())) <= {0, 1}
