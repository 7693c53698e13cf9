"""A parent without radar scenes in the workflow: an error by default, synthesized where that is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from made_archive import complete, config, sheet  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
UNTRAINED = {"backbone": "terramind_v1_tiny_generate", "pretrained": False, "steps": 1, "threads": 1}


def make_place(folder: Path, missing: str) -> Path:
    """Make an archive whose only radar scene is of another year, a sheet of its parent and two more, and a config."""
    archive = complete(folder / "archive")
    archive.items["sentinel-1-rtc"][0]["properties"]["datetime"] = "2023-01-01T00:00:00Z"
    catalog = archive.write()
    made = config(catalog=str(catalog), S1RTC={"missing": missing}, synthesis=UNTRAINED).to_dict()
    parents = sheet(folder)
    # a sheet of one parent cannot be split; the target asks for the first one only
    head, first = parents.read_text().splitlines()
    _, epsg, left, top = first.split("\t")
    more = [f"P{k}\t{epsg}\t{left}\t{float(top) + 100_000 * k}" for k in (2, 3)]
    parents.write_text("\n".join([head, first, *more]) + "\n")
    made |= {"parents": str(parents), "results": "results"}
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    return folder


@pytest.mark.slow
def test_a_parent_without_radar_goes_through_the_workflow(snakemake: Run, tmp_path: Path) -> None:
    target = "results/quality/P1.json"
    stopped = make_place(tmp_path / "error", "error")
    done = snakemake(stopped, target, "--cores", "1", "--configfile", stopped / "config.yaml", check=False)
    assert done.returncode != 0
    assert "S1RTC: collection 'sentinel-1-rtc': none of 1 item(s) over the parent is usable" in done.stderr
    place = make_place(tmp_path / "synthesize", "synthesize")
    snakemake(place, target, "--cores", "1", "--configfile", place / "config.yaml")
    results = place / "results"
    assert json.loads((results / "scenes" / "P1.json").read_text())["layers"]["S1RTC"]["synthesized"] is True
    reading = json.loads((results / "parents" / "P1" / "reading.json").read_text())["layers"]["S1RTC"]
    assert reading["synthesized"]["generator"] == "untrained generator (terramind_v1_tiny_generate)"
    with rasterio.open(results / "parents" / "P1" / "S1RTC.tif") as source:
        assert source.tags()["synthesized"] == "true"
    chips = json.loads((results / "quality" / "P1.json").read_text())["chips"]
    assert [chip["valid_fraction"]["S1RTC"] for chip in chips] == [1.0] * 4
    # nothing is left to do, and the seed of the synthesis redoes the reading, not the search
    again = snakemake(place, target, "-n", "--configfile", place / "config.yaml").stdout
    assert "Nothing to be done" in again
    changed = yaml.safe_load((place / "config.yaml").read_text())
    changed["archive"]["synthesis"]["seed"] = 5
    (place / "config.yaml").write_text(yaml.safe_dump(changed))
    text = snakemake(place, target, "-n", "--configfile", place / "config.yaml").stdout
    assert "Read all modalities of parent P1" in text
    assert "Choose the scenes of parent P1" not in text
