"""Summaries of runs that differ in nothing but their seed, and how far they could have moved.

A score is one number per run (a Sharpe ratio on the test span, say): `(S,)` for S seeds, or
`(S, K)` for S seeds of K tasks (markets, windows). Seeds are resampled one by one, anew in each
task.

`rng` is a Generator, or a number that seeds one: the same number gives the same interval.

Source: Agarwal et al., Deep RL at the edge of the statistical precipice (2021).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from market.errors import DataError, SettingError

Array = np.ndarray
Rng = np.random.Generator | int


class Interval(NamedTuple):
    """An estimate and the interval around it."""

    estimate: float
    low: float
    high: float


def check_options(confidence: float, n_resamples: int, block_length: float | None = None) -> None:
    """Refuse options of a bootstrap that are out of range."""
    if not 0.0 < confidence < 1.0:
        raise SettingError(f"`confidence` must be in (0, 1), got {confidence!r}")
    if n_resamples < 1:
        raise SettingError(f"`n_resamples` must be at least 1, got {n_resamples!r}")
    if block_length is not None and not block_length >= 1.0:
        raise SettingError(f"`block_length` must be at least 1 period, got {block_length!r}")


def quantiles(drawn: Array, confidence: float) -> tuple[float, float]:
    """Ends of the central interval of what was drawn, without the undefined."""
    drawn = drawn[np.isfinite(drawn)]
    tails = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    low, high = np.quantile(drawn, tails) if drawn.size else (np.nan, np.nan)
    return float(low), float(high)


def interquartile_mean(scores: Any, axis: int | None = None) -> Any:
    """Mean without the lowest and the highest quarter (int(n / 4) scores on each side).

    Over all scores, or along `axis`; nan where a score is nan. The same as scipy's
    `trim_mean(scores, 0.25)` and as rliable's `aggregate_iqm`.

    Source: Agarwal et al. (2021), section 4.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values.ravel() if axis is None else np.moveaxis(values, axis, 0)
    if values.ndim == 0 or len(values) == 0:
        raise DataError(f"`scores` must hold at least one score, got shape {np.shape(scores)}")
    cut = len(values) // 4
    mean = np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)
    return np.where(np.isnan(values).any(axis=0), np.nan, mean)[()]


def _read_scores(scores: Any, name: str = "scores") -> Array:
    """Finite scores (S, K): seeds by tasks."""
    values = np.asarray(scores, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"`{name}` must have shape (S,) or (S, K), got {np.shape(scores)}")
    if not np.isfinite(values).all():
        raise DataError(f"`{name}` must be finite, got nan or infinity")
    return values


def interquartile_mean_interval(
    scores: Any, *, confidence: float = 0.95, n_resamples: int = 2000, rng: Rng = 0
) -> Interval:
    """Interquartile mean of scores `(S,)` or `(S, K)`, with a percentile interval over seeds.

    Seeds are resampled anew in each of K tasks (stratified bootstrap). With one seed the interval
    has no width and says nothing.

    Source: Agarwal et al. (2021), section 4.
    """
    check_options(confidence, n_resamples)
    values, rng = _read_scores(scores), np.random.default_rng(rng)
    n_seeds, n_tasks = values.shape
    chosen = rng.integers(n_seeds, size=(n_resamples, n_seeds, n_tasks))
    drawn = np.take_along_axis(values[None], chosen, axis=1).reshape(n_resamples, -1)
    low, high = quantiles(interquartile_mean(drawn, axis=1), confidence)
    return Interval(float(interquartile_mean(values)), low, high)


def performance_profile(scores: Any, thresholds: Any) -> Array:
    """Fraction of the scores above each threshold, shape of `thresholds`.

    Source: Agarwal et al. (2021), equation 1, over runs.
    """
    values = _read_scores(scores).ravel()
    return (values > np.asarray(thresholds, dtype=np.float64)[..., None]).mean(axis=-1)


def probability_of_improvement(
    scores: Any, others: Any, *, confidence: float = 0.95, n_resamples: int = 2000, rng: Rng = 0
) -> Interval:
    """Probability that a run of the one beats a run of the other, ties half, mean over tasks.

    Args:
        scores: Scores of the one, shape (S,) or (S, K): seeds by tasks.
        others: Scores of the other, shape (S',) or (S', K).
        confidence: Probability the interval aims to cover.
        n_resamples: Number of resamples of the seeds, apart for the two and for every task.
        rng: Generator, or the seed of one.

    Raises:
        DataError: If scores are empty, not finite, or of different tasks.

    Source: Agarwal et al. (2021); per task the Mann-Whitney U statistic over S S'.
    """
    check_options(confidence, n_resamples)
    ours, theirs = _read_scores(scores), _read_scores(others, "others")
    if ours.shape[1] != theirs.shape[1]:
        raise DataError(f"`others` must have {ours.shape[1]} tasks, got {theirs.shape[1]}")
    rng, (n, n_tasks), k = np.random.default_rng(rng), ours.shape, len(theirs)
    wins = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)  # (S, S', K)
    left = rng.multinomial(n, np.full(n, 1.0 / n), size=(n_resamples, n_tasks)) / n
    right = rng.multinomial(k, np.full(k, 1.0 / k), size=(n_resamples, n_tasks)) / k
    drawn = np.einsum("rti,ijt,rtj->r", left, wins, right, optimize=True) / n_tasks
    return Interval(float(wins.mean()), *quantiles(drawn, confidence))
