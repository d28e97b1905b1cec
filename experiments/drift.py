"""Are new days like the days of the past? Tests that take serial dependence as it is.

Daily features and squared returns depend on the days before for weeks, so the textbook p-values of
a two-sample test, made for independent draws, would cry wolf. Here both spans are cut into blocks
longer than the series remembers, and the blocks are dealt anew to past and new:

    | past: a b c d e f | new: x y |   ->   | a y c d e x | b f |    p = share of deals as extreme

How long a series remembers is told by the past alone, so that a change does not look like memory.
Where nothing has changed, blocks can be exchanged but for what little they share at their edges.
Few blocks can be dealt in few ways: of a series that remembers for months, a few weeks say nothing.

Source: Lehmann & Romano, Testing statistical hypotheses (2005), ch. 15.2, on permutation tests;
Politis & White (2004) for the length of blocks, of which twice is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.resampling import optimal_block_length
from market import DataError, Market

GRID = 64  # quantiles at which distributions are held against each other
RECENT = 4  # the last quarter of the new days is looked at by itself
LEAST_BLOCK = 10  # days
DEALS = 1999
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_TINY = 1e-12

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # of sums of 1, x and x^2
Contrast = Callable[[np.ndarray, np.ndarray], np.ndarray]


class WindowTest(NamedTuple):
    """A measure of the new days against the same measure of the past.

    Attributes:
        value: Of the new days.
        expected: Of the past.
        low: 2.5 % of as many days, in blocks drawn from the past, are below.
        high: 97.5 % are below.
        p_value: Of no change.

    """

    value: float
    expected: float
    low: float
    high: float
    p_value: float


class Blocks(NamedTuple):
    """Past and new days cut into blocks.

    Attributes:
        starts: First row of each block, the past's first, (k,).
        sizes: Rows of each, (k,).
        n_new: How many of the blocks, the last ones, are new.

    """

    starts: np.ndarray
    sizes: np.ndarray
    n_new: int

    @classmethod
    def cut(cls, n_past: int, n_new: int, length: float) -> Blocks:
        """Blocks of about this length, at least one of each."""
        past, new = (
            np.linspace(0, n, max(1, int(n // length)), endpoint=False).astype(int)
            for n in (n_past, n_new)
        )
        starts = np.concatenate([past, n_past + new])
        return cls(starts, np.diff(starts, append=n_past + n_new), len(new))

    def deals(self, rng: np.random.Generator) -> np.ndarray:
        """Blocks in random order, (1 + DEALS, k), the first as it was: the first n_new are new."""
        total = len(self.starts)
        order = rng.random((DEALS, total), dtype=np.float32).argsort(axis=1)
        asis = np.concatenate([np.arange(total - self.n_new, total), np.arange(total - self.n_new)])
        return np.concatenate([asis[None], order])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of (T, ...) over each block, (k, ...)."""
        found: np.ndarray = np.add.reduceat(values, self.starts, axis=0)
        return found


