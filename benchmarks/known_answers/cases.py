"""The markets of the study, what an agent is shown of them, and an exam that shows each state.

Agents see the state of the market and what they hold, nothing else: the study asks whether they
find the optimum, not whether they tell signals from noise (which "noise" does). A window of one row
therefore is all there is to know, and the exam, a market with a row for each state, is complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from agents.base import Task
from envs.costs import ProportionalCost
from market import Market, load_market
from market.sources.chain import Chain
from market.sources.optimum import Optimum
from market.sources.paths import market_of_returns


class View(NamedTuple):
    """What agents see on each row of a path, (T, N, F), and in each state, (S, N, F)."""

    name: str
    path: np.ndarray
    states: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Case:
    """A market, its costs and what is shown of it.

    Attributes:
        title: What tables call it.
        kind: Of synthetic market.
        options: Of the kind.
        cost: Proportional rate of buying and of selling.
        view: Picks the features out of a market; None: all of its own, which mean nothing.
        leaked: Whether the state is the next outcome itself.

    """

    title: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    view: Callable[[Market], View] | None
    leaked: bool = False

    @property
    def task(self) -> Task:
        """Costs, and growth as the reward."""
        return Task(cost=ProportionalCost(self.cost) if self.cost else None)

    def market(self, seed: int) -> Market:
        """A path to learn from, with its optimum."""
        market = load_market("synthetic", kind=self.kind, seed=seed, **self.options)
        if self.view is None:
            return market
        shown = self.view(market)
        optimum = revealed(market.optimum.chain) if self.leaked else market.optimum
        return dataclasses.replace(
            market, features=shown.path, feature_names=(shown.name,), optimum=optimum
        )

    def exam(self, market: Market) -> Market:
        """Row s shows what agents see in state s; one more row where there is but one state."""
        assert self.view is not None
        original = load_market("synthetic", kind=self.kind, **self.options)
        shown = self.view(original)
        rows = shown.states if len(shown.states) > 1 else np.repeat(shown.states, 2, axis=0)
        still = np.zeros(rows.shape[:2])
        return market_of_returns(
            "exam", still, market.assets, 0.0, features=rows, feature_names=(shown.name,)
        )


def signal(market: Market) -> View:
    """The feature that tells the state; nothing where there is only one."""
    chain = market.optimum.chain
    place = market.feature_names.index("signal")
    states = np.broadcast_to(chain.signals[:, None, None], (chain.n_states, chain.n_assets, 1))
    return View("signal", market.features[:, :, [place]], states.astype(np.float32))


def identity(market: Market) -> View:
    """The volatility of each asset: networks tell assets apart by their features alone."""
    chain = market.optimum.chain
    mean = chain.probabilities[0] @ chain.outcomes
    spread = np.sqrt(chain.probabilities[0] @ (chain.outcomes - mean) ** 2)
    one = spread[None, :, None].astype(np.float32)
    return View("volatility", np.repeat(one, market.n_periods, axis=0), one)


def last_return(market: Market) -> View:
    """The last return, by which alternating returns can be told: after a rise comes a fall."""
    chain = market.optimum.chain
    before = chain.outcomes[chain.probabilities.argmax(1)][::-1]
    path = market.features[:, :, [market.feature_names.index("return")]]
    return View("return", path, before[:, :, None].astype(np.float32))


def tomorrow(market: Market) -> View:
    """The next period's returns; on the last row, which is never decided on, nothing."""
    path = np.zeros((*market.returns.shape, 1), np.float32)
    path[:-1, :, 0] = market.returns[1:]
    return View("tomorrow", path, market.optimum.chain.outcomes[:, :, None].astype(np.float32))


def revealed(chain: Chain) -> Optimum:
    """The optimum where the outcome of independent periods is known beforehand."""
    chances = chain.probabilities[0]
    known = Chain(
        np.tile(chances, (len(chances), 1)), np.eye(len(chances)), chain.outcomes, chances
    )
    return Optimum.solve("revealed", known)


def _regimes(accuracy: float, cost: float = 0.0) -> Case:
    paid = f", {cost:.1%} costs" if cost else ""
    options = {"accuracy": accuracy, "cost": cost}
    title = f"regimes shown at {accuracy:.0%}{paid}"
    return Case(title=title, kind="regimes", options=options, cost=cost, view=signal)


CASES: dict[str, Case] = {
    "kelly": Case(title="Kelly, 3 assets and cash", kind="kelly", view=identity),
    "regimes_100": _regimes(1.0),
    "regimes_80": _regimes(0.8),
    "alternating": Case(title="alternating returns", kind="alternating", view=last_return),
    "merton": Case(title="Merton's fraction", kind="merton", view=signal),
    "regimes_100_cost_2": _regimes(1.0, 0.02),
    "regimes_80_cost_2": _regimes(0.8, 0.02),
    "noise": Case(title="pure noise, 1 % costs", kind="noise", cost=0.01, view=None),
    "power": Case(title="tomorrow's returns shown", kind="noise", view=tomorrow, leaked=True),
    "regimes_100_cost_0.5": _regimes(1.0, 0.005),
    "regimes_80_cost_0.5": _regimes(0.8, 0.005),
    "regimes_100_cost_10": _regimes(1.0, 0.1),
    "regimes_80_cost_10": _regimes(0.8, 0.1),
}
