"""The simulated archive: valid STAC, the real products' shapes, and the physics and faults that it promises."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import multiprocessing
import signal
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from pyproj import Transformer
from scipy.ndimage import uniform_filter

from cityheads.config import Config, SimulateConfig, resolve
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import read_parents
from cityheads.core.modalities import SCL_CLEAR
from cityheads.simulate import archive as simulate
from cityheads.simulate import catalog, fields, pixels, plan, spectra, vectors, world
from cityheads.simulate.archive import simulate_archive
from cityheads.verbs import VERBS

CONFIG: dict[str, Any] = {
    "grid": {"parent_px": 128, "chips_per_side": 4},
    "archive": {"provider": "simulated"},
    "labels": {
        "L": {"kind": "footprints", "classes": [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}]}
    },
    "heads": {"l": {"label": "L"}},
    "runs": {"multihead": {"heads": ["l"]}, "l": {"heads": ["l"]}},
}  # fmt: skip
BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
GSD = dict(zip(BANDS, [60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20], strict=True)) | {"SCL": 20}


def made_config(**changes: Any) -> Config:
    config = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *keys, last = path.split("__")
        part = config
        for key in keys:
            part = part.setdefault(key, {})
        part[last] = value
    if "imagery" in config["archive"]:
        config["model"] = {"modalities": list(config["archive"]["imagery"])}
    return resolve(config).restricted_to(VERBS["simulate_archive"].sections)


def write_sheet(path: Path, rows: list[tuple[str, int, float, float]]) -> Path:
    path.write_text("parent_id\tepsg\tleft\ttop\n" + "".join(f"{a}\t{b}\t{c}\t{d}\n" for a, b, c, d in rows))
    return path


NINE = [(f"P{k}", 32618, 588160 + 4000 * (k % 3), 4520240 - 4000 * (k // 3)) for k in range(9)]
TWO = [("north", 32618, 583960.0, 4507430.0), ("south", 32618, 587000.0, 4507430.0)]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Archive:
    """An archive on disk, read with tools that are not ours."""

    def __init__(self, folder: Path, sheet: Path, used: Config) -> None:
        self.folder, self.config = folder, used
        self.grid = used.grid.grid
        self.parents = read_parents(sheet, self.grid)
        self.plan = plan.make_plan(used, self.parents)

    @functools.cached_property
    def items(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.folder.glob("*/*/*.json")):
            item = json.loads(path.read_text())
            found.setdefault(item["collection"], []).append(item)
        return found

    def of(self, name: str, collection: str) -> list[dict[str, Any]]:
        return [
            item for item in self.items[collection] if item["properties"]["title"].split(",")[0].endswith(f" {name}")
        ]

    def path(self, item: dict[str, Any], asset: str) -> Path:
        return self.folder / item["collection"] / item["id"] / item["assets"][asset]["href"]

    def read(self, item: dict[str, Any], asset: str) -> np.ndarray:
        with rasterio.open(self.path(item, asset)) as source:
            return source.read(1)

    def on_parent(self, place: plan.Place, item: dict[str, Any], asset: str) -> np.ndarray:
        """Bring a layer onto the parent's grid, nearest neighbour; nodata (or 0) outside."""
        side = self.grid.parent_px
        transform = rasterio.transform.from_origin(place.parent.left, place.parent.top, 10, 10)
        with rasterio.open(self.path(item, asset)) as source:
            nodata = source.nodata or 0
            target = np.full((side, side), nodata, source.dtypes[0])
            rasterio.warp.reproject(
                rasterio.band(source, 1), target, dst_transform=transform, dst_crs=f"EPSG:{place.parent.epsg}",
                dst_nodata=nodata, resampling=rasterio.warp.Resampling.nearest,
            )  # fmt: skip
        return target

    def buildings_on_parent(self, place: plan.Place) -> np.ndarray:
        """Rasterize the exported footprints by pixel centre."""
        to = Transformer.from_crs(4326, place.parent.epsg, always_xy=True)
        shapes = shapely.transform(self.footprints, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))
        side = self.grid.parent_px
        return rasterio.features.rasterize(
            ((shape, 1) for shape in shapes), out_shape=(side, side),
            transform=rasterio.transform.from_origin(place.parent.left, place.parent.top, 10, 10), dtype="uint8",
        )  # fmt: skip

    @functools.cached_property
    def features(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "footprints.geojson").read_text())["features"]

    @functools.cached_property
    def footprints(self) -> np.ndarray:
        shapes = [shapely.geometry.shape(f["geometry"]) for f in self.features if f["geometry"] is not None]
        return np.array([shape for shape in shapes if shape.is_valid], dtype=object)

    @functools.cached_property
    def boundary(self) -> shapely.Geometry:
        features = json.loads((self.folder / "boundary.geojson").read_text())["features"]
        return shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in features])


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("nine")
    sheet = write_sheet(folder / "parents.tsv", NINE)
    used = made_config()
    simulate_archive(used, parents=sheet, out=folder / "archive")
    return Archive(folder / "archive", sheet, used)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("two")
    sheet = write_sheet(folder / "parents.tsv", TWO)
    used = made_config(grid__parent_px=64)
    simulate_archive(used, parents=sheet, out=folder / "archive")
    return Archive(folder / "archive", sheet, used)


