"""The same DAG on real pixels: three places, three UTM zones, grids that are no multiple of 10 m."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, realdata: Path, snakemake: Run) -> Path:
    """Read and label the samples; the catalogue is where the config says, as a link."""
    place = tmp_path_factory.mktemp("terramesh")
    shutil.copytree(ROOT / "config", place / "config")
    (place / "data").mkdir()
    (place / "data/terramesh_catalog").symlink_to(realdata / "terramesh_catalog")
    snakemake(place, "dataset", "--configfile", place / "config/terramesh.yaml")
    return place


def test_real_pixels_arrive_unchanged_but_for_the_offset(place: Path, realdata: Path) -> None:
    for path in sorted((realdata / "terramesh_catalog/assets").iterdir()):
        with rasterio.open(path / "B04.tif") as source:
            raw = source.read(1).astype(int)
        with rasterio.open(place / "results/terramesh/parents" / path.name / "S2L2A.tif") as source:
            read = source.read(4)
            assert source.descriptions[3] == "B04"
        # the sample from Chile was processed with baseline 05.00, which adds 1000 to every digital number
        offset = 1000 if path.name.startswith("433D") else 0
        np.testing.assert_array_equal(read, np.where(raw == 0, 0, np.clip(raw - offset, 1, None)))
        with rasterio.open(path / "vv.tif") as source:
            power = source.read(1)
        with rasterio.open(place / "results/terramesh/parents" / path.name / "S1RTC.tif") as source:
            np.testing.assert_allclose(source.read(1), 10 * np.log10(power), rtol=1e-5)


def test_real_codes_become_the_configs_classes(place: Path, realdata: Path) -> None:
    config = yaml.safe_load((place / "config/terramesh.yaml").read_text())
    for label, rule in config["labels"].items():
        lookup = np.full(256, 255)
        for index, item in enumerate(rule["classes"]):
            lookup[item["codes"]] = index
        for path in sorted((realdata / "terramesh_catalog/assets").iterdir()):
            with rasterio.open(path / "lulc.tif") as source:
                codes = source.read(1)
            with rasterio.open(place / f"results/terramesh/parents/{path.name}/MASK_{label}.tif") as source:
                np.testing.assert_array_equal(source.read(1), lookup[codes])


def test_the_twelve_sub_chips_keep_their_zones_and_gaps_are_told(place: Path) -> None:
    table = gpd.read_parquet(place / "results/terramesh/dataset/0/chips.parquet")
    assert len(table) == 12
    assert set(table.epsg) == {32718, 32722, 32736}
    assert not table.simulated.any()
    assert table.clear_fraction.isna().all()
    missing = json.loads((place / "results/terramesh/dataset/0/splits.json").read_text())["missing"]
    assert {"split": "test", "label": "BUILDINGS", "class": "built"} in missing


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_real_data_goes_through_to_the_report(place: Path, snakemake: Run) -> None:
    # the control that is cheapest stands for all
    path = place / "config/terramesh.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"controls": {"made": ["majority"]}}))
    snakemake(place, "--configfile", path)
    gate = json.loads((place / "results/terramesh/gate.json").read_text())
    # one test parent has no spread between parents: nothing can be seen to beat a control
    assert gate["verdict"] == "no evidence"
    assert not gate["simulated"]
    report = (place / "results/terramesh/report.html").read_text()
    assert "no evidence" in report.lower()
    assert "12 sub-chips" in re.sub(r"\s+", " ", report)
    again = snakemake(place, "-n", "--configfile", place / "config/terramesh.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
