"""Losses of network forecasters: pure functions of outputs, standardised targets and what is known.

Outputs are (B, n, 1), or (B, n, 2) where a network also says how sure it is; targets and the mask
of known ones (B, n). What is not known counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SPREADS = (-4.0, 3.0)  # log of the least and the greatest standard deviation, in those of a target


def mean_squared(outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean of (z - f)^2."""
    return _mean((outputs[..., 0] - targets) ** 2, known)


def huber(outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean of (z - f)^2 / 2 within 1 standard deviation, |z - f| - 1/2 beyond (Huber 1964)."""
    return _mean(functional.huber_loss(outputs[..., 0], targets, reduction="none"), known)


def gaussian(outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean of log s + ((z - f) / s)^2 / 2: what a normal distribution N(f, s^2) makes of z.

    Source: Nix & Weigend, Estimating the mean and variance of the target probability distribution
    (1994).
    """
    spread = log_spread(outputs)
    return _mean(spread + 0.5 * ((targets - outputs[..., 0]) * torch.exp(-spread)) ** 2, known)


def log_spread(outputs: Tensor) -> Tensor:
    """The log of s, (B, n), from the second output, kept within `SPREADS`."""
    low, high = SPREADS
    return low + (high - low) * torch.sigmoid(outputs[..., 1] + _AT_ONE)


def one_minus_ic(outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """1 - the mean correlation of forecasts and targets across the assets of a day.

    With fewer than three assets, where such a correlation is a sign, over all of the batch.
    """
    made, weight = outputs[..., 0], known.to(outputs.dtype)
    if made.shape[-1] < 3:
        made, targets, weight = (part.reshape(1, -1) for part in (made, targets, weight))
    count = weight.sum(-1, keepdim=True).clamp(min=1.0)
    made = weight * (made - (weight * made).sum(-1, keepdim=True) / count)
    targets = weight * (targets - (weight * targets).sum(-1, keepdim=True) / count)
    size = ((made**2).sum(-1) * (targets**2).sum(-1) + 1e-12).sqrt()
    return 1.0 - ((made * targets).sum(-1) / size).mean()


def _mean(values: Tensor, known: Tensor) -> Tensor:
    weight = known.to(values.dtype)
    return (weight * values).sum() / weight.sum().clamp(min=1.0)


_AT_ONE = 0.2876820724517809  # sigmoid of it is 4/7, where s = 1

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "mse": mean_squared,
    "huber": huber,
    "gaussian": gaussian,
    "ic": one_minus_ic,
}
