"""Which regime a market is in, as far as was known at the time: filtered, never smoothed.

    row             t-w+1 ........ t
    series          |<-- filter -->|   ->  p(regime at t | rows up to t)

A model of regimes is fitted on training rows alone. Regimes are ordered from calm to turbulent, so
that a number means the same after every fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from market import DataError, Market, SettingError
from market.quiet import errors_only

RESTARTS = 5  # of the likelihood's ascent; the best is kept


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """Returns drawn from one of K normal distributions, the state a Markov chain.

    Attributes:
        start: Probabilities of the first state, (K,): those the chain has in the long run.
        transition: From row to column, (K, K).
        mean: Of each state, (K,).
        deviation: Of each state, rising, (K,).

    """

    start: np.ndarray
    transition: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, series: np.ndarray, states: int, seed: int) -> HiddenMarkov:
        """The most likely model of a series (T,), by hmmlearn from several starts.

        Raises:
            DataError: If the series is too short or does not move.

        Source: Baum, Petrie, Soules & Weiss, A maximization technique occurring in the statistical
        analysis of probabilistic functions of Markov chains (1970); Hamilton, A new approach to
        the economic analysis of nonstationary time series and the business cycle (1989).
        """
        from hmmlearn.hmm import GaussianHMM

        centre, size = float(series.mean()), float(series.std())
        if len(series) < 20 * states or not size > 0.0:
            raise DataError(
                f"regimes: {states} states need {20 * states} returns that move, got {len(series)}"
            )
        scaled = ((series - centre) / size)[:, None]
        with errors_only("hmmlearn"):  # an ascent that ends by rounding is remarked on
            models = [
                GaussianHMM(states, "diag", n_iter=200, tol=1e-3, random_state=seed + i).fit(scaled)
                for i in range(RESTARTS)
            ]
            best = max(models, key=lambda model: float(model.score(scaled)))
        deviation = np.sqrt(best.covars_.reshape(states))
        order = np.argsort(deviation, kind="stable")
        transition = best.transmat_[np.ix_(order, order)]
        return cls(
            _long_run(transition),
            transition,
            centre + size * best.means_[order, 0],
            size * deviation[order],
        )

    def filtered(self, series: np.ndarray) -> np.ndarray:
        """p(state at t | series up to t) for every t, (T, K); by the forward recursion.

        p_t is in proportion to (p_{t-1} A) * density(x_t), so row t depends on no later one.

        Source: Hamilton (1989), eq. 9.
        """
        distance = (series[:, None] - self.mean) / self.deviation
        logs = -0.5 * distance**2 - np.log(self.deviation)
        density = np.exp(logs - logs.max(axis=1, keepdims=True))
        known, ahead = np.empty_like(density), self.start
        for t, likely in enumerate(density):
            joint = ahead * likely
            total = joint.sum()
            known[t] = joint / total if total > 0.0 else likely / likely.sum()
            ahead = known[t] @ self.transition
        return known

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"kind": "hmm"} | {key: value.tolist() for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class VolatilityState:
    """The state is which of K parts of training's volatilities the latest one falls into.

    Attributes:
        edges: Quantiles of the volatility over windows of training, rising, (K - 1,).
        window: Returns a volatility is of.

    """

    edges: np.ndarray
    window: int

    @classmethod
    def fit(cls, series: np.ndarray, states: int, window: int) -> VolatilityState:
        """Edges that part the volatilities of a series (T,) into equal shares.

        Raises:
            DataError: If the series is shorter than two windows.

        """
        if len(series) < 2 * window:
            raise DataError(f"regimes: windows of {window} need {2 * window} returns")
        shares = np.arange(1, states) / states
        return cls(np.quantile(_volatility(series, window), shares), window)

    def filtered(self, series: np.ndarray) -> np.ndarray:
        """1 for the state at t and 0 for the others, (T, K); equal shares before a full window."""
        count = len(self.edges) + 1
        known = np.full((len(series), count), 1.0 / count)
        if len(series) >= self.window:
            state = np.searchsorted(self.edges, _volatility(series, self.window), side="right")
            known[self.window - 1 :] = np.eye(count)[state]
        return known

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"kind": "volatility", "edges": self.edges.tolist(), "window": self.window}


Regimes = HiddenMarkov | VolatilityState


def regimes_from(given: Mapping[str, Any]) -> Regimes:
    """From what `plain` gave."""
    if given["kind"] == "volatility":
        return VolatilityState(np.array(given["edges"]), given["window"])
    return HiddenMarkov(**{key: np.array(given[key]) for key in HiddenMarkov.__annotations__})


def regime_series(market: Market, asset: str | None = None) -> np.ndarray:
    """The returns a regime is read from, (T,): an asset's, or the mean of what could be held."""
    if asset is not None:
        if asset not in market.assets:
            raise SettingError(
                f"regime_switch: asset must be one of {market.name}, {market.assets}, got {asset!r}"
            )
        return market.returns[:, market.assets.index(asset)]
    risky = slice(0, market.n_assets - market.has_cash)
    held = market.tradable[:, risky]
    total = np.where(held, market.returns[:, risky], 0.0).sum(axis=1)
    return total / np.maximum(held.sum(axis=1), 1)


def _volatility(series: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation of every window, (T - window + 1,)."""
    return np.lib.stride_tricks.sliding_window_view(series, window).std(axis=1, ddof=1)


def _long_run(transition: np.ndarray) -> np.ndarray:
    """The distribution that a step of the chain does not change."""
    count = len(transition)
    matrix = np.vstack([transition.T - np.eye(count), np.ones(count)])
    found = np.linalg.lstsq(matrix, np.append(np.zeros(count), 1.0), rcond=None)[0]
    found = np.maximum(found, 0.0)
    return found / found.sum()
