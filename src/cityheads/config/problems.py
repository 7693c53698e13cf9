"""What is wrong with a config, from pydantic's errors to one line: key, value, nearest known key, repair."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from cityheads.config.base import SPELLING, KeyProblem, Section
from cityheads.config.config import Config

__all__ = ["Problem", "problems", "unwrap"]

#: Keys of before and what they are now.
RENAMED = {
    "gate": "'noninferiority' (in it strong_margin_pp for strong_pp, acceptable_margin_pp for acceptable_pp)",
    "noninferiority.strong_pp": "'noninferiority.strong_margin_pp'",
    "noninferiority.acceptable_pp": "'noninferiority.acceptable_margin_pp'",
    "train.recompute": "'train.gradient_checkpointing'",
    "model.thinking": "'model.tim'",
    "model.freeze_encoder": "'model.encoder' (frozen for true, trained for false)",
    "evaluation.without_modalities": "'evaluation.modality_ablation'",
    "splits.fold": "'splits.only_folds', a list such as [0]; without it all folds are run",
    "simulate.s2_noise": "'simulate.s2_noise_reflectance'",
}

#: Keys of before that nothing replaces, and what to do.
REMOVED = {
    "train.patience": "remove it; every run trains for train.epochs, so that all take the same number of steps, and "
    "train.checkpoint: best keeps the epoch of the best validation score",
}

#: What a value of another type should have been.
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

#: Text that would be right without quotes.
_NO_TEXT = {
    "int_type": re.compile(r"[-+]?\d+"),
    "float_type": re.compile(r"[-+]?(\d+\.?\d*|\.\d+)"),
    "bool_type": re.compile("true|false"),
}


def problems(error: ValidationError) -> list[Problem]:
    """Give what pydantic found, the keys nearest to the root first."""
    found = [Problem(details) for details in error.errors(include_url=False)]
    return sorted((problem for problem in found if not problem.follows), key=lambda problem: problem.depth)


class Problem:
    """One of pydantic's errors as the keys and words of a config.

    Attributes:
        kind: Pydantic's name of the error.
        value: What stands in the config.
        path: Keys and positions from the root to it.
        depth: How deep in the config the fault lies; that of the mapping for a key that is unknown or missing in it.
        follows: Whether the error only follows from another one.
    """

    def __init__(self, details: Any) -> None:
        self.kind: str = details["type"]
        self.value: Any = details["input"]
        self.context: dict[str, Any] = details.get("ctx", {})
        self.path: list[Any] = list(details["loc"])
        if self.path[-1:] == ["[key]"]:
            del self.path[-1]
        if len(self.path) > 2 and self.path[0] == "labels":
            # below a label stands the kind that pydantic took, which is no key
            del self.path[2]
        if self.kind.startswith("union_tag"):
            self.path.append("kind")
        raised = self.context.get("error")
        self.raised = str(raised) if isinstance(raised, ValueError) else None
        if isinstance(raised, KeyProblem) and raised.key:
            self.path += raised.key.split(".")
        self.depth = len(self.path) - (self.kind in ("extra_forbidden", "missing"))
        # items that are wrong are not counted: the list then also seems too short
        self.follows = self.kind == "too_short" and len(self.value) >= self.context["min_length"]

    def explain(self, raw: Mapping[str, Any]) -> str:
        """Say in one line what is wrong and what repairs it.

        Args:
            raw: The config in which it was found.
        """
        key = ".".join(map(str, self.path))
        here = f"config key '{key}'" if key else "config"
        if self.raised is not None:
            return f"{here}: {self.raised}"
        if self.kind in ("extra_forbidden", "invalid_key"):
            return f"{here} {_unknown(self.path, raw)}"
        if self.kind == "missing":
            return f"{here} is missing: {_described(self.path, raw)}"
        if self.kind == "union_tag_not_found":
            return f"{here} is missing: one of landcover, footprints, raster, vector"
        return f"{here}: {self._wrong(raw)}"

    def _wrong(self, raw: Mapping[str, Any]) -> str:
        value, context = _shown(self.value), self.context
        match self.kind:
            case "literal_error":
                return f"{value} is none of {_choices(context['expected'])}"
            case "union_tag_invalid":
                return f"'{context['tag']}' is none of {_choices(context['expected_tags'])}"
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
                return f"{value} is not allowed: {SPELLING[context['pattern']]}"
            case "string_too_short":
                return "is empty; write something, or remove the key"
            case "too_short":
                return f"{value} has {len(self.value)} entries; it takes at least {context['min_length']}"
            case "too_long":
                return f"{value} has {len(self.value)} entries; it takes at most {context['max_length']}"
        wanted = _WANTED.get(self.kind, "allowed")
        return f"{value} is not {wanted}{self._hint(raw)}"

    def _hint(self, raw: Mapping[str, Any]) -> str:
        if self.value is None:
            if self.path[-1] == "color":
                return "; put it in quotes, since a bare # starts a comment"
            if self.kind.startswith("model"):
                return "; write {} for its defaults"
            info = _field(self.path, raw)
            return "; remove the key for its default" if info and not info.is_required() else ""
        if self.kind == "string_type" and isinstance(self.value, bool | int | float):
            return "; put it in quotes"
        if isinstance(self.value, str) and self.kind in _NO_TEXT and _NO_TEXT[self.kind].fullmatch(self.value):
            return "; write it without quotes"
        if self.kind == "int_type" and isinstance(self.value, float) and self.value.is_integer():
            return f"; write {self.value:.0f}"
        return ""


def _shown(value: Any) -> str:
    """Show a value as a config has it, cut where it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _choices(quoted: str) -> str:
    """Give pydantic's ``'a', 'b' or 'c'`` as ``a, b, c``."""
    return ", ".join(re.findall("'([^']*)'", quoted))


