"""Is any agent there is better than equal weights, before costs or after them?

Every kind of agent (classical and online rules, hindsight as an upper line, every forecaster, every
allocation rule, ensembles, all learners) in five competitions: on one split of `multi_asset` and of
`us_stocks`, as `allocgym compare` does, and by walk-forward on `multi_asset`, `us_stocks` and
`factors`, refitted every two years on all days so far. Costs are 0.1 % of what is traded.

Metric: Sharpe ratio over the cash rate and its difference to equal weight's, after costs and had
trading been free, with 95 % intervals by stationary block bootstrap over days and seeds; verdicts
count all agents compared (Holm).

    python -m experiments.studies.all_agents [--part us_stocks_walk] [--seeds 5] [--write]

Finished runs are kept: the same command again computes only what is missing, and `--stored`
computes nothing. The learners' steps are those of `experiments/studies/roster.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.commands import say
from experiments.compare import Comparison, run_experiments
from experiments.config import DataConfig, ExperimentConfig
from experiments.report import write_report
from experiments.run_dir import Run, write_atomic
from experiments.studies.pages import command, made_at, made_by, spread, table, write_section
from experiments.studies.roster import Entrant, roster
from experiments.studies.study_command import again, exit_with, parser, stored, tell_failed
from experiments.summary import HINDSIGHT, summarise
from experiments.verdict import headline, short
from experiments.walk_config import WalkConfig, WindowedConfig
from market.names import unknown_name

STUDY = "all_agents"
KINDS = ("classical", "online", "hindsight", "forecast", "ensemble", "learner")


@dataclass(frozen=True)
class Part:
    """One competition."""

    name: str
    universe: str
    walk: WalkConfig | None = None
    start: str | None = None  # of the data; the earliest there is when not given

    @property
    def experiment(self) -> str:
        """Its folder in `results`."""
        return f"{STUDY}_{self.name}"

    @property
    def entrants(self) -> list[Entrant]:
        """Who competes."""
        return roster(self.universe, refits=self.walk is not None)

    def walk_of(self, kind: str) -> WalkConfig:
        """Its refits; learners go on from their network of the last."""
        assert self.walk is not None
        return replace(self.walk, warm_start=kind == "learner")


WALK = WalkConfig(refit_every=504)
PARTS = (
    Part("multi_asset", "multi_asset"),
    Part("us_stocks", "us_stocks"),
    Part("factors_walk", "factors", WALK),
    Part("multi_asset_walk", "multi_asset", WALK),
    Part("us_stocks_walk", "us_stocks", WALK),
)
HEADINGS = (
    "agent",
    "kind",
    "seeds",
    "return",
    "volatility",
    "Sharpe (95 %)",
    "drawdown",
    "turnover",
    "cost",
    "less equal weight (95 %)",
    "the same before costs",
    "verdict",
)


def run(
    part: Part,
    seeds: int,
    results: str = "results",
    line: str = "",
    only: Sequence[str] = KINDS,
) -> Comparison:
    """Train and judge everyone of these kinds or names; what is there already is kept."""
    made = configs(part, seeds, results, only)
    return run_experiments(made, workers=1, command=line)


def configs(
    part: Part, seeds: int, results: str = "results", only: Sequence[str] = KINDS
) -> list[ExperimentConfig | WindowedConfig]:
    """One experiment an agent; those that chance has no part in have one seed."""
    known = {*KINDS, *(entrant.title for entrant in part.entrants)}
    for name in only:
        if name not in known:
            raise unknown_name("agent or kind", name, sorted(known))
    made: list[ExperimentConfig | WindowedConfig] = []
    for entrant in (one for one in part.entrants if {one.kind, one.title} & {*only}):
        shared: dict[str, Any] = {
            "experiment": part.experiment,
            "data": DataConfig(source=part.universe, start=part.start),
            "agent": entrant.agent,
            "seeds": min(seeds, entrant.most_seeds),
            "results": results,
        }
        if part.walk is None:
            made.append(ExperimentConfig(**shared))
        else:
            made.append(WindowedConfig(**shared, walk=part.walk_of(entrant.kind)))
    return made


def kept(part: Part, results: str = "results") -> list[Run]:
    """Runs of one competition that lie there, of agents that take part in it."""
    folder = Path(results) / part.experiment
    return stored(folder, {entrant.title for entrant in part.entrants})


def analyse(
    part: Part, runs: Sequence[Run], n_resamples: int | None = None
) -> tuple[str, pd.DataFrame]:
    """A competition as Markdown, and its summary."""
    frame = summarise(runs, n_resamples=n_resamples)
    kinds = {entrant.title: entrant.kind for entrant in part.entrants}
    days = next(run for run in runs if run.finished).backtest.index
    absent = [name for name in kinds if name not in frame.index]
    lines = [
        f"## {title(part)}",
        "",
        f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days)} days. {headline(frame)} "
        f"Small p-values come from {frame.attrs['resamples']:,} resamples. {made_at(runs)}",
        "",
        *table(HEADINGS, [row(name, kinds[str(name)], one) for name, one in frame.iterrows()], 2),
        *(["", f"Not run: {', '.join(absent)}."] if absent else []),
    ]
    return "\n".join(lines), frame


def title(part: Part) -> str:
    """A competition in words."""
    if part.walk is None:
        return f"{part.universe}, one split"
    return f"{part.universe}, walk-forward"


def row(name: Any, kind: str, one: pd.Series) -> list[str]:
    """One agent's cells, in the order of `HEADINGS`."""
    if not one["seeds"]:
        return [str(name), kind, "0", *[""] * 8, str(one["verdict"])]
    return [
        str(name),
        kind,
        f"{one['seeds']:.0f}" + (f", {one['failed']:.0f} failed" if one["failed"] else ""),
        f"{one['annual_return']:.1%}",
        f"{one['volatility']:.1%}",
        spread(one["sharpe"], one["sharpe_low"], one["sharpe_high"], "{:.2f}"),
        f"{one['max_drawdown']:.1%}",
        f"{one['turnover']:.1f}",
        f"{one['cost']:.2%}",
        *(
            ("", "")
            if one["verdict"] in (HINDSIGHT, "reference")
            else tuple(
                spread(one[key], one[f"{key}_low"], one[f"{key}_high"])
                for key in ("difference", "gross")
            )
        ),
        short(one["verdict"]),
    ]


