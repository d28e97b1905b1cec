"""Features without code, from any table a user brings, and features of features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from market.features.releases import (
    Tables,
    find_table,
    latest,
    nanoseconds,
    per_asset,
    read_releases,
)
from market.market import Market


def table(
    market: Market,
    tables: Tables,
    name: str = "",
    column: str = "value",
    lag: int | None = None,
    date: str = "date",
) -> np.ndarray:
    """Any column of any table: one number an asset where it has a column asset, else one for all.

    x[latest date published by t]

    Args:
        market: Whose dates and assets count.
        tables: By name.
        name: Of the table; it has the columns `date`, `column`, and where there are any `asset` and
            `published`.
        column: What to read.
        lag: Days from a row's date to its publication, where the table has no `published`.
        date: Name of the column of dates.

    """
    found = find_table(tables, name, "table")
    rows = read_releases(found, name, [column], date, lag)
    dates = nanoseconds(market.dates)
    if "asset" not in found.columns:
        return latest(dates, rows)
    return per_asset(market.assets, rows, name, lambda own: latest(dates, own))


def rolling_zscore(values: np.ndarray, window: int, min_rows: int) -> np.ndarray:
    """How far each column is from its mean over its last rows; 0 where it never moved.

    (x[t] - mean) / std(ddof=1) of x[t-window+1 .. t]

    Args:
        values: (T, columns); nan where there is none.
        window: Rows.
        min_rows: Fewest of them that must be there, at least 2; nan elsewhere.

    """
    rolling = pd.DataFrame(values).rolling(window, min_periods=min_rows)
    mean, spread = rolling.mean().to_numpy(), rolling.std().to_numpy()
    moved = spread > 1e-9 * np.abs(mean)
    distance = np.divide(values - mean, spread, out=np.zeros_like(mean), where=moved)
    return np.where(np.isnan(spread), np.nan, distance)
