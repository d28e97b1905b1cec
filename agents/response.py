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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from agents.panel_network import Panel
from market import Market, SettingError

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
        note: What the answer leaves out.

    """

    features: Tensor
    context: Tensor
    held: Tensor
    answer: Answer
    meaning: Meaning
    assets: tuple[str, ...]
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...] = ()
    note: str = ""

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


class NoNetwork(SettingError):
    """An agent decides by a rule: there is nothing to differentiate."""


class Part(NamedTuple):
    """One of several responses that are summed: what it is called, and its share."""

    name: str
    share: float
    response: Response


def blend(
    parts: Sequence[Part], rest: np.ndarray, held: np.ndarray, others: Sequence[str] = ()
) -> Response:
    """The sum of shares times answers and of a constant, as a function of all their inputs.

    Windows end on the same day and start as the longest does; features and context are told apart
    by their part's name. What each part holds for itself is kept as it is.

    Args:
        parts: At least one; their assets are the same ones, or the first of them.
        rest: Added to every answer, (N,).
        held: Weights before the trade, (N,).
        others: Names of what the constant is made of, or of what is left out.

    """
    length = max(len(part.response.features) for part in parts)
    assets = max((part.response.assets for part in parts), key=len)
    names = [f"{part.name}: " for part in parts]
    if len(set(names)) < len(names):
        names = [f"{part.name} {i + 1}: " for i, part in enumerate(parts)]
    constant = torch.as_tensor(rest, dtype=torch.float32)

    def padded(inputs: Tensor, n_assets: int | None = None) -> Tensor:
        made = inputs.new_zeros(length, *inputs.shape[1:])
        made[length - len(inputs) :] = inputs
        if n_assets is None:
            return made
        wide = made.new_zeros(length, n_assets, made.shape[-1])
        wide[:, : made.shape[1]] = made
        return wide

    def answer(features: Tensor, context: Tensor, _: Tensor) -> Tensor:
        made, f, g = constant.expand(len(features), -1), 0, 0
        for part in parts:
            own = part.response
            (n_rows, n_assets, n_own), n_shared = own.features.shape, own.context.shape[1]
            seen = features[:, length - n_rows :, :n_assets, f : f + n_own]
            shared = context[:, length - n_rows :, g : g + n_shared]
            made = made + part.share * own.answer(
                seen, shared, own.held.expand(len(features), -1)
            ).to(made)
            f, g = f + n_own, g + n_shared
        return made

    responses = [part.response for part in parts]
    return Response(
        torch.cat([padded(own.features, len(assets)) for own in responses], -1),
        torch.cat([padded(own.context) for own in responses], -1),
        torch.as_tensor(held, dtype=torch.float32),
        answer,
        _common([own.meaning for own in responses]),
        assets,
        tuple(names[i] + each for i, own in enumerate(responses) for each in own.feature_names),
        tuple(names[i] + each for i, own in enumerate(responses) for each in own.context_names),
        f"not attributed: what comes from {', '.join(others)}" if others else "",
    )


def _common(meanings: Sequence[Meaning]) -> Meaning:
    """What a sum of these is: weights and proposals are proposals."""
    return meanings[0] if len(set(meanings)) == 1 else "proposal"


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
