"""Ten yearly back-tests after Sood et al. 2023, with the rows that the paper leaves out.

The paper: PPO paid by the differential Sharpe ratio on the eleven S&P 500 sectors; ten windows of
five years to train on, one to validate, one to be tested, 2012 to 2021; five agents a window;
against the portfolio of the highest Sharpe ratio by 60 days of moments. No costs, no equal weights,
no index.

Here: the same windows on the 20 stocks and cash of `us_stocks`, both of these, mean-variance
utility with the same moments, equal weights and the S&P 500, the same decisions without costs and
charged 0.1 %, with intervals. What differs from the paper: the assets; the steps of
training, 16,384 a window in place of 7.5 million; a seed goes on from its own network of the window
before, in place of the best of five; windows are of 252 trading days; no VIX among the features,
which are returns over 1 to 60 days, volatility and the like.

Metric: Sharpe ratio over the cash rate, averaged over the ten windows as in the paper, and of the
whole path, with its 95 % interval by stationary block bootstrap over days and seeds.

    python -m experiments.studies.sood [--seeds 5] [--write]

Source: Sood, Papasotiriou, Vaiciulis & Balch, Deep reinforcement learning for optimal portfolio
allocation: a comparative study with mean-variance optimization (FinPlan 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.commands import say
from experiments.compare import run_experiments
from experiments.config import AgentConfig, CostConfig, DataConfig, TaskConfig
from experiments.resampling import RESAMPLES
from experiments.run_dir import Run
from experiments.statistics import (
    interquartile_mean,
    sharpe_difference,
    stationary_bootstrap_interval,
)
from experiments.studies.pages import command, spread, table
from experiments.studies.repricing import charged
from experiments.studies.study_command import conclude, exit_with, parser, stored, tell_failed
from experiments.summary import REFERENCE, agent_labels
from experiments.walk_config import WalkConfig, WindowedConfig
from market import measures

STUDY = "sood"
YEAR = 252
COST = 0.001
REWARD = f"differential_sharpe(eta={1 / 252:.6f}, prior_volatility=0.01)"
DATA = DataConfig(source="us_stocks", end="2021-12-31")
WALK = WalkConfig(start="2012-01-01", refit_every=YEAR, valid_days=YEAR, train_days=5 * YEAR)
PPO = (  # the paper's network, discount, clipping and rates; rewards are of size 1 already
    "ppo(steps=16384, evaluations=2, encoder=fnn, width=64, depth=2, num_envs=64, n_steps=64, "
    "n_epochs=8, gamma=0.9, gae_lambda=0.9, clip_range=0.25, learning_rate=3e-4, schedule=linear, "
    "reward_scale=1.0, log_std=-1.0, label=ppo)"
)
AGENTS = {  # label -> text
    "ppo": PPO,
    "maximum_sharpe_60": "maximum_sharpe(window=60, mean=empirical, rebalance_every=1, "
    "label=maximum_sharpe_60)",
    "mean_variance_60": "mean_variance(window=60, mean=empirical, rebalance_every=1, "
    "costs=false, solver=direct, label=mean_variance_60)",
    "equal_weight": "equal_weight",
    "buy_and_hold": "buy_and_hold",
}
LEARNED = ("ppo",)  # trained without costs, as in the paper
HEADINGS = (
    "agent",
    "costs",
    "seeds",
    "mean of ten Sharpe ratios",
    "Sharpe of the path (95 %)",
    "less equal weight (95 %)",
    "return",
    "volatility",
    "drawdown",
    "turnover",
)


def configs(seeds: int, results: str = "results") -> list[WindowedConfig]:
    """Everyone through the ten windows; learners go on from their network of the last."""
    made = []
    for label, text in AGENTS.items():
        rate = 0.0 if label in LEARNED else COST
        walk = WalkConfig(**{**vars(WALK), "warm_start": label in LEARNED})
        made.append(
            WindowedConfig(
                experiment=STUDY,
                data=DATA,
                walk=walk,
                task=TaskConfig(cost=CostConfig(buy=rate), reward=REWARD),
                agent=AgentConfig.of(text),
                seeds=seeds if label in LEARNED else 1,
                results=results,
            )
        )
    return made


def index_returns(days: pd.DatetimeIndex, before: pd.Timestamp) -> np.ndarray:
    """Returns of the S&P 500 (prices alone) over the periods that end on `days`, (T,)."""
    from skfolio.datasets import load_sp500_index

    prices = load_sp500_index().iloc[:, 0].reindex(days.insert(0, before)).to_numpy(float)
    return np.asarray(prices[1:] / prices[:-1] - 1.0)


def yearly(excess: np.ndarray, window: int = YEAR) -> float:
    """Mean over windows of the annual Sharpe ratio, interquartile mean over seeds.

    Args:
        excess: Returns over the cash rate, (T, S).
        window: Periods of each, the last one may be shorter; one of fewer than 20 is left out.

    """
    parts = [excess[start : start + window] for start in range(0, len(excess), window)]
    ratios = [
        measures.sharpe_ratio(part, periods_per_year=YEAR) for part in parts if len(part) >= 20
    ]
    return float(interquartile_mean(np.mean(ratios, axis=0)))


def row(
    name: str,
    costs: str,
    returns: np.ndarray,
    free: np.ndarray,
    base: np.ndarray | None,
    turned: float,
    draw: Mapping[str, Any],
) -> list[str]:
    """One agent's cells, in the order of `HEADINGS`.

    Args:
        name: Of the agent.
        costs: In words.
        returns: Of every seed, (T, S).
        free: What cash earned, (T,).
        base: Returns of equal weights, (T, 1); None for themselves.
        turned: Turnover a year; NaN where it is not known.
        draw: `n_resamples` and `rng` of the bootstrap.

    """
    excess = returns - free[:, None]
    lead = ""
    if base is not None:
        made = sharpe_difference(excess, base - free[:, None], periods_per_year=YEAR, **draw)
        lead = spread(made.difference, made.low, made.high)

    def middle(values: object) -> float:
        return float(interquartile_mean(np.atleast_1d(np.asarray(values))))

    ratio = stationary_bootstrap_interval(
        excess, lambda sample: measures.sharpe_ratio(sample, periods_per_year=YEAR), **draw
    )
    return [
        name,
        costs,
        str(returns.shape[1]),
        f"{yearly(excess):.2f}",
        spread(*ratio, "{:.2f}"),
        lead,
        f"{middle(measures.annualised_return(returns, periods_per_year=YEAR)):.1%}",
        f"{middle(measures.annualised_volatility(returns, periods_per_year=YEAR)):.1%}",
        f"{middle(measures.max_drawdown(returns)):.1%}",
        f"{turned:.1f}" if np.isfinite(turned) else "",
    ]


def rows(runs: Sequence[Run], n_resamples: int = RESAMPLES) -> list[list[str]]:
    """Every agent charged nothing and 0.1 %, and the index."""
    groups = agent_labels([run for run in runs if run.finished])
    first = next(iter(groups.values()))[0]
    days = pd.DatetimeIndex(first.backtest.index)
    free = first.backtest["risk_free"].to_numpy(float)
    draw: dict[str, Any] = {"n_resamples": n_resamples, "rng": 0}
    made = []
    for rate, words in ((0.0, "none"), (COST, f"{COST:.1%}")):
        paths = {name: _paths(group, rate) for name, group in groups.items()}
        for name, group in groups.items():
            turned = np.mean([run.backtest["turnover"].mean() * YEAR for run in group])
            base = None if name == REFERENCE else paths[REFERENCE]
            made.append(row(name, words, paths[name], free, base, float(turned), draw))
        if rate == 0.0:
            held = index_returns(days, _day_before(days))[:, None]
            made.append(row("S&P 500, prices", words, held, free, paths[REFERENCE], np.nan, draw))
    return made


def _paths(runs: Sequence[Run], rate: float) -> np.ndarray:
    return np.stack([charged(run.backtest, rate) for run in runs], axis=1)


def _day_before(days: pd.DatetimeIndex) -> pd.Timestamp:
    """The decision at whose close the first period begins."""
    from market import load_market

    market = load_market(DATA.source, end=DATA.end)
    return market.dates[market.index(days[0]) - 1]


def analyse(runs: Sequence[Run], n_resamples: int | None = None) -> list[str]:
    """The table, and what the paper has."""
    days = next(run for run in runs if run.finished).backtest.index
    return [
        f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days)} days.",
        "",
        *table(HEADINGS, rows(runs, n_resamples or RESAMPLES), 2),
        "",
        "The paper, on sectors, without costs, mean of ten: PPO 1.166, maximum Sharpe 0.678.",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table, and with --write keep it."""
    given = parser(STUDY, __doc__).parse_args(argv)
    failed = 0
    if not given.stored:
        made = configs(given.seeds, given.results)
        line = command(STUDY, ["--seeds", str(given.seeds)])
        failed = tell_failed(run_experiments(made, workers=1, command=line))
    runs = stored(Path(given.results) / STUDY, AGENTS)
    if REFERENCE not in {run.agent for run in runs if run.finished}:
        return say(f"{STUDY}: no finished run of {REFERENCE}", 1)
    lines = analyse(runs, given.resamples)
    conclude(STUDY, given, runs, lines)
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with(main)
