"""Catalogues and their items: how they are walked, what is read of them, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_archive import choose, complete, select_config, sheet

from cityheads.archive.catalogues.item import Item
from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.choose.sentinel2 import offset_dn
from cityheads.archive.hrefs import stored_href
from cityheads.core.errors import CityHeadsError

PC = "https://planetarycomputer.microsoft.com/api/stac/v1"


def test_a_catalogue_that_is_not_there_or_no_catalogue_is_named(tmp_path: Path) -> None:
    out = tmp_path / "P1.json"
    with pytest.raises(CityHeadsError, match=r"nowhere/catalog\.json: no such catalogue file"):
        select_scenes(select_config(), parents=sheet(tmp_path), parent="P1", catalog="nowhere/catalog.json", out=out)
    for content, says in (("{", "not valid JSON"), ("[]", "not a STAC document"), ("{}", "not a STAC catalogue")):
        path = tmp_path / "catalog.json"
        path.write_text(content)
        with pytest.raises(CityHeadsError, match=says):
            select_scenes(select_config(), parents=sheet(tmp_path), parent="P1", catalog=str(path), out=out)
    assert not out.exists()


def test_nested_catalogues_absolute_links_and_loops_are_walked(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    expected = choose(archive, tmp_path)
    # the collection's items move into a catalogue of their year, which links back to the root and to an absolute path
    path = tmp_path / "sentinel-2-l2a" / "collection.json"
    document = json.loads(path.read_text())
    year = tmp_path / "sentinel-2-l2a" / "2024" / "catalog.json"
    year.parent.mkdir()
    item = tmp_path / "sentinel-2-l2a" / "items" / "0.json"
    links = [{"rel": "item", "href": str(item)}, {"rel": "child", "href": "../../catalog.json"}]
    year.write_text(json.dumps({"type": "Catalog", "id": "2024", "stac_version": "1.1.0", "links": links}))
    document["links"] = [{"rel": "child", "href": "2024/catalog.json"}, {"rel": "child", "href": "./collection.json"}]
    path.write_text(json.dumps(document))
    out = tmp_path / "again.json"
    select_scenes(select_config(), parents=sheet(tmp_path), parent="P1", catalog=str(archive.catalog), out=out)
    assert json.loads(out.read_text()) == expected


def test_a_catalogue_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    archive = complete(tmp_path / "archive")
    archive.write()
    document = json.loads(archive.catalog.read_text())
    document["links"].append({"rel": "child", "href": "../../elsewhere/collection.json"})
    archive.catalog.write_text(json.dumps(document))
    with pytest.raises(CityHeadsError, match="leaves the folder"):
        select_scenes(
            select_config(),
            parents=sheet(tmp_path),
            parent="P1",
            catalog=str(archive.catalog),
            out=tmp_path / "o.json",
        )


def test_real_planetary_computer_items_pass_with_hrefs_offset_and_footprint(realdata: Path) -> None:
    for name, expected in (("sentinel-2-l2a-pc.json", {1000}), ("sentinel-1-rtc-pc.json", None)):
        for raw in json.loads((realdata / "stac_pc" / name).read_text()):
            item = Item(raw, f"{PC}/collections/x/items/{raw['id']}", PC)
            west, south, east, north = raw["bbox"]
            assert item.footprint.bounds == pytest.approx((west, south, east, north), abs=0.2)
            if expected:
                assert {offset_dn(item, "baseline")} <= expected
            for key, asset in raw["assets"].items():
                kept = stored_href(item.document, asset["href"], root=PC, asset_base=None, signed=True, where=key)
                assert kept.partition("?")[0] == asset["href"].partition("?")[0]
    land = json.loads((realdata / "stac_pc" / "io-lulc-annual-v02-pc.json").read_text())[0]
    assert Item(land, PC, PC).when == datetime(2023, 1, 1, tzinfo=UTC)
