"""The real catalogues still answer as the recorded ones do; one small window of each is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.parent import read_parent
from cityheads.config import resolve

pytestmark = [
    pytest.mark.online,
    pytest.mark.skipif(os.environ.get("CITYHEADS_ONLINE") != "1", reason="reads the internet; set CITYHEADS_ONLINE=1"),
]


@pytest.mark.parametrize("name", ["nyc", "nyc-earth-search"])
def test_a_small_parent_in_manhattan_is_chosen_and_read(repository: Path, tmp_path: Path, name: str) -> None:
    raw = yaml.safe_load((repository / "config" / f"{name}.yaml").read_text())
    # a square of 64 px costs a few megabytes
    raw["grid"] = {"parent_px": 64, "chips_per_side": 2}
    raw["archive"]["imagery"]["S2L2A"]["datetime"] = "2024-07-01/2024-07-31"
    config = resolve(raw)
    parents = tmp_path / "parents.tsv"
    parents.write_text("parent_id\tepsg\tleft\ttop\nP1\t32618\t586000\t4512000\n")
    scenes, catalog = tmp_path / "P1.json", config.archive.catalog
    assert catalog is not None
    select_scenes(config, parents=parents, parent="P1", catalog=catalog, out=scenes)
    chosen = json.loads(scenes.read_text())
    assert chosen["layers"]["S2L2A"]["clear_fraction"] > 0.9
    assert "sig=" not in scenes.read_text()
    read_parent(config, parents=parents, parent="P1", scenes=scenes, out=tmp_path / "P1")
    reading = json.loads((tmp_path / "P1" / "reading.json").read_text())
    assert reading["layers"]["S2L2A"]["valid_fraction"] > 0.99
    low, high = reading["layers"]["DEM"]["range_m"]
    assert -20 < low < high < 150


def test_the_published_catalogue_validates_with_its_extensions(tmp_path_factory: pytest.TempPathFactory) -> None:
    import pystac
    from test_catalog import publish

    folder = publish(tmp_path_factory.mktemp("published"))
    items = list(pystac.Catalog.from_file(str(folder / "stac" / "catalog.json")).get_items(recursive=True))
    assert items
    for item in items:
        assert len(item.validate()) == 1 + len(item.stac_extensions)
