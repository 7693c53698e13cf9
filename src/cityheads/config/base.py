"""What all sections of the config share: strict types, fields with a description, frozen mappings, errors by key.

A field says what it *affects*, which is how `Config.fingerprint` knows when a job must run again:

* ``results``: whatever reads its section.
* ``reading``: the pixels that are read from the chosen scenes, not the choice.
* ``choice``: which scenes are chosen, and what is read only through that.
* ``figures``: what is drawn, not what is learnt.
* ``nothing``: neither; patience with a server, say, or the number of processes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from cityheads.core.times import parse_interval, parse_time

__all__ = [
    "EXPONENT",
    "SPELLING",
    "Affects",
    "Flag",
    "FrozenDict",
    "Integer",
    "KeyProblem",
    "Number",
    "Period",
    "Section",
    "Text",
    "Time",
    "UndeclaredSectionError",
    "affects",
    "doc_of",
    "field",
    "freeze",
    "named",
    "only_once",
    "plain",
    "refuse",
    "section",
]

Affects = Literal["results", "reading", "choice", "figures", "nothing"]

K = TypeVar("K")
V = TypeVar("V")


class KeyProblem(ValueError):  # noqa: N818 - pydantic turns it into an error of its own
    """Something wrong with a value that its type alone does not show.

    Its text says what is wrong and what repairs it.

    Attributes:
        key: Key path relative to the section whose validator found it; empty for the section itself.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def refuse(key: str, text: str) -> NoReturn:
    """Report a problem with the key at ``key``, counted from the section whose validator calls this."""
    raise KeyProblem(key, text)


#: A number to YAML 1.2 and to JSON, which YAML 1.1, and so PyYAML and Snakemake, reads as text: ``1e-3``.
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class FrozenDict(dict[K, V]):
    """A mapping that keeps the order in which it was written and cannot be changed."""

    def _frozen(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the config is frozen; make another one with cityheads.config.resolve")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _frozen

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenDict, (dict(self),))


#: Put behind a ``Mapping`` in an annotation: the value can then not be changed.
freeze = AfterValidator(FrozenDict)


# Nothing is taken for something else: text is no number, 1 is not true. What YAML misreads is put right in `load`.
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]


def _time(text: str) -> str:
    parse_time(text)
    return text


def _period(text: str) -> str:
    parse_interval(text)
    return text


#: Put behind `Text` in an annotation: a time, or a period, as STAC writes it.
Time = AfterValidator(_time)
Period = AfterValidator(_period)


class _OnlyOnce:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "uniqueItems": True}

    @staticmethod
    def _check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        for item in value:
            if value.count(item) > 1:
                refuse("", f"{item} stands there twice")
        return value


#: Put behind a tuple in an annotation: no item may stand there twice.
only_once = _OnlyOnce()


def field(default: Any, description: str, *, affects: Affects = "results", **rules: Any) -> Any:
    """Declare a key of the config.

    Args:
        default: Its default as a file would have it; ``...`` for a key that must be given.
        description: What it is, in a sentence or two, with unit and range of values.
        affects: What a change of it can change.
        **rules: Bounds, as `pydantic.Field` takes them (``ge``, ``lt``, ``min_length``, ``pattern``, ...).
    """
    extra: dict[str, Any] | None = None if affects == "results" else {"x-affects": affects}
    # what a file would have as a mapping goes the way of a file: a section is made of it, or it is frozen
    as_written = isinstance(default, dict)
    return Field(default, description=description, json_schema_extra=extra, validate_default=as_written, **rules)


#: What the patterns of names mean, for the messages.
SPELLING: dict[str, str] = {
    "^#[0-9a-fA-F]{6}$": 'a colour is written as "#rrggbb", in quotes',
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, '.', '_' and '-' make a name, a letter or digit first",
}


def named(pattern: str, words: str) -> StringConstraints:
    """Declare how the names in a mapping are spelt; ``words`` is the pattern for people."""
    SPELLING[pattern] = words
    return StringConstraints(pattern=pattern)


def doc_of(kind: type[Section]) -> str:
    """Give what a section's class says of itself, in one line."""
    return " ".join((kind.__doc__ or "").split())


def section(kind: type[Section], *, affects: Affects = "results") -> Any:
    """Declare a section with a default for each of its keys; its description is the class's."""
    return field({}, doc_of(kind), affects=affects)


def affects(info: FieldInfo) -> Affects:
    """Give what a change of this field can change."""
    extra = info.json_schema_extra
    found: Any = extra.get("x-affects", "results") if isinstance(extra, dict) else "results"
    assert found in get_args(Affects)
    return cast(Affects, found)


class UndeclaredSectionError(AttributeError):
    """A verb reads a section of the config that its row in the table of verbs does not list: a defect of ours."""


class Section(BaseModel):
    """A part of the config: frozen, and refusing keys that it does not know."""

    # building the validators waits until a config is read: importing this package is cheap
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True, protected_namespaces=()
    )

    #: Whether a field that is None is left out where the section is written.
    null_is_absent: ClassVar[bool] = False

    if not TYPE_CHECKING:  # mypy would take any attribute to be there

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise UndeclaredSectionError(
                    f"{type(self).__name__}.{name} is read by a verb whose row in the table of verbs does not list it"
                )
            return super().__getattr__(name)


def plain(value: Any, kept: Container[Affects] = get_args(Affects)) -> Any:
    """Give a section as dicts, lists and scalars, with those fields only that affect one of ``kept``."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        return {
            name: plain(item, kept)
            for name, item in value.__dict__.items()
            if affects(fields[name]) in kept and not (item is None and type(value).null_is_absent)
        }
    if isinstance(value, Mapping):
        return {key: plain(item, kept) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, kept) for item in value]
    return value
