"""Columns of vector files, whatever their type: as numbers, as days, as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["dates", "numbers", "texts"]

_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Read a column as numbers, whatever its type.

    Returns:
        (N,) float64, NaN where empty or unreadable, and how many values were unreadable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    unreadable = 0
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), None, text)
        good = pc.match_substring_regex(text, _NUMBER.pattern)
        unreadable = int(pc.sum(pc.invert(good)).as_py() or 0)
        column = pc.if_else(good, text, None)
    elif not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):
        return np.full(len(column), np.nan), len(column) - column.null_count
    return column.cast(pa.float64(), safe=False).to_numpy(), unreadable


def dates(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Read a column as days: dates, time stamps, or text that begins with 2017-08-22, 2017/08/22 or 08/22/2017.

    Returns:
        date32 column, null where empty or unreadable, and how many values were unreadable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return column.cast(pa.date32(), safe=False), 0
    if pa.types.is_null(kind):
        return column.cast(pa.date32()), 0
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.chunked_array([pa.nulls(len(column), pa.date32())]), len(column) - column.null_count
    text = pc.utf8_trim_whitespace(column)
    text = pc.replace_substring(pc.utf8_slice_codeunits(text, 0, 10), "/", "-")
    day = pc.coalesce(
        pc.strptime(text, format="%Y-%m-%d", unit="s", error_is_null=True),
        pc.strptime(text, format="%m-%d-%Y", unit="s", error_is_null=True),
    ).cast(pa.date32())
    given = pc.and_kleene(pc.is_valid(text), pc.not_equal(text, ""))
    unreadable = int(pc.sum(pc.and_(pc.fill_null(given, False), pc.is_null(day))).as_py() or 0)
    return day, unreadable


def texts(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column as text: what JSON and CSV write for it, so that a whole number has no ``.0``.

    Returns:
        (N,) objects of type str; a missing value is ``""``.
    """
    values = np.empty(len(column), object)
    values[:] = [_text(value) for value in column.to_pylist()]
    return values


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
