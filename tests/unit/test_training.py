from __future__ import annotations

import csv
import json
import logging
import math
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import small_config, write_store
from safetensors.torch import load_file

import cityheads.training.recorder
import cityheads.training.run
from cityheads.core.artifacts.history import columns, read_history, write_history
from cityheads.core.confusion import HeadMetric, class_iou
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.model.builder import build_model, load_model
from cityheads.training.meters import Confusion
from cityheads.training.recorder import Recorder
from cityheads.training.run import train
from cityheads.training.spec import make_spec
from cityheads.training.task import MultiHeadTask, schedule


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("train") / "dataset")


def rows(run_dir: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run_dir / "history.csv").open()))


def first_weights(model: Any) -> torch.Tensor:
    return next(model.heads["lulc"].parameters()).detach().clone()


@pytest.fixture(scope="module")
def run_dir(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "multihead" / "0"
    train(small_config(train={"epochs": 3}), run="multihead", seed=0, dataset=dataset_dir, out=out)
    return out


def test_a_training_leaves_what_the_next_rules_read(run_dir: Path) -> None:
    names = {path.name for path in run_dir.iterdir()}
    assert names == {
        "model.safetensors", "model.json", "history.csv", "training.json", "environment.json", "tensorboard"
    }  # fmt: skip
    assert any((run_dir / "tensorboard").glob("events.out.tfevents.*"))
    training = json.loads((run_dir / "training.json").read_text())
    assert training["chips"] == {"train": 16, "val": 4, "test": 4}
    assert training["schedule"] == {
        "epochs": 3, "batch_size": 8, "accumulate": 1, "lr": 0.001, "warmup_fraction": 0.1, "weight_decay": 0.01
    }  # fmt: skip
    assert (training["steps"], training["chips_seen"]) == (6, 48)
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["wall_s"] > 0
    assert 100 < environment["peak_memory_mb"] < 100_000
    parameters = training["parameters"]
    assert parameters["total"] == parameters["trainable"]
    assert parameters["total"] == parameters["encoder"] + sum(parameters["heads"].values())
    history = rows(run_dir)
    assert [row["epoch"] for row in history] == ["0", "1", "2"]
    assert list(history[0]) == [
        "epoch", "lr", "train/loss", "train/lulc/loss", "train/buildings/loss", "val/loss",
        "val/lulc/loss", "val/lulc/miou", "val/buildings/loss", "val/buildings/iou", "val/score",
        "train/lulc/chips", "train/buildings/chips", "train/gradient_cosine",
    ]  # fmt: skip
    for row in history:
        both = float(row["train/lulc/loss"]) + float(row["train/buildings/loss"])
        assert float(row["train/loss"]) == pytest.approx(both, rel=1e-5)
        score = (float(row["val/lulc/miou"]) + float(row["val/buildings/iou"])) / 2
        assert float(row["val/score"]) == pytest.approx(score, rel=1e-5)
        # of the 16 training chips one has no building labels
        assert (row["train/lulc/chips"], row["train/buildings/chips"]) == ("16", "15")
        assert -1 <= float(row["train/gradient_cosine"]) <= 1
    scores = [float(row["val/score"]) for row in history]
    assert (training["checkpoint"], training["kept_epoch"]) == ("last", 2)
    assert training["score"] == pytest.approx(scores[2], rel=1e-5)
    assert training["scores"]["buildings"] == pytest.approx(float(history[2]["val/buildings/iou"]), rel=1e-5)


def test_the_history_is_read_as_it_was_written(run_dir: Path, tmp_path: Path) -> None:
    metrics = {"lulc": "miou", "buildings": "iou"}
    history = read_history(run_dir / "history.csv", metrics)
    assert list(history) == columns(metrics)
    assert history["epoch"] == [0, 1, 2]
    path = tmp_path / "history.csv"
    write_history(path, {"lulc": "miou"}, [{"epoch": 0.0, "lr": 1 / 3, "val/loss": math.nan}])
    found = read_history(path, {"lulc": "miou"})
    assert found["lr"] == [0.3333333]
    assert math.isnan(found["val/loss"][0])
    assert math.isnan(found["val/score"][0])
    with pytest.raises(CityHeadsError, match=r"history\.csv: lacks column train/buildings/loss; make it anew"):
        read_history(path, metrics)
    path.write_text("epoch,lr\n")
    with pytest.raises(CityHeadsError, match="holds no epoch"):
        read_history(path, metrics)


def test_the_saved_model_scores_what_the_history_says(run_dir: Path, dataset_dir: Path) -> None:
    from sklearn.metrics import jaccard_score

    model, spec = load_model(run_dir)
    assert spec["simulated"] is True
    store = dataset_dir.parent / "store"
    images = {
        name: torch.from_numpy(np.load(store / f"{name}.npy")[16:20].astype(np.float32))
        for name in model.input_modalities
    }
    truth = np.load(store / "MASK_LULC.npy")[16:20]
    with torch.no_grad():
        predicted = model(images)["lulc"].argmax(1).numpy()
    valid = truth != 255
    expected = jaccard_score(truth[valid], predicted[valid], average="macro", zero_division=0)
    kept = json.loads((run_dir / "training.json").read_text())["kept_epoch"]
    assert float(rows(run_dir)[kept]["val/lulc/miou"]) == pytest.approx(expected, rel=1e-4)


def test_two_trainings_with_one_seed_give_the_same_bytes(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    train(small_config(train={"epochs": 3}), run="multihead", seed=0, dataset=dataset_dir, out=tmp_path)
    for name in ("model.safetensors", "history.csv", "model.json", "training.json"):
        assert (tmp_path / name).read_bytes() == (run_dir / name).read_bytes(), name
    other = tmp_path / "other"
    train(small_config(train={"epochs": 3}), run="multihead", seed=1, dataset=dataset_dir, out=other)
    assert (other / "model.safetensors").read_bytes() != (run_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    class KilledError(BaseException):
        pass

    def kill_then(trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == killed_after:
            raise KilledError

    config = small_config(train={"epochs": 3})
    monkeypatch.setattr(cityheads.training.recorder, "_SAVE_EVERY_S", 0.0)
    tell = Recorder.on_train_epoch_start

    def started(self: Any, trainer: Any, pl_module: Any) -> None:
        tell(self, trainer, pl_module)
        kill_then(trainer, pl_module)

    monkeypatch.setattr(Recorder, "on_train_epoch_start", started)
    with pytest.raises(KilledError):
        train(config, run="multihead", seed=0, dataset=dataset_dir, out=tmp_path)
    assert not (tmp_path / "training.json").exists()
    assert (tmp_path / ".work" / "last.ckpt").exists()
    epochs = []

    def resumed(self: Any, trainer: Any, pl_module: Any) -> None:
        epochs.append(trainer.current_epoch)
        tell(self, trainer, pl_module)

    monkeypatch.setattr(Recorder, "on_train_epoch_start", resumed)
    train(config, run="multihead", seed=0, dataset=dataset_dir, out=tmp_path)
    assert epochs == list(range(killed_after, 3))
    for name in ("model.safetensors", "history.csv", "training.json"):
        assert (tmp_path / name).read_bytes() == (run_dir / name).read_bytes(), name
    assert not (tmp_path / ".work").exists()


def test_a_resumed_training_keeps_the_best_epoch_and_adds_up_what_it_cost(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    # the best epoch lies before the kill: its weights must come from the saved state
    scores = {0: 0.5, 1: 0.4, 2: 0.3}

    def score(self: Any) -> None:
        found = torch.tensor(scores[self.trainer.current_epoch])
        self.log_dict({"val/lulc/miou": found, "val/score": found})

    monkeypatch.setattr(cityheads.training.run.MultiHeadTask, "on_validation_epoch_end", score)
    monkeypatch.setattr(cityheads.training.recorder, "_SAVE_EVERY_S", 0.0)
    config = small_config(train={"epochs": 3, "checkpoint": "best"})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, run="lulc", seed=0, dataset=dataset_dir, out=whole)
    start = Recorder.on_train_epoch_start

    def started(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            raise KilledError
        start(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_start", started)
        with pytest.raises(KilledError):
            train(config, run="lulc", seed=0, dataset=dataset_dir, out=killed)
    (state,) = torch.load(killed / ".work" / "last.ckpt", weights_only=True)["callbacks"].values()
    spent = state["cost"]["wall_s"]
    assert spent > 0
    train(config, run="lulc", seed=0, dataset=dataset_dir, out=killed)
    assert json.loads((killed / "training.json").read_text())["kept_epoch"] == 0
    for name in ("model.safetensors", "history.csv", "training.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((killed / "environment.json").read_text())["wall_s"] > spent


def test_a_state_of_another_training_is_not_taken_up(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "identity").write_text("something else")
    (tmp_path / ".work" / "last.ckpt").write_bytes(b"not for us")
    train(small_config(train={"epochs": 3}), run="multihead", seed=0, dataset=dataset_dir, out=tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (run_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("checkpoint", "scores", "kept"),
    [
        ("last", [0.3, 0.5, 0.4], 2),
        ("best", [0.3, 0.5, 0.5], 1),
        ("best", [math.nan, 0.1, math.nan], 1),
        ("best", [math.nan, math.nan, math.nan], 0),
    ],
)
def test_every_epoch_is_run_and_the_rule_says_which_is_kept(
    dataset_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    checkpoint: str, scores: list[float], kept: int,
) -> None:  # fmt: skip
    left, weights = iter(scores), []

    def score(self: Any) -> None:
        weights.append(first_weights(self.model))
        self.log_dict({"val/lulc/miou": torch.tensor(0.1), "val/score": torch.tensor(next(left))})

    monkeypatch.setattr(cityheads.training.run.MultiHeadTask, "on_validation_epoch_end", score)
    config = small_config(train={"epochs": 3, "checkpoint": checkpoint})
    with caplog.at_level(logging.INFO, "cityheads.progress"):
        train(config, run="lulc", seed=0, dataset=dataset_dir, out=tmp_path)
    training = json.loads((tmp_path / "training.json").read_text())
    assert (training["checkpoint"], training["kept_epoch"], training["steps"]) == (checkpoint, kept, 6)
    assert training["score"] == (None if math.isnan(scores[kept]) else pytest.approx(scores[kept]))
    model, _ = load_model(tmp_path)
    assert [torch.equal(first_weights(model), one) for one in weights] == [epoch == kept for epoch in range(3)]
    lines = [record.message for record in caplog.records if record.name == "cityheads.progress"]
    assert len(lines) == 3
    assert lines[0].startswith("lulc/0/0 epoch 1/3 loss 0.")
    assert "lulc miou 0.100" in lines[0]


def test_shared_and_single_task_runs_take_the_same_steps(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    train(small_config(train={"epochs": 3}), run="buildings", seed=0, dataset=dataset_dir, out=tmp_path)
    shared, single = (json.loads((at / "training.json").read_text()) for at in (run_dir, tmp_path))
    for key in ("steps", "chips_seen", "schedule", "checkpoint", "kept_epoch"):
        assert shared[key] == single[key], key
    assert [row["lr"] for row in rows(run_dir)] == [row["lr"] for row in rows(tmp_path)]


def test_training_learns(dataset_dir: Path, tmp_path: Path) -> None:
    config = small_config(train={"epochs": 30, "batch_size": 4, "lr": 0.003})
    train(config, run="buildings", seed=0, dataset=dataset_dir, out=tmp_path)
    history = rows(tmp_path)
    assert float(history[-1]["train/loss"]) < 0.85 * float(history[0]["train/loss"])


def test_a_head_whose_metric_is_undefined_does_not_enter_the_score(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset")
    path = folder.parent / "store" / "MASK_BUILDINGS.npy"
    masks = np.load(path)
    masks[16:20] = 255
    np.save(path, masks)
    index = json.loads((folder.parent / "store" / "index.json").read_text())
    index["arrays"]["MASK_BUILDINGS"]["sha256"] = sha256_file(path)
    (folder.parent / "store" / "index.json").write_text(json.dumps(index))
    train(small_config(train={"epochs": 1}), run="multihead", seed=0, dataset=folder, out=tmp_path / "run")
    (row,) = rows(tmp_path / "run")
    assert row["val/buildings/iou"] == ""
    assert row["val/score"] == row["val/lulc/miou"]
    assert float(row["val/buildings/loss"]) == 0


def test_wrong_input_is_named(dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match="no run 'roads'"):
        train(small_config(), run="roads", seed=0, dataset=dataset_dir, out=tmp_path / "run")
    classes = dataset_dir / "classes.json"
    other = write_store(tmp_path / "dataset", chips=6)
    table = json.loads(classes.read_text())
    table["labels"]["LULC"].reverse()
    (other / "classes.json").write_text(json.dumps(table))
    with pytest.raises(CityHeadsError, match="has other classes"):
        train(small_config(), run="multihead", seed=0, dataset=other, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_whose_bytes_have_changed_trains_nothing(tmp_path: Path) -> None:
    dataset = write_store(tmp_path / "dataset")
    path = dataset.parent / "store" / "S1RTC.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CityHeadsError, match=r"S1RTC\.npy: its bytes have changed"):
        train(small_config(), run="lulc", seed=0, dataset=dataset, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_training(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cityheads.training.task.HeadLoss, "forward", lambda self, x, y: x.sum() * math.nan)
    with pytest.raises(CityHeadsError, match=r"lulc/0/0: the loss of epoch 1 is not finite; lower train\.lr"):
        train(small_config(), run="lulc", seed=0, dataset=dataset_dir, out=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_metric_of_a_head_is_that_of_the_evaluation() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    target = torch.randint(0, 2, (4, 8, 8), generator=generator)  # no pixel of class c
    found = {}
    for metric, positive in (("miou", None), ("iou", "a"), ("iou", "b")):
        confusion = Confusion(HeadMetric.of(metric, "abc", positive))
        confusion.update(logits, target)
        found[positive] = confusion.compute()
    ious = class_iou(confusion.counts.numpy())
    assert [found["a"], found["b"]] == list(ious[:2])
    assert found[None] == pytest.approx(ious[:2].mean())


def test_the_confusion_matrix_equals_sklearn() -> None:
    from sklearn.metrics import confusion_matrix

    generator = torch.Generator().manual_seed(0)
    confusion = Confusion(HeadMetric.of("miou", "abc"))
    targets, predictions = [], []
    for _ in range(3):
        logits = torch.randn(2, 3, 5, 4, generator=generator)
        target = torch.randint(0, 3, (2, 5, 4), generator=generator)
        target[0, 0] = 255
        confusion.update(logits, target)
        valid = target != 255
        targets.append(target[valid])
        predictions.append(logits.argmax(1)[valid])
    expected = confusion_matrix(torch.cat(targets), torch.cat(predictions))
    assert np.array_equal(confusion.counts.numpy(), expected)
    confusion.reset()
    assert confusion.counts.sum() == 0


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [schedule(step, steps=100, warmup_fraction=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == 1.0
    assert rates.index(1.0) == 10
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert schedule(100, steps=100, warmup_fraction=0.1) == pytest.approx(0, abs=1e-12)
    assert schedule(0, steps=1, warmup_fraction=0.0) == 1.0


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from model_fixtures import small_config; from cityheads.training.run import train;"
        "train(small_config(train={'epochs': 3}), run='multihead', seed=0, dataset=Path(sys.argv[2]),"
        " out=Path(sys.argv[3]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(dataset_dir), str(tmp_path)], check=True
    )
    for name in ("model.safetensors", "history.csv"):
        assert (tmp_path / name).read_bytes() == (run_dir / name).read_bytes(), name


KILLED = """
import logging, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from model_fixtures import small_config
import cityheads.training.recorder as product
from cityheads.training.run import train
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("cityheads.progress").setLevel(logging.INFO)
product._SAVE_EVERY_S = 0.0

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def killed_in_a_step(self, trainer, task, batch, index):
    started(self, trainer, task, batch, index)
    if (trainer.current_epoch, index) == (1, 1):
        kill()

def killed_while_saving(self, path, *args, **kwargs):
    save(self, path, *args, **kwargs)
    if self.current_epoch == 1:
        path.write_bytes(path.read_bytes()[:-100])
        kill()

started, save = product.Recorder.on_train_batch_start, product.Trainer.save_checkpoint
if sys.argv[4] == "step":
    product.Recorder.on_train_batch_start = killed_in_a_step
elif sys.argv[4] == "saving":
    product.Trainer.save_checkpoint = killed_while_saving
config = small_config(train={"epochs": 3})
train(config, run="multihead", seed=0, dataset=Path(sys.argv[2]), out=Path(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["step", "saving"])
def test_a_process_killed_outright_goes_on_and_ends_in_the_same_bytes(
    when: str, run_dir: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    def run(how: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(Path(__file__).parent), str(dataset_dir), str(tmp_path / "run"), how]
        return subprocess.run([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)

    killed = run(when)
    assert killed.returncode == -signal.SIGKILL
    seen = [line.split()[2] for line in killed.stdout.splitlines() if "epoch" in line]
    assert seen == (["1/3"] if when == "step" else ["1/3", "2/3"])
    assert (tmp_path / "run" / ".work" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = run("never")
    assert resumed.returncode == 0
    # the first epoch is not done again; the second is, whose state was lost or never whole
    assert [line.split()[2] for line in resumed.stdout.splitlines() if "epoch" in line] == ["2/3", "3/3"]
    for name in ("model.safetensors", "history.csv", "training.json", "model.json"):
        assert (tmp_path / "run" / name).read_bytes() == (run_dir / name).read_bytes(), name
    assert not (tmp_path / "run" / ".work").exists()


def test_half_precision_is_used_and_full_precision_saved(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train(small_config(train={"epochs": 3, "precision": "bf16-mixed"}), run="multihead", seed=0,
          dataset=dataset_dir, out=tmp_path)  # fmt: skip
    half, full = rows(tmp_path)[0], rows(run_dir)[0]
    assert half["train/loss"] != full["train/loss"]
    assert float(half["train/loss"]) == pytest.approx(float(full["train/loss"]), rel=0.02)
    weights = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    bits = weights["encoder.encoder.0.attn.qkv.weight"].view(torch.int32)
    assert int((bits & 0xFFFF).count_nonzero()) > bits.numel() / 2  # no rounded copies of the weights


@pytest.mark.slow
def test_a_compiled_training_learns_the_same_and_keeps_the_names(dataset_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = {}
    for compiled in (False, True):
        config = small_config(model={"dropout": 0.0}, train={"epochs": 2, "compile": compiled})
        train(config, run="buildings", seed=0, dataset=dataset_dir, out=tmp_path / str(compiled))
        found[compiled] = load_file(tmp_path / str(compiled) / "model.safetensors")
        load_model(tmp_path / str(compiled))
    assert list(found[True]) == list(found[False])
    for plain, compiled in zip(rows(tmp_path / "False"), rows(tmp_path / "True"), strict=True):
        assert float(compiled["train/loss"]) == pytest.approx(float(plain["train/loss"]), rel=1e-3)
        assert float(compiled["val/loss"]) == pytest.approx(float(plain["val/loss"]), rel=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"lora": {"rank": 2}}, "train": {"epochs": 1, "accumulate": 2}},
        {"train": {"epochs": 1, "balance": "pcgrad", "gradient_checkpointing": True, "jitter": 0.1}},
        {"train": {"epochs": 1, "balance": "uncertainty", "layer_decay": 0.7, "precision": "bf16-mixed"}},
        {"model": {"modalities": ["S2L2A", "NDVI"], "bands": {"S2L2A": ["B04", "B08"]}, "normalization": "train"}},
        {"model": {"merge": "concat", "modality_dropout": 0.3, "encoder": "frozen"}},
        {
            "model": {"encoder": "absent", "lora": {"rank": 2}},
            "heads": {"buildings": {"decoder": "FullResolutionDecoder"}},
            "train": {"epochs": 1, "balance": "pcgrad", "layer_decay": 0.7, "gradient_checkpointing": True},
        },
    ],
    ids=["lora", "pcgrad", "uncertainty", "bands", "concat", "absent"],
)
def test_other_ways_of_training_leave_a_model_that_loads(
    dataset_dir: Path, tmp_path: Path, changes: dict[str, dict[str, Any]]
) -> None:
    config = small_config(**{"train": {"epochs": 1}, **changes})
    train(config, run="multihead", seed=0, dataset=dataset_dir, out=tmp_path)
    model, spec = load_model(tmp_path)
    store = dataset_dir.parent / "store"
    images = {
        name: torch.from_numpy(np.load(store / f"{name}.npy")[16:20].astype(np.float32))
        for name in model.input_modalities
    }
    with torch.no_grad():
        out = model(images)
    assert all(torch.isfinite(logits).all() for logits in out.values())
    truth = np.load(store / "MASK_BUILDINGS.npy")[16:20]
    counts = Confusion(HeadMetric.of("iou", ["not building", "building"], "building"))
    counts.update(out["buildings"], torch.from_numpy(truth.astype(np.int64)))
    (row,) = rows(tmp_path)
    tolerance = 0.02 if config.train.precision != "32-true" else 1e-3
    assert float(row["val/buildings/iou"]) == pytest.approx(counts.compute(), abs=tolerance)
    assert list(spec["modalities"]) == list(config.model.modalities)


def test_the_auxiliary_loss_teaches_the_encoder_and_leaves_nothing_in_the_model(
    run_dir: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    changed = {"epochs": 3, "auxiliary_weight": 0.5}
    train(small_config(train=changed), run="multihead", seed=0, dataset=dataset_dir, out=tmp_path / "a")
    plain, taught = (load_file(folder / "model.safetensors") for folder in (run_dir, tmp_path / "a"))
    assert list(plain) == list(taught)
    load_model(tmp_path / "a")
    name = "encoder.encoder.0.attn.qkv.weight"
    assert not torch.equal(plain[name], taught[name])
    # a head that was asked for more has a larger objective, of which the losses of the heads are a part
    for row in rows(tmp_path / "a"):
        assert float(row["train/loss"]) > float(row["train/lulc/loss"]) + float(row["train/buildings/loss"])
    config = small_config(train=changed | {"balance": "pcgrad"})
    train(config, run="multihead", seed=0, dataset=dataset_dir, out=tmp_path / "b")
    assert not torch.equal(load_file(tmp_path / "b" / "model.safetensors")[name], taught[name])


def test_an_encoder_that_does_not_train_is_asked_for_nothing_more(dataset_dir: Path) -> None:
    spec = make_spec(small_config(model={"encoder": "frozen"}), run="multihead", seed=0, dataset=dataset_dir)
    frozen = MultiHeadTask(spec["heads"], build_model(spec), auxiliary_weight=0.5)
    assert not frozen.auxiliary
    spec = make_spec(small_config(), run="multihead", seed=0, dataset=dataset_dir)
    task = MultiHeadTask(spec["heads"], build_model(spec), auxiliary_weight=0.5)
    image = {name: torch.rand(2, len(one["bands"]), 64, 64) for name, one in spec["modalities"].items()}
    masks = {name: torch.zeros(2, 64, 64, dtype=torch.int64) for name in spec["heads"]}
    _, losses = task._with_auxiliary({"image": image}, masks)
    for loss in losses.values():
        task.zero_grad()
        loss.backward(retain_graph=True)
        gradient = task.model.encoder.state_dict(keep_vars=True)["encoder.0.attn.qkv.weight"].grad
        assert float(gradient.abs().sum()) > 0
    assert set(losses) == {"lulc", "buildings"}


def test_class_weights_must_fit_the_classes() -> None:
    with pytest.raises(CityHeadsError, match=r"heads\.lulc\.class_weights': 3 classes need as many weights"):
        small_config(heads={"lulc": {"label": "LULC", "class_weights": [1.0, 2.0]}})


def test_local_weights_are_recorded_by_their_hash(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from cityheads.core.files import sha256_file

    assert json.loads((run_dir / "environment.json").read_text())["weights"] is None
    model, _ = load_model(run_dir)
    save_file(
        {name: value.contiguous() for name, value in model.encoder.state_dict().items()}, tmp_path / "e.safetensors"
    )
    config = small_config(model={"weights": str(tmp_path / "e.safetensors")}, train={"epochs": 1})
    train(config, run="lulc", seed=0, dataset=dataset_dir, out=tmp_path / "run")
    origin = json.loads((tmp_path / "run" / "environment.json").read_text())["weights"]
    assert origin == {"file": "e.safetensors", "sha256": sha256_file(tmp_path / "e.safetensors")}
