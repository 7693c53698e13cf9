"""A results folder with a real, small, untrained model and the parents' rasters, for the tests of the product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_results
import numpy as np

from cityheads.core.artifacts.model import MODEL
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.grid import parent_geobox, read_parents
from cityheads.core.modalities import MODALITIES
from cityheads.core.raster import write_raster


def make(
    root: Path,
    *,
    seeds: Sequence[int] = (0,),
    simulated: bool = True,
    model: dict[str, Any] | None = None,
    **more: Any,
) -> fake_results.Fake:
    """Write a complete results folder in three UTM zones, off the 10 m lattice, 64 px parents of 2 x 2 sub-chips.

    ``model`` is laid over the config's section of that name.
    """
    fake = fake_results.make(
        root,
        zones=True,
        seeds=seeds,
        simulated=simulated,
        overrides={
            "model": {"decoder_channels": [16, 16, 8, 8]} | (model or {}),
            "train": {"accelerator": "cpu", "threads": 1},
        },
        **more,
    )
    for seed in seeds:
        write_model(fake, seed)
    write_rasters(fake)
    return fake


def write_model(fake: fake_results.Fake, seed: int) -> None:
    """Put an untrained model of the multi-head run into its folder."""
    from safetensors.torch import save_file

    from cityheads.model.builder import build_model
    from cityheads.training.spec import make_spec

    spec = make_spec(fake.settings("train"), run="multihead", seed=seed, dataset=fake.layout.dataset(0).root)
    folder = fake.layout.run("multihead", 0, seed)
    weights = {name: value.contiguous() for name, value in build_model(spec).state_dict().items()}
    save_file(weights, folder.weights)
    MODEL.write(folder.model, spec)


def write_rasters(fake: fake_results.Fake) -> None:
    """Write the parents' rasters: smooth random fields with data everywhere."""
    grid = fake.config.grid.grid
    rng = np.random.default_rng(8)
    for parent in read_parents(fake.parents, grid):
        box = parent_geobox(parent, grid)
        for name in fake_results.IMAGERY:
            modality = MODALITIES[name]
            shape = (len(modality.bands), grid.parent_px // 8, grid.parent_px // 8)
            field = rng.normal(size=shape).repeat(8, 1).repeat(8, 2)
            mean, std = (np.array(one)[:, None, None] for one in (modality.mean, modality.std))
            values = np.clip(mean + std * field, 1, 9000) if name == "S2L2A" else mean + std * field
            path = fake.layout.parent(parent.parent_id).raster(name)
            write_raster(path, values.astype(modality.dtype), box, nodata=modality.nodata, bands=modality.bands)


def sheet(fake: fake_results.Fake) -> list[Any]:
    """Read the parents."""
    return read_parents(fake.parents, fake.config.grid.grid)


def split_of(fake: fake_results.Fake) -> dict[str, str]:
    """Give the split of each parent."""
    return dict(SPLIT_ASSIGNMENT.read(fake.layout.dataset(0).splits)["parents"])
