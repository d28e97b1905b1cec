"""Measures of a return series: pure functions of simple per-period returns.

Time is axis 0: `(T,)` or `(T, *B)`; a measure of `(T, *B)` returns has shape `*B`. numpy arrays and
torch tensors alike (lists and pandas objects are read as numpy); through torch the smooth ones are
differentiable. Losses, drawdowns and costs are positive numbers; 0.01 is 1 %.

Conventions, the same everywhere:
- one year is `periods_per_year` periods; ratios are annualised by its square root;
- standard deviations divide by T - 1; skewness and kurtosis are population moments, a normal's
  kurtosis is 3; compounding starts from a value of 1, which counts as the first peak;
- `risk_free`, `benchmark` and `threshold` are per period: a number, one per period `(T,)`, or of
  the shape of the returns; what was known before a period began belongs to that period;
- what is not defined is nan, without a warning: a Sharpe ratio of one period or of returns that do
  not vary, a Calmar ratio without a drawdown. `undefined_reason` says why. Returns vary when their
  standard deviation exceeds rounding: 1e-12 of (1 + the largest), in float32 5e-7.

Every function raises ValueError when `returns` is empty or not finite, and names what it got.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from market.losses import (
    conditional_value_at_risk,
    drawdowns,
    max_drawdown,
    max_drawdown_duration,
    value_at_risk,
)
from market.series import (
    ROUNDING,
    Array,
    alongside,
    check_periods,
    deviation,
    log_values,
    ratio,
    read,
    read_excess,
)


def total_return(returns: Array) -> Array:
    """Compound return of the whole series: prod(1 + r) - 1."""
    xp, values = read(returns)
    return xp.expm1(log_values(xp, values)[-1, ...])


def annualised_return(returns: Array, *, periods_per_year: float = 252) -> Array:
    """Compound annual growth: prod(1 + r) ^ (periods_per_year / T) - 1; -1 after a total loss."""
    check_periods(periods_per_year)
    xp, values = read(returns)
    growth = log_values(xp, values)[-1, ...] * (periods_per_year / values.shape[0])
    with np.errstate(over="ignore"):
        return xp.expm1(growth)


def annualised_volatility(returns: Array, *, periods_per_year: float = 252) -> Array:
    """Standard deviation (ddof 1) times sqrt(periods_per_year); nan for one period."""
    check_periods(periods_per_year)
    xp, values = read(returns)
    return deviation(xp, values)[0] * math.sqrt(periods_per_year)


def sharpe_ratio(returns: Array, risk_free: Any = 0.0, *, periods_per_year: float = 252) -> Array:
    """Mean excess return over its standard deviation (ddof 1), annualised.

    S = sqrt(periods_per_year) * mean(r - rf) / std(r - rf)

    Args:
        returns: Simple per-period returns, shape (T,) or (T, *B).
        risk_free: Rate earned over each period: a number, (T,), or of the shape of the returns.
        periods_per_year: 252 for daily returns; 1 leaves the ratio per period.

    Returns:
        Shape () or *B; nan for one period, or where the excess does not vary.

    Source: Sharpe, The Sharpe Ratio (1994). Same number as skfolio's mean / standard deviation.
    """
    check_periods(periods_per_year)
    xp, excess = read_excess(returns, risk_free, "risk_free")
    mean = xp.mean(excess, axis=0)
    return ratio(xp, mean * math.sqrt(periods_per_year), *deviation(xp, excess))


def sortino_ratio(returns: Array, risk_free: Any = 0.0, *, periods_per_year: float = 252) -> Array:
    """Mean excess return over its downside deviation about zero, annualised.

    sqrt(periods_per_year) * mean(e) / sqrt(mean(min(e, 0)^2)), e = r - rf, both means over all T.
    nan without a losing period. skfolio measures the downside about the mean; its `semi_deviation`
    with `min_acceptable_return=0, biased=True` is this one.

    Source: Sortino & van der Meer, Downside risk (1991).
    """
    check_periods(periods_per_year)
    xp, excess = read_excess(returns, risk_free, "risk_free")
    loss = xp.where(excess < 0.0, excess, xp.zeros_like(excess))
    square = xp.mean(loss**2, axis=0)
    none = square <= ROUNDING**2
    downside = xp.sqrt(xp.where(none, xp.ones_like(square), square))
    return ratio(xp, xp.mean(excess, axis=0) * math.sqrt(periods_per_year), downside, none)


def omega_ratio(returns: Array, threshold: Any = 0.0) -> Array:
    """Gains above `threshold` over losses below it; nan without a loss.

    sum(max(r - threshold, 0)) / sum(max(threshold - r, 0)). Not annualised.

    Source: Keating & Shadwick, A universal performance measure (2002).
    """
    xp, excess = read_excess(returns, threshold, "threshold")
    zero = xp.zeros_like(excess)
    losses = -xp.sum(xp.where(excess < 0.0, excess, zero), axis=0)
    gains = xp.sum(xp.where(excess > 0.0, excess, zero), axis=0)
    return ratio(xp, gains, losses, losses <= ROUNDING)


def calmar_ratio(returns: Array, *, periods_per_year: float = 252) -> Array:
    """Compound annual growth over maximum drawdown, both compounded; nan without a drawdown.

    Source: Young, Calmar ratio: a smoother tool (1991), over the whole series. skfolio divides the
    mean return per period by an additive drawdown.
    """
    growth = annualised_return(returns, periods_per_year=periods_per_year)
    xp, fall = read(drawdowns(returns))
    fall = xp.max(fall, axis=0)
    return ratio(xp, growth, fall, fall <= ROUNDING)


def _standard_moment(returns: Array, order: int) -> Array:
    xp, values = read(returns)
    centred = values - xp.mean(values, axis=0)
    _, undefined = deviation(xp, values)
    variance = xp.mean(centred**2, axis=0)
    return ratio(xp, xp.mean(centred**order, axis=0), variance ** (order / 2), undefined)


def skewness(returns: Array) -> Array:
    """Third standardised moment, mean(c^3) / mean(c^2)^1.5 as scipy's `skew`; nan if constant."""
    return _standard_moment(returns, 3)