class TestCatalog:
    def test_pystac_reads_it_and_every_link_and_asset_is_there(self, nine: Archive) -> None:
        root = pystac.Catalog.from_file(nine.folder / "catalog.json")
        assert root.extra_fields["cityheads:simulated"] is True
        assert {child.id for child in root.get_children()} == {
            "sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30", "esa-worldcover",
        }  # fmt: skip
        count = 0
        for item in root.get_items(recursive=True):
            # the extensions' schemas lie on the internet; the core schema comes with pystac
            bare = pystac.Item.from_dict(item.to_dict() | {"stac_extensions": []})
            bare.validate()
            assert item.properties["cityheads:simulated"] is True
            assert "imulated" in item.properties["title"]
            assert "imulated" in item.properties["description"]
            assert item.get_parent().id == item.collection_id
            for asset in item.assets.values():
                assert Path(asset.get_absolute_href()).is_file()
            count += 1
        assert count == sum(map(len, nine.items.values()))
        assert len({item["id"] for found in nine.items.values() for item in found}) == count

    def test_projection_fields_and_footprints_are_those_of_the_rasters(self, nine: Archive) -> None:
        for found in nine.items.values():
            for item in found:
                for key, asset in item["assets"].items():
                    with rasterio.open(nine.path(item, key)) as source:
                        fields_of = item["properties"] | asset
                        assert source.crs.to_epsg() == fields_of["proj:epsg"]
                        assert list(source.shape) == fields_of["proj:shape"]
                        assert list(source.transform)[:6] == pytest.approx(fields_of["proj:transform"][:6], abs=1e-9)
                        # a strip is one row or a few rows high, a tile a multiple of 16
                        assert source.block_shapes[0][0] % 16 == 0
                        assert source.block_shapes[0][0] == source.block_shapes[0][1]
                        assert source.compression.value == "DEFLATE"
                        box = shapely.box(*rasterio.warp.transform_bounds(source.crs, 4326, *source.bounds))
                    footprint = shapely.geometry.shape(item["geometry"])
                    assert footprint.is_valid
                    # a UTM square is turned a little in degrees: the bounding box is larger by that
                    assert footprint.within(box.buffer(1e-6))
                    assert footprint.bounds == pytest.approx(item["bbox"], abs=1e-7)

    def test_native_resolutions_lattice_and_windows_off_the_edge(self, nine: Archive) -> None:
        for item in nine.items["sentinel-2-l2a"]:
            assert sorted(item["assets"]) == sorted([*BANDS, "SCL"])
            for key, gsd in GSD.items():
                transform = item["assets"][key]["proj:transform"]
                assert (transform[0], transform[4]) == (gsd, -gsd)
                assert transform[2] % 60 == 0
                assert transform[5] % 60 == 0
        for place in nine.plan.places:
            west, south, east, north = place.frame.bounds
            assert west <= place.parent.left - 100 < east
            assert north >= place.parent.top + 100 > south
        for item in nine.items["cop-dem-glo-30"]:
            t = item["properties"]["proj:transform"]
            assert t[0] == pytest.approx(1 / 3600, rel=1e-12)
            assert (t[2] * 3600 - 0.5) == pytest.approx(round(t[2] * 3600 - 0.5), abs=1e-6)
        for item in nine.items["esa-worldcover"]:
            t = item["assets"]["map"]["proj:transform"]
            assert t[0] == pytest.approx(1 / 12000, rel=1e-12)
            assert (t[2] * 12000) == pytest.approx(round(t[2] * 12000), abs=1e-6)

    @pytest.mark.parametrize(
        ("collection", "file"),
        [
            ("sentinel-2-l2a", "sentinel-2-l2a-pc.json"),
            ("sentinel-1-rtc", "sentinel-1-rtc-pc.json"),
            ("cop-dem-glo-30", "cop-dem-glo-30-pc.json"),
        ],
    )
    def test_properties_and_assets_have_the_real_items_keys(
        self, nine: Archive, realdata: Path, collection: str, file: str
    ) -> None:
        real = json.loads((realdata / "stac_pc" / file).read_text())
        real = (real["features"] if isinstance(real, dict) else real)[0]
        for item in nine.items[collection]:
            assert set(real["properties"]) <= set(item["properties"])
            for key, asset in item["assets"].items():
                assert set(real["assets"][key]) - {"file:size", "file:checksum"} <= set(asset)
            if collection == "sentinel-2-l2a":
                assert len(item["id"]) == len(real["id"])
                for band in BANDS:
                    assert item["assets"][band]["eo:bands"] == real["assets"][band]["eo:bands"]

    def test_names_follow_the_config(self, tmp_path: Path) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", TWO)
        used = made_config(
            grid__parent_px=64,
            archive__imagery={
                "S2L2A": {"collection": "s2-mine", "assets": {"B02": "blue"}, "scl_asset": None},
                "S1RTC": {"collection": "s1-mine", "assets": {"VV": "co", "VH": "cross"}, "units": "db"},
            },
        )
        simulate_archive(used, parents=sheet, out=tmp_path / "archive")
        archive = Archive(tmp_path / "archive", sheet, used)
        assert set(archive.items) == {"s2-mine", "s1-mine", "esa-worldcover"}
        assert set(archive.items["s2-mine"][0]["assets"]) == {"blue", *BANDS} - {"B02"}
        assert not list(archive.folder.rglob("*SCL*"))
        for item in archive.items["s1-mine"]:
            power = archive.read(item, "co")
            assert -30 < np.median(power[power > -1000]) < 0

    @pytest.mark.parametrize(
        ("epsg", "easting", "northing", "lat", "name"),
        [
            # tiles of the real samples, and textbook squares on both hemispheres
            (32618, 588160, 4503360, 40.7, "18TWL"),
            (32618, 606080, 4499000, 40.6, "18TXK"),
            (32647, 499980 - 1, 9100020 - 30, 81.9, "47XML"),
            (32631, 448251, 5411932, 48.86, "31UDQ"),
            (32756, 334873, 6252266, -33.86, "56HLH"),
            (32737, 257000, 9857000, -1.29, "37MBU"),
        ],
    )
    def test_mgrs_tile(self, epsg: int, easting: float, northing: float, lat: float, name: str) -> None:
        assert catalog.mgrs_tile(epsg, easting, northing, lat) == name


