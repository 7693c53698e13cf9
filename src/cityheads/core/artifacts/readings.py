"""``test_readings.jsonl``: a line for each time that a model was scored on its test split, and how to count them.

The log is what keeps a test split honest: whoever looks at test scores, changes something and looks again has tuned on
the test split, and the number of different readings shows it. It is no output of a rule, so that a rerun adds to it.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import TypedDict

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import append_line, canonical_json
from cityheads.core.version import VERSION

__all__ = ["ReadingCounts", "TestReading", "count_readings", "log_reading", "read_readings"]


class TestReading(TypedDict):
    """One reading of the test split.

    Attributes:
        time: When, ISO 8601 in UTC.
        run: Name of the run or control.
        fold: Its fold.
        seed: Its seed.
        settings_sha256: Of what made the model and of what is scored.
        weights_sha256: Of the model's weights; None for a control without a file of weights.
        version: Version of the program.
    """

    time: str
    run: str
    fold: int
    seed: int
    settings_sha256: str
    weights_sha256: str | None
    version: str


class ReadingCounts(TypedDict):
    """How often the test split was read.

    Attributes:
        readings: Number of lines of the log.
        distinct: Number of different readings: of run, fold, seed, settings and weights.
        models: Number of different runs, folds and seeds; ``distinct`` above this means that a model was changed after
            it had been scored on its test split.
        repeated: ``readings`` minus ``distinct``: the same model scored again.
        by_run: Number of different readings by run, in the order of their first reading.
        first: Time of the first reading; None without any.
        last: Time of the last reading.
    """

    readings: int
    distinct: int
    models: int
    repeated: int
    by_run: dict[str, int]
    first: str | None
    last: str | None


def log_reading(
    path: Path, *, run: str, fold: int, seed: int, settings_sha256: str, weights_sha256: str | None
) -> None:
    """Add a reading to the log, with the time and the version of the program.

    Raises:
        CityHeadsError: The log cannot be written.
    """
    reading: TestReading = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run,
        "fold": fold,
        "seed": seed,
        "settings_sha256": settings_sha256,
        "weights_sha256": weights_sha256,
        "version": VERSION,
    }
    append_line(path, canonical_json(reading))


def read_readings(path: Path) -> list[TestReading]:
    """Read the log, which need not be there yet. A line that a killed process left unfinished is passed over.

    Raises:
        CityHeadsError: A line is JSON but no reading.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []
    keys = set(TestReading.__annotations__)
    found: list[TestReading] = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            # killed while it wrote, so before it saw the test split: no reading
            continue
        if not isinstance(value, dict) or not keys <= set(value):
            raise CityHeadsError(f"{path}: line {number} is no reading of the test split; take the line out")
        found.append(value)  # type: ignore[arg-type]
    return found


def count_readings(path: Path) -> ReadingCounts:
    """Count the readings of the test split."""
    found = read_readings(path)
    models = [(one["run"], one["fold"], one["seed"]) for one in found]
    keys = [(*model, one["settings_sha256"], one["weights_sha256"]) for model, one in zip(models, found, strict=True)]
    distinct = dict.fromkeys(keys)
    times = [one["time"] for one in found]
    return {
        "readings": len(found),
        "distinct": len(distinct),
        "models": len(set(models)),
        "repeated": len(found) - len(distinct),
        "by_run": dict(Counter(key[0] for key in distinct)),
        "first": min(times, default=None),
        "last": max(times, default=None),
    }
