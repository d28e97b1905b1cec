"""Two differentiable operations that dominate training time, worked through in cache-sized pieces.

Written with plain tensor operations these allocate tens of megabytes per call and spend most of
their time moving memory. Here each piece of rows stays in the processor's cache, and the backward
pass recomputes what is cheap instead of storing it. Both work on any device and float type, and are
differentiable once. On CUDA the sums of `gathered_hidden` may differ in the last bit between runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NARROW = 16  # days of fewer channels than this are multiplied several at a time


def causal_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    kernel: int,
    dilation: int = 1,
    activate: bool = False,
) -> Tensor:
    """Dilated convolution along time without padding, so that every output saw only true days.

    y[t] = bias + sum_j x[t + j * dilation] @ weight[j * C : (j + 1) * C],  j = 0 .. kernel - 1

    Args:
        x: Shape (T, N, C), days first; the N series are independent.
        weight: Shape (kernel * C, H), the oldest day first.
        bias: Shape (H,).
        kernel: Number of days that meet in one output.
        dilation: Days between them.
        activate: Apply `max(y, 0)`.

    Returns:
        Shape (T - (kernel - 1) * dilation, N, H); row t ends at day t + (kernel - 1) * dilation.

    """
    arguments = (x.contiguous(), weight, bias, kernel, dilation, activate)
    return _CausalConvolution.apply(*arguments)


def gathered_hidden(
    table: Tensor, inputs: Tensor, weight: Tensor, readout: Tensor, index: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Hidden layer over rows of a table plus per-asset inputs; only its two uses are kept.

    hidden[b, n] = max(table[index[b], n] + inputs[b, n] @ weight, 0)

    Args:
        table: Shape (U, N, H).
        inputs: Shape (B, N, K).
        weight: Shape (K, H).
        readout: Shape (H,).
        index: Rows of the table, shape (B,); None stands for 0 .. B - 1.

    Returns:
        `hidden @ readout`, shape (B, N), and the mean of `hidden` over assets, shape (B, H).

    """
    arguments = (table.contiguous(), inputs.contiguous(), weight, readout, index)
    return _GatheredHidden.apply(*arguments)


def _pieces(n_rows: int, row_elements: int, device: torch.device) -> list[slice]:
    """Slices of 0 .. n_rows - 1 that hold about a megabyte (on an accelerator: 64) each."""
    budget = 2**18 if device.type == "cpu" else 2**24
    size = max(1, budget // max(1, row_elements))
    return [slice(a, min(a + size, n_rows)) for a in range(0, n_rows, size)]


def _columns(x: Tensor, rows: slice, taps: range, dilation: int) -> Tensor:
    """What the given taps see of `x` (T, N, C), side by side: shape (rows * N, taps * C).

    Many taps are joined in two turns, which copies the same numbers in fewer and longer runs.
    """
    count = len(taps)
    inner = max(size for size in range(1, math.isqrt(count) + 1) if count % size == 0)
    first, reach = rows.start + taps.start * dilation, (count - inner) * dilation
    length = rows.stop - rows.start
    joined = _side_by_side(x, [first + j * dilation for j in range(inner)], length + reach)
    steps = range(0, reach + 1, inner * dilation)
    return _side_by_side(joined, steps, length).view(-1, count * x.shape[-1])


def _side_by_side(x: Tensor, starts: Sequence[int], length: int) -> Tensor:
    seen = [x[start : start + length] for start in starts]
    return seen[0] if len(seen) == 1 else torch.cat(seen, -1)


def _tap_groups(kernel: int, channels: int) -> list[range]:
    """All taps at once for narrow input; one by one, which copies nothing, for wide input."""
    size = kernel if channels < _NARROW else 1
    return [range(a, a + size) for a in range(0, kernel, size)]


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        kernel: int,
        dilation: int,
        activate: bool,
    ) -> Tensor:
        n_series, channels = x.shape[1:]
        y = x.new_empty(x.shape[0] - (kernel - 1) * dilation, n_series, weight.shape[1])
        groups = _tap_groups(kernel, channels)
        width = max(len(groups[0]) * channels, weight.shape[1])
        for rows in _pieces(len(y), n_series * width, x.device):
            out = y[rows].view(-1, weight.shape[1])
            for taps in groups:
                part = weight[taps.start * channels : taps.stop * channels]
                start = bias if taps.start == 0 else out
                torch.addmm(start, _columns(x, rows, taps, dilation), part, out=out)
            if activate:
                out.relu_()
        ctx.save_for_backward(x, weight, y if activate else None)
        ctx.kernel, ctx.dilation = kernel, dilation
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        n_series, channels = x.shape[1:]
        groups = _tap_groups(ctx.kernel, channels)
        width = max(len(groups[0]) * channels, weight.shape[1])
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        if grad_x is not None:
            grad_x[len(grad_y) :] = 0.0
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[1])
        # from the last days on, so that a day's first tap has written before later taps add to it
        for rows in reversed(_pieces(len(grad_y), n_series * width, x.device)):
            g = grad_y[rows]
            g = g if y is None else torch.ops.aten.threshold_backward(g, y[rows], 0)
            g = g.reshape(-1, weight.shape[1])
            grad_bias += g.sum(0)
            for taps in groups:
                span = slice(taps.start * channels, taps.stop * channels)
                grad_weight[span].addmm_(_columns(x, rows, taps, ctx.dilation).t(), g)
                if grad_x is not None:
                    _add_back(grad_x, g @ weight[span].t(), rows, taps, ctx.dilation)
        return grad_x, grad_weight, grad_bias, None, None, None


