"""The comparison table: one row an agent, with what each number is worth.

A seed's measures are computed from its own path and the interquartile mean over seeds is shown.
Intervals resample blocks of days and the seeds: they tell how much luck of the period and of the
seed is in a number. The difference to the reference is resampled on the same days as both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments import history
from experiments.evidence import HARDER, against, alone, excess_returns, over_all, paths, verdict
from experiments.resampling import RESAMPLES, enough_resamples
from experiments.runs import Run
from experiments.statistics import (
    adjust_p_values,
    interquartile_mean,
    stationary_bootstrap_interval,
)
from experiments.verdict import LEVEL, plain, print_table
from market import measures
from market.errors import DataError, SettingError

__all__ = ["agent_labels", "excess_returns", "paths", "print_table", "summarise"]

REFERENCE = "equal_weight"
HINDSIGHT = "hindsight, not ranked"  # verdict on what was shown the days it is judged on
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
    "gross",
    "gross_low",
    "gross_high",
    "gross_p",
    "gross_p_adjusted",
    *(f"{name}{part}" for name in HARDER for part in ("", "_low", "_high")),
    "probabilistic",
    "deflated",
    "years_needed",
    "improvement",
    "improvement_low",
    "improvement_high",
    "best_set_p",
    "verdict",
)
TOGETHER = ("overfitting", "superior", "stepwise", "best_set")


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
    n_resamples: int | None = None,
    rng: int = 0,
) -> pd.DataFrame:
    """One row an agent, best Sharpe ratio first; agents without a finished run follow, as NaN.

    What was shown the days it is judged on comes last and is compared with nobody.

    Args:
        runs: All runs of the comparison, failed ones too.
        reference: Agent that the others' Sharpe ratios are compared with.
        periods_per_year: Periods in a year of the back-tests; None takes it from the runs'
            manifests (`data.periods_per_year`), else 252.
        n_resamples: Of the bootstrap; None takes 2,000, and for p-values below 5 % 100 for each
            agent compared where that is more (`enough_resamples`).
        rng: Seed of the bootstrap.

    Returns:
        Index `agent`; columns `COLUMNS`: `seeds` (finished) and `failed` (all others); measures,
        drawdown positive, turnover and cost per year; `difference`, the Sharpe ratio minus the
        reference's; `gross`, the same before costs; `_low` and `_high`, 95 % intervals; `p_value`
        of no difference, and `p_adjusted` for the number of agents compared (Holm), on which the
        `verdict` in words stands; the difference under harder rules and in each half of the days;
        `probabilistic` and `deflated`, probabilities that the Sharpe ratio is above 0, and above
        what luck gives the best of all configurations tried; `years_needed` to show the first;
        `improvement`, the chance that a run beats one of the reference's; `best_set_p`.
        `frame.attrs` has `reference`, `periods_per_year`, `trials`, `resamples` (those of small
        p-values), and of `TOGETHER` what could be computed.

    Raises:
        SettingError: If there are no runs.
        DataError: If finished runs cover different test days, or a run is there twice.
    """
    if not runs:
        raise SettingError("`runs` must hold at least one run, got none")
    _check_once(runs)
    _check_same_days([run for run in runs if run.finished])
    per_year = periods_per_year or _periods_per_year(runs)
    draw: dict[str, Any] = {"n_resamples": n_resamples or RESAMPLES, "rng": rng}
    tried = history.trials([run for run in runs if not is_hindsight(run)])
    groups = agent_labels(runs)
    n_tests = n_resamples or enough_resamples(_comparisons(groups, reference))
    rows: dict[str, dict[str, Any]] = {}
    for label, group in groups.items():
        finished = [run for run in group if run.finished]
        row: dict[str, Any] = {"seeds": len(finished), "failed": len(group) - len(finished)}
        if finished:
            row |= _measure(finished, per_year, draw)
        if finished and is_hindsight(finished[0]):
            row["verdict"] = HINDSIGHT
        elif finished:
            row |= alone(finished, per_year, tried)
            base = _reference(runs, finished[0], reference)
            row |= _compare(finished, base, per_year, draw, n_tests)
        else:
            row["verdict"] = "no finished run"
        rows[label] = row
    ranked = {label: group for label, group in groups.items() if not is_hindsight(group[0])}
    together = over_all(_finished(ranked), _label_of(groups, reference), draw)
    for label, p_value in together.pop("best_set_p", {}).items():
        rows[label]["best_set_p"] = p_value
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(COLUMNS))
    for name in ("p", "gross_p"):
        given = frame["p_value" if name == "p" else name].astype(float)
        frame[f"{name}_adjusted"] = adjust_p_values(given)
    frame["verdict"] = [_verdict(row) for _, row in frame.iterrows()]
    frame = frame.rename_axis("agent").sort_values("sharpe", ascending=False, kind="stable")
    frame = frame.loc[(frame["verdict"] == HINDSIGHT).sort_values(kind="stable").index]
    frame.attrs = {"reference": reference, "periods_per_year": per_year, "trials": tried.number}
    frame.attrs["resamples"] = n_tests
    frame.attrs |= {name: together[name] for name in TOGETHER if name in together}
    return frame


def is_hindsight(run: Run) -> bool:
    """Whether the run's agent was shown the days it is judged on."""
    return bool(run.manifest.get("hindsight"))


def _comparisons(groups: dict[str, list[Run]], reference: str) -> int:
    """How many agents are held against the reference."""
    others = [runs for runs in groups.values() if runs[0].agent != reference]
    return sum(any(run.finished for run in runs) and not is_hindsight(runs[0]) for runs in others)


def _finished(groups: dict[str, list[Run]]) -> dict[str, list[Run]]:
    done = {label: [run for run in group if run.finished] for label, group in groups.items()}
    return {label: group for label, group in done.items() if group}


def _label_of(groups: dict[str, list[Run]], reference: str) -> str | None:
    """The one row that is the reference; None where experiments have one each."""
    found = [label for label, group in groups.items() if group[0].agent == reference]
    return found[0] if len(found) == 1 else None


def _verdict(row: pd.Series) -> str:
    """Words already there, or those that fit the corrected p-values."""
    words = str(row["verdict"])
    return verdict(row, words.removeprefix("against "), LEVEL) if _is_open(words) else words


def _is_open(words: str) -> bool:
    return words.startswith("against ")


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
    runs: Sequence[Run],
    base: Sequence[Run],
    periods_per_year: float,
    draw: dict[str, Any],
    n_tests: int,
) -> dict[str, Any]:
    """Differences to the reference's runs `base`; the verdict waits for all agents' p-values."""
    if base and base[0].agent == runs[0].agent:
        return {"verdict": "reference"}
    if not base:
        return {"verdict": "no reference to compare with"}
    row = against(runs, base, periods_per_year, draw, n_tests)
    if np.isnan(row["difference"]):
        idle = int(np.isnan(sharpe_by_seed(runs, periods_per_year)).sum())
        who = f"{idle} of {len(runs)} seeds: " if 0 < idle < len(runs) else ""
        return {"verdict": f"no Sharpe ratio: {who}returns over cash do not vary"}
    row["p_value"] = row.pop("difference_p")
    return row | {"verdict": f"against {plain(base[0].agent)}"}
