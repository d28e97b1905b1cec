"""What every allocation rule is, and how one is built from text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from agents.outlook import Outlook
from agents.settings import build_settings
from market import Market, SettingError
from market.names import parse_call, unknown_name


class Rule(ABC):
    """Forecasts to weights."""

    @property
    def lookback(self) -> int:
        """Rows of history it reads."""
        return 1

    def __call__(
        self, forecast: np.ndarray | Outlook, history: Market, weights: np.ndarray
    ) -> np.ndarray:
        """Target weights (N,), non-negative, summing to 1, for the weights (N,) held."""
        outlook = forecast if isinstance(forecast, Outlook) else Outlook(np.asarray(forecast))
        return self.weigh(outlook, history, weights)

    @abstractmethod
    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """Target weights (N,), non-negative, summing to 1."""


def build(spec: str, registry: dict[str, Any], kind: str, **more: Any) -> Any:
    """An object of a registry from "name" or "name(setting=value)".

    Args:
        spec: What the user wrote; words need no quotes.
        registry: Classes by name.
        kind: What errors call its entries.
        more: Settings that stand beside the text.

    Raises:
        SettingError: Naming what there is, where a name or setting is unknown, or a setting is
            given both in the text and beside it.

    """
    name, positional, settings = parse_call(spec, words=True)
    if name not in registry:
        raise unknown_name(kind, name, registry)
    if positional:
        raise SettingError(f"{kind} {spec!r}: write settings by name, as {name}(key=value)")
    twice = sorted(set(settings) & set(more))
    if twice:
        raise SettingError(f"{kind} {spec!r}: {twice[0]} is given twice, also as {more[twice[0]]}")
    made: Any = registry[name]
    settings |= more
    return build_settings(made, settings, name) if issubclass(made, Rule) else made(**settings)
