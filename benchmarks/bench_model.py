"""Measure the model layer against what it replaces: `python benchmarks/bench_model.py [part ...]`.

* ``loader``: samples a second of `ChipDataModule` from the packed store, and of TerraTorch's
  `GenericMultiModalDataModule` from GeoTIFFs with the same pixels (12 x uint16, 2 + 1 x float32, one mask), in one
  process each, files in the page cache.
* ``step``: a training step of `MultiHeadTask` in a Lightning loop against the same modules in a bare loop, in CPU
  seconds.
* ``forward``: one forward of a model with two heads against one of each of two models with one.
* ``memory``: activations kept for the backward pass, with and without gradient checkpointing of the encoder's blocks.
* ``tim``: CPU seconds of a plain encoder and of one with Thinking-in-Modalities, 4 chips of 224 px, forward alone
  and with the backward pass.
* ``cuda``: training samples a second at 224 px in bf16, with and without `torch.compile`, and the share of the
  arithmetic that a large bf16 matrix product reaches in the same run; only where there is a GPU.

Timings are medians of wall seconds at ``--threads`` CPU threads; run them on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from cityheads.core.artifacts.model import SavedModel

PARTS = ("loader", "step", "forward", "memory", "tim", "cuda")
MODALITIES = ("S2L2A", "S1RTC", "DEM")
CLASSES = {"lulc": 5, "buildings": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--px", type=int, default=256, help="side of a chip, for loader and forward")
    parser.add_argument("--chips", type=int, default=64, help="chips of the loader")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"'{unknown[0]}' is none of {', '.join(PARTS)}")
    import torch

    torch.set_num_threads(arguments.threads)
    for part in arguments.parts:
        globals()[f"bench_{part}"](arguments)


def median_s(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def bench_loader(arguments: argparse.Namespace) -> None:
    import warnings

    from terratorch.datamodules import GenericMultiModalDataModule

    from cityheads.dataset.datamodule import ChipDataModule, keep_freed_memory

    keep_freed_memory()  # as a training does; it helps both loaders
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_chips(Path(folder), arguments.chips, arguments.px)
        ours = ChipDataModule(Path(folder) / "dataset" / "0", MODALITIES, {"lulc": "LULC"}, batch_size=16, augment="d4")
        theirs = GenericMultiModalDataModule(
            batch_size=16, modalities=list(MODALITIES), task="segmentation", num_classes=5, rgb_modality="S2L2A",
            means={"S2L2A": [0.0] * 12, "S1RTC": [0.0] * 2, "DEM": [0.0]},
            stds={"S2L2A": [1.0] * 12, "S1RTC": [1.0] * 2, "DEM": [1.0]},
            train_data_root={name: f"{folder}/chips/{name}" for name in MODALITIES},
            val_data_root={name: f"{folder}/chips/{name}" for name in MODALITIES},
            test_data_root={name: f"{folder}/chips/{name}" for name in MODALITIES},
            train_label_data_root=f"{folder}/chips/MASK_LULC", val_label_data_root=f"{folder}/chips/MASK_LULC",
            test_label_data_root=f"{folder}/chips/MASK_LULC",
            image_grep="*.tif", label_grep="*.tif", no_label_replace=None, drop_last=False,
        )  # fmt: skip
        theirs.setup("fit")
        rates = {}
        for name, loader in (("store", ours.train_dataloader()), ("GeoTIFF", theirs.train_dataloader())):

            def read(loader: Any = loader) -> int:
                return sum(1 for _ in loader)

            rates[name] = arguments.chips / median_s(read, arguments.repeats)
        print(
            f"loader {arguments.px} px: {rates['store']:.0f} samples/s from the store, {rates['GeoTIFF']:.1f} "
            f"through GenericMultiModalDataModule: {rates['store'] / rates['GeoTIFF']:.0f} x"
        )


def write_chips(folder: Path, chips: int, px: int) -> None:
    """Write the same random chips as a packed store and as GeoTIFFs."""
    import pyarrow as pa
    import rasterio
    from rasterio.transform import from_origin

    from cityheads.core.artifacts.chips import CHIPS
    from cityheads.core.artifacts.store import STORE_INDEX, StoredArray
    from cityheads.core.files import sha256_file

    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "S2L2A": rng.integers(1, 6000, (chips, 12, px, px), dtype=np.uint16),
        "S1RTC": rng.normal(-12, 4, (chips, 2, px, px)).astype(np.float32),
        "DEM": rng.normal(20, 5, (chips, 1, px, px)).astype(np.float32),
        "MASK_LULC": rng.integers(0, 5, (chips, 1, px, px), dtype=np.uint8),
    }
    ids = [f"P{index:03d}_r0c0" for index in range(chips)]
    store = folder / "dataset" / "store"
    store.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(store / f"{name}.npy", array[:, 0] if name.startswith("MASK") else array)
        (folder / "chips" / name).mkdir(parents=True)
        for chip, pixels in zip(ids, array, strict=True):
            with rasterio.open(
                folder / "chips" / name / f"{chip}.tif", "w", driver="GTiff", width=px, height=px,
                count=len(pixels), dtype=array.dtype.name, crs="EPSG:32618", compress="deflate",
                predictor=3 if array.dtype.kind == "f" else 2, transform=from_origin(500000, 4500000, 10, 10),
            ) as target:  # fmt: skip
                target.write(pixels)
    entries: dict[str, StoredArray] = {}
    for name in arrays:
        stored = np.load(store / f"{name}.npy", mmap_mode="r")
        entries[name] = {
            "dtype": stored.dtype.name, "shape": list(stored.shape), "sha256": sha256_file(store / f"{name}.npy")
        }  # fmt: skip
    STORE_INDEX.write(store / "index.json", {"chips": ids, "chip_px": px, "arrays": entries})
    table = {"chip_id": ids, "split": ["train"] * chips, "kept": [True] * chips, "store_index": list(range(chips))}
    CHIPS.write(folder / "dataset" / "0" / "chips.parquet", pa.table(table))


def make_spec(backbone: str, heads: tuple[str, ...], channels: list[int], decoder: str = "UNetDecoder") -> SavedModel:
    from cityheads.core.modalities import MODALITIES as TABLE

    model = {
        "backbone": backbone, "pretrained": False, "weights": None, "merge": "mean", "decoder_channels": channels,
        "dropout": 0.1, "encoder": "trained",
    }  # fmt: skip
    return {
        "run": "bench", "fold": 0, "seed": 0, "backbone": backbone, "model": model, "chip_px": 224,
        "simulated": True,
        "modalities": {
            name: {"bands": list(TABLE[name].bands), "mean": list(TABLE[name].mean), "std": list(TABLE[name].std)}
            for name in MODALITIES
        },
        "heads": {
            head: {
                "label": head.upper(), "classes": [{"id": i, "name": str(i)} for i in range(CLASSES[head])],
                "loss": "dice", "weight": 1.0, "metric": "miou", "positive_class": None, "decoder": decoder,
                "decoder_args": {}, "neck": "own", "class_weights": None, "lr": None,
            }
            for head in heads
        },
    }  # fmt: skip


def make_batch(batch: int, px: int, device: str = "cpu") -> dict[str, Any]:
    import torch

    image = {
        "S2L2A": torch.rand(batch, 12, px, px, device=device) * 4000,
        "S1RTC": torch.randn(batch, 2, px, px, device=device) * 4 - 12,
        "DEM": torch.rand(batch, 1, px, px, device=device) * 50,
    }
    mask = {name: torch.randint(0, count, (batch, px, px), device=device) for name, count in CLASSES.items()}
    return {"image": image, "mask": mask, "chip_id": [""] * batch}


def bench_step(arguments: argparse.Namespace) -> None:
    import logging
    import warnings

    import torch
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback
    from torch.utils.data import DataLoader

    from cityheads.dataset.datamodule import keep_freed_memory
    from cityheads.model.builder import build_model
    from cityheads.model.losses import HeadLoss
    from cityheads.training.task import MultiHeadTask

    keep_freed_memory()  # as a training does; it helps both loops
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    # as in the default run: its heads and chips, and 13 steps an epoch, in the first of which the cosine is measured
    spec = make_spec("terramind_v1_tiny", ("lulc", "buildings"), [128, 64, 32, 16], "FullResolutionDecoder")
    batch, epochs, length, rounds = make_batch(16, 64), 2, 13, arguments.repeats
    steps = epochs * length
    model = build_model(spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    losses = {name: HeadLoss("dice") for name in spec["heads"]}

    def bare() -> float:
        model.train()
        began = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            logits = model(batch["image"])
            sum(loss(logits[name], batch["mask"][name]) for name, loss in losses.items()).backward()
            optimizer.step()
        return (time.process_time() - began) / steps

    class Clock(Callback):
        began = ended = 0.0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.began = time.process_time()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.ended = time.process_time()

    def through_lightning() -> float:
        task, clock = MultiHeadTask(spec["heads"], model, lr=1e-4), Clock()
        trainer = Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[clock],
        )  # fmt: skip
        loader: Any = DataLoader(cast(Any, [batch] * length), batch_size=None)
        # batches that are there already, so that the loader does not count
        trainer.fit(task, train_dataloaders=loader)
        return (clock.ended - clock.began) / steps

    bare()
    pairs = [(bare(), through_lightning()) for _ in range(rounds)]  # in turn, so that both see the same machine
    plain, full = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"step, CPU seconds, median of {rounds}: bare {plain * 1e3:.0f} ms, MultiHeadTask {full * 1e3:.0f} ms: "
        f"{100 * (full / plain - 1):+.1f} %"
    )


def bench_forward(arguments: argparse.Namespace) -> None:
    import torch

    from cityheads.model.builder import build_model

    channels = [512, 256, 128, 64]
    models = {
        heads: build_model(make_spec("terramind_v1_base", heads, channels)).eval()
        for heads in (("lulc", "buildings"), ("lulc",), ("buildings",))
    }
    images = make_batch(1, arguments.px)["image"]
    times: dict[tuple[str, ...], list[float]] = {heads: [] for heads in models}
    with torch.inference_mode():
        for _ in range(arguments.repeats + 1):
            for heads, model in models.items():
                began = time.perf_counter()
                model(images)
                times[heads].append(time.perf_counter() - began)
    both, *single = (statistics.median(values[1:]) for values in times.values())
    print(
        f"forward base {arguments.px} px: two heads {both:.2f} s, two models {sum(single):.2f} s: "
        f"{both / sum(single):.2f} of the time"
    )


def bench_memory(arguments: argparse.Namespace) -> None:
    import torch

    from cityheads.model.backbones.tuning import checkpoint_blocks
    from cityheads.model.builder import build_model

    for checkpointing in (False, True):
        model = build_model(make_spec("terramind_v1_base", ("lulc", "buildings"), [512, 256, 128, 64]))
        if checkpointing:
            checkpoint_blocks(model.encoder)
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            began = time.perf_counter()
            logits = model(make_batch(2, 224)["image"])
            total = sum(value for key, value in kept.items() if key not in parameters)
            torch.stack([value.mean() for value in logits.values()]).sum().backward()
        print(
            f"memory base 224 px, 2 chips, gradient checkpointing {checkpointing}: {total / 2**20:.0f} MiB "
            f"of activations kept, {time.perf_counter() - began:.1f} s forward and backward"
        )


def bench_tim(arguments: argparse.Namespace) -> None:
    import torch

    from cityheads.model.builder import build_model

    for size in ("tiny", "base"):
        models = {}
        for backbone in (f"terramind_v1_{size}", f"terramind_v1_{size}_tim"):
            models[backbone] = build_model(make_spec(backbone, ("lulc",), [64, 32, 16, 8]))
        batch = make_batch(4, 224)["image"]
        seconds: dict[tuple[str, bool], list[float]] = {}
        for _ in range(arguments.repeats + 1):
            for backbone, model in models.items():
                for backward in (False, True):
                    with torch.set_grad_enabled(backward):
                        began = time.process_time()
                        inputs = model._inputs(batch, ())
                        total = torch.stack([tokens.mean() for tokens in model._layers(inputs)]).sum()
                        if backward:
                            total.backward()
                    seconds.setdefault((backbone, backward), []).append(time.process_time() - began)
        for backbone, model in models.items():
            forward, both = (statistics.median(seconds[backbone, backward][1:]) for backward in (False, True))
            encoder = list(model.encoder.parameters())
            print(
                f"tim {backbone}: {sum(p.numel() for p in encoder) / 1e6:.1f} M parameters, "
                f"{sum(p.numel() for p in encoder if p.requires_grad) / 1e6:.1f} M of them trained; "
                f"forward {forward:.2f} s, with backward {both:.2f} s (CPU)"
            )


def reached_flops(work: Callable[[], Any], floating: float) -> float:
    """Give the arithmetic operations a second that repeated work reaches."""
    return floating / median_s(work, 20)


def bench_cuda(arguments: argparse.Namespace) -> None:
    import torch

    if not torch.cuda.is_available():
        print("cuda: no device")
        return
    from torch.utils.flop_counter import FlopCounterMode

    from cityheads.model.builder import build_model
    from cityheads.model.losses import HeadLoss

    side = 8192
    factors = torch.randn(2, side, side, device="cuda", dtype=torch.bfloat16)

    def product() -> None:
        torch.matmul(*factors)
        torch.cuda.synchronize()

    peak = reached_flops(product, 2.0 * side**3)
    print(f"{torch.cuda.get_device_name()}: a bf16 matrix product of {side} x {side} reaches {peak / 1e12:.0f} TFLOP/s")
    for backbone in ("terramind_v1_tiny", "terramind_v1_base"):
        for compiled in (False, True):
            model = build_model(make_spec(backbone, ("lulc", "buildings"), [512, 256, 128, 64])).cuda()
            if compiled:
                model.compile()
            batch, losses = make_batch(16, 224, "cuda"), {name: HeadLoss("dice").cuda() for name in CLASSES}
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

            def step(model: Any = model, batch: Any = batch, losses: Any = losses, optimizer: Any = optimizer) -> None:
                with torch.autocast("cuda", torch.bfloat16):
                    logits = model(batch["image"])
                    total = torch.stack([loss(logits[name], batch["mask"][name]) for name, loss in losses.items()])
                optimizer.zero_grad()
                total.sum().backward()
                optimizer.step()
                torch.cuda.synchronize()

            # counted on the plain model, whose operations are the same
            if not compiled:
                with FlopCounterMode(display=False) as counter:
                    step()
                floating = counter.get_total_flops()
            torch.cuda.reset_peak_memory_stats()
            seconds = median_s(step, 20)
            rate = 16 / seconds
            print(
                f"{backbone} 224 px bf16 compile {compiled}: {rate:.0f} samples/s, "
                f"{floating / seconds / peak:.1%} of that product's arithmetic, "
                f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, "
                f"{30 * 224 / rate:.0f} s for 224 chips x 30 epochs"
            )


if __name__ == "__main__":
    main()
