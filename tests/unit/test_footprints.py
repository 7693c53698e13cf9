"""Footprints: any file and either schema cleaned once, then rasterized to the pixel from a parent's own rows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine
from label_fixtures import label_config, target_of, write_geojson, write_sheet
from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.core.artifacts.footprints import FOOTPRINTS_SUMMARY, FootprintsSummary
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, subchips
from cityheads.labels.footprints import building_mask, polygons_of, rasterize_buildings
from cityheads.labels.geoparquet import read_near
from cityheads.labels.preparation import prepare_footprints
from cityheads.labels.rasterize import rasterize_polygons
from cityheads.labels.vector_files import read_vectors

#: The Murray Hill block's grid: 10 m, UTM 18N, 132 x 126 px from the upper left corner of its footprints.
LEFT, TOP, WIDTH, HEIGHT = 585750.0, 4511950.0, 132, 126


CLASSES = [{"name": "not building", "color": "#e8e6e1"}, {"name": "building", "color": "#4b3f72"}]


class City:
    """A prepared city in a scratch folder."""

    def __init__(self, folder: Path, parents: list[Parent], parent_px: int = 128, **label: Any) -> None:
        self.folder = folder
        self.config = label_config("BUILDINGS", {"kind": "footprints", "classes": CLASSES, **label}, parent_px)
        self.sheet = write_sheet(folder / "parents.tsv", *parents)
        self.parents = parents
        self.footprints = folder / "footprints.parquet"
        self.boundary = folder / "boundary.parquet"

    def prepare(self, source: Path, boundary: Path) -> FootprintsSummary:
        prepare_footprints(
            self.config, parents=self.sheet, label="BUILDINGS", source=source, boundary=boundary,
            out=self.footprints, boundary_out=self.boundary, summary=self.folder / "summary.json",
        )  # fmt: skip
        return FOOTPRINTS_SUMMARY.read(self.folder / "summary.json")

    def rasterize(self, number: int = 0, scenes: Path | None = None) -> Path:
        parent = self.parents[number].parent_id
        out = self.folder / "parents" / parent / "MASK_BUILDINGS.tif"
        rasterize_buildings(
            self.config, parents=self.sheet, parent=parent, label="BUILDINGS", footprints=self.footprints,
            boundary=self.boundary, chips=self.folder / "chips", out=out, scenes=scenes,
        )  # fmt: skip
        return out

    def mask(self, number: int = 0) -> np.ndarray:
        with rasterio.open(self.rasterize(number)) as source:
            return source.read(1)


@pytest.fixture(scope="session")
def murray_hill(realdata: Path) -> Path:
    return realdata / "nyc_buildings_murrayhill" / "building_footprints.geojson"


@pytest.fixture(scope="session")
def boroughs(realdata: Path) -> Path:
    return realdata / "nyc_boroughs" / "nybb_16a.zip"


# ------------------------------------------------------------------------------------------------ the real block


def test_the_real_block_through_both_verbs(tmp_path: Path, murray_hill: Path, boroughs: Path) -> None:
    city = City(tmp_path, [Parent("M1", 32618, LEFT, TOP)], parent_px=192, feature_codes=[])
    facts = city.prepare(murray_hill, boroughs)
    assert facts["rows"] == facts["kept"] == 1285
    assert facts["epsg"] == 32618
    assert facts["area_km2"] == pytest.approx(0.644278, abs=1e-6)
    assert facts["feature_codes"] == {"1000": 1, "1004": 1, "2100": 1275, "2110": 1, "5100": 1, "5110": 6}
    assert facts["columns"] == {
        "bin": "bin", "construction_year": "construction_year", "height_roof_ft": "height_roof",
        "feature_code": "feature_code", "last_edited": "last_edited_date", "status": "last_status_type",
        "demolition_year": None,
    }  # fmt: skip
    assert facts["boundary"]["area_km2"] == pytest.approx(783, abs=0.5)
    mask = city.mask()
    frame = gpd.read_file(murray_hill).to_crs(32618)
    outline = gpd.read_file(f"zip://{boroughs}").to_crs(32618).union_all()
    from rasterio.features import rasterize

    shape, transform = (192, 192), Affine(10, 0, LEFT, 0, -10, TOP)
    expected = np.where(rasterize([outline], shape, transform=transform) == 1, 0, IGNORE)
    expected[rasterize(frame.geometry, shape, transform=transform) == 1] = 1
    np.testing.assert_array_equal(mask, expected)


def test_attributes_of_the_present_schema(tmp_path: Path, murray_hill: Path, boroughs: Path) -> None:
    city = City(tmp_path, [Parent("M1", 32618, LEFT, TOP)], parent_px=192)
    facts = city.prepare(murray_hill, boroughs)
    assert (facts["kept"], facts["ignored"]) == (1285, 10)
    frame = gpd.read_parquet(city.footprints)
    assert frame.crs.to_epsg() == 32618
    assert list(frame.columns[:9]) == [
        "bin", "construction_year", "demolition_year", "height_roof_ft", "feature_code", "status", "last_edited",
        "area_m2", "use",
    ]  # fmt: skip
    assert set(frame.loc[frame["use"] == IGNORE, "feature_code"]) == {1000, 1004, 2110, 5100, 5110}
    raw = gpd.read_file(murray_hill).set_index("bin").loc["1021905"]
    ours = frame[frame["bin"] == 1021905].iloc[0]
    assert ours["construction_year"] == int(raw["construction_year"]) == 1930
    assert ours["height_roof_ft"] == float(raw["height_roof"]) == 63.64
    assert ours["last_edited"] == datetime.date(2017, 8, 22)
    assert ours["area_m2"] == pytest.approx(ours.geometry.area)
    assert facts["unknown_construction_year"] == frame["construction_year"].isna().sum() > 0
    assert (frame["construction_year"].dropna() > 0).all()


def test_attributes_of_the_older_schema(tmp_path: Path, realdata: Path, boroughs: Path) -> None:
    """499 rows of CSV with WKT over all five boroughs; areas against the file's own square feet."""
    source = realdata / "nyc_buildings_sample499" / "sample_buildings.csv"
    city = City(tmp_path, [Parent("Q1", 32618, 563000.0, 4540000.0)], parent_px=6400, feature_codes=[])
    facts = city.prepare(source, boroughs)
    assert facts["rows"] == 499
    assert facts["kept"] + sum(facts["dropped"].values()) == 499
    assert facts["source"]["crs_assumed"] is True
    assert facts["columns"]["construction_year"] == "CNSTRCT_YR"
    frame = gpd.read_parquet(city.footprints).set_index("bin")
    assert frame.loc[3394646, "construction_year"] == 2009
    assert frame.loc[3394646, "height_roof_ft"] == pytest.approx(21.60850812)
    assert frame.loc[3394646, "feature_code"] == 2100
    assert frame.loc[3394646, "last_edited"] == datetime.date(2017, 8, 22)
    # 854.66243317866 square feet
    assert frame.loc[3394646, "area_m2"] == pytest.approx(854.66243317866 * 0.3048**2, rel=2e-3)
    codes = gpd.pd.read_csv(source)["FEAT_CODE"].value_counts()
    assert facts["feature_codes"] == {str(code): int(codes[code]) for code in sorted(codes.index)}


