"""Features that all assets share: rates and the economy, by their release, (T,) float64.

A `series` is a table of that name (`date`, its value, and `published` where that is known) or else
a column of the market's context, which is known day by day. A table that does not say when its
rows were published needs `lag`, the days from a row's date to its release. Statisticians date a
month by its first day: US consumer prices of January, dated 1 January, come out in the middle of
February, so that 60 days are safe. Between releases nothing moves; revisions count from their own
release on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.features.releases import (
    DAY,
    Statistic,
    Tables,
    as_known,
    latest,
    nanoseconds,
    read_releases,
)
from market.market import Market

_SLACK = 20 * DAY


def term_spread(market: Market, long: str = "10y", short: str = "3m") -> np.ndarray:
    """Slope of the Treasury yield curve, a fraction a year.

    yield[long] - yield[short]

    Source: Fama & French, Journal of Financial Economics 25 (1989).
    """
    return treasury_yield(market, long) - treasury_yield(market, short)


def treasury_yield(market: Market, maturity: str = "3m") -> np.ndarray:
    """Treasury par yield of one maturity, a fraction a year.

    yield[maturity]
    """
    name = f"yield_{maturity}"
    if name not in market.context_names:
        raise DataError(
            f"{market.name}: has no '{name}' in its context ({list(market.context_names)})"
        )
    return market.context[:, market.context_names.index(name)].astype(np.float64)


def macro(market: Market, tables: Tables, series: str = "", lag: int | None = None) -> np.ndarray:
    """Level of a series.

    x[latest period released by t]
    """
    dates, rows = _series(market, tables, series, lag)
    return latest(dates, rows)


def macro_change(
    market: Market, tables: Tables, series: str = "", periods: int = 1, lag: int | None = None
) -> np.ndarray:
    """Change of a series over its own periods: months of a monthly one, rows of a daily one.

    x[n] - x[n - periods],  n the latest period released by t
    """

    def change(_: Sequence[int], values: Sequence[float]) -> float:
        return values[-1] - values[-1 - periods] if len(values) > periods else np.nan

    return _statistic(market, tables, series, lag, change)


def macro_zscore(
    market: Market, tables: Tables, series: str = "", window: int = 60, lag: int | None = None
) -> np.ndarray:
    """How far a series is from its mean over its last periods; 0 where it never moved.

    (x[n] - mean) / std(ddof=1) of x[n-window+1 .. n],  n the latest period released by t
    """
    if window < 2:
        raise SettingError(f"feature 'macro_zscore': window must be >= 2, got {window}")

    def zscore(_: Sequence[int], values: Sequence[float]) -> float:
        if len(values) < window:
            return np.nan
        past = np.array(values[-window:])
        mean, spread = past.mean(), past.std(ddof=1)
        return (past[-1] - mean) / spread if spread > 1e-12 * abs(mean) else 0.0

    return _statistic(market, tables, series, lag, zscore)


def inflation(
    market: Market, tables: Tables, series: str = "cpi", lag: int | None = None
) -> np.ndarray:
    """Growth of a price index over the year before its latest release.

    x[n] / x[n a year earlier] - 1,  n the latest period released by t

    Where the index has no figure within 20 days of a year before, the last growth known stays.
    """

    def growth(periods: Sequence[int], values: Sequence[float]) -> float:
        then = pd.Timestamp(periods[-1]) - pd.DateOffset(years=1)
        distance = np.abs(np.array(periods, np.int64) - then.as_unit("ns").value)
        nearest = int(np.argmin(distance))
        return values[-1] / values[nearest] - 1.0 if distance[nearest] <= _SLACK else np.nan

    return _statistic(market, tables, series, lag, growth)


def credit_spread(
    market: Market, tables: Tables, low: str = "baa", high: str = "aaa", lag: int | None = None
) -> np.ndarray:
    """Yield of bonds of low rating over that of high, in the unit of the tables.

    x[low] - x[high], each of its latest period released by t

    Source: Fama & French, Journal of Financial Economics 25 (1989).
    """
    return macro(market, tables, low, lag) - macro(market, tables, high, lag)


def _statistic(
    market: Market, tables: Tables, series: str, lag: int | None, statistic: Statistic
) -> np.ndarray:
    """A statistic of what is known, kept while a later one cannot be computed."""
    dates, rows = _series(market, tables, series, lag)
    return pd.Series(as_known(dates, rows, statistic)).ffill().to_numpy()


def _series(
    market: Market, tables: Tables, series: str, lag: int | None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Market dates in nanoseconds, and the releases of a table or a context column."""
    dates = nanoseconds(market.dates)
    if series in tables:
        table = tables[series]
        rest = [name for name in table.columns if name not in ("date", "published", "asset")]
        only = rest if len(rest) == 1 else []
        return dates, read_releases(table, series, ("value", series, *only), "date", lag)
    if series not in market.context_names:
        known = [*sorted(tables), *market.context_names]
        raise DataError(
            f"{market.name}: has neither a table nor a context column {series!r}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    column = market.context[:, market.context_names.index(series)].astype(np.float64)
    released = dates + (lag or 0) * DAY
    return dates, pd.DataFrame(
        {"asset": "", "period": dates, "published": released, "value": column}
    )
