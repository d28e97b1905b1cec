"""Company figures against prices, as they were known: from tables["fundamentals"], (T, N) float64.

The table holds one row a report: `asset`, `period_end`, `published` where it is known, and per
share `earnings_per_share` (or `eps`), `book_value_per_share` (or `book_value`),
`dividends_per_share` (or `dividends`), each of the one period that ends. Where `published` is
missing, a report is taken as known `lag` days after its period's end, 90 by default: longer than
US rules grant a company for its yearly report. A later row for the same period restates it from its
own publication on.

The price is the close as it was paid (`Market.closes`) where the source has it beside an adjusted
one, so that no later dividend moves a ratio; else it is the price there is, and with prices
adjusted for dividends the ratios of distant years come out too low. Per-share figures must be on
the basis of that price: where it is adjusted for later splits, as Yahoo's close is, adjusted for
the same splits.

A figure over twelve months is the sum of the last `reports` reports (4 quarters; 1 where reports
are yearly, or already cover twelve months). It is unknown where one of them is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from market.features.releases import (
    DAY,
    Tables,
    as_known,
    find_table,
    latest,
    nanoseconds,
    per_asset,
    read_releases,
)
from market.market import Market

LAG = 90
_YEAR = 365.25 * DAY
_SLACK = 30 * DAY

_COLUMNS = {
    "earnings": ("earnings_per_share", "eps", "earnings", "reported_eps", "reportedeps"),
    "book": ("book_value_per_share", "book_value", "bvps"),
    "dividends": ("dividends_per_share", "dividends", "dps"),
}


def price_to_earnings(
    market: Market, tables: Tables, reports: int = 4, lag: int = LAG
) -> np.ndarray:
    """Price to the earnings of the last twelve months; unknown where they are not positive.

    price[t] / sum of the last `reports` earnings per share published by t

    `earnings_yield` is its inverse and knows losses too.

    Source: Basu, Journal of Finance 32 (1977).
    """
    earned = _known(market, tables, "earnings", lag, lambda p, v: _year(p, v, reports))
    return _paid(market) / np.where(earned > 0.0, earned, np.nan)


def earnings_yield(market: Market, tables: Tables, reports: int = 4, lag: int = LAG) -> np.ndarray:
    """Earnings of the last twelve months to the price; negative for a loss.

    sum of the last `reports` earnings per share published by t / price[t]

    Source: Basu, Journal of Finance 32 (1977).
    """
    earned = _known(market, tables, "earnings", lag, lambda p, v: _year(p, v, reports))
    return earned / _paid(market)


def price_to_book(market: Market, tables: Tables, lag: int = LAG) -> np.ndarray:
    """Price to book value; unknown where that is not positive.

    price[t] / last book value per share published by t

    Source: Fama & French, Journal of Finance 47 (1992).
    """
    book = _known(market, tables, "book", lag)
    return _paid(market) / np.where(book > 0.0, book, np.nan)


def earnings_growth(market: Market, tables: Tables, reports: int = 4, lag: int = LAG) -> np.ndarray:
    """Growth of twelve months' earnings over a year; positive when a loss shrinks.

    (now - then) / |then|,  sums of `reports` earnings per share, and of those a year earlier

    Both are taken as known at t. Unknown where nothing was earned or lost then.

    Source: Lakonishok, Shleifer & Vishny, Journal of Finance 49 (1994).
    """

    def growth(periods: Sequence[int], values: Sequence[float]) -> float:
        now, then = _year(periods, values, reports), _year(periods[:-reports], values, reports)
        if len(periods) <= reports or abs(periods[-1] - periods[-1 - reports] - _YEAR) > _SLACK:
            return np.nan
        return (now - then) / abs(then) if then else np.nan

    return _known(market, tables, "earnings", lag, growth)


def dividend_yield(market: Market, tables: Tables, reports: int = 4, lag: int = LAG) -> np.ndarray:
    """Dividends of the last twelve months to the price.

    sum of the last `reports` dividends per share published by t / price[t]

    Source: Fama & French, Journal of Financial Economics 22 (1988).
    """
    paid = _known(market, tables, "dividends", lag, lambda p, v: _year(p, v, reports))
    return paid / _paid(market)


def _paid(market: Market) -> np.ndarray:
    """What a share cost on the day, as far as the source tells, (T, N)."""
    return market.prices if market.closes is None else market.closes


def _year(periods: Sequence[int], values: Sequence[float], reports: int) -> float:
    """Sum of the last `reports` values of `periods`, nan unless they cover one year."""
    last = len(periods)
    if last < reports:
        return np.nan
    covered = periods[-1] - periods[-reports]
    if abs(covered - _YEAR * (reports - 1) / reports) > _SLACK:
        return np.nan
    return float(sum(values[last - reports : last]))


def _known(
    market: Market,
    tables: Tables,
    figure: str,
    lag: int,
    statistic: Callable[[Sequence[int], Sequence[float]], float] | None = None,
) -> np.ndarray:
    """The latest figure known, or a statistic of all that were, (T, N); nan where there is none."""
    table = find_table(tables, "fundamentals", figure)
    rows = read_releases(table, "fundamentals", _COLUMNS[figure], "period_end", lag)
    dates = nanoseconds(market.dates)
    return per_asset(
        market.assets,
        rows,
        "fundamentals",
        lambda own: as_known(dates, own, statistic) if statistic else latest(dates, own),
    )
