"""The check of the labels: agreement, registration, balance, and what teaches little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from config_fixtures import make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix

from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.label_check import LABEL_CHECK
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent, parent_geobox, subchips
from cityheads.core.layout import DatasetFolder
from cityheads.core.raster import write_raster
from cityheads.dataset.checks import check_labels, cross_table, edge_correlation, edge_shift

CONFIG = make_config(
    {
        "archive": {"provider": "simulated"},
        "grid": {"parent_px": 128, "chips_per_side": 2},
        "labels": {
            "LULC": {
                "kind": "landcover",
                "classes": [
                    {"name": "water", "color": "#3a7bc8", "codes": [80]},
                    {"name": "developed", "color": "#c8574d", "codes": [50]},
                ],
            },
            # no head learns it: it is checked all the same
            "BUILDINGS": {
                "kind": "footprints",
                "classes": [{"name": "none", "color": "#e8e6e1"}, {"name": "building", "color": "#4b3f72"}],
            },
        },
        "heads": {"lulc": {"label": "LULC"}},
        "runs": {"multihead": {"heads": ["lulc"]}, "lulc": {"heads": ["lulc"]}},
    }
)


def blocks(seed: int = 0, side: int = 128) -> np.ndarray:
    """Buildings as rectangles of 2 to 6 px."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    for row, column, height, width in zip(
        *generator.integers(0, side, (2, 160)), *generator.integers(2, 7, (2, 160)), strict=True
    ):
        mask[row : row + height, column : column + width] = 1
    return mask


def imagery(mask: np.ndarray, down: float, right: float, seed: int = 0) -> np.ndarray:
    """A picture of the buildings, moved, blurred and noisy."""
    from scipy.ndimage import shift

    moved = shift(mask.astype(float), (down, right), order=1)
    return 1000 + 900 * gaussian_filter(moved, 0.6) + np.random.default_rng(seed).normal(0, 40, mask.shape)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 3), (0.5, -1.5)])
def test_a_known_shift_is_found(down: float, right: float) -> None:
    mask = blocks()
    found = edge_shift(edge_correlation(imagery(mask, down, right), mask)[0])
    assert found is not None
    assert found["down_px"] == pytest.approx(down, abs=0.25)
    assert found["right_px"] == pytest.approx(right, abs=0.25)
    assert found["correlation"] > 0.3


def test_unknown_pixels_do_not_make_edges() -> None:
    """The rim of the surveyed area and of the imagery is no edge; a shift is found from the rest."""
    mask = blocks(3)
    picture = imagery(mask, 1, 0)
    mask[:, 70:] = IGNORE
    picture[:20] = np.nan
    correlation, pixels = edge_correlation(picture, mask)
    assert pixels.max() < 108 * 70
    found = edge_shift(correlation)
    assert found is not None
    assert (round(found["down_px"]), round(found["right_px"])) == (1, 0)


def test_where_there_are_no_edges_nothing_is_claimed() -> None:
    noise = np.random.default_rng(1).normal(1000, 40, (128, 128))
    assert edge_shift(edge_correlation(noise, np.zeros((128, 128), np.uint8))[0]) is None
    assert edge_shift(edge_correlation(np.full((128, 128), np.nan), blocks())[0]) is None
    assert edge_shift(edge_correlation(noise, blocks())[0]) is None, "noise has edges, but not these"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 0.5))
def test_cross_table_is_sklearns(seed: int, unknown: float) -> None:
    generator = np.random.default_rng(seed)
    one, two = generator.integers(0, 3, 500).astype(np.uint8), generator.integers(0, 4, 500).astype(np.uint8)
    one[generator.random(500) < unknown] = IGNORE
    two[generator.random(500) < unknown] = IGNORE
    both = (one != IGNORE) & (two != IGNORE)
    padded = confusion_matrix(one[both], two[both], labels=range(4)) if both.any() else np.zeros((4, 4), int)
    np.testing.assert_array_equal(cross_table(one, two, 3, 4), padded[:3])


