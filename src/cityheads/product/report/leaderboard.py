"""The leaderboard, where one was made: runs and experiments by validation score, with what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cityheads.core.artifacts.leaderboard import LEADERBOARD, Entry
from cityheads.core.confusion import metric_title
from cityheads.core.text import duration, number
from cityheads.product.report.tables import Cell, Column, Table, count, score, words
from cityheads.product.results import Results

__all__ = ["Standing", "standing"]


@dataclass(frozen=True)
class Standing:
    """The table, and what a reader must know beside it."""

    table: Table
    notes: Sequence[str]


def standing(results: Results) -> Standing | None:
    """Read the leaderboard; None where none was made, or where it holds nothing."""
    path = results.layout.leaderboard.record
    if not path.exists():
        return None
    found = LEADERBOARD.read(path)
    if not found["entries"]:
        return None
    heads = list(dict.fromkeys(head for entry in found["entries"] for head in entry["heads"]))
    titles = {
        head: metric_title(part["metric"], part["positive_class"])
        for entry in found["entries"]
        for head, part in entry["heads"].items()
    }
    columns = [
        Column("run", number=False), Column("seeds"), *(Column(f"{head}, {titles[head]}, %") for head in heads),
        Column("mean, %"), Column("parameters, M"), Column("time of a training"), Column("memory, MB"),
        Column("CPU energy, kJ"), Column("sub-chips a second"), Column("best at its cost", number=False),
    ]  # fmt: skip
    caption = (
        "Runs and experiments by their score on validation parents, with what a training costs. Best at its cost "
        "(Pareto front): no other with the same heads scores as much for as little."
    )
    return Standing(
        Table("leaderboard", caption, columns, [_row(one, heads) for one in found["entries"]]), found["notes"]
    )


def _row(entry: Entry, heads: Sequence[str]) -> list[Cell]:
    cost = entry["cost"]
    scored = []
    for head in heads:
        part = entry["heads"].get(head)
        ends = None if part is None else part["interval"]
        notes = () if ends is None else (" to ".join(number(100 * end) for end in ends),)
        value = None if part is None else part["score"]
        scored.append(score(value) if value is None else score(value, notes=notes))
    changed = [f"{key}: {value}" for key, value in entry["set"].items()]
    return [
        words(entry["name"], notes=tuple(filter(None, (*changed, entry["comment"])))), count(len(entry["seeds"])),
        *scored, score(entry["score"]), Cell(f"{cost['parameters'] / 1e6:.2f}", cost["parameters"] / 1e6),
        Cell(duration(cost["train_s"]), cost["train_s"]), _maybe(cost["peak_memory_mb"]),
        _maybe(cost["cpu_energy_j"], 1e-3, 1), _maybe(cost["inference_chips_per_s"]),
        words(", ".join(kind.replace("_", " ") for kind, best in entry["front"].items() if best) or "-"),
    ]  # fmt: skip


def _maybe(value: float | None, factor: float = 1.0, digits: int = 0) -> Cell:
    if value is None:
        return Cell("n/a", defined=False)
    return Cell(f"{factor * value:,.{digits}f}", factor * value)
