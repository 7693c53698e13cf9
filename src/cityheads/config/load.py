"""From a file to a config: YAML that says what it means, and one line for what is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from cityheads.config.base import WORDS, KeyProblem, Section
from cityheads.config.config import Config
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes

__all__ = ["load_config", "read_yaml", "resolve", "unwrap", "write_config"]

#: Keys of before, by their place now, with what to write in place of them.
RENAMED = {
    "gate": "noninferiority (with strong_margin_pp for strong_pp and acceptable_margin_pp for acceptable_pp)",
    "noninferiority.strong_pp": "strong_margin_pp",
    "noninferiority.acceptable_pp": "acceptable_margin_pp",
    "train.recompute": "gradient_checkpointing",
    "model.thinking": "tim",
    "evaluation.without_modalities": "modality_ablation",
    "simulate.s2_noise": "s2_noise_reflectance",
}

#: libyaml's loader where PyYAML was built with it, ten times faster than the Python one.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """A safe loader that refuses what PyYAML lets pass: a key that stands twice, of which the last would win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key}' stands twice, in line {seen[key]} already; keep one",
                    problem_mark=key_node.start_mark,
                )
            seen[key] = line
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CityHeadsError: The file is missing, is no UTF-8, no YAML or no mapping, or a key stands twice; the message has
            file, line and column.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_bytes(), Loader=_Loader)
    except FileNotFoundError:
        raise CityHeadsError(f"{path}: no such config file") from None
    except OSError as error:
        raise CityHeadsError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        raise CityHeadsError(_place(path, error)) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise CityHeadsError(_unreadable(path)) from None
    if not isinstance(raw, dict):
        raise CityHeadsError(f"{path}: a config is a mapping of keys to values")
    return raw


def _place(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or error.context or "cannot be parsed"
    if problem.startswith("key '"):
        return f"{path}: {where}{problem}"
    return f"{path}: not valid YAML: {where}{problem}{f' {error.context}' if error.context else ''}"


def _unreadable(path: Path) -> str:
    """Say where a file stops being UTF-8, or holds a character that YAML does not allow."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before, what = content[: error.start], "not UTF-8; save the file in that encoding"
        text = before.decode()
    else:
        match = yaml.reader.Reader.NON_PRINTABLE.search(text)
        if match is None:
            return f"{path}: not valid YAML"
        text, what = text[: match.start()], f"character {match.group()!r} is not allowed in YAML; remove it"
    return f"{path}: line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}: {what}"


def load_config(path: Path) -> Config:
    """Read a config file, complete it with the defaults and check it.

    Raises:
        CityHeadsError: The file is missing or no YAML mapping, or the config is wrong; the message names the key.
    """
    raw = read_yaml(path)
    try:
        return resolve(raw)
    except CityHeadsError as error:
        raise CityHeadsError(f"{path}: {error}") from None


def resolve(raw: Mapping[str, Any]) -> Config:
    """Complete a config with the defaults and check it; the argument is left as it is.

    Raises:
        CityHeadsError: A key is unknown, missing, of the wrong kind, or at odds with another.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        problems = [_Problem(details) for details in error.errors(include_url=False)]
        raise CityHeadsError(min(problems, key=lambda problem: problem.depth).explain(raw)) from None


def write_config(config: Config, path: Path) -> None:
    """Write a config with all its defaults as YAML, which `load_config` reads to the same config.

    A file that says the same already is left alone.
    """
    content = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True).encode()
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


