"""Verdicts before and after costs, harder rules, and claims where there is nothing to claim."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from agents.base import Constant, Task
from agents.rollout import roll
from envs.costs import ProportionalCost
from experiments.evidence import HARDER, alone, over_all
from experiments.evidence_view import report_evidence
from experiments.history import Trials
from experiments.resampling import enough_resamples
from experiments.robustness import before_costs, halves, harder
from experiments.runs import Run
from experiments.statistics import (
    deflated_sharpe_ratio,
    probability_of_backtest_overfitting,
    superior_predictive_ability,
)
from experiments.studies import false_discovery
from experiments.summary import summarise
from experiments.verdict import LEVEL, short, together

T = 600
DAYS = pd.date_range("2016-01-04", periods=T, freq="B", name="date")
BASE = np.random.default_rng(0).normal(0.0004, 0.01, T)


def make(agent, gross, cost=0.0, seed=0, robustness=None):
    """A run whose holdings earn `gross` and pay `cost` a day."""
    returns = (1 - cost) * (1 + np.asarray(gross)) - 1
    frame = pd.DataFrame(
        {
            "value": np.cumprod(1 + returns),
            "portfolio_return": returns,
            "cost": cost,
            "turnover": 0.05,
            "risk_free": 4e-5,
            "target:stocks": 1.0,
        },
        index=DAYS,
    )
    path = Path(f"nowhere/demo/{agent}/seed_{seed:03d}")
    return Run(
        path=path,
        experiment="demo",
        agent=agent,
        seed=seed,
        backtest=frame,
        robustness=pd.DataFrame(robustness or {}, index=DAYS if robustness else None),
    )


def noise(seed, scale=0.002):
    steps = np.random.default_rng(seed).normal(0, scale, T)
    return steps - steps.mean()


def test_a_clear_loser_among_fifty_is_called_worse():
    """49 hold the reference's own portfolio; the last loses 0.5 % a day against it."""
    few = slice(0, 120)
    runs = [make("equal_weight", BASE), make("loser", BASE - 0.005 + noise(1))]
    runs += [make(f"twin_{number}", BASE) for number in range(49)]
    runs = [dataclasses.replace(run, backtest=run.backtest[few]) for run in runs]
    frame = summarise(runs)
    assert frame.attrs["resamples"] == 5000
    assert frame.loc["loser", "verdict"] == "worse than equal weight"
    assert frame["p_adjusted"].loc["loser"] <= LEVEL / 5.0
    coarse = summarise(runs, n_resamples=900)  # never as far off by luck, yet 1 / 901 > 0.05 / 50
    assert coarse.loc["loser", "p_value"] == pytest.approx(1 / 901)
    assert coarse.loc["loser", "verdict"] == "not distinguishable from equal weight"


@pytest.mark.parametrize("comparisons", [1, 19, 20, 53, 400])
def test_resamples_suffice_for_the_smallest_p_value_that_holm_asks_for(comparisons):
    number = enough_resamples(comparisons, LEVEL)
    assert 1 / (1 + number) <= LEVEL / comparisons / 5.0 and number >= 2000


@pytest.mark.parametrize(
    ("edge", "cost", "words"),
    [
        (0.0012, 0.0, "better than equal weight"),
        (0.0012, 0.0011, "better than equal weight before costs, not after"),
        (0.0012, 0.0030, "better than equal weight before costs, worse after"),
        (0.0, 0.0, "not distinguishable from equal weight"),
        (0.0, 0.0012, "worse than equal weight after costs, not before"),
        (-0.0012, 0.0, "worse than equal weight"),
    ],
)
def test_the_verdict_tells_what_costs_do(edge, cost, words):
    runs = [make("equal_weight", BASE), make("ppo", BASE + edge + noise(1), cost)]
    frame = summarise(runs, n_resamples=300)
    assert frame.loc["ppo", "verdict"] == words
    assert short(words) == words.replace(" than equal weight", "").replace(" from equal weight", "")


def test_returns_before_costs_are_those_of_free_trading(make_market):
    market = make_market(periods=120, risky=2)
    costly = Task(cost=ProportionalCost(0.004, 0.002))
    agent = Constant([0.6, 0.3, 0.1])
    paid, free = (roll(agent, market, task) for task in (costly, Task(cost=None)))
    # constant weights are the same portfolio whatever was paid on the way
    assert before_costs(paid.returns, paid.costs) == pytest.approx(free.returns, abs=1e-14)


def test_harder_rules_are_back_tests_under_those_rules(make_market):
    market = make_market(periods=120, risky=2)
    task = Task(cost=ProportionalCost(0.003))

    def play(rules):
        return roll(Constant([0.6, 0.3, 0.1]), market, rules, start=20)

    table = harder(play, task)
    doubled = roll(Constant([0.6, 0.3, 0.1]), market, Task(cost=ProportionalCost(0.006)), start=20)
    assert table["doubled costs"].to_numpy() == pytest.approx(doubled.returns, abs=1e-15)
    assert list(table.index) == list(market.dates[21:])

    class Follows(Constant):
        def act(self, history, weights):
            return np.eye(3)[int(history.returns[-1].argmax())]

    late = harder(lambda rules: roll(Follows(None), market, rules, start=20), Task(cost=None))
    chosen = market.returns[19:118].argmax(axis=1)  # yesterday's winner, a day later
    expected = market.returns[21:120][np.arange(99), chosen]
    assert late["a day late"].to_numpy() == pytest.approx(expected, abs=1e-15)


