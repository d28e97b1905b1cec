"""How much of a target to keep so that its mixture with a safe asset meets a limit.

All functions return the largest share in [0, 1] at which share * target + (1 - share) * safe meets
the limit, (B,), and whether none does, (B,); the share is then 0. Rows without enough history keep
share 1.
"""

import numpy as np
from numpy.typing import NDArray

from envs.history import Moments, Past
from envs.simulator import holds_true

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

ROUNDING = 1e-12  # relative excess over a limit that is taken for rounding
MAX_TANGENTS = 100  # each tangent meets another set of worst days: far more than there are to meet


def normal_share(past: Moments, quantile: float, limit: float) -> tuple[Array, Flags]:
    """Share with quantile * deviation - mean <= limit.

    With variance a share^2 + b share + c and mean m share + n the limit is
    quantile^2 (a share^2 + b share + c) <= (limit + n + m share)^2, its right side's root >= 0.
    """
    mean, safe_mean, variance, covariance, safe_variance, enough = past
    risk = quantile * np.sqrt(np.maximum(variance, 0.0)) - mean
    over = enough & (risk > limit * (1.0 + ROUNDING))
    if not holds_true(over):
        return np.ones(len(over)), over
    slope, room = mean - safe_mean, limit + safe_mean
    square = quantile * quantile
    a = square * (variance - 2.0 * covariance + safe_variance) - slope * slope
    b = 2.0 * (square * (covariance - safe_variance) - slope * room)
    c = square * safe_variance - room * room
    roots = _roots(a, b, c)  # (2, B)
    with np.errstate(invalid="ignore"):
        fits = (roots >= 0.0) & (roots < 1.0) & (room + slope * roots >= 0.0)
    share = np.where(fits, roots, -1.0).max(axis=0)
    unmet = over & (share < 0.0)
    return np.where(over, np.maximum(share, 0.0), 1.0), unmet


def _roots(a: Array, b: Array, c: Array) -> Array:
    """Both roots of a x^2 + b x + c, (2, B); nan or infinite where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        q = -0.5 * (b + np.copysign(np.sqrt(b * b - 4.0 * a * c), b))
        return np.stack([q / a, c / q])


def order_share(past: Past, limit: float) -> tuple[Array, Flags]:
    """Share at which fewer than `rank` of the days lose more than `limit`.

    Day j returns safe_j + share * d_j, so it loses too much on one side of the share at which it
    crosses -limit. Going down from share 1, days with d_j < 0 stop losing too much there and days
    with d_j > 0 start; the first crossing with few enough such days is the share.
    """
    lost = past.valid & (past.portfolio < -limit * (1.0 + ROUNDING))
    share = np.ones(len(lost))
    over = past.enough & (lost.sum(axis=-1) >= past.rank)
    rows = np.flatnonzero(over)
    unmet = np.zeros(len(lost), bool)
    if rows.size:
        share[rows] = _first_crossing(past.rows(rows), limit)
        unmet[rows] = share[rows] < 0.0
    return np.maximum(share, 0.0), unmet


def _first_crossing(past: Past, limit: float) -> Array:
    """The largest share in [0, 1) with few enough bad days, else -1; (B,)."""
    slope = past.portfolio - past.safe
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(past.valid, (-limit - past.safe) / slope, np.nan)  # (B, W)
    within = (cross >= 0.0) & (cross < 1.0)
    leaves, enters = within & (slope < 0.0), within & (slope > 0.0)
    bad = (past.valid & ~leaves & (past.portfolio < -limit)).sum(axis=-1, keepdims=True)
    bad = bad + leaves.sum(axis=-1, keepdims=True)
    cross = np.where(within, cross, -1.0)
    order = np.lexsort((enters, -cross), axis=-1)  # downwards, at a tie leaving days first
    cross, leaves, enters = (np.take_along_axis(x, order, axis=-1) for x in (cross, leaves, enters))
    bad = bad - np.cumsum(leaves, axis=-1) + np.cumsum(enters, axis=-1)
    fits = leaves & (bad < past.rank[:, None])
    first = fits.argmax(axis=-1)
    rows = np.arange(len(first))
    return np.where(fits[rows, first], cross[rows, first], -1.0)


def tail_share(past: Past, limit: float) -> tuple[Array, Flags]:
    """Share at which the mean of the worst `size` days is at least -limit.

    That mean is minus a convex function of the share, linear while the same days are the worst:
    tangents from share 1 go down to the largest root without passing it.
    """
    share = np.ones(len(past.size))
    unmet = np.zeros(len(share), bool)
    rows = np.flatnonzero(past.enough)
    for _ in range(MAX_TANGENTS):
        now = past.rows(rows)
        risk, slope = _tail_loss(now, share[rows])
        over = risk > limit * (1.0 + ROUNDING)
        rows, risk, slope = rows[over], risk[over], slope[over]
        if not rows.size:
            break
        lower = share[rows] - (risk - limit) / np.where(slope > 0.0, slope, np.nan)
        missed = ~(lower >= 0.0)
        unmet[rows[missed]] = True
        share[rows] = np.where(missed, 0.0, lower)
        rows = rows[~missed]
    return share, unmet


def _tail_loss(past: Past, share: Array) -> tuple[Array, Array]:
    """Mean loss of the worst days at a share, and how it rises with the share; (B,) each."""
    gain = past.portfolio - past.safe
    returns = np.where(past.valid, past.safe + share[:, None] * gain, np.inf)
    order = np.argsort(returns, axis=-1, kind="stable")
    place = np.arange(order.shape[-1])
    size = past.size[:, None]
    weight = np.clip(size - place, 0.0, 1.0) / size  # the last of them counts in part
    counted = weight > 0.0
    worst = np.where(counted, np.take_along_axis(returns, order, axis=-1), 0.0)
    gains = np.where(counted, np.take_along_axis(gain, order, axis=-1), 0.0)
    return -(weight * worst).sum(axis=-1), -(weight * gains).sum(axis=-1)
