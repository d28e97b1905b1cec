"""Tables of what was published when, joined to the days on which it was known.

    period_end ----- publication ----- t
    what it is about     from here on it is known: at the close of every date >= its publication

A row is known from its `published` date on, at the close of that date; a stamp with a time of day
is known from the next date on. Where `published` is missing, a lag in calendar days after the
row's own date stands in for it. Rows for a period already published restate it: at `t` the last
figure published by `t` counts, and never a later one.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError

Tables = Mapping[str, pd.DataFrame]
Statistic = Callable[[Sequence[int], Sequence[float]], float]

DAY = 86_400_000_000_000  # nanoseconds


def find_table(tables: Tables, name: str, feature: str) -> pd.DataFrame:
    """A table by name.

    Raises:
        DataError: If it was not handed in.

    """
    if not name:
        raise SettingError(f"feature '{feature}': name the table")
    if name not in tables:
        there = ", ".join(map(repr, sorted(tables))) or "none"
        raise DataError(f"feature '{feature}' needs the table '{name}'; there is {there}")
    return tables[name]


def find_column(table: pd.DataFrame, name: str, choices: Sequence[str]) -> str:
    """The first of `choices` among the table's columns, as written or as files are read.

    The only column of numbers there is stands for "value".
    """
    for choice in choices:
        for spelling in (choice, choice.lower().replace(" ", "_")):
            if spelling in table.columns:
                return spelling
    numbers = [str(key) for key in table.select_dtypes("number").columns]
    if list(choices) == ["value"] and len(numbers) == 1:
        return numbers[0]
    needed = " or ".join(map(repr, choices))
    raise DataError(f"table '{name}': needs a column {needed}, got {list(table.columns)}")


def read_releases(
    table: pd.DataFrame, name: str, columns: Sequence[str], date: str, lag: int | None
) -> pd.DataFrame:
    """One value column as rows of (asset, period, published, value), in order of publication.

    Args:
        table: With the columns `date`, one of `columns`, and where there are any `published` and
            `asset`; the index serves as `date` where it holds dates.
        name: Of the table, for messages.
        columns: Names the value may have, the first found is taken.
        date: Name of the column of each row's own date.
        lag: Days from that date to publication, used where `published` is missing.

    Returns:
        Columns asset (text, "" where the table has none), period and published (int64
        nanoseconds), value (float64). Rows without a value are left out.

    Raises:
        DataError: If a column is missing or unreadable, a row is published before its date, two
            rows claim the same, or nothing says when a row was published.

    """
    if date not in table.columns and isinstance(table.index, pd.DatetimeIndex):
        table = table.rename_axis(date).reset_index()
    period = read_times(table[find_column(table, name, [date])], name)
    values = _numbers(table[find_column(table, name, columns)], name)
    published = _published(table, name, period, lag)
    asset = table["asset"].astype(str) if "asset" in table.columns else ""
    rows = pd.DataFrame({"asset": asset, "period": period, "published": published, "value": values})
    rows = rows[np.isfinite(values)].sort_values(["published", "period"], kind="stable")
    twice = rows.duplicated(["asset", "period", "published"])
    if twice.any():
        row = rows[twice].iloc[0]
        about = f" of '{row['asset']}'" if row["asset"] else ""
        raise DataError(f"table '{name}': {day(row['period'])}{about} appears twice")
    return rows.reset_index(drop=True)


def read_times(column: pd.Series, name: str) -> np.ndarray:
    """Plain dates or times as int64 nanoseconds."""
    times = _parsed(column, name)
    if times.dt.tz is not None:
        raise DataError(
            f"table '{name}': column '{column.name}' carries the time zone {times.dt.tz}; "
            "convert it to plain dates"
        )
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise DataError(f"table '{name}': column '{column.name}', row {row}: the date is missing")
    return times.to_numpy("datetime64[ns]").astype(np.int64)


def nanoseconds(dates: pd.DatetimeIndex) -> np.ndarray:
    """Market dates, (T,), as int64 nanoseconds."""
    return dates.to_numpy("datetime64[ns]").astype(np.int64)


def day(stamp: int) -> str:
    """Nanoseconds as a date, for messages."""
    return f"{pd.Timestamp(int(stamp)):%Y-%m-%d}"


def last_known(dates: np.ndarray, published: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of the last of the rising `published` <= each date, (T,); nan before the first."""
    row = np.searchsorted(published, dates, side="right") - 1
    if not len(values):
        return np.full(len(dates), np.nan)
    return np.where(row >= 0, values[np.maximum(row, 0)], np.nan)


