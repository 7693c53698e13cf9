"""Tables as the page shows them: they sort, filter, fold into cards on a phone, and each can be had as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from urllib.parse import quote

from markupsafe import Markup

from cityheads.core.redaction import shown
from cityheads.core.text import number, signed

__all__ = ["UNDEFINED", "Cell", "Column", "Table", "count", "points", "score", "words"]

#: A table of more rows gets a field to filter them, and one of even more rows is folded away.
_MANY_ROWS, _TOO_MANY_ROWS = 10, 30

#: What stands in place of a number that is undefined.
UNDEFINED = "n/a"


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers, and the title that it has in common with its neighbours."""

    title: str
    number: bool = True
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: What is shown.
        value: What the column is sorted by and what the CSV holds, where that is not the text.
        notes: Smaller lines below.
        sign: -1 or 1 where a difference is worth a colour besides its sign.
        color: Of a class.
        defined: Whether there is a value at all.
    """

    text: str
    value: float | None = None
    notes: Sequence[str] = ()
    sign: int = 0
    color: str | None = None
    defined: bool = True

    @property
    def key(self) -> str:
        """What the column is sorted by; empty where undefined, which goes last either way."""
        if not self.defined:
            return ""
        return self.text if self.value is None else f"{self.value:.10g}"


@dataclass(frozen=True)
class Table:
    """A table; the first column heads its rows.

    Attributes:
        id: Name of it and, with ``.csv``, of its file.
        caption: What it holds.
        columns: From left to right.
        rows: A cell for each column.
    """

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]] = field(repr=False)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Titles above the columns with their widths; empty where no column has one."""
        runs = [(title, len(list(of))) for title, of in groupby(self.columns, key=lambda column: column.group)]
        return runs if any(title for title, _ in runs) else []

    @property
    def filtered(self) -> bool:
        """Whether it is long enough to be filtered."""
        return len(self.rows) > _MANY_ROWS

    @property
    def long(self) -> bool:
        """Whether it is so long that the page folds it away."""
        return len(self.rows) > _TOO_MANY_ROWS

    @property
    def csv(self) -> Markup:
        """The whole table as CSV (RFC 4180), in a URL."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow([f"{column.group} {column.title}".strip() for column in self.columns])
        writer.writerows([shown(cell.key) for cell in row] for row in self.rows)
        return Markup("data:text/csv;charset=utf-8," + quote(stream.getvalue()))


def words(text: str, **more: object) -> Cell:
    """Make a cell of text."""
    return Cell(text, **more)  # type: ignore[arg-type]


def count(value: int | None, **more: object) -> Cell:
    """Make a cell of a number of things."""
    return _undefined() if value is None else Cell(f"{value:,}", value, **more)  # type: ignore[arg-type]


def score(value: float | None, digits: int = 1, **more: object) -> Cell:
    """Make a cell of a score from 0 to 1, shown in percent."""
    return _undefined() if value is None else Cell(number(100 * value, digits), 100 * value, **more)  # type: ignore[arg-type]


def points(value: float | None, digits: int = 2, *, told: bool = True) -> Cell:
    """Make a cell of a difference in percentage points; ``told`` says whether its sign is worth a colour."""
    if value is None:
        return _undefined()
    text = signed(value, digits)
    return Cell(text, value, sign=(1 if value > 0 else -1) if told and text.strip("0.,") else 0)


def _undefined() -> Cell:
    return Cell(UNDEFINED, defined=False)
