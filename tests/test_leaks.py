"""Leaks planted beyond the data: in the fill, in agents, in rewards, over splits (C7, C9, C11-C14).

Each is caught, and every registered agent and reward passes what catches it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Agent, Task
from agents.rollout import roll
from envs import PortfolioEnv, PortfolioVectorEnv
from envs.actions import make_actions
from envs.probe import white_noise_probe
from envs.rewards import REWARDS
from experiments.guard import Guard, LookAheadError
from experiments.splits import combinatorial, gaps, walk_forward
from market import Market
from market.audit import audit_function
from market.features.scaling import Scaler
from tests.test_agents import SMALL
from tests.test_audit import panel_market

FUTURE = ("truncate", "poison")
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 20))]
TRAINED, JUDGED = 110, 145  # rows of training and validation; decisions from here on
TINY = {"steps": 64, "num_envs": 2, "episode_length": 16, "lookback": 3, "width": 8, "depth": 1}
SETTINGS: dict[str, dict[str, Any]] = SMALL | {
    "dqn": TINY | {"evaluations": 1},
    "ppo": TINY | {"evaluations": 1, "n_steps": 8},
    "sac": TINY | {"evaluations": 1, "learning_starts": 16, "batch_size": 16},
    "sixty_forty": {"stocks": "A", "bonds": "C"},
}
HINDSIGHT = [name for name in AGENTS if AGENTS[name].hindsight]


# ---- C7: the fill


def same_bar(market: Market) -> PortfolioEnv:
    """Earns the return that the window it was decided on ends with."""
    env = PortfolioEnv(market, lookback=5)
    env.rules.returns = np.roll(env.rules.returns, 1, axis=0)
    env.rules.relatives = 1.0 + env.rules.returns
    return env


def peeking(market: Market) -> PortfolioEnv:
    """Shows the next return as a feature (C1)."""
    ahead = np.roll(market.returns, -1, axis=0)[:, :, None].astype(np.float32)
    return PortfolioEnv(dataclasses.replace(market, features=ahead), lookback=5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [same_bar, peeking])
def test_white_noise_shows_a_fill_at_a_price_already_seen(make, seed):
    probe = white_noise_probe(make, seed=seed)
    assert probe.r2 > 0.5 and probe.sharpe > 10.0
    assert not probe.passed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("settings", [{}, {"decision_lag": 1}, {"compact": True}, {"fill": "open"}])
def test_white_noise_cannot_be_foreseen_in_our_environments(settings, seed):
    def make(market: Market) -> PortfolioEnv:
        if settings.get("fill") != "open":
            return PortfolioEnv(market, lookback=5, **settings)
        opens = market.prices.copy()  # half-way to the close
        opens[1:] = np.sqrt(market.prices[1:] * market.prices[:-1])
        return PortfolioEnv(dataclasses.replace(market, opens=opens), 5, fill="next_open")

    assert white_noise_probe(make, seed=seed).passed


# ---- C9: agents


@functools.cache
def moves(seed: int) -> Market:
    return panel_market(seed, 160, listings=False)


@functools.cache
def trained(name: str, seed: int) -> Agent:
    """On the market of that seed; acting leaves no trace, so that tests can share it."""
    agent: Agent = AGENTS[name](**SETTINGS.get(name, {}))
    return agent.fit(moves(seed)[:TRAINED], moves(seed)[TRAINED:JUDGED], seed=seed)


def weights(agent: Agent, market: Market) -> pd.DataFrame:
    """Targets by the date they are decided on, the last one too; what is held drifts."""
    held: Any = np.eye(market.n_assets)[-1]
    made: list[Any] = []
    for row in range(JUDGED, market.n_periods):
        if made:
            grown = made[-1] * (1.0 + market.returns[row])
            held = grown / grown.sum()
        made.append(agent.act(market.upto(row), held.copy()))
    return pd.DataFrame(made, market.dates[JUDGED:])


def verdicts(make: Callable[[Market], Agent], market: Market, dates: int = 3) -> set[str]:
    """Of an agent's decisions against other futures."""
    found = audit_function(
        lambda world: weights(make(world), world),
        market,
        dates=dates,
        tests=FUTURE,
        after=market.dates[JUDGED],
    )
    assert all(finding.tested == dates for finding in found)
    return {finding.verdict for finding in found}


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in HINDSIGHT])
def test_no_agent_decides_by_what_comes_later(name):
    assert verdicts(lambda _: trained(name, 0), moves(0)) == {"pass"}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 20))
@pytest.mark.parametrize("name", [name for name in AGENTS if name not in HINDSIGHT])
def test_no_false_alarm_over_agents(name, seed):
    assert verdicts(lambda _: trained(name, seed), moves(seed)) == {"pass"}


class OffByOne(Agent):
    """Asks another agent about the day after the decision: an index that is one too high."""

    def __init__(self, inner: Agent, whole: Market) -> None:
        self.inner, self.whole, self.lookback = inner, whole, inner.lookback

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        row = self.whole.index(history.dates[-1])
        return self.inner.act(self.whole.upto(min(row + 1, self.whole.n_periods - 1)), weights)


@pytest.mark.parametrize(
    "name", ["mean_variance", "minimum_variance", "lstm", "forecast", "ppo", "newton_step"]
)
def test_an_agent_whose_inputs_are_off_by_one_is_caught(name):
    assert verdicts(lambda world: OffByOne(trained(name, 0), world), moves(0)) == {"FAIL"}


