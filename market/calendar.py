"""Calendars: weekly and monthly markets out of daily ones, and rows that several assets share.

    rows       Mon Tue Wed Thu Fri | Mon Tue Wed Thu       (Friday is a holiday)
    weekly                     Fri |                 Fri   labels: the end of the period

A label is the last weekday of its period (the last day of all where the data hold weekends), never
its start: what a row holds was known when the label says. The label of a period does not depend on
which of its days were traded, so a market cut in mid-week has the same rows as the whole one; a
period that the data do not reach the end of is left out.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.market import Market
from market.names import unknown_name
from market.returns import simple_returns

log = logging.getLogger(__name__)

Frequency = Literal["daily", "weekly", "monthly"]

FREQUENCIES: tuple[str, ...] = get_args(Frequency)
_PER_YEAR = {"weekly": 52, "monthly": 12}
_SATURDAY = 5
_ENOUGH_WEEKENDS = 4
_OFTEN = 0.2


def resample(market: Market, frequency: Frequency) -> Market:
    """The same market in longer periods.

    Prices are the last of the period, opens the first, highs and lows the extremes, volume the sum;
    cash and the risk-free rate are compounded. An asset that leaves in mid-period has no price at
    its end and returns what its days did, the delisting included. Features and context are what was
    known at the last close of the period; the day's return becomes the period's. For features of
    the longer periods build them from the result, as `load_market(..., frequency="weekly")` does.

    Args:
        market: Rows shorter than `frequency`, or of its length.
        frequency: "daily" (which changes only markets of several rows a day), "weekly" or
            "monthly".

    Raises:
        SettingError: If the frequency is unknown or shorter than the data's own.
        DataError: If fewer than two periods are complete.

    """
    if frequency not in FREQUENCIES:
        raise unknown_name("frequency", frequency, FREQUENCIES)
    if _within_days(market.dates):
        market = _resampled(market, "daily")
        log.warning("%s: several rows a day made into days", market.name)
    if frequency == "daily":
        return market
    if market.periods_per_year < _PER_YEAR[frequency]:
        raise SettingError(
            f"frequency '{frequency}': {market.name} has {market.periods_per_year} periods a year"
        )
    return _resampled(market, frequency)


def _resampled(market: Market, frequency: Frequency) -> Market:
    labels, firsts, lasts = _periods(market, frequency)
    changes: dict[str, Any] = {
        key: reduce(panel, firsts, lasts)
        for key, reduce in _PANELS.items()
        if (panel := getattr(market, key)) is not None
    }
    prices = _left_out(_last_known(market.prices, firsts, lasts), market.prices[lasts])
    changes["returns"] = _compounded(market, prices, firsts, lasts)
    if market.feature_names == ("return",):
        changes |= {"features": None, "feature_names": ()}
    else:
        changes["features"] = market.features[lasts]
    growth = np.multiply.reduceat(1.0 + market.risk_free[: lasts[-1] + 1], firsts)
    growth[0] = 1.0  # as its return: there is no full period behind the first label
    left = market.n_periods - 1 - lasts[-1]
    note = f"{frequency} periods of {lasts[-1] + 1} rows, labelled by their end"
    note += f"; the last {left} rows are no whole period and left out" if left else ""
    return dataclasses.replace(
        market,
        dates=labels,
        prices=prices,
        context=market.context[lasts],
        tradable=market.tradable[lasts],
        risk_free=growth - 1.0,
        notes=(*market.notes, note),
        **changes,
    )


def period_ends(dates: pd.DatetimeIndex, frequency: Frequency) -> pd.DatetimeIndex:
    """The last day of each date's period, at midnight, (T,)."""
    whole_week = bool(
        (dates[:10].day_of_week >= _SATURDAY).any()
    )  # ten rows in a row hold a weekend
    days = dates.to_numpy().astype("datetime64[D]")
    if frequency == "daily":
        return pd.DatetimeIndex(days)
    if frequency == "weekly":
        last = 6 if whole_week else 4
        return pd.DatetimeIndex(days + (last - dates.day_of_week.to_numpy()) % 7)
    months = days.astype("datetime64[M]")
    ends = _month_end(months, whole_week)
    late = days > ends  # a stray weekend after the last weekday of its month
    return pd.DatetimeIndex(np.where(late, _month_end(months + 1, whole_week), ends))


def _within_days(dates: pd.DatetimeIndex) -> bool:
    """Whether most rows share their day with the row before."""
    return bool(np.median(np.diff(dates.to_numpy().astype("datetime64[D]")).astype(int)) == 0)


