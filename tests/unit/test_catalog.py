"""The published catalogue: valid STAC, true to the files, linked to its sources."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from config_fixtures import make_config
from dataset_fixtures import assemble
from made_archive import EPSG, LEFT, TOP, complete
from pystac.extensions.eo import EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.parent import read_parent
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.modalities import MODALITIES
from cityheads.dataset.catalog import publish_catalog
from cityheads.dataset.chips import slice_parent
from cityheads.dataset.pack import pack_store
from cityheads.labels.landcover import rasterize_landcover
from cityheads.verbs import VERBS

WATER = {"name": "water", "color": "#3a7bc8", "codes": [80]}
DRY = {"name": "dry land", "color": "#c8574d", "codes": [10, 30, 50]}
#: No head learns WATER: it is published all the same.
CITY: dict[str, Any] = {
    "project": {"name": "made", "title": "Made"},
    "grid": {"parent_px": 32, "chips_per_side": 2},
    "archive": {"provider": "stac", "catalog": "catalog.json"},
    "labels": {
        "LULC": {"kind": "landcover", "classes": [WATER, DRY]},
        "WATER": {"kind": "landcover", "classes": [DRY, WATER]},
    },
    "splits": {"buffer_m": 0},
    "heads": {"lulc": {"label": "LULC"}},
    "runs": {"multihead": {"heads": ["lulc"]}, "lulc": {"heads": ["lulc"]}},
}

PARENTS = {"A": (LEFT, TOP), "B": (LEFT + 320, TOP), "C": (LEFT, TOP - 320)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


def publish(folder: Path) -> Path:
    """Run the verbs on three small parents and publish the result."""
    archive = complete(folder / "archive")
    archive.root["cityheads:simulated"] = True
    # a cloud over one sub-chip, which is then dropped
    codes = np.full((60, 60), 4, np.uint8)
    codes[:8, :8] = 9
    with rasterio.open(folder / "archive" / "assets" / "S2_A" / "SCL.tif", "r+") as scl:
        scl.write(codes, 1)
    catalog = str(archive.write())
    config = make_config(CITY, archive={"catalog": catalog})
    parents = folder / "parents.tsv"
    rows = [f"{name}\t{EPSG}\t{left}\t{top}" for name, (left, top) in PARENTS.items()]
    parents.write_text("\n".join(["parent_id\tepsg\tleft\ttop", *rows, ""]))
    for name in PARENTS:
        scenes, raster = folder / "scenes" / f"{name}.json", folder / "parents" / name
        select_scenes(
            config.restricted_to(VERBS["select_scenes"].sections),
            parents=parents,
            parent=name,
            catalog=catalog,
            out=scenes,
        )
        read_parent(
            config.restricted_to(VERBS["read_parent"].sections), parents=parents, parent=name, scenes=scenes, out=raster
        )
        slice_parent(
            config.restricted_to(VERBS["slice_parent"].sections), parents=parents, parent=name, parent_dir=raster,
            chips=folder / "chips", out=folder / "quality" / f"{name}.json",
        )  # fmt: skip
        for label in config.labels:
            rasterize_landcover(
                config.restricted_to(VERBS["rasterize_landcover"].sections), parents=parents, parent=name, label=label,
                scenes=scenes, chips=folder / "chips", out=raster / f"MASK_{label}.tif",
            )  # fmt: skip
    pack_store(
        config.restricted_to(VERBS["pack_store"].sections), parents=parents, scenes=folder / "scenes",
        quality=folder / "quality", chips=folder / "chips", out=folder / "dataset" / "store",
    )  # fmt: skip
    assemble(folder, config, folder / "dataset" / "0", parents=parents)
    publish_catalog(
        config.restricted_to(VERBS["publish_catalog"].sections), scenes=folder / "scenes",
        parents_dir=folder / "parents", chips=folder / "chips", dataset=folder / "dataset" / "0", out=folder / "stac",
    )  # fmt: skip
    return folder


def items(folder: Path) -> list[pystac.Item]:
    return list(pystac.Catalog.from_file(str(folder / "stac" / "catalog.json")).get_items(recursive=True))


def test_it_validates_against_the_core_schemas(published: Path) -> None:
    root = pystac.Catalog.from_file(str(published / "stac" / "catalog.json"))
    root.validate()
    for child in root.get_children():
        child.validate()
    for item in items(published):
        # the extensions' schemas are on the internet; see tests/online
        item.stac_extensions = []
        item.validate()


def test_it_lists_the_kept_sub_chips_and_counts_the_dropped(published: Path) -> None:
    names = {item.id for item in items(published)}
    assert len(names) == 11
    assert "A_r0c0" not in names
    root = json.loads((published / "stac" / "catalog.json").read_text())
    assert root["description"].startswith("11 of 12 sub-chips")
    assert root["cityheads:simulated"] is True


def test_grids_files_and_checksums_are_those_of_the_rasters(published: Path) -> None:
    for item in items(published):
        projection = ProjectionExtension.ext(item)
        assert set(item.assets) == {"S2L2A", "S1RTC", "DEM", "CLOUDMASK", "MASK_LULC", "MASK_WATER"}
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href() or "")
            content = path.read_bytes()
            assert asset.extra_fields["file:size"] == len(content)
            assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
            with rasterio.open(path) as raster:
                assert projection.code == f"EPSG:{raster.crs.to_epsg()}"
                assert projection.shape == list(raster.shape)
                assert projection.transform == list(raster.transform)[:6]
                bands = asset.to_dict()["bands"]
                assert [band["data_type"] for band in bands] == list(raster.dtypes)
                assert str(bands[0].get("nodata")) == ("None" if raster.nodata is None else f"{raster.nodata:g}")
                place = shapely.box(*rasterio.warp.transform_bounds(raster.crs, 4326, *raster.bounds))
            assert shapely.geometry.shape(item.geometry).within(place.buffer(1e-6))


def test_items_lead_to_the_scenes_they_were_made_of(published: Path) -> None:
    for item in items(published):
        found = {}
        for link in item.get_links("derived_from"):
            path = Path(link.get_absolute_href() or "")
            found[link.title] = json.loads(path.read_text())["id"]
        assert found == {name: name for name in ("S2_A", "S1_A", "DEM_A", "WC_A")}
        assert item.properties["cityheads:offset_dn"] == {"S2_A": 1000}


def test_the_classes_are_told_with_their_colours(published: Path) -> None:
    mask: Any = items(published)[0].assets["MASK_LULC"].to_dict()["bands"][0]
    assert [(entry["value"], entry["name"]) for entry in mask["classification:classes"]] == [
        (0, "water"), (1, "dry_land"), (255, "ignore"),
    ]  # fmt: skip
    assert mask["classification:classes"][0]["color_hint"] == "3A7BC8"


def test_each_band_is_found_by_its_names(published: Path) -> None:
    """As odc-stac finds them: by name and common name in ``eo:bands``, with a dtype in ``raster:bands``."""
    for item in items(published):
        places: dict[str, list[tuple[str, int]]] = {}
        for key, asset in item.assets.items():
            bands, rasters = EOExtension.ext(asset).bands, RasterExtension.ext(asset).bands
            assert bands is not None
            assert rasters is not None
            with rasterio.open(asset.get_absolute_href() or "") as source:
                assert len(bands) == len(rasters) == source.count
                assert [band.data_type for band in rasters] == list(source.dtypes)
                if key in MODALITIES:
                    assert tuple(band.name for band in bands) == source.descriptions
            assert [band["name"] for band in asset.to_dict()["bands"]] == [band.name for band in bands]
            for index, band in enumerate(bands, start=1):
                for name in {band.name, band.common_name} - {None, key}:
                    places.setdefault(str(name), []).append((key, index))
        assert places["B02"] == places["blue"] == [("S2L2A", 2)]
        assert places["B8A"] == places["nir08"] == [("S2L2A", 9)]
        assert places["VH"] == [("S1RTC", 2)]
        assert places["LULC"] == [("MASK_LULC", 1)]
        assert RasterExtension.ext(item.assets["S2L2A"]).bands[1].scale == 0.0001  # type: ignore[index]


def test_terms_of_what_was_read_are_linked(published: Path, tmp_path: Path) -> None:
    def terms(folder: Path) -> list[str]:
        collection = json.loads((folder / "stac" / "made-chips" / "collection.json").read_text())
        return [link["title"] for link in collection["links"] if link["rel"] == "license"]

    assert terms(published) == [], "simulated pixels have none"
    place = tmp_path / "copy"
    shutil.copytree(published, place, ignore=shutil.ignore_patterns("stac"))
    for path in (place / "scenes").iterdir():
        path.write_text(path.read_text().replace('"simulated": true', '"simulated": false'))
    publish_catalog(
        make_config(CITY).restricted_to(VERBS["publish_catalog"].sections), scenes=place / "scenes",
        parents_dir=place / "parents", chips=place / "chips", dataset=place / "dataset" / "0", out=place / "stac",
    )  # fmt: skip
    assert [title.split()[0] for title in terms(place)] == ["Legal", "Licence", "ESA"]


def test_no_machine_path_is_published(published: Path) -> None:
    for path in (published / "stac").rglob("*.json"):
        assert str(published) not in path.read_text()


def test_credentials_of_a_shipped_choice_are_not_published(published: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(published, place, ignore=shutil.ignore_patterns("stac"))
    for path in (place / "scenes").iterdir():
        choice = json.loads(path.read_text())
        choice["catalog"] = "https://me:secretword@host.example/v1/catalog.json?sig=secretword"
        for layer in choice["layers"].values():
            for item in layer["items"]:
                item["self"] = "https://me:secretword@host.example/items/x.json?sig=secretword"
        path.write_text(json.dumps(choice))
    publish_catalog(
        make_config(CITY).restricted_to(VERBS["publish_catalog"].sections), scenes=place / "scenes",
        parents_dir=place / "parents", chips=place / "chips", dataset=place / "dataset" / "0", out=place / "stac",
    )  # fmt: skip
    texts = [path.read_text() for path in (place / "stac").rglob("*.json")]
    assert any("https://host.example/items/x.json" in text for text in texts)
    assert not any("secretword" in text for text in texts)


def test_synthesized_layers_are_named_and_lead_to_no_scene(published: Path, tmp_path: Path) -> None:
    assert all(item.properties["cityheads:synthesized"] == [] for item in items(published))
    place = tmp_path / "copy"
    shutil.copytree(published, place, ignore=shutil.ignore_patterns("stac"))
    scenes, reading = place / "scenes" / "A.json", place / "parents" / "A" / "reading.json"
    choice, layers = json.loads(scenes.read_text()), json.loads(reading.read_text())
    choice["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
    layers["layers"]["S1RTC"] |= {"items": [], "sources": {}, "synthesized": {"generator": "g"}}
    scenes.write_text(json.dumps(choice))
    reading.write_text(json.dumps(layers))
    publish_catalog(
        make_config(CITY).restricted_to(VERBS["publish_catalog"].sections), scenes=place / "scenes",
        parents_dir=place / "parents", chips=place / "chips", dataset=place / "dataset" / "0", out=place / "stac",
    )  # fmt: skip
    for item in items(place):
        made = item.properties["cityheads:parent"] == "A"
        assert item.properties["cityheads:synthesized"] == (["S1RTC"] if made else [])
        assert ("S1_A" in [link.title for link in item.get_links("derived_from")]) != made


def test_an_item_says_its_split_or_in_which_fold_its_parent_is_tested(published: Path, tmp_path: Path) -> None:
    assert {item.properties["cityheads:split"] for item in items(published)} == {"train", "val", "test"}
    assert not any("cityheads:test_fold" in item.properties for item in items(published))
    place = tmp_path / "copy"
    shutil.copytree(published, place, ignore=shutil.ignore_patterns("stac"))
    # A lies between the others: where it is held out, the buffer leaves out what touches it
    config = make_config(CITY, splits={"method": "folds", "folds": 3, "buffer_m": 50, "require_every_class": False})
    assemble(place, config, place / "dataset" / "0")
    publish_catalog(
        config.restricted_to(VERBS["publish_catalog"].sections), scenes=place / "scenes",
        parents_dir=place / "parents", chips=place / "chips", dataset=place / "dataset" / "0", out=place / "stac",
    )  # fmt: skip
    rows = CHIPS.read(place / "dataset" / "0" / "chips.parquet", ("kept",))
    assert sum(row["kept"] for row in rows) < len(items(published)), "this fold leaves some out"
    assert {item.id for item in items(place)} == {item.id for item in items(published)}
    folds = {item.properties["cityheads:parent"]: item.properties["cityheads:test_fold"] for item in items(place)}
    assert sorted(folds.values()) == [0, 1, 2]
    assert not any("cityheads:split" in item.properties for item in items(place))
    collection = json.loads((place / "stac" / "made-chips" / "collection.json").read_text())
    assert collection["summaries"] == {"cityheads:test_fold": [0, 1, 2]}
