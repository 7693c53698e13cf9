"""The verb ``leaderboard``: runs and experiments by their scores on validation, with what they cost."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config
from cityheads.config.experiments import Experiment, read_experiments
from cityheads.core.artifacts.leaderboard import (
    LEADERBOARD,
    LEADERBOARD_TABLE,
    Entry,
    EntryCost,
    EntryHead,
    Leaderboard,
)
from cityheads.core.artifacts.metrics import METRICS, Metrics
from cityheads.core.artifacts.training import Budget
from cityheads.core.confusion import HeadMetric, or_none
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.layout import Layout, LeaderboardFolder
from cityheads.core.text import counted, duration, ends, percent, points
from cityheads.evaluation.bootstrap import CONFIDENCE
from cityheads.evaluation.budgets import budgets, checkpoint_note, unequal
from cityheads.evaluation.crossed import crossed
from cityheads.evaluation.markdown import Filters, fill
from cityheads.evaluation.paired import PP_DIGITS, rounded_interval, score_interval

__all__ = ["leaderboard", "pareto_front"]

#: Costs against which a front is drawn, and what they are called.
FRONTS = {"parameters": "parameters", "train_s": "training time"}

#: With fewer validation parents than this, intervals say little more than that little is known.
_FEW = 10


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Say of each of N points whether no other is at least as low in all respects and lower in one.

    Args:
        costs: (N, D), lower is better; a point with an undefined respect (NaN) is not on the front and keeps no other
            off it.

    Returns:
        (N,) bool. Equal points are on the front together, or not.
    """
    defined = ~np.isnan(costs).any(axis=1)
    front = defined.copy()
    for index in np.flatnonzero(defined):
        others = costs[defined]
        dominates = (others <= costs[index]).all(axis=1) & (others < costs[index]).any(axis=1)
        front[index] = not dominates.any()
    return front


def leaderboard(config: Config, *, results: Path, out: Path, experiments: Path | None = None) -> None:
    """Put the compared runs and the experiments side by side, as a table, as JSON and as a page.

    Nothing of it looks at the test split.

    Args:
        config: Its sections ``runs``, ``seeds``, ``splits``, ``tuning`` and ``noninferiority``.
        results: Results folder with the trainings and their evaluations on ``val``.
        out: Folder of the leaderboard; ``leaderboard.json`` is written last.
        experiments: The sheet of experiments; None for the compared runs only.

    Raises:
        CityHeadsError: A training or evaluation is missing, or two were evaluated on different parents.
    """
    layout, folder = Layout(results), LeaderboardFolder(out)
    test = config.noninferiority
    rows = [] if experiments is None else read_experiments(experiments)
    compared = tuple(dict.fromkeys((test.run, *test.baselines.values())))
    seeds = dict.fromkeys(compared, config.seeds) | {row.name: row.seeds or config.seeds for row in rows}
    of_row = {row.name: row for row in rows}
    spent = {name: budgets(layout, [name], config.folds, seeds[name]) for name in seeds}
    entries, simulated, parents = [], False, None
    tested_run: dict[tuple[int, int], Metrics] | None = None
    for name in seeds:
        found = {
            (fold, seed): METRICS.read(layout.evaluation(name, fold, seed, "val").metrics)
            for fold in config.folds
            for seed in seeds[name]
        }
        here = sorted({parent for one in found.values() for parent in one["parents"]})
        if parents is not None and here != parents:
            raise CityHeadsError(
                f"{layout.evaluation(name, config.folds[0], seeds[name][0], 'val').metrics}: was evaluated on other "
                "parents than the first run; make it anew: snakemake --forcerun evaluate"
            )
        parents = here
        simulated = simulated or any(one["simulated"] for one in found.values())
        entries.append(_entry(config, name, of_row.get(name), found, tested_run, spent[name]))
        # the run under test is the first
        tested_run = tested_run or found
    _mark_fronts(entries)
    tested = list(config.runs[test.run].heads)
    entries.sort(key=lambda entry: _place(entry, tested))
    board: Leaderboard = {
        "split": "val",
        "folds": list(config.folds),
        "confidence": CONFIDENCE,
        "simulated": simulated,
        "entries": entries,
        "notes": _notes(entries, [one for name in seeds for one in spent[name]], simulated),
    }
    _write_tables(folder, board)
    write_bytes(folder.page, _page(board, tested).encode())
    LEADERBOARD.write(folder.record, board)
    first = entries[0]
    logging.getLogger("cityheads.progress").info("%s: %s leads with %s", out, first["name"], percent(first["score"]))


