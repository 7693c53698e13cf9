"""From a file to a config: YAML that says what it means, and one line for what is wrong."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from cityheads.config.base import EXPONENT, plain
from cityheads.config.config import Config
from cityheads.config.problems import Problem, problems
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path
from cityheads.core.redaction import scrub

__all__ = ["load_config", "read_yaml", "resolve", "write_config", "yaml_value"]

#: libyaml's loader where PyYAML was built with it, ten times faster than the Python one.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """A safe loader that reads dates as text and refuses a key that stands twice, of which the last would win."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key.value}' stands twice, also in line {lines[key.value]}; remove one",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
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


def yaml_value(text: str) -> Any:
    """Read a value as a config has it: ``0.1``, ``true``, ``[S2L2A, DEM]``, ``{rank: 8}``.

    Raises:
        ValueError: It is no YAML; the message is one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(error.problem or "not valid YAML") from None
    except yaml.YAMLError:
        raise ValueError("not valid YAML") from None


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
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        found = problems(error)
    else:
        _check_runs(config)
        return config
    meant = _as_meant(raw, found)
    if meant is not None:
        return resolve(meant)
    raise CityHeadsError(found[0].explain(raw))


def _check_runs(config: Config) -> None:
    """Check what each run sets otherwise, and with each candidate of the search, as if the config itself said so."""
    for name, run in config.runs.items():
        _check_set(config, f"runs.{name}.set", run.set)
        for candidate in config.tuning.candidates if name in config.tuned_runs else ():
            _check_set(config, "tuning.grid", {**run.set, **candidate})


def _check_set(config: Config, where: str, settings: Mapping[str, Any]) -> None:
    if not settings:
        return
    raw = config.to_dict()
    raw["tuning"]["grid"] = {}
    for one in raw["runs"].values():
        one["set"] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
        place: Any = raw
        for part in above:
            place = place[part]
        place[last] = plain(value)
    try:
        resolve(raw)
    except CityHeadsError as error:
        raise CityHeadsError(f"config key '{where}': {str(error).removeprefix('config key ')}") from None


def _as_meant(raw: Mapping[str, Any], found: Sequence[Problem]) -> dict[str, Any] | None:
    """Give the config with what YAML misread as it was meant, ``1e-3`` and dates without quotes; None without such."""
    repaired = None
    for problem in found:
        value: Any = problem.value
        meant: Any = None
        if problem.kind in ("float_type", "int_type") and isinstance(value, str) and EXPONENT.fullmatch(value):
            number = float(value)
            meant = int(number) if problem.kind == "int_type" and number.is_integer() else number
        elif problem.kind == "string_type" and isinstance(value, datetime.date):
            meant = value.isoformat()
        if meant is not None:
            repaired = repaired or copy.deepcopy(dict(raw))
            *above, last = problem.path
            place: Any = repaired
            for part in above:
                place = place[part]
            if isinstance(place, dict | list):
                place[last] = meant
    return repaired


def write_config(config: Config, path: Path) -> None:
    """Write a config with all its defaults as YAML, which `load_config` reads to the same config.

    A file that says the same already is left alone. One with credentials in a URL, which the jobs need, is for the
    user's eyes only.
    """
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    if path.exists() and path.read_bytes() == text.encode():
        return
    with atomic_path(path) as part:
        if scrub(text) != text:
            part.chmod(0o600)
        part.write_bytes(text.encode())