# ---------------------------------------------------------------------------------------------- the other formats

SQUARE = shapely.box(587100, 4511500, 587190, 4511580)
HOLED = shapely.box(587300, 4511300, 587400, 4511400).difference(shapely.box(587330, 4511330, 587370, 4511370))
AROUND = shapely.box(580000, 4500000, 595000, 4520000)
PLACE = Parent("P1", 32618, 587000.0, 4512000.0)


def rows() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"BIN": [1, 2], "CNSTRCT_YR": [1999, 0], "HEIGHTROOF": [30.5, 0.0], "FEAT_CODE": [2100, 2100]},
        geometry=[SQUARE, HOLED],
        crs=32618,
    )


def write_as(kind: str, folder: Path) -> Path:
    frame = rows()
    path = folder / f"buildings.{kind}"
    if kind == "shp":
        frame.to_crs(2263).to_file(path)
    elif kind == "gpkg":
        frame.to_crs(3857).to_file(path)
    elif kind == "geojson":
        frame.to_crs(4326).to_file(path, driver="GeoJSON")
    elif kind == "parquet":
        frame.to_crs(4269).to_parquet(path)
    elif kind == "csv":
        table = gpd.pd.DataFrame(frame.drop(columns="geometry"))
        table["the_geom"] = frame.to_crs(4326).geometry.to_wkt(rounding_precision=12)
        table.to_csv(path, index=False)
    elif kind == "plain.parquet":
        table = gpd.pd.DataFrame(frame.drop(columns="geometry"))
        table["geometry"] = frame.to_crs(4326).geometry.to_wkb()
        table.to_parquet(path)
    elif kind == "zip":
        import zipfile

        frame.to_file(folder / "b.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for part in folder.glob("b.*"):
                archive.write(part, part.name)
    elif kind == "ZIP":
        import zipfile

        frame.to_file(folder / "b.shp")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._B.SHP", b"")
            for part in folder.glob("b.*"):
                archive.write(part, f"nyc/inner/{part.name.upper()}")
    return path


@pytest.mark.parametrize("kind", ["shp", "gpkg", "geojson", "parquet", "csv", "plain.parquet", "zip", "ZIP"])
def test_every_format_gives_the_same_mask(tmp_path: Path, kind: str) -> None:
    """In feet (EPSG:2263), Mercator, degrees or NAD83: the same two buildings on the same pixels."""
    city = City(tmp_path, [PLACE])
    facts = city.prepare(write_as(kind, tmp_path), write_geojson(tmp_path / "around.geojson", [AROUND], epsg=32618))
    assert facts["kept"] == 2
    assert facts["source"]["crs_assumed"] is (kind in ("csv", "plain.parquet"))
    assert facts["unknown_construction_year"] == facts["unknown_height"] == 1
    expected = np.zeros((128, 128), np.uint8)
    expected[42:50, 10:19] = 1  # 587100..587190, 4511580..4511500
    expected[60:70, 30:40] = 1
    expected[63:67, 33:37] = 0
    # edges lie on pixel edges, so a nanometre of reprojection cannot move a centre
    np.testing.assert_array_equal(city.mask(), expected)


def test_shapefile_names_cut_after_ten_characters(tmp_path: Path) -> None:
    frame = rows().rename(columns={"CNSTRCT_YR": "constructi", "HEIGHTROOF": "height_roo", "FEAT_CODE": "feature_co"})
    frame.to_file(tmp_path / "b.shp")
    facts = City(tmp_path, [PLACE]).prepare(
        tmp_path / "b.shp", write_geojson(tmp_path / "a.json", [AROUND], epsg=32618)
    )
    assert facts["kept"] == 2
    assert facts["columns"]["construction_year"] == "constructi"


# ------------------------------------------------------------------------------------------------------- cleaning


def test_what_is_repaired_and_dropped_is_counted(tmp_path: Path) -> None:
    bow = shapely.Polygon([(587500, 4511500), (587600, 4511600), (587600, 4511500), (587500, 4511600)])
    turned = shapely.Polygon(list(SQUARE.exterior.coords)[2:] + list(SQUARE.exterior.coords)[1:3])
    spike = shapely.Polygon([(587700, 4511700), (587750, 4511700), (587700, 4511700)])
    shapes = [
        SQUARE,
        turned,
        SQUARE,
        HOLED,
        bow,
        spike,
        None,
        shapely.Polygon(),
        shapely.Point(587100, 4511500),
        SQUARE,
    ]
    properties = [
        {"bin": "1", "feature_code": "2100", "construction_year": "1999"},
        {"bin": "1", "feature_code": "2100", "construction_year": "1999"},  # the same square from another corner
        {"bin": "2", "feature_code": "2100", "construction_year": "no"},  # the same square, another building
        {"bin": "3", "feature_code": "5110", "construction_year": "0"},  # a garage
        {"bin": "4", "feature_code": "2100", "construction_year": ""},  # a bow tie
        {"bin": "5", "feature_code": "2100", "construction_year": "1950.0"},  # no area
        *[{"bin": "6", "feature_code": "2100", "construction_year": "1"}] * 3,
        {"bin": "7", "feature_code": None, "construction_year": "1"},
    ]
    city = City(tmp_path, [PLACE], ground_feature_codes=[5110], max_lost_percent=40)
    source = tmp_path / "b.gpkg"
    gpd.GeoDataFrame(properties, geometry=shapes, crs=32618).to_file(source)
    facts = city.prepare(source, write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618))
    assert facts["rows"] == 10
    assert facts["dropped"] == {
        "unread": 0, "unreadable": 0, "empty": 2, "not_polygon": 1, "not_finite": 0, "no_area": 1,
        "ground": 1, "duplicate": 1, "elsewhere": 0,
    }  # fmt: skip
    assert facts["repaired"] == 1
    assert (facts["kept"], facts["ignored"]) == (4, 1), "what has no feature code is ignored"
    assert facts["kept"] + sum(facts["dropped"].values()) == facts["rows"]
    assert facts["feature_codes"] == {"2100": 5, "5110": 1, "unknown": 1}, "of the rows with a place"
    assert facts["unreadable_values"] == {"construction_year": 1}
    frame = gpd.read_parquet(city.footprints)
    assert sorted(frame["bin"]) == [1, 2, 4, 7]
    assert frame.geometry.is_valid.all()
    bow_area = frame.set_index("bin").loc[4, "area_m2"]
    assert bow_area == pytest.approx(5000, rel=1e-6), "both halves of the bow tie, 100 x 100 / 2"
    # the touching line of a repaired ring is no polygon and is left out
    assert set(frame.geometry.geom_type) <= {"Polygon", "MultiPolygon"}


