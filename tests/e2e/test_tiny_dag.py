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
from typing import Any

import geopandas as gpd
import golden
import pytest
import shapely
import yaml

from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.layout import STAGES, Layout
from cityheads.verbs import VERBS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
Run = Callable[..., subprocess.CompletedProcess[str]]

#: What must be equal to the byte, however often a run was interrupted.
DATA = ("archive", "scenes", "parents", "quality", "chips", "labels", "dataset")
#: All that is made by default, and what is made on request.
TARGETS = ("all", "check_labels", "publish_catalog")

#: Rules that the tiny config does not ask for: scenes chosen together, downloads, a search of settings, experiments.
NOT_RUN = {"agree_scenes", "fetch_footprints", "tune", "choose_settings", "leaderboard"}

NUMBERS = ("model.safetensors", "model.json", "history.csv", "metrics.json", "gate.json")


def set_up(place: Path) -> Path:
    """Put the tiny config and a sheet of four parents into a working directory."""
    lines = (ROOT / "config/parents.tsv").read_text().splitlines()
    head = [line for line in lines if line.startswith("parent_id")]
    rows = [line for line in lines if line.startswith("P")][:4]
    (place / "parents.tsv").write_text("\n".join(head + rows) + "\n")
    shutil.copy(HERE / "tiny.yaml", place / "tiny.yaml")
    # a label that no head learns: the western half of the first parent
    left, top = (float(text) for text in rows[0].split("\t")[2:4])
    half = shapely.box(left, top - 1280, left + 640, top)
    gpd.GeoDataFrame(geometry=[half], crs=32618).to_crs(4326).to_file(place / "parks.geojson")
    gpd.GeoDataFrame(geometry=[half.buffer(9000)], crs=32618).to_crs(4326).to_file(place / "surveyed.geojson")
    return place


def change(place: Path, **changes: Any) -> Path:
    """Write the tiny config with some keys of some sections changed."""
    config = yaml.safe_load((place / "tiny.yaml").read_text())
    for section, values in changes.items():
        config[section] = config.get(section, {}) | values if isinstance(values, dict) else values
    (place / "changed.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return place / "changed.yaml"


def planned(text: str) -> dict[str, int]:
    """Read from a dry run how many jobs of which rule would run."""
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def digests(place: Path, stages: tuple[str, ...] = DATA, names: tuple[str, ...] = NUMBERS) -> dict[str, str]:
    """Give the hash of every artifact that must not depend on how the run went."""
    found = {}
    for path in sorted((place / "results").rglob("*")):
        below = path.relative_to(place / "results")
        wanted = below.parts[0] in stages or path.name in names
        # the check of the labels is made on request only
        on_request = path.stem == "check"
        if path.is_file() and wanted and not on_request and ".snakemake" not in path.name:
            found[str(below)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, snakemake: Run) -> Path:
    place = set_up(tmp_path_factory.mktemp("tiny"))
    snakemake(place, *TARGETS, "--configfile", place / "tiny.yaml")
    return place


def test_results_change_only_with_their_version(done: Path) -> None:
    found = golden.take(done / "results")
    assert set(found["verbs"]) == set(STAGES) - NOT_RUN, "every rule that the tiny config runs has golden values"
    assert all(group["files"] for verb in found["verbs"].values() for group in verb["groups"].values())
    problems = list(golden.differences(json.loads(golden.GOLDEN.read_text()), found))
    assert not problems, "\n".join(problems)


def test_a_change_of_results_without_a_version_is_named(done: Path, tmp_path: Path) -> None:
    then = json.loads(golden.GOLDEN.read_text()) | {"cpu": golden.cpu()}
    now = golden.take(done / "results")
    then["verbs"] = json.loads(json.dumps(now["verbs"]))
    assert not list(golden.differences(then, now))
    version = VERBS["slice_parent"].version
    assert version is not None
    now["verbs"]["slice_parent"]["groups"]["quality"]["sha256"] = "0" * 16
    (said,) = golden.differences(then, now)
    assert "slice_parent: its results changed (quality)" in said
    assert f'raise version={version} of "slice_parent" in src/cityheads/verbs.py' in said
    now["verbs"]["slice_parent"]["version"] = version + 1
    (said,) = golden.differences(then, now)
    assert f"golden.json does not know version {version + 1}" in said
    # on another CPU the last bits may differ, the size of the numbers may not
    then["cpu"] = "another"
    now = json.loads(json.dumps(then)) | {"cpu": golden.cpu()}
    now["verbs"]["read_parent"]["groups"]["parents/*/S1RTC.tif"]["sha256"] = "0" * 16
    assert not list(golden.differences(then, now))
    now["verbs"]["read_parent"]["groups"]["parents/*/S1RTC.tif"]["numbers"][1] *= 1.01
    assert len(list(golden.differences(then, now))) == 1


def test_all_64_sub_chips_are_accounted_for(done: Path) -> None:
    table = gpd.read_parquet(done / "results/dataset/0/chips.parquet")
    assert len(table) == 64
    assert (table.groupby("parent_id").size() == 16).all()
    assert (table.groupby("parent_id").split.nunique() == 1).all()
    assert ((table.reason == "") == table.kept).all()
    assert table.simulated.all()


def test_there_is_a_verdict_for_both_heads_and_the_report_says_it(done: Path) -> None:
    gate = json.loads((done / "results/gate.json").read_text())
    assert gate["verdict"] == "no evidence", "one epoch of training beats no control"
    assert gate["floor"]["failures"]
    assert set(gate["heads"]) == {"lulc", "buildings"}
    report = (done / "results/report.html").read_text()
    assert gate["verdict"] in report.lower()
    assert "simulated" in report.lower()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', report), "the report opens offline"


def test_a_second_run_does_nothing(done: Path, snakemake: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*") if path.is_file()}
    again = snakemake(done, *TARGETS, "--configfile", done / "tiny.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    after = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*") if path.is_file()}
    before.pop(done / "results/.lock", None), after.pop(done / "results/.lock", None)
    assert after == before


def test_what_changes_no_result_runs_nothing_again(done: Path, snakemake: Run, tmp_path: Path) -> None:
    sheet = (done / "parents.tsv").read_text()
    patient = {"provider": "simulated", "workers": 2, "offline": True, "network": {"attempts": 9, "timeout_s": 5}}
    # the same program with other sentences in its messages, from innermost to outermost
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source)
    for module, old, new in (
        ("core/raster.py", "cannot be read as a raster", "is no raster"),
        ("archive/http.py", "offline (config key", "without a network (config key"),
        ("dataset/pack.py", "sub-chips were dropped", "sub-chips went"),
        ("evaluation/verdict.py", "encoder", "trunk"),
    ):
        text = (source / "cityheads" / module).read_text()
        assert old in text, module
        (source / "cityheads" / module).write_text(text.replace(old, new))
    try:
        (done / "parents.tsv").write_text("# a remark\n" + sheet)
        os.utime(done / "tiny.yaml")
        again = snakemake(done, "-n", *TARGETS, "--configfile", change(done, archive=patient), source=source)
    finally:
        (done / "parents.tsv").write_text(sheet)
    assert planned(again.stdout + again.stderr) == {}


