"""The packed store: what it says of itself is checked, and where its chips lie is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
from model_fixtures import write_store

from cityheads.core.errors import CityHeadsError
from cityheads.dataset.store import ChipStore


def test_a_changed_store_is_noticed(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=6)
    store = ChipStore(folder)
    store.verify()
    path = folder.parent / "store" / "DEM.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CityHeadsError, match=r"DEM\.npy: its bytes have changed"):
        store.verify()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CityHeadsError, match=r"DEM\.npy: cannot be read"):
        ChipStore(folder).array("DEM")
    path.unlink()
    with pytest.raises(CityHeadsError, match=r"DEM\.npy: no such file"):
        store.verify()


def test_an_array_of_another_kind_is_noticed(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=6)
    np.save(folder.parent / "store" / "DEM.npy", np.zeros((6, 1, 8, 8), np.float32))
    with pytest.raises(CityHeadsError, match=r"is not what its index says"):
        ChipStore(folder).array("DEM")


def test_coordinates_are_the_centres(tmp_path: Path) -> None:
    """The truth is what GDAL says of the first chip's centre."""
    store = ChipStore(write_store(tmp_path))
    coords = store.inputs(["coords", "NDVI"])["coords"]
    assert coords.dtype == np.float32
    assert coords.shape == (24, 2)
    (lon,), (lat,) = rasterio.warp.transform("EPSG:32618", "EPSG:4326", [583960 + 160], [4507520 - 160])
    np.testing.assert_allclose(coords[0], [lon, lat], atol=1e-5)
    # half a kilometre further east in each step of 32 px
    assert np.allclose(np.diff(coords[:, 0]), 320 / (111320 * np.cos(np.radians(40.7))), rtol=1e-2)


def test_an_old_or_absent_store_is_refused_with_the_command_that_makes_it_anew(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"index.json: no such file; .* pack_store"):
        ChipStore(tmp_path / "elsewhere")
    index = write_store(tmp_path / "dataset", chips=6).parent / "store" / "index.json"
    index.write_text(index.read_text().replace("format_version", "format"))
    with pytest.raises(CityHeadsError, match=r"index.json: .* has no format version.* pack_store"):
        ChipStore(tmp_path / "dataset" / "0")


def test_a_chip_table_of_another_store_is_refused(tmp_path: Path) -> None:
    short, whole = write_store(tmp_path / "short", chips=6), write_store(tmp_path / "whole", chips=24)
    (short / "chips.parquet").write_bytes((whole / "chips.parquet").read_bytes())
    with pytest.raises(CityHeadsError, match="is not at its place in the store; assemble again"):
        ChipStore(short).split_indices()
