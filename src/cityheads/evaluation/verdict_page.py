"""The verdict as a Markdown page; its layout is ``templates/verdict.md.j2``, its sentences are those of `verdict`."""

from __future__ import annotations

from cityheads.core.artifacts.gate import Gate, HeadComparison, Reference
from cityheads.core.confusion import metric_title
from cityheads.core.text import counted, ends, points, score
from cityheads.evaluation.markdown import Filters, fill
from cityheads.evaluation.verdict import MEANING, Margins, rule

__all__ = ["render"]


def render(gate: Gate) -> str:
    """Write the page of a verdict."""
    filters: Filters = {"score": score, "points": points, "ends": ends, "plain": _plain}
    context = {
        "gate": gate,
        "meaning": MEANING[gate["verdict"]],
        "rule": rule(Margins(gate["margins"]["strong_pp"], gate["margins"]["acceptable_pp"])),
        "titles": {head: metric_title(part["metric"], part["positive_class"]) for head, part in gate["heads"].items()},
        "confidence": f"{100 * gate['confidence']:g} %",
        "parents": counted(len(gate["test_parents"]), "test parent"),
        "seeds": counted(len(gate["seeds"]), "seed"),
        "folds": counted(len(gate["folds"]), "fold"),
        "level": f"{100 * gate['method']['one_sided_level']:g} %",
        "references": [
            (head, name, one, model, lead)
            for head, part in gate["heads"].items()
            for name, one in _references(part).items()
            for model, lead in one["models"].items()
        ],
    }
    return fill("verdict.md.j2", filters, context)


def _references(part: HeadComparison) -> dict[str, Reference]:
    """Give all that the models of a head are held against, by what the page calls it."""
    encoder = part["encoder"]
    hidden = {"encoder zeroed": encoder["zeroed"], "encoder permuted": encoder["permuted"],
              "image skip zeroed": encoder["image_skip"], "ceiling": part["ceiling"]}  # fmt: skip
    return {
        **part["controls"],
        **encoder["trained"],
        **{name: one for name, one in hidden.items() if one is not None},
    }


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