class _Problem:
    """One of pydantic's errors, as the keys and the words of a config."""

    def __init__(self, details: Any) -> None:
        self.kind: str = details["type"]
        self.value: Any = details["input"]
        self.context: dict[str, Any] = details.get("ctx", {})
        self.path = [part for part in details["loc"] if part != "[key]"]
        # below a label pydantic names the kind that it took; that is no key
        if len(self.path) > 2 and self.path[0] == "labels":
            del self.path[2]
        if self.kind in ("union_tag_invalid", "union_tag_not_found"):
            self.path.append("kind")
        found = self.context.get("error")
        self.found = found if isinstance(found, KeyProblem) else None
        if self.found and self.found.key:
            self.path += self.found.key.split(".")
        # what is unknown or missing is a fault of the mapping that it should or should not be in
        self.depth = len(self.path) - (self.kind in ("extra_forbidden", "missing"))

    def explain(self, raw: Mapping[str, Any]) -> str:
        """Say in one line what is wrong and what repairs it."""
        key = ".".join(str(part) for part in self.path)
        here = f"config key '{key}'" if key else "config"
        if self.found:
            return f"{here}: {self.found.text}"
        if self.kind == "extra_forbidden":
            return f"{here} {_unknown(self.path, raw)}"
        if self.kind == "missing":
            return f"{here} is missing; {_description(self.path, raw)}"
        return f"{here}: {self._what(raw)}"

    def _what(self, raw: Mapping[str, Any]) -> str:
        value, context = f"{self.value!r}", self.context
        match self.kind:
            case "literal_error":
                return f"{value} is none of {_choices(context['expected'])}"
            case "union_tag_invalid":
                return f"'{context['tag']}' is none of {_choices(context['expected_tags'])}"
            case "union_tag_not_found":
                return "is missing; it is one of landcover, footprints, raster, vector"
            case "greater_than_equal":
                return f"{value} is less than the minimum of {context['ge']:g}"
            case "greater_than":
                return f"{value} is not above {context['gt']:g}"
            case "less_than_equal":
                return f"{value} is greater than the maximum of {context['le']:g}"
            case "less_than":
                return f"{value} is not below {context['lt']:g}"
            case "finite_number":
                return f"{value} is not a finite number"
            case "string_pattern_mismatch":
                return f"'{self.value}' is not allowed; {WORDS[context['pattern']]}"
            case "string_too_short" | "too_short":
                return f"{value} is too short; it needs at least {context['min_length']}"
            case "string_too_long" | "too_long":
                return f"{_short(self.value)} is too long; it takes at most {context['max_length']}"
        wanted = _WANTED.get(self.kind)
        hint = _hint(self.kind, self.value)
        return f"{_short(self.value)} is not {wanted}{hint}" if wanted else f"{_short(self.value)} is wrong"


_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hint(kind: str, value: Any) -> str:
    if value is None:
        return "; remove the key for its default" if kind != "model_type" else "; write {} for its defaults"
    if kind == "string_type":
        return "; put it in quotes" if isinstance(value, bool | int | float) else ""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    return ""


def _choices(quoted: str) -> str:
    """Give pydantic's ``'a', 'b' or 'c'`` as ``a, b, c``."""
    return ", ".join(re.findall("'([^']*)'", quoted))


def _unknown(path: list[Any], raw: Mapping[str, Any]) -> str:
    """Say what is known where an unknown key stands."""
    *above, name = path
    new = RENAMED.get(".".join(map(str, path)))
    if new:
        return f"is now {new}"
    kind = _section(above, raw)
    known = sorted(kind.model_fields) if kind else []
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known here are {', '.join(known)}"
    return f"is unknown; {hint}"


def _description(path: list[Any], raw: Mapping[str, Any]) -> str:
    *above, name = path
    kind = _section(above, raw)
    info = kind.model_fields.get(str(name)) if kind else None
    return f"it is needed: {info.description}" if info else "it is needed"


def _section(path: list[Any], raw: Any) -> type[Section] | None:
    """Give the section's class at a path, with what is written there to tell the kinds of labels apart."""
    kinds: list[Any] = [Config]
    for part in path:
        raw = raw.get(part) if isinstance(raw, Mapping) else raw[part] if isinstance(raw, list | tuple) else None
        below: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Section):
                info = kind.model_fields.get(str(part))
                below += unwrap(info.annotation) if info else []
            else:
                below += unwrap(get_args(kind)[0 if isinstance(part, int) else -1]) if get_args(kind) else []
        kinds = below
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
    if len(sections) > 1 and isinstance(raw, Mapping):
        named = [kind for kind in sections if raw.get("kind") in get_args(kind.model_fields["kind"].annotation)]
        sections = named or sections
    return sections[0] if sections else None


def unwrap(annotation: Any) -> Iterator[Any]:
    """Give the types that an annotation stands for, without Annotated, None and unions around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from unwrap(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for choice in get_args(annotation):
            yield from unwrap(choice)
    elif annotation is not type(None):
        yield annotation
