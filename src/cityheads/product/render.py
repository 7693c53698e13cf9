"""Pages from templates: the one jinja2 environment of report and card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cityheads.core import text
from cityheads.core.redaction import shown

__all__ = ["render"]


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of ``templates/``; a name that the context lacks is an error.

    Args:
        template: File name. Values are escaped in ``*.html.j2`` and left alone in Markdown.
        context: The template's names.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        # whatever a page prints goes through here; what is marked as safe is our own: pictures, scripts, macros
        return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("cityheads.product", "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    # in a script element; the escapes keep any text from ending it
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    environment.filters |= {name: getattr(text, name) for name in text.__all__}
    return environment.get_template(template).render(context)
