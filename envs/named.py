"""Costs and constraints from text: `half_spread(0.0005)`, or one's own `mine.py:Stamp(0.005)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from market import SettingError
from market.names import parse_call, unknown_name
from market.plugin import guarded, load_plugin

Named = TypeVar("Named")


def make_named(kind: str, text: str, known: Mapping[str, type], base: tuple[type, ...]) -> Any:
    """What a text stands for.

    Args:
        kind: "cost" or "constraint", for messages.
        text: A name of `known`, `module:Name` or `file.py:Name`, with settings in brackets.
        known: Classes by name.
        base: What a user's own class must derive from.

    Raises:
        SettingError: If the name is unknown, or a setting is unknown, missing or out of range.

    """
    before, bracket, inside = text.strip().partition("(")
    own = ":" in before
    name, values, settings = parse_call(f"{'own' if own else before}{bracket}{inside}")
    if own:
        made = load_plugin(before.strip(), kind)
    elif name in known:
        made = known[name]
    else:
        raise unknown_name(kind, name, known)
    if not (isinstance(made, type) and issubclass(made, base)):
        bases = " or ".join(each.__name__ for each in base)
        raise SettingError(f"{kind} `{before}` must be a class derived from {bases}, got {made!r}")
    if own:
        return guarded(text, kind, lambda: made(*values, **settings))
    try:
        return made(*values, **settings)
    except TypeError as error:
        reason = str(error).replace(f"{made.__name__}.__init__()", name)
        raise SettingError(f"{kind} {text.strip()!r}: {reason}") from None