def test_the_table_shows_differences_under_each_rule():
    worse, better = BASE - 0.002 + noise(2), BASE + 0.002 + noise(3)
    same = {"doubled costs": BASE, "a day late": BASE}
    hard = {"doubled costs": worse, "a day late": better}
    runs = [make("equal_weight", BASE, robustness=same), make("ppo", BASE, robustness=hard)]
    row = summarise(runs, n_resamples=200).loc["ppo"]
    assert row["doubled costs_high"] < 0 < row["a day late_low"]

    def ratio(returns):
        excess = returns - 4e-5
        return excess.mean() / excess.std(ddof=1) * 252**0.5

    assert row["doubled costs"] == pytest.approx(ratio(worse) - ratio(BASE), abs=1e-9)
    first, second = (BASE[part] for part in halves(T).values())
    tilted = np.concatenate([first, second + 0.002])
    frame = summarise([make("equal_weight", BASE), make("ppo", tilted)], n_resamples=200)
    shown = frame.loc["ppo", list(HARDER)].astype(float)
    assert np.isnan(shown["doubled costs"])
    assert shown["first half"] == pytest.approx(0.0, abs=1e-9)
    assert shown["second half"] == pytest.approx(ratio(second + 0.002) - ratio(second), abs=1e-9)


def test_all_agents_at_once_are_the_published_tests_on_their_paths():
    agents = {f"a{i}": [make(f"a{i}", BASE + noise(i))] for i in range(4)}
    groups = {"equal_weight": [make("equal_weight", BASE)], **agents}
    found = over_all(groups, "equal_weight", {"n_resamples": 300, "rng": 0})
    panel = np.column_stack([g[0].backtest["portfolio_return"] - 4e-5 for g in groups.values()])
    assert found["overfitting"] == probability_of_backtest_overfitting(panel)
    test = superior_predictive_ability(
        panel[:, 1:], panel[:, 0], measure="sharpe", n_resamples=300, rng=0
    )
    assert found["superior"] == test.p_value
    assert set(found["best_set_p"]) == set(groups)
    assert found["stepwise"] == []


def test_many_mediocre_seeds_are_not_called_superior_for_averaging_out():
    """Each is as noisy as the reference and earns the same; held together they are calmer."""
    own = np.random.default_rng(3).normal(0, 0.04, (6, T))
    own -= own.mean(axis=1, keepdims=True)
    reference, *others = (BASE + 0.008 + step for step in own)
    base, seeds = (
        make("equal_weight", reference),
        [make("ppo", path, seed=i) for i, path in enumerate(others)],
    )
    mix = make("mix", np.mean(others, axis=0))
    draw = {"n_resamples": 400, "rng": 0}
    together = over_all({"equal_weight": [base], "mix": [mix]}, "equal_weight", draw)
    found = over_all({"equal_weight": [base], "ppo": seeds}, "equal_weight", draw)
    assert together["superior"] < 0.01 < 0.2 < found["superior"]
    assert together["best_set"] == ["mix"]
    assert found["best_set"] == ["equal_weight", "ppo"]


def test_probability_and_deflation_use_the_runs_own_moments():
    returns = np.random.default_rng(5).standard_t(4, T) * 0.01 + 0.0006
    row = alone([make("ppo", returns)], 252.0, Trials(7, 0.002))
    excess = returns - 4e-5
    z = (excess - excess.mean()) / excess.std()
    ratio = excess.mean() / excess.std(ddof=1)
    variance = 1 - (z**3).mean() * ratio + ((z**4).mean() - 1) / 4 * ratio**2
    assert row["probabilistic"] == pytest.approx(norm.cdf(ratio * ((T - 1) / variance) ** 0.5))
    assert row["deflated"] == pytest.approx(
        deflated_sharpe_ratio(ratio, T, 7, 0.002, (z**3).mean(), (z**4).mean())
    )
    years = (1 + variance * (norm.ppf(0.95) / ratio) ** 2) / 252
    assert row["years_needed"] == pytest.approx(years)


def test_the_chance_to_beat_the_reference_counts_seeds():
    runs = [make("equal_weight", BASE)]
    runs += [
        make("ppo", BASE + step + noise(7), seed=i) for i, step in enumerate((-2e-4, 1e-3, 2e-3))
    ]
    frame = summarise(runs, n_resamples=200)
    assert frame.loc["ppo", "improvement"] == pytest.approx(2 / 3)
    view = report_evidence(frame)
    assert dict(view["chance_rows"])["ppo"][3].startswith("67% (")
    assert any("Two to four seeds" in line for line in together(frame))


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    low, high = false_discovery.interval(3, 100)
    assert (low, high) == pytest.approx((0.0062, 0.0852), abs=1e-4)  # published tables
    assert binomtest(3, 100).proportion_ci(method="exact").high == pytest.approx(high)


def test_noise_is_seldom_called_an_edge_and_the_regime_market_is():
    noise_setting, regimes = (
        dataclasses.replace(setting, periods=periods)
        for setting, periods in zip(false_discovery.SETTINGS, (840, 4000), strict=True)
    )
    found = [false_discovery.claims(false_discovery.compare(noise_setting, s, 200)) for s in (0, 1)]
    assert found == [[], []]
    claimed = false_discovery.claims(false_discovery.compare(regimes, 0, 200))
    assert claimed == ["linear_forecast"]
    line = false_discovery.line(regimes, [claimed, []])
    assert "an edge is claimed in 1 (50%, 95 % interval 1.3% to 98.7%)" in line
