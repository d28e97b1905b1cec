"""A compact `PortfolioVectorEnv` as the vector environment that stable-baselines3 trains on.

A transition holds the row number of its window and the weights, so buffers stay small whatever the
lookback; networks read windows out of the market's own array (`agents.panel_network`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from envs import PortfolioVectorEnv
from envs.actions import SimplexWeights
from envs.simulator import State


class Tried(NamedTuple):
    """What came of actions: (B,), but for weights (B, N)."""

    reward: np.ndarray  # discounted sum, as learning sees rewards
    rows: np.ndarray  # of the observation that follows
    weights: np.ndarray
    discount: np.ndarray  # of what is worth something then; 0 where the portfolio was ruined


class CompactVecEnv(VecEnv):
    """A compact `PortfolioVectorEnv` (autoreset SAME_STEP) as stable-baselines3's own `VecEnv`.

    Args:
        games: What is played.
        seed: Of the first reset.
        reward_scale: What rewards are multiplied by.
        less_market: Whether the log growth of equal weights in the period is first taken off them.
            No decision has a part in it, so the best policy stays the best, and there is less
            chance in what is learned from (Mao et al., Variance reduction for reinforcement
            learning in input-driven environments, 2019).
        explore_starts: Share of episodes that start from random weights: else what is held is only
            ever what the policy came to hold, and nothing is learned about the rest.

    """

    def __init__(
        self,
        games: PortfolioVectorEnv,
        seed: int,
        reward_scale: float,
        less_market: bool = False,
        explore_starts: float = 0.0,
    ) -> None:
        self.games = games
        self.explore_starts, self.rng = explore_starts, np.random.default_rng([seed, 3])
        self.reward_scale, self.less_market = reward_scale, less_market
        self._market_growth = np.log(games.rules.relatives.mean(axis=1))  # (T,)
        self._next_rows = np.zeros(games.num_envs, np.int64)  # that end the coming period
        self._played, self._warmup = 0, 0.0  # decisions so far, and those with costs phased in
        self._told: Callable[[float], None] | None = None  # the share of costs that is charged
        super().__init__(
            games.num_envs,
            observation_space(games.market.n_assets),
            games.single_action_space,
        )
        self._holding = copy.copy(games.rules)
        self._holding.act_by(SimplexWeights(strict=False))
        self._first_seed: int | None = seed
        self._actions: np.ndarray = np.zeros(0)
        self._total = np.zeros(games.num_envs)
        self._length = np.zeros(games.num_envs, np.int64)

    def reset(self) -> dict[str, np.ndarray]:
        """Start all episodes; the seed given at first is used once."""
        observation, _ = self.games.reset(seed=self._first_seed)
        self._first_seed = None
        self._total[:], self._length[:] = 0.0, 0
        observation = self._explored(observation, np.ones(self.num_envs, bool))
        self._look(observation)
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step; ended rows carry their last observation and whether they were cut off."""
        observation, reward, terminated, truncated, info = self.games.step(self._actions)
        ended = terminated | truncated
        self._total += reward
        self._length += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i] = {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": self._total[i], "l": int(self._length[i]), "t": 0.0},
            }
        self._total[ended], self._length[ended] = 0.0, 0
        counted = self._counted(reward, info["cost"], self._next_rows, self._played)
        self._played += self.num_envs
        if self._told is not None and self._warmup:
            self._told(float(self._charged(self._played)))
        observation = self._explored(observation, ended)
        self._look(observation)
        return observation, counted, ended, infos

    def _explored(
        self, observation: dict[str, np.ndarray], started: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is seen once some of the episodes that have just started hold random weights."""
        if not (self.explore_starts and started.any()):
            return observation
        chosen = started & (self.rng.random(self.num_envs) < self.explore_starts)
        weights = self.rng.dirichlet(np.ones(self.games.market.n_assets), self.num_envs)
        return self.games.reset(options={"reset_mask": chosen, "weights": weights})[0]

    def tried(
        self,
        rows: np.ndarray,
        held: np.ndarray,
        actions: np.ndarray,
        steps_ago: np.ndarray,
        gamma: float = 0.0,
        days: int = 1,
    ) -> Tried:
        """What actions would come to, from holdings at rows that were known, some steps ago.

        Rewards and limits with a memory have none here.

        Args:
            rows: Of observations, (B,).
            held: Weights before the trade, (B, N).
            actions: (B, ..).
            steps_ago: Counted in steps of all environments, (B,): phased costs were less then.
            gamma: Discount a day.
            days: For which what the action bought is held, or to the end of the data.

        """
        rules = self.games.rules
        played = self._played - self.num_envs * steps_ago
        state = rules.initial(rows + rules.decision_lag, held / held.sum(-1, keepdims=True))
        total, discount = np.zeros(len(rows)), np.ones(len(rows))
        for day in range(days):
            going = (discount > 0.0) & (state.t < rules.last)
            state = state._replace(t=np.minimum(state.t, rules.last - 1))
            acting, move = (
                (rules, actions) if day == 0 else (self._holding, state.portfolio.weights)
            )
            following, outcome = acting.advance(state, move)
            cost = 1.0 - outcome.transition.mu
            reward = self._counted(outcome.reward, cost, following.t, played)
            total += np.where(going, discount * reward, 0.0)
            discount = np.where(going, gamma * discount * ~outcome.terminated, discount)
            portfolio = _chosen(going, following.portfolio, state.portfolio)
            state = following._replace(portfolio=portfolio)
        return Tried(total, state.t - rules.decision_lag, state.portfolio.weights, discount)

    def _counted(
        self, reward: np.ndarray, cost: np.ndarray, next_rows: np.ndarray, played: Any
    ) -> np.ndarray:
        """Rewards as learning sees them, when so many decisions were made before."""
        if self._warmup:
            reward = reward - (1.0 - self._charged(played)) * np.log1p(-cost)
        if self.less_market:
            reward = reward - self._market_growth[next_rows]
        return (self.reward_scale * reward).astype(np.float32)

    def _charged(self, played: Any) -> Any:
        """The share of costs that is charged when so many decisions were made before."""
        return np.minimum(played / self._warmup, 1.0)

    def snapshot(self) -> dict[str, Any]:
        """All that the games' future depends on, and the sums of their episodes."""
        return {
            "games": self.games.get_state(),
            "next_rows": self._next_rows,
            "played": self._played,
            "total": self._total,
            "length": self._length,
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot; no reset is needed."""
        self.games.set_state(snapshot["games"])
        self._next_rows, self._played = snapshot["next_rows"], snapshot["played"]
        self._total, self._length = snapshot["total"], snapshot["length"]
        self.rng.bit_generator.state = snapshot["rng"]
        self._first_seed = None

    def phase_in_costs(self, decisions: float, told: Callable[[float], None] | None = None) -> None:
        """Pay back less and less of costs, in log growth, over the first so many decisions.

        Who is `told` hears after each step what share of them is charged now.
        """
        self._warmup, self._told = decisions, told

    def _look(self, observation: dict[str, np.ndarray]) -> None:
        self._next_rows = observation["time"][:, 0] + self.games.rules.decision_lag + 1

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the game, once per environment."""
        return [getattr(self.games, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the environments of a batch share their settings."""
        raise NotImplementedError("environments of a batch share their settings")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: there are no separate environments to call."""
        raise NotImplementedError("environments of a batch cannot be called one by one")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No wrapper is inside."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


def _chosen(mask: np.ndarray, first: State, second: State) -> State:
    """Rows of the first where the mask (B,) is true, else of the second."""
    pairs = zip(first, second, strict=True)
    return State(*(np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def observation_space(n_assets: int) -> spaces.Dict:
    """Compact observations, for a market of any length."""
    return spaces.Dict(
        {
            "time": spaces.Box(0, np.iinfo(np.int32).max, (1,), np.int64),
            "weights": spaces.Box(0.0, 1.0, (n_assets,), np.float32),
        }
    )
