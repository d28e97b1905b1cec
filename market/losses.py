"""What was lost: drawdowns and tails of a return series; `market.measures` has them too."""

from __future__ import annotations

import math

from market.series import ROUNDING, Array, log_values, read, running_max


def drawdowns(returns: Array) -> Array:
    """Fraction below the highest value so far, after each period; shape of the returns.

    1 - V[t] / max(1, V[1], ..., V[t]), compounded. skfolio adds returns up unless `compounded=True`
    and gives the negative.
    """
    xp, values = read(returns)
    level = log_values(xp, values)
    peak = running_max(xp.where(level > 0.0, level, xp.zeros_like(level)))
    return -xp.expm1(level - peak)


def max_drawdown(returns: Array) -> Array:
    """Largest drawdown: the worst loss from an earlier peak, the starting value included."""
    xp, fall = read(drawdowns(returns))
    return xp.max(fall, axis=0) + 0.0  # where nothing falls 0, not -0


def max_drawdown_duration(returns: Array) -> Array:
    """Longest run of consecutive periods that end below an earlier peak (by more than 1e-12)."""
    xp, fall = read(drawdowns(returns))
    ends = xp.arange(1, fall.shape[0] + 1, device=fall.device)
    ends = xp.reshape(ends, (-1,) + (1,) * (fall.ndim - 1))
    return xp.max(ends - running_max(xp.where(fall > ROUNDING, 0, ends)), axis=0)


def _tail_size(tail: float, n_periods: int) -> tuple[float, int]:
    """`tail * T`, and its ceiling; 0.07 * 100 is 7, though its floating product exceeds it."""
    if not 0.0 < tail < 1.0:
        raise ValueError(f"`tail` must be in (0, 1), got {tail!r}")
    size = tail * n_periods
    nearest = round(size)
    if nearest and abs(size - nearest) < 1e-9 * nearest:
        size = float(nearest)
    return size, math.ceil(size)


def value_at_risk(returns: Array, tail: float = 0.05) -> Array:
    """Historical value at risk: the loss that a fraction `tail` of the periods reach or exceed.

    VaR = -(the ceil(tail * T)-th smallest return), positive for a loss. ValueError if `tail` is not
    in (0, 1).

    Source: Jorion, Value at Risk (2006), ch. 5. skfolio `value_at_risk(beta=1 - tail)` is the same
    but where tail * T is whole: there it takes the next smaller loss.
    """
    xp, values = read(returns)
    _, rank = _tail_size(tail, values.shape[0])
    return -xp.sort(values, axis=0)[rank - 1, ...]


def conditional_value_at_risk(returns: Array, tail: float = 0.05) -> Array:
    """Mean loss over the worst fraction `tail` of the periods, the last of them in part.

    CVaR = min over a of a + mean(max(-r - a, 0)) / tail, reached at a = VaR: of k = ceil(tail * T)
    losses the k - 1 worst count in full, the k-th with weight tail * T - (k - 1). Never below the
    value at risk. ValueError if `tail` is not in (0, 1).

    Source: Rockafellar & Uryasev, Conditional value-at-risk for general loss distributions (2002).
    Same number as skfolio `cvar(beta=1 - tail)`.
    """
    xp, values = read(returns)
    size, rank = _tail_size(tail, values.shape[0])
    worst = xp.sort(values, axis=0)[:rank, ...]
    last = worst[rank - 1, ...]
    return -(xp.sum(worst, axis=0) - (rank - size) * last) / size
