"""Bootstrap over time and over seeds: how far a number could have moved by luck.

Time is resampled in blocks of random length (stationary bootstrap, Politis & Romano 1994), so that
what depends on the days before keeps doing so; seeds are resampled one by one. Runs of several
seeds lie side by side, `(T, S)`: they lived through the same days and share the same blocks, and
are summarised by their interquartile mean. Fewer than five seeds say too little of their spread.

`rng` is a Generator, or a number that seeds one: the same number gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.seeds import Array, Interval, Rng, check_options, interquartile_mean, quantiles
from market.errors import DataError
from market.measures import sharpe_ratio

RESAMPLES = 2000  # enough for an interval, or for one p-value held against 5 %
CHUNK = 2_000_000  # resampled returns held in memory at once


class Comparison(NamedTuple):
    """A difference, the interval around it, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def enough_resamples(comparisons: int, level: float = 0.05) -> int:
    """Resamples whose smallest p-value, 1 / (1 + n), is at most a fifth of level / comparisons.

    Holm's correction holds the smallest of m p-values against level / m: with n too few, no
    difference however large could pass.
    """
    return max(RESAMPLES, math.ceil(5.0 * comparisons / level))


def read_panel(returns: Any, name: str = "returns") -> Array:
    """Finite returns of shape (T, S), S = 1 for a single series; at least two periods."""
    panel = np.asarray(returns, dtype=np.float64)
    panel = panel[:, None] if panel.ndim == 1 else panel
    if panel.ndim != 2 or panel.shape[0] < 2 or panel.shape[1] < 1:
        raise DataError(f"`{name}` must have shape (T,) or (T, S), T >= 2, got {np.shape(returns)}")
    if not np.isfinite(panel).all():
        raise DataError(f"`{name}` must be finite, got nan or infinity")
    return panel


def optimal_block_length(series: Array) -> float:
    """Mean block length that the most dependent of the columns `(T, K)` asks for, at least 1.

    Source: Politis & White (2004), corrected by Patton, Politis & White (2009); arch's.
    """
    varying = series[:, np.ptp(series, axis=0) > 1e-12]
    if varying.shape[1] == 0 or len(series) < 8:  # nothing to estimate dependence from
        return 1.0
    from arch.bootstrap import optimal_block_length as politis_white

    # to unit scale: squares of daily returns are small enough to upset its thresholds
    lengths = politis_white((varying - varying.mean(0)) / varying.std(0))["stationary"]
    return max(1.0, float(lengths.max()))


def stationary_bootstrap_indices(
    n_periods: int, n_resamples: int, block_length: float, rng: np.random.Generator
) -> Array:
    """Which period stands in each place of each resample, shape (T, n_resamples).

    A block goes on to the next period (the first follows the last) with probability
    1 - 1 / block_length, else a new one starts anywhere.
    """
    goes_on = rng.random((n_periods, n_resamples)) >= 1.0 / block_length
    index = rng.integers(n_periods, size=(n_periods, n_resamples))
    for period in range(1, n_periods):  # rows at a time: several times faster than all at once
        following = index[period - 1] + 1
        following[following == n_periods] = 0
        np.copyto(index[period], following, where=goes_on[period])
    return index


