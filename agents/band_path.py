"""Paths of a no-trade band, all steps in one operation with a gradient of its own.

    target[s] = band of step s brought to held[s]          (`agents.band_policy.Plan`)
    held[s + 1] = target[s] * relatives[s] / (target[s] . relatives[s])

As some forty steps of small tensor operations, autograd's bookkeeping takes longer than the
arithmetic. Here the forward loop runs without it, and the backward loop keeps to what depends on
the step after it: all else is worked out for all steps at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agents.band_policy import TINY


def band_path(low: Tensor, high: Tensor, held: Tensor, relatives: Tensor) -> tuple[Tensor, Tensor]:
    """What is held before each trade and after the last period, and what is traded to.

    Args:
        low: Lower edges of the band of each step, (S, B, N), float64.
        high: Upper edges.
        held: Before the first trade, (B, N); it gets no gradient.
        relatives: Of prices over each period, positive, (S, B, N).

    Returns:
        Held (S + 1, B, N) and targets (S, B, N); both pass gradients on to the edges.

    """
    return _BandPath.apply(low, high, held, relatives)


class _BandPath(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, low: Tensor, high: Tensor, first: Tensor, relatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        held = low.new_empty(len(low) + 1, *low.shape[1:])
        targets = torch.empty_like(low)
        held[0] = first
        steps = zip(low.unbind(), high.unbind(), relatives.unbind(), strict=True)
        for s, (least, most, moved) in enumerate(steps):
            clipped = torch.minimum(torch.maximum(held[s], least), most)
            lack = 1.0 - clipped.sum(-1, keepdim=True)
            room = torch.where(lack > 0.0, most - clipped, clipped - least)
            share = lack / (room.sum(-1, keepdim=True) + TINY)
            target = torch.addcmul(clipped, share, room, out=targets[s])
            grown = target * moved
            torch.div(grown, grown.sum(-1, keepdim=True), out=held[s + 1])
        ctx.save_for_backward(low, high, held, targets, relatives)
        return held, targets

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_held: Tensor, grad_targets: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        low, high, held, targets, relatives = ctx.saved_tensors
        before, after = held[:-1], held[1:]
        raised = torch.maximum(before, low)
        clipped = torch.minimum(raised, high)
        lack = 1.0 - clipped.sum(-1, keepdim=True)
        lacks = lack > 0.0
        room = torch.where(lacks, high - clipped, clipped - low)
        total = room.sum(-1, keepdim=True) + TINY
        share, part = lack / total, room / total
        sign = torch.where(lacks, -1.0, 1.0).to(low.dtype)  # of what the clipped weights do to room
        of_raised, of_high = _greater(high, raised), _greater(raised, high)
        of_held, of_low = of_raised * _greater(before, low), of_raised * _greater(low, before)
        moved = relatives / (targets * relatives).sum(-1, keepdim=True)
        grads_clipped, grads_room = torch.empty_like(low), torch.empty_like(low)
        grad = grad_held[-1]
        for s in range(len(low) - 1, -1, -1):
            grad = grad - (grad * after[s]).sum(-1, keepdim=True)
            grad = torch.addcmul(grad_targets[s], grad, moved[s])
            shared = (grad * part[s]).sum(-1, keepdim=True)
            rest = grad - shared
            of_room = torch.mul(rest, share[s], out=grads_room[s])
            of_clipped = torch.addcmul(rest, of_room, sign[s], out=grads_clipped[s])
            grad = torch.addcmul(grad_held[s], of_clipped, of_held[s])
        grad_low = grads_clipped * of_low - grads_room * ~lacks
        grad_high = grads_clipped * of_high + grads_room * lacks
        return grad_low, grad_high, None, None


def _greater(first: Tensor, second: Tensor) -> Tensor:
    """1 where the first is greater, 1/2 where both are the same, as torch shares gradients."""
    return torch.heaviside(first - second, first.new_tensor(0.5))
