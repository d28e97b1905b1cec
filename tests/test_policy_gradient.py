"""The policy gradient: known optima, exact gradients, the environment's numbers, repetition."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from agents import AGENTS
from agents.ascent import Ascent
from agents.band_path import band_path
from agents.band_policy import BandPolicy, Plan
from agents.base import Monitor, Task
from agents.networks import NetworkSettings
from agents.policy_gradient import PolicyGradientSettings
from agents.rollout import roll
from agents.selection import DivergedError, Selection
from agents.simulated_paths import SimulatedMarket
from agents.utilities import UTILITIES
from envs.constraints import MaxWeight, TurnoverCap
from envs.costs import FixedFee, ProportionalCost, SquareRootImpact
from envs.simulator import State, drift
from market import DataError, Market, SettingError, load_market
from tests.curves import Curves

TINY: dict[str, Any] = {"lookback": 1, "encoder": "fnn", "depth": 1, "width": 16, "segments": 256}
QUICK = TINY | {"lookback": 5, "steps": 6, "segment_length": 10, "evaluations": 3}


def known(kind, **options) -> Market:
    """A market whose optimum is known, with nothing but its state to see."""
    market = load_market("synthetic", kind=kind, seed=1, **options)
    return dataclasses.replace(
        market, features=market.features[:, :, 1:], feature_names=("signal",)
    )


def fitted(market, cost=None, **settings):
    task = Task(cost=ProportionalCost(cost) if cost else None)
    return AGENTS["policy_gradient"](**(TINY | {"learning_rate": 0.01} | settings)).fit(
        market, task=task
    )


def score(agent, market) -> float:
    """Exact share of what there is to gain over equal weights, from the market's own states."""
    rows = [int(np.argmax(market.optimum.states(market) == s)) for s in range(2)]

    def policy(states, weights):
        asked = zip(states, weights, strict=True)
        return np.array([agent.act(market[rows[s] : rows[s] + 1], w) for s, w in asked])

    return market.optimum.score(policy)


def test_kelly_weights_are_found():
    market = known("kelly")
    agent = fitted(market, steps=200, segment_length=20, learning_rate=0.03)
    held = np.eye(4)[-1]
    target = agent.act(market, held)
    assert market.optimum.score(lambda s, w: np.broadcast_to(target, w.shape)) > 0.98
    np.testing.assert_allclose(target, market.optimum.low[0], atol=0.1)


@pytest.mark.parametrize("accuracy", [1.0, 0.8])
def test_regimes_that_a_feature_reveals(accuracy):
    market = known("regimes", accuracy=accuracy)
    assert score(fitted(market, steps=150, segment_length=20), market) > 0.98


def test_a_no_trade_band_is_learned_under_costs():
    market = known("regimes", accuracy=0.8, cost=0.02)
    costless = fitted(market, steps=100, segment_length=20)
    agent = fitted(market, cost=0.02, steps=150)
    assert score(agent, market) > 0.95
    assert score(agent, market) > score(costless, market) + 0.1
    up = int(np.argmax(market.optimum.states(market) == 0))
    grid = np.linspace(0.0, 1.0, 101)
    held = np.stack([grid, 1.0 - grid], -1)
    still = np.array([np.allclose(agent.act(market[up : up + 1], w), w) for w in held])
    assert 0.1 < still.mean() < 0.6  # the optimum holds between 0.33 and 0.66


def test_noise_with_costs_is_not_traded():
    train, fresh = (
        load_market("synthetic", seed=seed, kind="noise", periods=1000) for seed in (1, 2)
    )
    agent = fitted(train, cost=0.01, steps=100)
    path = roll(agent, fresh, Task(cost=ProportionalCost(0.01)))
    assert path.turnover.mean() < 0.005 and path.costs.mean() * 252 < 0.01


def volume_market(make_market, periods=60):
    market = make_market(periods=periods, risky=3)
    volume = np.full(market.prices.shape, 1e3)
    return dataclasses.replace(market, volume=volume, opens=market.prices * 1.001)


