"""The ceiling: what a model that knew the simulated world exactly would score against its faulty labels.

A simulated archive holds two descriptions of the same city: labels with the errors of real ones, and the truth. The
truth is brought onto the sub-chips by the same functions as the labels, so that all that is left between the two are
the planted errors. No model can be expected to score higher, and one that scores near it has found what there is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

from cityheads.archive.warp import Target
from cityheads.config import Config, FootprintsLabel, LandcoverLabel
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent, find_parent, read_parents, subchips
from cityheads.core.layout import ArchiveFolder
from cityheads.labels.footprints import building_mask, buildings_of
from cityheads.labels.landcover import code_table, map_codes, sample_nearest
from cityheads.labels.preparation import prepare_footprints

__all__ = ["true_masks"]


def true_masks(config: Config, label: str, archive: Path, sheet: Path, parents: Sequence[str]) -> dict[str, np.ndarray]:
    """Rasterize the truth of one label layer.

    Args:
        config: Its sections ``grid`` and ``labels``.
        label: A label layer of the simulated archive's own land cover or footprints.
        archive: Folder of the simulated archive.
        sheet: Parent sheet.
        parents: Ids of the wanted parents.

    Returns:
        (h, w) uint8 class ids per sub-chip id, for all sub-chips of these parents. Where the truth has no class, as
        where the label ignores a code of the product, it is 0.

    Raises:
        CityHeadsError: The archive holds no truth, a parent is not in the sheet, or a code has no class.
    """
    grid, section = config.grid.grid, config.labels[label]
    rows = read_parents(sheet, grid)
    wanted = [find_parent(rows, parent, sheet) for parent in parents]
    if isinstance(section, LandcoverLabel):
        masks = [_cover(section, ArchiveFolder(archive), row, Target.of_parent(row, grid)) for row in wanted]
    else:
        assert isinstance(section, FootprintsLabel), "Config.ceiling_heads names no others"
        masks = _buildings(config, label, section, ArchiveFolder(archive), sheet, wanted)
    return {
        piece.chip_id: mask[piece.row_slice, piece.col_slice]
        for row, mask in zip(wanted, masks, strict=True)
        for piece in subchips(row, grid)
    }


def _cover(section: LandcoverLabel, archive: ArchiveFolder, parent: Parent, target: Target) -> np.ndarray:
    """Give the true classes of one parent, (H, W) uint8."""
    path = archive.truth.cover(parent.parent_id)
    _must_be_there(path)
    with rasterio.open(path) as source:
        codes, valid = sample_nearest(source, target)
    classes = np.zeros(target.shape, np.uint8)
    table = code_table([item.codes for item in section.classes], section.ignore_codes)
    classes[valid] = map_codes(codes[valid], table, path.name)
    return np.where(classes < len(section.classes), classes, 0).astype(np.uint8)


def _buildings(
    config: Config, label: str, section: FootprintsLabel, archive: ArchiveFolder, sheet: Path, parents: Sequence[Parent]
) -> list[np.ndarray]:
    """Give the true buildings of some parents, (H, W) uint8 each, cleaned and rasterized by the label's own rule."""
    _must_be_there(archive.truth.footprints)
    grid = config.grid.grid
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "footprints.parquet"
        prepare_footprints(
            config,
            parents=sheet,
            label=label,
            source=archive.truth.footprints,
            boundary=archive.boundary,
            out=prepared,
            boundary_out=Path(scratch) / "boundary.parquet",
            summary=Path(scratch) / "summary.json",
        )
        masks = []
        for parent in parents:
            target = Target.of_parent(parent, grid)
            everywhere = np.ones(target.shape, bool)
            polygons = buildings_of(prepared, parent, grid).buildings
            masks.append(building_mask(polygons, everywhere, target, section.rule, section.area_threshold))
    return masks


def _must_be_there(path: Path) -> None:
    if not path.is_file():
        raise CityHeadsError(
            f"{path}: no such file; the archive has no truth; run: snakemake --forcerun simulate_archive"
        )
