"""Pages from templates: the one jinja2 environment of report and card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cityheads.core import text

__all__ = ["render"]


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of ``templates/``; a name that the context lacks is an error.

    Args:
        template: File name. Values are escaped in ``*.html.j2`` and left alone in Markdown.
        context: The template's names.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cityheads.product", "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(text, name) for name in text.__all__}
    return environment.get_template(template).render(context)
