"""Who wins at which cost, and at which cost does a lead over equal weights end?

First all agents of the study `all_agents` on one split: their decisions stay as they are, trained
at 0.1 %, and are charged other rates. Then those that weigh costs when they learn or decide
(`ppo`, `policy_gradient`, `mean_variance`, `black_litterman`), trained anew at each rate of
`TRAINED_AT`.

Metric: Sharpe ratio over the cash rate at each rate, the rate at which it falls to equal weight's
(both charged), and the probability that none of all agents is better than equal weight (superior
predictive ability).

    python -m experiments.studies.cost_sensitivity [--seeds 5] [--write]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.commands import say
from experiments.compare import run_experiments
from experiments.config import AgentConfig, CostConfig, DataConfig, ExperimentConfig, TaskConfig
from experiments.resampling import RESAMPLES
from experiments.run_dir import Run, write_atomic
from experiments.statistics import (
    interquartile_mean,
    sharpe_difference,
    stationary_bootstrap_interval,
    superior_predictive_ability,
)
from experiments.studies import all_agents
from experiments.studies.pages import command, made_by, spread, table, write_section
from experiments.studies.repricing import break_even, charged
from experiments.studies.roster import learner
from experiments.studies.study_command import again, exit_with, parser, stored, tell_failed
from experiments.summary import REFERENCE, agent_labels, is_hindsight
from market import measures

STUDY = "cost_sensitivity"
YEAR = 252
USUAL = 0.001  # what `all_agents` is trained and judged at
RATES = (0.0, 0.0002, 0.0005, USUAL, 0.002, 0.005, 0.01)
SCAN = (*RATES, 0.02, 0.05)  # how far a break-even is looked for
TRAINED_AT = (0.0, 0.005)
UNIVERSES = ("multi_asset", "us_stocks")
RETRAINED = "multi_asset"
WEIGH_COSTS = (
    "mean_variance",
    "black_litterman",
    *(learner(name, RETRAINED) for name in ("ppo", "policy_gradient")),
)
Groups = Mapping[str, Sequence[Run]]


def sharpe(returns: np.ndarray, free: np.ndarray) -> float:
    """Interquartile mean over seeds of the annual Sharpe ratio; returns (T, S), cash rate (T,)."""
    ratios = measures.sharpe_ratio(returns - free[:, None], periods_per_year=YEAR)
    return float(interquartile_mean(ratios))


def at_rate(runs: Sequence[Run], rate: float) -> np.ndarray:
    """Returns of every seed at another rate, (T, S)."""
    return np.stack([charged(run.backtest, rate) for run in runs], axis=1)


def free_rate(runs: Sequence[Run]) -> np.ndarray:
    """What cash earned, (T,)."""
    return runs[0].backtest["risk_free"].to_numpy(float)


def curve(runs: Sequence[Run], base: Sequence[Run]) -> tuple[list[float], float]:
    """Sharpe ratio at each of `RATES`, and the rate at which the lead over `base` ends."""
    free = free_rate(runs)

    def at(side: Sequence[Run], rate: float) -> float:
        return sharpe(at_rate(side, rate), free)

    found = break_even(lambda rate: at(runs, rate) - at(base, rate), SCAN)
    return [at(runs, rate) for rate in RATES], found


def winners(groups: Groups, n_resamples: int = RESAMPLES) -> list[list[str]]:
    """For each rate: the best agent, its lead with an interval, how many lead, the common p."""
    free, rows = free_rate(groups[REFERENCE]), []
    for rate in RATES:
        paths = {name: at_rate(runs, rate) - free[:, None] for name, runs in groups.items()}
        score = {name: sharpe(returns, 0.0 * free) for name, returns in paths.items()}
        score = {name: value for name, value in score.items() if np.isfinite(value)}
        others = [name for name in score if name != REFERENCE]
        best = max(others, key=score.__getitem__)
        made = sharpe_difference(
            paths[best], paths[REFERENCE], periods_per_year=YEAR, n_resamples=n_resamples, rng=0
        )
        mean = {name: paths[name].mean(axis=1) for name in score}
        test = superior_predictive_ability(
            np.column_stack([mean[name] for name in others]),
            mean[REFERENCE],
            measure="sharpe",
            n_resamples=n_resamples,
            rng=0,
        )
        rows.append(
            [
                f"{rate:.2%}",
                f"{score[REFERENCE]:.2f}",
                best,
                f"{score[best]:.2f}",
                spread(made.difference, made.low, made.high),
                f"{sum(score[name] > score[REFERENCE] for name in others)} of {len(others)}",
                f"{test.p_value:.2f}",
            ]
        )
    return rows


HEADINGS = (
    "cost",
    "equal weight",
    "best agent",
    "its Sharpe",
    "less equal weight (95 %, alone)",
    "agents above equal weight",
    "p that none is better",
)


def frozen(groups: Groups) -> list[list[str]]:
    """Every agent's Sharpe ratio by rate and its break-even, best at the usual rate first."""
    found = {name: curve(runs, groups[REFERENCE]) for name, runs in groups.items()}
    usual = RATES.index(USUAL)
    known = [name for name in found if np.isfinite(found[name][0][usual])]
    order = sorted(known, key=lambda name: -found[name][0][usual])
    return [
        [name, *(f"{value:.2f}" for value in found[name][0]), ended(name, found[name][1])]
        for name in order
    ]


