"""What agents that estimate from a rolling window of returns have in common.

Each sees the excess returns over cash of the last `window` rows, of the assets that can be held and
were listed all that time. It trades when a rebalance is due and lets the holdings drift in between.
A solve that fails is named in `failures` and trades nothing.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from agents.base import Agent
from agents.moments import CovarianceName, covariance_of
from agents.schedule import Every, check_every, investable, is_due, with_cash
from agents.settings import require
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
        may_hold_cash: Whether the optimum may leave money in cash; else risky weights sum to 1.
        failures: Date and reason of each solve that failed and left the holdings as they were.

    """

    Settings: ClassVar[type] = RollingSettings
    may_hold_cash: ClassVar[bool] = False
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.window + 1  # the first row of loaded data has no return
        self.failures: list[tuple[pd.Timestamp, str]] = []

    @abstractmethod
    def solve(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """Optimal weights (k,) of excess returns (window, k).

        Args:
            excess: Returns over cash of each period.
            full: Whether weights must sum to 1; else what they leave goes to cash.

        """

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The optimum when a rebalance is due, else what is held."""
        settings = self.settings
        if not is_due(history, weights, settings.rebalance_every, self.lookback):
            return weights
        chosen = investable(history, settings.window)
        rows = slice(-settings.window, None)
        if settings.expanding:
            listed = np.isfinite(history.prices[:, chosen]).all(axis=1)
            rows = slice(int(listed.argmax()) + 1, None)
        excess = history.returns[rows, chosen] - history.risk_free[rows, None]
        full = not (self.may_hold_cash and history.has_cash)
        target = np.zeros(history.n_assets)
        try:
            target[chosen] = self._weights(excess, full)
        except solver_errors() as error:
            self.failures.append((history.dates[-1], f"{type(error).__name__}: {error}"))
            return weights
        return with_cash(target, history)

    def covariance(self, excess: np.ndarray) -> np.ndarray:
        """The covariance estimate of the settings, (k, k)."""
        return covariance_of(excess, self.settings.covariance)

    def risk_prior(self, excess: np.ndarray) -> Any:
        """That estimate with plain means, for skfolio."""
        return given_prior(excess.mean(axis=0), self.covariance(excess))

    def _weights(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """The solution, or the obvious one where there is nothing to choose between."""
        if excess.shape[1] <= full:
            return np.ones(excess.shape[1])
        with np.errstate(divide="raise", invalid="raise"), warnings.catch_warnings():
            warnings.filterwarnings("error", "Solution may be inaccurate")
            found = np.asarray(self.solve(excess, full))
        if not np.isfinite(found).all() or not -1e-4 < found.min() <= found.sum() < 1.0 + 1e-4:
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
