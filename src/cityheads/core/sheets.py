"""Sheets that people write: tab-separated text, ``#`` lines are comments, one line says what is wrong and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cityheads.core.errors import CityHeadsError

__all__ = ["read_sheet"]


def read_sheet(
    path: Path, required: Sequence[str], optional: Sequence[str], *, what: str, key: str
) -> list[tuple[int, dict[str, str]]]:
    """Read a sheet's rows, cells without white space around them; an optional column that it lacks is not in them.

    Cells are taken as they stand: a quotation mark means itself. A byte order mark, which spreadsheets write, is read
    over.

    Args:
        path: The file, UTF-8.
        required: Columns that it must have.
        optional: Columns that it may have.
        what: What it is, for messages: ``parent sheet``.
        key: Key of the config that names it, for messages.

    Returns:
        The number of the line in the file, from 1, and the cell of each column, per row.

    Raises:
        CityHeadsError: The file is missing, a folder, empty or no UTF-8; a column is missing, unknown or there twice; a
            row has more cells than there are columns.
    """
    lines = [
        (number, line.rstrip("\r"))
        for number, line in enumerate(_text(Path(path), what, key).split("\n"), start=1)
        if line.strip() and not line.startswith("#")
    ]
    known = (*required, *optional)
    if not lines:
        raise CityHeadsError(f"{path}: the {what} is empty; it needs the columns {', '.join(required)}")
    columns = [name.strip() for name in lines[0][1].split("\t")]
    for name in required:
        if name not in columns:
            raise CityHeadsError(f"{path}: missing column {name}; the sheet is tab-separated with {', '.join(known)}")
    for name in columns:
        if name not in known:
            raise CityHeadsError(f"{path}: unknown column '{name}'; known are {', '.join(known)}")
        if columns.count(name) > 1:
            raise CityHeadsError(f"{path}: column {name} stands there twice; remove one")
    rows: list[tuple[int, dict[str, str]]] = []
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) > len(columns) and any(cells[len(columns) :]):
            raise CityHeadsError(
                f"{path}: line {number}: has {len(cells)} cells where the sheet has {len(columns)} columns "
                f"({', '.join(columns)}); remove '{next(filter(None, cells[len(columns) :]))}' or name its column"
            )
        rows.append((number, dict(zip(columns, [*cells, *[""] * len(columns)], strict=False))))
    return rows


def _text(path: Path, what: str, key: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CityHeadsError(f"{path}: no such {what}; the config key '{key}' names it") from None
    except IsADirectoryError:
        raise CityHeadsError(f"{path}: is a folder, not a {what}; the config key '{key}' names the file") from None
    except OSError as error:
        raise CityHeadsError(f"{path}: the {what} cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        raise CityHeadsError(
            f"{path}: line {line}, column {column}: not UTF-8; save the sheet in that encoding"
        ) from None
