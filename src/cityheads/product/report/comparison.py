"""The comparison: shared against separate models, what both were held against, and what the design could have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cityheads.core.artifacts.gate import Gate, HeadComparison, Reference
from cityheads.core.confusion import metric_title
from cityheads.core.text import counted, number, share, signed
from cityheads.product.notes import control_name
from cityheads.product.report.first import Mark, Strip
from cityheads.product.report.tables import Cell, Column, Table, count, points, score, words

__all__ = ["Comparison", "Delta", "comparison"]

#: What was done to the shared model's encoder at test time.
_OCCLUDED = {
    "zeroed": "encoder's output set to zero",
    "permuted": "encoder's output of another sub-chip",
    "image_skip": "decoder's own view of the image set to zero",
}


@dataclass(frozen=True)
class Delta:
    """One head's difference on a scale with the margins."""

    head: str
    text: str
    strip: Strip | None


@dataclass(frozen=True)
class Comparison:
    """All that the page tells of the comparison; a table is None where nothing of it was measured."""

    deltas: Sequence[Delta]
    table: Table
    against: Table | None
    encoder: Table | None
    power: Sequence[str]
    needed: Table | None
    folds: Table | None


def comparison(gate: Gate) -> Comparison:
    """Sum up the comparison."""
    return Comparison(
        _deltas(gate), _table(gate), _against(gate), _encoder(gate), _power(gate), _needed(gate), _folds(gate)
    )


def _ends(interval: Sequence[float] | None, factor: float = 1.0, digits: int = 2, *, sign: bool = True) -> Cell:
    if interval is None:
        return Cell("undefined", defined=False)
    write = signed if sign else number
    return Cell(" to ".join(write(factor * end, digits) for end in interval))


def _deltas(gate: Gate) -> list[Delta]:
    strong, acceptable = gate["margins"]["strong_pp"], gate["margins"]["acceptable_pp"]
    values = [v for part in gate["heads"].values() for v in [part["delta_pp"], *(part["interval_pp"] or [])]]
    known = [value for value in values if value is not None]
    low, high = min([*known, -acceptable]), max([*known, acceptable])
    pad = 0.08 * (high - low)
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 3)

    zones = [
        (0.0, at(-acceptable), "much"),
        (at(-acceptable), at(-strong) - at(-acceptable), "some"),
        (at(-strong), 100 - at(-strong), "little"),
    ]
    found = []
    for head, part in gate["heads"].items():
        delta, ends = part["delta_pp"], part["interval_pp"]
        if delta is None:
            found.append(Delta(head, "undefined: the test labels lack a class", None))
            continue
        interval = "no interval" if ends is None else f"{signed(ends[0], 2)} to {signed(ends[1], 2)}"
        found.append(
            Delta(
                head,
                f"{signed(delta, 2)} pp ({interval})",
                Strip(
                    None if ends is None else (at(ends[0]), at(ends[1])),
                    [Mark("shared", at(delta), "difference", signed(delta, 2))],
                    [(at(tick), signed(tick, 0)) for tick in (-acceptable, -strong, 0.0)],
                    f"{head}: shared minus single-task {signed(delta, 2)} percentage points, interval {interval}; "
                    f"margins at {signed(-strong)} and {signed(-acceptable)}.",
                    zones,
                ),
            )
        )
    return found


def _table(gate: Gate) -> Table:
    parents, seeds = counted(len(gate["test_parents"]), "test parent"), counted(len(gate["seeds"]), "seed")
    rows = []
    for head, part in gate["heads"].items():
        p = part["permutation"]
        rows.append(
            [
                words(head, notes=(metric_title(part["metric"], part["positive_class"]),)),
                score(part["multihead"], 2),
                score(part["single_task"], 2),
                points(part["delta_pp"], told=False),
                _ends(part["interval_pp"]),
                _ends(part["simultaneous_pp"]),
                Cell("n/a", defined=False) if p is None else Cell(number(p["p"], 3), p["p"]),
            ]
        )
    columns = [
        Column("head", number=False), Column("shared, %"), Column("single, %"), Column("delta, pp"),
        Column(f"{share(gate['confidence'])} interval, pp"), Column("all heads at once, pp"),
        Column("permutation test, p"),
    ]  # fmt: skip
    held = f"{parents}, {seeds}; {counted(len(gate['folds']), 'fold')}"
    return Table("comparison", f"Shared against single-task models on {held}.", columns, rows)