def _chunks(
    shape: tuple[int, int], n_resamples: int, block_length: float, rng: np.random.Generator
) -> Iterator[Array]:
    """Indices (T, C) for all resamples, few enough at a time for C panels to fit in memory."""
    step = max(1, CHUNK // (shape[0] * shape[1]))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        yield stationary_bootstrap_indices(shape[0], n, block_length, rng)


def stationary_bootstrap_interval(
    returns: Any,
    statistic: Callable[[Array], Array] = sharpe_ratio,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    block_length: float | None = None,
    resample_seeds: bool = True,
    rng: Rng = 0,
) -> Interval:
    """Percentile interval of a statistic of returns, over time and, for several seeds, over seeds.

    Args:
        returns: Simple per-period returns, shape (T,), or (T, S) for S seeds of one agent.
        statistic: Maps (T, *B) returns to shape *B, as every function of `market.measures` does;
            the default is the Sharpe ratio a year, of 252 periods.
        confidence: Probability the interval aims to cover.
        n_resamples: Number of resamples.
        block_length: Mean length of the blocks in periods; None estimates it from the returns and
            their squares.
        resample_seeds: Whether the seeds are a sample too, or all there is.
        rng: Generator, or the seed of one.

    Returns:
        The statistic (over seeds: the interquartile mean of theirs) and its interval. Resamples in
        which it is undefined are left out; where the estimate is nan, so is the interval.

    Raises:
        DataError: If `returns` is not (T,) or (T, S), is shorter than 2 or not finite.
        SettingError: If an option is out of range.

    Source: Politis & Romano, The stationary bootstrap (1994).
    """
    check_options(confidence, n_resamples, block_length)
    panel, rng = read_panel(returns), np.random.default_rng(rng)
    estimate = float(interquartile_mean(statistic(panel)))
    if not np.isfinite(estimate):
        return Interval(estimate, np.nan, np.nan)
    length = block_length or optimal_block_length(np.hstack([panel, panel**2]))
    drawn = []
    for index in _chunks(panel.shape, n_resamples, length, rng):
        by_seed = np.asarray(statistic(panel[index]))  # (C, S)
        if resample_seeds:
            chosen = _draw_seeds(index.shape[1], panel.shape[1], rng)
            by_seed = np.take_along_axis(by_seed, chosen, axis=1)
        drawn.append(interquartile_mean(by_seed, axis=1))
    return Interval(estimate, *quantiles(np.concatenate(drawn), confidence))


def sharpe_contributions(returns: Array) -> Array:
    """What each period adds to the Sharpe ratio: a series with the ratio as its mean, axis 0 time.

    S + z - (S / 2) (z^2 - 1), z = (r - mean) / std, S = mean / std per period (ddof 0): the
    influence function. Its variance is that of the estimate times T, in independent periods
    1 - skew S + (kurtosis - 1) / 4 S^2 (Mertens 2002). nan where the returns do not vary.
    """
    mean, deviation = returns.mean(axis=0), returns.std(axis=0)
    deviation = np.where(deviation > 1e-12, deviation, np.nan)
    sharpe, z = mean / deviation, (returns - mean) / deviation
    return sharpe + z - 0.5 * sharpe * (z**2 - 1.0)


def long_run_deviation(series: Array, block_length: float) -> Array:
    """Square root of T times the variance of the mean of stationary resamples, (T, K) -> (K,).

    c[0] + 2 sum_i k[i] c[i] with autocovariances c and
    k[i] = (1 - i/T) (1 - 1/L)^i + i/T (1 - 1/L)^(T - i).

    Source: Politis & Romano (1994), lemma 1.
    """
    n_periods = len(series)
    spectrum = np.fft.rfft(series - series.mean(axis=0), 2 * n_periods, axis=0)
    covariances = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n_periods] / n_periods
    lag, stay = np.arange(n_periods), 1.0 - 1.0 / block_length
    share = lag / n_periods
    weights = (1.0 - share) * stay**lag + share * stay ** (n_periods - lag)
    weights[1:] *= 2.0
    return np.sqrt(np.maximum(weights @ covariances, 0.0))


