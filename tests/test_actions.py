"""Actions: finite sets against their definitions, menus against other solvers, users' own maps."""

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gymnasium.spaces import Discrete
from gymnasium.vector import SyncVectorEnv

from envs import PortfolioEnv, PortfolioVectorEnv
from envs.actions import Discretisation, Lattice, Menu, Moves, Softmax, make_actions
from envs.costs import ProportionalCost
from envs.portfolios import PORTFOLIOS, inverse_volatility, minimum_variance, momentum
from market import ActionError, Market, SettingError


class AllOrNothing(Discretisation):
    """The example of the interface's documentation."""

    def size(self, n_assets):
        return 2

    def names(self, market):
        return ["all in cash", "all assets equally"]

    def target(self, action, held, t):
        n_assets = held.shape[-1]
        menu = np.stack([np.eye(n_assets)[-1], np.full(n_assets, 1 / n_assets)])
        return menu[self.choice(action, held)]


class Seen(AllOrNothing):
    """Keeps what it was shown."""

    def __init__(self):
        self.rows: list[Any] = []

    def target(self, action, held, t):
        self.rows.append(t)
        return super().target(action, held, t)


class Leveraged(AllOrNothing):
    def target(self, action, held, t):
        return 20.0 * super().target(action, held, t)


def test_a_users_own_set_plays_alone_and_in_batches(market):
    env = PortfolioEnv(market, lookback=5, actions=AllOrNothing())
    assert env.action_space == Discrete(2)
    env.reset()
    *_, info = env.step(1)
    np.testing.assert_array_equal(info["target"], [0.2] * 5)
    games = PortfolioVectorEnv(market, 3, lookback=5, actions=AllOrNothing())
    games.reset()
    *_, infos = games.step(np.array([0, 1, 0]))
    np.testing.assert_array_equal(infos["target"], [[0, 0, 0, 0, 1], [0.2] * 5, [0, 0, 0, 0, 1]])
    assert infos["value"][1] == info["value"]


@pytest.mark.parametrize("lag", [0, 2])
def test_a_set_is_told_the_newest_row_it_may_see(market, lag):
    env = PortfolioEnv(market, lookback=5, actions=(single := Seen()), decision_lag=lag)
    env.reset()
    env.step(0)
    games = PortfolioVectorEnv(market, 2, lookback=5, actions=(batch := Seen()), decision_lag=lag)
    games.reset()
    games.step([0, 1])
    assert single.rows == [4]  # the row that ends the window, whatever the lag
    np.testing.assert_array_equal(batch.rows, [[4, 4]])


def test_a_users_weights_are_checked(market):
    env = PortfolioEnv(market, lookback=5, actions=Leveraged())
    env.reset()
    before = env.get_state()
    with pytest.raises(ActionError, match=r"Leveraged.*sum to 1.*got sum 20"):
        env.step(1)
    assert env.get_state()["game"]["t"] == before["game"]["t"]
    games = PortfolioVectorEnv(market, 2, lookback=5, actions=Leveraged())
    games.reset()
    with pytest.raises(ActionError, match="environment 0"):
        games.step([1, 1])


@pytest.mark.parametrize("action", [2, -1, 0.5, [0, 1], np.nan, "cash"])
def test_a_choice_outside_the_set_is_refused(market, action):
    env = PortfolioEnv(market, lookback=5, actions=AllOrNothing())
    env.reset()
    with pytest.raises(ActionError, match="action must be"):
        env.step(action)


def test_moves_shift_a_step_or_all_there_is():
    moves, held = Moves(0.1), np.array([0.3, 0.05, 0.65])
    assert moves.size(3) == 7
    found = [moves.target(np.array(i), held, 0) for i in range(7)]
    np.testing.assert_array_equal(found[0], held)
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    for target, (a, b) in zip(found[1:], pairs, strict=True):
        shift = min(0.1, held[a])
        expected = held.copy()
        expected[a] -= shift
        expected[b] += shift
        np.testing.assert_allclose(target, expected, atol=1e-16)
        assert target.min() >= 0.0 and abs(target.sum() - 1.0) < 1e-15
    batch = moves.target(np.arange(7), np.tile(held, (7, 1)), 0)
    np.testing.assert_array_equal(batch, found)
    np.testing.assert_array_equal(held, [0.3, 0.05, 0.65])


def test_moves_are_named_in_order(market):
    names = Moves(0.25).names(market)
    assert len(names) == Moves(0.25).size(5) == 21
    assert names[0] == "hold" and names[1] == "25 % A0 -> A1" and names[-1] == "25 % cash -> A3"


