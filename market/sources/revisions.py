"""Is a new download the old one with rows added? What is not is history rewritten, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

SAME = 1e-4  # relative: vendors round
_SHOWN = 3


def rewritten(
    name: str, old: pd.DataFrame, new: pd.DataFrame, scaled: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """What a vendor changed in rows it had given before.

    Args:
        name: Of the series, for messages.
        old: As stored, by date.
        new: As downloaded now.
        scaled: Columns that the vendor multiplies by one factor on a split or dividend, which
            changes no return.

    Returns:
        Lines about rewritten history, with columns and dates; and lines about changes of scale.

    """
    changes: list[str] = []
    scales: list[str] = []
    gone = old.index.difference(new.index)
    if len(gone):
        changes.append(f"{name}: {len(gone)} rows are gone: {_some(gone)}")
    inside = new.index[new.index <= old.index.max()].difference(old.index)
    if len(inside):
        changes.append(f"{name}: {len(inside)} rows were put in: {_some(inside)}")
    common = old.index.intersection(new.index)
    for column in old.columns.intersection(new.columns):
        before = old.loc[common, column].to_numpy(float)
        after = new.loc[common, column].to_numpy(float)
        factor = _factor(before, after) if column in scaled else 1.0
        differs = ~_alike(before * factor, after)
        if differs.any():
            rows = np.flatnonzero(differs)
            example = f"{before[rows[0]]:g} is now {after[rows[0]]:g}"
            changes.append(
                f"{name}: {column} differs on {len(rows)} dates: {_some(common[rows])} ({example})"
            )
        elif abs(factor - 1.0) > SAME:
            scales.append(
                f"{name}: {column} of all {len(common)} earlier rows multiplied by {factor:.6g}, "
                "as after a split or dividend"
            )
    return changes, scales


def _factor(before: np.ndarray, after: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = after / before
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    return float(np.median(ratio)) if ratio.size else 1.0


def _alike(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Equal but for rounding, or missing in both."""
    near = np.abs(before - after) <= SAME * np.maximum(np.abs(before), np.abs(after))
    return near | (np.isnan(before) & np.isnan(after))


def _some(rows: pd.Index) -> str:
    dates = [" of ".join(f"{date:%Y-%m-%d}" for date in _dates(row)) for row in rows[:_SHOWN]]
    shown = ", ".join(dates)
    return shown + (", .." if len(rows) > _SHOWN else "")


def _dates(row: Any) -> tuple[pd.Timestamp, ...]:
    return row if isinstance(row, tuple) else (row,)