def _block_deviation(series: Array, index: Array) -> Array:
    """The same for resamples `(T, C)` as `index` put them together: root mean square block sum."""
    n_periods, n_resamples = series.shape
    fresh = np.ones(index.shape, dtype=bool)
    fresh[1:] = index[1:] != (index[:-1] + 1) % n_periods
    starts = np.flatnonzero(fresh.T)
    sums = np.add.reduceat((series - series.mean(axis=0)).T.ravel(), starts)
    total = np.bincount(starts // n_periods, sums**2, minlength=n_resamples)
    return np.sqrt(total / n_periods)


def _difference(returns: Array, reference: Array) -> tuple[Array, Array]:
    """Difference of the interquartile mean Sharpe ratios, and its contributions (T, *B)."""
    ours, theirs = sharpe_contributions(returns), sharpe_contributions(reference)
    difference = interquartile_mean(ours.mean(0), -1) - interquartile_mean(theirs.mean(0), -1)
    return difference, ours.mean(axis=-1) - theirs.mean(axis=-1)


def sharpe_difference(
    returns: Any,
    reference: Any,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    block_length: float | None = None,
    resample_seeds: bool = True,
    periods_per_year: float = 252,
    rng: Rng = 0,
) -> Comparison:
    """Is the Sharpe ratio different from that of a reference over the same periods?

    Both are resampled in the same blocks. The difference is divided by its standard error in every
    resample; with q the quantile of |d* - d| / s*, the interval is d +- q s, and the p-value is the
    share of resamples with |d* - d| / s* >= |d| / s. Zero lies outside the interval when the
    p-value is below 1 - confidence. Where there was none, a nominal 5 % claimed a difference in 4
    to 5 % of cases (500 periods, independent or with autocorrelation 0.3), 5 % with five or ten
    seeds that differ, 6 to 8 % with three, but up to 14 % with two.

    Args:
        returns: Simple per-period returns, shape (T,), or (T, S) for S seeds; in excess of the
            risk-free rate if the ratios are to be.
        reference: Returns of the reference over the same periods, shape (T,) or (T, S').
        confidence: Probability the interval aims to cover.
        n_resamples: Number of resamples.
        block_length: Mean length of the blocks in periods; None takes twice what is best for the
            variance, as a test wants less bias than that (Sun, Phillips & Jin 2008).
        resample_seeds: Whether the seeds are a sample too, or all there is.
        periods_per_year: The difference is annualised by its square root.
        rng: Generator, or the seed of one.

    Returns:
        Difference, interval and two-sided p-value; all nan where a Sharpe ratio is undefined, and
        no difference with p-value 1 where one is the other, or a multiple of it.

    Raises:
        DataError: If the two do not cover the same periods, are shorter than 2 or not finite.
        SettingError: If an option is out of range.

    Source: Ledoit & Wolf, Robust performance hypothesis testing with the Sharpe ratio (2008), with
    stationary instead of circular blocks.
    """
    check_options(confidence, n_resamples, block_length)
    ours, theirs = read_panel(returns), read_panel(reference, "reference")
    if len(ours) != len(theirs):
        raise DataError(
            f"`reference` must have {len(ours)} periods, as `returns`, got {len(theirs)}"
        )
    rng = np.random.default_rng(rng)
    year = float(np.sqrt(periods_per_year * (len(ours) - 1) / len(ours)))  # and ddof 1
    difference, parts = _difference(ours, theirs)
    if not np.isfinite(difference):
        return Comparison(np.nan, np.nan, np.nan, np.nan)
    if np.abs(parts).max() <= 1e-9:  # the same, or the same with leverage
        return Comparison(0.0, 0.0, 0.0, 1.0)
    length = block_length or min(2.0 * optimal_block_length(parts[:, None]), len(ours) / 2)
    scale = long_run_deviation(parts[:, None], length)[0]
    pivots = _pivots((ours, theirs), difference, length, n_resamples, resample_seeds, rng)
    reach = float(np.quantile(pivots, confidence) * scale) if pivots.size else np.nan
    beyond = int(np.count_nonzero(pivots * scale >= abs(difference) * (1.0 - 1e-12)))
    p_value = (1 + beyond) / (1 + pivots.size)
    if resample_seeds and max(ours.shape[1], theirs.shape[1]) > 1:
        wide = _few_seeds((ours, theirs), scale**2 / len(ours))
        reach = max(reach, wide.quantile(confidence))
        p_value = max(p_value, wide.p_value(abs(float(difference))))
    low, high = year * (difference - reach), year * (difference + reach)
    return Comparison(year * float(difference), float(low), float(high), p_value)


class _Student(NamedTuple):
    """Student's t with a standard error."""

    error: float
    freedom: float

    def quantile(self, confidence: float) -> float:
        """What |error| stays below with this probability."""
        from scipy.special import stdtrit

        return self.error * float(stdtrit(self.freedom, (1.0 + confidence) / 2.0))

    def p_value(self, distance: float) -> float:
        """Probability of being at least as far off."""
        from scipy.special import stdtr

        return 2.0 * float(stdtr(self.freedom, -distance / self.error))


def _few_seeds(sides: tuple[Array, Array], time_variance: float) -> _Student:
    """Variance of time and of seeds added up, and how well it is known.

    Source: Welch (1947); Satterthwaite, An approximate distribution of estimates of variance
    components (1946).
    """
    several = [side for side in sides if side.shape[1] > 1]
    spread = [sharpe_contributions(side).mean(0).var(ddof=1) / side.shape[1] for side in several]
    known = sum(v**2 / (side.shape[1] - 1) for v, side in zip(spread, several, strict=True))
    total = time_variance + sum(spread)
    return _Student(float(np.sqrt(total)), float(total**2 / max(known, 1e-300)))


def _pivots(
    sides: tuple[Array, Array],
    difference: Array,
    block_length: float,
    n_resamples: int,
    resample_seeds: bool,
    rng: np.random.Generator,
) -> Array:
    """|d* - d| / s* of every resample in which it is defined."""
    shape = len(sides[0]), sides[0].shape[1] + sides[1].shape[1]
    drawn = []
    for index in _chunks(shape, n_resamples, block_length, rng):
        resampled, parts = _difference(*(_draw(side, index, resample_seeds, rng) for side in sides))
        error = _block_deviation(parts, index)
        drawn.append(np.abs(resampled - difference) / np.where(error > 0.0, error, np.nan))
    pivots = np.concatenate(drawn)
    return pivots[np.isfinite(pivots)]


def _draw(panel: Array, index: Array, resample_seeds: bool, rng: np.random.Generator) -> Array:
    """The periods `index` (T, C) of the panel, with seeds drawn anew: (T, C, S)."""
    if not resample_seeds or panel.shape[1] == 1:
        return panel[index]
    return panel[index[:, :, None], _draw_seeds(index.shape[1], panel.shape[1], rng)]


def _draw_seeds(n_resamples: int, n_seeds: int, rng: np.random.Generator) -> Array:
    """Seeds of each resample, one fewer than there are: the spread of their mean is then unbiased.

    Source: Rao & Wu, Resampling inference with complex survey data (1988).
    """
    return rng.integers(n_seeds, size=(n_resamples, max(1, n_seeds - 1)))
