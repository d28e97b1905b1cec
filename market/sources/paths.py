"""Returns as a market: the dates, prices and cash of the synthetic sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from market.errors import SettingError
from market.market import CASH, Market
from market.returns import is_number
from market.sources.memory import check_memory

FIRST_DATE = "2000-01-03"
MOST_PERIODS = 60_000  # business days until the calendar of nanoseconds ends
_EXPONENT = 600.0


def check_periods(periods: int, n_assets: int) -> None:
    """Refuse a length that is no length, or more than memory or the calendar hold."""
    if type(periods) is not int or not 2 <= periods <= MOST_PERIODS:
        raise SettingError(
            f"periods: must be a whole number in [2, {MOST_PERIODS}], got {periods!r}"
        )
    if type(n_assets) is not int or n_assets < 1:
        raise SettingError(f"n_assets: must be a whole number >= 1, got {n_assets!r}")
    check_memory("synthetic", periods, n_assets, panels=6)


def check_number(name: str, value: Any, low: float, high: float, ends: str = "[]") -> None:
    """Refuse what is no number in an interval; "(" and ")" leave out its ends."""
    if is_number(value):
        above = value > low or (ends[0] == "[" and value == low)
        below = value < high or (ends[1] == "]" and value == high)
        if above and below:
            return
    raise SettingError(
        f"{name}: must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}, got {value!r}"
    )


def market_of_returns(
    kind: str, returns: np.ndarray, assets: tuple[str, ...], cash_rate: float, **fields: Any
) -> Market:
    """A market on business days from the simple returns (T, N) of its assets.

    Args:
        kind: What it is called.
        returns: Row 0 is ignored: nothing precedes the first price, 100.
        assets: N names; the last may be "cash", whose returns are those of `returns`.
        cash_rate: The risk-free rate a period, when there is no cash among the assets.
        fields: Other fields of `Market`.

    """
    logs = np.log1p(returns)
    logs[0] = 0.0
    paths = logs.cumsum(axis=0)
    if np.abs(paths).max() > _EXPONENT:
        raise SettingError(
            f"synthetic {kind}: prices grow or shrink by more than e^{_EXPONENT:g} over "
            f"{len(returns)} periods; ask for fewer"
        )
    prices = 100.0 * np.exp(paths)
    earned = returns[:, -1].copy() if assets[-1] == CASH else np.full(len(returns), cash_rate)
    earned[0] = 0.0
    return Market(
        dates=pd.bdate_range(FIRST_DATE, periods=len(returns)),
        assets=assets,
        prices=prices,
        risk_free=earned,
        name=f"synthetic {kind}",
        **fields,
    )
