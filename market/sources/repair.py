"""What is doubtful in price panels, and the one repair there is: carrying a price over a short gap.

Every finding is one line, handed back to be logged and kept with the market; nothing is silent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

_SPLIT = 1.9  # a 2-for-1 split on a day that moved prices by 5 %
_PAUSE_DAYS = 10
_LABELS = 6
STARTS = (
    "the dates are all {}: if a row holds what its period ended with, it is known before its time; "
    "label it by the period's last day"
)


def carry_gaps(
    prices: np.ndarray, max_gap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Carry prices over missing rows, never backwards, and by a rule that knows only the past.

    A missing price is the last one for `max_gap` rows and the asset stays tradable; after that it
    is not tradable until a price comes. Rows before an asset's first price stay nan, and so do
    rows after its last price and the `max_gap` that follow it (delisted): on those rows nobody can
    know yet whether a price will come, and to close the asset there would tell.

    Args:
        prices: (T, N), nan where missing.
        max_gap: Rows a price may be carried.

    Returns:
        Prices, tradable, carried (rows a tradable price was carried) and suspended (rows inside
        the asset's history that are not tradable), all (T, N).

    """
    known = np.isfinite(prices)
    rows = np.arange(len(prices))[:, None]
    last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    resumes = np.maximum.accumulate(known[::-1], axis=0)[::-1]
    listed = (last >= 0) & (resumes | (rows - last <= max_gap))
    filled = np.where(listed, np.take_along_axis(prices, np.maximum(last, 0), axis=0), np.nan)
    tradable = listed & (rows - last <= max_gap)
    return filled, tradable, tradable & ~known, listed & ~tradable


def carried(panel: np.ndarray, prices: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Another panel of prices on the rows to which `prices` were carried, (T, N).

    Args:
        panel: Such as closes as they were paid.
        prices: nan where missing.
        filled: What `carry_gaps` made of them.

    """
    rows = np.arange(len(prices))[:, None]
    last = np.maximum.accumulate(np.where(np.isfinite(prices), rows, 0), axis=0)
    return np.where(np.isfinite(filled), np.take_along_axis(panel, last, axis=0), panel)


def gap_notes(
    dates: pd.DatetimeIndex,
    assets: list[str],
    tradable: np.ndarray,
    carried: np.ndarray,
    suspended: np.ndarray,
) -> list[str]:
    """Which prices were carried, which assets pause, start late or end early."""
    notes = []
    day = lambda row: f"{dates[row]:%Y-%m-%d}"  # noqa: E731
    for i, asset in enumerate(assets):
        held = np.flatnonzero(tradable[:, i])
        if held[0] > 0:
            notes.append(f"'{asset}' is listed from {day(held[0])}")
        if carried[:, i].any():
            count, first = carried[:, i].sum(), np.flatnonzero(carried[:, i])[0]
            notes.append(
                f"'{asset}': {count} missing prices carried forward, first on {day(first)}"
            )
        open_end = int(carried[::-1, i].argmin())
        if open_end:
            notes.append(
                f"'{asset}' has no price on the last {open_end} dates, "
                f"from {day(len(dates) - open_end)}: taken for a gap within max_gap, not delisted"
            )
        pause = np.flatnonzero(suspended[:, i])
        if pause.size:
            notes.append(
                f"'{asset}' is not tradable on {pause.size} dates without price, "
                f"{day(pause[0])} .. {day(pause[-1])}"
            )
        if held[-1] < len(dates) - 1:
            notes.append(f"'{asset}' is delisted after {day(held[-1])}")
    return notes


def jumps(prices: np.ndarray) -> list[tuple[int, int, float]]:
    """Steps that look like an unadjusted split, (row, column, ratio); the largest first."""
    ratio = prices[1:] / prices[:-1]
    with np.errstate(invalid="ignore"):
        size = np.abs(np.log(ratio))
    found = np.argwhere(size >= np.log(_SPLIT))
    order = np.argsort([-size[t, i] for t, i in found], kind="stable")
    return [(int(t) + 1, int(i), float(ratio[t, i])) for t, i in found[order]]


def constant_assets(prices: np.ndarray) -> np.ndarray:
    """Columns whose price never moves."""
    return np.flatnonzero(np.nanmax(prices, axis=0) == np.nanmin(prices, axis=0))


def period_starts(dates: pd.DatetimeIndex) -> str:
    """What all labels are where they look like the starts of the periods they are about, or ""."""
    step = float(np.median(np.diff(dates.to_numpy()) / np.timedelta64(1, "D")))
    if len(dates) >= _LABELS and 28 <= step <= 31 and (dates.day == 1).all():
        return "first days of months"
    if len(dates) >= _LABELS and step == 7 and (dates.day_of_week == 0).all():
        return "Mondays"
    return ""


def pauses(dates: pd.DatetimeIndex) -> list[int]:
    """Rows that follow a gap in the calendar: over 10 days, and over 10 times the usual step."""
    steps = np.diff(dates.to_numpy()) / np.timedelta64(1, "D")
    limit = max(_PAUSE_DAYS, 10 * float(np.median(steps)))
    return [int(row) + 1 for row in np.flatnonzero(steps > limit)]