class TestDeterminism:
    def test_one_and_two_processes_write_the_same_bytes(self, nine: Archive, tmp_path: Path) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", NINE)
        simulate._simulate(nine.config, sheet, tmp_path / "archive", processes=1)
        assert hashes(tmp_path / "archive") == hashes(nine.folder)

    def test_another_seed_writes_other_bytes(self, two: Archive, tmp_path: Path) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", TWO)
        simulate_archive(made_config(grid__parent_px=64, simulate__seed=21), parents=sheet, out=tmp_path / "archive")
        ours, other = hashes(two.folder), hashes(tmp_path / "archive")
        common = [name for name in ours if name in other and name.endswith(".tif")]
        assert len(common) > 10
        assert not [name for name in common if ours[name] == other[name]]

    def test_an_earlier_killed_run_is_removed(self, two: Archive, tmp_path: Path) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", TWO)
        stale = tmp_path / "archive/sentinel-2-l2a/S2A_OLD"
        stale.mkdir(parents=True)
        (stale / "S2A_OLD.json").write_text("{}")
        (tmp_path / "archive/.catalog.part.json").write_text("{")
        simulate_archive(two.config, parents=sheet, out=tmp_path / "archive")
        assert hashes(tmp_path / "archive") == hashes(two.folder)

    def test_a_folder_of_something_else_is_left_alone(self, two: Archive, tmp_path: Path) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", TWO)
        (tmp_path / "home").mkdir()
        (tmp_path / "home/thesis.txt").write_text("years of work")
        with pytest.raises(CityHeadsError, match="thesis"):
            simulate_archive(two.config, parents=sheet, out=tmp_path / "home")
        assert (tmp_path / "home/thesis.txt").exists()

    def test_splits_regions_and_comments_do_not_matter(self, tmp_path: Path) -> None:
        plain = write_sheet(tmp_path / "plain.tsv", NINE)
        rows = ["# of nine places", *plain.read_text().splitlines()]
        rows[1] += "\tsplit\tregion"
        rows[2:] = [f"{row}\t{('train', 'test')[k % 2]}\tregion {k}" for k, row in enumerate(rows[2:])]
        full = tmp_path / "full.tsv"
        full.write_text("\n".join(rows) + "\n\n# the end\n")
        used = made_config()
        grid = used.grid.grid
        one, other = (plan.make_plan(used, read_parents(sheet, grid)) for sheet in (plain, full))
        for ours, theirs in zip(one.places, other.places, strict=True):
            assert theirs.parent.split
            assert replace(theirs, parent=ours.parent) == ours
        assert replace(other, places=one.places) == one

    def test_the_root_is_written_last(self, two: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written = []
        monkeypatch.setattr(simulate, "write_json", lambda path, value: written.append(path.name))
        simulate_archive(two.config, parents=write_sheet(tmp_path / "p.tsv", TWO), out=tmp_path / "archive")
        assert written[-1] == "catalog.json"
        assert not (tmp_path / "archive/catalog.json").exists()

    def test_workers_end_when_their_parent_is_killed(self) -> None:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe()
        parent = context.Process(target=_start_a_worker, args=(sender,))
        parent.start()
        assert receiver.recv() == "worker runs"
        sender.close()
        parent.kill()
        parent.join(20)
        assert parent.exitcode == -signal.SIGKILL
        # the worker holds the other end: it closes when the worker is gone
        assert receiver.poll(20)
        with pytest.raises(EOFError):
            receiver.recv()

    def test_fields_agree_where_frames_overlap(self) -> None:
        x, y = np.arange(0, 3000, 5.0), np.arange(9000, 6000, -5.0)
        whole = fields.noise(3, "a", x, y, 400, 3)
        np.testing.assert_array_equal(fields.noise(3, "a", x[100:300], y[50:200], 400, 3), whole[50:200, 100:300])
        assert not np.array_equal(fields.noise(3, "b", x, y, 400, 3), whole)
        assert abs(whole.mean()) < 0.3
        assert 0.75 < whole.std() < 1.25


def _start_a_worker(sender: Any) -> None:
    context = multiprocessing.get_context("spawn")
    context.Process(target=_work, args=(sender,)).start()
    multiprocessing.Event().wait()


def _work(sender: Any) -> None:
    simulate._end_with_parent()
    sender.send("worker runs")
    multiprocessing.Event().wait()


class TestSentinel2:
    def test_the_offset_goes_with_the_baseline(self, nine: Archive) -> None:
        """Water is dark in the short-wave infrared: the digital numbers tell whether 1000 was added."""
        seen = set()
        for place in nine.plan.places:
            for item in nine.of(place.name, "sentinel-2-l2a"):
                baseline, day = item["properties"]["s2:processing_baseline"], item["properties"]["datetime"][:10]
                assert (baseline >= "04.00") == (day >= "2022-01-25")
                scl, short = nine.read(item, "SCL"), nine.read(item, "B12")
                if (scl == 6).sum() > 20:
                    assert np.median(short[scl == 6]) == pytest.approx(1080 if baseline >= "04.00" else 80, abs=200)
                    seen.add(baseline >= "04.00")
        assert seen == {True, False}

    def test_reflectances_are_physical_and_vegetation_is_green(self, nine: Archive) -> None:
        for item in nine.items["sentinel-2-l2a"]:
            offset = 1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
            scl = nine.read(item, "SCL")
            near, red = (nine.read(item, band).astype(float) - offset for band in ("B8A", "B05"))
            assert near.max() < 11000
            for band in BANDS:
                assert nine.read(item, band).dtype == np.uint16
            if (scl == 4).any():
                assert np.median(near[scl == 4]) > 1.6 * np.median(red[scl == 4])

    def test_item_offset_setting_writes_earth_searchs_flag(self) -> None:
        s2 = made_config(archive__imagery={"S2L2A": {"offset": "item"}}).archive.imagery.s2
        flags = {}
        for index in range(4):
            scenes = plan._scenes(s2, np.random.default_rng(0), index, (-74.0, 40.7), *plan.target_day(s2),
                                  {"cloudy": False, "tile_edge": False, "old": True, "partial": False})  # fmt: skip
            for scene in scenes:
                assert (scene.offset_dn == 0) == scene.boa_offset_applied
                flags[scene.boa_offset_applied] = True
        assert flags.keys() == {True, False}

    def test_scenes_lie_in_the_period_with_radar_at_hand(self) -> None:
        for period, target in (
            ("2019-05-01/2019-09-30", None),
            ("2024-07-01/2024-07-02", None),
            ("2020-01-01/2024-12-31", None),
            ("2023-05-05", None),
            ("../2022-03-01", "2022-02-01"),
        ):
            asked = {"datetime": period, "target_date": target}
            used = made_config(archive__imagery={"S2L2A": asked, "S1RTC": {}})
            parents = [plan.Parent(*row) for row in NINE]
            made = plan.make_plan(used, parents)
            first, last = plan.target_day(used.archive.imagery.s2)[1]
            for place in made.places:
                clear = [s for s in place.scenes if s.cloud_fraction < 0.3 and first <= s.when.date() <= last]
                assert clear, (period, place.name)
                for scene in [
                    s for s in place.scenes if first <= s.when.date() <= last and s.when.year == clear[0].when.year
                ]:
                    assert min(abs((r.when - scene.when).days) for r in place.radars) <= 12

    def test_two_tiles_meet_inside_some_parent_and_agree(self, nine: Archive) -> None:
        meeting = 0
        for place in nine.plan.places:
            scenes: dict[str, list[dict[str, Any]]] = {}
            for item in nine.of(place.name, "sentinel-2-l2a"):
                scenes.setdefault(item["properties"]["datetime"], []).append(item)
            for pair in scenes.values():
                if len(pair) == 1:
                    continue
                meeting += 1
                one, other = (nine.on_parent(place, item, "B03") for item in pair)
                assert 0 < (one > 0).mean() < 1
                assert 0 < (other > 0).mean() < 1
                assert ((one > 0) | (other > 0)).all()
                both = (one > 0) & (other > 0)
                assert 0.01 < both.mean() < 0.5
                np.testing.assert_array_equal(one[both], other[both])
                names = [item["properties"]["s2:mgrs_tile"] for item in pair]
                assert names[0][:3] == names[1][:3]
                assert (names[0][3] == names[1][3]) != (names[0][4] == names[1][4])
        assert meeting >= 2

    def test_a_swath_ends_inside_a_parent_where_the_footprint_says(self, nine: Archive) -> None:
        cut = 0
        for item in nine.items["sentinel-2-l2a"]:
            with rasterio.open(nine.path(item, "B02")) as source:
                empty = source.read(1) == 0
                footprint = rasterio.warp.transform_geom(4326, source.crs, item["geometry"])
                outside = rasterio.features.geometry_mask([footprint], source.shape, source.transform)
            if empty.any():
                cut += 1
                assert item["properties"]["s2:nodata_pixel_percentage"] == pytest.approx(100 * empty.mean(), abs=2)
            assert (empty != outside).mean() < 0.01
        assert cut == sum(scene.swath_cut > 0 for place in nine.plan.places for scene in place.scenes) > 0

    def test_clouds_are_bright_and_classified_and_every_place_has_a_cloudy_scene(self, nine: Archive) -> None:
        best = {}
        for place in nine.plan.places:
            clear: dict[str, float] = {}
            for item in nine.of(place.name, "sentinel-2-l2a"):
                if item["properties"]["s2:nodata_pixel_percentage"] or item["properties"]["datetime"] < "2024":
                    continue
                scl = nine.on_parent(place, item, "SCL")
                clear[item["id"]] = np.isin(scl, list(SCL_CLEAR))[scl > 0].mean()
                offset = 1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
                blue = nine.on_parent(place, item, "B02").astype(float) - offset
                if (scl == 9).sum() > 50:
                    assert np.median(blue[scl == 9]) > 3000
                    assert {8, 9, 10} <= set(np.unique(scl).tolist())
            assert min(clear.values()) < 0.75, place.name
            best[place.name] = max(clear.values())
        cloudy = [name for name, fraction in best.items() if fraction < 0.95]
        assert len(cloudy) == round(0.15 * 9)
        # the cloud stands over some sub-chips and leaves others
        place = next(place for place in nine.plan.places if place.name == cloudy[0])
        item = max(
            nine.of(place.name, "sentinel-2-l2a"),
            key=lambda i: i["properties"]["datetime"] == place.scenes[0].when.strftime("%Y-%m-%dT%H:%M:%S.024000Z"),
        )
        clear = np.isin(nine.on_parent(place, item, "SCL"), list(SCL_CLEAR))
        per_chip = clear.reshape(4, 32, 4, 32).mean(axis=(1, 3))
        assert (per_chip < 0.8).any()
        assert (per_chip > 0.8).any()

    def test_the_tiles_cloud_cover_does_not_tell_all_cloudy_scenes(self, nine: Archive) -> None:
        cloudy = [
            scene.cloud_percent for place in nine.plan.places for scene in place.scenes if scene.cloud_fraction > 0.3
        ]
        assert any(percent <= 40 for percent in cloudy)
        assert any(percent > 40 for percent in cloudy)

    def test_no_clouds_without_a_cloudy_share(self) -> None:
        made = plan.make_plan(made_config(simulate__cloudy_fraction=0), [plan.Parent(*row) for row in NINE])
        assert all(any(scene.cloud_fraction == 0 for scene in place.scenes) for place in made.places)
        assert not any(0 < scene.cloud_fraction < 0.3 for place in made.places for scene in place.scenes)

    def test_noise_within_a_material_follows_the_setting(self, nine: Archive) -> None:
        place = nine.plan.places[0]
        ground = world.make_world(nine.plan, place)
        scene = next(scene for scene in place.scenes if scene.cloud_fraction == 0 and not scene.swath_cut)

        def spread(noise: float) -> float:
            red = pixels.sentinel2(nine.plan, place, ground, scene, SimulateConfig(s2_noise_reflectance=noise))[0][
                "B04"
            ].array.astype(float)
            return float(np.std(np.diff(red, axis=1)))

        calm = spread(0.0)
        assert spread(0.012) > calm
        assert spread(0.05) > 1.5 * spread(0.012)

    def test_seasons(self) -> None:
        assert plan.season_greenness(date(2024, 7, 14), 40.7) > 0.98
        assert plan.season_greenness(date(2024, 1, 14), 40.7) < 0.2
        assert plan.season_greenness(date(2024, 1, 14), -35) > 0.9
        assert plan.season_greenness(date(2024, 1, 14), 5) == 1
        azimuth, zenith = plan.sun_position(date(2024, 6, 21), 40.7, 12.0)
        assert np.degrees([azimuth, zenith]) == pytest.approx([180, 40.7 - 23.44], abs=0.2)


class TestSentinel1:
    def test_backscatter_is_linear_power_of_plausible_decibels(self, nine: Archive) -> None:
        orbits = set()
        for item in nine.items["sentinel-1-rtc"]:
            orbits.add(item["properties"]["sat:orbit_state"])
            for key, low, high in (("vv", -18, -7), ("vh", -26, -14)):
                power = nine.read(item, key)
                assert power.dtype == np.float32
                valid = power[power != -32768]
                assert (valid > 0).all()
                assert low < 10 * np.log10(np.median(valid)) < high
        assert orbits == {"ascending", "descending"}

    def test_speckle_has_the_looks(self, nine: Archive) -> None:
        """Over open water, where the mean is one number, mean squared over variance is the number of looks."""
        place, share = max(
            ((place, world.make_world(nine.plan, place).ground[0]) for place in nine.plan.places if place.coast),
            key=lambda pair: (pair[1] == 1).sum(),
        )
        inner = rasterio.features.sieve((share == 1).astype(np.uint8), 100) == 1
        inner &= ~(np.roll(inner, 2, 0) ^ inner) & ~(np.roll(inner, -2, 0) ^ inner)
        inner &= ~(np.roll(inner, 2, 1) ^ inner) & ~(np.roll(inner, -2, 1) ^ inner)
        assert inner.sum() > 500
        ground = world.make_world(nine.plan, place)
        for looks in (1.0, 4.4):
            layer = pixels.sentinel1(
                nine.plan,
                place,
                ground,
                plan.Radar(place.radars[0].when, "ascending"),
                SimulateConfig(s1_looks=looks),
                "linear_power",
            )["VV"]
            col = round((layer.transform.c - place.frame.left) / 10)
            row = round((place.frame.top - layer.transform.f) / 10)
            power = layer.array.astype(float)
            water = power[inner[row : row + power.shape[0], col : col + power.shape[1]]]
            assert water.mean() ** 2 / water.var() == pytest.approx(looks, rel=0.2)

    def test_buildings_brighten_vv_by_double_bounce(self, nine: Archive) -> None:
        contrasts = []
        for place in nine.plan.places:
            buildings = nine.buildings_on_parent(place) == 1
            if buildings.sum() < 200 or place.limit is not None:
                continue
            cover = nine.on_parent(place, nine.of(place.name, "esa-worldcover")[1], "map")
            for item in nine.of(place.name, "sentinel-1-rtc"):
                power = nine.on_parent(place, item, "vv")
                valid = power > 0
                open_ground = (cover == 50) & ~buildings & valid
                contrasts.append(10 * np.log10(power[buildings & valid].mean() / power[open_ground].mean()))
        assert len(contrasts) >= 4
        # yards return much as well, and a district as a whole more or less than its neighbour
        assert min(contrasts) > 0.0
        assert 0.8 < np.mean(contrasts) < 5.0

    def test_walls_along_the_track_return_more(self) -> None:
        height = np.zeros((80, 80), np.float32)
        height[20:60, 20:60] = 12
        roofed = (height > 0).astype(np.float32)

        def power(angle_deg: float) -> float:
            one = world.Neighbourhood((0, 0), 0, 0, np.radians(angle_deg), "core", True, "nature")
            return float(world._bounce(height, roofed, np.zeros((80, 80), np.uint8), [one], 78.0).sum())

        # the radar looks to 78 degrees from north, which is 12 degrees from the x axis
        assert power(12) > 2 * power(12 + 45)
        assert power(12) == pytest.approx(power(102), rel=1e-5)

    def test_a_swath_ends_inside_a_parent_and_empties_whole_sub_chips(self, nine: Archive) -> None:
        cut = 0
        for place in nine.plan.places:
            for radar, item in zip(place.radars, nine.of(place.name, "sentinel-1-rtc"), strict=True):
                power = nine.on_parent(place, item, "vv")
                valid = (power != -32768).reshape(4, 32, 4, 32).mean(axis=(1, 3))
                assert (valid < 0.95).any() == (radar.swath_cut > 0)
                assert (valid == 1).any()
                if radar.swath_cut:
                    cut += 1
                    assert 1 - valid.mean() == pytest.approx(radar.swath_cut, abs=0.05)
                    assert shapely.geometry.shape(item["geometry"]).area < shapely.box(*item["bbox"]).area
        assert cut >= 2


class TestGround:
    def test_elevation_is_zero_over_water_and_above_on_land(self, nine: Archive) -> None:
        wet = 0
        for place in nine.plan.places:
            [item] = nine.of(place.name, "cop-dem-glo-30")
            with rasterio.open(nine.path(item, "data")) as source:
                assert source.dtypes == ("float32",)
                assert source.nodata is None
                assert source.tags()["AREA_OR_POINT"] == "Point"
                height = source.read(1)
            assert np.isfinite(height).all()
            assert height.min() >= 0
            assert height.max() < 300
            # a whole DEM pixel of water, away from the shore
            cover = nine.on_parent(place, nine.of(place.name, "esa-worldcover")[1], "map") == 80
            inside = np.ones_like(cover)
            for shift in range(-6, 7):
                inside &= np.roll(cover, shift, 0) & np.roll(cover, shift, 1)
            height = nine.on_parent(place, item, "data")
            assert (height[inside] == 0).all()
            wet += inside.sum()
            assert (height[~cover] > 0).mean() > 0.85
        assert wet > 500

    def test_land_cover_has_the_real_codes_in_many_places(self, nine: Archive, realdata: Path) -> None:
        codes = [set(np.unique(nine.on_parent(place, nine.of(place.name, "esa-worldcover")[1], "map")).tolist())
                 for place in nine.plan.places]  # fmt: skip
        for classes in ({80, 90}, {50}, {10, 20}, {30, 40}, {60}):
            assert sum(bool(found & classes) for found in codes) >= 6, classes
        assert set.union(*codes) == {10, 20, 30, 40, 50, 60, 80, 90}
        item = json.loads(next(realdata.glob("worldcover_N00E006/**/ESA_WorldCover_10m_2021*N00E006.json")).read_text())
        ours = nine.items["esa-worldcover"][0]["assets"]["map"]
        theirs = item["assets"]["map"]["classification:classes"]
        assert [c["value"] for c in ours["classification:classes"]] == [c["value"] for c in theirs]
        assert [c["color-hint"] for c in ours["classification:classes"]] == [c["color-hint"] for c in theirs]

    def test_the_older_land_cover_frays_more(self, nine: Archive) -> None:
        def changes(year: int) -> float:
            total = 0.0
            for item in nine.items["esa-worldcover"]:
                if f"_{year}_" in item["id"]:
                    total += (np.diff(nine.read(item, "map").astype(int), axis=1) != 0).mean()
            return total

        assert changes(2020) > 1.05 * changes(2021)

    def test_shares_fill_each_pixel(self, nine: Archive) -> None:
        ground = world.make_world(nine.plan, nine.plan.places[1])
        np.testing.assert_allclose(ground.ground.sum(axis=0) + ground.roofs.sum(axis=0), 1, atol=1e-5)
        assert ground.ground.min() >= 0
        assert 0 <= ground.shadow.min() <= ground.shadow.max() <= 1

    def test_shadows_fall_away_from_the_sun(self) -> None:
        height = np.zeros((60, 60), np.float32)
        height[28:32, 28:32] = 30
        # sun in the south-east, 45 degrees high: a 30 m shadow to the north-west
        shade = world._shadows(height, np.radians(135), np.radians(45)) > 0
        rows, cols = np.nonzero(shade)
        assert rows.max() < 32
        assert cols.max() < 32
        assert 28 - rows.min() == pytest.approx(30 / 5 / np.sqrt(2), abs=1)

    def test_buildings_stand_on_dry_land_and_apart(self, nine: Archive) -> None:
        for place in nine.plan.places[:4]:
            made = world.make_world(nine.plan, place)
            shapes = made.buildings.geometry
            assert shapely.is_valid(shapes).all()
            tree = shapely.STRtree(shapes)
            left, right = tree.query(shapes, predicate="overlaps")
            overlap = shapely.area(shapely.intersection(shapes[left], shapes[right]))
            assert overlap.sum() < 1e-3 * shapely.area(shapes).sum()
            roofed = made.roofs.sum(axis=0)
            assert (made.ground[0] * roofed).sum() < 0.01 * roofed.sum()


class TestFootprints:
    def test_schema_is_the_citys(self, nine: Archive, realdata: Path) -> None:
        text = (realdata / "nyc_buildings_murrayhill/building_footprints.geojson").read_text()
        real = json.loads(text)
        ours = json.loads((nine.folder / "footprints.geojson").read_text())
        assert ours["crs"] == real["crs"]
        names = set(real["features"][0]["properties"]) - {"the_geom"}
        for feature in ours["features"]:
            assert set(feature["properties"]) == names
            for value in feature["properties"].values():
                assert value is None or isinstance(value, str)
            assert feature["geometry"] is None or feature["geometry"]["type"] == "MultiPolygon"
        codes = {feature["properties"]["feature_code"] for feature in ours["features"]}
        assert codes >= {"2100", "5110"}
        assert codes <= {feature["properties"]["feature_code"] for feature in real["features"]}

    def test_numbers_agree_with_the_geometry(self, nine: Archive) -> None:
        to = Transformer.from_crs(4326, 32618, always_xy=True)
        for feature in nine.features[:200]:
            if feature["geometry"] is None:
                continue
            shape = shapely.geometry.shape(feature["geometry"])
            metres = shapely.transform(shape, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))
            if not metres.is_valid:
                continue
            assert float(feature["properties"]["shape_area"]) * 0.3048**2 == pytest.approx(metres.area, rel=0.03)
            assert 25 < metres.area < 8000

    def test_faults_of_real_tables_are_there(self, nine: Archive) -> None:
        texts = [json.dumps(feature) for feature in nine.features]
        shapes = [shapely.geometry.shape(f["geometry"]) if f["geometry"] else None for f in nine.features]
        assert len(texts) - len(set(texts)) == 3
        assert sum(shape is None for shape in shapes) == 1
        assert 1 <= sum(shape is not None and not shape.is_valid for shape in shapes) <= 2
        years = [feature["properties"]["construction_year"] for feature in nine.features]
        assert "0" in years
        assert None in years
        assert any(len(polygon.interiors) for shape in nine.footprints for polygon in shape.geoms)

    def test_nothing_lies_outside_the_boundary_though_buildings_stand_there(self, nine: Archive) -> None:
        boundary = nine.boundary.buffer(1e-6)
        shapely.prepare(boundary)
        assert shapely.contains(boundary, nine.footprints).all()
        limited = [place for place in nine.plan.places if place.limit is not None]
        assert len(limited) >= 2
        unlisted = 0
        for place in limited:
            side = nine.grid.parent_px
            to = Transformer.from_crs(4326, place.parent.epsg, always_xy=True)
            area = shapely.transform(nine.boundary, lambda xy, to=to: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))
            transform = rasterio.transform.from_origin(place.parent.left, place.parent.top, 10, 10)
            outside = rasterio.features.geometry_mask([area], (side, side), transform)
            per_chip = outside.reshape(4, 32, 4, 32).mean(axis=(1, 3))
            assert (per_chip == 1).any(), place.name
            assert (per_chip == 0).any(), place.name
            built = world.make_world(nine.plan, place)
            centres = shapely.centroid(built.buildings.geometry)
            unlisted += (~shapely.contains(area, centres)).sum()
        assert unlisted > 20
        for place in nine.plan.places:
            if place.limit is None:
                square = plan.shapely.box(*place.window)
                assert nine.plan.boundaries[place.frame.epsg].contains(square)

    def test_density_runs_from_none_to_a_sixth_and_more(self, nine: Archive) -> None:
        density = [nine.buildings_on_parent(place).mean() for place in nine.plan.places]
        assert min(density) == 0
        assert max(density) > 1 / 6

    def test_water_inside_the_boundary(self, nine: Archive) -> None:
        for place in nine.plan.places:
            if place.limit is None and place.coast:
                cover = nine.on_parent(place, nine.of(place.name, "esa-worldcover")[1], "map")
                if (cover == 80).any():
                    return
        pytest.fail("no open water inside the surveyed area")


