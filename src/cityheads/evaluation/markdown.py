"""Markdown pages from ``templates/``: the one jinja2 environment of the verdict's and the leaderboard's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Filters", "fill"]

#: A template's filters by the names that it calls them by.
Filters = Mapping[str, Callable[..., Any]]


def fill(template: str, filters: Filters, context: Mapping[str, Any]) -> str:
    """Fill a template; a name that the context lacks is an error.

    Args:
        template: File name.
        filters: The template's filters.
        context: The template's names.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cityheads.evaluation", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= filters
    return environment.get_template(template).render(context)
