"""What a user sees of a run: a bar by time, errors and warnings, and the last lines."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from fake_results import make

from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.layout import Layout
from cityheads.core.progress import CLEAR, Bar, measured_seconds
from cityheads.product.closing import closing_lines


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(event: str | None, message: str = "", level: int = logging.INFO, **facts: Any) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.__dict__.update(facts | ({"event": event} if event else {}))
    return made


JOBS = [("read_parent", "Read P1"), ("read_parent", "Read P2"), ("train", "Train")]


def bar(*, live: bool) -> tuple[Bar, Clock, io.StringIO]:
    clock, stream = Clock(), io.StringIO()
    made = Bar(stream, {"read_parent": 10.0, "train": 80.0}, clock, live)
    made.see(record("run_info", stats={"read_parent": 2, "train": 1, "total": 3}))
    return made, clock, stream


def start(made: Bar, *jobs: int) -> None:
    made.see(record("job_started", jobs=list(jobs)))
    for job in jobs:
        made.see(record("job_info", jobid=job, rule_name=JOBS[job][0], rule_msg=JOBS[job][1]))


def test_progress_is_of_time_not_of_jobs() -> None:
    made, clock, _ = bar(live=False)
    assert made.state() == (0.0, None)
    start(made, 0)
    clock.now = 5
    assert made.state() == pytest.approx((0.05, 95))
    clock.now = 20  # twice as long as expected: the other one will be too
    made.see(record("job_finished", job_id=0))
    share, left = made.state()
    assert share == pytest.approx(20 / 120)
    assert left == pytest.approx(100)
    start(made, 2)
    clock.now = 500
    assert made.state()[0] < 1, "a job that takes longer than expected is not done"


def test_on_a_terminal_it_is_one_line_with_stage_and_parent(tmp_path: Path) -> None:
    made, clock, stream = bar(live=True)
    start(made, 0, 1)
    clock.now = 6
    made.draw()
    last = stream.getvalue().rsplit(CLEAR, 1)[1]
    assert "\n" not in stream.getvalue()
    assert last.startswith("[==")
    assert "12 %  6.0 s, about 44.0 s left  Read P1 (and 1 more)" in last
    made.stop()
    before = stream.getvalue()
    made.draw()
    assert stream.getvalue() == before


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("INFO cityheads: began\nERROR: x ERROR cityheads: cityheads train: the disk is full\n", ""),
        ("INFO cityheads: began\nkilled in the middle", "    INFO cityheads: began\n    killed in the middle\n"),
    ],
    ids=["said why", "killed"],
)
def test_a_failure_is_told_once(tmp_path: Path, log: str, shown: str) -> None:
    made, _, stream = bar(live=True)
    start(made, 2)
    path = tmp_path / "train.log"
    path.write_text(log)
    assert not made.see(record("job_error", "Error in rule", logging.ERROR, jobid=2, rule_name="train", log=[path]))
    assert not made.see(record(None, "RuleException:\nCalledProcessError", logging.ERROR))
    assert stream.getvalue().endswith(f"{CLEAR}Failed: Train; its log: {path}\n{shown}")


def test_in_a_file_it_is_a_line_now_and_then() -> None:
    made, clock, stream = bar(live=False)
    start(made, 0)
    for second in range(1, 4):
        clock.now = second
        made.draw()
    assert len(stream.getvalue().splitlines()) == 1
    clock.now = 10
    made.see(record("job_finished", job_id=0))
    start(made, 1)
    assert len(stream.getvalue().splitlines()) == 2
    clock.now = 75
    made.draw()
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (record("job_info", jobid=1, rule_name="train", rule_msg="Train"), False),
        (record("shellcmd", "cityheads train"), False),
        (record(None, "Select jobs to execute..."), False),
        (record(None, "needs: disk 2 GB"), True),
        (record(None, "warning: no GPU", logging.WARNING), True),
        (record("error", "WorkflowError", logging.ERROR), True),
    ],
)
def test_news_of_jobs_is_in_the_bar_and_the_rest_is_shown(one: logging.LogRecord, shown: bool) -> None:
    assert bar(live=False)[0].see(one) is shown


def test_a_rule_takes_what_it_took_before(tmp_path: Path) -> None:
    for job, seconds in (("a_0", "4.0"), ("b_0", "8.0")):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / f"{job}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:04\n")
    (tmp_path / "train" / "c_0.tsv").write_text("s\th:m:s\n")
    assert measured_seconds(tmp_path) == {"train": 6.0}
    assert measured_seconds(tmp_path / "none") == {}


def test_at_the_end_stand_verdict_report_losses_duration_and_what_comes_next(tmp_path: Path) -> None:
    fake = make(tmp_path, zones=True, verdict="acceptable")
    fake.layout.report.write_text("")
    fake.layout.bundle.root.mkdir()
    told = closing_lines(fake.layout, 0, 125.0, success=True)
    found = STATISTICS.read(fake.layout.dataset(0).statistics)
    dropped = sum(found["dropped"].values())
    assert [line.partition(":")[0] for line in told] == ["Verdict", "Dropped", "Report", "Took", "Next"]
    assert told[0].startswith("Verdict: acceptable. ")
    assert told[1].startswith(f"Dropped: {dropped} of 12 sub-chips")
    assert told[2] == f"Report: {fake.layout.report}"
    assert told[3] == "Took: 2 min 05 s"
    fake.layout.report.unlink()
    assert [line.partition(":")[0] for line in closing_lines(fake.layout, 0, 1, success=True)] == [
        "Dropped", "Took", "Next",
    ]  # fmt: skip
    assert closing_lines(Layout(tmp_path / "none"), 0, 1.0, success=True)[0] == "Took: 1.0 s"
    (failed,) = closing_lines(fake.layout, 0, 1.0, success=False)
    assert "run the same command again" in failed
