"""Sections ``project`` and ``report``: what an experiment is called and how much of it is shown."""

from __future__ import annotations

from cityheads.config.base import Integer, Section, Text, field

__all__ = ["ProjectConfig", "ReportConfig"]


class ProjectConfig(Section):
    """What the report and the card call this experiment."""

    name: Text = field("cityheads", "Short name, used in file names.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: Text = field("One model, many maps of a city", "Headline of the report.")
    notes: Text = field("", "A remark that the report prints under its headline, such as what the numbers cannot show.")


class ReportConfig(Section):
    """The report."""

    panels_per_head: Integer = field(
        1,
        "Chips shown per head for each of best, median and worst.",
        ge=1,
        le=10,
    )
