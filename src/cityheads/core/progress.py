"""What a user sees of a run: one bar, by the time that the jobs take, with the stage and the parent at work.

It listens to Snakemake's log as a filter of the handler that writes to the screen: news of jobs become the bar, errors
and warnings pass. On a terminal the bar is one line that changes; in a file or a pipe it is a line now and then.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cityheads.core.text import duration

__all__ = ["CLEAR", "JOB_SECONDS", "Bar", "measured_seconds"]

#: Back to the start of the line, and clear it.
CLEAR = "\r\033[K"

#: Seconds of a job in the default run on two cores, until one of the rule has been measured.
JOB_SECONDS: Mapping[str, float] = {
    "simulate_archive": 30, "fetch_footprints": 120, "prepare_footprints": 5, "agree_scenes": 15, "select_scenes": 3,
    "read_parent": 3, "slice_parent": 2, "rasterize_landcover": 2, "rasterize_buildings": 2, "rasterize_layer": 2,
    "pack_store": 5,
    "assign_splits": 3, "assemble_dataset": 4, "check_labels": 5, "publish_catalog": 5, "tune": 90, "train": 90,
    "evaluate": 30, "evaluate_control": 20, "compare": 6, "draw_figures": 15, "report": 12, "publish": 20,
}  # fmt: skip

#: Seconds of a job of a rule that is not listed: a target, which does nothing.
_OTHER_S = 0.1
#: Lines in a file or a pipe: at this many percent more, or after this many seconds.
_STEP_PERCENT, _STEP_S = 5, 60.0
#: Snakemake's events that are news of jobs.
_NEWS = {"run_info", "job_info", "job_started", "job_finished", "progress", "resources_info", "shellcmd"}
#: What Snakemake says besides in every run, and of a failure after that was told.
_CHATTER = (
    "Select jobs to execute", "Execute ", "Using shell", "Removing temporary", "Touching output", "Elapsed time",
    "Shutting down, this", "Exiting because a job", "RuleException:", "WorkflowError:\nAt least one job",
)  # fmt: skip
#: How many of a log's last lines are shown where a job died without saying why.
_TAIL = 12


def measured_seconds(benchmarks: Path) -> dict[str, float]:
    """Give the mean seconds of a job per rule, of the benchmarks that earlier runs left: ``RULE/JOB.tsv``."""
    found: dict[str, float] = {}
    for folder in sorted(benchmarks.iterdir()) if benchmarks.is_dir() else ():
        seconds: list[float] = []
        for path in sorted(folder.rglob("*.tsv")):
            lines = path.read_text().splitlines()
            try:
                seconds.append(float(lines[1].split("\t")[0]))
            except (IndexError, ValueError):  # a job that was killed while it was written
                continue
        if seconds:
            found[folder.name] = sum(seconds) / len(seconds)
    return found


@dataclass
class _Rule:
    jobs: int = 0
    done: int = 0
    seconds: float = 0.0


@dataclass
class Bar:
    """The bar. Call `see` with each record of the log; it says whether the record is to be shown as it is.

    Attributes:
        stream: Where it is drawn.
        expected_s: Seconds of a job per rule before one was measured in this run.
        clock: Seconds since some time.
        live: Whether the stream is a terminal, where a line can change.
    """

    stream: TextIO
    expected_s: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    live: bool | None = None

    def __post_init__(self) -> None:
        if self.live is None:
            self.live = self.stream.isatty()
        self._lock = threading.RLock()
        self._rules: dict[str, _Rule] = defaultdict(_Rule)
        self._running: dict[int, tuple[str, str, float]] = {}
        self._begun = self.clock()
        self._told = (-1.0, 0.0)
        self._drawn = False
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to count time, and redraw every second on a terminal."""
        self._begun = self.clock()
        if self.live:
            threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self.draw()

    def see(self, record: logging.LogRecord) -> bool:
        """Take note of a record of Snakemake's log, and say whether it is still to be shown."""
        event = str(getattr(record, "event", None) or "")
        with self._lock:
            if event == "job_error":
                self._tell_failure(record)
                return False
            if event not in _NEWS:
                if record.getMessage().strip().startswith(_CHATTER):
                    return False
                self.clear()
                return True
            if event == "run_info":
                for name, jobs in getattr(record, "stats", {}).items():
                    if name != "total":
                        self._rules[name].jobs = int(jobs)
            elif event == "job_info":
                name = getattr(record, "rule_name", "")
                said = getattr(record, "rule_msg", None) or name
                # Snakemake tells what a job is when it starts
                self._running[getattr(record, "jobid", -1)] = (name, " ".join(str(said).split()), self.clock())
            elif event == "job_finished":
                self._finish(getattr(record, "job_id", -1))
            self.draw()
        return False

    def _tell_failure(self, record: logging.LogRecord) -> None:
        """Say which job failed and where its log is; a job that was killed has not said why, its log may."""
        job = getattr(record, "jobid", -1)
        name = getattr(record, "rule_name", "")
        said = self._running.pop(job, (name, name, 0.0))[1]
        self.clear()
        told = False
        for log in map(str, getattr(record, "log", None) or ()):
            self.stream.write(f"Failed: {said}; its log: {log}\n")
            told = True
            lines = Path(log).read_text(errors="replace").splitlines() if Path(log).is_file() else []
            if not any(" ERROR cityheads" in line for line in lines):
                self.stream.write("".join(f"    {line}\n" for line in lines[-_TAIL:]))
        if not told:
            self.stream.write(f"Failed: {said}\n")
        self.stream.flush()

    def _finish(self, job: int) -> None:
        if job not in self._running:
            return
        name, _, begun = self._running.pop(job)
        rule = self._rules[name]
        rule.done += 1
        rule.jobs = max(rule.jobs, rule.done)
        rule.seconds += self.clock() - begun

    def _job_s(self, name: str) -> float:
        """Give the seconds of a job of a rule: as measured in this run, or as expected."""
        rule = self._rules[name]
        if rule.done:
            return max(rule.seconds / rule.done, 1e-3)
        return self.expected_s.get(name, JOB_SECONDS.get(name, _OTHER_S))

    def state(self) -> tuple[float, float | None]:
        """Give the share that is done, 0 to 1, and the seconds that are left; None before anything is known."""
        with self._lock:
            whole = sum(self._job_s(name) * rule.jobs for name, rule in self._rules.items())
            done = sum(self._job_s(name) * rule.done for name, rule in self._rules.items())
            now = self.clock()
            # a job that takes longer than expected is never wholly done
            done += sum(min(now - begun, 0.95 * self._job_s(name)) for name, _, begun in self._running.values())
            if not whole:
                return 0.0, None
            share = min(done / whole, 1.0)
            return share, None if share <= 0 else (now - self._begun) * (1 - share) / share

    def draw(self) -> None:
        """Draw the bar, or in a file a line where there is enough news."""
        with self._lock:
            share, left = self.state()
            if not any(rule.jobs for rule in self._rules.values()):
                return
            now = self.clock()
            if not self.live:
                if not self._running:
                    return  # the next job to start says where things are
                told, when = self._told
                if told >= 0 and 100 * (share - told) < _STEP_PERCENT and now - when < _STEP_S:
                    return
                self._told = (share, now)
            text = self._text(share, left, now - self._begun)
            if self.live:
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(CLEAR + text[:width])
                self._drawn = True
            else:
                self.stream.write(text + "\n")
            self.stream.flush()

    def _text(self, share: float, left: float | None, passed: float) -> str:
        full = int(20 * share)
        # the first seconds, and a job that takes longer than it ever did, allow no estimate
        known = left is not None and left >= 1 and passed > 5 and share > 0.01
        soon = f", about {duration(round(left))} left" if left is not None and known else ""
        doing = [said for _, said, _ in self._running.values() if said]
        more = f" (and {len(doing) - 1} more)" if len(doing) > 1 else ""
        at_work = f"  {doing[0]}{more}" if doing else ""
        return f"[{'=' * full}{' ' * (20 - full)}] {100 * share:3.0f} %  {duration(passed)}{soon}{at_work}"

    def clear(self) -> None:
        """Clear the line for something else."""
        with self._lock:
            if self._drawn:
                self.stream.write(CLEAR)
                self.stream.flush()
                self._drawn = False

    def stop(self) -> None:
        """End the bar; nothing is drawn any more."""
        self._stop.set()
        with self._lock:
            self.clear()
            self._rules.clear()
