"""Which sub-chips of every parent were kept, and why the others were not."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.patches import Rectangle

from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, key, patch

__all__ = ["draw_dropped"]

_TITLE = "Kept and dropped sub-chips"
_COLUMNS = 11
#: Parents in a line of the page at their largest.
_LARGEST = 6
#: Distance between parents beside each other in parts of a parent's side, and below each other in points.
_GAP, _LEADING = 0.12, 20


def draw_dropped(evidence: Evidence) -> Drawing:
    """Draw a small grid of sub-chips for each parent, dropped ones coloured by reason."""
    results, side = evidence.results, evidence.grid.chips_per_side
    dropped = results.statistics["dropped"]
    reasons = sorted(dropped, key=lambda reason: (-dropped[reason], reason))
    color = {reason: style.DROPPED[index % len(style.DROPPED)] for index, reason in enumerate(reasons)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in results.chips:
        rows.setdefault(row["parent_id"], []).append(row)
    columns = max(_LARGEST, min(_COLUMNS, len(evidence.parents)))
    lines = math.ceil(len(evidence.parents) / columns)
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=style.WIDTH_IN / columns * lines)
    # one pair of axes for all parents: the layout engine takes long over hundreds of them
    axes = sheet.body.add_subplot()
    axes.set_axis_off()
    across = columns * (1 + _GAP) - _GAP
    kept = sum(row["kept"] for row in results.chips)
    entries = [patch(f"kept ({kept:,})", style.KEPT)]
    entries += [patch(f"{reason} ({dropped[reason]:,})", color[reason]) for reason in reasons]
    key(sheet.body, entries, width=sheet.width(axes), loc="outside lower left")
    parent_in = sheet.width(axes) / across
    leading = _LEADING / 72 / parent_in
    axes.set_xlim(0, across * side)
    axes.set_ylim(lines * (1 + leading) * side, 0)
    sheet.fit([axes], lines * (1 + leading) * parent_in)
    for index, parent in enumerate(evidence.parents):
        left = index % columns * (1 + _GAP) * side
        top = (index // columns * (1 + leading) + leading) * side
        for row in rows.get(parent.parent_id, []):
            axes.add_patch(
                Rectangle(
                    (left + row["col"], top + row["row"]), 1, 1, edgecolor="white", linewidth=0.8 if side <= 8 else 0.3,
                    facecolor=style.KEPT if row["kept"] else color[row["reason"]],
                )
            )  # fmt: skip
        split = evidence.group[parent.parent_id]
        size = min(7.5, 72 * parent_in / (0.62 * (len(parent.parent_id) + len(split) + 2)))
        where: dict[str, Any] = {"textcoords": "offset points", "va": "baseline", "fontsize": size}
        axes.annotate(parent.parent_id, (left, top), (0, 3), fontweight="bold", **where)
        axes.annotate(split, (left + side, top), (0, 3), ha="right", color=style.MUTED, **where)
    total = len(results.chips)
    why = "; ".join(f"{reason}: {dropped[reason]}" for reason in reasons) or "none was dropped"
    return Drawing(
        id="dropped",
        section="dropped",
        title=_TITLE,
        caption=f"Every parent with its {side} x {side} sub-chips, north up: {total:,} in all, {kept:,} kept and "
        f"{total - kept:,} dropped.",
        alt=f"{len(evidence.parents)} small grids of sub-chips, {kept} of {total} kept. Dropped, {why}.",
        figure=sheet.figure,
    )
