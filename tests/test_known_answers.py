"""The known-answers study: its valuation is exact, and small versions of each agent find optima."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.allocation_values import fitted_prices
from agents.base import Agent, Constant
from agents.sb3_env import CompactVecEnv
from benchmarks.known_answers import study, table
from benchmarks.known_answers.agents import ENTRIES, Entry
from benchmarks.known_answers.cases import CASES
from benchmarks.known_answers.exact import growth, growth_over_histories, idling
from envs import PortfolioVectorEnv
from envs.actions import Softmax
from envs.costs import ProportionalCost
from market.sources.chain import Chain

STATED = [name for name, case in CASES.items() if case.view is not None]


class Optimal(Agent):
    """Plays a market's optimum from what the exam shows."""

    lookback = 1

    def __init__(self, optimum: Any) -> None:
        self.optimum = optimum

    def act(self, history: Any, weights: np.ndarray) -> np.ndarray:
        state = min(history.n_periods - 1, self.optimum.chain.n_states - 1)
        return self.optimum.policy(np.array([state]), weights[None])[0]


@pytest.mark.parametrize("name", STATED)
def test_the_optimum_scores_one_and_equal_weights_nought(name: str):
    market = CASES[name].market(0)
    optimum, exam = market.optimum, CASES[name].exam(market)
    assert growth(Optimal(optimum), exam, optimum) == pytest.approx(optimum.growth, abs=1e-9)
    even = Constant(np.full(market.n_assets, 1.0 / market.n_assets))
    assert growth(even, exam, optimum) == pytest.approx(optimum.growth_equal, abs=1e-9)


@pytest.mark.parametrize("name", STATED)
def test_the_exam_shows_each_state_as_the_path_does(name: str):
    market = CASES[name].market(3)
    optimum, exam = market.optimum, CASES[name].exam(market)
    shown = market.features[1:-1]  # nothing precedes the first row or follows the last
    seen = exam.features[: optimum.chain.n_states]
    distance = np.abs(shown[:, None] - seen[None]).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 1e-6  # whatever agents meet, they are asked about
    states = distance.argmin(axis=1)
    log_returns = np.log1p(market.returns[2:])
    for state in np.unique(states)[:4]:
        met, allowed = log_returns[states == state], optimum.chain.probabilities[state] > 0.0
        possible = np.log1p(optimum.chain.outcomes[allowed])
        assert np.abs(met[:, None] - possible).max(axis=2).min(axis=1).max() < 1e-9


def test_histories_are_summed_by_hand():
    """Half of what is held, kept as it drifts, in a game of two outcomes."""
    chain = Chain.independent(np.array([[1.0, 0.0, 0.0], [-0.5, 0.0, 0.0]]), np.array([0.5, 0.5]))
    start = np.array([1 / 3, 1 / 3, 1 / 3])
    found = growth_over_histories(lambda states, held: held, chain, most=2)
    up, down = start * [2, 1, 1] / (4 / 3), start * [0.5, 1, 1] / (2.5 / 3)
    expected = [0.5 * np.log1p(w[0]) + 0.5 * np.log1p(-0.5 * w[0]) for w in (up, down)]
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


def test_idling_loses_nothing_and_trading_what_it_costs():
    case = CASES["noise"]
    market = case.market(7)

    class Hold(Agent):
        def act(self, history: Any, weights: np.ndarray) -> np.ndarray:
            return weights

    still = idling(Hold(), market, case.task)
    assert still.turnover < 1e-15 and abs(still.loss) < 1e-12
    even = idling(Constant(np.full(4, 0.25)), market, case.task)
    assert even.turnover > 0.002  # the assets drift by about 1 % a day
    assert 0.5 < even.loss / (252 * even.turnover * 0.02) < 1.0  # 1 % on both sides of a trade


def test_what_a_lattice_allows_grows_with_the_choice_to_hold():
    optimum = CASES["regimes_80_cost_2"].market(0).optimum
    menu = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert optimum.growth_within(menu) < optimum.growth_within(menu, hold=True) < optimum.growth


