"""What a path of returns is worth per period: differentiable functions of returns of any shape.

All periods of all paths are taken together. `risk_free` has the shape of the returns; not every
utility reads it, nor the risk aversion.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LEAST_GROWTH = 1e-12


def log_growth(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """Mean log(1 + r)."""
    return torch.log((1.0 + returns).clamp(min=_LEAST_GROWTH)).mean()


def mean_variance(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean(r) - risk_aversion / 2 * var(r)."""
    return returns.mean() - 0.5 * risk_aversion * returns.var(correction=0)


def crra(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """Mean ((1 + r)^(1 - a) - 1) / (1 - a), a the risk aversion; log growth at a = 1."""
    if risk_aversion == 1.0:
        return log_growth(returns, risk_free, risk_aversion)
    power = 1.0 - risk_aversion
    logs = torch.log((1.0 + returns).clamp(min=_LEAST_GROWTH))
    return torch.expm1(power * logs).mean() / power


def sharpe(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean(r - risk_free) / std(r - risk_free), not annualised; 0 where returns never vary."""
    excess = returns - risk_free
    variance = excess.var(correction=0)
    return excess.mean() / torch.sqrt(variance + _LEAST_GROWTH)


UTILITIES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "log_growth": log_growth,
    "mean_variance": mean_variance,
    "crra": crra,
    "sharpe": sharpe,
}
