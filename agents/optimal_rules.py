"""Allocation rules that weigh forecasts against risk and costs.

Risk is the covariance of the last `window` returns over cash; where a forecaster says how volatile
an asset will be, its row and column are scaled to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from agents.forecast_targets import ranks
from agents.moments import CovarianceName, covariance_of
from agents.optimisers import black_litterman
from agents.outlook import Outlook
from agents.quadratic import Trading, best_utility
from agents.risk_based import equal_risk
from agents.rolling import given_prior
from agents.rule_base import Rule
from agents.schedule import investable, start_weights, with_cash
from agents.settings import require
from market import Market


@dataclass(frozen=True, kw_only=True)
class RiskRule(Rule):
    """A rule that needs a covariance.

    Args:
        window: Returns it is estimated from.
        covariance: How it is shrunk.

    """

    window: int = 252
    covariance: CovarianceName = "ledoit_wolf"

    def __post_init__(self) -> None:
        require(self, window="[2, inf)")

    @property
    def lookback(self) -> int:
        """The window, and a row before it: the first row of loaded data has no return."""
        return self.window + 1

    def risk(self, outlook: Outlook, history: Market, chosen: np.ndarray) -> np.ndarray:
        """Covariance of one period's returns over cash of the chosen assets, (k, k)."""
        rows = slice(-self.window, None)
        excess = history.returns[rows, chosen] - history.risk_free[rows, None]
        estimate = covariance_of(excess, self.covariance)
        if outlook.volatility is None:
            return estimate
        ratio = outlook.volatility[chosen] / np.sqrt(np.diag(estimate))
        return estimate * np.outer(ratio, ratio)


