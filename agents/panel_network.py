"""An `AllocationNetwork` that reads windows out of a market by row number.

Observations are compact: the row of the newest known day and the weights. While parameters change,
each call encodes the windows its batch names; while they stand still, as during a rollout, the
whole market is encoded at the first call and later calls look rows up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from agents.networks import AllocationNetwork, NetworkSettings
from market import Market

SALT = 1_000_003  # between the seeds of networks that must differ


@dataclass(frozen=True)
class Panel:
    """What networks read of a scaled market."""

    features: Tensor  # (T, N, F)
    context: Tensor | None  # (T, G)
    cash: Tensor | None  # (N,) bool, true for cash

    @classmethod
    def of(cls, market: Market, device: str = "cpu") -> Self:
        """Copied to the device once."""
        cash = None
        if market.has_cash:
            cash = torch.arange(market.n_assets, device=device) == market.n_assets - 1
        context = None
        if market.context_names:
            context = torch.as_tensor(np.array(market.context), device=device)
        return cls(torch.as_tensor(np.array(market.features), device=device), context, cash)


@dataclass(frozen=True)
class Shape:
    """Sizes of the market a network was built for, and the seed of its first parameters."""

    n_assets: int
    n_features: int
    n_context: int
    seed: int = 0

    @classmethod
    def of(cls, market: Market, seed: int = 0) -> Self:
        """The market's."""
        return cls(market.n_assets, len(market.feature_names), len(market.context_names), seed)


class PanelNetwork(nn.Module):
    """Scores and values for rows of the market that is shown.

    Args:
        shape: F and G.
        settings: Of the network.
        n_inputs: K numbers per asset beside the window, see `AllocationNetwork`.
        n_values: Q pooled values.
        salt: Added to the seed, where several networks must differ.

    """

    def __init__(
        self,
        shape: Shape,
        settings: NetworkSettings,
        *,
        n_inputs: int = 1,
        n_values: int = 1,
        salt: int = 0,
    ) -> None:
        super().__init__()
        self.network = AllocationNetwork(
            shape.n_features,
            shape.n_context,
            settings,
            n_inputs=n_inputs,
            n_values=n_values,
            seed=shape.seed + SALT * salt,
        )
        self.lookback = settings.lookback
        self.panel: Panel | None = None
        self.still = False
        self._table: Tensor | None = None

    def show(self, panel: Panel | None, *, still: bool = False) -> None:
        """Read this market from now on; `still`: parameters will not change until further word."""
        self.panel = panel
        self.stand(still)

    def stand(self, still: bool) -> None:
        """Whether parameters stand still from now on; what was looked up before is forgotten."""
        self.still, self._table = still, None

    def forward(self, rows: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, N) and values (B,) or (B, Q) at rows (B,), for inputs (B, N) or (B, N, K).

        Raises:
            FloatingPointError: If any is not finite.

        """
        table, index = self.table(rows)
        scores, values = self.network.decide(table, inputs, index)
        check_finite(scores.sum() + values.sum())
        return scores, values

    def table(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (U, N, H) of the windows that end at rows (B,), and each sample's place."""
        assert self.panel is not None, "show() a market first"
        panel = self.panel
        if torch.is_grad_enabled() or not self.still:
            return self.network.table_at(panel.features, rows, panel.context, panel.cash)
        if self._table is None:
            self._table = self.network.table_panel(panel.features, panel.context, panel.cash)
        return self._table, rows - (self.lookback - 1)


def check_finite(total: Tensor) -> None:
    """Raise FloatingPointError where the sum of a network's outputs is not finite."""
    if not math.isfinite(total.detach()):
        raise FloatingPointError("an output of the network is not finite")


def readers(module: nn.Module) -> Iterator[PanelNetwork]:
    """All networks inside that read a market."""
    return (part for part in module.modules() if isinstance(part, PanelNetwork))