def test_values_and_corners_that_make_no_sense(tmp_path: Path) -> None:
    """Numbers too large for a year, corners that are no numbers, and places beyond the projection."""
    frame = gpd.GeoDataFrame(
        {"feature_code": [2100] * 3, "construction_year": ["99999999999", "1999", "2000"], "bin": ["1", "1e30", "x"]},
        geometry=[SQUARE, shapely.Polygon([(587000, 4511000), (587100, np.nan), (587100, 4511100)]), HOLED],
        crs=32618,
    )
    city = City(tmp_path, [PLACE], max_lost_percent=50)
    frame.to_parquet(tmp_path / "b.parquet")
    facts = city.prepare(tmp_path / "b.parquet", write_geojson(tmp_path / "a.json", [AROUND], epsg=32618))
    assert facts["kept"] == 2
    assert facts["dropped"]["not_finite"] == 1
    assert facts["unreadable_values"] == {"bin": 1, "construction_year": 1}
    pole = shapely.box(20, 95, 21, 96)
    here = gpd.GeoSeries([SQUARE], crs=32618).to_crs(4326)[0]
    gpd.GeoDataFrame({"feature_code": [2100] * 2}, geometry=[here, pole], crs=4326).to_parquet(tmp_path / "b.parquet")
    facts = city.prepare(tmp_path / "b.parquet", tmp_path / "a.json")
    assert (facts["kept"], facts["dropped"]["elsewhere"]) == (1, 1)