def test_prices_of_one_risky_asset_and_cash():
    """Both legs of each trade are alike but for rounding, which must not be read as prices."""
    rng = torch.Generator().manual_seed(0)
    moves = torch.rand(200, generator=rng, dtype=torch.float64) - 0.5
    held = torch.rand(200, generator=rng, dtype=torch.float64)
    target = torch.stack([held + moves, 1.0 - held - moves], 1).float()
    trades = target - torch.stack([held, 1.0 - held], 1).float()
    spread, tilt = fitted_prices(trades, 2.0 * moves.abs())
    torch.testing.assert_close(spread, torch.ones(2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tilt[0] - tilt[1], torch.tensor(0.0), rtol=0.0, atol=1e-3)


def games(**settings: Any) -> CompactVecEnv:
    market = CASES["regimes_80"].market(0)
    rules = PortfolioVectorEnv(
        market,
        4,
        lookback=1,
        actions=Softmax(),
        cost=ProportionalCost(0.02),
        episode_length=5,
        random_start=True,
        compact=True,
        autoreset_mode="SameStep",
    )
    return CompactVecEnv(rules, 0, 1.0, **settings)


def played(env: CompactVecEnv) -> tuple[np.ndarray, np.ndarray]:
    """Rows of decisions and rewards of 12 steps with the same actions, (12, B)."""
    rng, rows, rewards = np.random.default_rng(0), [env.reset()["time"][:, 0]], []
    for _ in range(12):
        env.step_async(rng.normal(size=(4, 2)).astype(np.float32))
        observation, reward, _, _ = env.step_wait()
        rows.append(observation["time"][:, 0])
        rewards.append(reward)
    return np.array(rows[:-1]), np.array(rewards)


def test_rewards_less_the_market_differ_by_its_growth_alone():
    rows, plain = played(games())
    same, less = played(games(less_market=True))
    returns = CASES["regimes_80"].market(0).returns
    np.testing.assert_array_equal(rows, same)
    np.testing.assert_allclose(
        plain - less, np.log1p(returns[rows + 1].mean(axis=2)), rtol=0.0, atol=1e-6
    )


def test_costs_are_phased_in():
    """At first nothing is paid, then all; in between a share of it."""
    env = games()
    env.phase_in_costs(4 * 8.0)
    _, rewards = played(env)
    _, charged = played(games())
    refund = rewards - charged
    assert (refund >= -1e-7).all() and (refund[8:] == 0.0).all()
    assert refund[0].min() > 0.0
    assert refund[:2].mean() > 1.5 * refund[5:8].mean()


SCORES: dict[str, tuple[str, dict[str, Any], float]] = {
    "policy_gradient": ("regimes_80_cost_2", {}, 0.95),
    "ppo": ("regimes_80", {"steps": 120_000, "num_envs": 512, "batch_size": 1024}, 0.85),
    "dqn": ("regimes_80", {"steps": 60_000, "num_envs": 256}, 0.9),
    "dqn_plain": ("regimes_80", {"steps": 130_000, "learning_starts": 30_000}, 0.75),
    "sac": ("regimes_100", {"steps": 8_000, "batch_size": 512}, 0.7),
}


@pytest.mark.parametrize("name", list(SCORES))
def test_agents_find_known_answers(name: str):
    """Small versions: fewer steps than the study's, and a lower floor."""
    at, fewer, least = SCORES[name]
    case, entry = CASES[at], ENTRIES[name]
    market = case.market(0)
    small = Entry(name=entry.name, always=entry.settings(case.cost) | fewer)
    agent = small.agent(case.cost).fit(market, task=case.task, seed=0)
    untrained = small.agent(case.cost, trained=False).fit(market, task=case.task, seed=0)
    score = study.figures(agent, case, market, 0)["score"]
    assert score > least and score > study.figures(untrained, case, market, 0)["score"]


def test_results_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick = Entry(name="policy_gradient", always={"steps": 5, "segments": 8})
    monkeypatch.setitem(ENTRIES, "quick", quick)
    runs = study.runs_of(["alternating", "noise"], ["quick"], 1)
    path = tmp_path / "new" / "results.jsonl"
    first = list(study.perform_all(runs, study.Store(path), 1))
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert stored == first and [result["case"] for result in first] == ["alternating", "noise"]
    store = study.Store(path)
    assert list(study.perform_all(runs, store, 1)) == first  # seconds and all
    monkeypatch.setitem(ENTRIES, "quick", Entry(name="policy_gradient", always={"steps": 6}))
    assert all(store.result(run) is None for run in runs)
    old = Entry(name="policy_gradient", always=quick.always, free={"segments": 9})
    monkeypatch.setitem(ENTRIES, "quick", old)  # the settings of "noise", which has costs, are back
    store.tidy()
    assert [json.loads(line) for line in path.read_text().splitlines()] == first[1:]


def test_on_noise_nobody_is_better_than_one_who_loses_nothing():
    def on_noise(trained: float, untrained: float) -> bool:
        return study.better({"trained": {"loss": trained}, "untrained": {"loss": untrained}})

    assert on_noise(0.01, 0.02) and on_noise(-1e-16, 0.0) and on_noise(0.0, 0.0)
    assert not on_noise(0.02, 0.01) and not on_noise(1e-5, 0.0) and not on_noise(0.01, 0.01)


def test_an_agent_is_better_than_untrained_on_the_mean_of_the_middle_half():
    """Of four seeds the second and third count: 1.0 against 0.9, and 1.0 against 1.1."""

    def seeds(untrained: list[float]) -> list[dict[str, Any]]:
        trained = [-9.0, 0.8, 1.2, 9.0]
        pairs = zip(trained, untrained, strict=True)
        return [{"trained": {"growth": a}, "untrained": {"growth": b}} for a, b in pairs]

    assert study.better_on_average(seeds([0.8, 1.0, -50.0, 50.0]))
    assert not study.better_on_average(seeds([1.0, 1.2, -50.0, 50.0]))


def test_floors_are_told(tmp_path: Path):
    def found(score: float, seed: int) -> dict[str, Any]:
        figures = {"trained": {"growth": score, "score": score}}
        return (
            {"case": "kelly", "agent": "ppo", "seed": seed, "seconds": 1.0}
            | figures
            | {"untrained": {"growth": 0.0, "score": 0.0}}
        )

    good, bad = ([found(score, seed) for seed in range(10)] for score in (0.96, 0.94))
    assert table.met("kelly", "ppo", good) and not table.met("kelly", "ppo", bad)
    assert table.met("merton", "td3", bad) is None
    assert "**missed**" in table.markdown(bad, "x") and "missed" not in table.markdown(good, "x")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end of measured -->\nafter\n")
    table.write(page, "new")
    assert page.read_text() == "before\n<!-- measured -->\nnew\n<!-- end of measured -->\nafter\n"
