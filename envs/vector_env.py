"""`PortfolioVectorEnv`: many portfolios as one array operation, row for row a `PortfolioEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from numpy.lib.stride_tricks import sliding_window_view

from envs.actions import ActionMap
from envs.costs import Cost
from envs.game_state import (
    GameState,
    Outcome,
    check_options,
    checked_state,
    finished,
    plain_state,
)
from envs.game_state import as_json as json_state
from envs.rules import Rules
from market import Market, SettingError


class PortfolioVectorEnv(gymnasium.vector.VectorEnv[dict[str, np.ndarray], Any, Any]):
    """`num_envs` independent episodes over one market, stepped together.

    Arguments are those of `PortfolioEnv`; observations, rewards and flags gain a leading axis of
    `num_envs`, and `info` holds arrays. Each environment draws its starts from a generator of its
    own, seeded seed + i, so row i equals a `PortfolioEnv` reset with that seed.

    Args:
        num_envs: B, how many.
        autoreset_mode: When an ended episode starts anew (gymnasium's modes): in the step after its
            end (NEXT_STEP), within the step that ends it with the last observation in `info`
            (SAME_STEP), or by hand with options={"reset_mask": mask} (DISABLED).

    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as gymnasium declares it
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        market: Market | str,
        num_envs: int = 1,
        lookback: int = 60,
        reward: Any = "log_return",
        cost: Cost | None = None,
        constraints: Sequence[Any] = (),
        actions: str | ActionMap = "simplex",
        decision_lag: int = 0,
        fill: str = "close",
        episode_length: int | None = None,
        random_start: bool = False,
        compact: bool = False,
        observe_tradable: bool = False,
        rebalance_every: int = 1,
        band: float = 0.0,
        ruin: float = 0.0,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1:
            raise SettingError(f"num_envs must be >= 1, got {num_envs}")
        if render_mode is not None:
            raise SettingError(f"render_mode must be None for a batch, got {render_mode!r}")
        self.rules = Rules(
            market,
            lookback=lookback,
            reward=reward,
            cost=cost,
            constraints=constraints,
            actions=actions,
            decision_lag=decision_lag,
            fill=fill,
            episode_length=episode_length,
            random_start=random_start,
            rebalance_every=rebalance_every,
            band=band,
            ruin=ruin,
        )
        self.num_envs, self.compact, self.render_mode = num_envs, compact, render_mode
        self.market = self.rules.market
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.observe_tradable = observe_tradable
        space = self.rules.observation_spaces(compact, observe_tradable)
        self.single_observation_space = space
        self.single_action_space = self.rules.actions.space(self.market.n_assets)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)
        self._dates = self.market.dates.to_numpy()
        self._rngs = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self._features = _windows(self.market.features, lookback)
        self._context = _windows(self.market.context, lookback)
        self._all = np.ones(num_envs, bool)
        self._all.flags.writeable = False  # it is shown in `info`
        self._ended = np.zeros(num_envs, bool)
        self._state: GameState | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start all episodes, or those where options["reset_mask"] is true.

        Options "weights" ((N,) or (B, N)) and "start" are those of `PortfolioEnv.reset`.

        Raises:
            SettingError: If an option or seed is refused; nothing changes and nothing is drawn.

        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        check_options(options)
        ended = self._mask(mask)
        start, held = options.get("start"), self._given(options.get("weights"))
        start = None if start is None else self.rules.row_of(start)
        self._seed(seed)
        self._state = self._restarted(self._state, ended, held, start)
        self._ended = self._ended & ~ended
        return self._observation(self._state), self._info(self._state, ended)

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision in every environment; ended ones start anew by `autoreset_mode`."""
        if self._state is None:
            raise finished()
        restarting = self._ended
        if restarting.any():
            return self._step_and_restart(actions, restarting)
        state, outcome = self.rules.advance(self._state, actions)
        self._ended = outcome.terminated | outcome.truncated
        info = self._info(state, self._all, outcome, self._all)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            ended, self._ended = self._ended, np.zeros(self.num_envs, bool)
            final = _masked(info, ended)
            last = self._observation(state)
            state = self._restarted(state, ended)
            info = self._info(state, self._all, outcome, ~ended)
            info |= {"final_info": final, "_final_info": ended, "_final_obs": ended}
            info["final_obs"] = _rows_of(last, ended)
        self._state = state
        observation = self._observation(state)
        return observation, outcome.reward, outcome.terminated, outcome.truncated, info

    def get_state(self, as_json: bool = False) -> dict[str, Any]:
        """Everything the episodes' future depends on, as plain arrays, numbers and dicts.

        Args:
            as_json: Lists in place of arrays, for `json.dumps`; `set_state` takes both.

        """
        if self._state is None:
            raise finished()
        state = {
            "assets": list(self.market.assets),
            "ended": self._ended.copy(),
            "generators": [rng.bit_generator.state for rng in self._rngs],
            "game": plain_state(self._state),
        }
        return json_state(state) if as_json else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where `get_state` was called, here or in an equal environment.

        Raises:
            SettingError: If the state is of other assets, limits or shapes; nothing changes.

        """
        starts = np.full(self.num_envs, self.rules.first)
        held = np.empty((self.num_envs, self.market.n_assets))
        held[:] = self.rules.start_weights(row=starts)
        like = self.rules.initial(starts, held)
        keys = ("ended", "generators")
        game = checked_state(state, keys, self.market.assets, like)
        for key in keys:
            if len(state[key]) != self.num_envs:
                raise SettingError(
                    f"set_state: {key} must be {self.num_envs}, got {len(state[key])}"
                )
        for rng, kept in zip(self._rngs, state["generators"], strict=True):
            rng.bit_generator.state = kept
        self._ended, self._state = np.array(state["ended"], bool), game

    def _step_and_restart(
        self, actions: Any, restarting: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Gymnasium's NEXT_STEP: ended rows ignore their action and show a first observation.

        The action they ignore must be well-formed all the same: a batch is refused as a whole,
        before anything has changed.
        """
        if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise finished()
        assert self._state is not None
        drawn = [(self._rngs[i], self._rngs[i].bit_generator.state) for i in _set(restarting)]
        fresh = self._restarted(self._state, restarting)
        try:
            state, outcome = self.rules.advance(fresh, actions)
        except Exception:
            for rng, before in drawn:
                rng.bit_generator.state = before
            raise
        self._state = _merge(restarting, fresh, state)
        terminated, truncated = outcome.terminated & ~restarting, outcome.truncated & ~restarting
        self._ended = terminated | truncated
        info = self._info(self._state, self._all, outcome, ~restarting)
        reward = np.where(restarting, 0.0, outcome.reward)
        return self._observation(self._state), reward, terminated, truncated, info

    def _mask(self, mask: Any) -> np.ndarray:
        """Rows that start anew, (B,); all where no mask is given or nothing was started."""
        rows = self._all if mask is None else np.array(mask, bool)
        if rows.shape != (self.num_envs,):
            raise SettingError(
                f"reset: reset_mask must have shape ({self.num_envs},), got {rows.shape}"
            )
        return self._all if self._state is None else rows

    def _given(self, weights: Any) -> np.ndarray | None:
        """Holdings to start with, (N,) or (B, N), checked."""
        if weights is None or np.ndim(weights) < 2:
            return None if weights is None else self.rules.start_weights(weights)
        if len(weights) != self.num_envs:
            raise SettingError(
                f"reset: weights must be one row per environment ({self.num_envs}), "
                f"got {len(weights)}"
            )
        return np.array([self.rules.start_weights(row) for row in weights])

    def _seed(self, seed: int | Sequence[int | None] | None) -> None:
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        if len(seeds) != self.num_envs:
            raise SettingError(
                f"reset: seed must be one per environment ({self.num_envs}), got {len(seeds)}"
            )
        self._rngs = [
            rng if own is None else seeding.np_random(own)[0]
            for rng, own in zip(self._rngs, seeds, strict=True)
        ]

    def _restarted(
        self,
        state: GameState | None,
        rows: np.ndarray,
        weights: np.ndarray | None = None,
        start: int | None = None,
    ) -> GameState:
        """The state with the masked rows at the start of a new episode."""
        starts = np.zeros(self.num_envs, np.int64)
        for i in _set(rows):
            starts[i] = self.rules.start_row(start, self._rngs[i])
        held = np.empty((self.num_envs, self.market.n_assets))
        held[:] = self.rules.start_weights(row=starts) if weights is None else weights
        fresh = self.rules.initial(starts, held)
        return fresh if state is None else _merge(rows, fresh, state)

    def _observation(self, state: GameState) -> dict[str, np.ndarray]:
        weights = state.portfolio.weights.astype(np.float32)
        newest = state.t - self.rules.decision_lag
        oldest = newest - (self.rules.lookback - 1)
        seen: dict[str, np.ndarray] = {}
        if self.compact:
            seen["time"] = newest[:, None]
        else:
            seen["features"] = self._features[oldest]
            if self.market.context_names:
                seen["context"] = self._context[oldest]
        seen["weights"] = weights
        if self.observe_tradable:
            seen["tradable"] = self.market.tradable[state.t].astype(np.int8)
        return seen

    def _info(
        self,
        state: GameState,
        known: np.ndarray,
        outcome: Outcome | None = None,
        stepped: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Arrays and, as gymnasium has it, a mask `_key` beside each: which rows have it."""
        portfolio = state.portfolio
        info: dict[str, Any] = {
            "date": self._dates[state.t],
            "value": portfolio.value.copy(),
            "weights": portfolio.weights.copy(),
        }
        info |= {f"_{key}": known for key in tuple(info)}
        if outcome is None:
            return info
        made = outcome.transition
        steps: dict[str, Any] = {
            "target": made.target.copy(),
            "mu": made.mu,
            "cost": made.cost,
            "turnover": made.turnover,
            "portfolio_return": made.portfolio_return,
        }
        if outcome.closed is not None:
            steps["closed"] = outcome.closed
        if outcome.binding:
            steps["unmet"] = outcome.unmet
            steps["binding"] = outcome.binding | {f"_{key}": stepped for key in outcome.binding}
        steps["reward_terms"] = outcome.terms | {f"_{key}": stepped for key in outcome.terms}
        return info | steps | {f"_{key}": stepped for key in steps}


def _windows(panel: np.ndarray, lookback: int) -> np.ndarray:
    """A view of all windows, (T - L + 1, L, ...), indexed by their first row."""
    return np.moveaxis(sliding_window_view(panel, lookback, axis=0), -1, 1)


def _set(rows: np.ndarray) -> list[int]:
    """Which rows a mask has."""
    return [int(i) for i in np.flatnonzero(rows)]


def _merge(rows: np.ndarray, ours: Any, theirs: Any) -> Any:
    """Arrays, or tuples and dicts of them, with the masked rows from `ours`."""
    if isinstance(ours, dict):
        return {key: _merge(rows, ours[key], theirs[key]) for key in ours}
    if isinstance(ours, tuple):
        return type(ours)(*(_merge(rows, a, b) for a, b in zip(ours, theirs, strict=True)))
    return np.where(rows.reshape(-1, *(1,) * (ours.ndim - 1)), ours, theirs)


def _masked(info: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The same info with every mask narrowed to `rows`."""
    return {
        key: _masked(value, rows)
        if isinstance(value, dict)
        else value & rows
        if key.startswith("_")
        else value
        for key, value in info.items()
    }


def _rows_of(observation: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """An object array with one observation dict for each masked row, else None."""
    parts = np.full(len(rows), None, object)
    for i in _set(rows):
        parts[i] = {key: value[i] for key, value in observation.items()}
    return parts
