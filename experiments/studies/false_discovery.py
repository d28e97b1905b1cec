"""How often does a comparison claim an edge where there is none, and where there is one?

100 markets of pure noise: four assets alike in everything, with features that mean nothing, so that
equal weights are best and whatever else is held is luck minus costs. Then the regime market, whose
signal tells which way the next return leans. A few cheap agents, one of which learns from the
features, are compared with equal weight as `allocgym compare` does; to claim is to say "better".

Metric: share of comparisons (whole tables) with a claim of any agent, with its 95 % interval by
Clopper and Pearson. At most 5 % on noise, at least 95 % on the regime market.

    python -m experiments.studies.false_discovery [--markets 100] [--kind noise]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents import AGENTS
from agents.base import Agent, Task
from envs.costs import ProportionalCost
from experiments.backtest import backtest
from experiments.runs import Run
from experiments.studies.pages import made_by, write_section
from experiments.studies.study_command import StudyParser, exit_with
from experiments.summary import summarise
from market import Market, load_market

COST = ProportionalCost(0.001)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of market, and how its comparisons should end."""

    kind: str
    periods: int
    train: float  # share of the periods
    rules: tuple[str, ...]  # beside the linear forecast
    wanted: str


SETTINGS = (
    Setting(
        kind="noise",
        periods=1260,
        train=0.4,
        rules=(
            "equal_weight",
            "buy_and_hold",
            "inverse_volatility",
            "cross_sectional_momentum",
            "exponentiated_gradient",
        ),
        wanted="at most 5 %",
    ),
    Setting(  # with one risky asset most rules are the same
        kind="regimes",
        periods=4000,
        train=0.25,
        rules=("equal_weight", "buy_and_hold"),
        wanted="95 % or more",
    ),
)


class LinearForecast(Agent):
    """Least squares of the next return on the features; everything in the best forecast.

    y[t + 1, i] = a + b . x[t, i], over all assets and days of training at once; forecasts move the
    portfolio only where they beat those of what is held by more than the trade costs.
    """

    learns = True

    def fit(self, train: Market, valid: Market | None = None, **_: Any) -> LinearForecast:
        """Solve the normal equations."""
        rows = train.features[:-1].astype(np.float64)
        inputs = np.concatenate([np.ones((*rows.shape[:2], 1)), rows], axis=2)
        risky = train.n_assets - train.has_cash
        flat = inputs[:, :risky].reshape(-1, inputs.shape[2])
        self.weights = np.linalg.lstsq(flat, train.returns[1:, :risky].ravel(), rcond=None)[0]
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The best forecast, if it is worth the way there."""
        forecasts = self.weights[0] + history.features[-1].astype(np.float64) @ self.weights[1:]
        if history.has_cash:
            forecasts[-1] = history.risk_free[-1]
        target = np.eye(history.n_assets)[int(np.argmax(forecasts))]
        gain = forecasts @ (target - weights)
        return target if gain > COST.buy * np.abs(target - weights).sum() else weights


def compare(setting: Setting, seed: int, n_resamples: int = 1000) -> pd.DataFrame:
    """The table of one market: agents trained on its first part, judged on the rest."""
    market = load_market("synthetic", kind=setting.kind, seed=seed, periods=setting.periods)
    cut = round(setting.train * setting.periods)
    agents: dict[str, Agent] = {name: AGENTS[name]() for name in setting.rules}
    agents["linear_forecast"] = LinearForecast()
    runs = []
    for name, agent in agents.items():
        agent.fit(market[:cut], task=Task(cost=COST), seed=seed)
        path = backtest(agent, market, cost=COST, start=market.dates[cut - 1])
        runs.append(_run(name, path.frame()))
    return summarise(runs, n_resamples=n_resamples, rng=seed)


def _run(name: str, frame: pd.DataFrame) -> Run:
    path = Path("results") / "false_discovery" / name / "seed_000"
    return Run(path=path, experiment="false_discovery", agent=name, seed=0, backtest=frame)


def claims(frame: pd.DataFrame) -> list[str]:
    """Agents that a table calls better than the reference, after or before costs."""
    return [str(name) for name, row in frame.iterrows() if str(row["verdict"]).startswith("better")]


def interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper & Pearson's exact interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(hits, total).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def study(
    settings: Sequence[Setting] = SETTINGS, markets: int = 100, n_resamples: int = 1000
) -> Iterator[str]:
    """Lines of the result, one kind of market after the other."""
    for setting in settings:
        found = []
        for seed in range(markets):
            found.append(claims(compare(setting, seed, n_resamples)))
            if (seed + 1) % 10 == 0:
                print(f"{setting.kind}: {seed + 1} of {markets}", file=sys.stderr, flush=True)
        yield line(setting, found)


def line(setting: Setting, found: Sequence[Sequence[str]]) -> str:
    """One kind of market as a row of the result."""
    hits, total = sum(map(bool, found)), len(found)
    low, high = interval(hits, total)
    names = pd.Series([name for claimed in found for name in claimed], dtype=str).value_counts()
    by_whom = ", ".join(f"{name} {count}" for name, count in names.items()) or "nobody"
    return (
        f"{setting.kind}: {total} comparisons of {len(setting.rules) + 1} agents: an edge "
        f"is claimed in {hits} ({hits / total:.0%}, 95 % interval {low:.1%} to {high:.1%}); "
        f"wanted: {setting.wanted}. By: {by_whom}."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and print its lines."""
    parser = StudyParser("false_discovery", __doc__)
    parser.add_argument("--markets", type=int, default=100, help="markets of each kind")
    parser.add_argument(
        "--kind", choices=[setting.kind for setting in SETTINGS], help="only this kind of market"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--results", default="results", help="folder of all experiments")
    parser.add_argument("--write", action="store_true", help="renew the lines in --results")
    given = parser.parse_args(argv)
    chosen = [setting for setting in SETTINGS if given.kind in (None, setting.kind)]
    lines = []
    for text in study(chosen, given.markets, given.resamples):
        print(text, flush=True)
        lines.append(text)
    if given.write:
        about = made_by("false_discovery", ["--markets", str(given.markets), "--write"])
        text = "\n".join([about, "", *(f"- {line}" for line in lines)])
        write_section(Path(given.results) / "README.md", "false_discovery", text)
    return 0


if __name__ == "__main__":
    exit_with(main)
