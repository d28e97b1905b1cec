"""Integrated gradients of a network's answer: how much each input of a decision moved it.

    attribution_k = (x_k - x0_k) int_0^1 dF/dx_k (x0 + a (x - x0)) da       x0 the baseline

The baseline is the mean of training for features and context (0 after scaling) and equal weights
for what is held. Attributions add up to F(x) - F(x0), completeness, which is checked; the integral
is taken with more and more points until it holds.

Source: Sundararajan, Taly & Yan, Axiomatic attribution for deep networks (2017); by captum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from agents.response import Answer, Response
from market.errors import SettingError

POINTS = (32, 64, 128, 256)
TOLERANCE = 0.01  # of the change from the baseline, up to which completeness counts as met
CHUNK = 64  # windows at a time


@dataclass(frozen=True)
class Gradients:
    """Attributions of the answer for some assets.

    Attributes:
        targets: Which assets' answers, (K,) columns.
        features: Shape (K, L, M, F).
        context: Shape (K, L, G).
        held: Shape (K, N).
        answer: F(x), (K,).
        baseline: F(x0), (K,).
        points: Of the integral.

    """

    targets: tuple[int, ...]
    features: np.ndarray
    context: np.ndarray
    held: np.ndarray
    answer: np.ndarray
    baseline: np.ndarray
    points: int

    @property
    def error(self) -> np.ndarray:
        """What is missing to completeness, (K,): sum of attributions - (F(x) - F(x0))."""
        parts = (self.features, self.context, self.held)
        total = sum(part.reshape(len(part), -1).sum(axis=1) for part in parts)
        error: np.ndarray = total - (self.answer - self.baseline)
        return error

    @property
    def relative_error(self) -> float:
        """The largest error over the largest change from the baseline."""
        change = float(np.abs(self.answer - self.baseline).max())
        return float(np.abs(self.error).max()) / max(change, 1e-12)

    @property
    def is_complete(self) -> bool:
        """Whether what is missing is small beside the change, or beside the largest part of it.

        Where parts cancel, the change may be next to nothing and its share says little.
        """
        parts = [abs(part).max() for part in (self.features, self.context, self.held) if part.size]
        change = float(np.abs(self.answer - self.baseline).max())
        error = float(np.abs(self.error).max())
        return error <= TOLERANCE * max(change, *map(float, parts))


def integrated_gradients(
    response: Response, targets: tuple[int, ...], points: tuple[int, ...] = POINTS
) -> Gradients:
    """Attribute the answers for some assets to every number that the network saw.

    Args:
        response: The decision.
        targets: Columns of the assets.
        points: Of the integral; the next number is tried while completeness fails by over 1 %.

    Raises:
        SettingError: If captum is not installed.

    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise SettingError("explain needs captum: pip install 'allocgym[explain]'") from None
    inputs = (response.features[None], response.context[None], response.held[None])
    base = (torch.zeros_like(inputs[0]), torch.zeros_like(inputs[1]), equal(inputs[2]))
    method = IntegratedGradients(partial(_joined, response.answer))
    with torch.no_grad():
        here, there = response.answer(*inputs)[0], response.answer(*base)[0]
    columns = list(targets)
    for count in points:
        parts = [
            method.attribute(inputs, base, target=column, n_steps=count, internal_batch_size=CHUNK)
            for column in columns
        ]
        features, context, held = (
            np.stack([part[i][0].detach().double().numpy() for part in parts]) for i in range(3)
        )
        answer, before = (each[columns].double().numpy() for each in (here, there))
        found = Gradients(tuple(targets), features, context, held, answer, before, count)
        if found.relative_error <= TOLERANCE:
            break
    return found


def _joined(answer: Answer, *inputs: torch.Tensor) -> torch.Tensor:
    """The answer, as a function of inputs that it may not read too: their gradient is 0."""
    nothing = sum(0.0 * part.flatten(1).sum(1) for part in inputs)
    return answer(*inputs) + torch.as_tensor(nothing)[:, None]


def equal(held: torch.Tensor) -> torch.Tensor:
    """Equal weights, as wide as those held."""
    return torch.full_like(held, 1.0 / held.shape[-1])
