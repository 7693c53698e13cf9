"""The verdict as a Markdown page; its layout is ``templates/verdict.md.j2``, its sentences are those of `verdict`."""

from __future__ import annotations

from cityheads.core.artifacts.gate import Gate
from cityheads.core.confusion import metric_title
from cityheads.core.text import counted, ends, points, score
from cityheads.evaluation.verdict import MEANING, Margins, rule

__all__ = ["render"]


def render(gate: Gate) -> str:
    """Write the page of a verdict."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cityheads.evaluation", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"score": score, "points": points, "ends": ends}
    return environment.get_template("verdict.md.j2").render(
        gate=gate,
        meaning=MEANING[gate["verdict"]],
        rule=rule(Margins(gate["margins"]["strong_pp"], gate["margins"]["acceptable_pp"])),
        titles={head: metric_title(part["metric"], part["positive_class"]) for head, part in gate["heads"].items()},
        confidence=f"{100 * gate['confidence']:g} %",
        parents=counted(len(gate["test_parents"]), "test parent"),
        seeds=counted(len(gate["seeds"]), "seed"),
    )
