"""HTML pages out of templates that share one frame, `page.html`: its head, its style, no script."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

SIGN = re.compile(r"(?<!\w)-(?=\d)")


def render_page(template: str, **values: Any) -> str:
    """The page of a template of this package; every value is shown as text, never as markup."""
    environment = Environment(
        loader=FunctionLoader(lambda name: files("experiments").joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = lambda text: SIGN.sub("\N{MINUS SIGN}", text)
    return environment.get_template(template).render(**values)
