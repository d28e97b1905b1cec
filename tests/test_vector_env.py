"""`PortfolioVectorEnv` row i is a `PortfolioEnv`, to the bit, in every autoreset mode."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs import PortfolioEnv, PortfolioVectorEnv
from envs.costs import FixedFee, ProportionalCost, SquareRootImpact
from market import ActionError, SettingError

SETTINGS: dict[str, Any] = {
    "lookback": 8,
    "reward": "log_return - 0.1 * turnover + 0.5 * differential_sharpe",
    "cost": ProportionalCost(0.002, 0.004),
    "episode_length": 23,
    "random_start": True,
}


def same(a, b):
    if isinstance(a, dict):
        assert set(a) == set(b), set(a) ^ set(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, np.ndarray) and a.dtype == object:
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                same(x, y)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def known(info):
    """Info with the entries of rows that its mask leaves out set to zero, and dates as numbers."""
    clean = {}
    for key, value in info.items():
        mask = info.get(f"_{key}")
        if mask is None or not mask.any():
            continue
        if isinstance(value, dict):
            clean[key] = known(value)
        elif value.dtype == object and key != "date":
            clean[key] = value
        else:
            value = value.astype("datetime64[us]").astype(np.int64) if key == "date" else value
            shape = (-1, *(1,) * (value.ndim - 1))
            clean[key] = np.where(mask.reshape(shape), value, 0)
        clean[f"_{key}"] = mask
    return clean


@pytest.mark.parametrize("actions", ["simplex", "softmax", "lattice"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("compact", [False, True])
def test_equals_single_environments(make_market, actions, mode, compact):
    context = np.random.default_rng(1).normal(size=(120, 2)).astype(np.float32)
    market = dataclasses.replace(make_market(), context=context, context_names=("u", "v"))
    settings = SETTINGS | {"actions": actions, "compact": compact}
    ours = PortfolioVectorEnv(market, 6, autoreset_mode=mode, **settings)
    theirs = SyncVectorEnv(
        [lambda: PortfolioEnv(market, **settings) for _ in range(6)], autoreset_mode=mode
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    (a, info_a), (b, info_b) = ours.reset(seed=5), theirs.reset(seed=5)
    same(a, b)
    same(known(info_a), known(info_b))
    ours.action_space.seed(2)
    for _ in range(150):
        action = ours.action_space.sample()
        kept = action.copy()
        one, two = ours.step(action), theirs.step(action)
        for x, y in zip(one[:4], two[:4], strict=True):
            same(x, y)
        same(known(one[4]), known(two[4]))
        assert (action == kept).all()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_twenty_seeds_a_thousand_steps(make_market, mode):
    market = make_market(200)
    settings = SETTINGS | {"lookback": 4, "actions": "softmax"}
    ours = PortfolioVectorEnv(market, 20, autoreset_mode=mode, **settings)
    theirs = SyncVectorEnv(
        [lambda: PortfolioEnv(market, **settings) for _ in range(20)], autoreset_mode=mode
    )
    same(ours.reset(seed=77)[0], theirs.reset(seed=77)[0])
    ours.action_space.seed(1)
    for _ in range(1000):
        action = ours.action_space.sample()
        one, two = ours.step(action), theirs.step(action)
        for x, y in zip(one[:4], two[:4], strict=True):
            same(x, y)
        ended = one[2] | one[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            pair = [games.reset(options={"reset_mask": ended})[0] for games in (ours, theirs)]
            same(*pair)


def test_costs_solved_by_iteration_do_not_depend_on_neighbours(make_market, rng):
    market = make_market(260)
    volume = rng.uniform(1e3, 1e5, market.prices.shape)
    volume[100:140, 0] = 0.0
    market = dataclasses.replace(market, volume=volume)
    cost = ProportionalCost(0.001, 0.002) + FixedFee(1.0, 1e6) + SquareRootImpact(1e6)
    settings: dict[str, Any] = {"cost": cost, "lookback": 8, "episode_length": 60}
    settings |= {"random_start": True, "reward": "log_return"}
    ours = PortfolioVectorEnv(market, 5, **settings)
    theirs = SyncVectorEnv(
        [lambda: PortfolioEnv(market, **settings) for _ in range(5)],
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    same(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for _ in range(200):
        action = rng.dirichlet(np.full(market.n_assets, 0.3), 5)
        one, two = ours.step(action.copy()), theirs.step(action)
        for x, y in zip(one[:4], two[:4], strict=True):
            same(x, y)
        same(known(one[4]), known(two[4]))


def test_reset_by_mask_when_autoreset_is_disabled(market):
    games = PortfolioVectorEnv(market, 3, autoreset_mode=AutoresetMode.DISABLED, **SETTINGS)
    games.reset(seed=0, options={"start": 20})
    even = np.full((3, 5), 0.2)
    for _ in range(5):
        games.step(even)
    _, info = games.reset(options={"reset_mask": np.array([True, False, False]), "start": 20})
    assert info["value"][0] == 1.0 and (info["value"][1:] != 1.0).all()
    while True:
        _, _, terminated, truncated, _ = games.step(even)
        if (terminated | truncated).any():
            break
    assert list(truncated) == [False, True, True]
    with pytest.raises(ActionError, match="reset"):
        games.step(even)
    games.reset(options={"reset_mask": truncated})
    games.step(even)


def test_environments_are_independent(market):
    games = PortfolioVectorEnv(market, 4, **SETTINGS)
    games.reset(seed=1, options={"start": 30})
    actions = np.full((4, 5), 0.2)
    actions[2] = [1, 0, 0, 0, 0]
    _, reward, *_, info = games.step(actions)
    assert reward[0] == reward[1] == reward[3] != reward[2]
    assert info["value"][0] == info["value"][3]


def test_errors_name_the_environment(market):
    games = PortfolioVectorEnv(market, 3, **SETTINGS)
    with pytest.raises(ActionError, match="reset"):
        games.step(np.full((3, 5), 0.2))
    games.reset(seed=0)
    bad = np.full((3, 5), 0.2)
    bad[1, 4] = np.nan
    with pytest.raises(ActionError, match="environment 1, asset 4"):
        games.step(bad)
    bad[1] = 0.3
    with pytest.raises(ActionError, match="environment 1"):
        games.step(bad)
    with pytest.raises(SettingError, match="num_envs"):
        PortfolioVectorEnv(market, 0)
    with pytest.raises(SettingError, match="seed"):
        games.reset(seed=[1, 2])


def test_observations_are_fresh_arrays(market):
    games = PortfolioVectorEnv(market, 2, **SETTINGS)
    first, _ = games.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    second, *_ = games.step(np.full((2, 5), 0.2))
    for value in second.values():
        value[:] = 3
    same(first, kept)
