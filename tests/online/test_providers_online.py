"""The real sources of footprints still answer in the shape that the code expects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cityheads.archive.http import client
from cityheads.config import load_config
from cityheads.labels.download import NYC_FOOTPRINTS, _count, _features
from cityheads.labels.preparation import COLUMNS

pytestmark = [
    pytest.mark.online,
    pytest.mark.skipif(os.environ.get("CITYHEADS_ONLINE") != "1", reason="reads the internet; set CITYHEADS_ONLINE=1"),
]


def test_the_citys_layer_is_where_it_was(repository: Path) -> None:
    archive = load_config(repository / "config" / "config.yaml").archive
    http = client(archive.network)
    assert _count(http, NYC_FOOTPRINTS) > 1_000_000
    rows = _features(http.get(f"{NYC_FOOTPRINTS}.geojson?$limit=5&$order=:id").content)
    assert len(rows) == 5
    for row in rows:
        assert row["geometry"]["type"] == "MultiPolygon"
        names = {name.lower() for name in row["properties"]}
        for ours, known in COLUMNS.items():
            assert names & set(known), f"{ours} has another name now: {sorted(names)}"