def _unknown(path: list[Any], raw: Mapping[str, Any]) -> str:
    """Say what is known where an unknown key stands."""
    key = ".".join(map(str, path))
    if key in RENAMED:
        return f"is now {RENAMED[key]}"
    if key in REMOVED:
        return f"is gone: {REMOVED[key]}"
    *above, name = path
    kind = raw["labels"][path[1]]["kind"] if path[0] == "labels" else None
    elsewhere = [other for other in _KINDS if kind and name in _known([*above], raw, other)]
    if elsewhere:
        return f"is not for a label of kind {kind}, only for {', '.join(elsewhere)}; remove it"
    known = _known(above, raw)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known here are {', '.join(known)}"
    return f"is unknown; {hint}"


def _described(path: list[Any], raw: Mapping[str, Any]) -> str:
    info = _field(path, raw)
    return str(info.description) if info else "a value is needed here"


def _field(path: list[Any], raw: Mapping[str, Any]) -> Any:
    """Give the declaration of the key at a path; None where the key is a name of one's own or a position."""
    section = _section(path[:-1], raw)
    return section.model_fields.get(str(path[-1])) if section else None


_KINDS = ("landcover", "footprints", "raster", "vector")


def _known(path: list[Any], raw: Mapping[str, Any], kind: str | None = None) -> list[str]:
    section = _section(path, raw, kind)
    return sorted(section.model_fields) if section else []


def _section(path: list[Any], raw: Any, kind: str | None = None) -> type[Section] | None:
    """Give the class of the section at a path.

    Args:
        path: Keys and positions from the root.
        raw: The config, whose labels say of which kind they are.
        kind: Take labels to be of this kind instead.
    """
    found: list[Any] = [Config]
    for part in path:
        raw = raw[part] if isinstance(raw, Mapping | list | tuple) else {}
        below: list[Any] = []
        for one in found:
            if isinstance(one, type) and issubclass(one, Section):
                info = one.model_fields.get(str(part))
                below += unwrap(info.annotation) if info else []
            elif get_args(one):
                below += unwrap(get_args(one)[0 if isinstance(part, int) else -1])
        if len(below) > 1 and isinstance(raw, Mapping):
            wanted = kind or raw.get("kind")
            below = [one for one in below if wanted in get_args(one.model_fields["kind"].annotation)]
        found = below
    return next((one for one in found if isinstance(one, type) and issubclass(one, Section)), None)


def unwrap(annotation: Any) -> Iterator[Any]:
    """Give the types that an annotation stands for, without ``Annotated``, ``None`` and unions around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from unwrap(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for choice in get_args(annotation):
            yield from unwrap(choice)
    elif annotation is not type(None):
        yield annotation