def test_holding_by_moves_costs_nothing(market):
    env = PortfolioEnv(market, lookback=5, actions=Moves(0.2), cost=ProportionalCost(0.05))
    env.reset(options={"weights": [0.3, 0.3, 0.2, 0.1, 0.1]})
    growth = 1.0
    for _ in range(40):
        _, reward, *_, info = env.step(0)
        assert info["cost"] == 0.0 and info["turnover"] == 0.0
        growth *= math.exp(reward)
    start, end = market.prices[4], market.prices[44]
    assert growth == pytest.approx(np.dot(end / start, [0.3, 0.3, 0.2, 0.1, 0.1]), rel=1e-12)


@pytest.mark.parametrize("actions", ["moves(0.3)", "menu", "lattice(2)"])
@pytest.mark.parametrize("lag", [0, 3])
def test_batches_equal_single_environments(market, actions, lag):
    settings: dict[str, Any] = {
        "lookback": 10,
        "actions": actions,
        "cost": ProportionalCost(0.01),
        "decision_lag": lag,
        "episode_length": 15,
        "random_start": True,
    }
    ours = PortfolioVectorEnv(market, 4, **settings)
    theirs = SyncVectorEnv([lambda: PortfolioEnv(market, **settings)] * 4)
    ours.reset(seed=3), theirs.reset(seed=3)
    ours.action_space.seed(0)
    for _ in range(60):
        action = ours.action_space.sample()
        one, two = ours.step(action), theirs.step(action)
        for a, b in zip(one[1:4], two[1:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one[0]["weights"], two[0]["weights"])


def test_lattice_names_are_portfolios(market):
    lattice, names = Lattice(2), Lattice(2).names(market)
    assert len(names) == lattice.size(5) == 15
    assert "50 % A0, 50 % cash" in names and "100 % A3" in names


def test_a_lattice_too_large_says_its_size_and_what_to_use(make_market):
    with pytest.raises(SettingError, match=r"171,700 portfolios.*20,000") as caught:
        PortfolioEnv(make_market(30, risky=99), lookback=2, actions="lattice(3)")
    assert "use lattice(2), moves(0.1) with 9,901, or menu with 104" in str(caught.value)
    assert Lattice(4).size(20) == 8_855
    with pytest.raises(SettingError, match=r"40,201 actions.*menu with 205"):
        Moves().size(201)


def test_expressions():
    assert make_actions("lattice(3)") == Lattice(3)
    assert make_actions("moves(step=0.2)") == Moves(0.2)
    assert make_actions("softmax(bound=5)") == Softmax(5)
    assert make_actions("menu(('equal_weight', 'momentum(20)'))").space(9) == Discrete(2)
    assert make_actions("menu").space(9) == Discrete(13)
    assert make_actions(Moves(0.5)) == Moves(0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latice(3)", "did you mean 'lattice'"),
        ("lattice(0)", "whole number >= 1, got 0"),
        ("lattice(2.5)", "whole number"),
        ("lattice(k=3, m=2)", "unexpected keyword"),
        ("moves(0)", r"\(0, 1\]"),
        ("moves('much')", "step"),
        ("softmax(-1)", "bound"),
        ("simplex(3)", "too many"),
        ("menu(())", "needs a portfolio"),
        ("menu(('momentun',))", "did you mean 'momentum'"),
        ("menu(('momentum(0)',))", "window"),
        ("menu(('momentum(3, 4)',))", "too many"),
        ("menu((3,))", "name or a function"),
        ("moves(", "cannot read"),
    ],
)
def test_bad_expressions_are_named(text, words):
    with pytest.raises(SettingError, match=words):
        make_actions(text)