def kurtosis(returns: Array) -> Array:
    """Fourth standardised moment, 3 for a normal, as scipy's `kurtosis(fisher=False)`."""
    return _standard_moment(returns, 4)


def hit_rate(returns: Array, benchmark: Any = 0.0) -> Array:
    """Fraction of periods with a return above `benchmark`; an equal one is no hit."""
    xp, active = read_excess(returns, benchmark, "benchmark")
    return xp.mean(xp.astype(active > 0.0, active.dtype), axis=0)


def tracking_error(returns: Array, benchmark: Any, *, periods_per_year: float = 252) -> Array:
    """Volatility (ddof 1) of the return over the benchmark's, annualised; nan for one period."""
    _, active = read_excess(returns, benchmark, "benchmark")
    return annualised_volatility(active, periods_per_year=periods_per_year)


def information_ratio(returns: Array, benchmark: Any, *, periods_per_year: float = 252) -> Array:
    """Mean active return over tracking error, annualised: the Sharpe ratio over a benchmark."""
    _, active = read_excess(returns, benchmark, "benchmark")
    return sharpe_ratio(active, periods_per_year=periods_per_year)


def _regression(returns: Array, benchmark: Any, risk_free: Any) -> tuple[Array, Array]:
    """Slope of the excess returns on the benchmark's, and the mean they leave, per period."""
    xp, values = read(returns)
    rate = alongside(xp, values, risk_free, "risk_free")
    excess = values - rate
    market = alongside(xp, values, benchmark, "benchmark") - rate + xp.zeros_like(values)
    centred = market - xp.mean(market, axis=0)
    covariance = xp.mean(centred * excess, axis=0)
    slope = ratio(xp, covariance, xp.mean(centred**2, axis=0), deviation(xp, market)[1])
    return slope, xp.mean(excess, axis=0) - slope * xp.mean(market, axis=0)


def beta(returns: Array, benchmark: Any, risk_free: Any = 0.0) -> Array:
    """Slope of the regression of excess returns on the benchmark's excess returns.

    cov(r - rf, b - rf) / var(b - rf); nan for one period or a benchmark that does not vary.
    """
    return _regression(returns, benchmark, risk_free)[0]


def alpha(
    returns: Array, benchmark: Any, risk_free: Any = 0.0, *, periods_per_year: float = 252
) -> Array:
    """Intercept of the same regression, times periods_per_year (not compounded).

    Source: Jensen, The performance of mutual funds in the period 1945-1964 (1968).
    """
    check_periods(periods_per_year)
    return periods_per_year * _regression(returns, benchmark, risk_free)[1]


