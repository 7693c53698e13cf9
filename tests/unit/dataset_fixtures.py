"""A small dataset made of six parents with clouds, a swath's edge and unsurveyed sea, for the tests of the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from config_fixtures import make_config
from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.config import Config
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.grid import Parent, parent_geobox, read_parents, subchips
from cityheads.core.layout import DatasetFolder
from cityheads.core.modalities import MODALITIES
from cityheads.core.raster import write_raster
from cityheads.dataset.assemble import assemble_dataset, assign_splits
from cityheads.dataset.chips import slice_parent
from cityheads.dataset.pack import pack_store
from cityheads.verbs import VERBS

#: Scratch folder, and per parent and layer the pixels (C, H, W) that were written there.
Made = tuple[Path, dict[str, dict[str, np.ndarray]]]

CITY: dict[str, Any] = {
    "archive": {"provider": "simulated"},
    "grid": {"parent_px": 64, "chips_per_side": 4},
    "labels": {
        "LULC": {
            "kind": "landcover",
            "classes": [
                {"name": name, "color": "#000000", "codes": [number + 1]}
                for number, name in enumerate(("water", "developed", "forest"))
            ],
        },
        "BUILDINGS": {
            "kind": "footprints",
            "classes": [{"name": name, "color": "#000000"} for name in ("not building", "building")],
        },
    },
    "heads": {"lulc": {"label": "LULC"}, "buildings": {"label": "BUILDINGS"}},
    "runs": {
        "multihead": {"heads": ["lulc", "buildings"]},
        "lulc": {"heads": ["lulc"]},
        "buildings": {"heads": ["buildings"]},
    },
    "splits": {"seed": 1, "buffer_m": 0},
}
CONFIG = make_config(CITY)
GRID = CONFIG.grid.grid


def make_parent(root: Path, parent: Parent, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write the rasters of one parent.

    A cloud over r0c0, a small one with its shadow in r1c1, a swath edge over column 3, the sea over row 3.
    """
    box = parent_geobox(parent, GRID)
    layers = {
        "S2L2A": rng.integers(1, 5000, (12, 64, 64), dtype="uint16"),
        "S1RTC": rng.normal(-11, 3, (2, 64, 64)).astype("float32"),
        "DEM": rng.normal(20, 5, (1, 64, 64)).astype("float32"),
        "SCL": np.full((1, 64, 64), 5, "uint8"),
    }
    layers["SCL"][0, :16, :8] = 9
    layers["SCL"][0, 20:23, 20:24] = 8
    layers["SCL"][0, 24:26, 20:24] = 3
    layers["S1RTC"][:, :, 56:] = np.nan
    # a glint over a tenth of r1c0: twice as bright as a white sheet
    layers["S2L2A"][:, 16:32, :2] = 30000
    masks = {
        "LULC": rng.integers(0, 3, (64, 64), dtype="uint8"),
        "BUILDINGS": rng.integers(0, 2, (64, 64), dtype="uint8"),
    }
    masks["BUILDINGS"][48:] = 255
    for name, array in layers.items():
        nodata = MODALITIES[name].nodata if name in MODALITIES else 0
        write_raster(root / "parents" / parent.parent_id / f"{name}.tif", array, box, nodata=nodata)
    for piece in subchips(parent, GRID):
        for label, mask in masks.items():
            cut = mask[piece.row_slice, piece.col_slice]
            write_raster(root / "chips" / f"MASK_{label}" / f"{piece.chip_id}.tif", cut, piece.geobox, nodata=255)
    chosen = {
        name: chosen_layer([chosen_item(f"{name}-1"), chosen_item(f"{name}-2")]) for name in ("S2L2A", "S1RTC", "DEM")
    }
    SCENES.write(root / "scenes" / f"{parent.parent_id}.json", scene_choice(parent, chosen, simulated=True))
    return layers | {f"MASK_{label}": mask[None] for label, mask in masks.items()}


def make_dataset(root: Path) -> Made:
    """Make the parents, slice them, pack the store and assemble the dataset of fold 0."""
    rng = np.random.default_rng(0)
    sheet = root / "parents.tsv"
    sheet.write_text(
        "parent_id\tepsg\tleft\ttop\n" + "".join(f"A{i}\t32618\t{500000 + 700 * i}\t4500000\n" for i in range(6))
    )
    truth = {}
    for parent in read_parents(sheet, GRID):
        truth[parent.parent_id] = make_parent(root, parent, rng)
        slice_parent(
            CONFIG.restricted_to(VERBS["slice_parent"].sections),
            parents=sheet,
            parent=parent.parent_id,
            parent_dir=root / "parents" / parent.parent_id,
            chips=root / "chips",
            out=root / "quality" / f"{parent.parent_id}.json",
        )
    pack(root, CONFIG, root / "dataset" / "store")
    assemble(root, CONFIG, root / "dataset" / "0")
    return root, truth


def pack(root: Path, config: Config, out: Path, *, quality: Path | None = None) -> None:
    """Pack what was sliced."""
    pack_store(
        config.restricted_to(VERBS["pack_store"].sections),
        parents=root / "parents.tsv",
        scenes=root / "scenes",
        quality=quality or root / "quality",
        chips=root / "chips",
        out=out,
    )


def assemble(root: Path, config: Config, out: Path, *, fold: int = 0, parents: Path | None = None) -> None:
    """Seek the splits and assemble one fold of what was packed beside it."""
    assignment = out.parent / "assignment.json"
    assign_splits(
        config.restricted_to(VERBS["assign_splits"].sections),
        parents=parents or root / "parents.tsv",
        table=out.parent / "store" / "subchips.parquet",
        out=assignment,
    )
    assemble_dataset(
        config.restricted_to(VERBS["assemble_dataset"].sections),
        fold=fold,
        parents=parents or root / "parents.tsv",
        assignment=assignment,
        out=out,
    )


def assemble_elsewhere(
    root: Path, config: Config, place: Path, *, fold: int = 0, parents: Path | None = None, repack: bool = False
) -> DatasetFolder:
    """Assemble one fold in another folder, with the store that there is or with a new one."""
    if repack:
        pack(root, config, place / "store")
    else:
        place.mkdir(parents=True, exist_ok=True)
        (place / "store").symlink_to(root / "dataset" / "store")
    assemble(root, config, place / str(fold), fold=fold, parents=parents)
    return DatasetFolder(place / str(fold))
