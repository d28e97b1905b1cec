"""Portfolios built from risk alone: no expected return enters. Fully invested in risky assets.

Those of minimum variance and minimum CVaR keep to the task's limits inside their programmes; the
others are formulas, and limits act on what they give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from agents.rolling import RollingAgent, RollingSettings
from agents.room import Room
from agents.settings import Space, require
from agents.stated import StatedUtility

STILL = 1e-8  # daily volatility that an asset which does not move counts as


class MinimumVariance(RollingAgent):
    """The fully invested portfolio of least variance: min w.S.w.

    Source: Clarke, de Silva & Thorley, Minimum-variance portfolios in the US equity market (2006).
    """

    limited: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._stated: StatedUtility | None = None

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution of the programme as skfolio states it: utility of risk alone."""
        covariance = self.covariance(excess)
        room = room._replace(rates=None)
        if self._stated is None or not self._stated.fits(room):
            self._stated = StatedUtility(room)
        return self._stated.solve(np.zeros(len(covariance)), covariance, 1.0, room)


class MaximumDiversification(RollingAgent):
    """The portfolio of most volatility diversified away: max w.sigma / sqrt(w.S.w).

    Source: Choueifaty & Coignard, Toward maximum diversification (2008).
    """

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution of skfolio's `MaximumDiversification`."""
        from skfolio import optimization

        model = optimization.MaximumDiversification(prior_estimator=self.risk_prior(excess))
        return model.fit(excess).weights_


class RiskParity(RollingAgent):
    """Every asset contributes the same risk: w_i (S w)_i equal for all i.

    Source: Maillard, Roncalli & Teiletche, The properties of equally weighted risk contribution
    portfolios (2010).
    """

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """Equal risk contributions to rounding."""
        return equal_risk(self.covariance(excess))


class HierarchicalRiskParity(RollingAgent):
    """Risk split down a tree of assets clustered by correlation.

    Source: Lopez de Prado, Building diversified portfolios that outperform out of sample (2016).
    """

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution of skfolio's `HierarchicalRiskParity`; what stands still as in `moving`."""
        from skfolio import optimization

        excess = moving(excess)
        model = optimization.HierarchicalRiskParity(prior_estimator=self.risk_prior(excess))
        return model.fit(excess).weights_


class InverseVolatility(RollingAgent):
    """Weights in proportion to 1 / volatility: risk parity if correlations were equal."""

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """1 / sigma_i over its sum; an asset that does not move at all counts as 1e-8 a day."""
        inverse = 1.0 / np.maximum(excess.std(axis=0, ddof=1), STILL)
        return inverse / inverse.sum()


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
    space: ClassVar[Space] = {**RollingAgent.space, "tail": "0.01..0.2 log"}
    limited: ClassVar[bool] = True
    settings: MinimumCVaRSettings

    def solve(self, excess: np.ndarray, room: Room) -> np.ndarray:
        """The solution of skfolio's `MeanRisk` with CVaR, a linear programme."""
        from skfolio import RiskMeasure
        from skfolio.optimization import MeanRisk

        model = MeanRisk(
            risk_measure=RiskMeasure.CVAR,
            cvar_beta=1.0 - self.settings.tail,
            prior_estimator=self.risk_prior(excess),
            **_within(room),
        )
        return model.fit(excess).weights_


def moving(returns: np.ndarray) -> np.ndarray:
    """Returns (T, k) in which what never moves goes up and down by `STILL`, so it correlates."""
    still = returns.std(axis=0) < STILL
    if not still.any():
        return returns
    beat = STILL * (-1.0) ** np.arange(len(returns))
    return np.where(still, returns.mean(axis=0) + beat[:, None], returns)


def equal_risk(covariance: np.ndarray, budgets: np.ndarray | None = None) -> np.ndarray:
    """Long-only weights whose risk contributions w_i (S w)_i are in proportion to budgets.

    Newton's method on f(x) = x.S.x / 2 - b . log x, x > 0, damped while far off, on the correlation
    matrix; w = x / sum x.

    Args:
        covariance: S, positive definite, (k, k).
        budgets: b, positive, summing to 1, (k,); equal when None.

    Raises:
        ArithmeticError: If the iteration does not converge.

    Source: Spinu, An algorithm for computing risk parity weights (2013).
    """
    count = len(covariance)
    budgets = np.full(count, 1.0 / count) if budgets is None else budgets
    sigma = np.sqrt(np.diag(covariance))
    if not sigma.min() > 0.0:
        raise ArithmeticError("risk parity needs assets that vary")
    correlation = covariance / np.outer(sigma, sigma)
    x = np.sqrt(budgets) / np.sqrt(correlation.sum() / count)
    for _ in range(100):
        gradient = correlation @ x - budgets / x
        step = np.linalg.solve(correlation + np.diag(budgets / x**2), gradient)
        size = np.max(np.abs(step / x))
        x = x - step * (1.0 if size < 0.25 else 1.0 / (1.0 + size))
        if size < 1e-12:
            break
    else:
        raise ArithmeticError(f"risk parity did not converge: last step {size:.2g}")
    weights = x / sigma
    return weights / weights.sum()


def _within(room: Room) -> dict[str, Any]:
    """A room as settings of skfolio's convex optimisers."""
    limits: dict[str, Any] = {"max_weights": None, "budget": room.budget if room.full else None}
    if not room.full:
        limits["max_budget"] = room.budget
    if room.limits is not None:
        limits["left_inequality"], limits["right_inequality"] = room.limits
    if np.isfinite(room.reach):
        limits["add_constraints"] = _near(room)
    return limits


def _near(room: Room) -> Callable[[Any], Any]:
    """The limit on sum |w - held| as skfolio asks for it: a function of cvxpy's weights."""
    import cvxpy

    def condition(weights: Any) -> Any:
        return cvxpy.norm1(weights - room.held) <= room.reach

    return condition