def _add_back(grad_x: Tensor, columns: Tensor, rows: slice, taps: range, dilation: int) -> None:
    """The transpose of `_columns`: adds each tap's part to the days it came from.

    The first tap, the earliest of all, is the first to come to its days: it writes.
    """
    parts = columns.view(-1, grad_x.shape[1], len(taps), grad_x.shape[2]).unbind(2)
    for j, part in zip(taps, parts, strict=True):
        days = grad_x[rows.start + j * dilation : rows.stop + j * dilation]
        if j == 0:
            days.copy_(part)
        else:
            days += part


class _GatheredHidden(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        inputs: Tensor,
        weight: Tensor,
        readout: Tensor,
        index: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        batch, n_assets = inputs.shape[:2]
        scores = table.new_empty(batch, n_assets)
        pooled = table.new_empty(batch, table.shape[2])
        for rows in _pieces(batch, table[0].numel(), table.device):
            hidden = _hidden(table, inputs, weight, index, rows)
            torch.mv(hidden.view(-1, table.shape[2]), readout, out=scores[rows].view(-1))
            torch.mean(hidden, 1, out=pooled[rows])
        ctx.save_for_backward(table, inputs, weight, readout, index)
        return scores, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_scores: Tensor, grad_pooled: Tensor) -> tuple[Tensor | None, ...]:
        table, inputs, weight, readout, index = ctx.saved_tensors
        width = table.shape[2]
        grad_table = torch.empty_like(table) if index is None else torch.zeros_like(table)
        grad_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[1] else None
        grad_weight, grad_readout = torch.zeros_like(weight), torch.zeros_like(readout)
        grad_pooled = grad_pooled / inputs.shape[1]
        for rows in _pieces(len(inputs), table[0].numel(), table.device):
            hidden = _hidden(table, inputs, weight, index, rows)
            g = grad_scores[rows]
            grad_readout.addmv_(hidden.view(-1, width).t(), g.reshape(-1))
            g = torch.addcmul(grad_pooled[rows].unsqueeze(1), g.unsqueeze(-1), readout)
            g = torch.ops.aten.threshold_backward(g, hidden, 0)
            if index is None:
                grad_table[rows] = g
            else:
                grad_table.view(len(table), -1).index_add_(0, index[rows], g.view(len(g), -1))
            grad_weight.addmm_(inputs[rows].view(-1, inputs.shape[2]).t(), g.view(-1, width))
            if grad_inputs is not None:
                grad_inputs[rows] = g @ weight.t()
        return grad_table, grad_inputs, grad_weight, grad_readout, None


def _hidden(
    table: Tensor, inputs: Tensor, weight: Tensor, index: Tensor | None, rows: slice
) -> Tensor:
    """The hidden layer of some rows of the batch, shape (rows, N, H)."""
    flat = table.view(len(table), -1)
    known = inputs[rows].view(-1, inputs.shape[2])
    if index is None:
        hidden = torch.addmm(flat[rows].view(-1, table.shape[2]), known, weight)
    else:  # the copy that was just gathered is added to in place
        hidden = flat.index_select(0, index[rows]).view(-1, table.shape[2]).addmm_(known, weight)
    return hidden.relu_().view(-1, *table.shape[1:])