def test_garages_by_option(tmp_path: Path, murray_hill: Path, boroughs: Path) -> None:
    city = City(tmp_path, [Parent("M1", 32618, LEFT, TOP)], 192, feature_codes=[2100, 5110])
    assert city.prepare(murray_hill, boroughs)["ignored"] == 4


def test_unreadable_wkt_is_counted(tmp_path: Path) -> None:
    path = write_as("csv", tmp_path)
    with path.open("a") as stream:
        stream.write('3,2000,10,2100,"MULTIPOLYGON (((1 2, 3"\n4,2000,10,2100,\n')
    city = City(tmp_path, [PLACE], max_lost_percent=50)
    facts = city.prepare(path, write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618))
    assert facts["rows"] == 4
    assert facts["kept"] == 2
    assert (facts["dropped"]["unreadable"], facts["dropped"]["empty"]) == (1, 1)


def test_prepared_files_are_sorted_indexed_geoparquet(tmp_path: Path, murray_hill: Path, boroughs: Path) -> None:
    """Another reader understands them, and two preparations give the same bytes."""
    city = City(tmp_path, [Parent("M1", 32618, LEFT, TOP)])
    city.prepare(murray_hill, boroughs)
    first = [path.read_bytes() for path in (city.footprints, city.boundary, tmp_path / "summary.json")]
    box = (586000, 4511000, 586300, 4511300)
    near = gpd.read_parquet(city.footprints, bbox=box)
    everything = gpd.read_parquet(city.footprints)
    assert 0 < len(near) < len(everything) / 4
    wkb, attributes, epsg = read_near(city.footprints, lambda epsg: box, ("bin",))
    assert epsg == 32618
    assert sorted(attributes["bin"]) == sorted(near["bin"])
    assert shapely.equals(shapely.from_wkb(wkb), near.geometry.to_numpy()).all()
    # neighbours in the file are neighbours in space: far nearer than in the city's own order
    centres = shapely.get_coordinates(shapely.centroid(everything.geometry.to_numpy()))
    assert np.median(np.hypot(*np.diff(centres, axis=0).T)) < 60
    city.prepare(murray_hill, boroughs)
    assert first == [path.read_bytes() for path in (city.footprints, city.boundary, tmp_path / "summary.json")]
    assert str(tmp_path) not in (tmp_path / "summary.json").read_text()


