"""Allocation rules: forecasts to target weights. Any rule takes any forecaster's numbers.

A rule is a frozen dataclass, called with what is expected (an `Outlook`, or expected simple returns
of a period, (N,)), the history it was made from, and the weights held. Assets that cannot be held
get none. Rules that weigh return against risk are next door; `RULES` has them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.optimal_rules import BlackLittermanRule, MeanVarianceRule, TiltedRiskParity
from agents.outlook import Outlook
from agents.rule_base import Rule, build
from agents.schedule import equal, investable, start_weights
from agents.settings import require
from envs.constraints import VolatilityTarget
from envs.history import MIN_ROWS, Moments
from market import Market

__all__ = [
    "RULES",
    "BlackLittermanRule",
    "MeanVarianceRule",
    "Proportional",
    "Rule",
    "SoftmaxRule",
    "TiltedRiskParity",
    "TopK",
    "build",
    "limit_volatility",
]


@dataclass(frozen=True, kw_only=True)
class Proportional(Rule):
    """w_i = max(f_i, 0) / sum max(f, 0) over risky assets; all cash when none is positive."""

    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """Positive parts, normalised."""
        positive = np.where(investable(history), np.maximum(outlook.score, 0.0), 0.0)
        total = positive.sum()
        return positive / total if total > 0.0 else start_weights(history)


@dataclass(frozen=True, kw_only=True)
class TopK(Rule):
    """Equal weights over the k risky assets with the highest forecasts; of equals the first wins.

    Args:
        k: How many.
        positive: Whether a forecast must be positive to be chosen; all cash when none is.

    """

    k: int = 2
    positive: bool = False

    def __post_init__(self) -> None:
        require(self, k="[1, inf)")

    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """Equal parts of the best."""
        forecast = outlook.score
        open_ = investable(history)
        if self.positive:
            open_ = open_ & (forecast > 0.0)
        best = np.argsort(np.where(open_, -forecast, np.inf), kind="stable")[: self.k]
        chosen = np.zeros(len(forecast), bool)
        chosen[best] = True
        return equal(chosen & open_, history)


@dataclass(frozen=True, kw_only=True)
class SoftmaxRule(Rule):
    """w_i = exp(f_i / temperature) / sum over the risky assets, and over cash where it is included.

    Args:
        temperature: Difference of daily returns that makes one weight e times another.
        include_cash: Whether cash, forecast at its rate, is one of the assets.

    """

    temperature: float = 0.001
    include_cash: bool = False

    def __post_init__(self) -> None:
        require(self, temperature="(0, inf)")

    def weigh(self, outlook: Outlook, history: Market, weights: np.ndarray) -> np.ndarray:
        """Softmax of the forecasts."""
        open_ = investable(history, include_cash=self.include_cash)
        if not open_.any():
            return start_weights(history)
        scores = np.where(open_, outlook.score / self.temperature, -np.inf)
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()


RULES: dict[str, type[Rule]] = {
    "black_litterman": BlackLittermanRule,
    "mean_variance": MeanVarianceRule,
    "proportional": Proportional,
    "risk_parity": TiltedRiskParity,
    "softmax": SoftmaxRule,
    "top_k": TopK,
}


def limit_volatility(
    target: np.ndarray, history: Market, limit: float, window: int = 60
) -> np.ndarray:
    """The target, with what exceeds `limit` volatility a year moved to cash.

    What the constraint `VolatilityTarget` does, on the sample covariance of the last `window`
    returns; a constraint set would first look at every day of them.
    """
    overlay = VolatilityTarget(limit, window, periods_per_year=history.periods_per_year)
    safe = overlay.safe_asset(history)
    rows = history.returns[max(1, history.n_periods - window) :]
    if len(rows) < 2:
        return target
    centred = rows - rows.mean(axis=0)
    covariance = centred.T @ centred / (len(rows) - 1)
    beside = target @ covariance
    known = (beside @ target, beside[safe], covariance[safe, safe])
    variance, shared, safest = (np.array([value]) for value in known)
    enough = np.array([len(rows) >= min(window, MIN_ROWS)])
    share = overlay.share(Moments(0.0, 0.0, variance, shared, safest, enough))[0][0]
    if share >= 1.0:
        return target
    limited: np.ndarray = share * target
    limited[safe] += 1.0 - share
    return limited
