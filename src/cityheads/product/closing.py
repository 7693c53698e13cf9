"""What a run says when it ends: verdict, report, what was dropped, how long it took, what comes next."""

from __future__ import annotations

from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import Layout
from cityheads.core.text import counted, duration

__all__ = ["closing_lines"]


def closing_lines(results: Layout, fold: int, seconds: float, *, success: bool) -> list[str]:
    """Give the last lines of a run; of what this run did not get to, nothing is said.

    Args:
        results: The results folder.
        fold: A fold that is run, whose account of sub-chips is told.
        seconds: How long the run took.
        success: Whether it ended without an error.
    """
    took = duration(seconds)
    if not success:
        return [
            f"Stopped after {took}. What is finished stays: mend what is said above and run the same command again."
        ]
    lines = []
    dataset = results.dataset(fold)
    # a report that is older than the dataset tells of another one
    whole = results.report.exists() and dataset.statistics.exists() and results.gate.exists()
    whole = whole and results.report.stat().st_mtime >= dataset.statistics.stat().st_mtime
    try:
        if whole:
            gate = GATE.read(results.gate)
            lines += [f"Verdict: {gate['verdict']}. {gate['headline']}"]
        if dataset.statistics.exists():
            found = STATISTICS.read(dataset.statistics)
            why = "; ".join(f"{count} {reason}" for reason, count in found["dropped"].items())
            dropped, kept = sum(found["dropped"].values()), sum(found["chips"].values())
            lines += [f"Dropped: {dropped:,} of {counted(dropped + kept, 'sub-chip')}{f' ({why})' if why else ''}"]
    except CityHeadsError as error:  # of another version of the program, say: the run itself went well
        lines += [str(error)]
    if whole:
        lines += [f"Report: {results.report}", f"Took: {took}"]
        bundle = results.bundle.root
        if bundle.is_dir():
            lines += [f"Next: cityheads fetch --lat LAT --lon LON --bundle {bundle} --results {results.root}"]
    else:
        lines += [f"Took: {took}", "Next: snakemake goes on from here, up to the report"]
    return lines