@pytest.mark.parametrize("name", HINDSIGHT)
def test_what_knows_the_future_is_marked_and_would_be_caught(name):
    def learned(market: Market) -> Agent:
        return AGENTS[name](**SETTINGS.get(name, {})).fit(market[JUDGED:])

    assert verdicts(learned, moves(0)) == {"FAIL"}


# ---- rewards: what is paid for a day is known on that day


def paid(spec: str, market: Market, peek: int = 0) -> pd.DataFrame:
    """Rewards of seeded random weights by the day they are earned on."""
    env = PortfolioEnv(market, lookback=3, reward=spec)
    if peek:
        env.rules.returns = np.roll(env.rules.returns, -peek, axis=0)
        env.rules.relatives = 1.0 + env.rules.returns
    env.reset(seed=0)
    rng, rewards, over = np.random.default_rng(0), [], False
    while not over:
        _, reward, terminated, truncated, _ = env.step(rng.dirichlet(np.ones(market.n_assets)))
        rewards.append(reward)
        over = terminated or truncated
    if spec in AT_THE_END:  # the last row pays for the whole episode
        rewards.pop()
    return pd.DataFrame({"reward": rewards}, market.dates[3 : 3 + len(rewards)])


AT_THE_END = {"episode_sharpe"}
SPECS = {name: "active_return('A')" if name == "active_return" else name for name in REWARDS}


@pytest.mark.parametrize("name", SPECS)
def test_no_reward_knows_a_later_day(name):
    tests = ("poison",) if name in AT_THE_END else FUTURE
    found = audit_function(lambda world: paid(SPECS[name], world), moves(0), dates=6, tests=tests)
    assert {finding.verdict for finding in found} == {"pass"}


def test_a_reward_of_tomorrow_is_caught():
    found = audit_function(
        lambda world: paid("log_return", world, peek=1), moves(0), dates=6, tests=FUTURE
    )
    assert {finding.verdict for finding in found} == {"FAIL"}


# ---- C11, C12, C14: splits


def overlaps(folds: Any, horizon: int, lookback: int) -> int:
    """Training samples whose label or window shares a row with a label that is judged."""
    wrong = 0
    for train, tests in folds:
        judged = {t + step for test in tests for t in test for step in range(1, horizon + 1)}
        for t in train:
            label = set(range(t + 1, t + horizon + 1))
            later = t > min(judged)  # what is seen reaches back into a test before it
            window = set(range(t - lookback + 1, t + 1)) if later else set()
            wrong += bool(judged & (label | window))
    return wrong


@pytest.mark.parametrize(("horizon", "lookback"), [(1, 1), (5, 10), (3, 20)])
def test_folds_that_overlap_are_found_and_ours_do_not(horizon, lookback):
    def cut(spaces: Any) -> Any:
        made = combinatorial(300, spaces, n_folds=5, n_test=2)
        return [(np.concatenate(fold.train), fold.tests) for fold in made]

    right = gaps(lookback, horizon)
    assert overlaps(cut(right), horizon, lookback) == 0
    assert overlaps(cut(right._replace(embargo=max(0, right.embargo - 2))), horizon, lookback) > 0
    if horizon > 1:
        assert overlaps(cut(right._replace(purge=0)), horizon, lookback) > 0
    for window in walk_forward(300, 200, 20, n_valid=30, horizon=horizon):
        assert window.train[1] <= window.valid[0] < window.valid[1] <= window.test[0]


class Peeker(Agent):
    """Chooses its state on the test span, through the only door to the data there is."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        self.guard.rows(0, len(self.guard.dates))
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        return weights


def test_choosing_a_model_on_the_test_span_raises(market):
    guard = Guard(market, 79)
    with pytest.raises(LookAheadError, match=f"nothing after {market.dates[79]:%Y-%m-%d}"):
        Peeker(guard).fit(guard.rows(0, 60), guard.rows(60, 80))
    guard.release()
    Peeker(guard).fit(guard.rows(0, 60))


def test_every_row_that_training_serves_lies_in_its_fold(market):
    """C14: windows of random starts, to the end of each episode, in batches of any length."""
    fold, last = market[:80], 79
    for length in (None, 1, 7, 60):
        games = PortfolioVectorEnv(
            fold, 8, lookback=10, compact=True, random_start=True, episode_length=length
        )
        observation, infos = games.reset(seed=3)
        for _ in range(200):
            assert observation["time"].min() >= 9  # a whole window lies before it
            assert observation["time"].max() <= last
            assert max(infos["date"]) <= fold.dates[-1]
            observation, *_, infos = games.step(np.full((8, 5), 0.2))
    with pytest.raises(IndexError):
        games.rules.returns[80]


# ---- C13: nothing is updated while it is judged


class Refits(Agent):
    """Scales by what it saw up to now, and remembers it: a scaler that learns in evaluation."""

    lookback = 5

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        self.seen.append(history.returns[-1])
        scores = history.returns[-1] / (1e-3 + np.std(self.seen, axis=0))
        return np.asarray(make_actions("softmax").target(scores, weights, 0))


def twice(agent: Agent, market: Market) -> bool:
    """Whether two evaluations in a row give the same bytes."""
    first, second = (roll(agent, market, Task()).targets.tobytes() for _ in range(2))
    return first == second


def test_a_scaler_that_learns_in_evaluation_is_caught():
    assert not twice(Refits(), moves(0))


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in HINDSIGHT])
def test_judging_an_agent_twice_gives_the_same_bytes(name):
    agent = trained(name, 0)
    scaler = getattr(agent, "_scaler", None)
    kept = scaler.to_json() if isinstance(scaler, Scaler) else ""
    assert twice(agent, moves(0)[60:])
    assert (scaler.to_json() if isinstance(scaler, Scaler) else "") == kept
