"""How assets see each other, and how embeddings and what is held become scores and a value.

Nothing here depends on the order or the number of assets. Mixing depends on time alone, so it is
done once per day; only `AssetHead` sees weights, once per sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.fused import gathered_hidden

_SMALL = 0.01  # weights below this count as about nothing on the logarithmic scale


class NoMixing(nn.Module):
    """Each asset by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(U, N, H) -> (U, N, H), unchanged."""
        return x


class PooledMixing(nn.Module):
    """Adds a function of the assets' mean embedding to every asset: x + g(mean(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(U, N, H) -> (U, N, H)."""
        mixed: Tensor = x + self.layers(x.mean(1, keepdim=True))
        return mixed


class AttentionMixing(nn.Module):
    """Self-attention over the assets of a day, added to each asset's embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, 4)
        self.norm = nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(U, N, H) -> (U, N, H)."""
        split = self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (U, heads, N, H / heads) each
        attended = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = x + self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class AssetHead(nn.Module):
    """Scores per asset and a pooled value from embeddings and per-asset inputs such as weights.

    hidden[b, n] = max(A embedding[b, n] + a + C features(inputs[b, n]), 0)
    score[b, n] = v . hidden[b, n] + s . features(inputs[b, n])
    value[b] = g(mean over n of hidden[b, n])

    `features` are the input itself and its logarithmic position log(1 + x / 0.01) / log(101), which
    is 0 at 0 and 1 at 1. A softmax of `4.6 *` the latter keeps what is held, so that not trading is
    easy to learn. v starts near and s at zero: the first policy is close to equal weights.
    """

    def __init__(self, width: int, n_inputs: int = 1, n_values: int = 1) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.inputs = nn.Parameter(torch.randn(2 * n_inputs, width) / math.sqrt(2 * n_inputs))
        self.readout = nn.Parameter(0.01 * torch.randn(width))
        self.skip = nn.Parameter(torch.zeros(2 * n_inputs))
        self.value = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_values))

    def forward(
        self, table: Tensor, inputs: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores and values.

        Args:
            table: What `project` made of embeddings, shape (U, N, H).
            inputs: Weights, shape (B, N), or several numbers in [0, 1] per asset, (B, N, K).
            index: The row of the table each sample stands on, shape (B,); None: its own.

        Returns:
            Scores (B, N) and values (B,), or (B, Q) where there are several.

        """
        inputs = inputs.unsqueeze(-1) if inputs.ndim == 2 else inputs
        features = torch.cat([inputs, _log_position(inputs)], -1)
        scores, pooled = gathered_hidden(table, features, self.inputs, self.readout, index)
        return scores + features @ self.skip, self.value(pooled).squeeze(-1)


def _log_position(x: Tensor) -> Tensor:
    """0 at 0, 1 at 1, logarithmic between; negative inputs count as 0."""
    return torch.log1p(x.clamp(min=0.0) / _SMALL) / math.log1p(1.0 / _SMALL)


MIXINGS: dict[str, type[nn.Module]] = {
    "none": NoMixing,
    "pooled": PooledMixing,
    "attention": AttentionMixing,
}
