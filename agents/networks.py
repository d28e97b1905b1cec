"""Networks of every learned allocator and forecaster: encoder, context, mixing, head.

    features (L, N, F) -> encoder -> + cash flag, + context -> mixing -> table row (N, H)
    table row, weights (N,) -> head -> scores (N,), value

All but the head depends on time alone. `AllocationNetwork.table_at` computes it once per day that a
batch touches, `table_panel` once per day of a market, as during a rollout, when parameters stand
still; `decide` then reads rows by index. Each sample gets the same as from `forward` on its window.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.encoder_base import Encoder, EncoderSettings
from agents.encoders import ENCODERS
from agents.mixing import MIXINGS, AssetHead
from market.errors import SettingError

__all__ = [
    "ENCODERS",
    "MIXINGS",
    "AllocationNetwork",
    "AssetHead",
    "Encoder",
    "EncoderSettings",
    "NetworkSettings",
    "encode_at",
    "encode_rows",
    "make_encoder",
]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(EncoderSettings):
    """What a network looks like; sizes as in `EncoderSettings`.

    Attributes:
        encoder: A key of `ENCODERS`.
        mixing: How assets see each other, a key of `MIXINGS`.

    """

    encoder: str = "cnn"
    mixing: str = "pooled"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("encoder", ENCODERS), ("mixing", MIXINGS)):
            value = getattr(self, name)
            if value not in known:
                raise SettingError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        ENCODERS[self.encoder].check(self)


def make_encoder(n_features: int, settings: NetworkSettings, seed: int = 0) -> Encoder:
    """An encoder of F features; parameters follow from the seed, global state is untouched."""
    with _seeded(seed):
        return ENCODERS[settings.encoder](n_features, settings)


def encode_rows(encoder: Encoder, panel: Tensor, end_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the windows a batch names, each computed once, and the place of each sample's.

    By counted work either the stretch of the panel from the first to the last window is encoded as
    a whole, or each distinct window by itself. On an accelerator the count waits for the device.

    Args:
        encoder: Any encoder.
        panel: Features of all days, shape (T, N, F).
        end_rows: Last row of each window, in L - 1 .. T - 1, shape (B,), integer.

    Returns:
        Table (U, N, H) and index (B,): sample b is `table[index[b]]`. Rows of the table are in the
        order of time.

    Raises:
        ValueError: If a window does not lie within the panel.

    """
    plan, index = _plan(encoder, len(panel), end_rows)
    return plan.encode(encoder, panel), index


def encode_at(encoder: Encoder, panel: Tensor, end_rows: Tensor) -> Tensor:
    """Embeddings of the windows that end at given rows, by the least work; see `encode_rows`.

    Args:
        encoder: Any encoder.
        panel: Shape (T, N, F).
        end_rows: Shape (B,), integer.

    Returns:
        Shape (B, N, H), equal to `encoder.encode` of the gathered windows.

    """
    table, index = encode_rows(encoder, panel, end_rows)
    return table.index_select(0, index)


@dataclass(frozen=True)
class _Plan:
    """Which windows to encode: all of a stretch of the panel, or some by themselves."""

    stretch: slice
    ends: Tensor | None = None

    def encode(self, encoder: Encoder, panel: Tensor) -> Tensor:
        if self.ends is None:
            return encoder.encode_panel(panel[self.stretch])
        return encoder.encode_ends(panel, self.ends)


def _plan(encoder: Encoder, n_rows: int, end_rows: Tensor) -> tuple[_Plan, Tensor]:
    """The cheaper plan for a batch, and the index of each sample in its result."""
    first, last = (int(row) for row in torch.aminmax(end_rows))
    if first < encoder.lookback - 1 or last >= n_rows:
        raise ValueError(
            f"end_rows must be in {encoder.lookback - 1} .. {n_rows - 1}, got {first} .. {last}"
        )
    stretch = slice(first - encoder.lookback + 1, last + 1)
    ends, index = torch.unique(end_rows, return_inverse=True)
    if encoder.panel_work(last - first + 1) <= encoder.ends_work(len(ends)):
        return _Plan(stretch), end_rows - first
    return _Plan(stretch, ends), index


