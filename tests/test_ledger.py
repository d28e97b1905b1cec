"""The ledger over random episodes: what is owned adds up, on every day, to what it is worth.

Episodes of any size under proportional costs, with holding days, bands, lags and limits; `make
soak` plays 1,000.
"""

import itertools
import os
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import PortfolioEnv
from envs.constraints import MaxWeight, TurnoverCap
from envs.costs import ProportionalCost
from market import Market
from tests.test_determinism import exact_values

CASES = int(os.environ.get("ALLOCGYM_LEDGER_CASES", "100"))
random_episodes = settings(max_examples=CASES, deadline=None, derandomize=CASES == 100)
RATES = [0.0, 0.0005, 0.001, 0.01, 0.1]


class Episode(NamedTuple):
    """Prices, how they are played, the first holdings (N,) and the targets of each day, (T, N)."""

    prices: pd.DataFrame
    cash_rate: float | None
    buy: float
    sell: float
    rules: dict[str, Any]
    start: np.ndarray
    targets: np.ndarray

    def env(self) -> PortfolioEnv:
        market = Market.from_prices(self.prices, cash_rate=self.cash_rate)
        return PortfolioEnv(market, 1, cost=ProportionalCost(self.buy, self.sell), **self.rules)


LIMITS = [(MaxWeight(0.6),), (TurnoverCap(0.2),)]
RULES: dict[str, Any] = {
    "rebalance_every": st.integers(1, 5),
    "band": st.sampled_from([0.01, 0.2]),
    "decision_lag": st.integers(0, 1),
}


@st.composite
def episodes(draw: Any, days: int = 40, risky: int = 6, rules: Any = RULES) -> Episode:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(3, days)), draw(st.integers(2, risky))
    steps = rng.normal(0.0, draw(st.sampled_from([1e-4, 0.01, 0.1, 0.5])), (rows, columns))
    prices = draw(st.sampled_from([1e-3, 1.0, 1e5])) * np.exp(np.cumsum(steps, axis=0))
    dates, names = pd.bdate_range("2015-01-01", periods=rows), [f"A{i}" for i in range(columns)]
    rate = draw(st.sampled_from([None, 0.0, 0.03]))
    parts = rng.gamma(0.4, size=(rows + 1, columns + (rate is not None)))
    parts[rng.random(parts.shape) < 0.3] = 0.0
    parts[:, -1] += 1e-3  # never nothing at all
    start, *targets = parts / parts.sum(1, keepdims=True)
    return Episode(
        pd.DataFrame(prices, dates, names),
        rate,
        draw(st.sampled_from(RATES)),
        draw(st.sampled_from(RATES)),
        draw(st.fixed_dictionaries({}, optional=rules)),
        start,
        np.array(targets),
    )


def play(episode: Episode) -> list[dict[str, Any]]:
    """What is known at the reset and after each day."""
    env, targets = episode.env(), episode.targets
    _, info = env.reset(seed=0, options={"weights": episode.start})
    known, over = [info], False
    while not over:
        _, _, terminated, truncated, info = env.step(targets[len(known) - 1])
        known.append(info)
        over = terminated or truncated
    return known


@random_episodes
@given(episodes(rules=RULES | {"constraints": st.sampled_from(LIMITS)}))
def test_every_day_adds_up(episode):
    env, risky = episode.env(), episode.prices.shape[1]
    known, prices, day = play(episode), env.market.prices, env.rules.first
    units = known[0]["weights"][:risky] / prices[day, :risky]
    money = 1.0 - known[0]["weights"][:risky].sum()
    for before, after in itertools.pairwise(known):
        value, held, target = before["value"], before["weights"], after["target"]
        for weights in (target, after["weights"]):
            assert weights.min() >= 0.0
            assert abs(weights.sum() - 1.0) <= 1e-12
        # what is bought and sold, each at its own rate, leaves what is invested
        trades = (after["mu"] * value * target - value * held)[:risky]
        paid = episode.buy * trades[trades > 0].sum() - episode.sell * trades[trades < 0].sum()
        assert after["cost"] >= 0.0
        assert abs(after["cost"] * value - paid) <= 1e-12 * value
        growth = prices[day + 1] / prices[day]
        expected = value * (target @ growth) - paid * (target @ growth)
        assert abs(after["value"] - expected) <= 1e-12 * value * max(1.0, target @ growth)
        # a book of units and money, carried from day to day by trades alone
        units = units + trades / prices[day, :risky]
        money -= trades.sum() + paid
        money *= growth[-1] if env.market.has_cash else 1.0
        day += 1
        worth = (units * prices[day, :risky]).sum() + money
        assert abs(worth - after["value"]) <= 1e-9 * after["value"]
    assert day == env.rules.last or after["value"] <= env.rules.ruin


@random_episodes
@given(episodes(), st.floats(0.0, 1.0))
def test_an_asset_held_as_two_is_worth_the_same(episode, share):
    """Split invariance: the first asset twice, its target in two parts, at any cost."""
    twin = episode.prices.assign(twin=episode.prices["A0"])
    twin = twin[["twin", *episode.prices]]
    start, *targets = (
        np.concatenate([[share * part[0], (1.0 - share) * part[0]], part[1:]])
        for part in (episode.start, *episode.targets)
    )
    both = episode._replace(prices=twin, start=start, targets=np.array(targets))
    whole, parted = ([info["value"] for info in play(each)] for each in (episode, both))
    np.testing.assert_allclose(parted, whole, rtol=1e-12)


@random_episodes
@given(episodes(rules={}))
def test_holding_without_costs_earns_the_ratio_of_prices(episode):
    """Bought once; what is held is then given back as the target, or no trading day comes."""
    free = episode._replace(buy=0.0, sell=0.0)
    for rules in ({}, {"rebalance_every": len(episode.targets)}):
        env = free._replace(rules=rules).env()
        prices, start = env.market.prices, episode.targets[0]
        ratios = prices / prices[0] @ start
        env.reset(seed=0)
        target = start
        for row in range(1, len(prices)):
            _, _, terminated, _, info = env.step(target)
            assert info["value"] == pytest.approx(ratios[row], rel=1e-12)
            target = start if rules else info["weights"]
            if terminated:
                break


@random_episodes
@given(episodes(days=15, risky=3, rules={}))
def test_the_account_agrees_with_exact_fractions(episode):
    env = episode.env()
    known = play(episode)
    targets = [[Fraction(float(part)) for part in row] for row in episode.targets]
    start = [Fraction(float(part)) for part in known[0]["weights"]]
    risky, costs = episode.prices.shape[1], (episode.buy, episode.sell)
    exact = exact_values(env.market.prices, targets, start, *costs, risky)
    for info, value in zip(known, exact, strict=False):
        assert abs(Fraction(float(info["value"])) / value - 1) < Fraction(1, 10**12)
