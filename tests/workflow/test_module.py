"""Another workflow imports this one: as a module, under other names, with a prefix, and as snakedeploy writes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Snakemake = Callable[..., subprocess.CompletedProcess[str]]

#: What importing workflows look like: other names, a prefix, rules and a start of their own, two commands in one shell.
IMPORTER = """
configfile: "city.yaml"

{before}

module cityheads:
    snakefile: "{root}/Snakefile"
    config: config
{prefix}

use rule * from cityheads as city_*

{after}

rule mine:
    input:
        rules.city_simulate_archive.output.catalog
    output:
        "mine.txt"
    params:
        seed="not-a-number",
    shell:
        "echo one > {{output}} && echo two >> {{output}}"

rule of_mine:
    input:
        "run-{{run}}.in"
    output:
        "run-{{run}}.out"
    shell:
        "cp {{input}} {{output}}"
"""

ONSTART = "onstart:\n    print('THE START IS MINE')"

#: As snakedeploy 0.17 generates it, but for the place of the Snakefile.
SNAKEDEPLOY = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/cityheads/cityheads as a module
module cityheads:
    snakefile:
        "{root}/Snakefile"
    config:
        config


# use all rules from https://github.com/cityheads/cityheads
use rule * from cityheads
"""


def run(place: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--cores", "2", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done


@pytest.fixture
def place(tmp_path: Path) -> Path:
    lines = (ROOT / "config/parents.tsv").read_text().splitlines()
    rows = [line for line in lines if re.match(r"P0[1-3]|parent_id", line)]
    (tmp_path / "parents.tsv").write_text("\n".join(rows) + "\n")
    shutil.copy(ROOT / "tests/e2e/tiny.yaml", tmp_path / "city.yaml")
    for name in ("parks", "surveyed"):  # files that the config names, beside the sheet
        (tmp_path / f"{name}.geojson").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("prefix", "before", "after"),
    [
        pytest.param("", "", "", id="plain", marks=pytest.mark.slow),
        pytest.param("below", ONSTART, "", id="prefix, own start before"),
        pytest.param("below", "", ONSTART, id="prefix, own start after", marks=pytest.mark.slow),
    ],
)
def test_rules_run_in_another_workflow(place: Path, prefix: str, before: str, after: str) -> None:
    line = f'    prefix: "{prefix}"' if prefix else ""
    (place / "Snakefile").write_text(IMPORTER.format(root=ROOT, prefix=line, before=before, after=after))
    target = f"{prefix}/results/parents/P01/S2L2A.tif".lstrip("/")
    (place / "run-some.in").write_text("x")
    done = run(place, target, "mine.txt", "run-some.out")
    assert (place / target).exists()
    assert (place / "mine.txt").read_text() == "one\ntwo\n", "their shell is theirs"
    assert (place / "run-some.out").exists(), "their wildcards are theirs"
    assert ("THE START IS MINE" in done.stdout + done.stderr) == bool(before + after)
    below = place / prefix if prefix else place
    assert {path.name for path in below.iterdir() if path.is_dir()} >= {"results"}
    assert (place / "results").exists() == (not prefix), "nothing lands beside the prefix"
    assert (below / "results/config.yaml").exists()
    again = run(place, target, "mine.txt", "run-some.out", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.slow
def test_the_results_of_a_module_are_locked(place: Path) -> None:
    import fcntl

    (place / "Snakefile").write_text(IMPORTER.format(root=ROOT, prefix='    prefix: "below"', before="", after=""))
    (place / "below/results").mkdir(parents=True)
    with (place / "below/results/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(place, "mine.txt", check=False)
    assert done.returncode != 0
    assert "below/results: another run of the workflow is writing there" in done.stderr


def test_the_whole_dag_is_planned_under_other_names(place: Path) -> None:
    (place / "Snakefile").write_text(IMPORTER.format(root=ROOT, prefix='    prefix: "below"', before="", after=""))
    told = run(place, "-n", "city_all").stdout
    found = dict(re.findall(r"^(city_\w+)\s+(\d+)$", told, re.MULTILINE))
    assert found["city_read_parent"] == "3"
    assert {"city_train", "city_evaluate", "city_compare", "city_report", "city_publish"} <= set(found)
    listed = run(place, "--lint", check=False)
    assert "Traceback" not in listed.stderr


@pytest.mark.slow
def test_what_snakedeploy_generates_runs(place: Path) -> None:
    (place / "workflow").mkdir()
    (place / "workflow/Snakefile").write_text(SNAKEDEPLOY.format(root=ROOT))
    shutil.copytree(ROOT / "config", place / "config")
    told = run(place, "-n").stdout
    assert dict(re.findall(r"^(\w+)\s+(\d+)$", told, re.MULTILINE))["read_parent"] == "22"
    shutil.copy(place / "city.yaml", place / "config/config.yaml")
    run(place, "results/quality/P02.json")
    assert (place / "results/quality/P02.json").exists()


def test_a_module_with_half_a_config_is_refused_in_one_line(place: Path) -> None:
    (place / "city.yaml").write_text("grid: {parent_px: 128}\n")
    (place / "Snakefile").write_text(IMPORTER.format(root=ROOT, prefix="", before="", after=""))
    done = run(place, "-n", check=False)
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("config")]
    assert said
    assert "config key 'labels' is missing" in said[0]
    assert "Traceback" not in done.stdout + done.stderr
