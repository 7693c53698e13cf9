"""Parents cut into sub-chips, and what is measured in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from dataset_fixtures import CONFIG, GRID, Made, make_dataset

from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import read_parents, subchips
from cityheads.core.modalities import MODALITIES
from cityheads.dataset.chips import clear_fraction, in_range_fraction, slice_parent, valid_mask


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


def test_sub_chips_are_exact_cuts_on_their_own_grid(made: Made) -> None:
    root, truth = made
    for parent in read_parents(root / "parents.tsv", GRID)[:2]:
        for name in ("S2L2A", "S1RTC", "DEM"):
            back = np.zeros_like(truth[parent.parent_id][name])
            for piece in subchips(parent, GRID):
                with rasterio.open(root / "chips" / name / f"{piece.chip_id}.tif") as source:
                    assert source.dtypes[0] == MODALITIES[name].dtype
                    assert source.transform.almost_equals(piece.geobox.transform, precision=1e-6)
                    back[:, piece.row_slice, piece.col_slice] = source.read()
            np.testing.assert_array_equal(back, truth[parent.parent_id][name])


def test_a_parent_on_another_grid_is_refused(made: Made, tmp_path: Path) -> None:
    root, _ = made
    with pytest.raises(CityHeadsError, match="not on the parent's grid"):
        slice_parent(
            CONFIG,
            parents=root / "parents.tsv",
            parent="A1",
            parent_dir=root / "parents" / "A0",
            chips=tmp_path,
            out=tmp_path / "q.json",
        )


def test_clear_and_valid_count_what_their_names_say() -> None:
    assert clear_fraction(np.array([0, 0, 4, 9])) == 0.5
    assert clear_fraction(np.zeros(4, int)) == 0.0
    array = np.array([[[1, 0]], [[1, 1]]], "uint16")
    assert valid_mask(array, MODALITIES["S2L2A"]).tolist() == [[True, False]]
    assert in_range_fraction(array, MODALITIES["S2L2A"]) == 1.0
    assert in_range_fraction(np.array([[[-80, -10, np.nan]]]), MODALITIES["S1RTC"]) == 0.5
    assert in_range_fraction(np.zeros((1, 2, 2)), MODALITIES["S2L2A"]) is None


def test_of_the_sheet_only_the_own_place_counts(made: Made, tmp_path: Path) -> None:
    """Other parents, splits, regions and comments change no byte of a parent's quality."""
    root, _ = made
    sheet = tmp_path / "parents.tsv"
    sheet.write_text(
        "# another sheet\nparent_id\tepsg\tleft\ttop\tsplit\tregion\nA1\t32618\t500700\t4500000\ttest\teast\n"
    )
    slice_parent(
        CONFIG, parents=sheet, parent="A1", parent_dir=root / "parents" / "A1", chips=tmp_path, out=tmp_path / "q.json"
    )
    assert (tmp_path / "q.json").read_bytes() == (root / "quality" / "A1.json").read_bytes()
