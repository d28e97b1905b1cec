"""Returns out of prices, of assets that leave the data, and of cash."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.names import unknown_name

DAYS_PER_YEAR = 365.0


def simple_returns(prices: np.ndarray) -> np.ndarray:
    """prices[t] / prices[t-1] - 1, shape (T, N); 0 at t = 0 and where a price is nan."""
    returns = np.zeros_like(prices)
    returns[1:] = prices[1:] / prices[:-1] - 1.0
    return np.where(np.isfinite(returns), returns, 0.0)


def delisted_returns(
    prices: np.ndarray, assets: Sequence[str], given: float | Mapping[str, float]
) -> np.ndarray:
    """Simple returns, and what each asset that leaves the data returns as it does, (T, N).

    Args:
        prices: (T, N), nan where there is none.
        assets: Their names.
        given: The return of the first row without a price, for all or by name; 0 for those that
            are not named.

    Raises:
        SettingError: If a name is unknown, or a return is no number >= -1.

    """
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(assets, given)
    for asset, paid in by_name.items():
        if asset not in assets:
            raise unknown_name("asset of delisting_return", asset, assets)
        if not is_number(paid) or not -1.0 <= paid < np.inf:
            raise SettingError(f"delisting_return: must be a number >= -1, got {paid!r}")
    returns = simple_returns(prices)
    listed = np.isfinite(prices)
    for column, asset in enumerate(assets):
        last = (
            int(np.flatnonzero(listed[:, column])[-1]) if listed[:, column].any() else len(prices)
        )
        if last + 1 < len(prices):
            returns[last + 1, column] = by_name.get(asset, 0.0)
    return returns


def accrued_cash(dates: pd.DatetimeIndex, rate: float | pd.Series) -> np.ndarray:
    """What cash earns from each date to the next, known at the earlier one, shape (T,).

    earned[t] = (1 + rate[t-1]) ** (calendar days / 365) - 1, and earned[0] = 0.

    Raises:
        DataError: If the rate is no finite number above -1, or unknown on a date.

    """
    if isinstance(rate, pd.Series):
        known = _rates_known(dates, rate)
    elif is_number(rate):
        known = np.full(len(dates), float(rate))
    else:
        raise DataError(f"cash_rate: must be a number, a series by date, or None, got {rate!r}")
    bad = np.flatnonzero(~(np.isfinite(known[:-1]) & (known[:-1] > -1.0)))
    if bad.size:
        found, when = known[bad[0]], f"{dates[bad[0]]:%Y-%m-%d}"
        raise DataError(f"cash_rate: must be a finite fraction a year > -1, got {found} on {when}")
    days = np.diff(dates.to_numpy()) / np.timedelta64(1, "D")
    earned = np.zeros(len(dates))
    earned[1:] = (1.0 + known[:-1]) ** (days / DAYS_PER_YEAR) - 1.0
    return earned


def is_number(value: Any) -> bool:
    """Whether it is a real number, which True is not meant to be."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _rates_known(dates: pd.DatetimeIndex, rate: pd.Series) -> np.ndarray:
    """The last rate known on each date, (T,)."""
    if not isinstance(rate.index, pd.DatetimeIndex) or not pd.api.types.is_numeric_dtype(rate):
        raise DataError(
            "cash_rate: a series must hold numbers by date, got "
            f"{rate.dtype} by {type(rate.index).__name__}"
        )
    if rate.index.tz is not None:
        raise DataError(f"cash_rate: dates carry the time zone {rate.index.tz}; make them plain")
    if rate.index.has_duplicates:
        twice = rate.index[rate.index.duplicated()][0]
        raise DataError(f"cash_rate: date {twice:%Y-%m-%d} appears twice")
    known = rate.sort_index().reindex(dates, method="ffill").to_numpy(np.float64)
    missing = np.flatnonzero(~np.isfinite(known[:-1]))
    if missing.size:
        raise DataError(f"cash_rate: no rate is known on {dates[missing[0]]:%Y-%m-%d}")
    return known