def overview(frames: dict[str, tuple[Part, pd.DataFrame]]) -> list[str]:
    """For every competition the verdicts counted, and the best of every kind."""
    lines = []
    kinds = [kind for kind in KINDS if kind != "hindsight"]
    rows, counts = [], []
    for part, frame in frames.values():
        of_kind = {entrant.title: entrant.kind for entrant in part.entrants}
        ranked = frame[frame["sharpe"].notna() & (frame["verdict"] != HINDSIGHT)]
        best = []
        for kind in kinds:
            own = ranked[[of_kind[str(name)] == kind for name in ranked.index]]
            best.append(f"{own.index[0]} {own['sharpe'].iloc[0]:.2f}" if len(own) else "")
        reference = frame.loc[frame["verdict"] == "reference", "sharpe"]
        equal = f"{reference.iloc[0]:.2f}" if len(reference) else "n/a"
        rows.append([title(part), equal, *best])
        counts.append([title(part), *counted(frame)])
    lines += table(["best Sharpe ratio, after costs", "equal weight", *kinds], rows)
    lines += [""]
    lines += table(
        [
            "against equal weight, number of agents",
            "compared",
            "higher Sharpe",
            "better",
            "better before costs only",
            "not distinguishable",
            "worse",
        ],
        counts,
    )
    return lines


def counted(frame: pd.DataFrame) -> list[str]:
    """Agents compared, those with a higher Sharpe ratio, and how the verdicts fell."""
    compared = frame[frame["difference"].notna()]
    words = Counter(_outcome(str(text)) for text in compared["verdict"])
    higher = int((compared["difference"] > 0).sum())
    order = ("better", "better before costs", "not distinguishable", "worse")
    return [str(len(compared)), str(higher), *(str(words[key]) for key in order)]


def _outcome(verdict: str) -> str:
    """A verdict's first words: what holds after costs, but for an edge that costs have taken."""
    if verdict.startswith("better") and "before costs" in verdict:
        return "better before costs"
    return next(
        key for key in ("better", "worse", "not distinguishable") if verdict.startswith(key)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables, and with --write keep them.

    Returns:
        The exit status; 1 where a run failed.

    """
    options = parser(STUDY, __doc__)
    names = [part.name for part in PARTS]
    options.add_argument(
        "--part", nargs="+", choices=names, default=names, help="which; --write renews all"
    )
    options.add_argument("--only", nargs="+", default=list(KINDS), help="agents or kinds of them")
    given = options.parse_args(argv)
    failed = 0
    for part in PARTS if not given.stored else ():
        if part.name in given.part:
            line = command(STUDY, ["--part", part.name, "--seeds", str(given.seeds)])
            failed += tell_failed(run(part, given.seeds, given.results, line, given.only))
    texts, frames = [], {}
    for part in PARTS:
        if part.name not in given.part and not given.write:
            continue
        runs = kept(part, given.results)
        if not any(run.finished for run in runs):
            continue
        text, frame = analyse(part, runs, given.resamples)
        folder = Path(given.results) / part.experiment
        write_report(runs, folder / "report.html", title=title(part), frame=frame)
        print(f"{text}\n\nReport: {folder / 'report.html'}\n", flush=True)
        texts.append(text)
        frames[part.name] = (part, frame)
    if not frames:
        return say("all_agents: no finished run", 1)
    summary = "\n".join(overview(frames))
    print(summary)
    if given.write:
        folder = Path(given.results)
        about = made_by(STUDY, again(given))
        write_section(folder / "README.md", STUDY, f"{about}\n\n{summary}")
        page = "\n\n".join(["# All agents", about, *texts])
        write_atomic(folder / f"{STUDY}.md", page + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with(main)
