"""What TerraMind's tokenizers keep of a sub-chip: pixels to tokens and back."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes, write_json
from cityheads.core.grid import Grid, Parent, parent_geobox
from cityheads.core.layout import DatasetFolder
from cityheads.core.modalities import MODALITIES, Modality
from cityheads.core.raster import write_raster
from cityheads.dataset.store import ChipStore
from cityheads.model.arithmetic import fixed_arithmetic
from cityheads.model.synthesis import cut, in_units, load_tokenizer, padded, paint, standardised, valid

__all__ = ["compare_pixels", "reconstruct"]

log = logging.getLogger(__name__)

#: Threads of the arithmetic; the last bits depend on their number.
_THREADS = 2


def reconstruct(
    *,
    dataset: Path,
    chip: str,
    modality: str,
    out: Path,
    weights: Path | None = None,
    pretrained: bool = False,
    steps: int = 10,
    seed: int = 0,
) -> None:
    """Encode a stored sub-chip as tokens, decode them, and measure what was lost.

    Writes ``tokens.npy`` (h, w) int32, ``{MODALITY}.tif`` on the sub-chip's grid in stored units, and, last,
    ``reconstruction.json``.

    Args:
        dataset: Folder of the assembled dataset.
        chip: Id of a kept sub-chip.
        modality: A stored modality that TerraMind has a tokenizer of.
        out: Folder for the result.
        weights: Checkpoint of the tokenizer.
        pretrained: Take the published weights. With neither, the weights are random and the result is noise.
        steps: Diffusion steps.
        seed: Seed of the diffusion's first noise and of random weights.

    Raises:
        CityHeadsError: The sub-chip or the modality is not there, or weights are missing or not complete.
    """
    if not 1 <= steps <= 1000:
        raise CityHeadsError(f"--steps {steps}: take from 1 to 1000 diffusion steps")
    if seed < 0:
        raise CityHeadsError(f"--seed {seed}: a seed is not below 0")
    if weights and pretrained:
        raise CityHeadsError("--weights and --pretrained: give one of them")
    store = ChipStore(dataset)
    if chip not in store.chips:
        raise CityHeadsError(f"--chip {chip}: {dataset} has no such kept sub-chip")
    if modality not in MODALITIES:
        raise CityHeadsError(f"--modality {modality}: TerraMind has no tokenizer of it; see {', '.join(MODALITIES)}")
    what = MODALITIES[modality]
    original = np.array(store.array(modality)[store.chips.index(chip)])
    tokenizer, origin = load_tokenizer(
        modality, weights, pretrained=pretrained, seed=seed, asked="--pretrained", instead="name a file in --weights"
    )
    size = original.shape[-1]
    with fixed_arithmetic(_THREADS), torch.no_grad():
        tokens = tokenizer.tokenize(padded(standardised(original, what)))
        decoded = cut(paint(tokenizer, tokens, steps=steps, seed=seed), size)
    result = in_units(decoded[0].numpy(), what)
    known = valid(original, what)
    result[~known] = what.nodata
    found = tokens[0].numpy().astype(np.int32)
    buffer = io.BytesIO()
    np.save(buffer, found)
    write_bytes(out / "tokens.npy", buffer.getvalue())
    write_raster(
        out / f"{modality}.tif",
        result,
        _geobox(Path(dataset), chip),
        nodata=what.nodata,
        bands=what.bands,
        tags={"unit": what.unit, "chip_id": chip, "reconstructed": "true", "trained": str(origin is not None).lower()},
    )
    name = f"terramind_v1_tokenizer_{modality.lower()}"
    write_json(
        out / "reconstruction.json",
        {
            "format_version": 1,
            "chip_id": chip,
            "modality": modality,
            "tokenizer": name if origin is not None else f"untrained tokenizer ({name})",
            "trained": origin is not None,
            "weights": origin,
            "steps": steps,
            "seed": seed,
            "tokens": {
                "shape": list(found.shape),
                "used": len(np.unique(found)),
                "codebook": int(tokenizer.quantize.codebook_size),
            },
            "bands": compare_pixels(original, result, what),
        },
    )
    if origin is None:
        log.warning("%s: the tokenizer is untrained; give --pretrained or --weights", chip)


def compare_pixels(original: np.ndarray, result: np.ndarray, modality: Modality) -> dict[str, dict[str, float | None]]:
    """Measure a reconstruction band by band, over the pixels that have data.

    Args:
        original: (C, H, W) in stored units.
        result: The same, decoded.
        modality: What they are.

    Returns:
        Per band ``mae`` and ``rmse`` in stored units, and ``psnr_db``, 20 log10 of the original's range over the RMSE;
        None where it is undefined: without data, for a band of one value, or for an exact reconstruction.
    """
    known = valid(original, modality)
    found: dict[str, dict[str, float | None]] = {}
    for band, before, after, where in zip(modality.bands, original, result, known, strict=True):
        entry: dict[str, float | None] = {"mae": None, "rmse": None, "psnr_db": None}
        if where.any():
            truth = before[where].astype(np.float64)
            difference = after[where].astype(np.float64) - truth
            rmse = float(np.sqrt((difference**2).mean()))
            spread = float(truth.max() - truth.min())
            entry["mae"], entry["rmse"] = round(float(np.abs(difference).mean()), 6), round(rmse, 6)
            if rmse > 0 and spread > 0:
                entry["psnr_db"] = round(float(20 * np.log10(spread / rmse)), 4)
        found[band] = entry
    return found


def _geobox(dataset: Path, chip: str) -> Any:
    columns = ("chip_id", "epsg", "left", "top", "chip_px", "resolution_m")
    rows = CHIPS.read(DatasetFolder(dataset).chips, columns)
    row = next(row for row in rows if row["chip_id"] == chip)
    place = Parent(chip, row["epsg"], row["left"], row["top"])
    return parent_geobox(place, Grid(row["resolution_m"], row["chip_px"], 1))
