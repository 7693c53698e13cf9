"""Confusion counts of sub-chips, written and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cityheads.core.artifacts.predictions import CONFUSION, read_confusions, write_confusions
from cityheads.core.errors import CityHeadsError


def test_counts_come_back_and_chips_without_labels_have_zeros(tmp_path: Path) -> None:
    path, chips = tmp_path / "confusion.parquet", ["P1_r0c0", "P1_r0c1", "P2_r0c0"]
    counts = np.random.default_rng(0).integers(0, 3, (3, 2, 2))
    counts[1] = 0
    write_confusions(path, chips, ["P1", "P1", "P2"], {"lulc": counts + 1, "buildings": counts})
    found = read_confusions(path, "buildings", chips, 2)
    assert list(found) == chips
    np.testing.assert_array_equal(list(found.values()), counts)
    assert all(row["count"] > 0 for row in CONFUSION.read(path, ["count"]))
    for names, classes, words in ((chips[:2], 2, "sub-chip P2_r0c0"), (chips, 1, "class 1")):
        with pytest.raises(CityHeadsError, match=f"{words}.*head lulc.*--forcerun evaluate$"):
            read_confusions(path, "lulc", names, classes)
