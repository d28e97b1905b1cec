"""Which assets a table beside the prices knows: what it does not is said, with near names.

A misspelt name would else go unseen: an asset that a table does not know gets a neutral value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from market.errors import DataError
from market.market import CASH, Market
from market.names import nearest

log = logging.getLogger(__name__)

_SHOWN = 5
_DATES = ("timestamp", "period_end", "date", "published")
_NEUTRAL = {
    "news": "score 0, as days without a text do",
    "sectors": "belong to no group, and no cap on one binds them",
}
_MEDIAN = "take the day's median"


def table_notes(tables: Mapping[str, pd.DataFrame], market: Market) -> list[str]:
    """What each table does not know, logged too: assets, and the last part of the dates.

    Args:
        tables: By name; one without a column asset is about all.
        market: Whose assets and dates count.

    Raises:
        DataError: If a table knows none of the assets.

    """
    notes: list[str] = []
    for name, frame in tables.items():
        if "asset" in frame.columns and len(frame):
            named = frame["asset"].astype(str)
            notes += coverage(f"table '{name}'", name, named, market.assets)
        notes += _ends_early(name, frame, market.dates)
    return notes


def _ends_early(name: str, frame: pd.DataFrame, dates: pd.DatetimeIndex) -> list[str]:
    """A note where a table stops a month and two of its steps, or more, before the prices do."""
    column = next((key for key in _DATES if key in frame.columns), None)
    given = frame.index if column is None else frame[column]
    if pd.api.types.is_numeric_dtype(given):
        return []  # refused, with its place, by the feature that reads it
    days = pd.Series(pd.to_datetime(given, errors="coerce", utc=True, format="ISO8601")).dropna()
    days = days.dt.tz_localize(None).dt.normalize().drop_duplicates().sort_values()
    if days.empty:
        return []
    step = days.diff().median() if len(days) > 1 else pd.Timedelta(0)
    left = dates[-1].normalize() - days.iloc[-1]
    if left <= pd.Timedelta(days=31) + 2 * step:
        return []
    after = "days after count as without a text" if name == "news" else "its last figures stand on"
    note = f"table '{name}' ends on {days.iloc[-1]:%Y-%m-%d}, {left.days} days before the prices: "
    log.warning("%s", note + after)
    return [note + after]


def coverage(where: str, kind: str, named: Iterable[str], assets: Sequence[str]) -> list[str]:
    """A note about the assets that a table does not name, and the near names it has instead.

    Args:
        where: What the note calls it.
        kind: "sectors", or the name of a table.
        named: The assets it names.
        assets: Of the market.

    Raises:
        DataError: If it names none of them.

    """
    theirs = list(dict.fromkeys(named))
    known = set(theirs)
    ours = [asset for asset in assets if asset != CASH]
    missing = [asset for asset in ours if asset not in known]
    others = [name for name in theirs if name not in assets]
    meant = {name: near[0] for name in others if (near := nearest(name, missing))}
    hint = "".join(f"; '{name}': did you mean '{near}'?" for name, near in list(meant.items())[:3])
    if not known & set(assets):
        raise DataError(
            f"{where}: none of its assets ({few(theirs)}) is among those with prices ({few(ours)})"
            + hint
        )
    if not missing:
        return []
    note = f"{where}: knows {len(ours) - len(missing)} of {len(ours)} assets"
    note += f"; the others ({few(missing)}) {_NEUTRAL.get(kind, _MEDIAN)}"
    if others:
        note += f"; names that have no prices: {few(sorted(others, key=lambda x: x not in meant))}"
    log.log(logging.INFO if kind == "news" and not meant else logging.WARNING, "%s", note + hint)
    return [note + hint]


def few(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "")
