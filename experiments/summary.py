"""The comparison table: one row an agent, with what each number is worth.

A seed's measures are computed from its own path and the interquartile mean over seeds is shown.
Intervals resample blocks of days and the seeds: they tell how much luck of the period and of the
seed is in a number. The difference to the reference is resampled on the same days as both.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.runs import Run
from experiments.statistics import (
    adjust_p_values,
    interquartile_mean,
    sharpe_difference,
    stationary_bootstrap_interval,
)
from experiments.verdict import plain, print_table
from market import measures
from market.errors import DataError, SettingError

__all__ = ["agent_labels", "print_table", "summarise"]

REFERENCE = "equal_weight"
PERIODS_PER_YEAR = 252.0
COLUMNS = (
    "seeds",
    "failed",
    "annual_return",
    "volatility",
    "sharpe",
    "sharpe_low",
    "sharpe_high",
    "max_drawdown",
    "turnover",
    "cost",
    "final_value",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "p_adjusted",
    "verdict",
)


def agent_labels(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by agent, in the order given; `experiment/agent` where experiments are mixed."""
    mixed = len({run.experiment for run in runs}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        label = f"{run.experiment}/{run.agent}" if mixed else run.agent
        groups.setdefault(label, []).append(run)
    return groups


def summarise(
    runs: Sequence[Run],
    *,
    reference: str = REFERENCE,
    periods_per_year: float | None = None,
    n_resamples: int = 2000,
    rng: int = 0,
) -> pd.DataFrame:
    """One row an agent, best Sharpe ratio first; agents without a finished run last, as NaN.

    Args:
        runs: All runs of the comparison, failed ones too.
        reference: Agent that the others' Sharpe ratios are compared with.
        periods_per_year: Periods in a year of the back-tests; None takes it from the runs'
            manifests (`data.periods_per_year`), else 252.
        n_resamples: Of the bootstrap.
        rng: Seed of the bootstrap.

    Returns:
        Index `agent`; columns `COLUMNS`: `seeds` (finished) and `failed` (all others); measures,
        drawdown positive, turnover and cost per year; `difference`, the Sharpe ratio minus the
        reference's; `_low` and `_high`, 95 % intervals; `p_value` of no difference, and
        `p_adjusted` for the number of agents compared (Holm); `verdict` of the interval, in words.
        `frame.attrs` has `reference` and `periods_per_year`.

    Raises:
        SettingError: If there are no runs.
        DataError: If finished runs cover different test days, or a run is there twice.
    """
    if not runs:
        raise SettingError("`runs` must hold at least one run, got none")
    _check_once(runs)
    _check_same_days([run for run in runs if run.finished])
    per_year = periods_per_year or _periods_per_year(runs)
    draw: dict[str, Any] = {"n_resamples": n_resamples, "rng": rng}
    rows: dict[str, dict[str, float | str]] = {}
    for label, group in agent_labels(runs).items():
        finished = [run for run in group if run.finished]
        row: dict[str, float | str] = {"seeds": len(finished), "failed": len(group) - len(finished)}
        if finished:
            row |= _measure(finished, per_year, draw)
            base = _reference(runs, finished[0], reference)
            row |= _compare(finished, base, per_year, draw)
        else:
            row["verdict"] = "no finished run"
        rows[label] = row
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(COLUMNS))
    frame["p_adjusted"] = adjust_p_values(frame["p_value"])
    frame = frame.rename_axis("agent").sort_values("sharpe", ascending=False, kind="stable")
    frame.attrs = {"reference": reference, "periods_per_year": per_year}
    return frame


def _periods_per_year(runs: Sequence[Run]) -> float:
    key = "periods_per_year"
    found = {
        run.manifest.get("data", {}).get(key, PERIODS_PER_YEAR) for run in runs if run.finished
    }
    per_year = found.pop() if found else PERIODS_PER_YEAR
    if found or not isinstance(per_year, int | float) or not per_year > 0:
        raise DataError(f"runs must agree on one positive `data.{key}`, got {[per_year, *found]}")
    return float(per_year)


def _check_once(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        twin = seen.setdefault((run.experiment, run.agent, run.seed), run)
        if twin is not run:
            raise DataError(
                f"{run.experiment}/{run.agent} seed {run.seed} is there twice: "
                f"{twin.path} and {run.path}"
            )


def _check_same_days(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        ours, theirs = runs[0].backtest.index, run.backtest.index
        if not ours.equals(theirs):
            raise DataError(
                f"runs must cover the same test days: {runs[0].path} has {_span(ours)}, "
                f"{run.path} has {_span(theirs)}"
            )


def _span(days: pd.Index) -> str:
    return f"{len(days)} days {days[0]:%Y-%m-%d}..{days[-1]:%Y-%m-%d}"


def _reference(runs: Sequence[Run], run: Run, reference: str) -> list[Run]:
    """The reference's finished runs, of the same experiment if it has any."""
    found = [other for other in runs if other.finished and other.agent == reference]
    return [other for other in found if other.experiment == run.experiment] or found


def paths(runs: Sequence[Run], column: str) -> np.ndarray:
    """One back-test column of several runs over the same days, shape (T, seeds)."""
    return np.stack([run.backtest[column].to_numpy(float) for run in runs], axis=1)


def excess_returns(runs: Sequence[Run]) -> np.ndarray:
    """Returns less the cash rate of the same period, shape (T, seeds)."""
    return paths(runs, "portfolio_return") - paths(runs, "risk_free")


def sharpe_by_seed(runs: Sequence[Run], periods_per_year: float) -> np.ndarray:
    """Annualised Sharpe ratio of each run's excess returns, shape (seeds,); NaN if undefined."""
    ratios = measures.sharpe_ratio(excess_returns(runs), periods_per_year=periods_per_year)
    return np.asarray(ratios)


def _measure(
    runs: Sequence[Run], periods_per_year: float, draw: dict[str, Any]
) -> dict[str, float | str]:
    returns = paths(runs, "portfolio_return")
    by_seed = {
        "annual_return": measures.annualised_return(returns, periods_per_year=periods_per_year),
        "volatility": measures.annualised_volatility(returns, periods_per_year=periods_per_year),
        "max_drawdown": measures.max_drawdown(returns),
        "turnover": paths(runs, "turnover").mean(axis=0) * periods_per_year,
        "cost": paths(runs, "cost").mean(axis=0) * periods_per_year,
        "final_value": paths(runs, "value")[-1],
    }
    sharpe, low, high = stationary_bootstrap_interval(
        excess_returns(runs),
        lambda sample: measures.sharpe_ratio(sample, periods_per_year=periods_per_year),
        **draw,
    )
    row: dict[str, float | str] = {
        name: float(interquartile_mean(values)) for name, values in by_seed.items()
    }
    return row | {"sharpe": sharpe, "sharpe_low": low, "sharpe_high": high}


def _compare(
    runs: Sequence[Run], base: Sequence[Run], periods_per_year: float, draw: dict[str, Any]
) -> dict[str, float | str]:
    """Difference in Sharpe ratio to the reference's runs `base`, and what it says."""
    if base and base[0].agent == runs[0].agent:
        return {"verdict": "reference"}
    if not base:
        return {"verdict": "no reference to compare with"}
    words = plain(base[0].agent)
    difference, low, high, p_value = sharpe_difference(
        excess_returns(runs), excess_returns(base), periods_per_year=periods_per_year, **draw
    )
    if math.isnan(difference):
        return {"verdict": "no Sharpe ratio: returns over cash do not vary"}
    edge = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "p_value": p_value,
        "verdict": f"{edge} {words}",
    }