@dataclass(frozen=True, kw_only=True)
class MeanVarianceRule(RiskRule):
    """max w.f - lambda/2 w.S.w - costs of getting there, w >= 0, sum w <= 1, the rest in cash.

    f are expected returns over cash. Trading costs what the back-test charges, by asset and side,
    spread over `holding` periods, because a position is held longer than the period it is chosen
    for; `turnover_penalty` comes on top. Without a cash asset weights sum to 1.

    Args:
        risk_aversion: lambda.
        holding: Periods a trade is expected to serve.
        turnover_penalty: Return a period that a turnover of 1 must be worth; turnover is half of
            the sum of absolute trades.
        solver: "skfolio" finds the same optimum, some 15 times slower.

    Source: Markowitz (1952); Garleanu & Pedersen, Dynamic trading with predictable returns and
    transaction costs (2013), on spreading costs over the life of a position.

    """

    risk_aversion: float = 5.0
    holding: int = 21
    turnover_penalty: float = 0.0
    solver: Literal["direct", "skfolio"] = "direct"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, risk_aversion="(0, inf)", holding="[1, inf)", turnover_penalty="[0, inf)")

    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """The optimum."""
        chosen = investable(history, self.window)
        full = not history.has_cash
        if not chosen.any():
            return start_weights(history)
        target = np.zeros(history.n_assets)
        mean, covariance = self.moments(outlook, history, chosen)
        trading = self.trading(outlook, weights, chosen)
        if self.solver == "direct":
            target[chosen] = best_utility(
                mean,
                covariance,
                self.risk_aversion,
                full=full,
                trading=trading,
                start=weights[chosen],
            )
        else:
            target[chosen] = by_skfolio(mean, covariance, self.risk_aversion, full, trading)
        return with_cash(target, history)

    def moments(
        self, outlook: Outlook, history: Market, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expected returns over cash (k,) and their covariance (k, k)."""
        cash = outlook.mean[-1] if history.has_cash else 0.0
        return outlook.mean[chosen] - cash, self.risk(outlook, history, chosen)

    def trading(self, outlook: Outlook, weights: np.ndarray, chosen: np.ndarray) -> Trading | None:
        """Holdings, and what a unit of buying and selling costs a period; None if nothing."""
        sides = [np.full(chosen.sum(), 0.5 * self.turnover_penalty) for _ in range(2)]
        if outlook.rates is not None:
            sides = [
                side + rate[chosen] / self.holding
                for side, rate in zip(sides, outlook.rates, strict=True)
            ]
        if not any(side.any() for side in sides):
            return None
        return Trading(weights[chosen], *sides)


@dataclass(frozen=True, kw_only=True)
class BlackLittermanRule(MeanVarianceRule):
    """Mean-variance after forecasts, as views, meet an equilibrium that makes 1/N optimal.

    Each asset's forecast is a view whose variance is the square of the forecasts' error, as it was
    out of sample (an asset's own volatility where nobody measured it). Forecasts are of returns
    that come, not of their mean, so the equilibrium is as uncertain of them as returns are: tau is
    1 over the forecasts' horizon. A forecast that was never wrong is believed wholly, one that is
    off by what the asset moves anyway about half, and one that was far off leaves 1/N.

    Args:
        tau: Variance of the equilibrium's mean as a fraction of S; None: 1 / horizon.

    Source: Black & Litterman, Global portfolio optimization (1992); Idzorek, A step-by-step guide
    to the Black-Litterman model (2005); Meucci, The Black-Litterman approach: original model and
    extensions (2008), on views about returns instead of their mean.

    """

    tau: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, tau="(0, inf)")

    def moments(
        self, outlook: Outlook, history: Market, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means, and the covariance as it was."""
        views, covariance = super().moments(outlook, history, chosen)
        error = np.diag(covariance) ** 0.5 if outlook.error is None else outlook.error[chosen]
        mean, _ = black_litterman(
            self.risk_aversion * covariance.mean(axis=1),
            covariance,
            views=views,
            uncertainty=error**2,
            tau=self.tau or 1.0 / outlook.horizon,
        )
        return mean, covariance


@dataclass(frozen=True, kw_only=True)
class TiltedRiskParity(RiskRule):
    """Risk parity whose budgets lean towards high forecasts: b_i ~ exp(tilt * rank_i).

    Ranks run evenly from -1, the lowest forecast, to 1. With a tilt of 1 the best asset carries
    e^2 = 7.4 times the risk of the worst; with 0 all carry the same.

    Source: Maillard, Roncalli & Teiletche (2010); Roncalli, Introducing expected returns into risk
    parity portfolios (2014).

    """

    tilt: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, tilt="[0, 20]")

    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """Weights whose risk contributions are the budgets."""
        chosen = investable(history, self.window)
        if not chosen.any():
            return start_weights(history)
        budgets = np.exp(self.tilt * ranks(outlook.score[chosen]))
        target = np.zeros(history.n_assets)
        target[chosen] = equal_risk(self.risk(outlook, history, chosen), budgets / budgets.sum())
        return target


def by_skfolio(
    mean: np.ndarray,
    covariance: np.ndarray,
    risk_aversion: float,
    full: bool,
    trading: Trading | None = None,
) -> np.ndarray:
    """What `best_utility` finds, found by skfolio's `MeanRisk`; its utility has no 1/2."""
    import cvxpy
    from skfolio.optimization import MeanRisk, ObjectiveFunction

    scale = 1.0 / float(np.diag(covariance).mean())  # as `given_prior` scales

    def costs(weights: cvxpy.Variable) -> cvxpy.Expression:
        assert trading is not None
        bought = trading.buy @ cvxpy.pos(weights - trading.held)
        return -scale * (bought + trading.sell @ cvxpy.pos(trading.held - weights))

    model = MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
        risk_aversion=risk_aversion / 2.0,
        prior_estimator=given_prior(mean, covariance),
        max_weights=None,
        budget=1.0 if full else None,
        max_budget=None if full else 1.0,
        add_objective=costs if trading is not None else None,
    )
    found: np.ndarray = model.fit(np.zeros((2, len(mean)))).weights_
    return found
