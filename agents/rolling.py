"""What agents that estimate from a rolling window of returns have in common.

Each sees the excess returns over cash of the last `window` rows, of the assets that can be held and
were listed all that time. It trades when a rebalance is due and lets the holdings drift in between.
A solve that fails is named in `failures` and trades nothing.

`fit` estimates nothing: it tells the optimiser the task, whose limits and costs enter the programme
of those that have one. Where the estimate is of fewer assets than can be held, the others get none,
or their floor.
"""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from agents.base import Agent, Monitor, Task
from agents.moments import CovarianceName, covariance_of
from agents.room import Room
from agents.schedule import Every, check_every, investable, is_due, with_cash
from agents.settings import Space, require
from agents.terms import Terms
from market import Market


@dataclass(frozen=True, kw_only=True)
class RollingSettings:
    """What all optimisers over a window have in common."""

    window: int = 252  # returns to estimate from
    expanding: bool = False  # estimate from all rows that list every asset, at least `window`
    rebalance_every: Every = "month"
    covariance: CovarianceName = "ledoit_wolf"

    def __post_init__(self) -> None:
        require(self, window="[2, inf)")
        check_every(self.rebalance_every)


class RollingAgent(Agent):
    """An optimiser; a subclass says what is optimal.

    Attributes:
        may_hold_cash: Whether the optimum may leave money in cash; else as much is invested as the
            limits allow.
        limited: Whether `solve` keeps to the task's limits; else they act on its answer.
        pays: Whether `solve` weighs the costs of trading.
        failures: Date and reason of every solve that failed since the agent was made.

    """

    Settings: ClassVar[type] = RollingSettings
    space: ClassVar[Space] = {
        "window": [63, 126, 252, 504],
        "covariance": ["ledoit_wolf", "oas", "empirical"],
        "rebalance_every": ["week", "month", "quarter"],
    }
    learns: ClassVar[bool] = False
    may_hold_cash: ClassVar[bool] = False
    limited: ClassVar[bool] = False
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.window + 1  # the first row of loaded data has no return
        self.failures: list[tuple[pd.Timestamp, str]] = []
        self.binding: dict[str, bool] = {}
        self.terms: Terms | None = None

    @property
    def pays(self) -> bool:
        """Where a programme has no term for costs, no."""
        return False

    @abstractmethod
    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """Optimal weights (k,) of excess returns (window, k).

        Args:
            excess: Returns over cash of each period.
            room: Where the weights may lie; those without `limited` are given only whether they
                must sum to 1, or may leave something to cash.

        """

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Take in the task's limits and costs."""
        self.terms = Terms.of(task or Task(), train)
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The optimum when a rebalance is due, else what is held."""
        settings, self.binding, self.failed = self.settings, {}, None
        if self.terms is not None:
            self.terms.check(history)
        if not is_due(history, weights, settings.rebalance_every, self.lookback):
            return weights
        chosen = investable(history, settings.window)
        rows = slice(-settings.window, None)
        if settings.expanding:
            listed = np.isfinite(history.prices[:, chosen]).all(axis=1)
            rows = slice(int(listed.argmax()) + 1, None)
        excess = history.returns[rows, chosen] - history.risk_free[rows, None]
        try:
            return self._target(excess, chosen, history, weights)
        except solver_errors() as error:
            self.failed = f"{type(error).__name__}: {error}"
            self.failures.append((history.dates[-1], self.failed))
            return weights

    def save(self, folder: Path) -> None:
        """Settings, and the task's limits and rates, as JSON."""
        super().save(folder)
        if self.terms is not None:
            (folder / "terms.json").write_text(json.dumps(self.terms.plain(), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The agent with its terms."""
        agent = super().load(folder)
        if (folder / "terms.json").is_file():
            agent.terms = Terms.from_plain(json.loads((folder / "terms.json").read_text()))
        return agent

    def covariance(self, excess: np.ndarray) -> np.ndarray:
        """The covariance estimate of the settings, (k, k)."""
        return covariance_of(excess, self.settings.covariance)

    def risk_prior(self, excess: np.ndarray) -> Any:
        """That estimate with plain means, for skfolio."""
        return given_prior(excess.mean(axis=0), self.covariance(excess))

    def _target(
        self, excess: np.ndarray, chosen: np.ndarray, history: Market, weights: np.ndarray
    ) -> np.ndarray:
        """Weights (N,) of the optimum among the assets chosen from."""
        terms, target = self.terms, np.zeros(history.n_assets)
        if terms is None or not self.limited or not (terms.limits or self.pays):
            full = not (self.may_hold_cash and history.has_cash)
            target[chosen] = self._weights(excess, Room(weights[chosen], full))
            return with_cash(target, history)
        tradable = history.tradable[-1]
        target = self._within(terms, excess, chosen, tradable, weights)
        kept = terms.kept(target, tradable)
        if not kept[chosen].all():
            excess, chosen = excess[:, kept[chosen]], chosen & kept
            target = self._within(terms, excess, chosen, tradable, weights)
        target = terms.exact(with_cash(target, history), weights, tradable)
        self.binding = terms.binding(target, weights)
        return target

    def _within(
        self,
        terms: Terms,
        excess: np.ndarray,
        chosen: np.ndarray,
        tradable: np.ndarray,
        weights: np.ndarray,
    ) -> np.ndarray:
        """Risky weights (N,) of the optimum within the terms, any number of assets."""
        room = terms.room(chosen, tradable, weights, self.pays).reachable()
        if not self.may_hold_cash:
            room = room.filled()
        target = terms.floors(chosen, tradable)
        target[chosen] = self._weights(excess, room)
        return target

    def _weights(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution, or the obvious one where there is nothing to choose between."""
        count = excess.shape[1]
        if count == 0 or (count == 1 and room.full and not room.limited):
            return np.full(count, room.budget)
        with np.errstate(divide="raise", invalid="raise"), warnings.catch_warnings():
            warnings.filterwarnings("error", "Solution may be inaccurate")
            found = np.asarray(self.solve(excess, room))
        if not (found.min() > -1e-4 and found.sum() < 1.0 + 1e-4):  # nor where one is not a number
            raise ArithmeticError(f"the solver gave the weights {found}")
        return found


@cache
def _given_prior() -> Any:
    """A class of skfolio priors that hold moments estimated elsewhere."""
    from skfolio.prior import BasePrior, ReturnDistribution

    class Given(BasePrior):
        def __init__(self, mu: Any = None, covariance: Any = None) -> None:
            self.mu = mu
            self.covariance = covariance

        def fit(self, X: Any, y: Any = None, **settings: Any) -> Any:
            self.return_distribution_ = ReturnDistribution(
                mu=self.mu, covariance=self.covariance, returns=X
            )
            return self

    return Given


def given_prior(mean: np.ndarray, covariance: np.ndarray) -> Any:
    """Means (k,) and covariance (k, k) as skfolio takes them.

    Both are scaled to a mean variance of 1, which moves no optimum of ours and brings the solver
    where it is exact: on daily variances of 1e-4 it stops 1e-4 away.
    """
    scale = 1.0 / float(np.diag(covariance).mean())
    return _given_prior()(scale * mean, scale * covariance)


def solver_errors() -> tuple[type[Exception], ...]:
    """What a failed solve raises, here and in the libraries below."""
    from cvxpy.error import DCPError, SolverError
    from skfolio.exceptions import SkfolioError

    below = (SolverError, DCPError, SkfolioError)
    return (*below, np.linalg.LinAlgError, ArithmeticError, UserWarning)
