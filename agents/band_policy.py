"""A policy that can learn not to trade: a proposal, and a band around it inside which it holds.

    proposal p = softmax(scores)        half-width b_i in (0, 1)
    low_i = max(p_i - b_i, 0)           high_i = min(p_i + b_i, 1)
    target = held, where all of it is between low and high; else each asset is brought to the nearer
             edge, and what that frees or needs is shared by the room that assets have to the other

Targets are on the simplex and between low and high. With one risky asset and cash that is every
no-trade interval there is, and such an interval is the optimum under proportional costs (Davis &
Norman, Portfolio selection with transaction costs, 1990); with more assets it is a box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.networks import AllocationNetwork, NetworkSettings
from envs.simulator import Array, namespace

_FIRST_BAND = -4.0  # before the sigmoid: the first half-width is about 2 % of the portfolio
TINY = 1e-12  # keeps the gradient of a division by almost no room bounded


class Plan(NamedTuple):
    """What a policy would hold, whatever it holds now: (*B, N) each."""

    proposal: Array
    low: Array
    high: Array

    def target(self, held: Array) -> Array:
        """The weights traded to from those held, (*B, N); numpy or torch, like the plan."""
        xp = namespace(held)
        clipped = xp.minimum(xp.maximum(held, self.low), self.high)
        lack = 1.0 - clipped.sum(-1)[..., None]
        room = xp.where(lack > 0.0, self.high - clipped, clipped - self.low)
        return clipped + lack * (room / (room.sum(-1)[..., None] + TINY))


class BandPolicy(nn.Module):
    """Scores of an `AllocationNetwork` as a proposal, and a band from the same embeddings.

    Weights are computed in float64, the network in its own precision.

    Args:
        n_features: F.
        n_context: G.
        settings: Of the network.
        has_band: Without, every decision trades all the way to the proposal.
        sees_weights: Whether the proposal depends on what is held; the target does in any case.
            Where not, plans depend on time alone and are made for all rows at once.
        n_known: N, where each asset has a learned score and width of its own beside what the
            network makes of its features; 0: assets are told apart by features alone, so that
            their number and order are free.
        seed: Of the initial parameters.

    """

    def __init__(
        self,
        n_features: int,
        n_context: int,
        settings: NetworkSettings,
        *,
        has_band: bool = True,
        sees_weights: bool = False,
        n_known: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = AllocationNetwork(n_features, n_context, settings, seed=seed)
        self.has_band, self.sees_weights = has_band, sees_weights
        self.width = nn.Parameter(torch.zeros(settings.width))
        self.width_bias = nn.Parameter(torch.full((max(1, n_known),), _FIRST_BAND))
        self.own_score = nn.Parameter(torch.zeros(max(1, n_known)))

    def plan(self, table: Tensor, held: Tensor, tradable: Tensor | None = None) -> Plan:
        """Plans from rows of the network's table (B, N, H).

        Args:
            table: Each sample's row.
            held: Weights before the trade, (B, N); read where the policy sees weights.
            tradable: Assets that may be proposed, (B, N) or (N,), bool; None: all.

        """
        shown = held.to(table.dtype) if self.sees_weights else _equal(table)
        scores = (self.network.decide(table, shown)[0] + self.own_score).to(torch.float64)
        if tradable is not None:
            closed = ~tradable & tradable.any(-1, keepdim=True)
            scores = scores.masked_fill(closed, -torch.inf)
        proposal = torch.softmax(scores, -1)
        if not self.has_band:
            return Plan(proposal, proposal, proposal)
        width = torch.relu(table) @ self.width + self.width_bias
        band = torch.sigmoid(width.to(torch.float64))
        return Plan(proposal, (proposal - band).clamp(min=0.0), (proposal + band).clamp(max=1.0))


def _equal(table: Tensor) -> Tensor:
    return table.new_full(table.shape[:2], 1.0 / table.shape[1])
