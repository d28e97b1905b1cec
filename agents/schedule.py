"""When to trade, and among what: pure functions of the history and of what is held."""

from __future__ import annotations

from typing import Literal

import numpy as np

from market import Market, SettingError

Every = int | Literal["week", "month", "quarter", "year", "never"]
PERIODS = {"week": 5, "month": 21, "quarter": 63, "year": 252, "never": 252}


def check_every(every: Every) -> None:
    """Refuse a number of periods below 1."""
    if isinstance(every, int) and every < 1:
        raise SettingError(f"rebalance_every must be >= 1, got {every}")


def start_weights(market: Market) -> np.ndarray:
    """What an episode starts with unless told otherwise: all cash, or equal weights, (N,).

    Equal over what can be held on the last row.
    """
    if market.has_cash:
        return np.eye(market.n_assets)[-1]
    held = market.tradable[-1].astype(np.float64)
    return held / held.sum()


def is_due(history: Market, weights: np.ndarray, every: Every, lookback: int = 1) -> bool:
    """Whether to trade now rather than let the holdings drift.

    Due on the first day of each calendar week, month, quarter or year, or on every k-th row counted
    from row `lookback - 1`; and always where the portfolio holds what episodes start with, so a
    portfolio that is wholly in cash is looked at anew on every row.
    """
    if np.allclose(weights, start_weights(history), rtol=0.0, atol=1e-12):
        return True
    if isinstance(every, int):
        return (history.n_periods - lookback) % every == 0
    if every == "never" or history.n_periods < 2:
        return every != "never"
    code = {"week": "W", "month": "M", "quarter": "Q", "year": "Y"}[every]
    before, now = history.dates[-2:].to_period(code)
    return bool(before != now)


def investable(history: Market, window: int = 0, include_cash: bool = False) -> np.ndarray:
    """Which assets can be held now and had prices over the last `window` returns, bool (N,)."""
    listed = np.isfinite(history.prices[-window - 1 :]).all(axis=0)
    chosen = history.tradable[-1] & listed
    if history.has_cash and not include_cash:
        chosen[-1] = False
    return chosen


def equal(chosen: np.ndarray, market: Market) -> np.ndarray:
    """Equal weights over the chosen assets, (N,); where none is chosen, those of a start."""
    return chosen / chosen.sum() if chosen.any() else start_weights(market)


def with_cash(weights: np.ndarray, market: Market) -> np.ndarray:
    """Give what weights (N,) leave of 1 to cash; without cash, scale them up to 1.

    Weights below 1e-6 are a solver's rounding and become 0.
    """
    weights = np.where(weights < 1e-6, 0.0, weights)
    total = weights.sum()
    if market.has_cash and total < 1.0:
        weights[-1] += 1.0 - total
        return weights
    return weights / total if total > 0.0 else start_weights(market)