def shared_rows(
    name: str,
    dates: pd.DatetimeIndex,
    assets: list[str],
    prices: np.ndarray,
    calendar: str | None,
    max_gap: int = 5,
) -> np.ndarray:
    """Which rows of prices from several calendars to keep, bool (T,).

    Args:
        name: What errors call the data.
        dates: (T,).
        assets: (N,).
        prices: (T, N), nan where an asset has no price.
        calendar: "inner": rows on which every asset has a price (one that had none for more than
            `max_gap` rows does not count); "outer": all rows; an asset's name: the rows on which
            it has a price; None: all rows, refused where some assets trade at weekends and others
            never do.
        max_gap: See "inner". A row is kept or not by what was known on it.

    Raises:
        DataError: If calendars differ and none was chosen.
        SettingError: If `calendar` is none of these.

    """
    known = np.isfinite(prices)
    if calendar is None:
        _refuse_mixture(name, dates, assets, known)
    if calendar in (None, "outer"):
        return np.ones(len(dates), bool)
    if calendar == "inner":
        rows = np.arange(len(dates))[:, None]
        last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
        alive = (last >= 0) & (rows - last <= max_gap)
        return known.any(axis=1) & (known | ~alive).all(axis=1)
    if calendar not in assets:
        raise unknown_name("calendar", calendar, ["inner", "outer", *assets])
    return known[:, assets.index(calendar)]


def weekend_traders(
    dates: pd.DatetimeIndex, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who has prices at weekends, often and never, bool (N,) each, and weekend rows seen, (N,).

    Only weekend rows between an asset's first and last price count.
    """
    weekend = np.asarray(dates.day_of_week >= _SATURDAY)[:, None]
    started = np.maximum.accumulate(known, axis=0)
    to_come = np.maximum.accumulate(known[::-1], axis=0)[::-1]
    seen = (weekend & started & to_come).sum(axis=0)
    priced = (weekend & known).sum(axis=0)
    enough = seen >= _ENOUGH_WEEKENDS
    return enough & (priced > _OFTEN * seen), enough & (priced == 0), seen


def _refuse_mixture(
    name: str, dates: pd.DatetimeIndex, assets: list[str], known: np.ndarray
) -> None:
    often, never, seen = weekend_traders(dates, known)
    if often.any() and never.any():
        week, five = int(np.flatnonzero(often)[0]), int(np.flatnonzero(never)[0])
        raise DataError(
            f"{name}: calendars differ: '{assets[week]}' trades at weekends, '{assets[five]}' on "
            f"none of {seen[five]} weekend days; set calendar to inner (rows all have), outer "
            f"(all rows, prices carried) or an asset's name such as {assets[five]}"
        )


def _periods(
    market: Market, frequency: Frequency
) -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """Labels of the complete periods, and their first and last rows."""
    ends = period_ends(market.dates, frequency)
    firsts = np.flatnonzero(np.r_[True, ends[1:] != ends[:-1]])
    lasts = np.r_[firsts[1:] - 1, market.n_periods - 1]
    complete = ends[lasts] <= market.dates[-1].normalize()
    firsts, lasts = firsts[complete], lasts[complete]
    if len(lasts) < 2:
        raise DataError(
            f"{market.name}: {len(lasts)} complete {frequency} periods in {market.n_periods} rows; "
            "needs at least 2"
        )
    times = market.dates[lasts] - market.dates[lasts].normalize()
    return ends[lasts] + times, firsts, lasts


def _month_end(months: np.ndarray, whole_week: bool) -> np.ndarray:
    """Last day, or last weekday, of months, datetime64[D]."""
    following = (months + 1).astype("datetime64[D]")
    if whole_week:
        return following - np.timedelta64(1, "D")
    return np.busday_offset(following, -1, roll="forward")


def _left_out(last: np.ndarray, at_end: np.ndarray) -> np.ndarray:
    """Prices at the ends of periods; the last ones of assets that are there at no end."""
    return np.where(np.isfinite(at_end).any(axis=0), at_end, last)


def _compounded(
    market: Market, prices: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
) -> np.ndarray:
    """Returns of the periods: those of the prices, and the days' own where an asset leaves."""
    growth = np.multiply.reduceat(1.0 + market.returns[: lasts[-1] + 1], firsts)
    listed = np.isfinite(prices)
    leaves = np.zeros_like(listed)
    leaves[1:] = listed[:-1] & ~listed[1:]
    return np.where(leaves, growth - 1.0, simple_returns(prices))


def _last_known(panel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """The last number of each period, nan where it holds none."""
    rows = np.arange(len(panel))[:, None]
    at = np.maximum.accumulate(np.where(np.isfinite(panel), rows, -1), axis=0)[lasts]
    found = np.take_along_axis(panel, np.maximum(at, 0), axis=0)
    return np.where(at >= firsts[:, None], found, np.nan)


def _first_known(panel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """The first number of each period, nan where it holds none."""
    end = len(panel) - 1
    return _last_known(panel[::-1], end - lasts[::-1], end - firsts[::-1])[::-1]


def _highest(panel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    return np.fmax.reduceat(panel[: lasts[-1] + 1], firsts)


def _lowest(panel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    return np.fmin.reduceat(panel[: lasts[-1] + 1], firsts)


def _summed(panel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """Sums of what is known, nan where nothing is."""
    known = panel[: lasts[-1] + 1]
    total = np.add.reduceat(np.nan_to_num(known), firsts)
    count = np.add.reduceat(np.isfinite(known).astype(int), firsts)
    return np.where(count > 0, total, np.nan)


_PANELS = {
    "opens": _first_known,
    "highs": _highest,
    "lows": _lowest,
    "closes": _last_known,
    "volume": _summed,
}
