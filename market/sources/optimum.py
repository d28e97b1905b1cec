"""The best policy of a market whose best policy is known, and the exact growth of any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from market.errors import DataError, SettingError
from market.sources.bands import Grid, value_left
from market.sources.chain import Chain

if TYPE_CHECKING:
    from market.market import Market

SIGNAL = "signal"
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
_PATHS, _STEPS, _SETTLE = 256, 150, 50


@dataclass(frozen=True, eq=False)
class Optimum:
    """What the best policy of a synthetic market does and earns.

    A policy maps states (B,) and weights before trading (B, N) to target weights (B, N).

    Attributes:
        kind: The kind of market.
        chain: Its states, transitions and outcomes.
        cost: Proportional rate of buying and selling that the optimum takes into account.
        low, high: The weights are left alone inside [low, high] and moved to its edge outside;
            equal without costs, (S, N).
        growth: Log growth per period of the best policy.
        growth_equal: Log growth per period of trading back to equal weights every period.
        method: How the optimum was computed, and among which policies it is the best.

    """

    kind: str
    chain: Chain
    cost: float
    low: np.ndarray
    high: np.ndarray
    growth: float
    growth_equal: float
    method: str

    @classmethod
    def solve(cls, kind: str, chain: Chain, cost: float = 0.0, note: str = "") -> Optimum:
        """The growth-optimal policy of a chain under a proportional cost.

        Raises:
            SettingError: If the cost is not in [0, 1), or positive beside several risky assets.

        """
        if not 0.0 <= cost < 1.0:
            raise SettingError(f"cost: must be in [0, 1), got {cost!r}")
        equal = np.full(chain.n_assets, 1.0 / chain.n_assets)
        if cost == 0.0:
            low = high = chain.best_weights()
            method = "convex optimisation of the exact expected log growth in each state"
        elif chain.n_assets == 2:
            targets = Grid(chain, cost).best()
            low, high = (_with_cash(targets[:, edge]) for edge in (0, -1))
            low, high = np.minimum(low, high), np.maximum(low, high)
            method = "dynamic programming over the risky weight: a no-trade band in each state"
        else:
            raise SettingError(f"cost: needs one risky asset and cash, got {chain.n_assets} assets")
        chances, states = chain.stationary, np.arange(chain.n_states)
        best = float(chances @ chain.log_growth(states, low))
        even = float(chances @ chain.log_growth(states, np.tile(equal, (chain.n_states, 1))))
        found = cls(kind, chain, cost, low, high, best, even, method + note)
        if not cost:
            return found
        return replace(
            found,
            growth=found.growth_of(found.policy),
            growth_equal=found.growth_of(lambda _, held: np.broadcast_to(equal, held.shape)),
        )

    def policy(self, states: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The best targets (B, N) from states (B,) and the weights held (B, N)."""
        return np.clip(weights, self.low[states], self.high[states])

    def growth_of(self, policy: Policy) -> float:
        """Log growth per period of any policy in the long run.

        Exact up to the grid with one risky asset and cash. With more assets it is exact for
        policies that do not look at the weights held; for others the exact expectations are
        averaged over the weights met on 256 seeded paths.
        """
        if self.chain.n_assets == 2:
            grid = Grid(self.chain, self.cost)
            states = np.repeat(np.arange(self.chain.n_states), grid.points)
            held = _with_cash(np.tile(grid.nodes, self.chain.n_states))
            targets = _checked(policy(states, held), held.shape)
            return grid.growth(targets[:, 0].reshape(self.chain.n_states, grid.points))
        return self._growth_on_paths(policy)

    def score(self, policy: Policy) -> float:
        """(growth - equal) / (optimum - equal): 1 is the best there is, 0 equal weight."""
        return self.score_of(self.growth_of(policy))

    def score_of(self, growth: float) -> float:
        """The score of a growth per period; nan where equal weight is the optimum."""
        room = self.growth - self.growth_equal
        return (growth - self.growth_equal) / room if room > 1e-12 else float("nan")

    def growth_within(self, menu: np.ndarray, *, hold: bool = False) -> float:
        """The best growth of policies that always trade to one of some weights, (A, N).

        Args:
            menu: The weights.
            hold: Whether they may also leave what they hold as it is. Only with one risky asset
                and cash is this solved for; with more assets, where nothing is charged, the answer
                is that without holding, which is no more than the best.

        """
        menu = _checked(np.asarray(menu, float), (len(menu), self.chain.n_assets))
        if self.cost or (hold and self.chain.n_assets == 2):
            grid = Grid(self.chain, self.cost)
            return grid.growth(grid.best(menu[:, 0], hold=hold))
        states = np.arange(self.chain.n_states)[:, None]
        choices = np.broadcast_to(menu, (self.chain.n_states, *menu.shape))
        return float(self.chain.stationary @ self.chain.log_growth(states, choices).max(axis=1))

    def states(self, market: Market) -> np.ndarray:
        """The state at each row of a market of this kind, read from its feature "signal", (T,)."""
        if self.chain.n_states == 1:
            return np.zeros(market.n_periods, int)
        names = [name for name in market.feature_names if name in (SIGNAL, f"table({SIGNAL})")]
        if not names:
            raise DataError(f"{market.name}: has no feature '{SIGNAL}' that would show its state")
        shown = market.features[:, 0, market.feature_names.index(names[0]), None]
        return np.abs(shown - self.chain.signals).argmin(axis=1)

    def growth_along(self, market: Market, held: np.ndarray, targets: np.ndarray) -> float:
        """Growth of decisions taken along a market, with the luck of the outcomes taken out.

        Args:
            market: Rows of a market of this kind, in which the decisions were taken.
            held: Weights before each trade, (T, N).
            targets: Weights after each trade, (T, N).

        Returns:
            The expected log growth of each decision, costs taken off, averaged in each state and
            then over the states by how often they occur in the long run.

        """
        states = self.states(market)
        targets = _checked(targets, held.shape)
        growth = self._expected(states, held, targets)
        chances = self.chain.stationary
        means = [growth[states == state].mean() for state in range(len(chances))]
        return float(chances @ np.array(means))

    def _expected(self, states: np.ndarray, held: np.ndarray, targets: np.ndarray) -> np.ndarray:
        growth = self.chain.log_growth(states, targets)
        if not self.cost:
            return growth
        return growth + np.log(value_left(held[..., 0], targets[..., 0], self.cost))

    def _growth_on_paths(self, policy: Policy) -> float:
        rng = np.random.default_rng(0)
        chain, sums = self.chain, np.zeros(self.chain.n_states)
        visits = np.zeros(chain.n_states)
        states = rng.choice(chain.n_states, size=_PATHS, p=chain.stationary)
        weights = np.full((_PATHS, chain.n_assets), 1.0 / chain.n_assets)
        for step in range(_STEPS):
            targets = _checked(policy(states, weights), weights.shape)
            if step >= _SETTLE:
                sums += np.bincount(states, chain.log_growth(states, targets), chain.n_states)
                visits += np.bincount(states, minlength=chain.n_states)
            outcome = _draw(chain.probabilities[states], rng)
            grown = targets * (1.0 + chain.outcomes[outcome])
            weights = grown / grown.sum(axis=1, keepdims=True)
            states = _draw(chain.transition[states], rng)
        return float(chain.stationary @ (sums / visits))


def _draw(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index a row by its chances (B, K), shape (B,)."""
    passed = (rng.random((len(chances), 1)) >= np.cumsum(chances, axis=1)).sum(axis=1)
    return np.minimum(passed, chances.shape[1] - 1)


def _with_cash(risky: np.ndarray) -> np.ndarray:
    return np.stack([risky, 1.0 - risky], axis=-1)


def _checked(targets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if targets.shape != shape:
        raise SettingError(f"targets must have shape {shape}, got {targets.shape}")
    if not ((targets >= -1e-9).all() and np.abs(targets.sum(-1) - 1.0).max() < 1e-6):
        raise SettingError("targets must be >= 0 and sum to 1")
    return targets
