"""A policy that can learn not to trade: it moves towards its proposal, but not all the way.

    proposal p = softmax(scores)            band b in (0, 1)
    distance d = half the L1 norm of p - held
    target     = held + max(d - b, 0) / d * (p - held)

Inside distance b of the proposal nothing is traded, outside it the trade ends at the band's edge.
With one risky asset and cash that is every no-trade interval there is, and such an interval is the
optimum under proportional costs (Davis & Norman, Portfolio selection with transaction costs, 1990).
With more assets targets stay on the simplex, on the line from what is held to the proposal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.networks import AllocationNetwork, NetworkSettings

_FIRST_BAND = 4.0  # sigmoid(-4): the first band is about 2 % of the portfolio
_NO_DISTANCE = 1e-12


class Decision(NamedTuple):
    """What a policy decides for a batch."""

    target: Tensor  # (B, N)
    proposal: Tensor  # (B, N)
    band: Tensor  # (B,)


class BandPolicy(nn.Module):
    """An `AllocationNetwork` whose scores are a proposal and whose value is the band's width.

    Weights are computed in the precision of what is held, the network in its own.

    Args:
        n_features: F.
        n_context: G.
        settings: Of the network.
        has_band: Without, every decision trades all the way to the proposal.
        seed: Of the initial parameters.

    """

    def __init__(
        self,
        n_features: int,
        n_context: int,
        settings: NetworkSettings,
        *,
        has_band: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = AllocationNetwork(n_features, n_context, settings, seed=seed)
        self.has_band = has_band

    def decide(self, table: Tensor, held: Tensor, tradable: Tensor | None = None) -> Decision:
        """Targets from rows of the network's table (B, N, H) and what is held (B, N).

        Args:
            table: Each sample's row.
            held: Weights before the trade.
            tradable: Assets that may be proposed, (B, N) or (N,), bool; None: all.

        """
        scores, width = self.network.decide(table, held.to(table.dtype))
        scores = scores.to(held.dtype)
        if tradable is not None:
            closed = ~tradable & tradable.any(-1, keepdim=True)
            scores = scores.masked_fill(closed, -torch.inf)
        proposal = torch.softmax(scores, -1)
        if not self.has_band:
            return Decision(proposal, proposal, torch.zeros_like(proposal[..., 0]))
        band = torch.sigmoid(width.to(held.dtype) - _FIRST_BAND)
        return Decision(towards(held, proposal, band), proposal, band)


def towards(held: Tensor, proposal: Tensor, band: Tensor) -> Tensor:
    """The point at distance `band` (B,) of the proposal, or what is held where that is nearer."""
    gap = proposal - held
    distance = 0.5 * gap.abs().sum(-1)
    share = torch.relu(distance - band) / (distance + _NO_DISTANCE)
    return torch.addcmul(held, share.unsqueeze(-1), gap)
