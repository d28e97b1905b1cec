"""What forecasters learn to foresee, and what that says about returns: pure functions.

    row            t              t+1 ........ t+k
                   decision       |--- target ---|

A target stands at the row of the decision it is made for and is known `horizon` = k rows later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Target = Literal["return", "volatility", "direction", "rank"]


def target_of(
    returns: np.ndarray, tradable: np.ndarray, target: Target = "return", horizon: int = 1
) -> np.ndarray:
    """Targets of k = `horizon` periods, (T, n); nan where not known or nothing could be held.

        return      product of (1 + returns[t+1 .. t+k]) - 1
        volatility  sqrt(mean of returns[t+1 .. t+k]^2)
        direction   1 where that return is positive, else 0
        rank        place of that return among the day's assets, -1 the lowest, 1 the highest

    Args:
        returns: Simple returns of risky assets, (T, n).
        tradable: Whether each could be held from t to t+1, (T, n).
        target: Which.
        horizon: k.

    """
    found = np.full(returns.shape, np.nan)
    if len(returns) <= horizon:
        return found
    ahead = sliding_window_view(returns[1:], horizon, axis=0)  # (T - k, n, k)
    known = tradable[: len(ahead)]
    if target == "volatility":
        values = np.sqrt((ahead**2).mean(axis=-1))
    else:
        values = ahead[..., 0] if horizon == 1 else (1.0 + ahead).prod(axis=-1) - 1.0
    values = np.where(known, values, np.nan)
    if target == "direction":
        values = np.where(known, values > 0.0, np.nan)
    elif target == "rank":
        values = ranks(values)
    found[: len(ahead)] = values
    return found


def ranks(values: np.ndarray) -> np.ndarray:
    """Places along the last axis, -1 the lowest, 1 the highest, ties in the middle; nan stays."""
    known = np.isfinite(values)
    filled = np.where(known, values, np.inf)
    below = (filled[..., None, :] < filled[..., :, None]).sum(axis=-1)
    ties = (filled[..., None, :] == filled[..., :, None]).sum(axis=-1)
    count = known.sum(axis=-1, keepdims=True)
    places = below + (ties - 1) / 2.0  # 0 .. count - 1
    scaled = np.where(count > 1, 2.0 * places / np.maximum(count - 1, 1) - 1.0, 0.0)
    return np.where(known, scaled, np.nan)


@dataclass(frozen=True)
class Translation:
    """Between a target, its standardised form, and expected returns; fitted on training rows.

    The model works on z = (y - center) / scale. An expected return a period is
    intercept + slope * y: for returns y / k; for directions and ranks the regression of returns on
    the true target, which is cautious: it takes all that the inputs say of a return to be said by
    the target, and of a normal return's mean a sign tells 2 / pi. A volatility says nothing about
    the mean: the expected return is that of training, and volatility = ratio * y.

    Attributes:
        center, scale: Mean and standard deviation of the target, (n,).
        intercept, slope: (n,).
        usual: Root mean square of a period's return, (n,).
        ratio: `usual` over the mean target, for volatility, (n,).

    """

    center: np.ndarray
    scale: np.ndarray
    intercept: np.ndarray
    slope: np.ndarray
    usual: np.ndarray
    ratio: np.ndarray

    @classmethod
    def fit(
        cls, targets: np.ndarray, returns: np.ndarray, next_day: np.ndarray, kind: Target, k: int
    ) -> Translation:
        """Of training rows: targets, k-period and one-period returns ahead, all (R, n), or nan.

        Assets without a known row take the mean of the others.
        """
        center, spread = known_columns(targets, np.mean), known_columns(targets, np.std)
        usual = np.sqrt(known_columns(next_day**2, np.mean))
        intercept, slope = np.zeros(len(center)), np.full(len(center), 1.0 / k)
        ratio = np.ones(len(center))
        if kind == "volatility":
            intercept, slope = known_columns(next_day, np.mean), np.zeros(len(center))
            ratio = np.divide(usual, center, out=ratio, where=center > 0.0)
        elif kind != "return":
            slope = _slopes(targets, returns / k)
            intercept = known_columns(returns / k, np.mean) - slope * center
        scale = np.where(spread > 0.0, spread, 1.0)
        return cls(center, scale, intercept, slope, usual, ratio)

    def target(self, outputs: np.ndarray) -> np.ndarray:
        """What a model's standardised outputs (*B, n) say of the target."""
        return self.center + self.scale * outputs

    def mean(self, target: np.ndarray) -> np.ndarray:
        """Expected return a period of a forecast target (*B, n)."""
        return self.intercept + self.slope * target

    def volatility(self, target: np.ndarray) -> np.ndarray:
        """Standard deviation a period of a forecast volatility (*B, n), at least usual / 10."""
        return np.maximum(self.ratio * target, 0.1 * self.usual)


def known_columns(values: np.ndarray, statistic: object) -> np.ndarray:
    """A statistic of each column's known values; of columns without any, the others' mean."""
    assert callable(statistic)
    found = np.full(values.shape[1], np.nan)
    for i, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            found[i] = statistic(known)
    missing = np.isnan(found)
    found[missing] = found[~missing].mean() if not missing.all() else 0.0
    return found


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of each column of y (R, n) on that of x; 0 where x does not vary."""
    found = np.zeros(x.shape[1])
    for i in range(x.shape[1]):
        known = np.isfinite(x[:, i]) & np.isfinite(y[:, i])
        if known.any():
            away = x[known, i] - x[known, i].mean()
            square = away @ away
            found[i] = away @ y[known, i] / square if square > 0.0 else 0.0
    return found
