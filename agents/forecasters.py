"""Forecasters: models of the next period's returns, fitted on the past, free of any allocation.

    row            t-L+1 ........... t           t+1
                   |<--- window --->|
                     predict(history)  ------->  returns[t+1]

A forecast is a simple return per asset; cash is forecast at the last known rate. Learned models see
returns standardised by the training rows alone.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents.base import Monitor
from agents.response import Response
from agents.settings import NoSettings, as_dict, build_settings, require
from market import DataError, Market, SettingError


class Forecaster(ABC):
    """A model of next-period returns.

    Attributes:
        lookback: Rows of history `predict` needs.

    """

    Settings: ClassVar[type] = NoSettings
    lookback: int = 2

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = build_settings(self.Settings, settings, type(self).__name__)
        self.assets: tuple[str, ...] = ()

    @abstractmethod
    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Learn from `train`; `valid` may stop the learning and choose its best state."""

    @abstractmethod
    def predict(self, history: Market) -> np.ndarray:
        """Expected simple returns of the period after the last row, (N,)."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What was learned."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave; `assets` and settings are set."""

    def save(self, folder: Path) -> None:
        """Write settings as JSON and what was learned as tensors."""
        about = {"settings": as_dict(self.settings), "assets": self.assets}
        (folder / "forecaster.json").write_text(json.dumps(about, indent=1) + "\n")
        save_file(self.tensors(), folder / "forecaster.safetensors")

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote, into a forecaster of the same settings."""
        self.assets = tuple(json.loads((folder / "forecaster.json").read_text())["assets"])
        self.restore(load_file(folder / "forecaster.safetensors"))

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The forecast as a differentiable function of its window, for explanations."""
        raise SettingError(f"{type(self).__name__}: holds no network to explain")

    def check(self, history: Market) -> None:
        """Refuse to predict before `fit`, or for other assets than those of `fit`."""
        if not self.assets:
            raise SettingError(f"{type(self).__name__}: call fit before predict")
        if history.assets != self.assets:
            raise DataError(
                f"{history.name}: assets {history.assets} are not those of training {self.assets}"
            )


class HistoricalMean(Forecaster):
    """The mean return of the training rows: the floor that any forecast has to beat."""

    lookback = 1

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._mean = torch.zeros(0, dtype=torch.float64)

    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Mean of all returns but the first row's, where loaded data has none."""
        self.assets = train.assets
        self._mean = torch.from_numpy(train.returns[1:].mean(axis=0))
        return self

    def predict(self, history: Market) -> np.ndarray:
        """That mean, and the last rate of cash."""
        self.check(history)
        forecast = self._mean.numpy().copy()
        if history.has_cash:
            forecast[-1] = history.risk_free[-1]
        return forecast

    def tensors(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": self._mean}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the mean back."""
        self._mean = tensors["mean"]


@dataclass(frozen=True, kw_only=True)
class TextbookLSTMSettings:
    """Settings of the LSTM that sees all assets' returns together."""

    lookback: int = 60  # days in a window
    hidden: int = 64  # units of each layer
    layers: int = 2
    dropout: float = 0.1  # between the layers and before the head
    learning_rate: float = 1e-3
    batch_size: int = 8  # windows a gradient step
    epochs: int = 100  # at most
    patience: int = 10  # epochs without a better validation loss

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("lookback", "hidden", "layers", "batch_size"), "[1, inf)")
        require(self, **positive, epochs="[1, inf)", patience="[1, inf)")
        require(self, dropout="[0, 1)", learning_rate="(0, inf)")


class LSTMNetwork(nn.Module):
    """Returns of n assets (B, L, n) -> the next day's returns after each of the L days."""

    def __init__(self, n_assets: int, settings: TextbookLSTMSettings) -> None:
        super().__init__()
        between = settings.dropout if settings.layers > 1 else 0.0
        self.lstm = nn.LSTM(
            n_assets, settings.hidden, settings.layers, dropout=between, batch_first=True
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.hidden, n_assets)

    def forward(self, returns: Tensor) -> Tensor:
        """Forecasts (B, L, n), each from the days up to its own."""
        hidden, _ = self.lstm(returns)  # (B, L, H)
        return self.head(self.dropout(hidden))


