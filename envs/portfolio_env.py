"""`PortfolioEnv`: one portfolio as a Gymnasium environment, a thin shell over `envs.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

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
from envs.render import Film
from envs.rules import Rules
from market import Market, SettingError


class PortfolioEnv(gymnasium.Env[dict[str, np.ndarray], Any]):
    """Allocate a portfolio over a market's assets, one decision a period.

    Observation: Dict(features (L, N, F), context (L, G) where there is any, weights (N,)), float32:
        the last L rows of the market's features and the drifted weights. With `compact`,
        Dict(time (1,), weights (N,)): the window's end row instead of its copy.
    Action: target weights on the simplex, scores, or a choice from a finite set: `actions`.
    Reward: `reward`, by default the log return after costs.
    Episode: starts all in cash (equal weights where there is none) unless `reset` says otherwise;
        `terminated` on ruin, `truncated` at the end of the data or after `episode_length` steps.
    Info: date, value (start 1), weights (drifted); after a step also target, mu, cost, turnover,
        portfolio_return, reward_terms, and the limits that were binding.

    Args:
        market: A `Market`, or the name of a bundled universe.
        lookback: L, rows of the window.
        reward: An expression such as "log_return - 0.1 * turnover", a Reward, or a callable.
        cost: A cost, or None for free trading.
        constraints: Limits on weights and risk.
        actions: "simplex", "project", "scores", "softmax", "lattice", or an ActionMap.
        decision_lag: Days by which the features seen are older than the trade; the weights
            observed are those held at the trade's own row, whatever the lag.
        fill: "close" or "next_open".
        episode_length: Steps, or None for all the data.
        random_start: Start each episode on a random row.
        compact: Observe the window's row number instead of the window.
        observe_tradable: Observe, as "tradable" (N,), which assets can be held today.
        rebalance_every: Trade on every k-th decision only; between them the portfolio drifts.
        band: Trade only where the target's turnover from the drifted weights is above this.
        ruin: Fraction of the starting value at which the episode terminates.
        render_mode: "ansi", "rgb_array" or None.

    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as gymnasium declares it
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        market: Market | str,
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
    ) -> None:
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
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise SettingError(
                f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}"
            )
        self.render_mode = render_mode
        self.compact = compact
        self.market = self.rules.market
        self.observe_tradable = observe_tradable
        self.observation_space: gymnasium.Space = self.rules.observation_spaces(
            compact, observe_tradable
        )
        self.action_space = self.rules.actions.space(self.market.n_assets)
        self._dates = list(self.market.dates)
        self._state: GameState | None = None
        self._playing = False
        self._film = Film(self.market) if render_mode == "rgb_array" else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; options: "weights" held at first, "start" (date or row).

        Raises:
            SettingError: If an option is refused; nothing changes and nothing is drawn.

        """
        options = options or {}
        check_options(options)
        start, weights = options.get("start"), options.get("weights")
        start = None if start is None else self.rules.row_of(start)
        given = None if weights is None else self.rules.start_weights(weights)
        super().reset(seed=seed)
        row = self.rules.start_row(start, self.np_random)
        held = self.rules.start_weights(row=row) if given is None else given
        self._state = self.rules.initial(row, held)
        self._playing = True
        self._start_film()
        return self._observation(self._state), self._info(self._state)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Trade to the action's target, pay, and hold for one period.

        Raises:
            ActionError: If the action is malformed, or no episode is under way; nothing changes.

        """
        if self._state is None or not self._playing:
            raise finished()
        state, outcome = self.rules.advance(self._state, action)
        self._state = state
        terminated, truncated = bool(outcome.terminated), bool(outcome.truncated)
        self._playing = not (terminated or truncated)
        if self._film is not None:
            self._film.add(state.t, state.portfolio.value, state.portfolio.weights)
        info = self._info(state, outcome)
        return self._observation(state), float(outcome.reward), terminated, truncated, info

    def render(self) -> Any:
        """The episode so far.

        Returns:
            Date, value and weights as one line of text in render mode "ansi"; in "rgb_array" a
            picture of value and weights so far, (540, 960, 3) uint8; None without a mode.

        Raises:
            ActionError: If no episode was started.

        """
        if self.render_mode is None:
            return None
        if self._state is None:
            raise finished()
        if self._film is not None:
            return self._film.frame()
        portfolio = self._state.portfolio
        held = zip(self.market.assets, portfolio.weights, strict=True)
        weights = "  ".join(f"{asset} {100 * weight:5.1f} %" for asset, weight in held)
        return f"{self._dates[self._state.t]:%Y-%m-%d}  value {portfolio.value:.4f}  {weights}"

    def get_state(self, as_json: bool = False) -> dict[str, Any]:
        """Everything the episode's future depends on, as plain arrays, numbers and dicts.

        Args:
            as_json: Lists in place of arrays, for `json.dumps`; `set_state` takes both.

        """
        if self._state is None:
            raise finished()
        state = {
            "assets": list(self.market.assets),
            "playing": self._playing,
            "generator": self.np_random.bit_generator.state,
            "game": plain_state(self._state),
        }
        return json_state(state) if as_json else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where `get_state` was called, here or in an equal environment.

        Raises:
            SettingError: If the state is of other assets, limits or shapes; nothing changes.

        """
        rules = self.rules
        like = rules.initial(rules.first, rules.start_weights(row=rules.first))
        keys = ("playing", "generator")
        game = checked_state(state, keys, self.market.assets, like)
        self.np_random.bit_generator.state = state["generator"]
        self._playing, self._state = bool(state["playing"]), game
        self._start_film()

    def _start_film(self) -> None:
        if self._film is not None and self._state is not None:
            portfolio = self._state.portfolio
            self._film.start(self._state.t, portfolio.value, portfolio.weights, portfolio.peak)

    def _observation(self, state: GameState) -> dict[str, np.ndarray]:
        weights = state.portfolio.weights.astype(np.float32)
        stop = state.t + 1 - self.rules.decision_lag
        window = slice(stop - self.rules.lookback, stop)
        seen: dict[str, np.ndarray] = {}
        if self.compact:
            seen["time"] = np.array([stop - 1])
        else:
            seen["features"] = self.market.features[window].copy()
            if self.market.context_names:
                seen["context"] = self.market.context[window].copy()
        seen["weights"] = weights
        if self.observe_tradable:
            seen["tradable"] = self.market.tradable[state.t].astype(np.int8)
        return seen

    def _info(self, state: GameState, outcome: Outcome | None = None) -> dict[str, Any]:
        portfolio = state.portfolio
        info = {
            "date": self._dates[state.t],
            "value": float(portfolio.value),
            "weights": portfolio.weights.copy(),
        }
        if outcome is None:
            return info
        made = outcome.transition
        info |= {
            "target": made.target.copy(),
            "mu": float(made.mu),
            "cost": float(made.cost),
            "turnover": float(made.turnover),
            "portfolio_return": float(made.portfolio_return),
            "reward_terms": outcome.terms,
        }
        if outcome.closed is not None:
            info["closed"] = outcome.closed
        if outcome.binding:
            info |= {"binding": outcome.binding, "unmet": bool(outcome.unmet)}
        return info
