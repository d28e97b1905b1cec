"""Made-up tables of every kind that features read, for audits where a user has brought none.

Reports come out weeks after their period's end and some are restated later; economic figures come
out in the middle of the month after; news come at any hour. So a join by anything but the day of
publication shows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from market.market import Market

# what features are audited with that need a parameter, or have more to show with one
SPECS = {
    "macro": "macro('cpi')",
    "macro_change": "macro_change('cpi')",
    "macro_zscore": "macro_zscore('cpi', 24)",
    "table": "table('signal')",
    "sentiment": "sentiment(5)",
    "sentiment_dispersion": "sentiment_dispersion(5)",
    "news_count": "news_count(5)",
}
_SERIES = ("cpi", "baa", "aaa")


def sample_tables(market: Market, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Tables "fundamentals", "news", "signal" and monthly "cpi", "baa", "aaa", by name.

    Args:
        market: Its risky assets and dates; the tables begin six years earlier.
        seed: Of all numbers.

    """
    rng = np.random.default_rng(seed)
    risky = list(market.assets[: market.n_assets - market.has_cash])
    first, last = market.dates[0] - pd.DateOffset(years=6), market.dates[-1]
    tables = {name: _monthly(pd.date_range(first, last, freq="MS"), rng) for name in _SERIES}
    quarters = pd.date_range(first, last, freq="QE")
    reports = [_reports(asset, quarters, rng) for asset in risky]
    tables["fundamentals"] = pd.concat(reports, ignore_index=True)
    days = market.dates.normalize()
    tables["news"] = pd.DataFrame(
        {
            "timestamp": rng.choice(days, 2 * len(days)) + _minutes(rng, 2 * len(days)),
            "asset": rng.choice(risky, 2 * len(days)),
            "score": rng.uniform(-0.3, 0.3, 2 * len(days)),
        }
    )
    weeks = pd.date_range(first, last, freq="W-WED")
    tables["signal"] = pd.DataFrame(
        {
            "date": weeks,
            "published": weeks + pd.Timedelta(days=5),
            "value": rng.normal(size=len(weeks)),
        }
    )
    return tables


def _monthly(months: pd.DatetimeIndex, rng: np.random.Generator) -> pd.DataFrame:
    """A rising monthly series, published in the middle of the next month."""
    growth = 1.0 + np.abs(rng.normal(0.002, 0.002, len(months)))
    lag = pd.to_timedelta(rng.integers(40, 50, len(months)), unit="D")
    return pd.DataFrame(
        {"date": months, "published": months + lag, "value": 100.0 * np.cumprod(growth)}
    )


def _reports(asset: str, quarters: pd.DatetimeIndex, rng: np.random.Generator) -> pd.DataFrame:
    """Quarterly figures a share of one asset, each fifth restated half a year later."""
    count = len(quarters)
    lag = pd.to_timedelta(rng.integers(25, 60, count), unit="D")
    table = pd.DataFrame(
        {
            "asset": asset,
            "period_end": quarters,
            "published": quarters + lag,
            "earnings_per_share": rng.uniform(0.5, 2.0, count),
            "book_value_per_share": rng.uniform(10.0, 20.0, count),
            "dividends_per_share": rng.uniform(0.1, 0.3, count),
        }
    )
    again = table[::5].copy()
    again["published"] += pd.Timedelta(days=180)
    again["earnings_per_share"] *= 0.5
    return pd.concat([table, again], ignore_index=True)


def _minutes(rng: np.random.Generator, count: int) -> pd.TimedeltaIndex:
    return pd.to_timedelta(rng.integers(1, 24 * 60, count), unit="min")
