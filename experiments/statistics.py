"""How sure can one be? Statistics of Sharpe ratios and of the search that found them.

Here are the closed forms, which need a few numbers only. Intervals and tests by resampling come
from `experiments.seeds`, `experiments.resampling` and `experiments.superiority`, public here too.

Sharpe ratios are per period (a daily one is the annual one / sqrt(252)), the kurtosis of a normal
is 3, and the variance of an estimate S from T periods is taken at the estimate:
(1 - skewness S + (kurtosis - 1) / 4 S^2) / (T - 1). Numbers and arrays broadcast.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np

from experiments.resampling import (
    Comparison,
    sharpe_contributions,
    sharpe_difference,
    stationary_bootstrap_interval,
)
from experiments.seeds import (
    Interval,
    interquartile_mean,
    interquartile_mean_interval,
    performance_profile,
    probability_of_improvement,
)
from experiments.superiority import (
    ConfidenceSet,
    SuperiorAbility,
    model_confidence_set,
    superior_predictive_ability,
)
from market.errors import DataError, SettingError

__all__ = [
    "Comparison",
    "ConfidenceSet",
    "Interval",
    "SuperiorAbility",
    "adjust_p_values",
    "deflated_sharpe_ratio",
    "expected_maximum_sharpe",
    "interquartile_mean",
    "interquartile_mean_interval",
    "minimum_track_record_length",
    "model_confidence_set",
    "overfitting_logits",
    "performance_profile",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "probability_of_improvement",
    "sharpe_contributions",
    "sharpe_difference",
    "stationary_bootstrap_interval",
    "superior_predictive_ability",
]

Array = np.ndarray
CHUNK = 4_000_000  # Sharpe ratios held in memory at once


def _variance(sharpe: Any, skewness: Any, kurtosis: Any) -> Array:
    """T - 1 times the variance of the estimate; nan for moments no distribution has."""
    sharpe = np.asarray(sharpe, dtype=np.float64)
    variance = 1.0 - np.multiply(skewness, sharpe) + (np.subtract(kurtosis, 1.0) / 4.0) * sharpe**2
    return np.where(variance > 0.0, variance, np.nan)


def probabilistic_sharpe_ratio(
    sharpe: Any, n_periods: Any, skewness: Any = 0.0, kurtosis: Any = 3.0, benchmark: Any = 0.0
) -> Any:
    """Probability that the true Sharpe ratio exceeds `benchmark`, given the estimate.

    Phi((S - benchmark) sqrt(T - 1) / sqrt(1 - skewness S + (kurtosis - 1) / 4 S^2))

    Args:
        sharpe: Estimated Sharpe ratio per period.
        n_periods: Number of returns T it is estimated from, at least 2.
        skewness: Skewness of the returns.
        kurtosis: Kurtosis of the returns, 3 for a normal.
        benchmark: Sharpe ratio per period to exceed.

    Raises:
        SettingError: If `n_periods` is below 2.

    Source: Bailey & Lopez de Prado, The Sharpe ratio efficient frontier (2012).
    """
    from scipy.special import ndtr

    if np.any(np.less(n_periods, 2)):
        raise SettingError(f"`n_periods` must be at least 2, got {n_periods!r}")
    scale = np.sqrt(np.subtract(n_periods, 1) / _variance(sharpe, skewness, kurtosis))
    return ndtr(np.subtract(sharpe, benchmark) * scale)[()]


def expected_maximum_sharpe(n_trials: Any, trials_variance: Any) -> Any:
    """Sharpe ratio the best of `n_trials` without any skill is expected to show.

    sqrt(variance) ((1 - g) z(1 - 1/N) + g z(1 - 1/(N e))), g Euler-Mascheroni, z normal quantiles;
    0 for a single trial. N may be an effective number of independent trials.

    Source: Bailey & Lopez de Prado, The deflated Sharpe ratio (2014), from extreme value theory.
    """
    from scipy.special import ndtri

    trials = np.asarray(n_trials, dtype=np.float64)
    if not np.all(trials >= 1.0):
        raise SettingError(f"`n_trials` must be at least 1, got {n_trials!r}")
    if not np.all(np.greater_equal(trials_variance, 0.0)):
        raise SettingError(f"`trials_variance` must be at least 0, got {trials_variance!r}")
    several = np.maximum(trials, 1.0 + 1e-9)  # at 1 the first quantile is minus infinity
    quantile = (1.0 - np.euler_gamma) * ndtri(1.0 - 1.0 / several)
    quantile = quantile + np.euler_gamma * ndtri(1.0 - 1.0 / (several * math.e))
    return (np.sqrt(trials_variance) * np.maximum(quantile, 0.0))[()]


def deflated_sharpe_ratio(
    sharpe: Any,
    n_periods: Any,
    n_trials: Any,
    trials_variance: Any,
    skewness: Any = 0.0,
    kurtosis: Any = 3.0,
) -> Any:
    """Probability that the best of many trials has skill: its Sharpe ratio against what luck gives.

    The probabilistic Sharpe ratio with `expected_maximum_sharpe` as the benchmark.

    Args:
        sharpe: Estimated Sharpe ratio per period of the trial that was picked.
        n_periods: Number of returns it is estimated from.
        n_trials: Number of trials it was picked from; independent ones, else the result errs low.
        trials_variance: Variance of the trials' Sharpe ratios per period.
        skewness: Skewness of the returns.
        kurtosis: Kurtosis of the returns, 3 for a normal.

    Raises:
        SettingError: If `n_periods` < 2, `n_trials` < 1 or `trials_variance` < 0.

    Source: Bailey & Lopez de Prado, The deflated Sharpe ratio (2014).
    """
    benchmark = expected_maximum_sharpe(n_trials, trials_variance)
    return probabilistic_sharpe_ratio(sharpe, n_periods, skewness, kurtosis, benchmark)


def minimum_track_record_length(
    sharpe: Any,
    benchmark: Any = 0.0,
    confidence: Any = 0.95,
    skewness: Any = 0.0,
    kurtosis: Any = 3.0,
) -> Any:
    """Number of periods after which an estimate this high shows a Sharpe ratio above `benchmark`.

    1 + (1 - skewness S + (kurtosis - 1) / 4 S^2) (z(confidence) / (S - benchmark))^2, a fraction;
    infinity where the estimate does not exceed the benchmark.

    Args:
        sharpe: Estimated Sharpe ratio per period.
        benchmark: Sharpe ratio per period to exceed.
        confidence: Probability wanted, in [0.5, 1).
        skewness: Skewness of the returns.
        kurtosis: Kurtosis of the returns, 3 for a normal.

    Raises:
        SettingError: If `confidence` is not in [0.5, 1).

    Source: Bailey & Lopez de Prado, The Sharpe ratio efficient frontier (2012).
    """
    from scipy.special import ndtri

    if not np.all(np.greater_equal(confidence, 0.5) & np.less(confidence, 1.0)):
        raise SettingError(f"`confidence` must be in [0.5, 1), got {confidence!r}")
    lead = np.subtract(sharpe, benchmark, dtype=np.float64)
    ahead = lead > 0.0
    ratio = ndtri(confidence) / np.where(ahead, lead, 1.0)
    length = 1.0 + _variance(sharpe, skewness, kurtosis) * ratio**2
    return np.where(ahead, length, np.inf)[()]


def _sharpe_of_halves(halves: Array, blocks: Array, counts: Array, shift: Array) -> Array:
    """Sharpe ratios (M, C) over unions of blocks; 0 where returns do not vary.

    `halves` (M, n_blocks) marks the blocks of each union, `blocks` (2, n_blocks, C) holds the sums
    of standardised returns and of their squares, `shift` (C,) the mean in standard deviations.
    """
    n = (halves @ counts)[:, None]
    mean = halves @ blocks[0] / n
    variance = (halves @ blocks[1] - n * mean**2) / (n - 1.0)
    flat = variance < 1e-12
    return np.where(flat, 0.0, (mean + shift) / np.sqrt(np.where(flat, 1.0, variance)))


def overfitting_logits(returns: Any, n_blocks: int = 16) -> Array:
    """How the best configuration of one half of the blocks ranks in the other, for all halves.

    log(w / (1 - w)), w = rank / (C + 1), rank 1 for the worst Sharpe ratio and C for the best, ties
    in the middle; one for each of the n_blocks choose n_blocks / 2 halves. A block is a run of
    consecutive periods; blocks differ by at most one period in length.

    Raises:
        DataError: If `returns` is not (T, C) with C >= 2 and T >= 2 n_blocks, or not finite.
        SettingError: If `n_blocks` is not an even number from 2 to 20.

    Source: Bailey, Borwein, Lopez de Prado & Zhu, The probability of backtest overfitting (2015).
    """
    if n_blocks not in range(2, 21, 2):
        raise SettingError(f"`n_blocks` must be an even number from 2 to 20, got {n_blocks!r}")
    panel = np.asarray(returns, dtype=np.float64)
    if panel.ndim != 2 or panel.shape[1] < 2 or len(panel) < 2 * n_blocks:
        raise DataError(
            f"`returns` must have shape (T, C), T >= {2 * n_blocks}, C >= 2, got {panel.shape}"
        )
    if not np.isfinite(panel).all():
        raise DataError("`returns` must be finite, got nan or infinity")
    deviation = panel.std(axis=0)
    scale = np.where(deviation > 1e-12, deviation, np.inf)
    shift = panel.mean(axis=0) / scale
    starts = np.linspace(0, len(panel), n_blocks, endpoint=False).astype(int)
    moments = np.stack([panel / scale - shift, (panel / scale - shift) ** 2])
    blocks = np.add.reduceat(moments, starts, axis=1)
    counts = np.diff(starts, append=len(panel)).astype(np.float64)
    picks = list(itertools.combinations(range(n_blocks), n_blocks // 2))
    halves = np.zeros((len(picks), n_blocks))
    np.put_along_axis(halves, np.array(picks), 1.0, axis=1)
    step = max(1, CHUNK // panel.shape[1])
    parts = np.split(halves, range(step, len(halves), step))
    return np.concatenate([_logits(part, blocks, counts, shift) for part in parts])


def _logits(halves: Array, blocks: Array, counts: Array, shift: Array) -> Array:
    inside = _sharpe_of_halves(halves, blocks, counts, shift)
    outside = _sharpe_of_halves(1.0 - halves, blocks, counts, shift)
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < best).sum(axis=1) + 0.5 * ((outside == best).sum(axis=1) + 1)
    return np.log(rank / (outside.shape[1] + 1 - rank))


def probability_of_backtest_overfitting(returns: Any, n_blocks: int = 16) -> float:
    """Share of halves whose best configuration is no better than the median in the other half.

    Combinatorially symmetric cross-validation (CSCV), ranked by Sharpe ratio: the share of
    `overfitting_logits` at or below 0. About 1/2 when the configurations do not differ, near 0 when
    what wins in one half of the time keeps winning.

    Args:
        returns: Returns of all configurations that were tried, shape (T, configurations).
        n_blocks: Number of blocks of time, even.

    Raises:
        DataError: If `returns` is not (T, C) with C >= 2 and T >= 2 n_blocks, or not finite.
        SettingError: If `n_blocks` is not an even number from 2 to 20.

    Source: Bailey, Borwein, Lopez de Prado & Zhu, The probability of backtest overfitting (2015).
    """
    return float(np.mean(overfitting_logits(returns, n_blocks) <= 0.0))


def adjust_p_values(p_values: Any, method: Literal["holm", "benjamini-hochberg"] = "holm") -> Array:
    """p-values that account for having tested them all, shape (K,): compare them with the level.

    "holm" bounds the probability of any false claim, "benjamini-hochberg" the expected share of
    false ones among the claims. nan (a test that could not be made) stays nan and is not counted.

    Raises:
        DataError: If a p-value is not in [0, 1].
        SettingError: If the method is unknown.

    Source: Holm (1979); Benjamini & Hochberg (1995).
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or np.any((values < 0.0) | (values > 1.0)):
        raise DataError(f"`p_values` must be (K,), each in [0, 1], got {p_values!r}")
    made = ~np.isnan(values)
    adjusted = np.full_like(values, np.nan)
    if method == "holm":
        adjusted[made] = _holm(values[made])
    elif method == "benjamini-hochberg":
        from scipy.stats import false_discovery_control

        adjusted[made] = false_discovery_control(values[made], method="bh")
    else:
        raise SettingError(f"`method` must be 'holm' or 'benjamini-hochberg', got {method!r}")
    return adjusted


def _holm(values: Array) -> Array:
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
