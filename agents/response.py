"""What a network answers to its window, as a differentiable function: the basis of explanations.

    features (B, L, M, F), context (B, L, G), held (B, N)  --answer-->  (B, N), one number an asset

An agent that can be explained has a method `response(history, weights)`; agents of your own may
have one too. What the number of an asset is, is its `meaning`:

    weight     the target itself
    proposal   the weights a policy with a no-trade band trades towards
    value      what one unit more of the asset is worth: the least-squares slope, over all
               allocations to choose from, of their values on the asset's weight
    forecast   the return expected of the asset, which a rule turns into weights
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from agents.panel_network import Panel
from market import Market

Meaning = Literal["weight", "proposal", "value", "forecast"]
Answer = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Response:
    """One decision's inputs, as the network sees them (scaled: 0 is the mean of training).

    Attributes:
        features: Shape (L, M, F).
        context: Shape (L, G); G is 0 where there is none.
        held: Weights before the trade, (N,).
        answer: See the head of this module.
        meaning: Of its numbers.
        assets: Whose features are seen, (M,).
        feature_names: (F,).
        context_names: (G,).

    """

    features: Tensor
    context: Tensor
    held: Tensor
    answer: Answer
    meaning: Meaning
    assets: tuple[str, ...]
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, window: Market, weights: np.ndarray, answer: Answer, meaning: Meaning) -> Self:
        """Of a window of a scaled market."""
        return cls(
            torch.as_tensor(np.array(window.features)),
            torch.as_tensor(np.array(window.context)),
            torch.as_tensor(weights, dtype=torch.float32),
            answer,
            meaning,
            window.assets,
            window.feature_names,
            window.context_names,
        )

    def now(self) -> Tensor:
        """The answer to these inputs, (N,)."""
        with torch.no_grad():
            return self.answer(self.features[None], self.context[None], self.held[None])[0]


def end_to_end(features: Tensor, context: Tensor, cash: Tensor | None) -> tuple[Panel, Tensor]:
    """Windows (B, L, N, F) and (B, L, G) as one panel, one after the other, and their last rows."""
    n_windows, length = features.shape[:2]
    shared = context.flatten(0, 1) if context.shape[-1] else None
    rows = torch.arange(1, n_windows + 1, device=features.device) * length - 1
    return Panel(features.flatten(0, 1), shared, cash), rows


def slopes(values: Tensor, points: Tensor) -> Tensor:
    """Least-squares slope of values (B, A) on each asset's weight at points (A, N), (B, N)."""
    centred = points - points.mean(0)
    return values @ centred / centred.square().sum(0)
