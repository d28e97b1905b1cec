"""Optimisers of expected return against risk, solved by skfolio.

All keep to the task's limits on weights inside their programme; those that maximise utility weigh
the costs of trading, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from agents.moments import MeanName, mean_of
from agents.quadratic import best_ratio, best_utility
from agents.rolling import RollingAgent, RollingSettings, given_prior
from agents.room import Room
from agents.schedule import PERIODS
from agents.settings import Space, require
from agents.stated import StatedUtility


@dataclass(frozen=True, kw_only=True)
class UtilitySettings(RollingSettings):
    """What maximisers of utility have in common."""

    risk_aversion: float = 5.0  # lambda in w.mu - lambda/2 w.S.w
    costs: bool = True  # whether the objective pays the task's costs of trading
    holding: int | None = None  # periods a trade's cost is spread over; None: to the next rebalance

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, risk_aversion="(0, inf)", holding="[1, inf)")

    @property
    def periods(self) -> int:
        """Periods a trade's cost is spread over."""
        if self.holding is not None:
            return self.holding
        every = self.rebalance_every
        return every if isinstance(every, int) else PERIODS[every]


class UtilityAgent(RollingAgent):
    """Maximises w.mu - lambda/2 w.S.w - costs / periods until the next rebalance."""

    Settings: ClassVar[type] = UtilitySettings
    space: ClassVar[Space] = {**RollingAgent.space, "risk_aversion": "1.0..50.0 log"}
    may_hold_cash: ClassVar[bool] = True
    limited: ClassVar[bool] = True
    settings: Any

    @property
    def pays(self) -> bool:
        """As the settings say, where the task has costs."""
        return self.settings.costs and self.terms is not None and self.terms.rates is not None

    def best(self, mean: np.ndarray, covariance: np.ndarray, room: Room) -> np.ndarray:
        """The optimum by the direct path."""
        return best_utility(
            mean,
            covariance,
            self.settings.risk_aversion,
            full=room.full,
            trading=room.trading(self.settings.periods),
            limits=room.limits,
            budget=room.budget,
            reach=room.reach,
            start=room.held,
        )


@dataclass(frozen=True, kw_only=True)
class MeanVarianceSettings(UtilitySettings):
    """Settings of `mean_variance`."""

    mean: MeanName = "bayes_stein"
    solver: Literal["skfolio", "direct"] = "skfolio"  # "direct": the same optimum, in less time


class MeanVariance(UtilityAgent):
    """Long-only mean-variance utility over risky assets, the rest in cash.

    max w.mu - lambda/2 w.S.w, w >= 0, sum w <= 1, with mu and S of returns over cash; mu shrunk
    towards the minimum-variance portfolio's mean, S towards a multiple of the identity. Under a
    task, less the costs of trading, spread over the periods to the next rebalance, and within the
    task's limits on weights.

    Source: Markowitz, Portfolio selection (1952); Jorion, Bayes-Stein estimation for portfolio
    analysis (1986); Ledoit & Wolf, A well-conditioned estimator for large covariance matrices
    (2004).
    """

    Settings: ClassVar[type] = MeanVarianceSettings
    space: ClassVar[Space] = {
        **UtilityAgent.space,
        "mean": ["bayes_stein", "empirical"],
    }
    settings: MeanVarianceSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._stated: StatedUtility | None = None

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The optimum of skfolio's programme or of the direct one."""
        covariance = self.covariance(excess)
        mean = mean_of(excess, covariance, self.settings.mean)
        if self.settings.solver == "direct":
            return self.best(mean, covariance, room)
        if self._stated is None or not self._stated.fits(room):
            self._stated = StatedUtility(room)
        settings = self.settings
        return self._stated.solve(mean, covariance, settings.risk_aversion, room, settings.periods)


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
    space: ClassVar[Space] = {
        **RollingAgent.space,
        "mean": ["bayes_stein", "empirical"],
    }
    may_hold_cash: ClassVar[bool] = True
    limited: ClassVar[bool] = True
    settings: MaximumSharpeSettings

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution of skfolio's `MeanRisk`; within limits that of `best_ratio`."""
        covariance = self.covariance(excess)
        mean = mean_of(excess, covariance, self.settings.mean)
        if room._replace(rates=None).cheapest(-mean) @ mean <= 0.0:
            if not room.full and not room.limited:
                return np.zeros(len(mean))
            return best_utility(
                0.0 * mean,
                covariance,
                1.0,
                full=room.full,
                trading=room._replace(rates=None).trading(),
                limits=room.limits,
                budget=room.budget,
                reach=room.reach,
            )
        if room.limited:
            return best_ratio(
                mean,
                covariance,
                full=room.full,
                held=room.held,
                limits=room.limits,
                budget=room.budget,
                reach=room.reach,
            )
        from skfolio.optimization import MeanRisk, ObjectiveFunction

        model = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_RATIO,
            prior_estimator=given_prior(mean, covariance),
        )
        return model.fit(excess).weights_


@dataclass(frozen=True, kw_only=True)
class BlackLittermanSettings(UtilitySettings):
    """Settings of `black_litterman`; the risk aversion is that of the equilibrium, too."""

    tau: float | None = None  # variance of the equilibrium mean over S; None: 1 / returns used

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, tau="(0, inf)")


class BlackLitterman(UtilityAgent):
    """Mean-variance utility after the window's means, as views, meet an equilibrium of 1/N.

    The equilibrium's expected returns are those that make equal weights optimal; each view is as
    uncertain as a mean of so many returns is: S_ii / T.

    Source: Black & Litterman, Global portfolio optimization (1992); He & Litterman, The intuition
    behind Black-Litterman model portfolios (1999).
    """

    Settings: ClassVar[type] = BlackLittermanSettings
    settings: BlackLittermanSettings

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """Best utility under the posterior means and covariances."""
        covariance = self.covariance(excess)
        n_rows = len(excess)
        equilibrium = self.settings.risk_aversion * covariance.mean(axis=1)
        mean, spread = black_litterman(
            equilibrium,
            covariance,
            views=excess.mean(axis=0),
            uncertainty=np.diag(covariance) / n_rows,
            tau=self.settings.tau or 1.0 / n_rows,
        )
        return self.best(mean, spread, room)


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
