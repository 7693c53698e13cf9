"""What sharing one encoder costs or gains: each head's difference with its interval and the margins."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.ticker import MaxNLocator

from cityheads.core.artifacts.gate import HeadComparison
from cityheads.core.text import share, signed
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, beside, key, patch

__all__ = ["draw_delta"]

_TITLE = "What sharing costs or gains"
_ROW_IN = 0.62
_ZONES = ("#e3eef7", "#eceef1", "#d7dade")


def draw_delta(evidence: Evidence) -> Drawing:
    """Draw each head's difference with its interval and the margins of the non-inferiority test."""
    gate = evidence.results.gate
    heads = gate["heads"]
    strong, acceptable = gate["margins"]["strong_pp"], gate["margins"]["acceptable_pp"]
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=_ROW_IN * len(heads))
    axes = sheet.body.add_subplot()
    low, high = _range(heads, acceptable)
    ends = (high, -strong, -acceptable, low)
    for color, right, left in zip(_ZONES, ends, ends[1:], strict=False):
        axes.axvspan(left, right, color=color, linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.9, zorder=1)
    for at in (-strong, -acceptable):
        axes.axvline(at, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    told = []
    for line, (name, head) in enumerate(heads.items()):
        beside(axes, line, name, rise=6, fontweight="bold", fontsize=9.5)
        beside(axes, line, evidence.metric(name).title, rise=-7, fontsize=7.5, color=style.MUTED)
        if head["delta_pp"] is None:
            text = "n/a (undefined here)"
        else:
            text = f"{signed(head['delta_pp'], 2)} pp"
            interval = head["interval_pp"]
            if interval is not None:
                axes.plot(interval, [line, line], color=style.SHARED, linewidth=3, solid_capstyle="butt", zorder=3)
                text += f"  [{signed(interval[0], 2)}, {signed(interval[1], 2)}]"
            else:
                text += ", no interval"
            axes.plot(
                head["delta_pp"], line, "o", color=style.SHARED, markersize=9, markeredgecolor="white",
                markeredgewidth=1.4, zorder=4,
            )  # fmt: skip
            each = [value for value in _per_seed(head) if value is not None]
            if len(each) > 1:
                axes.plot(
                    each, [line + 0.27] * len(each), "|", color=style.INK, markersize=6, markeredgewidth=1, zorder=4
                )
        told.append(f"{name} {text}")
        beside(axes, line, text, right=True, fontsize=9)
    axes.set_ylim(len(heads) - 0.5, -0.5)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: signed(value, 0 if value == round(value) else 1))
    axes.set_xlabel("shared minus single-task, percentage points")
    entries = [
        patch(f"loses at most {strong:g} pp", _ZONES[0]),
        patch(f"loses {strong:g} to {acceptable:g} pp", _ZONES[1]),
        patch(f"loses {acceptable:g} pp or more", _ZONES[2]),
    ]
    key(axes, entries, width=sheet.width(axes), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.6)
    sheet.fit([axes], _ROW_IN * len(heads))
    confidence = share(gate["confidence"])
    how = (
        f" with its {confidence} interval over parents and trainings"
        if any(head["interval_pp"] for head in heads.values())
        else "; there is no interval"
    )
    ticks = " Small ticks are single seeds." if len(gate["seeds"]) > 1 else ""
    return Drawing(
        id="delta",
        section="delta",
        title=_TITLE,
        caption=f"Difference of the scores on the test parents{how}. Dashed lines are the margins of the "
        f"non-inferiority test.{ticks}",
        alt=f"Deltas with {confidence} intervals: {'; '.join(told)}. Margins at {signed(-strong)} and "
        f"{signed(-acceptable)} percentage points.",
        figure=sheet.figure,
    )


def _range(heads: Mapping[str, HeadComparison], acceptable: float) -> tuple[float, float]:
    """Give the ends of the axis: all that is drawn, and both margins' neighbourhood."""
    values = [value for head in heads.values() for value in head["interval_pp"] or []]
    values += [value for head in heads.values() for value in [head["delta_pp"], *_per_seed(head)] if value is not None]
    low, high = min([*values, -acceptable]), max([*values, acceptable])
    pad = 0.08 * (high - low)
    return low - pad, high + pad


def _per_seed(head: HeadComparison) -> list[float | None]:
    """Give the delta of every seed in percentage points."""
    return [item["delta_pp"] for item in head["per_seed"]]
