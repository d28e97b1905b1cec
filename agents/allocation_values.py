"""Values of allocations: what it is worth to hold w from today on, and what getting there costs.

The market does not react, so how a portfolio came about matters for nothing but the price of the
trade. A decision's value therefore falls in two parts, of which the first is learned:

    Q(t, held, w) = W(t, w) - price(held, w)
    W(t, w) = w . scores(t, w) + pooled(t, w)                           a network that is given w
    price(held, w) = sum_i u_i |w_i - held_i| + v_i (w_i - held_i)      in units of scaled reward

One network values every w, so neighbouring allocations share what is learned, and holdings that
drifted off the lattice have a value too. With `dueling`, W is a value of the day plus how much
better w is than equal weights, which takes the market's common moves out of the comparison.
Source of the last: Wang et al., Dueling network architectures (2016), equal weights in the place of
their mean over actions; of values after the decision: Powell, Approximate dynamic programming
(2007), ch. 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.networks import NetworkSettings
from agents.panel_network import PanelNetwork, Shape

_SAME = 1e-5  # of the greatest singular value: below it, a direction is rounding


class AllocationValues(nn.Module):
    """W and price for the allocations of a lattice, and for any other.

    Args:
        shape: Of the market.
        settings: Of the network.
        points: The lattice, shape (A, N).
        dueling: See the head of this module.
        n_quantiles: Q; None: W is one number. Quantiles differ in the pooled part alone.

    """

    points: Tensor
    spread: Tensor  # u, (N,)
    tilt: Tensor  # v, (N,)

    def __init__(
        self,
        shape: Shape,
        settings: NetworkSettings,
        points: Tensor,
        *,
        dueling: bool,
        n_quantiles: int | None = None,
    ) -> None:
        super().__init__()
        self.n_quantiles = n_quantiles
        self.panel = PanelNetwork(shape, settings, n_values=n_quantiles or 1)
        self.day = nn.Linear(settings.width, 1) if dueling else None
        if self.day is not None:
            nn.init.zeros_(self.day.weight)
            nn.init.zeros_(self.day.bias)
        self.register_buffer("points", points.float(), persistent=False)
        for name in ("spread", "tilt"):
            self.register_buffer(name, torch.zeros(shape.n_assets))

    def forward(self, rows: Tensor, allocations: Tensor) -> Tensor:
        """W at rows (B,) of allocations (B, M, N), shape (B, M); mean of the quantiles."""
        worth = self.quantiles(rows, allocations)
        return worth.squeeze(-1) if self.n_quantiles is None else worth.mean(-1)

    def quantiles(self, rows: Tensor, allocations: Tensor) -> Tensor:
        """Quantiles of W, shape (B, M, Q), Q = 1 where there are none."""
        table, index = self.panel.table(rows)
        if self.day is None:
            return self._worth(table, index, allocations)
        equal = torch.full_like(allocations[:, :1], 1.0 / allocations.shape[-1])
        worth = self._worth(table, index, torch.cat([allocations, equal], 1))
        day = self.day(table.mean(1)).index_select(0, index).unsqueeze(-1)
        return day + worth[:, :-1] - worth[:, -1:].mean(-1, keepdim=True)

    def _worth(self, table: Tensor, index: Tensor, allocations: Tensor) -> Tensor:
        n_rows, n_each, n_assets = allocations.shape
        weights = allocations.reshape(-1, n_assets)
        places = index.repeat_interleave(n_each)
        scores, pooled = self.panel.network.decide(table, weights, places)
        linear = (scores * weights).sum(-1, keepdim=True)
        return (linear + pooled.view(len(weights), -1)).view(n_rows, n_each, -1)

    def set_prices(self, spread: Tensor, tilt: Tensor) -> None:
        """Of trades: u and v, (N,) each."""
        self.spread.copy_(spread)
        self.tilt.copy_(tilt)

    def price(self, held: Tensor, targets: Tensor) -> Tensor:
        """What trading from held (B, M, N) to each of targets (B, K, N) costs, (B, M, K)."""
        distance = torch.cdist(held * self.spread, targets * self.spread, p=1.0)
        return distance + (targets @ self.tilt).unsqueeze(1) - (held @ self.tilt).unsqueeze(2)

    def choices(self, rows: Tensor, held: Tensor) -> Tensor:
        """Q at rows (B,) with held (B, N) of every point, then of not trading, (B, A + 1)."""
        quantiles = self.choice_quantiles(rows, held)
        return quantiles.squeeze(-1) if self.n_quantiles is None else quantiles.mean(-1)

    def choice_quantiles(self, rows: Tensor, held: Tensor) -> Tensor:
        """The same for each quantile, (B, A + 1, Q)."""
        points = self.points.expand(len(rows), -1, -1)
        worth = self.quantiles(rows, torch.cat([points, held.unsqueeze(1)], 1))
        price = self.price(held.unsqueeze(1), points).squeeze(1)
        return worth - nn.functional.pad(price, (0, 1)).unsqueeze(-1)

    def taken_quantiles(self, rows: Tensor, held: Tensor, taken: Tensor) -> Tensor:
        """The same of one choice each, by its number (B, 1), shape (B, 1, Q)."""
        holding = taken.unsqueeze(-1) == len(self.points)
        point = self.points[taken.clamp(max=len(self.points) - 1)]
        chosen = torch.where(holding, held.unsqueeze(1), point)
        price = self.price(held.unsqueeze(1), chosen).squeeze(1)
        return self.quantiles(rows, chosen) - price.unsqueeze(-1)


def fitted_prices(trades: Tensor, prices: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of observed prices (M,) of trades (M, N): u >= 0 and v, shape (N,) each."""
    features = torch.cat([trades.abs(), trades], 1).double()
    # of directions no trade has, such as all weights rising, the least answer is taken; trades
    # come in single precision, so that directions which differ by its rounding are the same
    answer = torch.linalg.lstsq(features, prices.double(), rcond=_SAME, driver="gelsd").solution
    spread, tilt = answer.float().chunk(2)
    return spread.clamp(min=0.0), tilt
