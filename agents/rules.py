"""Allocation rules: forecasts to target weights. Any rule takes any forecaster's numbers.

A rule is a frozen dataclass, called with forecasts of the next period's simple returns (N,), the
history they were made from, and the weights held. Assets that cannot be held get none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.schedule import investable, start_weights
from agents.settings import require
from market import Market, SettingError
from market.names import parse_call, unknown_name


class Rule(ABC):
    """Forecasts to weights; `lookback` is the rows of history it reads."""

    lookback: int = 1

    @abstractmethod
    def __call__(self, forecast: np.ndarray, history: Market, weights: np.ndarray) -> np.ndarray:
        """Target weights (N,), non-negative, summing to 1."""


@dataclass(frozen=True, kw_only=True)
class Proportional(Rule):
    """w_i = max(f_i, 0) / sum max(f, 0) over risky assets; all cash when none is positive."""

    def __call__(self, forecast: np.ndarray, history: Market, weights: np.ndarray) -> np.ndarray:
        """Positive parts, normalised."""
        positive = np.where(investable(history), np.maximum(forecast, 0.0), 0.0)
        total = positive.sum()
        return positive / total if total > 0.0 else start_weights(history)


RULES: dict[str, type[Rule]] = {"proportional": Proportional}


def build(spec: str, registry: dict[str, Any], kind: str) -> Any:
    """An object of a registry from "name" or "name(setting=value)"."""
    name, positional, settings = parse_call(spec)
    if name not in registry:
        raise unknown_name(kind, name, registry)
    if positional:
        raise SettingError(f"{kind} {spec!r}: write settings by name, as {name}(key=value)")
    try:
        return registry[name](**settings)
    except TypeError as error:
        raise SettingError(f"{kind} {spec!r}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class VolatilityLimit:
    """Move to cash what holds a target's volatility under a limit a year.

    sigma = sqrt(periods_per_year * w.S.w), S the sample covariance of the risky assets' last
    `window` returns; risky weights are scaled by min(1, limit / sigma).
    """

    limit: float = 0.10
    window: int = 60

    def __post_init__(self) -> None:
        require(self, limit="(0, inf)", window="[2, inf)")

    def __call__(self, target: np.ndarray, history: Market) -> np.ndarray:
        """The target, scaled down where it must be."""
        if not history.has_cash:
            raise SettingError(f"{history.name}: a volatility limit needs a market with cash")
        risky = target[:-1]
        covariance = np.cov(history.returns[-self.window :, :-1], rowvar=False)
        variance = history.periods_per_year * float(risky @ np.atleast_2d(covariance) @ risky)
        if variance <= self.limit**2:
            return target
        risky = risky * (self.limit / math.sqrt(variance))
        return np.append(risky, 1.0 - risky.sum())