def test_menu_lists_what_it_offers(market):
    menu = make_actions("menu").bind(market)
    assert isinstance(menu, Menu)
    assert menu.names(market) == [
        "equal_weight",
        *market.assets,
        "momentum",
        "inverse_volatility",
        "minimum_variance",
    ]
    t, size = 100, menu.size(5)
    found = menu.target(np.arange(size), np.zeros((size, 5)), np.full(size, t))
    history = market.upto(t)
    expected = [[0.25] * 4 + [0], *np.eye(5)]
    expected += [f(history) for f in (momentum, inverse_volatility, minimum_variance)]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_momentum_and_inverse_volatility_by_hand(make_market):
    market = make_market(100, risky=6, seed=4)
    gain = market.prices[-1, :6] / market.prices[-21, :6]
    winners = np.argsort(gain)[-2:]
    expected = np.zeros(7)
    expected[winners] = 0.5
    np.testing.assert_array_equal(momentum(market, 20), expected)
    volatility = np.array([np.std(market.returns[-30:, i], ddof=1) for i in range(6)])
    weights = 1 / volatility / (1 / volatility).sum()
    np.testing.assert_allclose(inverse_volatility(market, 30)[:6], weights, rtol=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_minimum_variance_is_the_least_there_is(make_market, seed):
    base = make_market(80, risky=8, seed=seed)
    mixed = base.returns[:, :8] + 2 * base.returns[:, :1]  # correlated, so that some weights are 0
    frame = pd.DataFrame(np.cumprod(1 + mixed, axis=0), base.dates).rename(columns=str)
    market = Market.from_prices(frame)
    weights = minimum_variance(market, 60)[:8]
    covariance = np.cov(market.returns[-60:, :8].T)
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    gradient = (
        covariance @ weights
    )  # a convex problem's optimum: equal where held, no less elsewhere
    variance = weights @ gradient
    assert (weights == 0).any() and gradient.min() >= variance * (1 - 1e-9)
    np.testing.assert_allclose(gradient[weights > 0], variance, rtol=1e-9)


def test_a_menu_sees_the_past_alone(make_market):
    market = make_market(90)
    prices = market.prices.copy()
    prices[61:] *= np.random.default_rng(1).uniform(0.1, 9, prices[61:].shape)
    changed = Market(dates=market.dates, assets=market.assets, prices=prices)
    a, b = Menu().bind(market), Menu().bind(changed)
    choices, held = np.arange(9), np.zeros((9, 5))
    for t in (0, 1, 2, 30, 60):
        rows = np.full(9, t)
        np.testing.assert_array_equal(a.target(choices, held, rows), b.target(choices, held, rows))
    assert (a.target(8, held[0], 80) != b.target(8, held[0], 80)).any()


@pytest.mark.parametrize("name", sorted(PORTFOLIOS))
def test_unlisted_assets_and_a_short_past(name):
    """On row 3 asset C has no price yet; on row 6 it has been listed for two days."""
    rng = np.random.default_rng(0)
    prices = pd.DataFrame(rng.uniform(1, 2, (9, 3)), pd.bdate_range("2020-01-01", periods=9))
    prices.iloc[:5, 2] = np.nan
    market = Market.from_prices(prices.rename(columns=str))
    for t in range(9):
        weights = PORTFOLIOS[name](market.upto(t))
        assert weights.sum() == pytest.approx(1.0) and weights.min() >= 0.0 and weights[3] == 0.0
        if t < 5 or name != "equal_weight":
            assert weights[2] == 0.0
    assert PORTFOLIOS[name](market.upto(0)) == pytest.approx([0.5, 0.5, 0, 0])


def test_constant_prices_leave_equal_weights():
    frame = pd.DataFrame(1.0, pd.bdate_range("2020-01-01", periods=9), ["A", "B"])
    market = Market.from_prices(frame, cash_rate=None)
    for name in ("equal_weight", "inverse_volatility", "minimum_variance"):
        np.testing.assert_array_equal(PORTFOLIOS[name](market), [0.5, 0.5])


def test_a_menu_of_a_users_functions(market):
    def last_winner(history):
        return np.eye(history.n_assets)[history.returns[-1].argmax()]

    menu = Menu((last_winner, "equal_weight"))
    assert menu.names(market) == ["last_winner", "equal_weight"]
    env = PortfolioEnv(market, lookback=5, actions=menu)
    _, info = env.reset()
    for _ in range(20):
        t = market.index(info["date"])
        *_, info = env.step(0)
        assert info["target"].argmax() == market.returns[t].argmax()
    with pytest.raises(SettingError, match="bind"):
        menu.target(0, np.zeros(5), 3)
    wrong = PortfolioEnv(market, lookback=5, actions=Menu((lambda history: np.ones(5),)))
    wrong.reset()
    with pytest.raises(ActionError, match=r"Menu.*sum 5"):
        wrong.step(0)


def test_sets_agree_with_their_spaces(market):
    """As many names and targets as the space has actions; no lattice point twice."""
    sets: list[Discretisation] = [Lattice(3), Moves(0.1), Menu(), AllOrNothing()]
    for actions in sets:
        bound = actions.bind(market)
        assert isinstance(bound, Discretisation)
        size = bound.size(5)
        assert bound.space(5) == Discrete(size) and len(bound.names(market)) == size
        held = np.tile([0.1, 0.2, 0.3, 0.4, 0.0], (size, 1))
        targets = bound.target(np.arange(size), held, np.full(size, 50))
        np.testing.assert_allclose(targets.sum(-1), 1.0, atol=1e-12)
        assert targets.min() >= 0.0
        if isinstance(actions, Lattice):
            assert len(np.unique(targets, axis=0)) == size


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Lattice(3).k = 4  # type: ignore[misc]
