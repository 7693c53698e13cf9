"""The parent sheet and the geometry of parents and sub-chips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import (
    Grid,
    Parent,
    chip_ids,
    overlapping,
    parent_geobox,
    parent_polygon,
    read_parents,
    subchips,
)

GRID = Grid(resolution_m=10, parent_px=128, chips_per_side=4)
HEAD = "parent_id\tepsg\tleft\ttop"


def sheet(tmp_path: Path, *rows: str, head: str = HEAD) -> Path:
    path = tmp_path / "parents.tsv"
    path.write_text("\n".join(["# a comment", head, *rows]) + "\n")
    return path


def test_the_real_sheet_has_22_square_parents_of_16_chips_without_overlap(repository: Path) -> None:
    grid = Grid(10, 896, 4)
    parents = read_parents(repository / "config/parents.tsv", grid)
    assert len(parents) == 22
    boxes = [parent_polygon(parent, grid) for parent in parents]
    assert shapely.union_all(boxes).area == pytest.approx(22 * 8960**2)
    assert all(len(subchips(parent, grid)) == 16 for parent in parents)
    assert grid.chip_px == 224


def test_the_real_sheet_covers_all_five_boroughs(repository: Path, realdata: Path) -> None:
    from cityheads.labels.cover import read_boundary

    grid = Grid(10, 896, 4)
    city, epsg = read_boundary(realdata / "nyc_boroughs" / "nybb_16a.zip", 32618)
    parents = read_parents(repository / "config/parents.tsv", grid)
    squares = shapely.union_all([parent_polygon(parent, grid) for parent in parents])
    assert epsg == 32618
    assert city.difference(squares).area < 1e-6
    assert all(parent_polygon(parent, grid).intersection(city).area > 0 for parent in parents)


@given(
    left=st.floats(1e5, 9e5, allow_nan=False).map(lambda x: round(x, 3)),
    top=st.floats(1e5, 9e6, allow_nan=False).map(lambda x: round(x, 3)),
    side=st.integers(1, 6),
    px=st.integers(1, 5).map(lambda n: 16 * n),
)
def test_sub_chips_tile_their_parent_to_the_pixel(left: float, top: float, side: int, px: int) -> None:
    grid = Grid(10, px * side, side)
    parent = Parent("P", 32618, left, top)
    pieces = subchips(parent, grid)
    assert [piece.chip_id for piece in pieces] == chip_ids("P", side)
    drawn = np.zeros((grid.parent_px, grid.parent_px), int)
    for piece in pieces:
        drawn[piece.row_slice, piece.col_slice] += 1
        assert piece.geobox.shape == (px, px)
        assert piece.geobox.transform.c == pytest.approx(left + piece.col * px * 10, abs=1e-6)
        assert piece.geobox.transform.f == pytest.approx(top - piece.row * px * 10, abs=1e-6)
    assert (drawn == 1).all()


def test_row_0_column_0_is_the_north_west_sub_chip() -> None:
    parent = Parent("P", 32618, 500000, 4500000)
    first, last = subchips(parent, GRID)[0], subchips(parent, GRID)[-1]
    assert (first.geobox.transform.c, first.geobox.transform.f) == (500000, 4500000)
    assert last.geobox.boundingbox.right == 500000 + 1280
    assert last.geobox.boundingbox.bottom == 4500000 - 1280
    assert parent_geobox(parent, GRID).crs.to_epsg() == 32618


@pytest.mark.parametrize(
    ("rows", "head", "says"),
    [
        (["A\t32618\t0\t0", "A\t32618\t9000\t0"], HEAD, "'A' stands twice"),
        (["A\t32618\t0\t0", "a\t32618\t9000\t0"], HEAD, "'a' stands twice"),
        (["A\t32618\t0"], "parent_id\tepsg\tleft", "missing column top"),
        (["A\t32618\t0\t0\tx"], HEAD + "\tcolour", "unknown column 'colour'"),
        (["A\t32618\t0\t0", "B\t32618\t1279\t0"], HEAD, "A and B overlap"),
        (["A\t999999\t0\t0"], HEAD, "EPSG:999999 (A) is unknown"),
        (["A\t4326\t0\t0"], HEAD, "not a projected CRS in metres"),
        (["A\t2263\t0\t0"], HEAD, "not a projected CRS in metres"),
        (["A\t32618\tzero\t0"], HEAD, "left 'zero' is not a number"),
        (["A\t32618\tnan\t0"], HEAD, "left 'nan' is not a number"),
        (["../A\t32618\t0\t0"], HEAD, "unfit for a file name"),
        (["A_r0c1\t32618\t0\t0"], HEAD, "ends like a sub-chip's"),
        (["A\t32618\t0\t0\tlearn"], HEAD + "\tsplit", "split 'learn' is none of"),
        (["A\t32618\t0\t0\ttrain", "B\t32618\t9000\t0\t"], HEAD + "\tsplit", "B has no split"),
        ([], HEAD, "has no rows"),
        (["A\t32618\t500000\t4500000", "B\t32617\t1007724\t4517062"], HEAD, "A and B overlap"),
    ],
)
def test_a_wrong_sheet_is_refused_in_one_line(tmp_path: Path, rows: list[str], head: str, says: str) -> None:
    with pytest.raises(CityHeadsError) as caught:
        read_parents(sheet(tmp_path, *rows, head=head), GRID)
    assert says in str(caught.value)
    assert "parents.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_sheet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match="no such parent sheet"):
        read_parents(tmp_path / "none.tsv", GRID)
    (tmp_path / "empty.tsv").write_text("# nothing\n")
    with pytest.raises(CityHeadsError, match="is empty"):
        read_parents(tmp_path / "empty.tsv", GRID)


def test_parents_that_share_only_an_edge_do_not_overlap() -> None:
    row = [Parent(f"P{i}", 32618, 500000.1 + i * 1280, 4500000.3) for i in range(3)]
    assert list(overlapping(row, GRID)) == []


@given(dx=st.integers(-3000, 3000), dy=st.integers(-3000, 3000))
def test_overlap_agrees_with_shapely(dx: int, dy: int) -> None:
    one, two = Parent("A", 32618, 500000, 4500000), Parent("B", 32618, 500000 + dx, 4500000 + dy)
    area = parent_polygon(one, GRID).intersection(parent_polygon(two, GRID)).area
    assert bool(list(overlapping([one, two], GRID))) == (area > 0)