class TextbookLSTM(Forecaster):
    """Daily returns of all risky assets in, 2 LSTM layers of 64 units, next-day returns out.

    Trained by Adam on the mean squared error of standardised returns. An epoch cuts the training
    days into windows of `lookback` days at a random offset and scores the forecast after every day
    of each, so a gradient costs what one pass over the days costs. Validation scores the forecast
    at the end of full windows, as `predict` makes it; the epoch that scores best is kept. Without a
    validation market the last fifth of the training rows takes its place.
    """

    Settings: ClassVar[type] = TextbookLSTMSettings
    settings: TextbookLSTMSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback + 1  # the first row of loaded data has no return
        self._network: LSTMNetwork | None = None
        self._mean = self._std = torch.zeros(0)

    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Train until validation stops improving."""
        monitor = monitor or Monitor()
        days, n_train = _days(train, valid)
        window = self.settings.lookback
        if n_train <= window or len(days) - n_train < 1:
            raise DataError(f"{train.name}: lookback {window} needs more than {n_train} rows")
        self.assets = train.assets
        self._mean, self._std = days[:n_train].mean(0), days[:n_train].std(0)
        self._std = torch.where(self._std > 0.0, self._std, 1.0)
        scaled = (days - self._mean) / self._std  # (D, n)
        held_out = scaled[n_train - window :].unfold(0, window, 1)[:-1].transpose(1, 2)
        with reproducible(seed):
            self._network = LSTMNetwork(days.shape[1], self.settings)
            self._train(scaled[:n_train], held_out, scaled[n_train:], monitor)
        return self

    def predict(self, history: Market) -> np.ndarray:
        """The network's forecast after the last day of the window."""
        self.check(history)
        assert self._network is not None
        n_risky = len(self._mean)
        window = history.returns[-self.settings.lookback :, :n_risky].astype(np.float32)
        with torch.inference_mode(), one_thread():
            scaled = (torch.from_numpy(window) - self._mean) / self._std
            ahead = self._network(scaled[None])[0, -1] * self._std + self._mean
        forecast = np.full(history.n_assets, history.risk_free[-1])
        forecast[:n_risky] = ahead.numpy()
        return forecast

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The forecast as a function of the window of standardised returns."""
        self.check(history)
        network, n_risky = self._network, len(self._mean)
        assert network is not None
        recent = history.returns[-self.settings.lookback :, :n_risky].astype(np.float32)
        scaled = (torch.from_numpy(recent) - self._mean) / self._std
        rate = torch.full((history.n_assets - n_risky,), float(history.risk_free[-1]))

        def answer(features: Tensor, context: Tensor, held: Tensor) -> Tensor:
            ahead = network(features[..., 0])[:, -1] * self._std + self._mean
            return torch.cat([ahead, rate.expand(len(ahead), -1)], -1)

        return Response(
            scaled[..., None],
            torch.zeros(len(scaled), 0),
            torch.as_tensor(weights, dtype=torch.float32),
            answer,
            "forecast",
            self.assets[:n_risky],
            ("return",),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The network's parameters and the scaling."""
        assert self._network is not None, "fit first"
        return self._network.state_dict() | {"mean": self._mean, "std": self._std}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Build the network and put the parameters in."""
        self._mean, self._std = tensors.pop("mean"), tensors.pop("std")
        with reproducible(0):
            self._network = LSTMNetwork(len(self._mean), self.settings)
        self._network.load_state_dict(tensors)
        self._network.eval()

    def _train(self, days: Tensor, windows: Tensor, ahead: Tensor, monitor: Monitor) -> None:
        """Adam over epochs; days (D, n), validation windows (V, L, n) and what followed (V, n)."""
        assert self._network is not None
        network, settings = self._network, self.settings
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        best, best_epoch, kept = float("inf"), 0, network.state_dict()
        for epoch in range(1, settings.epochs + 1):
            loss = self._epoch(network, optimiser, days)
            network.eval()
            with torch.inference_mode():
                score = nn.functional.mse_loss(network(windows)[:, -1], ahead).item()
            monitor.record(epoch, {"train/loss": loss, "eval/loss": score})
            monitor.progress(epoch / settings.epochs)
            if score < best:
                best, best_epoch = score, epoch
                kept = {key: value.clone() for key, value in network.state_dict().items()}
            if epoch - best_epoch >= settings.patience:
                break
        if not np.isfinite(best):
            raise SettingError(f"lstm: diverged at learning_rate {settings.learning_rate}")
        network.load_state_dict(kept)
        monitor.progress(1.0)

    def _epoch(self, network: LSTMNetwork, optimiser: Any, days: Tensor) -> float:
        """One pass over the days; the mean loss of its windows."""
        network.train()
        length = min(self.settings.lookback, len(days) // 2)
        start = int(torch.randint(min(length, len(days) - length), ()))
        pairs = days[start:].unfold(0, length + 1, length).transpose(1, 2)  # (W, L + 1, n)
        losses = []
        for rows in torch.randperm(len(pairs)).split(self.settings.batch_size):
            chosen = pairs[rows]
            loss = nn.functional.mse_loss(network(chosen[:, :-1]), chosen[:, 1:])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return float(np.mean(losses))


FORECASTERS: dict[str, type[Forecaster]] = {"mean": HistoricalMean, "lstm": TextbookLSTM}


@contextmanager
def one_thread() -> Iterator[None]:
    """A single torch thread: faster on small networks, and the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Torch's global generator seeded, on one thread; both are put back afterwards."""
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        yield


def _days(train: Market, valid: Market | None) -> tuple[Tensor, int]:
    """Risky returns of both markets in one row of days (D, n), and how many are for training.

    Rows of `valid` that repeat training dates (history kept in front of it) are left out.
    """
    n_risky = train.n_assets - train.has_cash
    rows = train.returns[1:, :n_risky]
    n_train = len(rows) - len(rows) // 5
    if valid is not None:
        if valid.assets != train.assets:
            raise DataError(f"{valid.name}: assets {valid.assets} differ from {train.assets}")
        later = valid.returns[valid.dates > train.dates[-1], :n_risky]
        n_train = len(rows)
        rows = np.concatenate([rows, later])
    return torch.from_numpy(rows.astype(np.float32)), n_train