class TestWhatIsPlanted:
    """What only the surroundings tell, the errors of the labels, and the truth beside them."""

    def test_look_alikes_are_drawn_together(self) -> None:
        ground, roofs = spectra.drawn_together(0.0)
        assert np.array_equal(ground, spectra.GROUND_REFLECTANCE)
        assert np.array_equal(roofs, spectra.ROOF_REFLECTANCE)
        ground, roofs = spectra.drawn_together(1.0)
        kind = {name: ground[code] for code, name in enumerate(spectra.GROUND)}
        for one, other in (("lush", "tree"), ("young", "grass"), ("crop", "grass"), ("fallow", "bare")):
            np.testing.assert_allclose(kind[one], kind[other], atol=1e-6)
        np.testing.assert_allclose(roofs[spectra.ROOFS.index("bitumen")], kind["street"], atol=1e-6)
        assert not np.allclose(kind["tree"], kind["grass"], atol=0.02)

    def test_whether_a_roof_is_lighter_than_its_yard_depends_on_the_district(self, nine: Archive) -> None:
        lighter: dict[bool, list[float]] = {True: [], False: []}
        for place in nine.plan.places:
            made = world.make_world(nine.plan, place)
            scene = next(scene for scene in place.scenes if scene.cloud_fraction == 0 and not scene.swath_cut)
            scene = replace(scene, tile_edge=None)
            red = pixels.sentinel2(nine.plan, place, made, scene, SimulateConfig())[0]["B04"].array - scene.offset_dn
            roof = made.roofs.sum(axis=0)
            paved = made.ground[1] + made.ground[2]
            for light in (True, False):
                here = made.light_roofs == light
                on, beside = red[here & (roof > 0.9)], red[here & (paved > 0.9)]
                if len(on) > 100 and len(beside) > 100:
                    lighter[light].append(float(on.mean() - beside.mean()))
        assert min(map(len, lighter.values())) >= 2
        assert min(lighter[True]) > 0 > max(lighter[False])

    def test_the_radar_tells_the_land_use_of_a_district_and_not_of_a_pixel(self, nine: Archive) -> None:
        def distance(window: int) -> float:
            values: dict[float, list[np.ndarray]] = {1.0: [], -1.0: []}
            for place in nine.plan.places:
                made = world.make_world(nine.plan, place)
                if not ((made.moisture == 1).any() or (made.moisture == -1).any()):
                    continue
                layer = pixels.sentinel1(nine.plan, place, made, place.radars[0], SimulateConfig(), "db")["VV"]
                col = round((layer.transform.c - place.frame.left) / 10)
                row = round((place.frame.top - layer.transform.f) / 10)
                height, width = layer.array.shape
                level = uniform_filter(np.where(layer.array > -50, layer.array, np.nan).astype(float), window)
                district = made.moisture[row : row + height, col : col + width]
                land = made.ground[0, row : row + height, col : col + width] == 0
                for sign, found in values.items():
                    found.append(level[(district == sign) & land & np.isfinite(level)])
            farm, planted = (np.concatenate(values[sign]) for sign in (1.0, -1.0))
            return float((farm.mean() - planted.mean()) / np.sqrt((farm.var() + planted.var()) / 2))

        assert distance(1) < 3.0
        assert distance(15) > 1.3 * distance(1)

    def test_the_land_cover_is_wrong_in_patches_and_the_truth_beside_it_is_not(self, nine: Archive) -> None:
        place = nine.plan.places[0]
        made = world.make_world(nine.plan, place, SimulateConfig().footprint_demolished_fraction)
        with rasterio.open(nine.folder / "truth" / f"{place.name}.tif") as source:
            truth, transform = source.read(1), source.transform
        assert np.array_equal(truth, pixels.true_cover(place, made).array)
        wrong = {}
        for share in (0.0, 0.2):
            layer = pixels.land_cover(nine.plan, place, made, 2021, share)
            assert layer.transform == transform
            wrong[share] = (layer.array != truth).mean()
        # water is never mistaken, so somewhat less than the share is
        assert 0.05 < wrong[0.2] - wrong[0.0] < 0.25
        inside = fields.box_mean(
            (pixels.land_cover(nine.plan, place, made, 2021, 0.2).array != truth).astype(np.float32), 3
        )
        assert (inside > 0.8).mean() > 0.03

    def test_footprints_are_shifted_and_some_are_missing_or_of_buildings_that_are_gone(self, nine: Archive) -> None:
        place = max(nine.plan.places, key=lambda one: nine.buildings_on_parent(one).sum())
        options = SimulateConfig(footprint_demolished_fraction=0.2, footprint_missing_fraction=0.1, footprint_shift_m=3)
        made = world.make_world(nine.plan, place, options.footprint_demolished_fraction)
        table = vectors.listed(nine.plan, place, made, options)
        stands, known = set(made.buildings.uid.tolist()), set(table.uid.tolist())
        assert len(known - stands) / len(known) == pytest.approx(0.2, abs=0.06)
        assert len(stands - known) / len(stands) == pytest.approx(0.1, abs=0.05)
        at = dict(zip(made.listed.uid.tolist(), shapely.centroid(made.listed.geometry), strict=True))
        away = [
            at[uid].distance(point)
            for uid, point in zip(table.uid.tolist(), shapely.centroid(table.geometry), strict=True)
        ]
        assert 0.5 < np.mean(away) < 6
        for number in np.unique(table.neighbourhood):
            assert np.ptp(np.array(away)[table.neighbourhood == number]) < 1e-6
        exact = vectors.listed(
            nine.plan, place, made, SimulateConfig(footprint_missing_fraction=0, footprint_shift_m=0)
        )
        assert shapely.equals_exact(exact.geometry, made.listed.geometry, 1e-9).all()

    def test_the_true_footprints_are_those_of_the_buildings_that_stand(self, nine: Archive) -> None:
        true = json.loads((nine.folder / "truth" / "footprints.geojson").read_text())["features"]
        shapes = [shapely.geometry.shape(feature["geometry"]) for feature in true]
        assert all(shape.is_valid for shape in shapes)
        assert 0.9 < len(true) / len(nine.features) < 1.1