def results(folder: Path, shift: tuple[int, int]) -> tuple[Path, dict[str, np.ndarray]]:
    """Two parents: buildings on developed land, and open water that nobody surveyed."""
    sheet = folder / "parents.tsv"
    parents = [Parent("P1", 32618, 587000.0, 4512000.0), Parent("P2", 32618, 590000.0, 4512000.0)]
    sheet.write_text(
        "parent_id\tepsg\tleft\ttop\n" + "".join(f"{p.parent_id}\t32618\t{p.left}\t{p.top}\n" for p in parents)
    )
    grid = CONFIG.grid.grid
    buildings = blocks()
    buildings[:, :64] = 0
    land = np.ones((128, 128), np.uint8)
    land[:, :64] = 0
    masks = {
        "P1": {"BUILDINGS": buildings, "LULC": land},
        "P2": {"BUILDINGS": np.full((128, 128), IGNORE, np.uint8), "LULC": np.zeros((128, 128), np.uint8)},
    }
    rows: list[dict[str, Any]] = []
    for parent, split in zip(parents, ("train", "test"), strict=True):
        place, box = folder / "parents" / parent.parent_id, parent_geobox(parent, grid)
        for name, mask in masks[parent.parent_id].items():
            write_raster(place / f"MASK_{name}.tif", mask, box, nodata=IGNORE)
        visible = imagery(masks["P1"]["BUILDINGS"] if split == "train" else np.zeros((128, 128)), *shift)
        write_raster(place / "S2L2A.tif", np.repeat(visible[None], 12, axis=0).astype(np.uint16), box, nodata=0)
        for piece in subchips(parent, grid):
            rows.append({"chip_id": piece.chip_id, "split": split, "kept": piece.row + piece.col < 2})
    dataset = DatasetFolder(folder / "dataset" / "0")
    dataset.root.mkdir(parents=True)
    CHIPS.write(dataset.chips, pa.Table.from_pylist(rows))
    STATISTICS.write(
        dataset.statistics,
        {"modalities": {}, "class_pixels": {}, "chips": {}, "synthesized": {}, "dropped": {}, "simulated": True},
    )
    return sheet, {"buildings": buildings, "land": land}


def test_the_whole_check(tmp_path: Path) -> None:
    sheet, made = results(tmp_path, (1, 2))
    picture, out = tmp_path / "check.png", tmp_path / "check.json"
    for _ in range(2):
        check_labels(CONFIG, parents=sheet, results=tmp_path, picture=picture, out=out)
    found = LABEL_CHECK.read(out)
    assert found["simulated"] is True
    agreement = found["agreement"][0]
    assert (agreement["polygons"], agreement["other"], agreement["mostly_on"]) == ("BUILDINGS", "LULC", "developed")
    assert agreement["lies_on"] == {"water": 0.0, "developed": 1.0}
    share = made["buildings"].sum() / made["land"].sum()
    assert agreement["covers"]["developed"] == pytest.approx(share, abs=1e-6)
    best = found["registration"]["BUILDINGS"]
    assert (round(best["all"]["down_px"]), round(best["all"]["right_px"])) == (1, 2)
    assert best["parents"]["P2"] is None
    assert found["ignored_fraction"]["BUILDINGS"] == {"all": 0.5, "parents": {"P1": 0.0, "P2": 1.0}}
    # of 2 x 2 sub-chips the lower right one is not kept: left ones hold water only, and P2 holds nothing else
    assert found["one_class_chips"]["LULC"]["water"] == ["P1_r0c0", "P1_r1c0", "P2_r0c0", "P2_r0c1", "P2_r1c0"]
    assert found["one_class_chips"]["BUILDINGS"] == {"none": ["P1_r0c0", "P1_r1c0"], "building": []}
    assert found["unlabelled_chips"]["BUILDINGS"] == ["P2_r0c0", "P2_r0c1", "P2_r1c0"]
    kept = made["buildings"][:64, 64:].mean() / 3
    assert found["balance"]["BUILDINGS"]["train"]["building"] == pytest.approx(kept, abs=1e-5)
    assert found["balance"]["BUILDINGS"]["val"]["building"] is None
    assert found["balance"]["LULC"]["test"] == {"water": 1.0, "developed": 0.0}
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    sheet, _ = results(tmp_path, (0, 0))
    (tmp_path / "dataset" / "0" / "chips.parquet").unlink()
    picture, out = tmp_path / "a.png", tmp_path / "a.json"
    with pytest.raises(CityHeadsError, match=r"chips.parquet: no such file; make it anew: .* assemble_dataset"):
        check_labels(CONFIG, parents=sheet, results=tmp_path, picture=picture, out=out)
    assert not (tmp_path / "a.png").exists()
