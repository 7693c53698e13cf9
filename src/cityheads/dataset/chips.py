"""Sub-chips: cut the parents, and measure what is in each piece."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config, QualityConfig
from cityheads.core.artifacts.quality import QUALITY, ChipQuality
from cityheads.core.classes import CLOUD_MASK
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import find_parent, parent_geobox, read_parents, subchips
from cityheads.core.layout import ParentFolder, chip_file
from cityheads.core.modalities import MODALITIES, SCL_CLEAR, SCL_NODATA, Modality
from cityheads.core.raster import read_raster, write_raster
from cityheads.dataset.cloud_mask import HIDDEN, cloud_mask

__all__ = ["clear_fraction", "in_range_fraction", "slice_parent", "valid_mask"]

log = logging.getLogger(__name__)


def valid_mask(array: np.ndarray, modality: Modality) -> np.ndarray:
    """Say which pixels hold data in every band.

    Args:
        array: (C, H, W) in the modality's stored dtype and nodata.
        modality: What the array is.

    Returns:
        (H, W) bool.
    """
    missing = ~np.isfinite(array) if np.isnan(modality.nodata) else array == modality.nodata
    return ~missing.any(axis=0)


def in_range_fraction(array: np.ndarray, modality: Modality) -> float | None:
    """Give the share of stored values within physical limits, over all bands; None where there is no data.

    Args:
        array: (C, H, W) in the modality's stored dtype and nodata.
        modality: What the array is.
    """
    data = array[np.isfinite(array)] if np.isnan(modality.nodata) else array[array != modality.nodata]
    if not data.size:
        return None
    return float(((data >= modality.valid_min) & (data <= modality.valid_max)).mean())


def clear_fraction(scl: np.ndarray) -> float:
    """Give the share of classified pixels that are clear ground; 0 where none is classified.

    Args:
        scl: Scene classification codes of Sentinel-2 L2A, any shape, uint8, nodata 0.
    """
    known = scl != SCL_NODATA
    if not known.any():
        return 0.0
    return float(np.isin(scl[known], sorted(SCL_CLEAR)).mean())


def slice_parent(config: Config, *, parents: Path, parent: str, parent_dir: Path, chips: Path, out: Path) -> None:
    """Cut one parent's rasters into sub-chips and write the quality of each.

    All sub-chips are written, so that what was dropped can still be looked at; which are kept is said in ``out`` and
    later in the chip table.

    Args:
        config: Config with sections ``grid``, ``quality`` and ``archive.imagery``.
        parents: Parent sheet.
        parent: Parent id.
        parent_dir: Folder with the parent's ``{MODALITY}.tif`` and, where the archive has them, ``SCL.tif`` and
            ``CLD.tif``.
        chips: Folder that takes ``{MODALITY}/{chip}.tif`` and ``CLOUDMASK/{chip}.tif``.
        out: Quality file (JSON), written last.

    Raises:
        CityHeadsError: A raster is missing, unreadable, or not on the parent's grid.
    """
    grid = config.grid.grid
    row = find_parent(read_parents(parents, grid), parent, parents)
    imagery = config.archive.imagery
    geobox = parent_geobox(row, grid)
    pieces = subchips(row, grid)
    rasters = ParentFolder(parent_dir)
    layers: dict[str, np.ndarray] = {}
    for name in imagery.names:
        layers[name] = _read_on(rasters.raster(name), geobox)
    scl = None
    if imagery.s2.scl_asset is not None:
        scl = _read_on(rasters.raster("SCL"), geobox)[0]
    probability = None
    if imagery.s2.cloud_asset is not None:
        probability = _read_on(rasters.raster("CLD"), geobox)[0]
    seen = valid_mask(layers["S2L2A"], MODALITIES["S2L2A"])
    hidden = cloud_mask(config.quality.cloud_mask, seen, scl, probability, grid.resolution_m)
    values = ";".join(f"{value}={reason}" for reason, value in HIDDEN.items())

    quality: list[ChipQuality] = []
    for piece in pieces:
        valid: dict[str, float] = {}
        in_range: dict[str, float | None] = {}
        for name, array in layers.items():
            modality = MODALITIES[name]
            cut = array[:, piece.row_slice, piece.col_slice]
            valid[name] = float(valid_mask(cut, modality).mean())
            in_range[name] = in_range_fraction(cut, modality)
            write_raster(
                chip_file(chips, name, piece.chip_id),
                cut,
                piece.geobox,
                nodata=modality.nodata,
                bands=modality.bands,
                tags={"unit": modality.unit, "parent_id": parent},
            )
        own = hidden[piece.row_slice, piece.col_slice]
        write_raster(
            chip_file(chips, CLOUD_MASK, piece.chip_id),
            own,
            piece.geobox,
            nodata=None,
            bands=[CLOUD_MASK],
            tags={"values": f"0=ground is seen;{values}", "parent_id": parent},
        )
        clear = None if scl is None else clear_fraction(scl[piece.row_slice, piece.col_slice])
        quality.append(
            {
                "chip_id": piece.chip_id,
                "row": piece.row,
                "col": piece.col,
                "valid_fraction": valid,
                "in_range_fraction": in_range,
                "clear_fraction": clear,
                "hidden_fraction": {reason: float((own == value).mean()) for reason, value in HIDDEN.items()},
                "reasons": _reasons(valid, in_range, clear, config.quality),
            }
        )
    QUALITY.write(out, {"parent_id": parent, "chips": quality})
    dropped = sum(bool(chip["reasons"]) for chip in quality)
    log.info("%s: %d sub-chips, %d below the quality thresholds", parent, len(quality), dropped)


def _read_on(path: Path, geobox: Any) -> np.ndarray:
    array, found = read_raster(path)
    same = found.shape == geobox.shape and found.crs == geobox.crs
    # GeoTIFF keeps the transform in doubles, but catalogues round origins at the ninth decimal
    if not same or not np.allclose(tuple(found.transform), tuple(geobox.transform), rtol=0, atol=1e-6):
        raise CityHeadsError(f"{path}: not on the parent's grid; delete it and run again")
    return array


def _reasons(
    valid: dict[str, float], in_range: dict[str, float | None], clear: float | None, quality: QualityConfig
) -> list[str]:
    """Say why a sub-chip is dropped, worst kind of fault first; empty for one that is kept."""
    reasons = [
        f"{name} has too many missing pixels" for name, share in valid.items() if share < quality.min_valid_fraction
    ]
    reasons += [
        f"{name} has too many impossible values"
        for name, share in in_range.items()
        if share is not None and share < quality.min_in_range_fraction
    ]
    if clear is not None and clear < quality.min_clear_fraction:
        reasons.append("too cloudy")
    return reasons