def latest(dates: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """On each date the figure of the latest period published by then, restated or not, (T,)."""
    period = rows["period"].to_numpy()
    current = period >= np.maximum.accumulate(period) if len(period) else period.astype(bool)
    kept = rows[current]
    return last_known(dates, kept["published"].to_numpy(), kept["value"].to_numpy())


def as_known(dates: np.ndarray, rows: pd.DataFrame, statistic: Statistic) -> np.ndarray:
    """On each date a statistic of the whole history as it was known then, (T,).

    `statistic` gets all periods published so far, rising, and the last figure published for each.
    """
    periods: list[int] = []
    figures: list[float] = []
    moments: list[int] = []
    results: list[float] = []
    stamps = rows["published"].to_list()
    for position, (period, stamp, value) in enumerate(
        zip(rows["period"].to_list(), stamps, rows["value"].to_list(), strict=True)
    ):
        place = bisect.bisect_left(periods, period)
        if place < len(periods) and periods[place] == period:
            figures[place] = value
        else:
            periods.insert(place, period)
            figures.insert(place, value)
        if position + 1 == len(stamps) or stamps[position + 1] != stamp:
            moments.append(stamp)
            results.append(statistic(periods, figures))
    return last_known(dates, np.array(moments, np.int64), np.array(results))


def per_asset(
    assets: Sequence[str], rows: pd.DataFrame, name: str, compute: Callable[..., np.ndarray]
) -> np.ndarray:
    """`compute(rows of one asset)` for each asset of the market, (T, N); nan where it has none.

    Raises:
        DataError: If the table knows none of the assets.

    """
    groups = {str(asset): own for asset, own in rows.groupby("asset", sort=False)}
    found = {asset: compute(groups[asset]) for asset in assets if asset in groups}
    if not found:
        raise DataError(
            f"table '{name}': none of its assets ({', '.join(sorted(groups)[:5])}, ..) is in the "
            f"market ({', '.join(assets[:5])}, ..)"
        )
    missing = np.full_like(next(iter(found.values())), np.nan)
    return np.stack([found.get(asset, missing) for asset in assets], axis=1)


def _published(table: pd.DataFrame, name: str, period: np.ndarray, lag: int | None) -> np.ndarray:
    """When each row was known: its `published`, or its own date and the lag."""
    if "published" in table.columns:
        column = _parsed(table["published"], name)
        missing = column.isna().to_numpy()
        stamps = read_times(column.where(~missing, pd.Timestamp(0)), name)
    else:
        missing, stamps = np.ones(len(period), bool), period
    if missing.any() and lag is None:
        row = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"table '{name}': row {row} ({day(period[row])}) does not say when it was published; "
            "add a column published, or set lag, in days after its date"
        )
    early = ~missing & (stamps < period)
    if early.any():
        row = int(np.flatnonzero(early)[0])
        raise DataError(
            f"table '{name}': row {row}: published {day(stamps[row])}, before its own date "
            f"{day(period[row])}"
        )
    return np.where(missing, period + (lag or 0) * DAY, stamps)


def _parsed(column: pd.Series, name: str) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        raise DataError(f"table '{name}': column '{column.name}' must hold dates, got numbers")
    try:
        return pd.Series(pd.to_datetime(column), index=column.index, name=column.name)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"table '{name}': column '{column.name}' must hold dates: {reason}"
        ) from None


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    try:
        values = pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"table '{name}': column '{column.name}' must hold numbers: {reason}"
        ) from None
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(f"table '{name}': column '{column.name}', row {row}: {values[row]}")
    return values
