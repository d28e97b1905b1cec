"""An agent with its settings as one text: `forecast(forecaster=gru, horizon=5, rule=top_k(k=3))`.

Words need no quotes. What is written becomes the agent's name, settings, and a label made of them:
"forecast-gru-horizon5-top_k.k3"; `label=mine` among the settings gives another.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from market.errors import SettingError
from market.names import parse_call

LONGEST = 64  # as a folder's name may be


class AgentText(NamedTuple):
    """What a text says."""

    name: str
    label: str | None
    settings: dict[str, Any]


def read_agent(text: str) -> AgentText:
    """A bare name, or a name with settings in brackets.

    Raises:
        SettingError: If the brackets hold anything but `key=value`.

    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return AgentText(name, None, {})
    try:
        _, positional, settings = parse_call(f"agent({rest}", words=True)
    except SettingError:
        raise SettingError(
            f"cannot read agent {text!r}; write it as name(key=value, ...)"
        ) from None
    if positional:
        raise SettingError(f"agent {text!r}: write settings by name, as {name}(key=value)")
    label = settings.pop("label", None)
    if label is not None and not isinstance(label, str):
        raise SettingError(f"agent {text!r}: label must be text, got {label!r}")
    return AgentText(name, label or _label(name, settings), settings)


def _label(name: str, settings: dict[str, Any]) -> str | None:
    """Name and settings as a folder may be called; words stand without their keys."""
    if not settings:
        return None
    parts = [name.rpartition(":")[2]]
    for key, value in settings.items():
        parts.append(value if isinstance(value, str) else f"{key}{value}")
    plain = [re.sub(r"[^A-Za-z0-9._]+", ".", part.replace("=", "")).strip(".") for part in parts]
    return "-".join(plain)[:LONGEST].rstrip(".-")
