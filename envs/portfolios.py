"""Portfolios of a menu: functions of a market's past, `PORTFOLIOS` by name.

    portfolio(history: Market, window) -> weights (N,)      history ends at the day of the decision

Each invests in the assets with a price on every row of its window; where there is none, or too
little past, in all that can be held. Cash is held only where nothing else can be.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from market import Market, SettingError
from market.names import parse_call, unknown_name

LEAST_ROWS = 3  # of returns, for a variance
LEAST_VOLATILITY = 1e-12  # a day; below it an asset counts as riskless


def equal_weight(history: Market) -> np.ndarray:
    """The same in every risky asset that can be held."""
    open_ = history.tradable[-1].copy()
    if history.has_cash and open_[:-1].any():
        open_[-1] = False
    return open_ / open_.sum()


def momentum(history: Market, window: int = 252) -> np.ndarray:
    """The third of the assets (at least one) that gained most over the window, equally.

    Source: Jegadeesh & Titman, Returns to buying winners and selling losers (1993).
    """
    assets, returns = _past(history, window)
    if len(returns) < 1 or not assets.size:
        return equal_weight(history)
    gain = np.prod(1.0 + returns, axis=0)
    best = np.argsort(-gain, kind="stable")[: max(1, len(assets) // 3)]
    return _spread(np.ones(len(best)), assets[best], history)


def inverse_volatility(history: Market, window: int = 60) -> np.ndarray:
    """Weights proportional to 1 / volatility over the window."""
    assets, returns = _past(history, window)
    if len(returns) < LEAST_ROWS or not assets.size:
        return equal_weight(history)
    volatility = np.maximum(returns.std(axis=0, ddof=1), LEAST_VOLATILITY)
    return _spread(1.0 / volatility, assets, history)


def minimum_variance(history: Market, window: int = 60) -> np.ndarray:
    """The long-only weights of least variance over the window, exactly.

    With X the centred returns, non-negative least squares of |X w|^2 + s^2 (1 - sum w)^2 shrinks
    the sum of w but not its direction, for any s: w / sum w solves the problem.

    Source: Markowitz, Portfolio selection (1952); Lawson & Hanson, Solving least squares problems
    (1974), for the active-set method.
    """
    assets, returns = _past(history, window)
    if len(returns) < LEAST_ROWS or not assets.size:
        return equal_weight(history)
    centred = returns - returns.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0).mean())
    if scale < LEAST_VOLATILITY:
        return equal_weight(history)
    system = np.vstack([centred, np.full(len(assets), scale)])
    from scipy.optimize import nnls

    weights, _ = nnls(system, np.append(np.zeros(len(centred)), scale))
    return _spread(weights, assets, history)


PORTFOLIOS: dict[str, Callable[..., np.ndarray]] = {
    "equal_weight": equal_weight,
    "momentum": momentum,
    "inverse_volatility": inverse_volatility,
    "minimum_variance": minimum_variance,
}


def make_portfolio(spec: Any) -> Callable[[Market], np.ndarray]:
    """A function of history from an expression such as "momentum(120)", or as it is.

    Raises:
        SettingError: If the name is not in `PORTFOLIOS` or a setting does not fit.

    """
    if callable(spec):
        return spec
    if not isinstance(spec, str):
        raise SettingError(f"menu: a portfolio must be a name or a function, got {spec!r}")
    name, values, settings = parse_call(spec)
    if name not in PORTFOLIOS:
        raise unknown_name("portfolio", name, PORTFOLIOS)
    function = PORTFOLIOS[name]
    try:
        bound = inspect.signature(function).bind(None, *values, **settings)
    except TypeError as error:
        raise SettingError(f"portfolio {name}: {error}") from None
    window = bound.arguments.get("window", 1)
    if not isinstance(window, int) or window < 1:
        raise SettingError(f"portfolio {name}: window must be a whole number >= 1, got {window!r}")
    return partial(function, **{k: v for k, v in bound.arguments.items() if k != "history"})


def _past(history: Market, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of risky assets with a price throughout the window, (n,), and returns, (rows, n)."""
    stop = history.n_periods
    start = max(1, stop - window)  # a first row has no return
    risky = history.n_assets - history.has_cash
    listed = history.tradable[max(0, start - 1) :, :risky].all(axis=0)
    assets = np.flatnonzero(listed)
    return assets, history.returns[start:stop, assets]


def _spread(parts: np.ndarray, assets: np.ndarray, history: Market) -> np.ndarray:
    """The parts, normalised, in their columns of (N,)."""
    weights = np.zeros(history.n_assets)
    weights[assets] = parts / parts.sum()
    return weights
