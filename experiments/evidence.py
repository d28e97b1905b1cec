"""What a Sharpe ratio is worth: against a reference, against luck, against harder rules.

`against` compares one agent with the reference, as it was and under harder rules; `over_all` looks
at all agents of a comparison at once, because the best of many looks good by luck alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments import history
from experiments.robustness import HALVES, SCENARIOS, before_costs, halves
from experiments.runs import Run
from experiments.statistics import (
    deflated_sharpe_ratio,
    interquartile_mean,
    minimum_track_record_length,
    model_confidence_set,
    probabilistic_sharpe_ratio,
    probability_of_backtest_overfitting,
    probability_of_improvement,
    sharpe_contributions,
    sharpe_difference,
    superior_predictive_ability,
)
from experiments.verdict import LEVEL
from market import measures

HARDER = (*SCENARIOS, *HALVES)
BLOCKS = 16  # of days, for the probability of overfitting
Row = dict[str, Any]


def paths(runs: Sequence[Run], column: str) -> np.ndarray:
    """One back-test column of several runs over the same days, shape (T, seeds)."""
    return np.stack([run.backtest[column].to_numpy(float) for run in runs], axis=1)


def excess_returns(runs: Sequence[Run]) -> np.ndarray:
    """Returns less the cash rate of the same period, shape (T, seeds)."""
    return paths(runs, "portfolio_return") - paths(runs, "risk_free")


def excess_before_costs(runs: Sequence[Run]) -> np.ndarray:
    """The same, had trading been free, shape (T, seeds)."""
    gross = before_costs(paths(runs, "portfolio_return"), paths(runs, "cost"))
    return gross - paths(runs, "risk_free")


def excess_harder(runs: Sequence[Run], name: str) -> np.ndarray | None:
    """The same under harder rules, shape (T', seeds); None where a run does not have it."""
    returns = excess_returns(runs)
    if name in HALVES:
        return returns[halves(len(returns))[name]] if len(returns) >= 4 else None
    if any(name not in run.robustness for run in runs):
        return None
    played = np.stack([run.robustness[name].to_numpy(float) for run in runs], axis=1)
    return played - paths(runs, "risk_free") if played.shape == returns.shape else None


def against(
    runs: Sequence[Run],
    base: Sequence[Run],
    per_year: float,
    draw: Mapping,
    n_tests: int = 0,
) -> Row:
    """Sharpe ratio less the reference's: after costs, before costs, and under harder rules.

    Of the first two, p-values below `LEVEL` are drawn anew with `n_tests` resamples where that is
    more: only they can survive a correction for many agents, which asks for small ones.
    """
    sure = dict(draw) | {"n_resamples": max(n_tests, draw["n_resamples"])}
    quick = dict(draw) | {"n_resamples": max(200, draw["n_resamples"] // 4)}
    sides: dict[str, tuple[Any, Any, Mapping]] = {
        "difference": (excess_returns(runs), excess_returns(base), draw),
        "gross": (excess_before_costs(runs), excess_before_costs(base), draw),
    }
    for name in HARDER:
        sides[name] = (excess_harder(runs, name), excess_harder(base, name), quick)
    row: Row = {}
    for name, (ours, theirs, options) in sides.items():
        if ours is None or theirs is None:
            continue
        made = sharpe_difference(ours, theirs, periods_per_year=per_year, **options)
        if options is draw and sure != draw and made.p_value < LEVEL:
            made = sharpe_difference(ours, theirs, periods_per_year=per_year, **sure)
        row |= {name: made.difference, f"{name}_low": made.low, f"{name}_high": made.high}
        row[f"{name}_p"] = made.p_value
    if len(runs) > 1 or len(base) > 1:
        scores = [_sharpe(side, 1.0) for side in (excess_returns(runs), excess_returns(base))]
        if all(np.isfinite(side).all() for side in scores):
            chance = probability_of_improvement(*scores, **draw)
            row |= {"improvement": chance.estimate}
            row |= {"improvement_low": chance.low, "improvement_high": chance.high}
    return row


def alone(runs: Sequence[Run], per_year: float, tried: history.Trials) -> Row:
    """Chances that the true Sharpe ratio is above 0, and above what luck gives the best of many."""
    returns = excess_returns(runs)
    ratios = _sharpe(returns, 1.0)
    if not np.isfinite(ratios).all():
        return {}
    z = (returns - returns.mean(0)) / returns.std(0)
    sharpe, skewness, kurtosis = (
        float(interquartile_mean(values)) for values in (ratios, (z**3).mean(0), (z**4).mean(0))
    )
    moments = {"skewness": skewness, "kurtosis": kurtosis}
    periods = len(returns)
    needed = minimum_track_record_length(sharpe, **moments)
    return {
        "probabilistic": probabilistic_sharpe_ratio(sharpe, periods, **moments),
        "deflated": deflated_sharpe_ratio(sharpe, periods, *tried, **moments),
        "years_needed": float(needed) / per_year,
    }


def over_all(groups: Mapping[str, Sequence[Run]], reference: str | None, draw: Mapping) -> Row:
    """What can be said of all agents at once.

    Args:
        groups: Finished runs by agent, all over the same days.
        reference: Its name among them, or None.
        draw: `n_resamples` and `rng` of the resampling.

    Returns:
        "superior": p-value of "no agent is better than the reference" (superior predictive
        ability); "stepwise": the agents that are, found by steps; "best_set": agents among which
        the best is with 95 % (model confidence set), "best_set_p" their p-values; "overfitting":
        the probability that the best of one half of the days is below the median in the other.
        Entries that cannot be computed are left out. The first three compare the mean Sharpe ratio
        of an agent's seeds; the last one its seeds held side by side in equal parts.

    """
    returns = {name: excess_returns(runs) for name, runs in groups.items()}
    series = {name: sharpe_contributions(each).mean(axis=1) for name, each in returns.items()}
    series = {name: values for name, values in series.items() if np.isfinite(values).all()}
    found: Row = {}
    if len(series) < 2:
        return found
    names, panel = list(series), np.column_stack(list(series.values()))
    if len(panel) >= 2 * BLOCKS:
        held = np.column_stack([returns[name].mean(axis=1) for name in names])
        found["overfitting"] = probability_of_backtest_overfitting(held, BLOCKS)
    kept = model_confidence_set(panel, **draw)
    found["best_set"] = [name for name, held in zip(names, kept.included, strict=True) if held]
    found["best_set_p"] = dict(zip(names, kept.p_values.tolist(), strict=True))
    if reference in series:
        others = [name for name in names if name != reference]
        lead = np.column_stack([series[name] for name in others])
        test = superior_predictive_ability(lead, series[reference], **draw)
        found["superior"] = test.p_value
        better = zip(others, test.superior, strict=True)
        found["stepwise"] = [name for name, is_better in better if is_better]
    return found


def verdict(row: pd.Series, words: str, level: float) -> str:
    """One agent against the reference, after and before costs, in plain words.

    Both p-values must be below `level` once they are corrected for the number of agents.
    """
    after, before = (_sign(row[name], row[p], level) for name, p in _TESTS)
    return _VERDICTS[after, before].format(words)


_TESTS = (("difference", "p_adjusted"), ("gross", "gross_p_adjusted"))
_VERDICTS = {
    (1, 1): "better than {}",
    (1, 0): "better than {}",
    (1, -1): "better than {} after costs, not before",
    (0, 1): "better than {} before costs, not after",
    (0, 0): "not distinguishable from {}",
    (0, -1): "not distinguishable from {}",
    (-1, 1): "better than {} before costs, worse after",
    (-1, 0): "worse than {} after costs, not before",
    (-1, -1): "worse than {}",
}


def _sign(difference: float, p_value: float, level: float) -> int:
    if not math.isfinite(p_value) or p_value >= level:
        return 0
    return 1 if difference > 0 else -1


def _sharpe(returns: np.ndarray, per_year: float) -> np.ndarray:
    return np.asarray(measures.sharpe_ratio(returns, periods_per_year=per_year))
