"""The game both environments play: when decisions fall, what they see, and what one step does.

    row      0 ...... first .......... t ............ end
             |<- window ->|     decision at t:
                                sees features up to row t - decision_lag,
                                trades at the close of t (fill="next_open": at the open of t+1),
                                earns returns[t+1]
    truncated when t reaches `end`: the last row, or episode_length steps after the start.
    terminated when value falls to `ruin` times the starting value.

`advance` is a pure function of the game's state over any leading batch shape; the environments add
only Gymnasium's calling conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.action_base import SIMPLEX_TOLERANCE, checked_target
from envs.actions import OWN_MAPS, ActionMap, make_actions
from envs.constraints import ConstraintSet, Flags
from envs.costs import Cost, ProportionalCost
from envs.game_state import GameState, Outcome
from envs.observations import observed
from envs.rewards import Memory, Reward, make_reward
from envs.simulator import Row, State, Transition, drift, step
from market import DataError, Market, SettingError, load_market

__all__ = ["GameState", "Outcome", "Rules"]

FILLS = ("close", "next_open")

_NONE: Any = np.False_  # no limit was missed


class Rules:
    """A market with settings, checked and compiled into arrays.

    Args:
        market: A `Market`, or the name of a bundled universe.
        lookback: L, rows in a window, >= 1.
        reward, cost, constraints, actions: See `envs.rewards`, `envs.costs`, `envs.constraints`,
            `envs.actions`.
        decision_lag: Days by which observed features are older than the trade.
        fill: "close", or "next_open" where the market has opens.
        episode_length: Steps of an episode; None: to the end of the data.
        random_start: Whether episodes start on a random row that leaves a full episode.
        rebalance_every: Trades happen on every k-th decision of an episode; between them it holds.
        band: Trades happen where the target's turnover from the drifted weights is above this.
        ruin: Fraction of the starting value at which the episode terminates.

    """

    def __init__(
        self,
        market: Market | str,
        *,
        lookback: int,
        reward: Any,
        cost: Cost | None,
        constraints: Sequence[Any],
        actions: str | ActionMap,
        decision_lag: int,
        fill: str,
        episode_length: int | None,
        random_start: bool,
        rebalance_every: int,
        band: float,
        ruin: float,
    ) -> None:
        self.market = load_market(market) if isinstance(market, str) else market
        self.lookback, self.decision_lag = lookback, decision_lag
        self.episode_length, self.random_start, self.ruin = episode_length, random_start, ruin
        self.rebalance_every, self.band, self.fill = rebalance_every, band, fill
        self._check()
        self.reward: Reward = make_reward(reward).bind(self.market)
        self.cost = (cost if cost is not None else ProportionalCost(0.0)).bind(self.market)
        self.constraints = ConstraintSet.build(tuple(constraints), self.market)
        self._constrained = bool(self.constraints)
        self.act_by(actions)
        self.returns = self.market.returns
        self.relatives = 1.0 + self.returns
        self.risk_free = self.market.risk_free
        self.all_tradable = bool(self.market.tradable.all())
        self._may_hold = rebalance_every > 1 or band > 0.0
        self._overnight, self._intraday = self._split_returns()

    def act_by(self, actions: str | ActionMap) -> None:
        """Read actions by this map from now on."""
        self.actions = make_actions(actions).bind(self.market)
        self._own_actions = type(self.actions) in OWN_MAPS

    @property
    def first(self) -> int:
        """Row of the earliest decision: a full window lies behind it."""
        return self.lookback - 1 + self.decision_lag

    @property
    def last(self) -> int:
        """The last row; the last decision is one before it."""
        return self.market.n_periods - 1

    @property
    def last_start(self) -> int:
        """The latest row an episode may start from: a full episode where a length is set."""
        return self.last - (self.episode_length or 1)

    def observation_spaces(self, compact: bool, mask: bool) -> spaces.Dict:
        """What is observed: windows, or the window's end row; the mask where it is asked for."""
        return observed(self.market, self.lookback, compact, mask)

    def start_weights(self, weights: Any = None, row: Any = None) -> np.ndarray:
        """Holdings before the first decision: as given, else all cash, else equal, (N,).

        Without cash, equal over what can be held at `row`, an int or (*B,) for (*B, N).
        """
        n_assets = self.market.n_assets
        if weights is None and self.market.has_cash:
            return np.eye(n_assets)[-1]
        if weights is None:
            held = np.ones(n_assets) if row is None else self.market.tradable[row].astype(float)
            return held / held.sum(-1, keepdims=True)
        given = np.array(weights, np.float64)
        if given.shape != (n_assets,) or not (given >= 0).all() or abs(given.sum() - 1) > 1e-6:
            raise SettingError(
                f"start weights must be {n_assets} numbers >= 0 that sum to 1, got {weights}"
                f" (sum {given.sum():.9g})"
            )
        return given / given.sum()

    def row_of(self, start: Any) -> int:
        """Row of a date or row that an episode may start from."""
        row = int(start) if isinstance(start, (int, np.integer)) else self.market.index(start)
        if not self.first <= row <= self.last - 1:
            dates = self.market.dates
            raise SettingError(
                f"start {start!r} must be between {dates[self.first]:%Y-%m-%d} (a window of "
                f"{self.lookback} rows behind it) and {dates[self.last - 1]:%Y-%m-%d}"
            )
        return row

    def start_row(self, start: Any, rng: np.random.Generator) -> int:
        """Row of the first decision: of a date or row given, random, or the earliest."""
        if start is not None:
            return self.row_of(start)
        if self.random_start:
            return int(rng.integers(self.first, self.last_start + 1))
        return self.first

    def end_row(self, start: Any) -> Any:
        """Row at which an episode from `start` is truncated."""
        if self.episode_length is None:
            return np.full_like(start, self.last) if isinstance(start, np.ndarray) else self.last
        return np.minimum(start + self.episode_length, self.last)

    def initial(self, start: Any, weights: np.ndarray) -> GameState:
        """The state before the first decision at row `start`, with holdings `weights` (*B, N)."""
        shape = weights.shape[:-1]
        portfolio = State(weights, np.ones(shape)[()], np.ones(shape)[()])
        limits = self.constraints.initial(shape) if self._constrained else {}
        memory = self.reward.initial(shape)
        return GameState(start, start, self.end_row(start), portfolio, memory, limits)

    def advance(self, state: GameState, action: Any) -> tuple[GameState, Outcome]:
        """Play one decision: action to target, limits, trade, cost, return, reward.

        Raises:
            ActionError: If the action is malformed; the state is untouched.

        """
        t = state.t
        portfolio, growth = state.portfolio, None
        if self._overnight is not None:
            portfolio, growth = drift(portfolio, self._overnight[t + 1])
        held = portfolio.weights
        if self._own_actions:
            target = self.actions.target(action, held, t - self.decision_lag)
        else:  # copies: what a user's map writes to them is its own affair
            target = self.actions.target(action, held.copy(), t - self.decision_lag)
            target = checked_target(target, held, self.actions)
        limits, unmet = state.limits, _NONE
        binding: dict[str, np.ndarray] = {}
        if self._constrained:
            drawdown = 1.0 - portfolio.value / portfolio.peak
            target, limits, binding, unmet = self.constraints.apply(
                target, held, t, state.limits, drawdown, portfolio.value
            )
        within = target
        if self._may_hold:
            target = self._unless_holding(target, held, t - state.start)
        closed = None
        if not self.all_tradable:
            closed = (held > 0.0) & ~self.market.tradable[t]
            target = self._tradable_only(target, t)
        liquidity = self.cost.liquidity(t)
        if liquidity is not None:
            target = self.cost.reachable(held, target, portfolio.value, liquidity)
        if self._constrained and target is not within:
            binding, unmet = self._as_traded(target, within, held, binding, unmet)
        t_next = t + 1
        truncated = t_next >= state.end
        relatives = self.relatives if self._intraday is None else self._intraday
        returns = self.returns if self._intraday is None else self._intraday - 1.0
        parts = rows_at(returns, t_next), rows_at(relatives, t_next), self.risk_free[t_next]
        row = Row(*parts, truncated, liquidity)
        portfolio, transition = step(portfolio, target, row, self.cost, self.ruin)
        if growth is not None:
            total = growth * (1.0 + transition.portfolio_return) - 1.0
            transition = transition._replace(
                weights=state.portfolio.weights,
                returns=rows_at(self.returns, t_next),
                portfolio_return=total,
            )
        terminated = portfolio.value <= self.ruin
        terms, memory = self._rewarded(transition, state)
        first, *others = terms.values()
        reward: Any = sum(others, start=first)
        following = GameState(t_next, state.start, state.end, portfolio, memory, limits)
        outcome = Outcome(transition, reward, terms, terminated, truncated, binding, unmet, closed)
        return following, outcome

    def _rewarded(self, transition: Transition, state: GameState) -> tuple[dict[str, Any], Memory]:
        """The reward's terms and memory; a fault of it is told with its step and date."""
        try:
            return self.reward.terms(transition, state.memory)
        except SettingError as fault:
            place = self._place(state, getattr(fault, "row", None))
            raise SettingError(f"{fault} ({place})") from fault

    def _place(self, state: GameState, row: tuple[int, ...] | None) -> str:
        """Step and date of a portfolio of the batch; of all where it is not known which."""
        t, dates = np.asarray(state.t), self.market.dates
        if row is None and t.ndim:
            span = f"{dates[t.min()]:%Y-%m-%d} .. {dates[t.max()]:%Y-%m-%d}"
            return f"in a step of {t.size} environments decided on {span}"
        index = () if row is None else row
        step = t[index] - np.asarray(state.start)[index] + 1
        whose = f"environment {', '.join(map(str, index))}, " if index else ""
        return f"{whose}step {step}, decided on {dates[t[index]]:%Y-%m-%d}"

    def _unless_holding(self, target: np.ndarray, held: np.ndarray, age: Any) -> np.ndarray:
        """The target on days of trading, the holdings on others and inside the band."""
        risky = slice(self.cost.n_risky)
        distance = 0.5 * np.abs(target[..., risky] - held[..., risky]).sum(-1)
        trades = (age % self.rebalance_every == 0) & (distance > self.band)
        total = held.sum(-1, keepdims=True)  # 1 but for rounding
        return np.where(np.asarray(trades)[..., None], target, held / total)

    def _as_traded(
        self,
        target: np.ndarray,
        within: np.ndarray,
        held: np.ndarray,
        binding: dict[str, Flags],
        unmet: Any,
    ) -> tuple[dict[str, Flags], Any]:
        """Flags where less is traded than the limits (`within`) asked for.

        A limit that nothing was traded for was not at work. A risk limit that would have been, and
        a limit on weights that the traded weights miss, is not met.
        """
        short = (np.abs(target - within) > SIMPLEX_TOLERANCE).any(-1)
        still = short & (np.abs(target - held) <= SIMPLEX_TOLERANCE).all(-1)
        wanted = [flag for name, flag in binding.items() if name in self.constraints.risk_names]
        missed = self.constraints.missed(target, held)
        for flag in wanted:
            missed = missed | flag
        binding = {name: flag & ~still for name, flag in binding.items()}
        return binding, np.where(short, missed | unmet, unmet)[()]

    def _tradable_only(self, target: np.ndarray, t: Any) -> np.ndarray:
        """Move what is asked of assets that cannot be held to cash, else to the other assets."""
        tradable = self.market.tradable[t]
        kept = np.where(tradable, target, 0.0)
        lost = 1.0 - kept.sum(-1)
        if self.market.has_cash:
            kept[..., -1] += lost
            return kept
        total = kept.sum(-1, keepdims=True)
        equal = tradable / tradable.sum(-1, keepdims=True)
        return np.where(total > 0.0, kept / np.where(total > 0.0, total, 1.0), equal)

    def _split_returns(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Overnight and intraday relatives, (T, N) each, where trades fill at the next open."""
        if self.fill == "close":
            return None, None
        market = self.market
        if market.opens is None:
            raise SettingError(f"fill='next_open' needs opens, and {market.name} has none")
        overnight = np.ones_like(market.prices)
        overnight[1:] = market.opens[1:] / market.prices[:-1]
        known = np.isfinite(overnight)
        overnight = np.where(known, overnight, 1.0)
        return overnight, self.relatives / overnight

    def _check_counts(self) -> None:
        for key in ("lookback", "decision_lag", "rebalance_every", "episode_length"):
            value = getattr(self, key)
            if not isinstance(value, int | np.integer) and (key, value) != ("episode_length", None):
                raise SettingError(f"{key} must be a whole number, got {value!r}")

    def _check(self) -> None:
        self._check_counts()
        if self.lookback < 1:
            raise SettingError(f"lookback must be >= 1, got {self.lookback}")
        if self.decision_lag < 0:
            raise SettingError(f"decision_lag must be >= 0, got {self.decision_lag}")
        if self.fill not in FILLS:
            raise SettingError(f"fill must be one of {FILLS}, got {self.fill!r}")
        if self.rebalance_every < 1:
            raise SettingError(f"rebalance_every must be >= 1, got {self.rebalance_every}")
        if not 0.0 <= self.band < 1.0:
            raise SettingError(f"band must be in [0, 1), got {self.band}")
        if not 0.0 <= self.ruin < 1.0:
            raise SettingError(f"ruin must be in [0, 1), got {self.ruin}")
        if self.episode_length is not None and self.episode_length < 1:
            raise SettingError(f"episode_length must be >= 1, got {self.episode_length}")
        needed = self.first + 1 + (self.episode_length or 1 if self.random_start else 1)
        if self.market.n_periods < needed:
            raise DataError(
                f"{self.market.name}: lookback {self.lookback} with decision_lag "
                f"{self.decision_lag} and the episode need {needed} "
                f"periods, got {self.market.n_periods}"
            )


def rows_at(panel: np.ndarray, t: Any) -> np.ndarray:
    """Rows t of (T, N), (*B, N); `take` is several times faster for many of them."""
    return panel.take(t, axis=0) if isinstance(t, np.ndarray) else panel[t]
