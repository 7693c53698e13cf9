"""The whole DAG, small: from nothing to the report, again, and through kills."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import geopandas as gpd
import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
Run = Callable[..., subprocess.CompletedProcess[str]]

#: What must be equal to the byte, however often a run was interrupted.
DATA = ("archive", "scenes", "parents", "quality", "chips", "labels", "dataset")
NUMBERS = ("model.safetensors", "model.json", "history.csv", "metrics.json", "gate.json")


def set_up(place: Path) -> Path:
    """Put the tiny config and a sheet of four parents into a working directory."""
    lines = (ROOT / "config/parents.tsv").read_text().splitlines()
    head = [line for line in lines if line.startswith("parent_id")]
    rows = [line for line in lines if line.startswith("P")][:4]
    (place / "parents.tsv").write_text("\n".join(head + rows) + "\n")
    shutil.copy(HERE / "tiny.yaml", place / "tiny.yaml")
    return place


def digests(place: Path, stages: tuple[str, ...] = DATA, names: tuple[str, ...] = NUMBERS) -> dict[str, str]:
    """Give the hash of every artifact that must not depend on how the run went."""
    found = {}
    for path in sorted((place / "results").rglob("*")):
        below = path.relative_to(place / "results")
        wanted = below.parts[0] in stages or path.name in names
        if path.is_file() and wanted and ".snakemake" not in path.name:
            found[str(below)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, snakemake: Run) -> Path:
    place = set_up(tmp_path_factory.mktemp("tiny"))
    snakemake(place, "--configfile", place / "tiny.yaml")
    return place


def test_all_64_sub_chips_are_accounted_for(done: Path) -> None:
    table = gpd.read_parquet(done / "results/dataset/chips.parquet")
    assert len(table) == 64
    assert (table.groupby("parent_id").size() == 16).all()
    assert (table.groupby("parent_id").split.nunique() == 1).all()
    assert ((table.reason == "") == table.kept).all()
    assert table.simulated.all()


def test_there_is_a_verdict_for_both_heads_and_the_report_says_it(done: Path) -> None:
    gate = json.loads((done / "results/gate.json").read_text())
    assert gate["verdict"] in ("strong", "acceptable", "mixed", "negative", "inconclusive")
    assert set(gate["heads"]) == {"lulc", "buildings"}
    report = (done / "results/report.html").read_text()
    assert gate["verdict"] in report.lower()
    assert "simulated" in report.lower()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', report), "the report opens offline"


def test_a_second_run_does_nothing(done: Path, snakemake: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*") if path.is_file()}
    again = snakemake(done, "-n", "--configfile", done / "tiny.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    snakemake(done, "--configfile", done / "tiny.yaml")
    after = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*") if path.is_file()}
    before.pop(done / "results/.lock", None), after.pop(done / "results/.lock", None)
    assert after == before


def test_a_changed_option_reruns_what_depends_on_it_and_no_more(done: Path, snakemake: Run) -> None:
    def rerun(section: str, old: str, new: str) -> set[str]:
        text = (done / "tiny.yaml").read_text()
        assert old in text, section
        (done / "changed.yaml").write_text(text.replace(old, new))
        dry = snakemake(done, "-n", "--configfile", done / "changed.yaml").stdout
        return set(re.findall(r"^(\w+) +\d+$", dry.split("Job stats:")[1].split("total")[0], re.MULTILINE))

    told = {"draw_figures", "report", "publish", "all"}
    assert rerun("gate", "resamples: 200", "resamples: 300") == {"compare", *told}
    assert rerun("project", "A tiny run", "A small run") == told
    off = "gate: {resamples: 200}\nevaluation: {without_modalities: false}"
    assert rerun("evaluation", "gate: {resamples: 200}", off) == {"evaluate", "compare", *told}
    trained = {"train", "evaluate", "compare", *told}
    assert rerun("train", "epochs: 1", "epochs: 2") == trained
    assert not {"simulate_archive", "select_scenes", "read_parent"} & rerun("labels", "[60, 70, 100]", "[60, 100]")


def test_no_artifact_names_a_path_of_this_machine(done: Path) -> None:
    told = [str(done), str(ROOT), str(Path.home())]
    for path in (done / "results").rglob("*"):
        if path.suffix in (".json", ".csv", ".html", ".md", ".parquet", ".geojson") and path.is_file():
            content = path.read_bytes()
            assert not [place for place in told if place.encode() in content], path


def kill_and_resume(place: Path, target: list[str], after: Sequence[int], seed: int) -> None:
    """Run the workflow, killing it a random while after so and so many jobs have ended, and at last let it end.

    Args:
        place: Working directory.
        target: What to ask for.
        after: Numbers of ended jobs, over all runs together; each is one kill.
        seed: Seed of the whiles, of at most two seconds.
    """
    chance = random.Random(seed)
    command = [
        Path(sys.executable).parent / "snakemake",
        *target,
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        place,
    ]
    command += ["--workflow-profile", ROOT / "profiles/default", "--configfile", place / "tiny.yaml"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for count in after:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Snakemake writes a job's benchmark when the job has ended
        while len(list(place.glob("results/benchmarks/**/*.tsv"))) < count:
            assert process.poll() is None, f"ended before {count} jobs had"
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))
        assert process.poll() is None, f"ended within two seconds of job {count}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 10
        while verbs_at_work(place) and time.monotonic() < until:
            time.sleep(0.1)
        assert not verbs_at_work(place), "a killed run leaves no job behind"
    last = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr[-4000:]


def verbs_at_work(place: Path) -> list[str]:
    """List the jobs that still run in a working directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == place.resolve() and b"cityheads" in (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def compare(one: Path, two: Path, **which: tuple[str, ...]) -> None:
    first, second = digests(one, **which), digests(two, **which)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    parts = [str(path) for path in (two / "results").rglob(".*.part*")]
    # a part file lies where a writer was killed; it is taken over when that file is written again, which a resumed run
    # does for all that was unfinished
    assert parts == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_dataset_made_through_kills_is_the_same_to_the_byte(done: Path, tmp_path: Path) -> None:
    place = set_up(tmp_path)
    # of 23 jobs
    kill_and_resume(place, ["dataset"], after=(1, 7, 12), seed=1)
    compare(done, place, stages=DATA, names=())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_report_made_through_kills_holds_the_same_numbers(done: Path, tmp_path: Path, snakemake: Run) -> None:
    place = set_up(tmp_path)
    # of 33 jobs: in the middle of the dataset, in two trainings, in two evaluations
    kill_and_resume(place, [], after=(12, 23, 24, 26, 28), seed=2)
    compare(done, place)
    again = snakemake(place, "-n", "--configfile", place / "tiny.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_deleted_sub_chip_is_made_again_on_request(done: Path, snakemake: Run) -> None:
    chip = next((done / "results/chips/S1RTC").glob("*_r2c1.tif"))
    content = chip.read_bytes()
    chip.unlink()
    snakemake(done, chip.relative_to(done), "--configfile", done / "tiny.yaml")
    assert chip.read_bytes() == content