@pytest.mark.parametrize("utility", list(UTILITIES))
@pytest.mark.parametrize("sees_weights", [False, True])
def test_the_gradient_is_exact(make_market, rng, utility, sees_weights):
    """Central differences along a random direction, in double precision; rates and impact."""
    costs = ProportionalCost(0.01, 0.02) + SquareRootImpact(1e4, window=5)
    world = SimulatedMarket(volume_market(make_market), Task(cost=costs), lookback=4)
    sizes = NetworkSettings(encoder="fnn", depth=1, width=4, lookback=4)
    policy = BandPolicy(1, 0, sizes, sees_weights=sees_weights, n_known=4).double()
    world.panel = 100.0 * world.panel.double()
    starts, held = np.array([5, 20, 30]), torch.from_numpy(rng.dirichlet(np.ones(4), 3))
    parameters = [p for name, p in policy.named_parameters() if "head.value" not in name]
    moves = [torch.from_numpy(rng.standard_normal(p.shape)) for p in parameters]

    def utility_at(size):
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.add_(size * move)
        played = world.play(policy, starts, 10, held)
        return UTILITIES[utility](played.returns, played.risk_free, 3.0)

    step = 1e-6
    utility_at(0.0).backward()
    pairs = [(p.grad, m) for p, m in zip(parameters, moves, strict=True) if p.grad is not None]
    assert len(pairs) == len(moves)
    slope = sum(float((gradient * move).sum()) for gradient, move in pairs)
    above, below = utility_at(step).item(), utility_at(-2 * step).item()
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4)


TASKS: dict[str, dict[str, Any]] = {
    "rates": {"cost": ProportionalCost(0.01, 0.02)},
    "free": {"cost": None},
    "fees": {"cost": ProportionalCost(0.01) + FixedFee(1.0, 1e4)},
    "impact": {"cost": SquareRootImpact(1e4, window=5, participation=0.01)},
    "limits": {"constraints": (MaxWeight(0.4), TurnoverCap(0.1))},
    "seldom": {"rebalance_every": 3},
    "beyond": {"band": 0.02},
    "open": {"fill": "next_open"},
    "late": {"decision_lag": 2},
}


@pytest.mark.parametrize("sees_weights", [False, True])
@pytest.mark.parametrize("rules", list(TASKS))
def test_training_plays_by_the_rules_of_the_environment(make_market, rules, sees_weights):
    market, task = volume_market(make_market), Task(**TASKS[rules])
    agent = AGENTS["policy_gradient"](**QUICK, sees_weights=sees_weights)
    agent.fit(market, task=task, seed=3)
    path = roll(agent, market, task)
    world = SimulatedMarket(agent._scaled(market), task, agent.lookback)
    start = torch.from_numpy(world.rules.start_weights())[None]
    length = world.last + 1 - world.first
    with torch.no_grad():
        played = world.play(agent.policy, np.array([world.first]), length, start)
    np.testing.assert_allclose(played.returns[:, 0], path.returns, atol=1e-7)
    np.testing.assert_allclose(played.turnover[:, 0], path.turnover, atol=1e-6)
    np.testing.assert_allclose(played.held[1:, 0], path.held, atol=1e-6)


def test_segments_start_from_what_the_policy_held_there(make_market):
    """With parameters that stand still, the store becomes the policy's own path."""
    market, task = make_market(periods=100), Task()
    settings = PolicyGradientSettings(
        **(QUICK | {"learning_rate": 1e-12, "steps": 40, "explore": 0.0})
    )
    agent = AGENTS["policy_gradient"](**dataclasses.asdict(settings)).fit(market, task=task)
    world = SimulatedMarket(agent._scaled(market), task, agent.lookback)
    selection = Selection("test", lambda: agent.policy, settings, None, Monitor())
    ascent = Ascent(agent.policy, world, settings, 0, selection)
    ascent.run()
    path = roll(agent, market, task)
    np.testing.assert_allclose(ascent.held[world.first + 1 :], path.held, atol=1e-5)


def test_limits_are_learned_and_not_only_imposed():
    """The best asset is capped; what lies beside it must be used well too."""
    market = known("kelly")
    task = Task(cost=None, constraints=(MaxWeight(0.4),))
    settings = TINY | {"steps": 200, "segment_length": 8, "segments": 128, "learning_rate": 0.03}
    agent = AGENTS["policy_gradient"](**settings).fit(market, task=task)
    target = agent.act(market, np.eye(4)[-1])
    assert target.max() < 0.41
    best = market.optimum.chain
    candidates = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    allowed = candidates[candidates.max(1) <= 0.4]
    most = best.log_growth(np.zeros(len(allowed), int), allowed).max()
    equal = market.optimum.growth_equal
    reached = best.log_growth(np.zeros(1, int), np.minimum(target, 0.4)[None])[0]
    assert (reached - equal) / (most - equal) > 0.95


def test_pull_towards_equal_weights(make_market):
    market = make_market(periods=200)
    free, pulled = (fitted(market, towards_equal=pull, steps=40) for pull in (0.0, 10.0))
    held = np.eye(market.n_assets)[-1]
    assert np.abs(free.act(market, held) - 0.2).max() > 0.05
    np.testing.assert_allclose(pulled.act(market, held), 0.2, atol=0.01)


