"""The log of the readings of the test split: written by several processes, and counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cityheads.core.artifacts.readings import count_readings, log_reading, read_readings
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import append_line
from cityheads.core.version import VERSION


def add(path: Path, run: str = "multihead", seed: int = 0, settings: str = "a", weights: str | None = "w") -> None:
    log_reading(path, run=run, fold=0, seed=seed, settings_sha256=settings, weights_sha256=weights)


def test_nothing_was_read_where_there_is_no_log(tmp_path: Path) -> None:
    assert count_readings(tmp_path / "log.jsonl") == {
        "readings": 0, "distinct": 0, "models": 0, "repeated": 0, "by_run": {}, "first": None, "last": None,
    }  # fmt: skip


def test_same_reading_counts_once_and_a_changed_model_twice(tmp_path: Path) -> None:
    log = tmp_path / "results" / "log.jsonl"
    add(log)
    add(log)
    add(log, weights="other")
    add(log, run="pixels", weights=None)
    add(log, seed=1)
    found = count_readings(log)
    assert (found["readings"], found["distinct"], found["repeated"], found["models"]) == (5, 4, 1, 3)
    assert found["by_run"] == {"multihead": 3, "pixels": 1}
    times = [one["time"] for one in read_readings(log)]
    assert times == sorted(times)
    assert (found["first"], found["last"]) == (times[0], times[-1])
    assert all(time.endswith("+00:00") for time in times)
    assert {one["version"] for one in read_readings(log)} == {VERSION}


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from cityheads.core.files import append_line\n"
        "for number in range(200): append_line(Path(sys.argv[1]), f'{sys.argv[2]} {number} ' + 'x' * 5000)"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(log), name]) for name in "abc"]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    for name in "abc":
        assert [int(line[1]) for line in lines if line[0] == name] == list(range(200))
    assert {len(line[2]) for line in lines} == {5000}


def test_line_that_a_killed_process_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    add(log)
    with log.open("a") as stream:
        stream.write('{"time": "2026-')
    assert len(read_readings(log)) == 1
    add(log, seed=1)
    assert [one["seed"] for one in read_readings(log)] == [0, 1]
    assert len(log.read_text().splitlines()) == 3


def test_line_that_is_no_reading_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    add(log)
    append_line(log, json.dumps({"run": "multihead"}))
    with pytest.raises(CityHeadsError, match=r"log\.jsonl: line 2 is no reading"):
        count_readings(log)


def test_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(CityHeadsError, match=r"log\.jsonl: cannot be written"):
        add(tmp_path / "log.jsonl")