TOLD = {"draw_figures", "report", "publish"}
TRAINED = {"train", "evaluate", "compare", *TOLD}
OTHER_CLASSES = [
    {"name": "not building", "color": "#ffffff"},
    {"name": "building", "color": "#000000"},
]


def slow(*values: Any) -> Any:
    """Mark one set of parameters as slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"noninferiority": {"resamples": 300}}, {"compare", *TOLD}),
        slow({"project": {"title": "A small run"}}, {"report", "publish", "publish_catalog"}),
        slow({"evaluation": {"modality_ablation": False}}, {"evaluate", "compare", *TOLD}),
        slow({"train": {"epochs": 2, "lr": 0.001, "accelerator": "cpu", "threads": 1}}, TRAINED),
        slow({"quality": {"min_clear_fraction": 0.5}}, {"slice_parent", "pack_store", "assemble_dataset",
                                                       "check_labels", "publish_catalog", "evaluate_control",
                                                       *TRAINED}),
        slow({"splits": {"buffer_m": 200}}, {"assemble_dataset", "check_labels", "publish_catalog", "evaluate_control",
                                             *TRAINED}),
        ({"labels": {"BUILDINGS": {"kind": "footprints", "classes": OTHER_CLASSES}}}, {*TOLD, "check_labels",
                                                                                             "publish_catalog"}),
    ],
    ids=["margins", "title", "ablation", "epochs", "quality", "buffer", "colours"],
)  # fmt: skip
def test_a_changed_option_reruns_what_depends_on_it_and_no_more(
    done: Path, snakemake: Run, changes: dict[str, Any], again: set[str]
) -> None:
    dry = snakemake(done, "-n", *TARGETS, "--configfile", change(done, **changes))
    assert planned(dry.stdout).keys() - {"all"} == again


@pytest.mark.slow
def test_a_new_head_trains_the_run_that_has_it_and_a_label_without_one_trains_nothing(
    done: Path, snakemake: Run
) -> None:
    heads, runs = {"roofs": {"label": "BUILDINGS"}}, {"roofs": {"heads": ["roofs"]}}
    dry = snakemake(done, "-n", *TARGETS, "--configfile", change(done, heads=heads, runs=runs))
    found = planned(dry.stdout)
    assert (found["train"], found["evaluate"]) == (1, 2), "the runs that there were are not trained again"
    assert not {"pack_store", "assemble_dataset"} & found.keys()
    config = yaml.safe_load((done / "tiny.yaml").read_text())
    more = {"WATER": config["labels"]["PARKS"]}
    found = planned(snakemake(done, "-n", *TARGETS, "--configfile", change(done, labels=more)).stdout)
    assert found["rasterize_layer"] == 4, "made, checked and published"
    assert not {"pack_store", "assemble_dataset", "train", "evaluate", "compare"} & found.keys()
    parks = {"heads": {"parks": {"label": "PARKS"}}, "runs": {"parks": {"heads": ["parks"]}}}
    found = planned(snakemake(done, "-n", *TARGETS, "--configfile", change(done, **parks)).stdout)
    assert {"pack_store", "assemble_dataset", "train"} <= found.keys()
    assert "assign_splits" not in found, "who is held out stays when a label is learnt besides"


@pytest.mark.slow
def test_a_new_version_of_results_reruns_its_verb_and_what_follows(done: Path, snakemake: Run, tmp_path: Path) -> None:
    def raised(*verbs: str) -> Path:
        source = tmp_path / "-".join(verbs)
        shutil.copytree(ROOT / "src", source)
        table = source / "cityheads/verbs.py"
        text = table.read_text()
        for verb in verbs:
            head, tail = text.split(f'            "{verb}",\n', 1)
            tail = re.sub(r"version=(\d+)", lambda found: f"version={int(found[1]) + 1}", tail, count=1)
            text = f'{head}            "{verb}",\n{tail}'
        table.write_text(text)
        return source

    config = ("--configfile", done / "tiny.yaml")
    dry = snakemake(done, "-n", *TARGETS, *config, source=raised("evaluate")).stdout
    assert planned(dry).keys() - {"all"} == {"evaluate", "compare", *TOLD}
    told = snakemake(done, "-n", *TARGETS, *config, source=raised("select_scenes"))
    assert planned(told.stdout + told.stderr) == {}, "an upgrade does not search again for what was chosen"
    asked = snakemake(done, "-n", *TARGETS, *config, "--forcerun", "select_scenes").stdout
    assert planned(asked)["select_scenes"] == 4


@pytest.mark.slow
def test_a_filled_split_column_moves_the_splits_alone(done: Path, snakemake: Run) -> None:
    sheet = (done / "parents.tsv").read_text()
    head, *rows = sheet.strip().split("\n")
    splits = ("train", "train", "val", "test")
    filled = [f"{head}\tsplit", *(f"{row}\t{split}" for row, split in zip(rows, splits, strict=True))]
    try:
        (done / "parents.tsv").write_text("\n".join(filled) + "\n")
        dry = snakemake(done, "-n", *TARGETS, "--configfile", done / "tiny.yaml").stdout
    finally:
        (done / "parents.tsv").write_text(sheet)
    assert planned(dry).keys() - {"all"} == {
        "assign_splits",
        "assemble_dataset",
        "check_labels",
        "publish_catalog",
        "evaluate_control",
        *TRAINED,
    }


FOLDS = {"method": "folds", "folds": 3, "require_every_class": False}


def test_folds_take_the_store_as_it_is_and_each_is_made_for_itself(done: Path, snakemake: Run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(done, place)

    def plan(target: str, **splits: Any) -> dict[str, int]:
        config = change(place, splits=FOLDS | splits, seeds=[0, 1])
        dry = snakemake(place, "-n", target, "--configfile", config)
        return planned(dry.stdout + dry.stderr)

    # three runs with two seeds, and no_encoder with the first; evaluated on val and on test
    everything = {
        "assign_splits": 1,
        "assemble_dataset": 3,
        "train": 21,
        "evaluate": 42,
        "evaluate_control": 15,
        "compare": 1,
    }
    everything |= {**dict.fromkeys(TOLD, 1), "all": 1}
    assert plan("all") == everything
    two = change(place, splits=FOLDS | {"only_folds": [0, 2]}, seeds=[0, 1])
    snakemake(place, "dataset", "--configfile", two)
    assert plan("dataset", only_folds=[2, 0]) == {}
    assert plan("dataset") == {"assemble_dataset": 1, "dataset": 1}
    assert plan("dataset", only_folds=[0], buffer_m=10) == {"assemble_dataset": 1, "dataset": 1}
    sheet = (place / "parents.tsv").read_text()
    head, *rows = sheet.strip().split("\n")
    (place / "parents.tsv").write_text("\n".join([f"{head}\tsplit", *(f"{row}\ttrain" for row in rows)]) + "\n")
    assert plan("dataset", only_folds=[0, 2]) == {}, "folds do not look at the sheet's splits"


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_over_all_folds_every_parent_is_tested_once(done: Path, snakemake: Run, tmp_path: Path) -> None:
    """Three folds, the last one later than the others; one control stands for all."""
    few = {"made": ["majority"]}
    place = tmp_path / "copy"
    shutil.copytree(done, place)
    for left in ("runs", "evaluation"):
        shutil.rmtree(place / "results" / left)
    two = change(place, splits=FOLDS | {"only_folds": [0, 1]}, controls=few)
    snakemake(place, "all", "--configfile", two)
    before = digests(place, stages=("runs", "evaluation"), names=())
    evaluations = [name for name in before if name.endswith("/metrics.json")]
    assert len(evaluations) == 2 * (2 * 3 + 1), "two splits, two folds, three runs and a control"
    three = change(place, splits=FOLDS, controls=few)
    added = planned(snakemake(place, "-n", "all", "--configfile", three).stdout)
    trained = {"evaluate_control": 1, "train": 3, "evaluate": 6}
    assert added == {"assemble_dataset": 1, **trained, "compare": 1, **dict.fromkeys(TOLD, 1), "all": 1}
    snakemake(place, *TARGETS, "--configfile", three)
    after = digests(place, stages=("runs", "evaluation"), names=())
    assert {name: after[name] for name in before} == before, "the folds that there were stay as they are"
    again = snakemake(place, "-n", *TARGETS, "--configfile", three)
    assert planned(again.stdout + again.stderr) == {}
    results = Layout(place / "results")
    sheet = [line.split("\t")[0] for line in (place / "parents.tsv").read_text().splitlines()[1:]]
    for run in ("multihead", "lulc", "buildings"):
        tested: list[str] = []
        for fold in range(3):
            metrics = METRICS.read(results.evaluation(run, fold, 0).metrics)
            assert (metrics["run"], metrics["fold"], metrics["seed"]) == (run, fold, 0)
            splits = SPLIT_ASSIGNMENT.read(results.dataset(fold).splits)["parents"]
            assert {splits[parent] for parent in metrics["parents"]} == {"test"}
            tested += metrics["parents"]
        assert sorted(tested) == sorted(sheet)
    items = [json.loads(path.read_text()) for path in results.stac.parent.glob("*/items/*.json")]
    assert {item["properties"]["cityheads:test_fold"] for item in items} == {0, 1, 2}


@pytest.mark.slow
def test_a_row_more_in_the_sheet_touches_that_parent_only(done: Path, tmp_path: Path, snakemake: Run) -> None:
    """An archive that is there, as real ones are: the simulated one is made of the whole sheet."""
    place = set_up(tmp_path)
    config = yaml.safe_load((place / "tiny.yaml").read_text())
    archive = done / "results/archive"
    config["archive"] = {"provider": "stac", "catalog": str(archive / "catalog.json")}
    vectors = {"source": str(archive / "footprints.geojson"), "boundary": str(archive / "boundary.geojson")}
    config["labels"]["BUILDINGS"] |= vectors
    (place / "stac.yaml").write_text(yaml.safe_dump(config))
    sheet = (place / "parents.tsv").read_text()
    (place / "parents.tsv").write_text(sheet.strip().rsplit("\n", 1)[0] + "\n")
    snakemake(place, "dataset", "--configfile", place / "stac.yaml")
    (place / "parents.tsv").write_text(sheet)
    found = planned(snakemake(place, "-n", "dataset", "--configfile", place / "stac.yaml").stdout)
    own = ("select_scenes", "read_parent", "slice_parent", "rasterize_landcover", "rasterize_buildings",
           "rasterize_layer")  # fmt: skip
    assert found == dict.fromkeys(own, 1) | {
        "pack_store": 1, "assign_splits": 1, "assemble_dataset": 1, "dataset": 1,
    }  # fmt: skip


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
    # of 28 jobs
    kill_and_resume(place, ["dataset"], after=(1, 7, 12), seed=1)
    compare(done, place, stages=DATA, names=())


@pytest.mark.timeout(1800)
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_report_made_through_kills_holds_the_same_numbers(done: Path, tmp_path: Path, snakemake: Run) -> None:
    place = set_up(tmp_path)
    # of some 40 jobs: in the middle of the dataset, in two trainings, in two evaluations
    kill_and_resume(place, [], after=(12, 28, 29, 31, 33), seed=2)
    compare(done, place)
    again = snakemake(place, "-n", "--configfile", place / "tiny.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_deleted_sub_chip_is_made_again_on_request(done: Path, snakemake: Run) -> None:
    chip = next((done / "results/chips/S1RTC").glob("*_r2c1.tif"))
    content = chip.read_bytes()
    chip.unlink()
    snakemake(done, chip.relative_to(done), "--configfile", done / "tiny.yaml")
    assert chip.read_bytes() == content