def test_plans_hold_inside_and_trade_to_the_edge_outside():
    plan = Plan(np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.2, 0.0]), np.array([0.6, 0.4, 1.0]))
    inside = np.array([0.45, 0.25, 0.3])
    np.testing.assert_array_equal(plan.target(inside), inside)
    np.testing.assert_allclose(
        plan.target(np.array([0.7, 0.3, 0.0])), [0.6, 0.3 + 0.1 / 11, 1 / 11]
    )
    rng = np.random.default_rng(0)
    proposal, held = rng.dirichlet(np.ones(5), (2, 1000))
    width = 0.3 * rng.random((1000, 5))
    low, high = np.maximum(proposal - width, 0), np.minimum(proposal + width, 1)
    target = Plan(proposal, low, high).target(held)
    np.testing.assert_allclose(target.sum(-1), 1.0, atol=1e-12)
    assert (target >= low - 1e-12).all() and (target <= high + 1e-12).all()


def test_utilities_by_hand():
    returns, free = torch.tensor([0.1, -0.05, 0.0], dtype=torch.float64), torch.tensor(0.01)
    r = returns.numpy()
    by_hand = {
        "log_growth": np.log(1 + r).mean(),
        "mean_variance": r.mean() - 1.5 * r.var(),
        "crra": (((1 + r) ** -2 - 1) / -2).mean(),
        "sharpe": (r - 0.01).mean() / r.std(),
    }
    for name, value in by_hand.items():
        assert float(UTILITIES[name](returns, free, 3.0)) == pytest.approx(value, rel=1e-6)
    one = UTILITIES["crra"](returns, free, 1.0)
    assert float(one) == pytest.approx(by_hand["log_growth"])


def test_same_seed_same_bits_and_the_same_after_loading(make_market, tmp_path):
    market = make_market()
    runs: list[tuple[dict[str, torch.Tensor], list[Any]]] = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # what ran before must not matter, nor be disturbed
        before, curves = torch.random.get_rng_state(), Curves()
        agent = AGENTS["policy_gradient"](**QUICK, dropout=0.1)
        agent.fit(market[:80], market[60:], seed=seed, monitor=curves)
        assert torch.equal(torch.random.get_rng_state(), before)
        runs.append((agent.policy.state_dict(), curves.rows))
    assert all(torch.equal(runs[0][0][key], runs[1][0][key]) for key in runs[0][0])
    assert repr(runs[0][1]) == repr(runs[1][1])
    assert any(not torch.equal(runs[0][0][key], runs[2][0][key]) for key in runs[0][0])
    agent.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = AGENTS["policy_gradient"].load(tmp_path)
    one, other = (roll(each, market, Task()).targets for each in (agent, again))
    np.testing.assert_array_equal(one, other)


def test_later_rows_do_not_matter(make_market):
    market = make_market()
    agent = AGENTS["policy_gradient"](**QUICK).fit(market[:80])
    prices = np.array(market.prices[:, :-1])
    prices[101:] *= np.random.default_rng(0).uniform(0.5, 2.0, prices[101:].shape)
    frame = pd.DataFrame(prices, market.dates, list(market.assets[:-1]))
    other = Market.from_prices(frame, cash_rate=0.02)
    one, two = (roll(agent, each, Task()).targets for each in (market, other))
    known = 101 - (agent.lookback - 1)  # decisions on rows up to 100
    np.testing.assert_array_equal(one[:known], two[:known])
    assert (one[known:] != two[known:]).any()


def test_the_best_state_on_validation_is_kept(make_market):
    market, curves = make_market(periods=200), Curves()
    agent = AGENTS["policy_gradient"](**(QUICK | {"steps": 30, "evaluations": 10}))
    agent.fit(market[:120], market[115:], monitor=curves)
    utilities = curves.curve("eval/utility")
    assert len(utilities) == 11 and len(set(utilities)) > 5
    path = roll(agent, market[115:], Task())
    assert np.log1p(path.returns).mean() == pytest.approx(max(utilities), abs=1e-8)
    assert curves.fractions[-1] == 1.0 and curves.fractions == sorted(curves.fractions)


def test_patience_stops_training(make_market):
    """Where nothing is learned no evaluation beats the first of a trained state, at update 2."""
    market, curves = make_market(), Curves()
    still = QUICK | {"learning_rate": 1e-30, "steps": 20, "evaluations": 10, "patience": 2}
    AGENTS["policy_gradient"](**still).fit(market[:80], market[60:], monitor=curves)
    assert len(curves.curve("eval/utility")) == 4 and len(curves.curve("train/utility")) == 6