def turnover(target: Array, held: Array, cost: Any = 0.0, *, has_cash: bool = False) -> Array:
    """Half the L1 norm of what is traded in risky assets, each period.

    0.5 * sum |mu * target - held|, mu = 1 - cost; `held` has drifted: it is not the last target.

    Args:
        target: Weights after the trade, shape (T, *B, N).
        held: Weights before the trade, shape (T, *B, N).
        cost: Fraction of value paid for the trade: a number or shape (T,) or (T, *B).
        has_cash: Whether the last asset is cash, which moves for free.

    Returns:
        Fraction of value, shape (T, *B).
    """
    xp, after = read(target, "target")
    _, before = read(held, "held")
    if after.shape != before.shape:
        raise ValueError(
            f"`held` must have the shape of `target` {tuple(after.shape)}, "
            f"got {tuple(before.shape)}"
        )
    kept = 1.0 - alongside(xp, after[..., 0], cost, "cost")
    trades = xp.abs(kept[..., None] * after - before)
    return 0.5 * xp.sum(trades[..., :-1] if has_cash else trades, axis=-1)


def concentration(weights: Array) -> Array:
    """Herfindahl index, sum of squared weights over the last axis: 1/N (equal) to 1 (one asset)."""
    xp, values = read(weights, "weights")
    return xp.sum(values**2, axis=-1)


def effective_number(weights: Array) -> Array:
    """Number of equal positions as concentrated as these: 1 / concentration."""
    return 1.0 / concentration(weights)


def undefined_reason(measure: str, returns: Array, relative_to: Any = 0.0) -> str | None:
    """Why a measure of one series is nan, in words; None where it is defined.

    Args:
        measure: Name of a function of this module, such as "sharpe_ratio".
        returns: Simple per-period returns, shape (T,).
        relative_to: What the measure compares with: risk-free rate, threshold or benchmark.
    """
    xp, excess = read_excess(returns, relative_to, "relative_to")
    needs_two = {"annualised_volatility", "tracking_error", "alpha", "beta"}
    needs_spread = {"sharpe_ratio", "information_ratio", "skewness", "kurtosis"}
    if measure in needs_two | needs_spread and excess.shape[0] < 2:
        return "needs at least 2 periods, got 1"
    if measure in needs_spread and bool(deviation(xp, excess)[1]):
        return "the returns do not vary"
    if measure in {"alpha", "beta"}:
        benchmark = alongside(xp, excess, relative_to, "relative_to") + xp.zeros_like(excess)
        return "the benchmark does not vary" if bool(deviation(xp, benchmark)[1]) else None
    lost: dict[str, Any] = {"sortino_ratio": sortino_ratio, "omega_ratio": omega_ratio}
    if measure in lost and bool(xp.isnan(lost[measure](excess))):
        return "no period lost"
    if measure == "calmar_ratio" and float(max_drawdown(returns)) <= ROUNDING:
        return "the value never fell"
    return None


def summary(
    returns: Array,
    *,
    risk_free: Any = 0.0,
    benchmark: Any = None,
    tail: float = 0.05,
    periods_per_year: float = 252,
) -> dict[str, float]:
    """Every measure of one return series by name, nan where undefined.

    Args:
        returns: Simple per-period returns after costs, shape (T,).
        risk_free: Rate per period, for the Sharpe and Sortino ratios, alpha and beta.
        benchmark: Returns to compare with, (T,); None leaves out the last four measures.
        tail: Tail probability of value at risk and its conditional form.
        periods_per_year: 252 for daily returns.
    """
    _, series = read(returns)
    if series.ndim != 1:
        raise ValueError(f"`returns` must have shape (T,), got {tuple(series.shape)}")
    year = {"periods_per_year": periods_per_year}
    measures = {
        "total_return": total_return(series),
        "annualised_return": annualised_return(series, **year),
        "annualised_volatility": annualised_volatility(series, **year),
        "sharpe_ratio": sharpe_ratio(series, risk_free, **year),
        "sortino_ratio": sortino_ratio(series, risk_free, **year),
        "calmar_ratio": calmar_ratio(series, **year),
        "omega_ratio": omega_ratio(series),
        "max_drawdown": max_drawdown(series),
        "max_drawdown_duration": max_drawdown_duration(series),
        "value_at_risk": value_at_risk(series, tail),
        "conditional_value_at_risk": conditional_value_at_risk(series, tail),
        "skewness": skewness(series),
        "kurtosis": kurtosis(series),
        "hit_rate": hit_rate(series),
    }
    if benchmark is not None:
        measures["tracking_error"] = tracking_error(series, benchmark, **year)
        measures["information_ratio"] = information_ratio(series, benchmark, **year)
        measures["alpha"] = alpha(series, benchmark, risk_free, **year)
        measures["beta"] = beta(series, benchmark, risk_free)
    return {name: float(value) for name, value in measures.items()}
