"""The first screen: one sentence, a number for each head between its floor and its ceiling, and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cityheads.config import Config
from cityheads.core.artifacts.gate import Gate, HeadComparison, Reference
from cityheads.core.confusion import metric_title
from cityheads.core.text import number, share
from cityheads.evaluation.verdict import listed
from cityheads.product.notes import CONTROLS, control_name, floor_of
from cityheads.product.results import Results

__all__ = [
    "HeadNumber",
    "Mark",
    "Strip",
    "head_numbers",
    "map_name",
    "purpose",
    "verdict_sign",
]


@dataclass(frozen=True)
class Mark:
    """A mark on a scale: where it is (percent of the scale), its kind, which decides its shape, and what it says."""

    kind: str
    at: float
    text: str
    value: str


@dataclass(frozen=True)
class Strip:
    """A scale with an interval and marks; positions are percent of its length.

    Attributes:
        interval: Ends of the interval; None where there is none.
        marks: In the order of the key below the scale.
        ticks: Position and text.
        zones: Left end, width and kind of coloured stretches.
        alt: All of it in words.
    """

    interval: tuple[float, float] | None
    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]
    alt: str
    zones: Sequence[tuple[float, float, str]] = ()

    @property
    def bar(self) -> tuple[float, float] | None:
        """Left end and width of the interval."""
        return None if self.interval is None else (self.interval[0], self.interval[1] - self.interval[0])


@dataclass(frozen=True)
class HeadNumber:
    """The number of one head.

    Attributes:
        head: Its name, and ``name``, what it maps.
        value: The shared model's score in percent; None where it is undefined.
        title: Name of the metric, and ``meaning``, what it is.
        interval: In words.
        strip: Score, floor, ceiling and the separate model on one scale.
        beats_floor: Whether the shared model beats the best control by its interval; None without controls.
        remark: One sentence about the floor.
    """

    head: str
    name: str
    value: str | None
    title: str
    meaning: str
    interval: str
    strip: Strip | None
    beats_floor: bool | None
    remark: str


#: What a head maps, by the kind of its label.
_MAPS = {"landcover": "land cover", "footprints": "buildings"}


def map_name(config: Config, head: str) -> str:
    """Say what a head maps in plain words, with its own name where that is another."""
    kind = _MAPS.get(config.labels[config.heads[head].label].kind)
    same = [other for other, rule in config.heads.items() if _MAPS.get(config.labels[rule.label].kind) == kind]
    if kind is None or (len(same) > 1 and kind != head):
        return head
    return kind if kind == head else f"{kind} ({head})"


def purpose(config: Config, heads: Sequence[str]) -> str:
    """Say what the model does."""
    many = {1: "one map", 2: "two maps", 3: "three maps"}.get(len(heads), f"{len(heads)} maps")
    names = listed([map_name(config, head) for head in heads])
    return f"One model draws {many} of a city from satellite images: {names}."


def head_numbers(config: Config, results: Results) -> list[HeadNumber]:
    """Give the number of every head."""
    gate = results.gate
    return [_number(config, gate, head, part) for head, part in gate["heads"].items()]


def _number(config: Config, gate: Gate, head: str, part: HeadComparison) -> HeadNumber:
    label = config.labels[config.heads[head].label]
    if part["metric"] == "miou":
        meaning = (
            f"For each of the {len(label.classes)} classes: the area where map and reference agree on it, as a share "
            "of the area where either has it; then the mean over the classes. 100 is a perfect copy of the reference."
        )
    else:
        meaning = (
            f"The area where map and reference agree on {part['positive_class']}, as a share of the area where either "
            "has it. 100 is a perfect copy of the reference."
        )
    ends = part["multihead_interval"]
    floor, value = floor_of(part), part["multihead"]
    marks = []
    if floor is not None:
        marks.append(_mark("floor", floor[1]["score"], f"floor: {control_name(floor[0])}"))
    if part["ceiling"] is not None:
        marks.append(_mark("ceiling", part["ceiling"]["score"], f"ceiling: {CONTROLS['ceiling']}"))
    marks.append(_mark("single", part["single_task"], "a separate model for this map alone"))
    marks.append(_mark("shared", value, "the shared model"))
    known = [mark for mark in marks if mark is not None]
    interval = "no interval" if ends is None else f"{number(100 * ends[0])} to {number(100 * ends[1])}"
    strip = Strip(
        None if ends is None else (100 * ends[0], 100 * ends[1]),
        known,
        [(at, str(at)) for at in (0, 25, 50, 75, 100)],
        f"Scale from 0 to 100. {'; '.join(f'{mark.text} {mark.value}' for mark in known)}. "
        f"{share(gate['confidence'])} interval of the shared model: {interval}.",
    )
    beats = None if floor is None else _beats(floor[1], gate["run"])
    title = metric_title(part["metric"], part["positive_class"])
    return HeadNumber(
        head, map_name(config, head), None if value is None else number(100 * value), title, meaning, interval,
        strip if value is not None else None, beats, _remark(floor, beats),
    )  # fmt: skip


def _beats(reference: Reference, run: str) -> bool | None:
    lead = reference["models"].get(run)
    return None if lead is None else lead["beaten"]


def _mark(kind: str, value: float | None, text: str) -> Mark | None:
    return None if value is None else Mark(kind, 100 * value, text, number(100 * value))


def _remark(floor: tuple[str, Reference] | None, beats: bool | None) -> str:
    if floor is None:
        return "No simple method was measured beside it, so nothing says whether this is much or little."
    simple = control_name(floor[0])
    if beats is None:
        return f"The best simple method ({simple}) was measured, but not held against this model."
    if beats:
        return f"Better than the best simple method ({simple}) by more than chance explains."
    return f"Not shown to be better than a simple method that needs no network ({simple})."


def verdict_sign(verdict: str) -> str:
    """Give the shape that stands for a verdict, so that no colour has to."""
    signs: Mapping[str, str] = {
        "no evidence": "\N{EMPTY SET}",
        "inconclusive": "?",
        "strong": "=",
        "acceptable": "\N{ALMOST EQUAL TO}",
        "mixed": "\N{PLUS-MINUS SIGN}",
        "negative": "\N{MINUS SIGN}",
    }
    return signs.get(verdict, "?")