def ended(name: str, rate: float) -> str:
    """A break-even in words."""
    if name == REFERENCE:
        return "reference"
    if rate == 0.0:
        return "behind while free"
    return f"above {SCAN[-1]:.0%}" if np.isinf(rate) else f"{rate:.2%}"


def experiment(rate: float) -> str:
    """The folder of what was trained at a rate."""
    return f"{STUDY}_{rate * 1e4:g}bp"


def configs(rate: float, seeds: int, results: str = "results") -> list[ExperimentConfig]:
    """Everyone who weighs costs, at one rate."""
    agents = [AgentConfig.of(text) for text in WEIGH_COSTS]
    return [
        ExperimentConfig(
            experiment=experiment(rate),
            data=DataConfig(source=RETRAINED),
            task=TaskConfig(cost=CostConfig(buy=rate)),
            agent=agent,
            seeds=1 if agent.title in ("mean_variance", "black_litterman") else seeds,
            results=results,
        )
        for agent in agents
    ]


def retrained(by_rate: Mapping[float, Groups], usual: Groups) -> list[list[str]]:
    """For each agent and rate: trained at it, against trained at the usual one and charged it."""
    rows = []
    for name in dict.fromkeys(name for groups in by_rate.values() for name in groups):
        for rate, groups in by_rate.items():
            if name not in groups or name not in usual:
                continue
            runs, old = groups[name], usual[name]
            excess = at_rate(runs, rate) - free_rate(runs)[:, None]
            turned = np.mean([run.backtest["turnover"].mean() * YEAR for run in runs])
            before = np.mean([run.backtest["turnover"].mean() * YEAR for run in old])
            rows.append(
                [
                    name,
                    f"{rate:.2%}",
                    str(len(runs)),
                    spread(
                        *stationary_bootstrap_interval(
                            excess,
                            lambda sample: measures.sharpe_ratio(sample, periods_per_year=YEAR),
                            rng=0,
                        ),
                        "{:.2f}",
                    ),
                    f"{sharpe(at_rate(old, rate), free_rate(old)):.2f}",
                    f"{turned:.1f}",
                    f"{before:.1f}",
                ]
            )
    return rows


def finished(runs: Sequence[Run]) -> Groups:
    """Finished runs by agent, without hindsight."""
    return agent_labels([run for run in runs if run.finished and not is_hindsight(run)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables, and with --write keep them."""
    options = parser(STUDY, __doc__)
    options.add_argument(
        "--own", action="store_true", help="run only what is trained anew; take all_agents as it is"
    )
    given = options.parse_args(argv)
    parts = [part for part in all_agents.PARTS if part.walk is None and part.universe in UNIVERSES]
    failed = 0
    if not given.stored:
        line = command(STUDY, ["--seeds", str(given.seeds)])
        for part in parts if not given.own else ():
            failed += tell_failed(all_agents.run(part, given.seeds, given.results, line))
        for rate in TRAINED_AT:
            made = configs(rate, given.seeds, given.results)
            failed += tell_failed(run_experiments(made, workers=1, command=line))
    groups = {part.universe: finished(all_agents.kept(part, given.results)) for part in parts}
    groups = {name: found for name, found in groups.items() if REFERENCE in found}
    if not groups:
        return say(f"{STUDY}: no finished run of equal_weight", 1)
    short, full = sections(groups, given.resamples or RESAMPLES), details(groups)
    names = {AgentConfig.of(text).title for text in WEIGH_COSTS}
    by_rate = {
        rate: finished(stored(Path(given.results) / experiment(rate), names)) for rate in TRAINED_AT
    }
    short += trained(by_rate, groups.get(RETRAINED, {}))
    print("\n".join([*full, *short]))
    if given.write:
        about = made_by(STUDY, again(given))
        folder = Path(given.results)
        write_section(folder / "README.md", STUDY, "\n".join([about, "", *short]))
        page = "\n".join(["# Sharpe ratio by cost", "", about, "", *full])
        write_atomic(folder / f"{STUDY}.md", page.rstrip() + "\n")
    return 1 if failed else 0


def sections(groups: Mapping[str, Groups], n_resamples: int = RESAMPLES) -> list[str]:
    """Who wins at which cost, a table a universe."""
    lines: list[str] = []
    for universe, found in groups.items():
        lines += [f"Decisions trained at {USUAL:.1%}, {universe}:", ""]
        lines += [*table(HEADINGS, winners(found, n_resamples)), ""]
    return lines


def details(groups: Mapping[str, Groups]) -> list[str]:
    """All agents by cost, a table a universe."""
    lines: list[str] = []
    headings = ["agent", *(f"{rate:.2%}" for rate in RATES), "lead ends at"]
    for universe, found in groups.items():
        lines += [f"## {universe}", "", *table(headings, frozen(found)), ""]
    return lines


def trained(by_rate: Mapping[float, Groups], usual: Groups) -> list[str]:
    """Trained at each cost, as a table; nothing where nothing was."""
    rows: list[Any] = retrained(by_rate, usual)
    if not rows:
        return []
    headings = (
        "agent",
        "cost",
        "seeds",
        "Sharpe, trained at this cost (95 %)",
        f"trained at {USUAL:.1%}",
        "turnover",
        f"when trained at {USUAL:.1%}",
    )
    return [f"Trained anew at each cost, {RETRAINED}:", "", *table(headings, rows)]


if __name__ == "__main__":
    exit_with(main)
