"""The wall time of every rule of the workflow."""

from __future__ import annotations

from cityheads.core.text import duration
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, column
from cityheads.product.results import Timing

__all__ = ["draw_timings"]

_TITLE = "Time per rule"
_ROW_IN = 0.27


def draw_timings(evidence: Evidence) -> Drawing:
    """Draw the wall time of every rule; a line of text where none was recorded."""
    timings = evidence.results.timings()
    height = _ROW_IN * max(1, len(timings))
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=height)
    if timings:
        _bars(sheet, timings, height)
    else:
        axes = sheet.body.add_subplot()
        axes.set_axis_off()
        told = "No benchmark files were written: the verbs ran without the workflow."
        axes.text(0, 0.5, told, va="center", color=style.MUTED)
        sheet.fit([axes], height)
    listed = "; ".join(f"{item.rule} {duration(item.seconds)}" for item in timings) or "none recorded"
    return Drawing(
        id="timings",
        section="timings",
        title=_TITLE,
        caption="Wall time of all jobs of a rule added up, as Snakemake measured it; jobs that ran at once count each.",
        alt=f"Bars of wall time per rule: {listed}.",
        figure=sheet.figure,
    )


def _bars(sheet: Sheet, timings: list[Timing], height: float) -> None:
    axes, wall, jobs, peak = sheet.body.subplots(1, 4, sharey=True, width_ratios=[1, 1e-3, 1e-3, 1e-3])
    longest = max(item.seconds for item in timings)
    unit = 60.0 if longest > 300 else 1.0
    for line, item in enumerate(timings):
        color = style.SHARED if item.seconds == longest else "#9db9d3"
        axes.barh(line, item.seconds / unit, height=0.62, color=color)
    axes.set_yticks(range(len(timings)), [item.rule for item in timings])
    axes.tick_params(axis="y", length=0, labelcolor=style.INK, labelsize=8)
    axes.set_ylim(len(timings) - 0.5, -0.5)
    axes.set_xlabel(f"{'minutes' if unit > 1 else 'seconds'}, all jobs of the rule together")
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
    column(wall, "wall time", [duration(item.seconds) for item in timings], ha="left")
    column(jobs, "jobs", [f"{item.jobs:,}" for item in timings], ha="right")
    memory = ["n/a" if item.peak_mb is None else f"{item.peak_mb:,.0f} MB" for item in timings]
    column(peak, "peak memory", memory, ha="right")
    sheet.fit([axes], height)
