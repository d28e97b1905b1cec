"""What does each reward give: the same learners, paid by different rewards.

`ppo` and `sac` on one split of `multi_asset`, costs of 0.1 %, everything alike but the reward. So
that rewards of different sizes meet the same learning rates, each is scaled to about the spread
that log returns have, measured for equal weights (`SCALES`), and differential ratios start from a
prior volatility, without which the first rewards of an episode are hundreds of times the others.
The state kept is chosen by the Sharpe ratio on validation, whatever the reward.

Metric: Sharpe ratio over the cash rate, volatility, drawdown and turnover on the test days, after
costs; interquartile means over seeds, 95 % intervals by stationary block bootstrap over days and
seeds; differences to the same learner paid by log return, corrected for their number (Holm).

    python -m experiments.studies.reward_comparison [--seeds 5] [--learner ppo] [--write]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.commands import say
from experiments.compare import run_experiments
from experiments.config import AgentConfig, DataConfig, ExperimentConfig, TaskConfig
from experiments.run_dir import Run
from experiments.studies.pages import command, spread, table
from experiments.studies.roster import learner
from experiments.studies.study_command import conclude, exit_with, parser, stored, tell_failed
from experiments.summary import REFERENCE, sharpe_by_seed, summarise
from experiments.verdict import short

STUDY = "reward_comparison"
LEARNERS = ("ppo", "sac")
FIRST = "log_return"
DATA = DataConfig()
SCALES = {  # reward -> what learning multiplies it by
    FIRST: 100.0,
    "mean_variance(risk_aversion=5)": 100.0,
    "crra(risk_aversion=5)": 100.0,
    "log_return - 0.1 * turnover": 100.0,
    "log_return - 0.1 * cvar": 90.0,
    "log_return - drawdown(increase=True)": 70.0,
    "differential_sharpe(prior_volatility=0.01)": 0.6,
    "differential_downside(prior_volatility=0.01)": 0.4,
    "rolling_sharpe": 0.4,
}
HEADINGS = (
    "reward",
    "seeds",
    "Sharpe (95 %)",
    "of single seeds",
    "volatility",
    "drawdown",
    "turnover",
    "cost",
    "less log return's (95 %)",
    "p",
    "less equal weight's (95 %)",
    "against equal weight",
)


def label(name: str, reward: str) -> str:
    """The run folder of a learner paid by a reward: its name and the reward's words."""
    words = "".join(one if one.isalnum() or one == "_" else " " for one in reward).split()
    return "-".join([name, *words])


def configs(name: str, seeds: int, results: str = "results") -> list[ExperimentConfig]:
    """One learner with every reward, and equal weights."""
    shared: dict[str, Any] = {"experiment": STUDY, "data": DATA, "results": results}
    made = [ExperimentConfig(agent=AgentConfig(name=REFERENCE), **shared)]
    for reward, scale in SCALES.items():
        text = learner(name, DATA.source, label(name, reward), reward_scale=scale)
        made.append(
            ExperimentConfig(
                agent=AgentConfig.of(text),
                task=TaskConfig(reward=reward),
                seeds=seeds,
                **shared,
            )
        )
    return made


def analyse(name: str, runs: Sequence[Run], n_resamples: int | None = None) -> list[str]:
    """One learner's rewards as lines of Markdown; best Sharpe ratio first."""
    rewards = {label(name, reward): reward for reward in SCALES}
    own = [run for run in runs if run.agent in rewards]
    if not any(run.finished for run in own):
        return []
    equal = [run for run in runs if run.agent == REFERENCE]
    against = summarise([*own, *equal], n_resamples=n_resamples)
    versus = summarise(own, reference=label(name, FIRST), n_resamples=n_resamples)
    leads = {str(title): one for title, one in versus.iterrows()}
    rows = []
    for title, one in against.iterrows():
        group = [run for run in [*own, *equal] if run.agent == title and run.finished]
        reward = rewards.get(str(title), "(equal weight)")
        rows.append(row(reward, group, one, leads.get(str(title))))
    return [f"{name}:", "", *table(HEADINGS, rows), ""]


def row(reward: str, runs: Sequence[Run], one: pd.Series, first: pd.Series | None) -> list[str]:
    """A reward's cells, in the order of `HEADINGS`."""
    if not runs:
        return [reward, "0", *[""] * (len(HEADINGS) - 3), str(one["verdict"])]
    seeds = sharpe_by_seed(runs, 252.0)
    first_cells = ["", ""]
    if first is not None and first["verdict"] != "reference":
        first_cells = [_lead(first), f"{first['p_adjusted']:.2f}"]
    return [
        f"`{reward}`" if first is not None else reward,
        str(len(runs)),
        spread(one["sharpe"], one["sharpe_low"], one["sharpe_high"], "{:.2f}"),
        f"{seeds.min():.2f} to {seeds.max():.2f}" if len(seeds) > 1 else "",
        f"{one['volatility']:.1%}",
        f"{one['max_drawdown']:.1%}",
        f"{one['turnover']:.1f}",
        f"{one['cost']:.2%}",
        *first_cells,
        "" if one["verdict"] == "reference" else _lead(one),
        short(one["verdict"]),
    ]


def _lead(one: pd.Series) -> str:
    return spread(*one[["difference", "difference_low", "difference_high"]])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables, and with --write keep them."""
    options = parser(STUDY, __doc__)
    options.add_argument(
        "--learner", nargs="+", choices=LEARNERS, default=list(LEARNERS), help="who is paid"
    )
    given = options.parse_args(argv)
    failed = 0
    for name in given.learner if not given.stored else ():
        made = configs(name, given.seeds, given.results)
        line = command(STUDY, ["--seeds", str(given.seeds)])
        failed += tell_failed(run_experiments(made, workers=1, command=line))
    titles = {label(name, reward) for name in LEARNERS for reward in SCALES}
    runs = stored(Path(given.results) / STUDY, titles | {REFERENCE})
    found = {name: analyse(name, runs, given.resamples) for name in LEARNERS}
    lines = [line for each in found.values() for line in each]
    if not lines:
        return say(f"{STUDY}: no finished run", 1)
    shown = [name for name, each in found.items() if each]
    conclude(
        STUDY, given, runs, lines, [] if len(shown) == len(LEARNERS) else ["--learner", *shown]
    )
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with(main)