@pytest.mark.parametrize("steps", [1, 6])
def test_divergence_stops_at_once_with_the_last_good_state(make_market, steps):
    market = make_market()
    agent = AGENTS["policy_gradient"](**(QUICK | {"steps": steps, "learning_rate": 1e30}))
    words = r"^policy_gradient diverged: .* at step 1; .* lower learning_rate \(1e\+30\)"
    with pytest.raises(DivergedError, match=words) as one:
        agent.fit(market)
    assert one.value.step == 1
    assert all(bool(torch.isfinite(part).all()) for part in agent.policy.parameters())
    target = agent.act(market, np.eye(5)[-1])
    assert np.isfinite(target).all() and target.sum() == pytest.approx(1.0)


def test_bad_settings_are_named(make_market):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"utility": "wealth"}, r"utility must be 'log_growth' \| .*, got 'wealth'"),
        ({"segment_length": 0}, r"segment_length must be in \[1, inf\), got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be in \(0, inf\), got 0.0"),
        ({"explore": 1.5}, r"explore must be in \[0, 1\], got 1.5"),
        ({"encoder": "cnnn"}, r"encoder must be one of .*, got 'cnnn'"),
        ({"patience": 0}, r"patience must be in \[1, inf\), got 0"),
        ({"device": "abacus"}, r"device must be one of torch's that is here, got 'abacus'"),
        ({"stepz": 3}, r"unknown setting of policy_gradient 'stepz'"),
    ]
    for settings, text in cases:
        with pytest.raises(SettingError, match=text):
            AGENTS["policy_gradient"](**settings)
    with pytest.raises(SettingError, match="must be fitted or loaded"):
        AGENTS["policy_gradient"]().act(make_market(), np.eye(5)[-1])
    with pytest.raises(DataError, match="lookback 60"):
        AGENTS["policy_gradient"]().fit(make_market(periods=50))


def test_other_assets_need_a_policy_without_scores_of_its_own(make_market):
    few, many = make_market(), make_market(risky=7)
    held = np.eye(8)[-1]
    free = AGENTS["policy_gradient"](**QUICK, own_scores=False).fit(few)
    assert free.act(many, held).shape == (8,)
    bound = AGENTS["policy_gradient"](**QUICK).fit(few)
    with pytest.raises(DataError, match="own_scores"):
        bound.act(many, held)


def test_assets_that_stop_trading_are_left(make_market):
    market = make_market(cash_rate=None)
    frame = pd.DataFrame(np.array(market.prices), market.dates, list(market.assets))
    frame.iloc[90:, 1] = np.nan
    delisted = Market.from_prices(frame, cash_rate=None)
    agent = AGENTS["policy_gradient"](**QUICK).fit(delisted, task=Task())
    path = roll(agent, delisted, Task())
    assert (path.targets[95:, 1] == 0.0).all()
    np.testing.assert_allclose(path.targets.sum(-1), 1.0, atol=1e-12)


def test_all_steps_in_one_operation_are_those_of_the_simulator():
    """Paths and gradients against step after step, ties at the band's edges included."""
    rng = np.random.default_rng(3)
    shape = (6, 40, 4)  # S, B, N
    proposal = rng.dirichlet(np.ones(4), shape[:2])
    width = 0.2 * rng.random((*shape[:2], 1))
    edges = np.maximum(proposal - width, 0.0), np.minimum(proposal + width, 1.0)
    edges[0][:, :5] = edges[1][:, :5] = proposal[:, :5]  # no band at all
    relatives = torch.as_tensor(1.0 + 0.1 * rng.standard_normal(shape))
    held = torch.as_tensor(rng.dirichlet(np.ones(4), 40))
    held[:3] = torch.eye(4)[3]
    pulls = [torch.as_tensor(rng.standard_normal(shape)) for _ in range(2)]
    answers = []
    for stepwise in (True, False):
        low, high = (torch.tensor(edge, requires_grad=True) for edge in edges)
        if stepwise:
            state = State(held, torch.ones(40), torch.ones(40))
            weights, targets = [held], []
            for s in range(6):
                targets.append(Plan(low[s], low[s], high[s]).target(state.weights))
                state = drift(state._replace(weights=targets[-1]), relatives[s])[0]
                weights.append(state.weights)
            path, traded = torch.stack(weights), torch.stack(targets)
        else:
            path, traded = band_path(low, high, held, relatives)
        ((path[1:] * pulls[0]).sum() + (traded * pulls[1]).sum()).backward()
        answers.append((path.detach(), traded.detach(), low.grad, high.grad))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
