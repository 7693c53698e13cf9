"""What every verb gives on the tiny DAG, as a file that is committed: `golden.json`.

    python tests/e2e/golden.py RESULTS      write it from the results of a tiny run

A file counts as its bytes, without what tells only when, where or by which version it was made. Where the machine has
another CPU, whose vector instructions may round otherwise, it counts as its structure and as the size and spread of
its numbers; what floating point moves anywhere (trainings, scores, pictures) always does.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config.controls import UNTRAINED
from cityheads.core.classes import CLOUD_MASK, mask_layer
from cityheads.core.layout import Layout
from cityheads.verbs import VERBS

GOLDEN = Path(__file__).with_name("golden.json")

WRITE = "write the golden values: python tests/e2e/golden.py RESULTS"

#: Keys that tell how and when a file was made.
PROVENANCE = {
    "versions",
    "environment",
    "created",
    "generated",
    "seconds",
    "revision",
    "peak_mb",
    "wall_s",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "cpu_energy_j",
    "inference_chips_per_s",
    "duration_s",
}

#: Verbs whose numbers come from a training: how far they may lie apart, relatively.
LOOSE = {"train": 0.02, "evaluate": 0.02, "compare": 0.05, "draw_figures": 0.1, "report": math.inf, "publish": 0.05}


def files(results: Path, labels: dict[str, str], modalities: list[str]) -> dict[str, dict[str, list[Path]]]:
    """List the files of each verb, in groups.

    Args:
        results: Results folder of a finished tiny run.
        labels: Kind of each label.
        modalities: Modalities that are read.
    """
    at = Layout(results)
    masks = {
        kind: [mask_layer(name) for name, found in labels.items() if found == kind] for kind in set(labels.values())
    }

    def under(folder: Path, pattern: str = "*") -> list[Path]:
        return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))

    def layers(names: list[str]) -> dict[str, list[Path]]:
        found = {f"chips/{name}": under(at.chips / name) for name in names}
        return found | {f"parents/*/{name}.tif": under(at.parents, f"*/{name}.tif") for name in names}

    read = [*modalities, "SCL"]
    evaluated = under(at.evaluations, "*/*/*/*/metrics.json")
    controls = [path for path in evaluated if path.parts[-4] in UNTRAINED]
    return {
        "simulate_archive": {"archive": under(at.archive.root, "**/*")},
        "select_scenes": {"scenes": under(at.scenes)},
        "read_parent": {f"parents/*/{name}.tif": under(at.parents, f"*/{name}.tif") for name in read}
        | {"parents/*/reading.json": under(at.parents, "*/reading.json")},
        "slice_parent": {f"chips/{name}": under(at.chips / name) for name in [*modalities, CLOUD_MASK]}
        | {"quality": under(at.quality)},
        "prepare_footprints": {
            name: under(at.label(name).root) for name, kind in labels.items() if kind == "footprints"
        },
        "rasterize_landcover": layers(masks["landcover"]),
        "rasterize_buildings": layers(masks["footprints"]),
        "rasterize_layer": layers(masks["vector"]),
        "pack_store": {str(path.relative_to(results)): [path] for path in under(at.store.root)},
        "assign_splits": {"dataset/assignment.json": [at.assignment]},
        "assemble_dataset": {str(path.relative_to(results)): [path] for path in under(at.dataset(0).root)},
        "check_labels": {"labels/check.json": [at.label_check]},
        "publish_catalog": {"stac": under(at.stac.parent, "**/*.json")},
        "train": {
            **{
                f"runs/{name}": under(at.runs, f"*/*/*/{name}")
                for name in ("model.json", "training.json", "history.csv")
            }
        },
        "evaluate": {"evaluation/metrics.json": [one for one in evaluated if one not in controls]},
        "evaluate_control": {"evaluation/metrics.json": controls},
        "compare": {"gate.json": [at.gate], "verdict.md": [at.verdict_page]},
        "draw_figures": {path.name: [path] for path in under(at.figures) if path.stem != "timings"},
        "report": {"report.html": [at.report]},
        "publish": {path.name: [path] for path in under(at.bundle.root) if path.suffix not in (".safetensors", "")},
    }


def describe(verb: str, paths: list[Path], root: Path) -> dict[str, Any]:
    """Give hash, structure and numbers of a group of files."""
    digest, skeleton, numbers = hashlib.sha256(), hashlib.sha256(), []
    for path in paths:
        name = str(path.relative_to(root)).encode()
        digest.update(name)
        skeleton.update(name)
        content, structure, values = parts(path, verb, root)
        digest.update(content)
        skeleton.update(structure)
        numbers += values
    array = np.array(numbers or [0.0], float)
    return {
        "files": len(paths),
        "sha256": digest.hexdigest()[:16],
        "structure": skeleton.hexdigest()[:16],
        "numbers": [len(numbers), float(f"{np.abs(array).mean():.6g}"), float(f"{array.std():.6g}")],
    }


def parts(path: Path, verb: str, root: Path) -> tuple[bytes, bytes, list[float]]:
    """Give the bytes, the structure and the numbers of one file."""
    if path.suffix == ".json" or path.suffix == ".geojson":
        return of_value(json.loads(path.read_text().replace(str(root), "RESULTS")), verb in LOOSE)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        rows = [
            {key: value.hex() if isinstance(value, bytes) else str(value) if key == "last_edited" else value
             for key, value in row.items()}
            for row in table.to_pylist()
        ]  # fmt: skip
        return of_value(rows)
    if path.suffix in (".tif", ".tiff", ".npy"):
        array = np.load(path) if path.suffix == ".npy" else raster(path)
        known = array[np.isfinite(array)].astype(float)
        facts = f"{array.dtype} {array.shape} {known.size}".encode()
        return path.read_bytes(), facts, [float(known.mean()), float(known.std())] if known.size else []
    if path.suffix == ".csv":
        table_rows = list(csv.DictReader(io.StringIO(path.read_text())))
        values = [{key: float(cell) if cell else None for key, cell in row.items()} for row in table_rows]
        return of_value([{key: cell for key, cell in row.items() if key not in PROVENANCE} for row in values])
    if path.suffix == ".png":
        return b"", b"", thumbnail(path)
    try:
        text = path.read_text().replace(str(root), "RESULTS")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: golden.py does not know what is in it") from None
    if verb in LOOSE:
        # words count; numbers, times and pictures do not
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "PICTURE", text)
        text = masked(re.sub(r"<svg.*?</svg>", "PICTURE", text, flags=re.DOTALL))
        return text.encode(), text.encode(), []
    return text.encode(), text.encode(), []


def masked(text: str) -> str:
    """Give a text without its numbers, hashes, times and memory sizes."""
    text = re.sub(r"(\d+(\.\d+)? ?(ms|s|min|h)\b ?)+", "TIME ", text)
    text = re.sub(r"n/a|[\d,.]+ MB", "SIZE", text)
    # a checkout with changes says so beside its revision
    text = text.replace("-dirty", "")
    return " ".join(re.sub(r"[-+\u2212]?[0-9a-f]*\d[0-9a-f.,]*", "#", text).split())


def of_value(value: Any, loose: bool = False) -> tuple[bytes, bytes, list[float]]:
    """Split a JSON value into all of it, its structure with texts, and its numbers; provenance is left out.

    Args:
        value: The value.
        loose: Whether numbers within texts are left out of the structure too.
    """
    numbers: list[float] = []

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: walk(inner) for key, inner in item.items() if key not in PROVENANCE}
        if isinstance(item, list):
            return [walk(inner) for inner in item]
        if item is None and loose:
            # a score of few pixels that is undefined here may be defined on another machine
            return "number"
        if isinstance(item, bool) or item is None:
            return item
        if isinstance(item, int | float):
            if math.isfinite(item):
                numbers.append(float(item))
            return "number"
        return "hash" if re.fullmatch(r"[0-9a-f]{16,}", item) else masked(item) if loose else item

    def drop(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: drop(inner) for key, inner in item.items() if key not in PROVENANCE}
        return [drop(inner) for inner in item] if isinstance(item, list) else item

    structure = json.dumps(walk(value), sort_keys=True)
    return json.dumps(drop(value), sort_keys=True).encode(), structure.encode(), numbers


def raster(path: Path) -> np.ndarray:
    """Read all bands of a GeoTIFF."""
    import rasterio

    with rasterio.open(path) as source:
        found: np.ndarray = source.read()
        return found


def thumbnail(path: Path) -> list[float]:
    """Give the mean brightness of 8 x 8 fields of a picture."""
    from matplotlib.image import imread

    grey = imread(path)[..., :3].mean(axis=2)
    return [
        float(field.mean()) for band in np.array_split(grey, 8, axis=0) for field in np.array_split(band, 8, axis=1)
    ]


def cpu() -> str:
    """Name the vector instructions that numpy uses here."""
    found: Any = np.show_config(mode="dicts")
    return " ".join(found["SIMD Extensions"].get("found", []))


def take(results: Path) -> dict[str, Any]:
    """Describe all verbs of a finished tiny run."""
    from cityheads.config import load_config

    config = load_config(Layout(results).config)
    kinds = {name: label.kind for name, label in config.labels.items()}
    found = files(results, kinds, list(config.archive.imagery.names))
    return {
        "cpu": cpu(),
        "verbs": {
            verb: {
                "version": VERBS[verb].version,
                "groups": {name: describe(verb, paths, results) for name, paths in groups.items()},
            }
            for verb, groups in found.items()
        },
    }


def differences(golden: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Say, per verb, what must be done about results that are not the golden ones."""
    exact = golden["cpu"] == found["cpu"]
    for verb, now in found["verbs"].items():
        then = golden["verbs"].get(verb)
        if then is None or then["version"] != now["version"]:
            yield f"{verb}: golden.json does not know version {now['version']}; {WRITE}"
            continue
        moved = sorted(
            name
            for name in {*then["groups"], *now["groups"]}
            if not same(then["groups"].get(name), now["groups"].get(name), LOOSE.get(verb, 0.0 if exact else 1e-3))
        )
        if moved:
            yield (
                f"{verb}: its results changed ({', '.join(moved)}). If that is meant, raise version={now['version']} "
                f'of "{verb}" in src/cityheads/verbs.py by one, so that the workflow makes them again, and {WRITE}'
            )


def same(then: dict[str, Any] | None, now: dict[str, Any] | None, tolerance: float) -> bool:
    """Compare two descriptions of a group."""
    if then is None or now is None:
        return False
    if tolerance == 0:
        return bool(then["sha256"] == now["sha256"])
    if (then["files"], then["structure"]) != (now["files"], now["structure"]):
        return False
    return all(
        math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9)
        for a, b in zip(then["numbers"], now["numbers"], strict=True)
    )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(take(Path(sys.argv[1]).resolve()), indent=1) + "\n")
    print(f"wrote {GOLDEN}")
