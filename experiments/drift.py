"""Are new days like the days of the past? Tests of windows that take serial dependence as it is.

Daily features and squared returns depend on the days before for weeks, so the textbook p-values of
a two-sample test, made for independent draws, would cry wolf. Here the new days are a window of the
whole series, laid out as a circle, and are compared with the same window moved elsewhere:

    | reference ................................ | new ...... |
              | window moved by s |                              p = share of shifts as extreme

Each window keeps its days in their order, so whatever dependence there is, is in all of them alike.
For a series whose law does not change, all shifts are equally likely to be the most extreme one and
the level is exact, but for the one place where the circle is closed (Politis, Romano & Wolf,
Subsampling, 1999, for the idea; the shifts form a group, hence Lehmann & Romano, Testing
statistical hypotheses, 2005, ch. 15.2, for the level).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError

GRID = 100
RECENT = 4  # the last quarter of the new days is looked at by itself
_TINY = 1e-12

Measure = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # of sums of x and of x^2
Contrast = Callable[[np.ndarray, np.ndarray], np.ndarray]


class WindowTest(NamedTuple):
    """A measure of the new days against the same measure of other windows as long.

    Attributes:
        value: Of the new days.
        expected: Median over windows of the reference alone.
        low: 2.5 % of those windows are below.
        high: 97.5 % are below.
        p_value: Of no change.

    """

    value: float
    expected: float
    low: float
    high: float
    p_value: float


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic: sup_x |F_first(x) - F_second(x)|."""
    points = np.concatenate([first, second])
    shares = (
        np.searchsorted(np.sort(part), points, side="right") / len(part) for part in (first, second)
    )
    return float(np.abs(np.subtract(*shares)).max())


def ks_of_windows(series: np.ndarray, length: int) -> np.ndarray:
    """The statistic of every window of `length` days against the rest, on a grid of 100 quantiles.

    Args:
        series: All days, (T,), a circle.
        length: Days of a window.

    Returns:
        Shape (T,): first the window at the end of the series, then each moved on by one more day.

    """
    grid = np.unique(np.quantile(series, np.linspace(0.0, 1.0, GRID + 2)[:-1]))
    total = len(series)
    circle = np.concatenate([series, series[: length - 1]])
    below = np.zeros((len(circle) + 1, len(grid)), np.int32)
    np.cumsum(circle[:, None] <= grid, axis=0, dtype=np.int32, out=below[1:])
    within = below[length:] - below[:-length]  # (T, G)
    outside = below[total] - within
    gap = within / length - outside / (total - length)
    statistics: np.ndarray = np.roll(np.abs(gap).max(axis=1), length - total)
    return statistics


def feature_drift(reference: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Which of many features have another distribution on the new days.

    Each feature's statistic is the two-sample KS, of all new days and of their last quarter. Over
    the shifts it is centred by its median and scaled by its median absolute deviation, and the
    largest over all features is what a single one is held against (Westfall & Young, 1993), so
    that the probability of any false alarm is bounded, however the features depend on each other.

    Args:
        reference: Features of the training days, (m, K), a column a feature.
        new: The same of the new days, (n, K).

    Returns:
        Index the columns; `statistic` and `recent`, KS of all new days and of the last quarter;
        `p_value` of the feature alone and `p_adjusted` for their number.

    Raises:
        DataError: If the columns differ, or fewer than 8 days are on a side.

    """
    if list(reference) != list(new):
        raise DataError(f"drift: columns must be {list(reference)}, got {list(new)}")
    if min(len(reference), len(new)) < 2 * RECENT:
        raise DataError(f"drift: needs 8 days on each side, got {len(reference)} and {len(new)}")
    before, after = reference.to_numpy(float), new.to_numpy(float)
    panel, n, late = np.concatenate([before, after]), len(new), len(new) // RECENT
    parts = np.stack([[ks_of_windows(column, size) for size in (n, late)] for column in panel.T])
    unusual = _standardised(parts).max(axis=1)  # (K, T), from (K, 2, T)
    largest = unusual.max(axis=0)
    exact = {
        "statistic": [ks_statistic(*both) for both in zip(before.T, after.T, strict=True)],
        "recent": [ks_statistic(all_[:-late], all_[-late:]) for all_ in panel.T],
    }
    table = pd.DataFrame(exact, list(reference))
    table["p_value"] = _share(unusual)
    table["p_adjusted"] = (largest >= unusual[:, :1] - _TINY).mean(axis=1)
    return table.rename_axis("feature")


def volatility_test(reference: np.ndarray, new: np.ndarray) -> WindowTest:
    """Standard deviation of the new days against that of other windows; two-sided, in logs."""
    return _window_test(reference, new, _deviation, lambda x, y: np.abs(_log(x) - _log(y)))


def mean_test(reference: np.ndarray, new: np.ndarray) -> WindowTest:
    """Mean of the new days against that of other windows; two-sided."""
    return _window_test(reference, new, _mean, lambda x, y: np.abs(x - y))


def lower_mean_test(reference: np.ndarray, new: np.ndarray) -> WindowTest:
    """Whether the mean of the new days is lower than that of other windows."""
    return _window_test(reference, new, _mean, lambda x, y: y - x)


def _window_test(
    reference: np.ndarray, new: np.ndarray, measure: Measure, contrast: Contrast
) -> WindowTest:
    series = np.concatenate([reference, new])
    found = np.roll(_moving(series, len(new), measure), -len(reference))  # unmoved first
    rest = _moving(series, len(reference), measure)  # what each leaves out
    past = _moving(reference, min(len(new), max(2, len(reference) // 2)), measure)
    low, middle, high = np.quantile(past, [0.025, 0.5, 0.975])
    p_value = _share(contrast(found, rest)[None])[0]
    return WindowTest(float(found[0]), float(middle), float(low), float(high), float(p_value))


def _moving(series: np.ndarray, length: int, measure: Measure) -> np.ndarray:
    """A measure of `length` days from each day on, around the circle, (T,)."""
    centre = series.mean()
    circle = np.concatenate([series, series[: length - 1]]) - centre
    sums = (np.concatenate([[0.0], np.cumsum(power)]) for power in (circle, circle**2))
    first, second = (total[length:] - total[:-length] for total in sums)
    return measure(first, second, length) + (centre if measure is _mean else 0.0)


def _mean(first: np.ndarray, second: np.ndarray, length: int) -> np.ndarray:
    return first / length


def _deviation(first: np.ndarray, second: np.ndarray, length: int) -> np.ndarray:
    variance = (second - first**2 / length) / max(1, length - 1)
    return np.sqrt(np.maximum(variance, 0.0))


def _log(deviation: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(deviation, _TINY))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Distance from the median in median absolute deviations over the last axis; 0 if constant."""
    lead = values - np.median(values, axis=-1, keepdims=True)
    spread = np.median(np.abs(lead), axis=-1, keepdims=True)
    return np.where(spread > _TINY, lead / np.where(spread > _TINY, spread, 1.0), 0.0)


def _share(unusual: np.ndarray) -> np.ndarray:
    """Share of windows at least as unusual as the first, (K, S) -> (K,)."""
    slack = _TINY * np.maximum(1.0, np.abs(unusual[:, :1]))
    share: np.ndarray = (unusual >= unusual[:, :1] - slack).mean(axis=1)
    return share
