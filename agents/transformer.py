"""A causal transformer whose attention reaches a limited number of days, in blocks along time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.encoder_base import Encoder, EncoderSettings, in_pieces, make_norms
from market.errors import SettingError


class Transformer(Encoder):
    """Causal transformer with limited attention: block i sees w_i days, sum(w_i - 1) = L - 1.

    Each position attends to the w_i days up to its own, with rotary positions (Su et al. 2021,
    RoFormer), so that only distances count and the same day weighs the same in every window.
    """

    def __init__(self, n_features: int, settings: EncoderSettings) -> None:
        super().__init__(n_features, settings)
        reach, rest = divmod(settings.lookback - 1, settings.depth)
        spans = [1 + reach + (i < rest) for i in range(settings.depth)]
        self.first = nn.Linear(n_features, settings.width)
        self.blocks = nn.ModuleList(_Block(span, settings) for span in spans)
        self.norms = make_norms(settings, 1)

    @classmethod
    def check(cls, settings: EncoderSettings) -> None:
        """Rotary positions turn pairs of elements."""
        if settings.width % 2:
            raise SettingError(f"width of encoder transformer must be even, got {settings.width!r}")

    def encode(self, windows: Tensor) -> Tensor:
        """(B, L, N, F) -> (B, N, H); the windows' assets are the series of a panel of L days."""
        series = windows.transpose(0, 1).flatten(1, 2)  # (L, B * N, F)
        last = in_pieces(self._stack, series, 1, self.lookback * self.kept_per_day())
        return last.view(windows.shape[0], windows.shape[2], self.width)

    def encode_panel(self, panel: Tensor) -> Tensor:
        """(T, N, F) -> (T - L + 1, N, H)."""
        return in_pieces(self._stack, panel, 1, len(panel) * self.kept_per_day())

    def _stack(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norms[0](x)
        return normed

    def window_work(self) -> int:
        """The panel form of a single window."""
        return self.panel_work(1)

    def panel_work(self, n_windows: int) -> int:
        """Projections once per day, attention over w_i days, from the last block to the first."""
        rows, work = n_windows, 0
        for block in reversed(self.blocks):
            assert isinstance(block, _Block)
            work += rows * (6 * self.width**2 + 2 * block.span * self.width)
            rows += block.span - 1
            work += rows * 2 * self.width**2
        return work + rows * self.n_features * self.width

    def kept_per_day(self) -> int:
        """Projections, turned copies and hidden layers of every block."""
        return 24 * self.width * len(self.blocks)


class _Block(nn.Module):
    """Attention to the last `span` days and a feed-forward layer, both residual."""

    def __init__(self, span: int, settings: EncoderSettings) -> None:
        super().__init__()
        width = settings.width
        self.span = span
        self.heads = math.gcd(width // 2, 4)
        self.queries, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = make_norms(settings, 2)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(T, N, H) -> (T - span + 1, N, H)."""
        normed = self.norms[0](x)
        x = x[self.span - 1 :] + self.dropout(self.out(self._attend(normed)))
        hidden = functional.relu(self.wide(self.norms[1](x)))
        attended: Tensor = x + self.dropout(self.narrow(hidden))
        return attended

    def _attend(self, x: Tensor) -> Tensor:
        """Banded attention in blocks of days: (T, N, H) -> (T - span + 1, N, H)."""
        n_queries, (_, n_series, width) = len(x) - self.span + 1, x.shape
        block = min(n_queries, max(self.span, 16))
        n_blocks = -(-n_queries // block)
        padding = (0, 0, 0, 0, 0, n_blocks * block - n_queries)  # cut off again below
        seen = block + self.span - 1
        queries = functional.pad(self.queries(x[self.span - 1 :]), padding)
        queries = queries.unfold(0, block, block)  # (blocks, N, H, block)
        keys, values = functional.pad(self.keys_values(x), padding).chunk(2, -1)
        keys, values = keys.unfold(0, seen, block), values.unfold(0, seen, block)

        def by_head(y: Tensor) -> Tensor:
            """(blocks, N, H, days) -> (blocks * N, heads, days, H / heads)."""
            return y.reshape(-1, self.heads, width // self.heads, y.shape[-1]).transpose(2, 3)

        day = torch.arange(seen, device=x.device)
        lag = day[self.span - 1 :, None] - day
        out = functional.scaled_dot_product_attention(
            _rotate(by_head(queries), day[self.span - 1 :]),
            _rotate(by_head(keys), day),
            by_head(values),
            attn_mask=(lag >= 0) & (lag < self.span),
        )
        out = out.transpose(2, 3).reshape(n_blocks, n_series, width, block)
        return out.permute(0, 3, 1, 2).reshape(-1, n_series, width)[:n_queries]


def _rotate(x: Tensor, day: Tensor) -> Tensor:
    """Turn pairs of elements by angles proportional to the day: x (.., days, D), day (days,)."""
    half = x.shape[-1] // 2
    rate = 1e-3 ** (torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = day.to(x.dtype)[:, None] * rate
    cosine, sine = angle.cos(), angle.sin()
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)
