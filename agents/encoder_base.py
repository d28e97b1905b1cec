"""What every encoder is, and the sizes it is built from.

An encoder turns the last L days of an asset's features into a vector; one serves all assets. It has
two forms with the same parameters and, dropout aside, the same numbers:

    encode(windows (B, L, N, F)) -> (B, N, H)             one window at a time
    encode_panel(panel (T, N, F)) -> (T - L + 1, N, H)    every window of a panel

Row i of the second is the window that ends at row i + L - 1; days without a full
window have no row. With dropout on, the panel form drops a day's elements alike in all
windows that share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from market.errors import SettingError

NORMALISATIONS = ("none", "layer")
_PIECE = 2**23  # elements one piece of work keeps for its backward pass: 32 MB in float32
_KEPT = 2**28  # elements kept in all, 1 GB in float32, before pieces are recomputed instead
_COPY = 16  # moving a number to and from memory takes as long as so many multiply-adds


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Sizes of an encoder.

    Attributes:
        width: H, the size of an embedding and of every hidden layer; even for the transformer.
        depth: Layers: hidden layers of `fnn`, dilated layers of `cnn` after the one that reads the
            features, recurrent layers, transformer blocks.
        dropout: Probability in [0, 1) of dropping an element after each layer while training.
        normalisation: "layer" normalises each hidden vector (of recurrent networks the last one
            only); "none" leaves it as it is.
        lookback: L, days in a window.

    """

    width: int = 32
    depth: int = 2
    dropout: float = 0.0
    normalisation: str = "none"
    lookback: int = 60

    def __post_init__(self) -> None:
        for name in ("width", "depth", "lookback"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SettingError(f"{name} must be a whole number >= 1, got {value!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise SettingError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if self.normalisation not in NORMALISATIONS:
            choices = ", ".join(NORMALISATIONS)
            raise SettingError(
                f"normalisation must be one of {choices}, got {self.normalisation!r}"
            )


class Encoder(nn.Module, ABC):
    """Base of all encoders; sizes are taken from the settings.

    Attributes:
        finite_memory: Overlapping windows share work in `encode_panel`.
        lookback: L.
        width: H.
        n_features: F.

    """

    finite_memory: ClassVar[bool] = True

    def __init__(self, n_features: int, settings: EncoderSettings) -> None:
        super().__init__()
        self.n_features, self.lookback, self.width = n_features, settings.lookback, settings.width
        self.dropout = nn.Dropout(settings.dropout)

    @classmethod
    def check(cls, settings: EncoderSettings) -> None:
        """Raise `SettingError` where sizes do not fit this encoder."""

    @abstractmethod
    def encode(self, windows: Tensor) -> Tensor:
        """Embeddings of the windows' last days: (B, L, N, F) -> (B, N, H)."""

    @abstractmethod
    def encode_panel(self, panel: Tensor) -> Tensor:
        """Embeddings of all windows of a panel: (T, N, F) -> (T - L + 1, N, H)."""

    @abstractmethod
    def window_work(self) -> int:
        """Multiply-adds of `encode` per window and asset."""

    @abstractmethod
    def panel_work(self, n_windows: int) -> int:
        """Multiply-adds of `encode_panel` per asset, for so many consecutive windows."""

    def forward(self, windows: Tensor) -> Tensor:
        """The same as `encode`: (B, L, N, F) -> (B, N, H)."""
        return self.encode(windows)

    def ends_work(self, n_windows: int) -> int:
        """Work of `encode_ends` per asset: gathering and encoding so many windows."""
        gathered = self.lookback * self.n_features
        return n_windows * (self.window_work() + _COPY * gathered)

    def encode_ends(self, panel: Tensor, end_rows: Tensor) -> Tensor:
        """Each named window by itself: panel (T, N, F), end_rows (U,) -> (U, N, H).

        Windows are gathered some at a time, see `in_pieces`.
        """

        def piece(rows: Tensor) -> Tensor:
            return self.encode(windows_at(panel, rows, self.lookback))

        per_window = panel.shape[1] * self.lookback * (self.n_features + self.kept_per_day())
        return in_pieces(piece, end_rows, 0, per_window)

    def kept_per_day(self) -> int:
        """Elements kept for the backward pass of one window, per day of it."""
        return self.width


def windows_at(panel: Tensor, end_rows: Tensor, lookback: int) -> Tensor:
    """The windows that end at given rows: panel (T, N, F), end_rows (U,) -> (U, L, N, F).

    A window is one run of memory, so each is copied at once.
    """
    panel = panel.contiguous()
    size = panel[0].numel()
    runs = panel.as_strided((len(panel) - lookback + 1, lookback * size), (size, 1))
    chosen = runs.index_select(0, end_rows - (lookback - 1))
    return chosen.view(len(end_rows), lookback, *panel.shape[1:])


def make_norms(settings: EncoderSettings, count: int) -> nn.ModuleList:
    """So many normalisations of (.., H), or identities."""
    layer = settings.normalisation == "layer"
    return nn.ModuleList(
        nn.LayerNorm(settings.width) if layer else nn.Identity() for _ in range(count)
    )


def in_pieces(
    function: Callable[[Tensor], Tensor], x: Tensor, dim: int, kept_per_row: int
) -> Tensor:
    """`function` over pieces of `x` along `dim`, joined along the same dimension.

    Where all pieces together would keep gigabytes, the backward pass computes each again.
    """
    piece = _PIECE if x.device.type == "cpu" else 8 * _PIECE
    pieces = x.split(max(1, piece // kept_per_row), dim)
    if torch.is_grad_enabled() and x.shape[dim] * kept_per_row > _KEPT:
        done = [checkpoint(function, piece, use_reentrant=False) for piece in pieces]
    else:
        done = [function(piece) for piece in pieces]
    return done[0] if len(done) == 1 else torch.cat(done, dim)
