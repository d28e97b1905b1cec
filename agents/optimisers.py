"""Optimisers of expected return against risk, and of tail risk, solved by skfolio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from agents.moments import MeanName, mean_of
from agents.quadratic import best_utility
from agents.rolling import RollingAgent, RollingSettings, given_prior
from agents.settings import require


@dataclass(frozen=True, kw_only=True)
class MeanVarianceSettings(RollingSettings):
    """Settings of `mean_variance`."""

    risk_aversion: float = 5.0  # lambda in w.mu - lambda/2 w.S.w
    mean: MeanName = "bayes_stein"
    solver: Literal["skfolio", "direct"] = "skfolio"  # "direct": the same optimum, 15 times faster

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
    may_hold_cash: ClassVar[bool] = True
    settings: MeanVarianceSettings

    def solve(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """The optimum of skfolio's `MeanRisk`, whose utility has no 1/2, or of `best_utility`."""
        covariance = self.covariance(excess)
        mean = mean_of(excess, covariance, self.settings.mean)
        aversion = self.settings.risk_aversion
        if self.settings.solver == "direct":
            return best_utility(mean, covariance, aversion, full=full)
        from skfolio.optimization import MeanRisk, ObjectiveFunction

        model = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_aversion=aversion / 2.0,
            prior_estimator=given_prior(mean, covariance),
            max_weights=None,
            budget=1.0 if full else None,
            max_budget=None if full else 1.0,
        )
        return model.fit(excess).weights_


@dataclass(frozen=True, kw_only=True)
class MaximumSharpeSettings(RollingSettings):
    """Settings of `maximum_sharpe`."""

    mean: MeanName = "bayes_stein"


class MaximumSharpe(RollingAgent):
    """The portfolio of the highest expected excess return per volatility: w.mu / sqrt(w.S.w).

    All in cash where no asset is expected to earn more than cash; without a cash asset the
    portfolio of minimum variance then.

    Source: Tobin, Liquidity preference as behavior towards risk (1958).
    """

    Settings: ClassVar[type] = MaximumSharpeSettings
    may_hold_cash: ClassVar[bool] = True
    settings: MaximumSharpeSettings

    def solve(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """The solution of skfolio's `MeanRisk` with the ratio as its objective."""
        from skfolio.optimization import MeanRisk, ObjectiveFunction

        covariance = self.covariance(excess)
        mean = mean_of(excess, covariance, self.settings.mean)
        hopeless = mean.max() <= 0.0
        if hopeless and not full:
            return np.zeros(excess.shape[1])
        objective = (
            ObjectiveFunction.MINIMIZE_RISK if hopeless else ObjectiveFunction.MAXIMIZE_RATIO
        )
        model = MeanRisk(
            objective_function=objective, prior_estimator=given_prior(mean, covariance)
        )
        return model.fit(excess).weights_


@dataclass(frozen=True, kw_only=True)
class MinimumCVaRSettings(RollingSettings):
    """Settings of `minimum_cvar`."""

    tail: float = 0.05  # probability of the losses whose mean is minimised

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, tail="(0, 1)")


class MinimumCVaR(RollingAgent):
    """The fully invested portfolio of least conditional value at risk over the window's days.

    Source: Rockafellar & Uryasev, Optimization of conditional value-at-risk (2000).
    """

    Settings: ClassVar[type] = MinimumCVaRSettings
    settings: MinimumCVaRSettings

    def solve(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """The solution of skfolio's `MeanRisk` with CVaR, a linear programme."""
        from skfolio import RiskMeasure
        from skfolio.optimization import MeanRisk

        model = MeanRisk(
            risk_measure=RiskMeasure.CVAR,
            cvar_beta=1.0 - self.settings.tail,
            prior_estimator=self.risk_prior(excess),
        )
        return model.fit(excess).weights_


@dataclass(frozen=True, kw_only=True)
class BlackLittermanSettings(RollingSettings):
    """Settings of `black_litterman`."""

    risk_aversion: float = 5.0  # of the equilibrium and of the choice
    tau: float | None = None  # variance of the equilibrium mean over S; None: 1 / returns used

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, risk_aversion="(0, inf)", tau="(0, inf)")


class BlackLitterman(RollingAgent):
    """Mean-variance utility after the window's means, as views, meet an equilibrium of 1/N.

    The equilibrium's expected returns are those that make equal weights optimal; each view is as
    uncertain as a mean of so many returns is: S_ii / T.

    Source: Black & Litterman, Global portfolio optimization (1992); He & Litterman, The intuition
    behind Black-Litterman model portfolios (1999).
    """

    Settings: ClassVar[type] = BlackLittermanSettings
    may_hold_cash: ClassVar[bool] = True
    settings: BlackLittermanSettings

    def solve(self, excess: np.ndarray, full: bool) -> np.ndarray:
        """Best utility under the posterior means and covariances."""
        covariance = self.covariance(excess)
        n_rows = len(excess)
        aversion = self.settings.risk_aversion
        equilibrium = aversion * covariance.mean(axis=1)
        mean, spread = black_litterman(
            equilibrium,
            covariance,
            views=excess.mean(axis=0),
            uncertainty=np.diag(covariance) / n_rows,
            tau=self.settings.tau or 1.0 / n_rows,
        )
        return best_utility(mean, spread, aversion, full=full)


def black_litterman(
    equilibrium: np.ndarray,
    covariance: np.ndarray,
    *,
    views: np.ndarray,
    uncertainty: np.ndarray,
    tau: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of returns after one view per asset.

    mu = pi + K (q - pi),  S + tau S - K tau S,  K = tau S (tau S + Omega)^-1

    Args:
        equilibrium: pi, prior expected returns, (k,).
        covariance: S, (k, k).
        views: q, what each asset is expected to return, (k,).
        uncertainty: Diagonal of Omega, variances of the views' errors, (k,).
        tau: Variance of the prior mean as a fraction of S.

    Source: He & Litterman (1999), with the identity as the matrix of views.
    """
    prior_variance = tau * covariance
    gain = np.linalg.solve(prior_variance + np.diag(uncertainty), prior_variance).T
    mean = equilibrium + gain @ (views - equilibrium)
    return mean, covariance + prior_variance - gain @ prior_variance
