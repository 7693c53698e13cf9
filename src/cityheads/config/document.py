"""The page of keys and the JSON schema, both made from the sections' classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from cityheads.config.base import Section, affects, plain
from cityheads.config.config import Config
from cityheads.config.problems import unwrap
from cityheads.core.files import canonical_json, write_bytes

__all__ = ["document", "document_config", "json_schema"]

_HEAD = """# Configuration

Every key that a config file may hold; `*` stands for a name of your own, or for each item of a list. Unknown keys are
refused. A changed key runs those jobs of the workflow again whose results can depend on it, and no others.

An editor completes and checks a config whose first line is
`# yaml-language-server: $schema=../workflow/schemas/config.schema.json` (a path relative to the config).

This page and that schema are made from the classes in `src/cityheads/config/`:
`cityheads document_config --out docs/configuration.md --schema workflow/schemas/config.schema.json`.
"""

_REMARK = {
    "choice": " Changes which scenes are chosen, nothing else.",
    "figures": " Changes figures only, nothing that is learnt.",
    "nothing": " Never changes a result.",
}


def document() -> str:
    """Give the page: every key with its default and description."""
    lines = [_HEAD]
    for name, info in Config.model_fields.items():
        lines += [f"## {name}", "", str(info.description), ""]
        sections = [kind for kind in _sections(info) if kind]
        if not sections:
            lines += [*_table([(name, info)]), ""]
        elif len(sections) == 1:
            lines += [*_table(_rows(sections[0], _path(name, info))), ""]
        else:
            for kind in sections:
                tag = get_args(kind.model_fields["kind"].annotation)[0]
                lines += [f"### kind {tag}", "", " ".join(str(kind.__doc__).split()), ""]
                lines += [*_table(_rows(kind, _path(name, info))), ""]
    return "\n".join(lines)


def _path(name: str, info: FieldInfo) -> str:
    """Give a field's key with ``.*`` where names of one's own or list items follow."""
    origin = get_origin(next(iter(unwrap(info.annotation))))
    return f"{name}.*" if origin in (tuple, Mapping) else name


def _sections(info: FieldInfo) -> list[type[Section]]:
    """Give the sections' classes that a field holds, itself or as the values of a mapping or list."""
    found: list[type[Section]] = []
    for kind in unwrap(info.annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            found.append(kind)
        elif get_origin(kind) is not None and get_origin(kind) is not Literal:
            for inner in unwrap(get_args(kind)[-1] if get_args(kind)[-1] is not ... else get_args(kind)[0]):
                if isinstance(inner, type) and issubclass(inner, Section):
                    found.append(inner)
    return found


def _rows(kind: type[Section], path: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in kind.model_fields.items():
        below = _sections(info)
        if below:
            yield from _rows(below[0], f"{path}.{_path(name, info)}")
        else:
            yield f"{path}.{name}", info


def _table(rows: Any) -> Iterator[str]:
    yield "| key | default | what it is |"
    yield "|---|---|---|"
    for key, info in rows:
        remark = _REMARK.get(affects(info), "")
        default = "required"
        if not info.is_required():
            default = f"`{canonical_json(plain(info.get_default(call_default_factory=True)))}`"
        choices = _choices(info)
        allowed = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if len(choices) > 1 else ""
        allowed = f" Here `{choices[0]}`." if len(choices) == 1 else allowed
        yield f"| `{key}` | {default} | {info.description}{allowed}{remark} |"


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    kind = next(iter(unwrap(info.annotation)))
    return get_args(kind) if get_origin(kind) is Literal else ()


def json_schema() -> str:
    """Give the JSON schema of a config file as text, in the draft that editors know (07)."""
    made = Config.model_json_schema(ref_template="#/definitions/{model}")
    made["definitions"] = made.pop("$defs")
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "CityHeads configuration"}
    return json.dumps(head | _tidy(made), indent=1) + "\n"


def _tidy(node: Any) -> Any:
    """Say what pydantic says in a plainer way: without made-up titles, names as names, pairs as lists."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _tidy(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "patternProperties" in made:
        ((pattern, value),) = made.pop("patternProperties").items()
        made |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
    if "prefixItems" in made:
        made["items"] = made.pop("prefixItems")[0]
    return made


def document_config(*, out: Path, schema: Path | None = None) -> None:
    """Write the page of keys and, where named, the JSON schema."""
    write_bytes(out, document().encode())
    if schema is not None:
        write_bytes(schema, json_schema().encode())
