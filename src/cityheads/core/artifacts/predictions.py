"""``predictions/index.json`` and the confusion counts: what a model said of each sub-chip of the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact, Table
from cityheads.core.errors import CityHeadsError

__all__ = ["CONFUSION", "PREDICTIONS", "Predictions", "read_confusions", "write_confusions"]


class Predictions(TypedDict):
    """Ids of the sub-chips, in the order of the first axis of ``{head}.npy``."""

    chips: list[str]


PREDICTIONS = Artifact("index of predictions", "evaluate", 1, Predictions)

#: A row for each sub-chip, head, true and predicted class with a count above 0.
CONFUSION = Table("table of confusion counts", "evaluate", 1)

_COLUMNS = ("chip_id", "parent_id", "head", "true", "pred", "count")


def write_confusions(
    path: Path, chips: Sequence[str], parents: Sequence[str], confusions: Mapping[str, np.ndarray]
) -> None:
    """Write the counts that are not zero.

    Args:
        path: Target (Parquet).
        chips: N ids of sub-chips.
        parents: The parent of each of them.
        confusions: (N, C, C) int64 per head, rows true, columns predicted.
    """
    import pyarrow as pa

    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for head, counts in confusions.items():
        for index, true, predicted in np.argwhere(counts):
            values = (chips[index], parents[index], head, true, predicted, counts[index, true, predicted])
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    text = pa.dictionary(pa.int32(), pa.string())
    types = (text, text, text, pa.uint8(), pa.uint8(), pa.int64())
    CONFUSION.write(
        path, pa.table({name: pa.array(column, kind) for (name, column), kind in zip(rows.items(), types, strict=True)})
    )


def read_confusions(path: Path, head: str, chips: Sequence[str], classes: int) -> dict[str, np.ndarray]:
    """Read the confusion matrix of every sub-chip, (classes, classes) int64, rows true.

    Args:
        path: The table.
        head: Name of a head.
        chips: Ids of all sub-chips, also of those without a labelled pixel, which have no row.
        classes: Number of the head's classes.

    Raises:
        CityHeadsError: The table cannot be read, or is of other sub-chips or classes.
    """
    found = {chip: np.zeros((classes, classes), np.int64) for chip in chips}
    for row in CONFUSION.read(path, ("chip_id", "head", "true", "pred", "count")):
        if row["head"] == head:
            if row["chip_id"] not in found or max(row["true"], row["pred"]) >= classes:
                raise CityHeadsError(
                    f"{path}: counts class {max(row['true'], row['pred'])} of sub-chip {row['chip_id']}, which head "
                    f"{head} does not have; make it anew: snakemake --forcerun evaluate"
                )
            found[row["chip_id"]][row["true"], row["pred"]] += row["count"]
    return found