class TestOtherSheets:
    @pytest.mark.parametrize(
        ("row", "zone", "widening"),
        [
            (("sydney", 32756, 334000.0, 6252260.0), 32756, 1),
            (("hamar", 32632, 613000.0, 6743000.0), 32632, 2),
            # Lambert-93 and the Dutch grid are no UTM zones: the tiles lie in the place's zone
            (("paris", 2154, 652000.0, 6862000.0), 32631, 1),
            (("utrecht", 28992, 136000.0, 456000.0), 32631, 1.5),
        ],
    )
    def test_any_place_on_earth(self, tmp_path: Path, row: Any, zone: int, widening: float) -> None:
        sheet = write_sheet(tmp_path / "parents.tsv", [row])
        used = made_config(grid__parent_px=64)
        simulate_archive(used, parents=sheet, out=tmp_path / "archive")
        archive = Archive(tmp_path / "archive", sheet, used)
        [place] = archive.plan.places
        for item in archive.items["sentinel-2-l2a"]:
            assert item["properties"]["proj:epsg"] == zone
        [dem] = archive.items["cop-dem-glo-30"]
        assert dem["properties"]["proj:transform"][0] == pytest.approx(widening / 3600)
        assert (archive.on_parent(place, archive.items["esa-worldcover"][0], "map") > 0).all()
        radar = archive.on_parent(place, archive.items["sentinel-1-rtc"][-1], "vv")
        assert (radar > 0).any()
        whole = [
            s
            for s in archive.items["sentinel-2-l2a"]
            if s["properties"]["eo:cloud_cover"] and len(archive.items["sentinel-2-l2a"]) > 1
        ]
        assert any((archive.on_parent(place, item, "B08") > 0).mean() > 0.3 for item in whole)

    def test_large_rasters_are_tiled_with_overviews(self) -> None:
        layer = pixels.Layer(
            np.arange(600 * 700, dtype=np.float32).reshape(600, 700), rasterio.transform.from_origin(0, 0, 10, 10),
            "EPSG:32618", None, shapely.box(0, 0, 1, 1),
        )  # fmt: skip
        with rasterio.MemoryFile(pixels.encode(layer)) as memory, memory.open() as source:
            assert source.block_shapes == [(512, 512)]
            assert source.overviews(1)
            assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            np.testing.assert_array_equal(source.read(1), layer.array)