def _entry(
    config: Config,
    name: str,
    row: Experiment | None,
    found: Mapping[tuple[int, int], Metrics],
    tested: Mapping[tuple[int, int], Metrics] | None,
    spent: Sequence[Budget],
) -> Entry:
    """Make the entry of one run.

    Args:
        config: The config.
        name: Name of the run.
        row: Its row in the sheet; None for a run of the config.
        found: Its evaluations by fold and seed.
        tested: Those of the run under test; None for that run itself.
        spent: Its trainings.
    """
    heads = {head: _head(head, found, tested) for head in next(iter(found.values()))["heads"]}
    scores = [part["score"] for part in heads.values()]
    defined = [score for score in scores if score is not None]
    of_fold = {one["fold"]: one["settings"] for one in spent}
    return {
        "name": name,
        "experiment": row is not None,
        "set": dict(config.runs[name].set if row is None else row.set),
        "settings": [settings for settings in of_fold.values() if settings],
        "comment": "" if row is None else row.comment,
        "seeds": list(dict.fromkeys(seed for _, seed in found)),
        "parents": len({parent for one in found.values() for parent in one["parents"]}),
        "heads": heads,
        "score": sum(defined) / len(defined) if len(defined) == len(scores) else None,
        "cost": _cost(spent),
        "front": {},
    }


def _counts(head: str, found: Mapping[tuple[int, int], Metrics]) -> tuple[np.ndarray, list[int], HeadMetric]:
    """Give a head's counts, (seeds, parents, C, C) int64, the fold of each parent, and the head's metric."""
    first = next(iter(found.values()))["heads"][head]
    metric = HeadMetric.of(first["metric"]["name"], first["classes"], first["metric"]["positive_class"])
    seeds = list(dict.fromkeys(seed for _, seed in found))
    parents = sorted({parent for one in found.values() for parent in one["parents"]})
    counts = np.zeros((len(seeds), len(parents), len(metric.classes), len(metric.classes)), np.int64)
    folds = [0] * len(parents)
    for (fold, seed), one in found.items():
        for parent, part in one["heads"][head]["per_parent"].items():
            counts[seeds.index(seed), parents.index(parent)] += np.array(part["confusion"], np.int64)
            folds[parents.index(parent)] = fold
    return counts, folds, metric


def _head(
    head: str, found: Mapping[tuple[int, int], Metrics], tested: Mapping[tuple[int, int], Metrics] | None
) -> EntryHead:
    """Score one head over all folds, averaged over the seeds, with intervals as the verdict's are.

    Args:
        head: Name of the head.
        found: The evaluations by fold and seed.
        tested: Those of the run under test, with which the head is compared parent by parent; None for that run itself.
    """
    counts, folds, metric = _counts(head, found)
    point = float(metric(counts.sum(axis=1)).mean())
    delta: list[float] | None = None
    difference = math.nan
    if tested is not None and tested.keys() == found.keys() and head in next(iter(tested.values()))["heads"]:
        effect = crossed(counts, _counts(head, tested)[0], metric, folds)
        difference, delta = effect.point, rounded_interval(effect, CONFIDENCE)
    return {
        "metric": metric.name,
        "positive_class": metric.positive_class,
        "score": or_none(point),
        "interval": score_interval(counts, metric, CONFIDENCE, folds),
        "delta_pp": or_none(difference, PP_DIGITS),
        "delta_interval_pp": delta,
    }


def _cost(spent: Sequence[Budget]) -> EntryCost:
    memory = [one["peak_memory_mb"] for one in spent]
    energy = [one["cpu_energy_j"] for one in spent]
    known = [value for value in memory if value is not None]
    joules = [value for value in energy if value is not None]
    first, count = spent[0], len(spent)
    return {
        "parameters": first["parameters"],
        "trainable": first["trainable"],
        "steps": sum(one["steps"] for one in spent) / count,
        "candidates": first["candidates"],
        "train_s": sum(one["wall_s"] for one in spent) / count,
        "peak_memory_mb": max(known) if len(known) == count else None,
        "cpu_energy_j": sum(joules) / count if len(joules) == count else None,
        "inference_chips_per_s": sum(one["inference_chips_per_s"] for one in spent) / count,
    }


