"""Label layers in the DAG: a third one from a folder, buildings of the image's year, and the check of all."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a working directory with a third layer laid over the default config."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "flood").mkdir()
    classes = [{"name": "dry", "color": "#e8e6e1"}, {"name": "wet", "color": "#3a7bc8"}]
    flood = {"kind": "raster", "source": "flood", "ignore_codes": [], "classes": classes}
    overlay = {
        "labels": {"FLOOD": flood, "BUILDINGS": {"standing_only": True}},
        "heads": {"flood": {"label": "FLOOD"}},
        "runs": {"flood": {"heads": ["flood"]}},
    }
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for section, changes in overlay.items():
        for name, change in changes.items():
            config[section][name] = config[section].get(name, {}) | change
    (tmp_path / "third.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_a_third_layer_is_a_job_a_parent_and_the_check_follows_the_dataset(snakemake: Run, place: Path) -> None:
    text = snakemake(place, "-n", "-p", "check_labels", "--configfile", str(place / "third.yaml")).stdout
    table = dict(re.findall(r"^(\w+)\s+(\d+)$", text.split("Job stats:")[1], re.MULTILINE))
    assert table["rasterize_layer"] == table["rasterize_buildings"] == table["rasterize_landcover"] == "22"
    assert table["check_labels"] == table["pack_store"] == table["assemble_dataset"] == "1"
    assert "train" not in table
    burn = re.search(r"cityheads rasterize_buildings .*--parent P05 .*", text)
    assert burn is not None
    assert burn[0].rstrip().endswith("--scenes results/scenes/P05.json"), "the year of the image is known"
    layer = re.search(r"cityheads rasterize_layer .*--parent P05 .*", text)
    assert layer is not None
    assert "--source flood" in layer[0]
    assert "--boundary" not in layer[0]


def test_covered_fractions_are_outputs_of_the_dag(snakemake: Run, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"labels": {"BUILDINGS": {"fraction_layer": True}}}))
    more = ("--configfile", str(tmp_path / "more.yaml"))

    def jobs(*arguments: str) -> dict[str, str]:
        text = snakemake(tmp_path, "-n", *arguments).stdout
        return dict(re.findall(r"^(\w+)\s+(\d+)$", text.split("Job stats:")[1], re.MULTILINE))

    table = jobs("dataset", *more)
    assert table["rasterize_buildings_and_fractions"] == "22"
    assert "rasterize_buildings" not in table
    wanted = ("results/parents/P05/FRACTION_BUILDINGS.tif", "results/chips/FRACTION_BUILDINGS/P05_r3c0.tif")
    assert jobs(*wanted, *more)["rasterize_buildings_and_fractions"] == "1"
