"""``scores.parquet``: every score of an evaluation in one tidy table, a row for each sub-chip, metric, class and scale.

A row is a mean over ``n`` pixels or windows of one sub-chip, or, for counts, their sum, so that the scores of any
group of sub-chips follow from the rows: means weighted by ``n``, and ratios of sums. Rows of nothing (``n`` = 0) are
left out; a score that is undefined in a sub-chip that has pixels is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.artifacts.base import Table

__all__ = ["SCORES", "ScoreRows", "write_scores"]

SCORES = Table("table of scores", "evaluate", 1)


@dataclass(frozen=True)
class _Block:
    """Rows of one head, metric, class and scale: (k,) positions of sub-chips, values and numbers."""

    head: str
    metric: str
    class_name: str | None
    scale: str | None
    chips: np.ndarray
    values: np.ndarray
    n: np.ndarray


@dataclass
class ScoreRows:
    """The rows of one evaluation.

    Attributes:
        chips: Ids of its sub-chips.
        parents: The parent of each of them.
    """

    chips: Sequence[str]
    parents: Sequence[str]
    _blocks: list[_Block] = field(default_factory=list)

    def add(
        self,
        head: str,
        metric: str,
        values: np.ndarray,
        n: np.ndarray,
        *,
        class_name: str | None = None,
        scale: str | None = None,
    ) -> None:
        """Add a row for each sub-chip.

        Args:
            head: Name of the head.
            metric: Name of the metric.
            values: (N,) numbers, NaN where undefined.
            n: (N,) number of pixels or windows behind each; sub-chips with 0 get no row.
            class_name: The class that it is about; None for all of them together.
            scale: Size of windows, distance or bin; None where there is none.
        """
        there = np.flatnonzero(np.asarray(n) > 0)
        if there.size:
            taken = np.asarray(values, np.float64)[there], np.asarray(n, np.int64)[there]
            self._blocks.append(_Block(head, metric, class_name, scale, there, *taken))

    def blocks(self) -> Iterable[_Block]:
        """Give what was added, in that order."""
        return tuple(self._blocks)


def write_scores(path: Path, rows: ScoreRows, *, run: str, fold: int, seed: int, split: str) -> None:
    """Write the table.

    Columns: ``run``, ``fold``, ``seed``, ``split``, ``head``, ``parent``, ``chip``, ``metric``, ``class``, ``scale``,
    ``value``, ``n``.

    Args:
        path: Target (Parquet).
        rows: The rows.
        run: Name of the run or control.
        fold: Its fold.
        seed: Its seed.
        split: ``val`` or ``test``.
    """
    import pyarrow as pa

    blocks = list(rows.blocks())
    sizes = [block.chips.size for block in blocks]
    chips = np.concatenate([block.chips for block in blocks]) if blocks else np.zeros(0, np.int64)
    parents = list(dict.fromkeys(rows.parents))
    of_chip = np.array([parents.index(parent) for parent in rows.parents], np.int64)

    def text(codes: np.ndarray, names: Sequence[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))

    def labels(values: Sequence[str | None]) -> Any:
        names = [name for name in dict.fromkeys(values) if name is not None]
        # the position after the last name stands for null
        codes = np.repeat([len(names) if value is None else names.index(value) for value in values], sizes)
        numbers = pa.array(codes, pa.int32(), mask=codes == len(names))
        return pa.DictionaryArray.from_arrays(numbers, pa.array(names, pa.string()))

    def constant(value: str) -> Any:
        return text(np.zeros(chips.size, np.int32), [value])

    values = np.concatenate([block.values for block in blocks]) if blocks else np.zeros(0)
    columns = {
        "run": constant(run),
        "fold": pa.array(np.full(chips.size, fold), pa.int32()),
        "seed": pa.array(np.full(chips.size, seed), pa.int64()),
        "split": constant(split),
        "head": labels([block.head for block in blocks]),
        "parent": text(of_chip[chips] if chips.size else chips, parents),
        "chip": text(chips, list(rows.chips)),
        "metric": labels([block.metric for block in blocks]),
        "class": labels([block.class_name for block in blocks]),
        "scale": labels([block.scale for block in blocks]),
        "value": pa.array(values, pa.float64(), mask=np.isnan(values)),
        "n": pa.array(np.concatenate([block.n for block in blocks]) if blocks else chips, pa.int64()),
    }
    SCORES.write(path, pa.table(columns))
