"""The scene choice: what is looked at, what wins, what is written down, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from made_archive import (
    BANDS,
    LEFT,
    TOP,
    MadeArchive,
    Raster,
    choose,
    complete,
    config,
    s1_rasters,
    s2_rasters,
    select_config,
    sheet,
)

from cityheads.archive.catalogues.item import Item
from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.choose.sentinel2 import offset_dn
from cityheads.archive.choose.together import agree_scenes
from cityheads.config import load_config, resolve
from cityheads.core.artifacts.agreement import AGREEMENT
from cityheads.core.errors import CityHeadsError
from cityheads.verbs import VERBS


def ids(scenes: dict[str, Any], layer: str) -> list[str]:
    return [item["id"] for item in scenes["layers"][layer]["items"]]


def reasons(scenes: dict[str, Any], layer: str) -> dict[str, str]:
    return {entry["id"]: entry["reason"] for entry in scenes["layers"][layer]["rejected"]}


def add_s2(archive: MadeArchive, name: str, when: str, *, scl: Any = 4, left: float = LEFT, **properties: Any) -> None:
    known = {"eo:cloud_cover": 5.0, "s2:processing_baseline": "05.10", "platform": "Sentinel-2A", **properties}
    archive.add(
        "sentinel-2-l2a", name, s2_rasters(np.random.default_rng(1), left=left, scl=scl), datetime=when, **known
    )


def of_pass(day: str, tile: str = "18TWL") -> dict[str, Any]:
    """Give the properties of a tile of one overflight."""
    return {"s2:datatake_id": f"GS2A_{day}T154941_047272_N05.10", "s2:mgrs_tile": tile}


def cloudy(fraction: float) -> np.ndarray:
    """Make a classification whose northern part over the parent (32 rows of 20 m) is cloud, and nothing else."""
    codes = np.full((60, 60), 4, np.uint8)
    codes[: round(32 * fraction)] = 9
    return codes


def test_the_choice_holds_all_layers_with_hrefs_relative_to_the_catalogue(tmp_path: Path) -> None:
    scenes = choose(complete(tmp_path), tmp_path)
    assert scenes["format_version"] == 1
    assert scenes["parent"] == {"parent_id": "P1", "epsg": 32618, "left": LEFT, "top": TOP}
    assert scenes["simulated"] is False
    assert list(scenes["layers"]) == ["S2L2A", "S1RTC", "DEM", "LULC"]
    s2 = scenes["layers"]["S2L2A"]["items"][0]
    assert s2["offset_dn"] == 1000
    assert s2["assets"]["B02"] == "assets/S2_A/B02.tif"
    assert set(s2["assets"]) == {*BANDS, "SCL"}
    assert scenes["layers"]["LULC"]["items"][0]["assets"] == {"map": "assets/WC_A/map.tif"}
    assert scenes["layers"]["LULC"]["items"][0]["datetime"] is None
    assert scenes["layers"]["S2L2A"]["valid_fraction"] == 1
    assert scenes["layers"]["S2L2A"]["clear_fraction"] == 1
    for layer in scenes["layers"].values():
        assert all((tmp_path / href).exists() for item in layer["items"] for href in item["assets"].values())


def test_a_simulated_catalogue_says_so_in_the_choice(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.root["cityheads:simulated"] = True
    assert choose(archive, tmp_path)["simulated"] is True


def test_the_same_archive_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    for day in range(11, 18):
        add_s2(archive, f"S2_{day}", f"2024-07-{day}T15:50:00Z", scl=cloudy(0.5))
    choose(archive, tmp_path, workers=1)
    first = (tmp_path / "scenes" / "P1.json").read_bytes()
    choose(archive, tmp_path, workers=5)
    assert (tmp_path / "scenes" / "P1.json").read_bytes() == first


def test_clear_over_the_parent_beats_clear_over_the_tile(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    # the tile is nearly cloudless, but its cloud lies on the parent; and the other way round
    add_s2(archive, "CLOUD_HERE", "2024-07-15T15:50:00Z", scl=cloudy(0.75), **{"eo:cloud_cover": 1.0})
    clear_here = np.full((60, 60), 9, np.uint8)
    clear_here[:32, :32] = 4
    add_s2(archive, "CLEAR_HERE", "2024-06-01T15:50:00Z", scl=clear_here, **{"eo:cloud_cover": 39.0})
    scenes = choose(archive, tmp_path, S1RTC={"max_days": 99})
    assert ids(scenes, "S2L2A") == ["CLEAR_HERE"]
    assert scenes["layers"]["S2L2A"]["clear_fraction"] == 1
    assert reasons(scenes, "S2L2A") == {
        "CLOUD_HERE": "75.2 points (75.0 % cloud, 0.0 % missing, 1 days from 2024-07-16), the chosen one 9.0"
    }
    assert scenes["layers"]["S2L2A"]["cost"] == {
        "points": 8.968, "cloud_percent": 0.0, "missing_percent": 0.0, "days": 44.84, "cloud_points": 0.0,
        "missing_points": 0.0, "day_points": 8.968,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "taken"),
    [
        # 1/16 of the parent is cloud 0 days from the target: 6.25 points; the clear scene lies 75 days away: 15
        ({}, "CLOUD_NOW"),
        ({"points_per_day": 0.04}, "CLEAR_LATER"),
        ({"points_per_cloud_percent": 5.0}, "CLEAR_LATER"),
        ({"points_per_cloud_percent": 0.0, "points_per_day": 0.0}, "CLOUD_NOW"),  # equals: the nearer one
    ],
)
@pytest.mark.parametrize("workers", [1, 4])
def test_what_cloud_and_days_weigh_against_each_other_says_the_config(
    tmp_path: Path, weights: dict[str, float], taken: str, workers: int
) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    add_s2(archive, "CLOUD_NOW", "2024-07-16T00:00:00Z", scl=cloudy(1 / 16))
    add_s2(archive, "CLEAR_LATER", "2024-09-29T00:00:00Z")
    rule = {"cost": weights, "target_date": "2024-07-16"}
    assert ids(choose(archive, tmp_path, S2L2A=rule, S1RTC={"max_days": 99}, workers=workers), "S2L2A") == [taken]


def test_missing_ground_costs_and_the_tile_wide_cloud_stands_in_without_a_classification(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    add_s2(archive, "HALF", "2024-07-16T00:00:00Z", left=LEFT + 320, **{"eo:cloud_cover": 0.0})
    add_s2(archive, "HAZY", "2024-07-16T00:00:00Z", **{"eo:cloud_cover": 30.0})
    for item in archive.items["sentinel-2-l2a"]:
        item["properties"]["platform"] = item["id"]
    rule = {"scl_asset": None, "target_date": "2024-07-16"}
    scenes = choose(archive, tmp_path, S2L2A=rule)
    assert ids(scenes, "S2L2A") == ["HAZY"]
    assert reasons(scenes, "S2L2A")["HALF"].startswith("100.0 points (0.0 % cloud, 50.0 % missing, 0 days")
    assert scenes["layers"]["S2L2A"]["cost"]["points"] == 30
    lenient = rule | {"cost": {"points_per_missing_percent": 0.5}}
    assert ids(choose(archive, tmp_path, S2L2A=lenient), "S2L2A") == ["HALF"]


def test_among_equally_clear_scenes_the_nearest_to_the_target_date_wins(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "S2_JUNE", "2024-06-02T15:50:00Z")
    add_s2(archive, "S2_AUGUST", "2024-08-28T15:50:00Z")
    assert ids(choose(archive, tmp_path), "S2L2A") == ["S2_A"]
    near_june = choose(archive, tmp_path, S2L2A={"target_date": "2024-06-01"}, S1RTC={"max_days": 99})
    assert ids(near_june, "S2L2A") == ["S2_JUNE"]
    assert reasons(near_june, "S2L2A")["S2_AUGUST"] == ("89 days from 2024-06-01 cost as much as all of the chosen one")
    # the middle of the period is the default
    late = choose(archive, tmp_path, S2L2A={"datetime": "2024-08-01/2024-09-30"}, S1RTC={"max_days": 99})
    assert ids(late, "S2L2A") == ["S2_AUGUST"]


def test_items_outside_the_period_or_too_cloudy_are_rejected_with_the_reason(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "S2_WINTER", "2024-01-15T15:50:00Z")
    add_s2(archive, "S2_CLOUDS", "2024-07-16T15:50:00Z", **{"eo:cloud_cover": 71.5})
    add_s2(archive, "S2_ELSEWHERE", "2024-07-16T15:50:00Z", left=LEFT + 50_000)
    scenes = choose(archive, tmp_path)
    assert scenes["layers"]["S2L2A"]["considered"] == 3
    found = reasons(scenes, "S2L2A")
    assert found["S2_WINTER"] == "acquired 2024-01-15, outside 2024-05-01/2024-09-30"
    assert found["S2_CLOUDS"] == "tile cloud cover 71.5 % is above 40 %"
    assert "S2_ELSEWHERE" not in found


def test_tiles_of_one_pass_are_mosaicked_and_unneeded_ones_are_not(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    same: dict[str, Any] = {"s2:datatake_id": "GS2A_20240710T154941_047272_N05.10"}
    # 64 px parent: the eastern tile starts at column 16, the western one ends at column 24
    add_s2(archive, "EAST", "2024-07-10T15:50:00Z", left=LEFT + 160, **same, **{"s2:mgrs_tile": "18TXL"})
    add_s2(archive, "WEST", "2024-07-10T15:50:14Z", left=LEFT - 960, **same, **{"s2:mgrs_tile": "18TWL"})
    add_s2(archive, "FAR_WEST", "2024-07-10T15:50:14Z", left=LEFT - 1100, **same, **{"s2:mgrs_tile": "18TVL"})
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S2L2A") == ["EAST", "WEST"]
    assert scenes["layers"]["S2L2A"]["valid_fraction"] == 1
    assert "already covers" in reasons(scenes, "S2L2A")["FAR_WEST"]


def test_a_spare_tile_of_a_pass_that_lost_is_rejected_for_what_the_pass_lost_by(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    add_s2(archive, "CLEAR", "2024-07-10T15:50:00Z", **of_pass("20240710"))
    for name in ("CLOUDY_1", "CLOUDY_2"):
        add_s2(archive, name, "2024-07-15T15:50:00Z", scl=cloudy(0.5), **of_pass("20240715", name))
    found = reasons(choose(archive, tmp_path), "S2L2A")
    assert found["CLOUDY_1"] == found["CLOUDY_2"]
    assert found["CLOUDY_1"].startswith("50.2 points (50.0 % cloud")


def test_a_whole_pass_beats_a_nearer_half_one(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "HALF", "2024-07-16T15:50:00Z", left=LEFT + 320)
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S2L2A") == ["S2_A"]
    assert reasons(scenes, "S2L2A")["HALF"].startswith("100.0 points (0.0 % cloud, 50.0 % missing")


def test_the_newest_processing_of_a_tile_is_taken(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    for name, baseline in (("OLD", "04.00"), ("NEW", "05.10")):
        known = of_pass("20240710") | {"s2:processing_baseline": baseline}
        known["s2:datatake_id"] = known["s2:datatake_id"].replace("05.10", baseline)
        add_s2(archive, name, "2024-07-10T15:50:00Z", **known)
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S2L2A") == ["NEW"]
    assert reasons(scenes, "S2L2A") == {"OLD": "superseded by NEW"}


def test_two_products_of_one_tile_and_pass_that_lie_side_by_side_are_both_kept(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    for name, left in (("STRIP_1", LEFT - 960), ("STRIP_2", LEFT + 160)):
        add_s2(archive, name, "2024-07-10T15:50:00Z", left=left, **{
            "s2:datatake_id": "GS2A_20240710T154941_047272_N05.10", "s2:mgrs_tile": "18TWL"})  # fmt: skip
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S2L2A") == ["STRIP_2", "STRIP_1"]
    assert scenes["layers"]["S2L2A"]["valid_fraction"] == 1


def test_without_a_scene_classification_the_valid_fraction_of_a_band_decides(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "HALF", "2024-07-16T15:50:00Z", left=LEFT + 320)
    scenes = choose(archive, tmp_path, S2L2A={"scl_asset": None})
    assert ids(scenes, "S2L2A") == ["S2_A"]
    assert scenes["layers"]["S2L2A"]["clear_fraction"] is None
    assert "SCL" not in scenes["layers"]["S2L2A"]["items"][0]["assets"]


@pytest.mark.parametrize(
    ("rule", "properties", "expected"),
    [
        ("baseline", {"s2:processing_baseline": "03.01"}, 0),
        ("baseline", {"s2:processing_baseline": "04.00"}, 1000),
        ("baseline", {"s2:processing_baseline": "05.10"}, 1000),
        # as text, 10.00 comes before 04.00
        ("baseline", {"s2:processing_baseline": "10.00"}, 1000),
        # reprocessed: an old acquisition with a new baseline
        ("baseline", {"s2:processing_baseline": "05.00", "datetime": "2019-05-01T00:00:00Z"}, 1000),
        ("none", {"s2:processing_baseline": "05.10"}, 0),
        ("none", {}, 0),
        ("item", {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.10"}, 0),
        ("item", {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.10"}, 1000),
        ("item", {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "02.14"}, 0),
    ],
)
def test_the_offset_follows_the_items_baseline_not_its_date(
    rule: str, properties: dict[str, Any], expected: int
) -> None:
    assert offset_dn(Item({"id": "X", "properties": properties, "assets": {}}, "", ""), rule) == expected


@pytest.mark.parametrize(
    ("rule", "properties"),
    [("baseline", {}), ("baseline", {"s2:processing_baseline": "new"}), ("item", {"s2:processing_baseline": "05.10"})],
)
def test_an_unknown_offset_is_an_error_that_names_the_item(rule: str, properties: dict[str, Any]) -> None:
    with pytest.raises(CityHeadsError, match=r"item X: .*archive\.imagery\.S2L2A\.offset"):
        offset_dn(Item({"id": "X", "properties": properties, "assets": {}}, "", ""), rule)


def add_s1(archive: MadeArchive, name: str, when: str, orbit: str, number: int, *, px: int = 120) -> None:
    archive.add("sentinel-1-rtc", name, s1_rasters(np.random.default_rng(2), px=px), datetime=when,
                **{"sat:orbit_state": orbit, "platform": "SENTINEL-1A", "sat:absolute_orbit": number})  # fmt: skip


def test_radar_is_taken_near_the_optical_scene_in_the_preferred_direction_and_over_the_whole_parent(
    tmp_path: Path,
) -> None:
    archive = complete(tmp_path)  # ascending, 1.7 days before the optical scene
    add_s1(archive, "DESC_NEAR", "2024-07-10T10:50:00Z", "descending", 2)
    add_s1(archive, "ASC_NEARER_HALF", "2024-07-10T22:50:00Z", "ascending", 3, px=40)
    add_s1(archive, "ASC_LATE", "2024-07-25T22:50:00Z", "ascending", 4)
    assert ids(choose(archive, tmp_path), "S1RTC") == ["DESC_NEAR"]
    scenes = choose(archive, tmp_path, S1RTC={"orbit": "ascending"})
    assert ids(scenes, "S1RTC") == ["S1_A"]
    found = reasons(scenes, "S1RTC")
    assert found["ASC_LATE"] == "15.3 days from the Sentinel-2 scene, more than 12"
    # 40 x 40 of 64 x 64 px
    assert found["ASC_NEARER_HALF"] == "covers 39.1% of the parent, the chosen pass 100.0%"
    assert found["DESC_NEAR"] == "its direction is descending, and ascending is preferred"
    assert reasons(choose(archive, tmp_path), "S1RTC")["S1_A"] == (
        "1.7 days from the Sentinel-2 scene, the chosen pass 0.2"
    )
    assert ids(choose(archive, tmp_path, S1RTC={"orbit": "ascending", "max_days": 0.5}), "S1RTC") == ["DESC_NEAR"]


def test_an_optical_item_with_a_period_instead_of_a_time_is_dated_by_its_start(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    properties = archive.items["sentinel-2-l2a"][0]["properties"]
    properties["start_datetime"], properties["datetime"] = properties["datetime"], None
    properties["end_datetime"] = "2024-07-10T15:51:00Z"
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S2L2A") == ["S2_A"]
    assert scenes["layers"]["S1RTC"]["why"].startswith("100.0% valid; 1.7 days")


def test_a_single_polarisation_scene_is_passed_over(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s1(archive, "S1_SV", "2024-07-10T10:50:00Z", "ascending", 2)
    archive.items["sentinel-1-rtc"][-1]["properties"]["sar:polarizations"] = ["VV"]
    scenes = choose(archive, tmp_path)
    assert ids(scenes, "S1RTC") == ["S1_A"]
    assert reasons(scenes, "S1RTC")["S1_SV"] == "acquired without VH"


def spoil(archive: MadeArchive, name: str, how: str) -> None:
    """Spoil a band in a way that only reading shows, or only opening, or that no overview shows."""
    path = archive.folder / "assets" / f"{name}.tif"
    if how == "gone":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if how == "cut off":
        del content[len(content) // 2 :]
    else:
        with rasterio.open(path) as made:
            start, size = (int(made.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
        content[start : start + size] = bytes(255 for _ in range(size))
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut off", "damaged block"])
def test_a_scene_that_cannot_be_read_gives_way_to_the_next_best_and_says_so(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "BEST", "2024-07-15T15:50:00Z")
    add_s1(archive, "NEAREST", "2024-07-10T16:50:00Z", "ascending", 2)
    spoil(archive, "BEST/B11", how)
    spoil(archive, "NEAREST/vh", how)
    scenes = choose(archive, tmp_path)
    assert (ids(scenes, "S2L2A"), ids(scenes, "S1RTC")) == (["S2_A"], ["S1_A"])
    assert re.search(r"item BEST: band B11: .*(no such file|cannot be read)", reasons(scenes, "S2L2A")["BEST"])
    assert re.search(r"item NEAREST: band VH: .*(no such file|cannot be read)", reasons(scenes, "S1RTC")["NEAREST"])
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(" taken: ")[0] for line in warned] == [
        "P1: S2L2A: the next best pass is", "P1: S1RTC: the next best pass is",
    ]  # fmt: skip
    # without trying, what is wrong shows when it is read
    assert ids(choose(archive, tmp_path, verify="none"), "S2L2A") == ["BEST"]
    if how == "damaged block":
        assert ids(choose(archive, tmp_path, verify="headers"), "S2L2A") == ["BEST"]


def test_where_no_scene_can_be_read_the_choice_fails_with_the_reason(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    spoil(archive, "S2_A/SCL", "gone")
    with pytest.raises(CityHeadsError, match=r"none of 1 item.*S2_A: .*band SCL: .*no such file"):
        choose(archive, tmp_path)


def test_excluded_items_are_never_chosen(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    add_s2(archive, "BEST", "2024-07-15T15:50:00Z")
    add_s1(archive, "NEAREST", "2024-07-10T16:50:00Z", "ascending", 2)
    scenes = choose(archive, tmp_path, exclude=["BEST", "NEAREST"])
    assert (ids(scenes, "S2L2A"), ids(scenes, "S1RTC")) == (["S2_A"], ["S1_A"])
    told = "excluded by the config (archive.exclude)"
    assert reasons(scenes, "S2L2A") == {"BEST": told}
    assert reasons(scenes, "S1RTC")["NEAREST"] == told
    with pytest.raises(CityHeadsError, match=r"DEM: .*DEM_A: excluded by the config"):
        choose(archive, tmp_path, exclude=["DEM_A"])


def test_land_cover_is_the_newest_or_the_one_of_the_period(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    old = Raster(np.full((600, 600), 10, np.uint8), -73.96, 40.75, 1 / 12000, 4326, 0)
    archive.add("esa-worldcover", "WC_2020", {"map": old}, datetime=None,
                start_datetime="2020-01-01T00:00:00Z", end_datetime="2020-12-31T23:59:59Z")  # fmt: skip
    assert ids(choose(archive, tmp_path), "LULC") == ["WC_A"]
    used = config(lulc={"datetime": "2020-01-01/2020-12-31"})
    out = tmp_path / "2020.json"
    select_scenes(used, parents=sheet(tmp_path), parent="P1", catalog=str(archive.catalog), out=out)
    assert ids(json.loads(out.read_text()), "LULC") == ["WC_2020"]


def test_every_elevation_tile_under_the_parent_is_taken(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    whole = archive.items["cop-dem-glo-30"].pop()
    assert whole["id"] == "DEM_A"
    for name, west in (("DEM_W", -73.99), ("DEM_E", -73.93), ("DEM_FAR", -73.5)):
        tile = Raster(np.ones((216, 216), np.float32), west, 40.75, 1 / 3600, 4326)
        archive.add("cop-dem-glo-30", name, {"data": tile}, datetime="2021-04-22T00:00:00Z")
    assert sorted(ids(choose(archive, tmp_path), "DEM")) == ["DEM_E", "DEM_W"]


def drop_asset(collection: str, key: str) -> Callable[[MadeArchive], None]:
    return lambda archive: archive.items[collection][0]["assets"].pop(key)


def set_property(key: str, value: Any) -> Callable[[MadeArchive], None]:
    return lambda archive: archive.items["sentinel-2-l2a"][0]["properties"].__setitem__(key, value)


def set_href(href: str) -> Callable[[MadeArchive], None]:
    return lambda archive: archive.items["sentinel-2-l2a"][0]["assets"]["B05"].__setitem__("href", href)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda archive: archive.items.pop("sentinel-1-rtc"), r"no collection 'sentinel-1-rtc'; there are cop-dem"),
        (lambda archive: archive.items["sentinel-2-l2a"].clear(), r"P1: S2L2A: .*'sentinel-2-l2a': no item covers"),
        (lambda archive: archive.items["cop-dem-glo-30"].clear(), r"P1: DEM: .*'cop-dem-glo-30': no item covers"),
        (lambda archive: archive.items["esa-worldcover"].clear(), r"P1: LULC: .*'esa-worldcover': no item covers"),
        (drop_asset("sentinel-2-l2a", "B05"), r"collection sentinel-2-l2a: item S2_A: band B05: .*no asset 'B05'"),
        (drop_asset("sentinel-2-l2a", "SCL"), r"collection sentinel-2-l2a: item S2_A: band SCL: .*no asset 'SCL'"),
        (drop_asset("sentinel-1-rtc", "vh"), r"collection sentinel-1-rtc: item S1_A: band VH: .*no asset 'vh'"),
        (drop_asset("cop-dem-glo-30", "data"), r"collection cop-dem-glo-30: item DEM_A: band DEM: .*no asset 'data'"),
        (drop_asset("esa-worldcover", "map"), r"collection esa-worldcover: item WC_A: band map: .*no asset 'map'"),
        (set_property("s2:processing_baseline", None), r"item S2_A: no usable 's2:processing_baseline'"),
        (set_property("eo:cloud_cover", 90), r"none of 1 item.*S2_A: tile cloud cover 90"),
        (set_property("datetime", "yesterday"), r"item S2_A: property 'datetime': 'yesterday' is not a time"),
        (set_href("file:///etc/passwd"), r"item S2_A: band B05: href scheme 'file' is not allowed"),
        (set_href("ftp://example.org/B05.tif"), r"scheme 'ftp' is not allowed"),
        (set_href("/etc/passwd"), r"item S2_A: band B05: the path leaves the folder"),
        (set_href("../../../outside.tif"), r"item S2_A: band B05: the path leaves the folder"),
        (set_href("/vsicurl/http://example.org/B05.tif"), r"item S2_A: band B05: href is not a plain path or URL"),
        (set_href("https://user:secretword@example.org/B05.tif"), r"band B05: .*carries credentials"),
        (set_href("https://example.org/B05.tif?sig=secretword"), r"band B05: .*carries credentials"),
    ],
)
def test_a_bad_catalogue_is_one_line_that_names_what_is_wrong(
    tmp_path: Path, change: Callable[[MadeArchive], None], says: str
) -> None:
    archive = complete(tmp_path / "archive")
    change(archive)
    with pytest.raises(CityHeadsError, match=says) as caught:
        choose(archive, tmp_path)
    assert "\n" not in str(caught.value)
    assert "secretword" not in str(caught.value)
    assert not (tmp_path / "scenes" / "P1.json").exists()


def test_an_open_period_needs_a_target_date(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"S2L2A\.target_date"):
        choose(complete(tmp_path), tmp_path, S2L2A={"datetime": "2024-05-01/.."})
    scenes = choose(complete(tmp_path), tmp_path, S2L2A={"datetime": "2024-05-01/..", "target_date": "2024-07-01"})
    assert ids(scenes, "S2L2A") == ["S2_A"]


def test_real_samples_are_chosen_each_at_its_place(realdata: Path, repository: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((repository / "config" / "terramesh.yaml").read_text())
    catalog = realdata / "terramesh_catalog" / "catalog.json"
    raw["archive"] |= {"catalog": str(catalog), "asset_base": str(realdata)}
    used = resolve(raw)
    offsets = {}
    for place in ("433D_629L_3_1", "282D_485L_3_3", "38D_378R_2_3"):
        out = tmp_path / f"{place}.json"
        parents = repository / "config" / "terramesh_parents.tsv"
        select_scenes(used, parents=parents, parent=place, catalog=str(catalog), out=out)
        scenes = json.loads(out.read_text())
        assert list(scenes["layers"]) == ["S2L2A", "S1RTC", "DEM", "LULC", "BUILDINGS"]
        for layer in scenes["layers"].values():
            assert [item["id"].rpartition("_")[0] for item in layer["items"]] == [place]
            assert layer["considered"] == 1
        assert scenes["layers"]["S2L2A"]["items"][0]["assets"]["B02"] == f"terramesh_catalog/assets/{place}/B02.tif"
        offsets[place] = scenes["layers"]["S2L2A"]["items"][0]["offset_dn"]
    assert offsets == {"433D_629L_3_1": 1000, "282D_485L_3_3": 0, "38D_378R_2_3": 0}


@pytest.mark.parametrize("name", ["nyc", "nyc-lite", "nyc-earth-search", "terramesh"])
def test_the_real_configs_are_valid_and_their_sheets_fit(repository: Path, name: str) -> None:
    from cityheads.core.grid import read_parents

    loaded = load_config(repository / "config" / f"{name}.yaml")
    parents = read_parents(repository / loaded.parents, loaded.grid.grid)
    assert len(parents) == {"nyc-lite": 6, "terramesh": 3}.get(name, 22)
    if name == "nyc-lite":
        whole = read_parents(repository / "config" / "parents.tsv", loaded.grid.grid)
        places = {(one.parent_id, one.left, one.top) for one in whole}
        assert {(one.parent_id, one.left, one.top) for one in parents} <= places


# --- choices made together --------------------------------------------------------------------------------------------


def three_parents(folder: Path) -> Path:
    """Write a sheet of three parents in a row from west to east."""
    path = folder / "parents.tsv"
    rows = "".join(f"P{number}\t32618\t{LEFT + 640 * (number - 1)}\t{TOP}\n" for number in (1, 2, 3))
    path.write_text(f"parent_id\tepsg\tleft\ttop\n{rows}")
    return path


def city(folder: Path) -> MadeArchive:
    """Make an archive over three parents, each of which is best on a day of its own."""
    archive = complete(folder)
    for items in ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"):
        archive.items[items].clear()
    hills = Raster(np.ones((400, 400), np.float32), -73.97, 40.76, 1 / 3600, 4326)
    archive.add("cop-dem-glo-30", "DEM", {"data": hills}, datetime="2021-04-22T00:00:00Z")
    rng = np.random.default_rng(5)
    # cloud in eighths over each parent (32 columns of 20 m each); 60 days lie between first and last
    for name, day, eighths in (
        ("MAY", "2024-05-20", (0, 4, 4)),
        ("JULY", "2024-07-18", (1, 1, 1)),
        ("JULY_LATE", "2024-07-21", (4, 0, 4)),
        ("AUGUST", "2024-08-25", (8, 8, 0)),
    ):
        codes = np.full((110, 110), 4, np.uint8)
        for number, share in enumerate(eighths):
            codes[: 4 * share, 32 * number : 32 * (number + 1)] = 9
        archive.add("sentinel-2-l2a", name, s2_rasters(rng, px=220, scl=codes), datetime=f"{day}T15:50:00Z", **{
            "eo:cloud_cover": 5.0, "s2:processing_baseline": "05.10", "platform": "Sentinel-2A"})  # fmt: skip
    for name, day, orbit, number in (
        ("A33", "2024-07-17", 33, 1), ("A33_MAY", "2024-05-18", 33, 2), ("A33_AUGUST", "2024-08-26", 33, 4),
        ("A106", "2024-07-18", 106, 3),
    ):  # fmt: skip
        # the swath of orbit 106 ends within the second parent
        px = 100 if orbit == 106 else 220
        archive.add("sentinel-1-rtc", name, s1_rasters(rng, px=px), datetime=f"{day}T15:00:00Z", **{
            "sat:orbit_state": "ascending", "sat:relative_orbit": orbit, "sat:absolute_orbit": number,
            "platform": "SENTINEL-1A"})  # fmt: skip
    return archive


def together(folder: Path, archive: MadeArchive, parents: Path, agreement: Path | None, **keys: Any) -> dict[str, Any]:
    """Choose for the three parents and give the choices."""
    used = select_config(together=keys, S2L2A={"target_date": "2024-07-16"}, S1RTC={"max_days": 12}, verify="none")
    found = {}
    for parent in ("P1", "P2", "P3"):
        out = folder / f"{parent}.json"
        select_scenes(used, parents=parents, parent=parent, catalog=str(archive.catalog), agreement=agreement, out=out)
        found[parent] = json.loads(out.read_text())
    return found


def test_choices_made_together_share_dates_and_orbit_where_that_costs_not_too_much(tmp_path: Path) -> None:
    archive, parents = city(tmp_path), three_parents(tmp_path)
    archive.write()
    apart = together(tmp_path, archive, parents, None)
    # 12.5 points of cloud in July against 11.4 points of days in May and 8 in August
    assert [ids(one, "S2L2A") for one in apart.values()] == [["MAY"], ["JULY_LATE"], ["AUGUST"]]
    keys = {"window_days": 5, "relative_orbit": True}
    used = config(together=keys, S2L2A={"target_date": "2024-07-16"}).restricted_to(VERBS["agree_scenes"].sections)
    out = tmp_path / "agreement.json"
    agree_scenes(used, parents=parents, catalog=str(archive.catalog), out=out)
    assert json.loads(out.read_text()) == {
        "format_version": 1,
        "parents": ["P1", "P2", "P3"],
        "window": {"start": "2024-07-18T15:50:00+00:00", "end": "2024-07-23T15:50:00+00:00", "parents": 3},
        # 106 is nearer in time, and covers one parent
        "orbits": {"S1RTC": {"relative_orbit": 33, "orbit_state": "ascending", "parents": 3}},
    }
    same = together(tmp_path, archive, parents, out, **keys)
    assert [ids(one, "S2L2A") for one in same.values()] == [["JULY"], ["JULY_LATE"], ["JULY"]]
    assert [ids(one, "S1RTC") for one in same.values()] == [["A33"]] * 3
    assert reasons(same["P1"], "S2L2A")["MAY"].endswith("but outside the dates that all parents agreed on")
    assert reasons(same["P1"], "S1RTC")["A106"] == "its relative orbit is 106, and all parents agreed on 33"
    assert "within the agreed 2024-07-18 to 2024-07-23" in same["P1"]["layers"]["S2L2A"]["why"]
    # one that loses too much goes its own way, and says so
    strict = together(tmp_path, archive, parents, out, **keys, tolerance_points=3)
    assert [ids(one, "S2L2A") for one in strict.values()] == [["JULY"], ["JULY_LATE"], ["AUGUST"]]
    assert "none that is good enough here" in strict["P3"]["layers"]["S2L2A"]["why"]


def test_a_bad_scene_within_the_window_gives_way_to_the_next_best_there(tmp_path: Path) -> None:
    archive, parents = city(tmp_path), three_parents(tmp_path)
    archive.write()
    out = tmp_path / "agreement.json"
    AGREEMENT.write(out, {"parents": [], "orbits": {}, "window": {
        "start": "2024-07-18T00:00:00+00:00", "end": "2024-07-22T00:00:00+00:00", "parents": 3}})  # fmt: skip
    spoil(archive, "JULY_LATE/SCL", "gone")
    found = together(tmp_path, archive, parents, out, window_days=4)
    assert ids(found["P2"], "S2L2A") == ["JULY"]
    assert "no such file" in reasons(found["P2"], "S2L2A")["JULY_LATE"]
