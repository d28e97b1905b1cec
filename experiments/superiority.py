"""Many agents over the same periods: is any better than the reference, and which may be the best?

Both tests account for having looked at all of them at once, resample the days in blocks (stationary
bootstrap) and are run by arch. `measure` says in what: "mean" compares mean returns, "sharpe" the
Sharpe ratios, through what each period contributes to them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.resampling import (
    long_run_deviation,
    optimal_block_length,
    read_panel,
    sharpe_contributions,
)
from experiments.seeds import Array, Rng, check_options
from market.errors import DataError, SettingError

Measure = Literal["mean", "sharpe"]


class SuperiorAbility(NamedTuple):
    """Outcome of the test of superior predictive ability."""

    p_value: float  # of "no agent is better than the reference", Hansen's consistent one
    lower: float  # bounds of it: agents worse than the reference are given no weight, ...
    upper: float  # ... or all of it (White's reality check)
    superior: Array  # (K,) bool: better than the reference, the chance of one false claim bounded


class ConfidenceSet(NamedTuple):
    """Outcome of the model confidence set."""

    p_values: Array  # (K,) the smallest 1 - confidence at which the agent drops out
    included: Array  # (K,) bool: not distinguishable from the best


def _contributions(returns: Array, measure: str) -> Array:
    """Series (T, K) whose means are what is compared."""
    if measure == "mean":
        return returns
    if measure != "sharpe":
        raise SettingError(f"`measure` must be 'mean' or 'sharpe', got {measure!r}")
    series = sharpe_contributions(returns)
    if np.isnan(series).any():
        column = int(np.argmax(np.isnan(series).any(axis=0)))
        raise DataError(f"series {column} does not vary: it has no Sharpe ratio to compare")
    return series


def superior_predictive_ability(
    returns: Any,
    benchmark: Any,
    *,
    measure: Measure = "mean",
    confidence: float = 0.95,
    block_length: float | None = None,
    n_resamples: int = 1000,
    rng: Rng = 0,
) -> SuperiorAbility:
    """Is any of K agents better than the benchmark, given that K were tried?

    Differences from the benchmark are divided by their long-run standard deviation, as Hansen
    demands (arch leaves them as they are, so that the most volatile agent decides). Agents that are
    the benchmark itself, up to rounding, or trail it by a constant cannot be better and are set
    aside. `superior` follows by steps (Romano & Wolf): what is better is taken out and the rest
    tested again.

    Args:
        returns: Returns of the agents, shape (T, K).
        benchmark: Returns of the benchmark over the same periods, shape (T,).
        measure: "mean" or "sharpe".
        confidence: 1 - the probability of any false claim in `superior`.
        block_length: Mean length of the blocks in periods; None estimates it from the differences.
        n_resamples: Number of resamples.
        rng: Generator, or the seed of one.

    Raises:
        DataError: If shapes do not match, returns are not finite, or an agent leads by a constant.
        SettingError: If an option is out of range.

    Source: Hansen, A test for superior predictive ability (2005); Romano & Wolf (2005).
    """
    check_options(confidence, n_resamples, block_length)
    agents, reference = read_panel(returns), read_panel(benchmark, "benchmark")
    if reference.shape != (len(agents), 1):
        raise DataError(f"`benchmark` must have shape ({len(agents)},), got {np.shape(benchmark)}")
    lead = _contributions(agents, measure) - _contributions(reference, measure)
    flat = np.ptp(lead, axis=0) <= 1e-12
    if (flat & (lead[0] > 1e-12)).any():
        column = int(np.argmax(flat & (lead[0] > 1e-12)))
        raise DataError(f"agent {column} leads the benchmark by the same amount in every period")
    superior = np.zeros(lead.shape[1], dtype=bool)
    if flat.all():
        return SuperiorAbility(1.0, 1.0, 1.0, superior)
    lead = lead[:, ~flat]
    length = block_length or optimal_block_length(lead)
    scaled = lead / long_run_deviation(lead, length)
    p_values, superior[~flat] = _run_spa(scaled, length, n_resamples, 1.0 - confidence, rng)
    return SuperiorAbility(p_values["consistent"], p_values["lower"], p_values["upper"], superior)


def _run_spa(
    lead: Array, block_length: float, n_resamples: int, size: float, rng: Rng
) -> tuple[dict[str, float], Array]:
    """p-values, the observed case counted as one resample, and what is better step by step."""
    from arch.bootstrap import SPA

    test = SPA(
        np.zeros(len(lead)),
        -lead,
        block_size=max(1, round(block_length)),
        reps=n_resamples,
        seed=np.random.default_rng(rng),
    )
    test.compute()
    p_values = {
        str(k): (1 + n_resamples * float(p)) / (1 + n_resamples) for k, p in test.pvalues.items()
    }
    better = np.zeros(lead.shape[1], dtype=bool)
    while (found := test.better_models(size)).size:
        better[found] = True
        if better.all():
            break
        test.subset(~better)
        test.compute()
    return p_values, better


def model_confidence_set(
    returns: Any,
    *,
    measure: Measure = "mean",
    confidence: float = 0.95,
    block_length: float | None = None,
    n_resamples: int = 1000,
    rng: Rng = 0,
) -> ConfidenceSet:
    """Which of K agents contain the best with this confidence?

    Agents that are the same up to rounding share one fate.

    Args:
        returns: Returns of the agents, shape (T, K).
        measure: "mean" or "sharpe".
        confidence: Probability that the best is included.
        block_length: Mean length of the blocks in periods; None estimates it from differences.
        n_resamples: Number of resamples.
        rng: Generator, or the seed of one.

    Raises:
        DataError: If returns are not (T, K), finite, or have no Sharpe ratio where one is compared.
        SettingError: If an option is out of range.

    Source: Hansen, Lunde & Nason, The model confidence set (2011), range statistic.
    """
    check_options(confidence, n_resamples, block_length)
    series = _contributions(read_panel(returns), measure)
    distinct, member = np.unique(np.round(series, 12), axis=1, return_inverse=True)
    if distinct.shape[1] == 1:
        p_values = np.ones(1)
    else:
        from arch.bootstrap import MCS

        length = block_length or optimal_block_length(distinct - distinct.mean(axis=1)[:, None])
        test = MCS(
            -distinct,
            size=1.0 - confidence,
            reps=n_resamples,
            block_size=max(1, round(length)),
            seed=np.random.default_rng(rng),
        )
        test.compute()
        p_values = test.pvalues["Pvalue"].sort_index().to_numpy(dtype=np.float64)
        p_values = (1 + n_resamples * p_values) / (1 + n_resamples)
    p_values = p_values[member.ravel()]
    return ConfidenceSet(p_values, p_values > 1.0 - confidence)
