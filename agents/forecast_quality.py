"""How good forecasts are out of sample: R2 against the historical mean, IC, hit rate.

Whoever forecasts is judged on the target it was asked for, at the decisions of given rows, by what
came afterwards; the historical mean at each row is of targets that were known by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from agents.forecast_targets import ranks

WARM_UP = 20  # known targets before the historical mean counts
MIDDLE: dict[str, Any] = {
    "return": 0.0,
    "direction": 0.5,
    "rank": 0.0,
}  # what a hit lies on the right side of


class Forecasts(NamedTuple):
    """Forecasts and what came of them, at R decisions.

    Attributes:
        came: Targets, (R, n); nan where not known.
        made: What was forecast of them, (R, n).
        usual: The mean of all targets known at the decision, (R, n); nan where too few were.
        kind: What was forecast; see `target_of`.
        horizon: k, periods a target reaches ahead.
        assets: Names, (n,).

    """

    came: np.ndarray
    made: np.ndarray
    usual: np.ndarray
    kind: str = "return"
    horizon: int = 1
    assets: tuple[str, ...] = ()


@runtime_checkable
class Forecasting(Protocol):
    """An agent that forecasts and lets itself be judged by it."""

    def forecasts(self, market: Any, start: Any = None, end: Any = None) -> Forecasts:
        """Forecasts at the decisions of a market from one date to another, both included."""


def joined_forecasts(parts: Sequence[Forecasts]) -> Forecasts:
    """Forecasts one after the other, as of an agent that is fitted anew."""
    came, made, usual = (np.concatenate(found) for found in zip(*_arrays(parts), strict=True))
    return parts[0]._replace(came=came, made=made, usual=usual)


def _arrays(parts: Sequence[Forecasts]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [(part.came, part.made, part.usual) for part in parts]


def quality(forecasts: Forecasts) -> dict[str, float]:
    """All measures of forecasts.

    Returns:
        `forecast_r2`, `forecast_ic`, `forecast_ic_error`, `forecast_hit_rate`,
        `forecast_r2/<asset>`; nan where undefined; empty where nothing was forecast.

    """
    came, made, usual, kind, horizon, assets = forecasts
    known = np.isfinite(came) & np.isfinite(made) & np.isfinite(usual)
    if not known.any():
        return {}
    came, made = np.where(known, came, np.nan), np.where(known, made, np.nan)
    coefficient, error = information_coefficient(came, made, horizon)
    values = {
        "forecast_r2": out_of_sample_r2(came, made, usual),
        "forecast_ic": coefficient,
        "forecast_ic_error": error,
        "forecast_hit_rate": hit_rate(came, made, MIDDLE.get(kind, usual)),
    }
    for i, asset in enumerate(assets):
        values[f"forecast_r2/{asset}"] = out_of_sample_r2(came[:, i], made[:, i], usual[:, i])
    return values


def prevailing_mean(targets: np.ndarray, horizon: int = 1) -> np.ndarray:
    """Mean of the targets known at each row, those of rows <= t - k, (T, n); nan before 20."""
    known = np.isfinite(targets)
    count = np.cumsum(known, axis=0)
    mean = np.full(targets.shape, np.nan)
    total = np.cumsum(np.where(known, targets, 0.0), axis=0)
    np.divide(total, count, out=mean, where=count >= WARM_UP)
    found = np.full(targets.shape, np.nan)
    found[horizon:] = mean[:-horizon]
    return found


def out_of_sample_r2(came: np.ndarray, made: np.ndarray, usual: np.ndarray) -> float:
    """1 - sum (y - forecast)^2 / sum (y - historical mean)^2, over all that is known.

    Source: Campbell & Thompson, Predicting excess stock returns out of sample (2008).
    """
    known = np.isfinite(came) & np.isfinite(made) & np.isfinite(usual)
    floor = ((came - usual)[known] ** 2).sum()
    return float(1.0 - ((came - made)[known] ** 2).sum() / floor) if floor > 0.0 else np.nan


def information_coefficient(
    came: np.ndarray, made: np.ndarray, horizon: int = 1
) -> tuple[float, float]:
    """Mean over days of the rank correlation across assets, and its standard error.

    The error is that of a mean of R days, sd / sqrt(R), with Newey & West's weights for the k - 1
    neighbours whose targets overlap. With a single asset: the rank correlation over time, r, with
    sqrt((1 - r^2) / (R / k - 2)).

    Args:
        came: Targets, (R, n); nan where not known.
        made: Forecasts of them, (R, n); nan where there are none.
        horizon: k.

    Returns:
        The coefficient and its error; nan where fewer than three days tell anything.

    Source: Grinold & Kahn, Active portfolio management (1999), ch. 6; Newey & West (1987).
    """
    if came.shape[1] == 1:
        known = np.isfinite(came[:, 0]) & np.isfinite(made[:, 0])
        value = float(_correlation(ranks(came[known, 0]), ranks(made[known, 0])))
        free = known.sum() / horizon - 2.0
        return value, float(np.sqrt((1.0 - value**2) / free)) if free > 0.0 else np.nan
    known = np.isfinite(came) & np.isfinite(made)
    daily = _correlation(ranks(np.where(known, came, np.nan)), ranks(np.where(known, made, np.nan)))
    daily = daily[np.isfinite(daily)]
    if len(daily) < 3:
        return np.nan, np.nan
    return float(daily.mean()), mean_error(daily, horizon - 1)


def mean_error(series: np.ndarray, lags: int) -> float:
    """Standard error of a mean (R,) whose terms are correlated over `lags`, after Newey & West."""
    count, away = len(series), series - series.mean()
    variance = away @ away / (count - 1)
    for lag in range(1, min(lags, count - 1) + 1):
        weight = 1.0 - lag / (lags + 1.0)
        variance += 2.0 * weight * (away[lag:] @ away[:-lag]) / (count - 1)
    return float(np.sqrt(max(variance, 0.0) / count))


def hit_rate(came: np.ndarray, made: np.ndarray, middle: float | np.ndarray) -> float:
    """Share of forecasts on the same side of `middle` as what came; what came on it is left out."""
    known = np.isfinite(came) & np.isfinite(made) & (came != middle)
    right = ((came > middle) == (made > middle))[known]
    return float(right.mean()) if len(right) else np.nan


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation along the last axis over what is known in both; nan where one does not vary."""
    known = np.isfinite(x) & np.isfinite(y)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    x = np.where(known, x - x.sum(-1, keepdims=True) / count, 0.0)
    y = np.where(known, y - y.sum(-1, keepdims=True) / count, 0.0)
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    product = (x * y).sum(-1)
    return np.divide(product, size, out=np.full(size.shape, np.nan), where=size > 1e-12)
