"""Reading and writing of checked, versioned JSON and Parquet files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Artifact", "Table"]

T = TypeVar("T")

#: Key of the version, in JSON at the top and in Parquet among the metadata of the schema.
_KEY = "format_version"
_PARQUET_KEY = b"cityheads:format_version"


@dataclass(frozen=True)
class Artifact(Generic[T]):
    """A kind of JSON file.

    Attributes:
        title: What it is, for messages: ``scene choice``.
        verb: Rule of the workflow that writes it.
        version: Version of the format; raised when the shape changes.
        shape: A TypedDict (of ``typing_extensions``), without the version.
    """

    title: str
    verb: str
    version: int
    shape: type[T]

    def read(self, path: Path) -> T:
        """Read a file and check version and shape.

        Raises:
            CityHeadsError: The file is missing, is not JSON, has another version, or another shape.
        """
        path = Path(path)
        if not path.is_file():
            raise CityHeadsError(f"{path}: no such file; {_anew(self.verb)}")
        value = read_json(path)
        if not isinstance(value, dict):
            raise CityHeadsError(f"{path}: not a {self.title}; {_anew(self.verb)}")
        _check_version(path, value.pop(_KEY, None), self)
        return self._checked(value, path)

    def write(self, path: Path, value: T) -> None:
        """Write a file, whole or not at all, with its version first.

        Raises:
            CityHeadsError: The place cannot be written.
            ValueError: The value does not have the shape, or holds NaN or an infinity: a defect of the caller.
        """
        try:
            self._checked(value, path)
        except CityHeadsError as error:
            raise ValueError(str(error)) from None
        write_json(path, {_KEY: self.version, **value})  # type: ignore[dict-item]

    def _checked(self, value: Any, path: Path) -> T:
        from pydantic import ValidationError

        try:
            shape: Any = self.shape
            checked: T = _adapter(shape).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CityHeadsError(
                f"{path}: not a {self.title}: key '{where}': {first['msg']}; {_anew(self.verb)}"
            ) from None
        return checked


@dataclass(frozen=True)
class Table:
    """A kind of Parquet file.

    Attributes:
        title: What it is, for messages: ``chip table``.
        verb: Rule of the workflow that writes it.
        version: Version of the format; raised when columns change their name, type or meaning.
    """

    title: str
    verb: str
    version: int

    def read(self, path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Read some columns as one mapping a row.

        Raises:
            CityHeadsError: The file is missing, unreadable, of another version, or lacks a column.
        """
        found: list[dict[str, Any]] = self.read_arrow(path, columns).to_pylist()
        return found

    def columns(self, path: Path) -> list[str]:
        """Give the names of a table's columns.

        Raises:
            CityHeadsError: As for `read`.
        """
        import pyarrow.parquet as pq

        self.read_arrow(path, ())
        return list(pq.read_schema(path).names)

    def read_arrow(self, path: Path, columns: Sequence[str]) -> pa.Table:
        """Read some columns as an Arrow table.

        Raises:
            CityHeadsError: As for `read`.
        """
        import pyarrow
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise CityHeadsError(f"{path}: no such file; {_anew(self.verb)}")
        try:
            with pq.ParquetFile(path) as file:
                version = (file.schema_arrow.metadata or {}).get(_PARQUET_KEY)
                _check_version(path, None if version is None else int(version), self)
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise CityHeadsError(f"{path}: lacks column {missing[0]}; {_anew(self.verb)}")
                return file.read(columns=list(columns))
        except (pyarrow.ArrowInvalid, ValueError, OSError) as error:
            raise CityHeadsError(f"{path}: cannot be read as Parquet ({error}); {_anew(self.verb)}") from None

    def write(self, path: Path, table: pa.Table) -> None:
        """Write a table, whole or not at all, with its version among the metadata.

        Args:
            path: Target.
            table: The table; metadata that it has already, such as GeoParquet's, stay.
        """
        import pyarrow.parquet as pq

        metadata = {**(table.schema.metadata or {}), _PARQUET_KEY: str(self.version).encode()}
        with atomic_path(path) as part:
            pq.write_table(table.replace_schema_metadata(metadata), part)


def _check_version(path: Path, found: Any, kind: Artifact[Any] | Table) -> None:
    if found != kind.version:
        what = "has no format version" if found is None else f"has format version {found}"
        raise CityHeadsError(
            f"{path}: this {kind.title} {what}, and this version of CityHeads reads {kind.version}; {_anew(kind.verb)}"
        )


def _anew(verb: str) -> str:
    return f"make it anew: snakemake --forcerun {verb}"


@functools.cache
def _adapter(shape: Any) -> Any:
    """Build a validator once a process; keys that the shape does not name are refused at every depth, and so is NaN."""
    from pydantic import TypeAdapter

    _forbid_unknown_keys(shape, set())
    return TypeAdapter(shape)


def _forbid_unknown_keys(hint: Any, seen: set[Any]) -> None:
    from typing import get_args

    from pydantic import ConfigDict
    from typing_extensions import get_type_hints, is_typeddict

    if is_typeddict(hint) and hint not in seen:
        seen.add(hint)
        # pydantic does not hand the settings of a TypedDict on to those within
        hint.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
        for inner in get_type_hints(hint, include_extras=True).values():
            _forbid_unknown_keys(inner, seen)
    for inner in get_args(hint):
        _forbid_unknown_keys(inner, seen)
