"""Market regimes by a hidden Markov model: fitted once on the past, filtered forward after.

    p(z_t | x_1..t)  ~  p(x_t | z_t) sum_z p(z_t | z) p(z | x_1..t-1)

Probabilities at t use days up to t alone. (Smoothed ones, which hmmlearn's `predict_proba` gives,
know the future and are of no use for a decision.)

Source: Hamilton, A new approach to the economic analysis of nonstationary time series (1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market import Market
from market.errors import DataError
from market.market import CASH

NAMES = {1: ("all",), 2: ("calm", "turbulent"), 3: ("calm", "middling", "turbulent")}
STARTS = 3  # random ones; the likeliest fit is kept
PERCENT = 100.0


@dataclass(frozen=True)
class RegimeModel:
    """Gaussian regimes of a scalar series, the calmest first.

    Attributes:
        names: Of the regimes, (K,).
        start: Probabilities of the first day, (K,).
        moves: Probabilities of going from row to column, (K, K).
        means: (K,).
        deviations: (K,).

    """

    names: tuple[str, ...]
    start: np.ndarray
    moves: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def fit(cls, series: np.ndarray, n_regimes: int = 2, seed: int = 0) -> RegimeModel:
        """By expectation maximisation from several starts (hmmlearn).

        Raises:
            DataError: If the series is too short or does not vary.

        """
        from hmmlearn.hmm import GaussianHMM

        if len(series) < 50 * n_regimes or float(np.ptp(series)) < 1e-12:
            raise DataError(
                f"regimes: {n_regimes} need {50 * n_regimes} training days that vary, "
                f"got {len(series)}"
            )
        column = series[:, None]
        models = [
            GaussianHMM(n_regimes, "diag", n_iter=200, tol=1e-4, random_state=seed + start)
            for start in range(STARTS)
        ]
        best = max((model.fit(column) for model in models), key=lambda model: model.score(column))
        order = np.argsort(best.covars_.ravel())
        return cls(
            NAMES.get(n_regimes, tuple(f"regime {i + 1}" for i in range(n_regimes))),
            best.startprob_[order],
            best.transmat_[np.ix_(order, order)],
            best.means_.ravel()[order],
            np.sqrt(best.covars_.ravel()[order]),
        )

    def filter(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities p(z_t | x_1..t), (T, K), and log densities log p(x_t | x_1..t-1), (T,)."""
        scores = (series[:, None] - self.means) / self.deviations
        logs = -0.5 * scores**2 - np.log(self.deviations * np.sqrt(2.0 * np.pi))
        shift = logs.max(axis=1)
        likely = np.exp(logs - shift[:, None])
        filtered, density = np.empty_like(likely), np.empty(len(series))
        ahead = self.start
        for t, seen in enumerate(likely):
            joint = ahead * seen
            density[t] = joint.sum()
            filtered[t] = joint / density[t]
            ahead = filtered[t] @ self.moves
        return filtered, np.log(density) + shift


def market_returns(market: Market) -> np.ndarray:
    """Log return in percent of equal weights over the risky assets that trade, (T,)."""
    risky = np.array([asset != CASH for asset in market.assets])
    held = market.tradable & (risky if risky.any() else ~risky)
    count = np.maximum(held.sum(axis=1), 1)
    return PERCENT * np.log1p((market.returns * held).sum(axis=1) / count)
