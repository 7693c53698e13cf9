"""Measure what the full-resolution decoder buys over the UNet decoder that it extends: one Markdown table.

    python benchmarks/bench_decoder.py [--dataset FOLDER] [--config YAML] [--seeds 0 1] [--epochs N]

The multi-head run is trained and evaluated through the verbs `train` and `evaluate`, once per decoder and seed, all
else alike; the scores are those of the held-out parents. Without ``--dataset`` the default simulated dataset is made
first, with Snakemake in a folder that is removed at the end. *Near edges* counts only the pixels within 2 px of a
building's edge: where an interpolated map is wrong first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
DECODERS: dict[str, dict[str, Any]] = {
    "`UNetDecoder`": {"decoder": "UNetDecoder"},
    "`FullResolutionDecoder`, `stages: 1`": {"decoder": "FullResolutionDecoder", "decoder_args": {"stages": 1}},
    "`FullResolutionDecoder`, `stages: 2`": {"decoder": "FullResolutionDecoder", "decoder_args": {"stages": 2}},
}
#: Half of the window around an edge, in pixels.
NEAR_PX = 2


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="folder of an assembled dataset, such as results/dataset")
    parser.add_argument(
        "--config", type=Path, default=ROOT / "config" / "config.yaml", help="config that it belongs to"
    )
    parser.add_argument("--run", default="multihead", help="run of the config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, help="epochs of each training; the config's by default")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="cityheads-bench-"))
    try:
        dataset = arguments.dataset or make_dataset(place, arguments.config, arguments.cores)
        rows = {label: measure(label, change, dataset, place, arguments) for label, change in DECODERS.items()}
    finally:
        shutil.rmtree(place)
    seeds = len(arguments.seeds)
    print(f"\n{seeds} seeds, mean (lowest to highest)\n")
    print("| decoder of both heads | land cover mIoU | buildings IoU | buildings IoU near edges | parameters | "
          "seconds a training |\n|---|---|---|---|---|---|")  # fmt: skip
    for label, found in rows.items():
        cells = [spread(found[name]) for name in ("lulc", "buildings", "near")]
        print(f"| {label} | {' | '.join(cells)} | {found['parameters'][0] / 1e6:.2f} M | {np.mean(found['s']):.0f} |")


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def call(*command: str | Path) -> None:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def make_dataset(place: Path, config: Path, cores: int) -> Path:
    """Assemble the dataset of a config in a scratch folder."""
    shutil.copytree(ROOT / "config", place / "config")
    call(
        BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", place, "--configfile", config.resolve(),
        "--workflow-profile", ROOT / "profiles/default", "--cores", str(cores), "dataset",
    )  # fmt: skip
    return place / "results" / "dataset" / "0"


def measure(
    label: str, change: dict[str, Any], dataset: Path, place: Path, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Train and evaluate one decoder with every seed."""
    config = yaml.safe_load(arguments.config.read_text())
    for head in config["runs"][arguments.run]["heads"]:
        kept = {name: value for name, value in config["heads"][head].items() if not name.startswith("decoder")}
        config["heads"][head] = kept | change
    if arguments.epochs:
        config["train"]["epochs"] = arguments.epochs
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    found: dict[str, list[float]] = {name: [] for name in ("lulc", "buildings", "near", "parameters", "s")}
    for seed in arguments.seeds:
        run, out = place / "run" / str(seed), place / "evaluation" / str(seed)
        common = ["--config", path, "--run", arguments.run, "--fold", "0", "--seed", str(seed), "--dataset", dataset]
        began = time.perf_counter()
        call(BIN / "cityheads", "train", *common, "--out", run)
        found["s"].append(time.perf_counter() - began)
        call(BIN / "cityheads", "evaluate", *common, "--run-dir", run, "--out", out)
        heads = json.loads((out / "metrics.json").read_text())["heads"]
        found["lulc"].append(heads["lulc"]["metric"]["value"])
        found["buildings"].append(heads["buildings"]["metric"]["value"])
        found["near"].append(iou_near_edges(dataset, out, heads["buildings"]["label"]))
        found["parameters"].append(json.loads((run / "training.json").read_text())["parameters"]["total"])
        print(f"{label}, seed {seed}: " + ", ".join(f"{name} {values[-1]:.4g}" for name, values in found.items()),
              file=sys.stderr, flush=True)  # fmt: skip
        shutil.rmtree(run)
        shutil.rmtree(out)
    return found


def iou_near_edges(dataset: Path, evaluation: Path, label: str) -> float:
    """Give the IoU of buildings over the labelled pixels that have both classes in the window around them."""
    import torch
    import torch.nn.functional as F

    store = json.loads((dataset.parent / "store" / "index.json").read_text())["chips"]
    chips = json.loads((evaluation / "predictions" / "index.json").read_text())["chips"]
    position = {chip: index for index, chip in enumerate(store)}
    truth = np.load(dataset.parent / "store" / f"MASK_{label}.npy")[[position[chip] for chip in chips]]
    predicted = np.load(evaluation / "predictions" / "buildings.npy") == 1
    known, built = truth != 255, truth == 1

    def grown(mask: np.ndarray) -> np.ndarray:
        window = F.max_pool2d(torch.from_numpy(mask).float()[:, None], 2 * NEAR_PX + 1, stride=1, padding=NEAR_PX)
        near: np.ndarray = window[:, 0].numpy() > 0
        return near

    near = grown(built) & grown(known & ~built) & known
    return float((built & predicted & near).sum() / ((built | predicted) & near).sum())


if __name__ == "__main__":
    main()
