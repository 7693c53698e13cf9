"""``history.csv``: losses and scores of a training, a row an epoch; nothing where a value is undefined."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes

__all__ = ["columns", "read_history", "write_history"]


def columns(metrics: Mapping[str, str]) -> list[str]:
    """Name the columns.

    Args:
        metrics: Metric of each head, in the order of the run.
    """
    names = ["epoch", "lr", "train/loss", *(f"train/{head}/loss" for head in metrics), "val/loss"]
    for head, metric in metrics.items():
        names += [f"val/{head}/loss", f"val/{head}/{metric}"]
    names += ["val/score", *(f"train/{head}/chips" for head in metrics)]
    return [*names, "train/gradient_cosine"] if len(metrics) > 1 else names


def write_history(path: Path, metrics: Mapping[str, str], rows: Sequence[Mapping[str, float]]) -> None:
    """Write the epochs, values with 7 significant digits.

    Args:
        path: Target.
        metrics: As for `columns`.
        rows: A value per column; NaN, or no key, where it is undefined.
    """
    names = columns(metrics)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(name, row.get(name, math.nan)) for name in names])
    write_bytes(path, buffer.getvalue().encode())


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if name == "epoch" else f"{value:.7g}"


def read_history(path: Path, metrics: Mapping[str, str]) -> dict[str, list[float]]:
    """Read the epochs: a list per column, NaN where a cell is empty.

    Args:
        path: The file.
        metrics: As for `columns`.

    Raises:
        CityHeadsError: The file is missing, holds no epoch, lacks a column, or is no table of numbers.
    """
    anew = "make it anew: snakemake --forcerun train"
    path = Path(path)
    if not path.is_file():
        raise CityHeadsError(f"{path}: no such file; {anew}")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise CityHeadsError(f"{path}: holds no epoch; {anew}")
    missing = [name for name in columns(metrics) if name not in rows[0]]
    if missing:
        raise CityHeadsError(f"{path}: lacks column {missing[0]}; {anew}")
    try:
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}
    except (TypeError, ValueError) as error:
        raise CityHeadsError(f"{path}: not a table of numbers ({error}); {anew}") from None