def test_row_groups_elsewhere_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent reads its own row groups only, and finds exactly the rows that a full scan finds."""
    far = Parent("P2", 32618, 598000.0, 4502000.0)
    generator = np.random.default_rng(5)
    x = np.concatenate([generator.uniform(left, left + 1280, 15000) for left in (PLACE.left, far.left)])
    y = np.concatenate([generator.uniform(top - 1280, top, 15000) for top in (PLACE.top, far.top)])
    boxes = shapely.box(x, y, x + 12, y + 9)
    gpd.GeoDataFrame({"feature_code": 2100}, index=range(30000), geometry=boxes, crs=32618).to_parquet(
        tmp_path / "b.parquet"
    )
    city = City(tmp_path, [PLACE, far])
    city.prepare(tmp_path / "b.parquet", write_geojson(tmp_path / "a.json", [AROUND], epsg=32618))
    read: list[int] = []
    plain = pq.ParquetFile.read_row_groups

    def spy(self: Any, groups: list[int], **options: Any) -> Any:
        read.extend(groups)
        return plain(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    found = polygons_of(city.footprints, PLACE, Grid(10, 128, 4))
    assert 0 < len(read) < pq.ParquetFile(city.footprints).num_row_groups
    square = shapely.box(587000, 4512000 - 1280, 587000 + 1280, 4512000)
    assert len(found) == shapely.intersects(boxes, square).sum()


# ---------------------------------------------------------------------------------------------- rules and boundary


def test_outside_the_boundary_a_pixel_is_unknown(tmp_path: Path) -> None:
    """Inside, water too, nothing is 0; outside it is 255, but a building there is still a building."""
    western = shapely.box(580000, 4500000, 587640, 4520000)
    beyond = shapely.box(588000, 4511500, 588050, 4511550)
    city = City(tmp_path, [PLACE])
    city.prepare(
        write_geojson(tmp_path / "b.geojson", [SQUARE, beyond], epsg=32618),
        write_geojson(tmp_path / "a.geojson", [western], epsg=32618),
    )
    expected = np.full((128, 128), IGNORE, np.uint8)
    expected[:, :64] = 0
    expected[42:50, 10:19] = 1
    expected[45:50, 100:105] = 1
    np.testing.assert_array_equal(city.mask(), expected)


def test_a_parent_without_buildings_is_a_true_negative(tmp_path: Path) -> None:
    empty, outside = Parent("P2", 32618, 590000.0, 4512000.0), Parent("P3", 32618, 620000.0, 4512000.0)
    city = City(tmp_path, [PLACE, empty, outside])
    around = write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618)
    city.prepare(write_geojson(tmp_path / "b.geojson", [SQUARE], epsg=32618), around)
    assert (city.mask(1) == 0).all()
    assert (city.mask(2) == IGNORE).all()


@pytest.mark.parametrize("rule", ["centre", "all_touched", "area"])
def test_sub_chips_mosaic_to_the_parent_without_a_seam(tmp_path: Path, rule: str) -> None:
    """Also for buildings across the edges of sub-chips and of the parent."""
    generator = np.random.default_rng(8)
    centres = generator.uniform([586950, 4510700], [588330, 4512050], (150, 2))
    shapes = [shapely.Point(x, y).buffer(generator.uniform(4, 60), quad_segs=3) for x, y in centres]
    city = City(tmp_path, [PLACE], rule=rule)
    gpd.GeoDataFrame({"feature_code": [2100] * 150}, geometry=shapes, crs=32618).to_parquet(tmp_path / "b.parquet")
    city.prepare(tmp_path / "b.parquet", write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618))
    mask = city.mask()
    whole = building_mask(np.array(shapes), np.ones((128, 128), bool), target_of(128, 128, 587000, 4512000), rule)
    np.testing.assert_array_equal(mask, whole)
    for piece in subchips(PLACE, Grid(10, 128, 4)):
        with rasterio.open(tmp_path / "chips" / "MASK_BUILDINGS" / f"{piece.chip_id}.tif") as source:
            cut = source.read(1)
            assert source.tags()["rule"] == rule
        np.testing.assert_array_equal(cut, mask[piece.row_slice, piece.col_slice])
        # and a sub-chip rasterized by itself is the same: no rule depends on where the picture ends
        alone = rasterize_polygons(
            np.array(shapes), target_of(32, 32, piece.geobox.affine.c, piece.geobox.affine.f), rule
        )
        np.testing.assert_array_equal(alone, cut == 1)


def test_of_the_sheet_only_the_places_count(tmp_path: Path) -> None:
    """A filled split column leaves the prepared files as they are, to the byte; what lies elsewhere is not there."""
    source = write_geojson(tmp_path / "b.geojson", [SQUARE, shapely.box(620000, 4511000, 620010, 4511010)], epsg=32618)
    around = write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618)
    written = []
    for name, split in (("one", None), ("more", "train")):
        (tmp_path / name).mkdir()
        city = City(tmp_path / name, [PLACE])
        if split:
            write_split = city.sheet.read_text().replace("top", "top\tsplit").rstrip() + f"\t{split}\n"
            city.sheet.write_text(write_split)
        facts = city.prepare(source, around)
        assert (facts["kept"], facts["dropped"]["elsewhere"]) == (1, 1)
        written.append([path.read_bytes() for path in (city.footprints, city.boundary, city.folder / "summary.json")])
    assert written[0] == written[1]


def test_parents_in_several_zones(tmp_path: Path) -> None:
    """Footprints are kept in degrees then, and each parent reprojects its own."""
    west, east = Parent("W1", 32617, 290000.0, 4512000.0), Parent("E1", 32618, 587000.0, 4512000.0)
    there = gpd.GeoSeries([shapely.box(290100, 4511500, 290190, 4511580)], crs=32617).to_crs(4326)
    here = gpd.GeoSeries([SQUARE], crs=32618).to_crs(4326)
    source = write_geojson(tmp_path / "b.geojson", [there[0], here[0]])
    city = City(tmp_path, [west, east])
    facts = city.prepare(source, write_geojson(tmp_path / "a.geojson", [shapely.box(-85, 38, -70, 43)]))
    assert facts["epsg"] == 4326
    assert facts["area_km2"] == pytest.approx(2 * 90 * 80 / 1e6, rel=3e-3)
    expected = np.zeros((128, 128), np.uint8)
    expected[42:50, 10:19] = 1
    np.testing.assert_array_equal(city.mask(0), expected)
    np.testing.assert_array_equal(city.mask(1), expected)


@pytest.mark.parametrize("rule", ["centre", "all_touched", "area"])
def test_what_is_neither_building_nor_ground_is_ignored(tmp_path: Path, rule: str) -> None:
    """A garage, a marked building and a demolished one are 255, but never over a building; a canopy is ground here."""
    codes = [2100, 5110, 1001, 2100, 2100]
    status = ["Constructed", "Constructed", "Constructed", "MARKED for demolition", None]
    gone = [None, None, None, None, 2020]
    shapes = [shapely.box(587000 + 100 * i, 4511900, 587050 + 100 * i, 4511950) for i in range(5)]
    shapes[1] = shapely.box(587020, 4511900, 587150, 4511950)  # over the first
    columns = {"feature_code": codes, "last_status_type": status, "demolition_year": gone}
    gpd.GeoDataFrame(columns, geometry=shapes, crs=32618).to_file(tmp_path / "b.gpkg")
    city = City(tmp_path, [PLACE], ground_feature_codes=[1001], rule=rule, fraction_layer=True)
    facts = city.prepare(tmp_path / "b.gpkg", write_geojson(tmp_path / "a.json", [AROUND], epsg=32618))
    assert (facts["kept"], facts["ignored"], facts["dropped"]["ground"]) == (4, 2, 1)
    expected = np.zeros(50, np.uint8)
    expected[:5] = 1
    expected[5:15] = expected[30:35] = expected[40:45] = IGNORE
    out = city.rasterize()
    with rasterio.open(out) as source, rasterio.open(out.with_name("FRACTION_BUILDINGS.tif")) as covered:
        np.testing.assert_array_equal(source.read(1)[7, :50], expected)
        np.testing.assert_array_equal(np.isnan(covered.read(1)[7, :50]), expected == IGNORE)


def test_what_was_torn_down_before_the_image_is_ground(tmp_path: Path) -> None:
    shapes = [shapely.box(587000 + 100 * i, 4511900, 587050 + 100 * i, 4511950) for i in range(3)]
    columns = {"feature_code": [2100] * 3, "demolition_year": [2020, 2022, 2023]}
    gpd.GeoDataFrame(columns, geometry=shapes, crs=32618).to_file(tmp_path / "b.gpkg")
    city = City(tmp_path, [PLACE], standing_only=True)
    city.prepare(tmp_path / "b.gpkg", write_geojson(tmp_path / "a.json", [AROUND], epsg=32618))
    with rasterio.open(city.rasterize(scenes=scenes_of(tmp_path, "2022-06-30T15:40:00Z"))) as source:
        assert source.read(1)[7, :30:10].tolist() == [0, IGNORE, 1]
        assert source.tags()["demolished_left_out"] == "1"


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("part", ["shp", "dbf"])
def test_a_cut_shapefile_is_refused(tmp_path: Path, part: str) -> None:
    """Cut in the middle it opens all the same: without geometries (.shp), or with fewer rows than it announces."""
    shapes = [shapely.box(587000 + 5 * i, 4511000, 587004 + 5 * i, 4511010) for i in range(202)]
    gpd.GeoDataFrame({"FEAT_CODE": [2100] * 202}, geometry=shapes, crs=32618).to_file(tmp_path / "b.shp")
    path = tmp_path / f"b.{part}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.515)])
    message = refuse(tmp_path, tmp_path / "b.shp")
    lost = {"shp": "without geometry", "dbf": "announced but not there"}[part]
    assert f"of 202 rows are lost ({message.partition('(')[2].split()[0]} {lost})" in message
    assert "max_lost_percent (1) allows" in message


def test_broken_geometries_in_parquet_are_refused(tmp_path: Path) -> None:
    wkb = shapely.to_wkb(np.array([SQUARE] * 200))
    wkb[1:] = [value[:20] for value in wkb[1:]]
    frame = rows().iloc[[0] * 200].reset_index(drop=True)
    frame.to_parquet(tmp_path / "b.parquet")
    table = pq.read_table(tmp_path / "b.parquet")
    place = table.column_names.index("geometry")
    pq.write_table(table.set_column(place, "geometry", pa.array(wkb, pa.binary())), tmp_path / "b.parquet")
    assert "199 of 200 rows are lost (199 unreadable)" in refuse(tmp_path, tmp_path / "b.parquet")


def test_a_boundary_without_area_is_refused(tmp_path: Path) -> None:
    flat = shapely.Polygon([(587000, 4511000), (588000, 4512000), (587000, 4511000)])
    gpd.GeoDataFrame(geometry=[flat], crs=32618).to_parquet(tmp_path / "flat.parquet")
    assert "the boundary has no area" in refuse(tmp_path, write_as("gpkg", tmp_path), tmp_path / "flat.parquet")


def refuse(tmp_path: Path, source: Path, boundary: Path | None = None, **config: Any) -> str:
    """Prepare, and give the one line of the refusal; nothing must be left behind."""
    around = boundary or write_geojson(tmp_path / "around.geojson", [AROUND], epsg=32618)
    city = City(tmp_path, [PLACE], **config)
    with pytest.raises(CityHeadsError) as error:
        city.prepare(source, around)
    message = str(error.value)
    assert "\n" not in message
    assert not city.footprints.exists()
    assert not city.boundary.exists()
    assert not (tmp_path / "summary.json").exists()
    return message


def test_missing_empty_and_unreadable_files(tmp_path: Path) -> None:
    assert "absent.geojson: no such vector file" in refuse(tmp_path, tmp_path / "absent.geojson")
    (tmp_path / "empty.geojson").write_bytes(b"")
    assert "the file is empty" in refuse(tmp_path, tmp_path / "empty.geojson")
    (tmp_path / "noise.gpkg").write_bytes(b"\x00\x01noise" * 100)
    assert "cannot be read" in refuse(tmp_path, tmp_path / "noise.gpkg")
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 noise")
    assert "cannot be read as Parquet" in refuse(tmp_path, tmp_path / "noise.parquet")


@pytest.mark.parametrize("kind", ["geojson", "gpkg", "parquet"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = write_as(kind, tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    assert "cannot be read" in refuse(tmp_path, path)


def test_zero_rows(tmp_path: Path) -> None:
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert "holds no" in refuse(tmp_path, tmp_path / "b.geojson")
    (tmp_path / "b.csv").write_text("the_geom,BIN,FEAT_CODE\n")
    assert "holds no rows" in refuse(tmp_path, tmp_path / "b.csv")
    rows().iloc[:0].to_parquet(tmp_path / "b.parquet")
    assert "holds no rows" in refuse(tmp_path, tmp_path / "b.parquet")


def test_no_polygons(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "b.geojson", [shapely.Point(587100, 4511500)], epsg=32618)
    assert "holds no polygons" in refuse(tmp_path, path)
    good = write_as("geojson", tmp_path)
    line = write_geojson(
        tmp_path / "line.geojson", [shapely.LineString([(587000, 4511000), (588000, 4512000)])], epsg=32618
    )
    assert "line.geojson: holds no polygons" in refuse(tmp_path, good, line)


def test_csv_without_a_geometry_column(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("BIN,FEAT_CODE,shape_area\n1,2100,12\n")
    message = refuse(tmp_path, tmp_path / "b.csv")
    assert "no geometry column" in message
    assert "BIN, FEAT_CODE, shape_area" in message


def test_no_crs_where_none_can_be_assumed(tmp_path: Path) -> None:
    rows().to_file(tmp_path / "b.shp")
    (tmp_path / "b.prj").unlink()
    assert "b.shp: has no CRS" in refuse(tmp_path, tmp_path / "b.shp")


def test_unknown_feature_codes(tmp_path: Path) -> None:
    path = write_as("geojson", tmp_path)
    message = refuse(tmp_path, path, feature_codes=[9999])
    assert "labels.BUILDINGS.feature_codes [9999] and stands; they have 2100 (2)" in message
    bare = write_geojson(tmp_path / "bare.geojson", [SQUARE], [{"name": "a"}], epsg=32618)
    assert "no feature code column" in refuse(tmp_path, bare)
    assert City(tmp_path, [PLACE], feature_codes=[]).prepare(bare, tmp_path / "around.geojson")["kept"] == 1


def test_footprints_or_boundary_of_another_city(tmp_path: Path) -> None:
    elsewhere = write_geojson(tmp_path / "b.geojson", [shapely.box(10, 50, 10.001, 50.001)])
    assert "none of its 1 footprints lies in a parent" in refuse(tmp_path, elsewhere)
    assert "meets no parent" in refuse(tmp_path, write_as("geojson", tmp_path), elsewhere)


def test_prepared_files_that_are_not_ours(tmp_path: Path) -> None:
    city = City(tmp_path, [PLACE])
    around = write_geojson(tmp_path / "a.geojson", [AROUND], epsg=32618)
    city.prepare(write_as("geojson", tmp_path), around)
    whole = city.footprints.read_bytes()
    city.footprints.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CityHeadsError, match=r"footprints.parquet: cannot be read as Parquet"):
        city.mask()
    gpd.pd.DataFrame({"a": [1]}).to_parquet(city.footprints)
    with pytest.raises(CityHeadsError, match=r"not a file that prepare_footprints wrote"):
        city.mask()
    city.footprints.unlink()
    with pytest.raises(CityHeadsError, match=r"footprints.parquet: no such file; prepare_footprints writes it"):
        city.mask()


def test_several_layers_are_not_guessed_at(tmp_path: Path) -> None:
    rows().to_file(tmp_path / "b.gpkg", layer="one")
    rows().to_file(tmp_path / "b.gpkg", layer="two")
    with pytest.raises(CityHeadsError, match="holds the layers one, two"):
        read_vectors(tmp_path / "b.gpkg")
    assert len(read_vectors(tmp_path / "b.gpkg", layer="two").geometry) == 2
    with pytest.raises(CityHeadsError, match="no layer 'three'; there are one, two"):
        read_vectors(tmp_path / "b.gpkg", layer="three")


# ----------------------------------------------------------------------------------------- dates and covered fractions

WEST = shapely.box(586000, 4510000, 587640, 4513000)


def dated(folder: Path, shapes: list[Any], years: list[Any], **label: Any) -> City:
    """Prepare buildings of some years; only the west has been surveyed."""
    columns = {"feature_code": [2100] * len(shapes), "construction_year": years}
    gpd.GeoDataFrame(columns, geometry=shapes, crs=32618).to_file(folder / "b.gpkg")
    city = City(folder, [PLACE], **label)
    city.prepare(folder / "b.gpkg", write_geojson(folder / "a.geojson", [WEST], epsg=32618))
    return city


def scenes_of(folder: Path, when: str | None) -> Path:
    path = folder / "scenes.json"
    items = [] if when is None else [chosen_item("a", datetime=when)]
    SCENES.write(path, scene_choice(PLACE, {"S2L2A": chosen_layer(items)}))
    return path


def test_only_buildings_that_stood_when_the_image_was_taken(tmp_path: Path) -> None:
    shapes = [shapely.box(587000 + 100 * i, 4511900, 587050 + 100 * i, 4511950) for i in range(4)]
    years = [1931, 2022, 2023, None]
    city = dated(tmp_path, shapes, years, standing_only=True)
    with rasterio.open(city.rasterize(scenes=scenes_of(tmp_path, "2022-06-30T15:40:00Z"))) as source:
        mask, tags = source.read(1), source.tags()
    corners = [int(mask[5, 10 * i]) for i in range(4)]
    assert corners == [1, IGNORE, 0, 1], "of the scene's own year nobody knows"
    assert (tags["scene_year"], tags["newer_left_out"], tags["undated_kept"]) == ("2022", "1", "1")
    assert tags["same_year_ignored"] == "1"
    with pytest.raises(CityHeadsError, match="standing_only': needs --scenes"):
        city.rasterize()
    with pytest.raises(CityHeadsError, match=r"scenes.json: names no date of a Sentinel-2 scene"):
        city.rasterize(scenes=scenes_of(tmp_path, None))
    everyone = dated(tmp_path, shapes, years)
    assert (everyone.mask() == 1).sum() == 100


def test_the_covered_fraction_beside_the_mask(tmp_path: Path) -> None:
    shapes = [shapely.box(587005, 4511900, 587052, 4511950), shapely.box(588003, 4511900, 588010, 4511950)]
    out = dated(tmp_path, shapes, [1931, 1931], fraction_layer=True).rasterize()
    with rasterio.open(out.with_name("FRACTION_BUILDINGS.tif")) as source:
        fraction = source.read(1)
        assert np.isnan(source.nodata)
    np.testing.assert_allclose(fraction[5:10, :7], np.tile([0.5, 1, 1, 1, 1, 0.2, 0], (5, 1)), atol=1e-6)
    np.testing.assert_allclose(fraction[5:10, 100], 0.7, atol=1e-6)
    assert np.isnan(fraction[:, 64:100]).all(), "outside the surveyed area, and no building: unknown"
    with rasterio.open(tmp_path / "chips" / "FRACTION_BUILDINGS" / "P1_r0c3.tif") as source:
        np.testing.assert_array_equal(source.read(1), fraction[:32, 96:])
