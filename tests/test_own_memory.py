"""What a user writes to, and what is refused, changes nothing in the game."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs import PortfolioEnv, PortfolioVectorEnv
from envs.actions import ActionMap
from envs.constraints import GroupCap
from envs.costs import ProportionalCost
from envs.rewards import Reward
from experiments.backtest import backtest
from market import ActionError, SettingError

COST = ProportionalCost(0.003)
ASKED = np.array([0.1, 0.2, 0.3, 0.25, 0.15])


def path(env: Any, actions: Any, after: Callable[[Any], None] = lambda info: None) -> np.ndarray:
    """Values after each action, `after` called with each info."""
    after(env.reset(seed=1)[1])
    values = []
    for action in actions:
        info = env.step(action)[-1]
        values.append(np.copy(info["value"]))
        after(info)
    return np.array(values)


def overwrite(info: Any) -> None:
    for part in info.values():
        if isinstance(part, dict):
            overwrite(part)
        elif isinstance(part, np.ndarray) and part.flags.writeable:
            part[...] = np.zeros_like(part)


@pytest.mark.parametrize("actions", ["simplex", "lattice(2)"])
def test_writing_to_info_changes_nothing(market, actions):
    asked = [ASKED, ASKED[::-1]] * 5 if actions == "simplex" else [1, 5] * 5
    alone = [PortfolioEnv(market, 5, cost=COST, actions=actions) for _ in range(2)]
    np.testing.assert_array_equal(path(alone[0], asked, overwrite), path(alone[1], asked))
    asked = [np.array([action] * 3) for action in asked]
    batch = [PortfolioVectorEnv(market, 3, 5, cost=COST, actions=actions) for _ in range(2)]
    np.testing.assert_array_equal(path(batch[0], asked, overwrite), path(batch[1], asked))


def test_the_order_in_memory_changes_no_bit(market):
    asked = np.random.default_rng(0).dirichlet(np.ones(5), (20, 7))
    for kind in ("simplex", "softmax", "scores", "project"):
        games = [PortfolioVectorEnv(market, 7, 5, cost=COST, actions=kind) for _ in range(2)]
        columns = path(games[0], map(np.asfortranarray, asked))
        np.testing.assert_array_equal(columns, path(games[1], asked))


class Tilt(ActionMap):
    """One number: the share of the first asset, the rest in the last; writes to all it gets."""

    def space(self, n_assets):
        return gymnasium.spaces.Box(0.0, 1.0, (1,))

    def target(self, action, held, t):
        held[...] = 0.0
        share = np.asarray(action, np.float64)
        if share.shape != (*held.shape[:-1], 1):
            raise ActionError(f"Tilt takes one number, got {share.shape}")
        held[..., :1], held[..., -1:] = share, 1.0 - share
        return held


class Greedy(Reward):
    """Writes to all it gets."""

    def initial(self, batch_shape, xp=np):
        return {"count": xp.zeros(batch_shape)}

    def __call__(self, transition, memory):
        gained = transition.portfolio_return.copy()
        for part in (*transition, *memory.values()):
            if isinstance(part, np.ndarray):
                part[...] = 0
        return gained, {"count": memory["count"] + 1.0}


def test_a_users_map_and_reward_get_arrays_of_their_own(market):
    tilts = np.random.default_rng(0).random((40, 3, 1))
    weights = np.concatenate([tilts, np.zeros((40, 3, 3)), 1.0 - tilts], axis=-1)
    settings: dict[str, Any] = {"lookback": 5, "cost": COST, "episode_length": 12}
    games = [
        PortfolioVectorEnv(market, 3, actions=actions, reward=reward, **settings)
        for actions, reward in ((Tilt(), Greedy()), ("simplex", "log_return"))
    ]
    np.testing.assert_allclose(path(games[0], tilts), path(games[1], weights), rtol=1e-14)
    assert games[0].get_state()["game"]["memory"]["count"].max() == 1.0  # 40 = 3 * 13 + 1
    alone = [
        PortfolioEnv(market, actions=actions, reward=reward, **settings)
        for actions, reward in ((Tilt(), Greedy()), ("simplex", "log_return"))
    ]
    ours, theirs = path(alone[0], tilts[:12, 0]), path(alone[1], weights[:12, 0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.parametrize("bad", [np.full((3, 5), np.nan), np.ones((3, 4)), np.ones(5), "x"])
def test_a_refused_action_draws_no_start(market, bad):
    settings: dict[str, Any] = {"lookback": 5, "episode_length": 4, "random_start": True}
    games = [PortfolioVectorEnv(market, 3, **settings) for _ in range(2)]
    for game in games:
        game.reset(seed=4)
        for _ in range(4):
            game.step(np.tile(ASKED, (3, 1)))
    with pytest.raises(ActionError):
        games[0].step(bad)
    ours, theirs = (game.step(np.tile(ASKED, (3, 1)))[-1]["date"] for game in games)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("options", [{"weights": [2.0] * 5}, {"start": 0}, {"steps": 3}])
def test_a_refused_reset_draws_no_start(market, options):
    settings: dict[str, Any] = {"lookback": 5, "episode_length": 4, "random_start": True}
    pairs: list[Any] = [
        [PortfolioEnv(market, **settings) for _ in range(2)],
        [PortfolioVectorEnv(market, 3, **settings) for _ in range(2)],
    ]
    for ours, theirs in pairs:
        for env in (ours, theirs):
            env.reset(seed=4)
        for seed in (None, 9):
            with pytest.raises(SettingError):
                ours.reset(seed=seed, options=options)
        first, second = (np.copy(env.reset()[1]["date"]) for env in (ours, theirs))
        np.testing.assert_array_equal(first, second)


def test_a_batch_refuses_masks_and_weights_of_another_size(market):
    games = PortfolioVectorEnv(market, 3, 5)
    games.reset()
    with pytest.raises(SettingError, match="reset_mask must have shape"):
        games.reset(options={"reset_mask": [True, False]})
    with pytest.raises(SettingError, match="one row per environment"):
        games.reset(options={"weights": np.tile(ASKED, (2, 1))})


@pytest.mark.parametrize(
    "settings", [{"lookback": 5.5}, {"lookback": "5"}, {"rebalance_every": 1.5}]
)
def test_counts_are_whole_numbers(market, settings):
    with pytest.raises(SettingError, match="must be a whole number"):
        PortfolioEnv(market, **settings)


def test_members_of_a_group_differ(market):
    name = market.assets[0]
    with pytest.raises(SettingError, match="assets must differ"):
        PortfolioEnv(market, 5, constraints=[GroupCap("x", 0.3, assets=(name, name))])


def test_a_back_test_holds_between_rebalancing_days(market):
    every = backtest(list(ASKED), market, cost=COST, rebalance_every=5)
    traded = np.flatnonzero(every.turnover > 1e-12)
    np.testing.assert_array_equal(traded, np.arange(0, len(every.turnover), 5))
    assert (backtest(list(ASKED), market, cost=COST, band=0.9).turnover == 0.0).all()
