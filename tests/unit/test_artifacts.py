"""Artifacts are checked when they are written and when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired

import pyarrow as pa
import pytest
from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact, Table
from cityheads.core.errors import CityHeadsError


class Inner(TypedDict):
    share: float | None


class Shape(TypedDict):
    name: str
    parts: dict[str, Inner]
    remark: NotRequired[str]


THING = Artifact("thing", "make_thing", 2, Shape)
ROWS = Table("table of things", "make_things", 3)


def test_what_was_written_is_read_and_carries_its_version(tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    THING.write(path, {"name": "a", "parts": {"b": {"share": 0.5}}})
    assert list(json.loads(path.read_text())) == ["format_version", "name", "parts"]
    assert THING.read(path) == {"name": "a", "parts": {"b": {"share": 0.5}}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("[]", "not a thing"),
        ("{", "not valid JSON"),
        ('{"name": "a", "parts": {}}', "has no format version, and this version of CityHeads reads 2"),
        ('{"format_version": 1, "name": "a", "parts": {}}', "has format version 1"),
        ('{"format_version": 3, "name": "a", "parts": {}}', "has format version 3"),
        ('{"format_version": 2, "parts": {}}', "key 'name'"),
        ('{"format_version": 2, "name": "a", "parts": {}, "more": 1}', "key 'more'"),
        ('{"format_version": 2, "name": "a", "parts": {"b": {"share": NaN}}}', "key 'parts.b.share'"),
        ('{"format_version": 2, "name": "a", "parts": {"b": {}}}', "key 'parts.b.share'"),
        ('{"format_version": 2, "name": "a", "parts": {"b": {"share": 1, "more": 1}}}', "key 'parts.b.more'"),
    ],
)
def test_another_version_or_shape_is_refused_in_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "thing.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CityHeadsError) as caught:
        THING.read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if content != "{":
        assert str(caught.value).endswith("snakemake --forcerun make_thing")


def test_a_wrong_shape_is_not_written(tmp_path: Path) -> None:
    for wrong in ({"name": "a"}, {"name": "a", "parts": {"b": {"share": float("nan")}}}):
        with pytest.raises(ValueError, match="not a thing"):
            THING.write(tmp_path / "thing.json", wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_tables_carry_their_version(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    ROWS.write(path, pa.table({"a": [1, 2], "b": ["x", "y"]}).replace_schema_metadata({b"geo": b"{}"}))
    assert ROWS.read(path, ["a"]) == [{"a": 1}, {"a": 2}]
    assert ROWS.read_arrow(path, ["b"]).schema.metadata[b"geo"] == b"{}"
    with pytest.raises(CityHeadsError, match="lacks column c; make it anew: snakemake --forcerun make_things"):
        ROWS.read(path, ["c"])
    with pytest.raises(CityHeadsError, match="has format version 3, and this version of CityHeads reads 4"):
        Table("table of things", "make_things", 4).read(path, ["a"])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CityHeadsError, match="cannot be read as Parquet"):
        ROWS.read(path, ["a"])
    with pytest.raises(CityHeadsError, match="no such file"):
        ROWS.read(tmp_path / "u.parquet", ["a"])