def feature_table(market: Market) -> pd.DataFrame:
    """Features by asset, then context: a column each, rows the days; cash has none of its own."""
    columns = {
        f"{feature} of {asset}": market.features[:, i, j]
        for i, asset in enumerate(market.assets)
        for j, feature in enumerate(market.feature_names)
        if not (market.has_cash and i == market.n_assets - 1)
    }
    columns |= {name: market.context[:, j] for j, name in enumerate(market.context_names)}
    return pd.DataFrame(columns, market.dates)


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic: sup_x |F_first(x) - F_second(x)|."""
    points = np.concatenate([first, second])
    shares = (
        np.searchsorted(np.sort(part), points, side="right") / len(part) for part in (first, second)
    )
    return float(np.abs(np.subtract(*shares)).max())


def memory(series: np.ndarray) -> float:
    """Length of a block that holds most of what a series remembers, (T,): level, spread, tails."""
    levels = np.unique(np.quantile(series, _SHARES))
    spread = np.abs(series - np.median(series))
    columns = np.column_stack([series, spread, series[:, None] <= levels]).astype(float)
    return max(float(LEAST_BLOCK), 2.0 * optimal_block_length(columns))


def feature_drift(
    reference: pd.DataFrame, new: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Which of many features have another distribution on the new days.

    Each feature's statistic is the two-sample KS against the past, of all new days and of their
    last quarter. Features that remember about as long (within a factor of 2) share their deals; a
    statistic is centred and scaled by its mean and deviation over deals, and the largest over such
    a group is what a single one is held against (Westfall & Young, 1993); groups are counted by
    Bonferroni. So the probability of any false alarm is bounded, however features depend on each
    other.

    Args:
        reference: Features of the training days, (m, K), a column a feature.
        new: The same of the new days, (n, K).
        rng: Of the deals.

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
    late = after[-(len(new) // RECENT) :]
    table = pd.DataFrame(index=reference.columns)
    table["statistic"] = [ks_statistic(*both) for both in zip(before.T, after.T, strict=True)]
    table["recent"] = [ks_statistic(*both) for both in zip(before.T, late.T, strict=True)]
    lengths = np.array([memory(column) for column in before.T])
    groups = np.ceil(np.log2(lengths / LEAST_BLOCK)).astype(int)
    p_values = np.empty((2, len(table)))
    for group in np.unique(groups):
        members = groups == group
        blocks = Blocks.cut(len(before), len(after), LEAST_BLOCK * 2.0**group)
        deals = blocks.deals(rng)
        panel = np.concatenate([before[:, members], after[:, members]])
        unusual = np.stack([_unusual(column, blocks, deals) for column in panel.T])  # (K, deals)
        p_values[0, members] = _share(unusual, unusual)
        p_values[1, members] = _share(unusual.max(axis=0)[None], unusual)
    table["p_value"] = p_values[0]
    table["p_adjusted"] = np.minimum(1.0, len(np.unique(groups)) * p_values[1])
    return table.rename_axis("feature")


def _unusual(series: np.ndarray, blocks: Blocks, deals: np.ndarray) -> np.ndarray:
    """How unusual KS is in each deal, of all new days or of the latest, whichever is more."""
    grid = np.unique(np.quantile(series, np.linspace(0.0, 1.0, GRID + 1)))
    below = blocks.sums((series[:, None] <= grid).astype(np.float32))  # (k, G)
    past = _shares(below, blocks, deals[:, blocks.n_new :])
    recent = deals[:, blocks.n_new - max(1, blocks.n_new // RECENT) : blocks.n_new]
    gaps = (_shares(below, blocks, chosen) - past for chosen in (deals[:, : blocks.n_new], recent))
    return np.max([_standardised(np.abs(gap).max(axis=1)) for gap in gaps], axis=0)


def _shares(below: np.ndarray, blocks: Blocks, chosen: np.ndarray) -> np.ndarray:
    """Shares of days at or below each point of the grid, over the chosen blocks, (deals, G)."""
    picked = np.zeros((len(chosen), len(blocks.sizes)), np.float32)
    np.put_along_axis(picked, chosen, 1.0, axis=1)
    found: np.ndarray = picked @ below / (picked @ blocks.sizes)[:, None]
    return found


def volatility_test(reference: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> WindowTest:
    """Standard deviation of the new days against that of the past; two-sided, in logs."""
    return _window_test(reference, new, _deviation, lambda x, y: np.abs(_log(x) - _log(y)), rng)


def mean_test(reference: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> WindowTest:
    """Mean of the new days against that of the past; two-sided."""
    return _window_test(reference, new, _mean, lambda x, y: np.abs(x - y), rng)


def lower_mean_test(reference: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> WindowTest:
    """Whether the mean of the new days is lower than that of the past."""
    return _window_test(reference, new, _mean, lambda x, y: y - x, rng)


def _window_test(
    reference: np.ndarray,
    new: np.ndarray,
    measure: Measure,
    contrast: Contrast,
    rng: np.random.Generator,
) -> WindowTest:
    series, centre = np.concatenate([reference, new]), reference.mean()
    length = memory(reference if measure is _mean else np.abs(reference - centre))
    blocks = Blocks.cut(len(reference), len(new), length)
    moments = np.stack([np.ones_like(series), series - centre, (series - centre) ** 2], axis=1)
    sums, deals = blocks.sums(moments), blocks.deals(rng)  # (k, 3)
    found = measure(*sums[deals[:, : blocks.n_new]].sum(axis=1).T)
    past = measure(*sums[deals[:, blocks.n_new :]].sum(axis=1).T)
    drawn = rng.integers(len(sums) - blocks.n_new, size=(DEALS, blocks.n_new))
    usual = measure(*sums[drawn].sum(axis=1).T)
    shift = centre if measure is _mean else 0.0
    low, high = np.quantile(usual, [0.025, 0.975]) + shift
    unusual = contrast(found, past)[None]
    p_value = _share(unusual, unusual)[0]
    return WindowTest(
        float(found[0] + shift), float(past[0] + shift), float(low), float(high), float(p_value)
    )


def _mean(count: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first / count


def _deviation(count: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    variance = (second - first**2 / count) / np.maximum(1.0, count - 1.0)
    return np.sqrt(np.maximum(variance, 0.0))


def _log(deviation: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(deviation, _TINY))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Distance from the mean in standard deviations; 0 if constant."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > _TINY else np.zeros_like(values)


def _share(drawn: np.ndarray, unusual: np.ndarray) -> np.ndarray:
    """Share of deals as unusual as the first one of (K, deals), (K,)."""
    slack = 1e-6 * np.abs(unusual).max(axis=1, keepdims=True)  # of rounding
    share: np.ndarray = (drawn >= unusual[:, :1] - slack).mean(axis=1)
    return share