def _against(gate: Gate) -> Table | None:
    """Set both models against every control and the ceiling."""
    rows = []
    for head, part in gate["heads"].items():
        known: dict[str, Reference] = {**part["controls"], **part["encoder"]["trained"]}
        if part["ceiling"] is not None:
            known["ceiling"] = part["ceiling"]
        for name, reference in known.items():
            rows.append([words(head), words(name, notes=(control_name(name),)), *_led(gate, part, reference)])
    if not rows:
        return None
    columns = [
        Column("head", number=False), Column("held against", number=False), Column("its score, %"),
        Column("difference, pp", group="shared model minus it"), Column("interval, pp", group="shared model minus it"),
        Column("beaten", number=False, group="shared model minus it"),
        Column("difference, pp", group="single-task minus it"), Column("interval, pp", group="single-task minus it"),
        Column("beaten", number=False, group="single-task minus it"),
    ]  # fmt: skip
    caption = (
        "Controls and ceiling on the same test pixels. A model beats a control when the whole interval of the "
        "difference is above zero; nothing is expected to beat the ceiling."
    )
    return Table("controls", caption, columns, rows)


def _led(gate: Gate, part: HeadComparison, reference: Reference) -> list[Cell]:
    cells = [score(reference["score"], 2)]
    for run in (gate["run"], part["baseline"]):
        lead = reference["models"].get(run)
        if lead is None:
            cells += [Cell("n/a", defined=False)] * 3
        else:
            cells += [points(lead["delta_pp"]), _ends(lead["interval_pp"]), words("yes" if lead["beaten"] else "no")]
    return cells


def _encoder(gate: Gate) -> Table | None:
    rows = []
    for head, part in gate["heads"].items():
        encoder = part["encoder"]
        for name, reference in (
            ("zeroed", encoder["zeroed"]), ("permuted", encoder["permuted"]), ("image_skip", encoder["image_skip"]),
        ):  # fmt: skip
            if reference is not None:
                lead = reference["models"].get(gate["run"])
                lost = None if lead is None or lead["delta_pp"] is None else -lead["delta_pp"]
                ends = None if lead is None else lead["interval_pp"]
                rows.append(
                    [
                        words(head), words(_OCCLUDED[name]), score(reference["score"], 2), points(lost),
                        _ends(None if ends is None else (-ends[1], -ends[0])),
                    ]
                )  # fmt: skip
    columns = [
        Column("head", number=False), Column("shared model with", number=False), Column("score, %"),
        Column("change, pp"), Column("interval, pp"),
    ]  # fmt: skip
    caption = "What the shared model loses when its encoder, or the decoder's own view of the image, is taken away."
    return Table("encoder", caption, columns, rows) if rows else None


def _power(gate: Gate) -> list[str]:
    """Say what the design could have seen, a sentence a head."""
    told = []
    for head, part in gate["heads"].items():
        power = part["power"]
        if power["detectable_pp"] is None:
            told.append(
                f"{head}: what could have been seen is unknown, since nothing shows how much the difference varies."
            )
        else:
            told.append(
                f"{head}: a true difference of {number(power['detectable_pp'], 2)} percentage points or more would "
                f"have been seen with a chance of {share(power['power'])}; a smaller one may well have stayed hidden."
            )
    return told


def _needed(gate: Gate) -> Table | None:
    rows = []
    for head, part in gate["heads"].items():
        for needed in part["power"]["needed"]:
            both = needed["both"]
            rows.append(
                [
                    words(head), Cell(f"{needed['margin_pp']:g}", needed["margin_pp"]),
                    _many(needed["parents"]), _many(needed["seeds"]),
                    words("no such number" if both is None else f"{both[0]} parents, {both[1]} seeds"),
                ]
            )  # fmt: skip
    columns = [
        Column("head", number=False), Column("margin, pp"), Column("parents, seeds as they are"),
        Column("seeds, parents as they are"), Column("or both", number=False),
    ]  # fmt: skip
    caption = (
        "What would show, with a chance of 80 %, that two models that are truly alike differ by less than a margin."
    )
    return Table("power", caption, columns, rows) if rows else None


def _many(value: int | None) -> Cell:
    return Cell("no such number", defined=False) if value is None else count(value)


def _folds(gate: Gate) -> Table | None:
    rows = [
        [
            words(head), count(one["fold"]), count(one["parents"]), score(one["multihead"], 2),
            score(one["single_task"], 2), points(one["delta_pp"]),
        ]
        for head, part in gate["heads"].items()
        for one in part["per_fold"]
    ]  # fmt: skip
    columns = [
        Column("head", number=False), Column("fold"), Column("parents"), Column("shared, %"), Column("single, %"),
        Column("delta, pp"),
    ]  # fmt: skip
    return (
        Table("folds", "Every fold: its test parents alone, averaged over the seeds.", columns, rows) if rows else None
    )