def _mark_fronts(entries: Sequence[Entry]) -> None:
    """Mark the entries that no other with the same heads beats at their price."""
    for heads in {tuple(sorted(entry["heads"])) for entry in entries}:
        group = [entry for entry in entries if tuple(sorted(entry["heads"])) == heads]
        lost = [np.nan if entry["score"] is None else -entry["score"] for entry in group]
        for kind in FRONTS:
            prices = [dict(entry["cost"])[kind] for entry in group]
            front = pareto_front(np.array([lost, prices], dtype=float).T)
            for entry, on_it in zip(group, front, strict=True):
                entry["front"][kind] = bool(on_it)


def _place(entry: Entry, tested: Sequence[str]) -> tuple[Any, ...]:
    """Sort entries with the tested run's heads first, then by their heads, then by score, undefined ones last."""
    heads = list(entry["heads"])
    score = entry["score"]
    return sorted(heads) != sorted(tested), sorted(heads), score is None, -(score or 0.0), entry["name"]


def _notes(entries: Sequence[Entry], spent: Sequence[Budget], simulated: bool) -> list[str]:
    notes = []
    if simulated:
        notes.append("The archive is simulated: this says nothing about a real city.")
    parents = max(entry["parents"] for entry in entries)
    if parents < _FEW:
        notes.append(
            f"{counted(parents, 'validation parent').capitalize()} only: the intervals are wide, and a difference "
            "between two rows whose intervals overlap much is no evidence."
        )
    if any(len(entry["seeds"]) == 1 for entry in entries):
        notes.append("A row of one seed does not show how far its score moves from one training to the next.")
    if any(one["checkpoint"] == "best" or one["candidates"] > 1 for one in spent):
        notes.append(
            "Epochs or settings were chosen on the same validation parents, so that the scores are somewhat too high."
        )
    notes.append(checkpoint_note(spent))
    return notes + unequal(spent)


def _columns() -> Any:
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        [
            ("name", text), ("experiment", pa.bool_()), ("set", text), ("comment", text), ("seeds", whole),
            ("parents", whole), ("head", text), ("metric", text), ("positive_class", text), ("score", real),
            ("interval_low", real), ("interval_high", real), ("delta_pp", real),
            ("delta_low_pp", real), ("delta_high_pp", real), ("mean_score", real), ("parameters", whole),
            ("trainable", whole), ("steps", real), ("candidates", whole), ("train_s", real), ("peak_memory_mb", real),
            ("cpu_energy_j", real), ("inference_chips_per_s", real), ("front_parameters", pa.bool_()),
            ("front_train_s", pa.bool_()),
        ]
    )  # fmt: skip


def _write_tables(folder: LeaderboardFolder, board: Leaderboard) -> None:
    """Write a row for each entry and head, as Parquet and as CSV."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for entry in board["entries"]:
        for head, part in entry["heads"].items():
            low, high = part["interval"] or (None, None)
            least, most = part["delta_interval_pp"] or (None, None)
            rows.append(
                {
                    "name": entry["name"],
                    "experiment": entry["experiment"],
                    "set": _written(entry["set"]),
                    "comment": entry["comment"],
                    "seeds": len(entry["seeds"]),
                    "parents": entry["parents"],
                    "head": head,
                    "metric": part["metric"],
                    "positive_class": part["positive_class"],
                    "score": part["score"],
                    "interval_low": low,
                    "interval_high": high,
                    "delta_pp": part["delta_pp"],
                    "delta_low_pp": least,
                    "delta_high_pp": most,
                    "mean_score": entry["score"],
                    **entry["cost"],
                    **{f"front_{kind}": on_it for kind, on_it in entry["front"].items()},
                }
            )
    schema = _columns()
    LEADERBOARD_TABLE.write(folder.table, pa.Table.from_pylist(rows, schema=schema))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, schema.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(folder.csv, buffer.getvalue().encode())


def _page(board: Leaderboard, tested: Sequence[str]) -> str:
    """Write the page."""
    filters: Filters = {
        "percent": percent,
        "duration": duration,
        "written": _written,
        "points": points,
        "ends": ends,
    }
    heads = list(dict.fromkeys([*tested, *(head for entry in board["entries"] for head in entry["heads"])]))
    context = {"board": board, "heads": heads, "fronts": FRONTS, "confidence": f"{100 * board['confidence']:g} %"}
    return fill("leaderboard.md.j2", filters, context)


def _written(settings: Mapping[str, Any]) -> str:
    """Write settings as the sheet has them."""
    import yaml

    def value(one: Any) -> str:
        text: str = yaml.safe_dump(one, default_flow_style=True, width=10_000)
        return text.removesuffix("...\n").strip()

    return " ".join(f"{key}={value(one)}" for key, one in settings.items())
