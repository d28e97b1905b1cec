"""Classical optimisers over a rolling window of returns, solved by skfolio.

Each sees the excess returns over cash of the last `window` rows, of the assets that can be held and
were listed all that time. It trades when a rebalance is due and lets the holdings drift in between.
A solve that fails is named in `failures` and trades nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from agents.base import Agent
from agents.schedule import Every, check_every, investable, is_due, with_cash
from agents.settings import require
from market import Market


@dataclass(frozen=True, kw_only=True)
class RollingSettings:
    """What all optimisers over a window have in common."""

    window: int = 252  # returns to estimate from
    rebalance_every: Every = "month"
    covariance: Literal["ledoit_wolf", "oas", "empirical"] = "ledoit_wolf"

    def __post_init__(self) -> None:
        require(self, window="[2, inf)")
        check_every(self.rebalance_every)


class RollingAgent(Agent):
    """An optimiser; a subclass says what is optimal.

    Attributes:
        failures: Date and reason of each solve that failed and left the holdings as they were.

    """

    Settings: ClassVar[type] = RollingSettings
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.window + 1  # the first row of loaded data has no return
        self.failures: list[tuple[pd.Timestamp, str]] = []

    @abstractmethod
    def solve(self, excess: np.ndarray, budget: str) -> np.ndarray:
        """Optimal weights (k,) of excess returns (window, k).

        Args:
            excess: Daily returns over cash.
            budget: "cash": weights may sum to less than 1; "full": they must sum to 1.

        """

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The optimum when a rebalance is due, else what is held."""
        window = self.settings.window
        if not is_due(history, weights, self.settings.rebalance_every, self.lookback):
            return weights
        chosen = investable(history, window)
        target = np.zeros(history.n_assets)
        if chosen.any():
            excess = history.returns[-window:, chosen] - history.risk_free[-window:, None]
            try:
                target[chosen] = self.solve(excess, "cash" if history.has_cash else "full")
            except solver_errors() as error:
                self.failures.append((history.dates[-1], f"{type(error).__name__}: {error}"))
                return weights
        return with_cash(target, history)


@dataclass(frozen=True, kw_only=True)
class MeanVarianceSettings(RollingSettings):
    """Settings of `mean_variance`."""

    risk_aversion: float = 5.0  # lambda in w.mu - lambda/2 w.S.w
    mean: Literal["bayes_stein", "empirical"] = "bayes_stein"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, risk_aversion="(0, inf)")


class MeanVariance(RollingAgent):
    """Long-only mean-variance utility over risky assets, the rest in cash.

    max w.mu - lambda/2 w.S.w, w >= 0, sum w <= 1, with mu and S of returns over cash; mu shrunk
    towards the minimum-variance portfolio's mean, S towards a multiple of the identity.

    Source: Markowitz, Portfolio selection (1952); Jorion, Bayes-Stein estimation for portfolio
    analysis (1986); Ledoit & Wolf, A well-conditioned estimator for large covariance matrices
    (2004).
    """

    Settings: ClassVar[type] = MeanVarianceSettings
    settings: MeanVarianceSettings

    def solve(self, excess: np.ndarray, budget: str) -> np.ndarray:
        """The optimum of `MeanRisk`, whose utility has no 1/2."""
        from skfolio.optimization import MeanRisk, ObjectiveFunction

        model = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_aversion=self.settings.risk_aversion / 2.0,
            prior_estimator=prior(self.settings.mean, self.settings.covariance),
            **BUDGETS[budget],
        )
        return model.fit(excess).weights_


BUDGETS: dict[str, dict[str, float | None]] = {
    "cash": {"budget": None, "min_budget": 0.0, "max_budget": 1.0},
    "full": {"budget": 1.0},
}


def prior(mean: str, covariance: str) -> Any:
    """An estimator of means and covariances by name, from skfolio.

    James-Stein is not offered: skfolio's intensity is negative where one eigenvalue dominates (as
    it does among stocks and bonds) and then pushes the means apart.
    """
    from skfolio import moments
    from skfolio.prior import EmpiricalPrior

    covariances = {
        "empirical": moments.EmpiricalCovariance,
        "ledoit_wolf": moments.LedoitWolf,
        "oas": moments.OAS,
    }
    matrix = covariances[covariance]
    method = moments.ShrunkMuMethods.BAYES_STEIN
    means = {
        "empirical": moments.EmpiricalMu,
        "bayes_stein": lambda: moments.ShrunkMu(
            covariance_estimator=matrix(), vol_weighted_target=True, method=method
        ),
    }
    return EmpiricalPrior(mu_estimator=means[mean](), covariance_estimator=matrix())


def solver_errors() -> tuple[type[Exception], ...]:
    """What a failed solve raises, here and in the libraries below."""
    from cvxpy.error import DCPError, SolverError

    return (SolverError, DCPError, np.linalg.LinAlgError, ArithmeticError)
