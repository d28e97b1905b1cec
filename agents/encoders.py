"""The encoders: feed-forward, convolutional and recurrent ones here, the transformer next door.

`fnn`, `cnn` and `transformer` have a finite memory: nothing is padded, an embedding is a function
of exactly L days, and overlapping windows share work. `rnn`, `gru` and `lstm` start at zero in each
window, so windows share nothing and each distinct one is run once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.encoder_base import Encoder, EncoderSettings, in_pieces, make_norms
from agents.fused import causal_convolution
from agents.transformer import Transformer
from market.errors import SettingError


class FNN(Encoder):
    """Feed-forward network over the flattened window; over a panel, a convolution of kernel L."""

    def __init__(self, n_features: int, settings: EncoderSettings) -> None:
        super().__init__(n_features, settings)
        width = settings.width
        self.first = nn.Linear(settings.lookback * n_features, width)
        self.deeper = nn.ModuleList(nn.Linear(width, width) for _ in range(settings.depth - 1))
        self.norms = make_norms(settings, settings.depth)

    def encode(self, windows: Tensor) -> Tensor:
        """(B, L, N, F) -> (B, N, H)."""
        return self._finish(self.first(windows.transpose(1, 2).flatten(2)))

    def encode_panel(self, panel: Tensor) -> Tensor:
        """(T, N, F) -> (T - L + 1, N, H)."""
        weight, bias = self.first.weight.t(), self.first.bias
        return self._finish(causal_convolution(panel, weight, bias, kernel=self.lookback))

    def _finish(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.relu(self.norms[0](x)))
        for layer, norm in zip(self.deeper, self.norms[1:], strict=True):
            x = self.dropout(functional.relu(norm(layer(x))))
        return x

    def window_work(self) -> int:
        """First layer over L days, then square layers."""
        return self.first.weight.numel() + len(self.deeper) * self.width**2

    def panel_work(self, n_windows: int) -> int:
        """A flattened window shares nothing with its neighbour; only the copying is saved."""
        return n_windows * self.window_work()


class CNN(Encoder):
    """Causal dilated convolutions whose receptive field is exactly L days.

    The first layer reads k days at a time, then each of D layers joins two positions d, 2 d, 4 d ..
    days apart, with d = L // 2^D and k = L - (2^D - 1) d, so that no day is left out; the later
    position also passes by the layer (a residual connection). A panel is convolved once. One window
    needs only every d-th position of the first layer and half as many in each layer after it.
    """

    def __init__(self, n_features: int, settings: EncoderSettings) -> None:
        super().__init__(n_features, settings)
        width, self.stride = settings.width, settings.lookback // 2**settings.depth
        self.kernel = settings.lookback - (2**settings.depth - 1) * self.stride
        self.first = nn.Linear(self.kernel * n_features, width)
        joins = [nn.Linear(2 * width, width) for _ in range(settings.depth)]
        self.joins = nn.ModuleList(joins)
        self.norms = make_norms(settings, settings.depth + 1)

    @classmethod
    def check(cls, settings: EncoderSettings) -> None:
        """The positions of the deepest layer must lie within the window."""
        if 2**settings.depth > settings.lookback:
            raise SettingError(
                f"depth of encoder cnn must be at most log2(lookback = {settings.lookback}), "
                f"got {settings.depth}"
            )

    def encode(self, windows: Tensor) -> Tensor:
        """(B, L, N, F) -> (B, N, H)."""
        x = windows.unfold(1, self.kernel, self.stride)  # (B, 2^D, N, F, k)
        x = self._activate(self.first(x.transpose(3, 4).flatten(3)), 0)
        for i, join in enumerate(self.joins):
            earlier, later = x[:, 0::2], x[:, 1::2]  # (B, 2^(D - i - 1), N, H)
            x = self._activate(join(torch.cat([earlier, later], -1)) + later, i + 1)
        return x.squeeze(1)

    def encode_panel(self, panel: Tensor) -> Tensor:
        """(T, N, F) -> (T - L + 1, N, H)."""
        x = self._convolve(panel, self.first.weight, self.first.bias, self.kernel, 1, 0)
        for i, join in enumerate(self.joins):
            assert isinstance(join, nn.Linear)
            passing = torch.eye(self.width, 2 * self.width, device=x.device, dtype=x.dtype)
            weight = join.weight + passing.roll(self.width, 1)
            x = self._convolve(x, weight, join.bias, 2, self.stride * 2**i, i + 1)
        return x

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor, kernel: int, dilation: int, layer: int
    ) -> Tensor:
        plain = isinstance(self.norms[layer], nn.Identity)
        x = causal_convolution(
            x, weight.t(), bias, kernel=kernel, dilation=dilation, activate=plain
        )
        return self.dropout(x) if plain else self._activate(x, layer)

    def _activate(self, x: Tensor, layer: int) -> Tensor:
        return self.dropout(functional.relu(self.norms[layer](x)))

    def window_work(self) -> int:
        """2^D positions of the first layer, and 2^D - 1 joins."""
        positions = 2 ** len(self.joins)
        return positions * self.first.weight.numel() + (positions - 1) * 2 * self.width**2

    def panel_work(self, n_windows: int) -> int:
        """Each layer once per day, from the first day on that it can be computed for."""
        rows, work = n_windows, 0
        for i in reversed(range(len(self.joins))):
            work += rows * 2 * self.width**2
            rows += self.stride * 2**i
        return work + rows * self.first.weight.numel()


class _Recurrent(Encoder):
    """Recurrent network started at zero in each window; the embedding is its last hidden state."""

    finite_memory = False
    layers: ClassVar[Callable[..., nn.RNNBase]]
    gates: ClassVar[int]

    def __init__(self, n_features: int, settings: EncoderSettings) -> None:
        super().__init__(n_features, settings)
        depth = settings.depth
        between = settings.dropout if depth > 1 else 0.0
        self.network = type(self).layers(n_features, settings.width, depth, dropout=between)
        self.norms = make_norms(settings, 1)

    def encode(self, windows: Tensor) -> Tensor:
        """(B, L, N, F) -> (B, N, H)."""
        batch, days, n_assets, n_features = windows.shape
        series = windows.transpose(0, 1).reshape(days, batch * n_assets, n_features)
        last = in_pieces(self._last, series, 1, days * (n_features + self.kept_per_day()))
        return self.finish(last).view(batch, n_assets, self.width)

    def finish(self, hidden: Tensor) -> Tensor:
        """Embeddings of hidden states (.., H)."""
        return self.dropout(self.norms[0](hidden))

    def _last(self, series: Tensor) -> Tensor:
        """(L, M, F) -> (1, M, H)."""
        state: Tensor = self.network(series)[0][-1:]
        return state

    def encode_panel(self, panel: Tensor) -> Tensor:
        """(T, N, F) -> (T - L + 1, N, H)."""
        ends = torch.arange(self.lookback - 1, len(panel), device=panel.device)
        return self.encode_ends(panel, ends)

    def window_work(self) -> int:
        """Every gate of every layer on every day."""
        inner = 2 * self.width * self.network.num_layers - self.width + self.n_features
        return self.lookback * self.gates * self.width * inner

    def panel_work(self, n_windows: int) -> int:
        """Nothing is shared."""
        return self.ends_work(n_windows)

    def kept_per_day(self) -> int:
        return 2 * (self.gates + 1) * self.width * self.network.num_layers


class RNN(_Recurrent):
    """Elman network with tanh."""

    layers, gates = nn.RNN, 1


class GRU(_Recurrent):
    """Gated recurrent unit."""

    layers, gates = nn.GRU, 3


class LSTM(_Recurrent):
    """Long short-term memory."""

    layers, gates = nn.LSTM, 4


ENCODERS: dict[str, type[Encoder]] = {
    "fnn": FNN,
    "cnn": CNN,
    "rnn": RNN,
    "gru": GRU,
    "lstm": LSTM,
    "transformer": Transformer,
}