class AllocationNetwork(nn.Module):
    """Scores per asset (policy logits, Dirichlet parameters, values of assets) and a value.

    Permuting the assets permutes the scores; the count of assets may differ from call to call. Cash
    is told apart by a learned vector, not by its place. Context is encoded as if it were one more
    asset with features of its own, and added to every asset.

    Args:
        n_features: F.
        n_context: G, 0 where there is no context.
        settings: Sizes and kinds of the parts.
        n_inputs: K numbers per asset given to the head: 1 for the weights held, 2 for a critic that
            also sees the action.
        n_values: Q pooled values, such as quantiles; 1 has no dimension of its own.
        seed: Of the initial parameters; torch's global generator is left as it was.

    """

    def __init__(
        self,
        n_features: int,
        n_context: int = 0,
        settings: NetworkSettings | None = None,
        *,
        n_inputs: int = 1,
        n_values: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings = settings or NetworkSettings()
        kind, width = ENCODERS[settings.encoder], settings.width
        with _seeded(seed):
            self.encoder = kind(n_features, settings)
            self.context_encoder = kind(n_context, settings) if n_context else None
            self.cash = nn.Parameter(torch.randn(width))
            self.mixing = MIXINGS[settings.mixing](width)
            self.head = AssetHead(width, n_inputs, n_values)

    def forward(
        self,
        windows: Tensor,
        weights: Tensor,
        context: Tensor | None = None,
        cash: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores and values from full windows.

        Args:
            windows: Features, shape (B, L, N, F).
            weights: What is held, shape (B, N), or K numbers per asset, (B, N, K).
            context: Shape (B, L, G), where the network has context.
            cash: True for the cash asset, shape (N,), bool; None where there is none.

        Returns:
            Scores (B, N) and values (B,).

        """
        return self.decide(self.table(windows, context, cash), weights)

    def table(
        self, windows: Tensor, context: Tensor | None = None, cash: Tensor | None = None
    ) -> Tensor:
        """All but the weights: windows (B, L, N, F), context (B, L, G) -> (B, N, H)."""
        extra = self._context_series(context)
        shared = None
        if extra is not None and self.context_encoder is not None:
            shared = self.context_encoder(extra)
        return self.mix(self.encoder(windows), shared, cash)

    def table_panel(
        self, panel: Tensor, context: Tensor | None = None, cash: Tensor | None = None
    ) -> Tensor:
        """The same for every window of a panel (T, N, F), context (T, G) -> (T - L + 1, N, H).

        Row i belongs to the decision at row i + L - 1 of the panel.
        """
        return self._table(panel, context, cash, _Plan(slice(0, len(panel))))

    def table_at(
        self,
        panel: Tensor,
        end_rows: Tensor,
        context: Tensor | None = None,
        cash: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The same for the windows a batch names, each once.

        Args:
            panel: Shape (T, N, F).
            end_rows: Rows of the decisions, shape (B,), integer.
            context: Shape (T, G).
            cash: Shape (N,), bool.

        Returns:
            Table (U, N, H) and the row of it each sample stands on, (B,), both for `decide`.

        Raises:
            ValueError: If a window does not lie within the panel.

        """
        plan, index = _plan(self.encoder, len(panel), end_rows)
        return self._table(panel, context, cash, plan), index

    def decide(
        self, table: Tensor, weights: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, N) and values (B,), or (B, Q), on rows of a table (U, N, H).

        Args:
            table: From `table`, `table_panel` or `table_at`.
            weights: Shape (B, N) or (B, N, K).
            index: Shape (B,); None where sample b stands on row b. Sorted indices are read faster.

        """
        return self.head(table, weights, index)

    def _table(
        self, panel: Tensor, context: Tensor | None, cash: Tensor | None, plan: _Plan
    ) -> Tensor:
        extra = self._context_series(context)
        shared = None
        if extra is not None and self.context_encoder is not None:
            shared = plan.encode(self.context_encoder, extra)
        return self.mix(plan.encode(self.encoder, panel), shared, cash)

    def mix(self, x: Tensor, shared: Tensor | None, cash: Tensor | None) -> Tensor:
        """Embeddings (U, N, H), of context (U, 1, H), cash flags (N,) -> (U, N, H)."""
        if shared is not None:
            x = x + shared
        if cash is not None:
            x = x + cash.to(x.dtype)[:, None] * self.cash
        table: Tensor = self.head.project(self.mixing(x))
        return table

    def _context_series(self, context: Tensor | None) -> Tensor | None:
        """Context as the features of one asset: (.., G) -> (.., 1, G)."""
        if (context is None) != (self.context_encoder is None):
            built = "without" if self.context_encoder is None else "with"
            given = "some" if context is not None else "none"
            raise ValueError(f"this network was built {built} context, got {given}")
        return None if context is None else context.unsqueeze(-2)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
