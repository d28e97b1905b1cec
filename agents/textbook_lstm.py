"""The textbook LSTM: daily returns of all risky assets together in, next-day returns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from agents.base import Monitor
from agents.forecast_base import Forecaster
from agents.forecast_training import Schedule, one_thread, reproducible, train_epochs
from agents.response import Response
from agents.settings import require
from market import DataError, Market


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

    Source: Fischer & Krauss, Deep learning with long short-term memory networks for financial
    market predictions (2018).
    """

    Settings: ClassVar[type] = TextbookLSTMSettings
    name = "textbook_lstm"
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
        known = {"mean": self._mean, "std": self._std, "error": torch.from_numpy(self.error)}
        return self._network.state_dict() | known

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Build the network and put the parameters in."""
        self._mean, self._std = tensors.pop("mean"), tensors.pop("std")
        self.error = tensors.pop("error").numpy()
        with reproducible(0):
            self._network = LSTMNetwork(len(self._mean), self.settings)
        self._network.load_state_dict(tensors)
        self._network.eval()

    def _train(self, days: Tensor, windows: Tensor, ahead: Tensor, monitor: Monitor) -> None:
        """Adam over epochs; days (D, n), validation windows (V, L, n) and what followed (V, n)."""
        assert self._network is not None
        network, settings = self._network, self.settings
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)

        def score() -> float:
            return nn.functional.mse_loss(network(windows)[:, -1], ahead).item()

        schedule = Schedule(settings.epochs, settings.patience, settings.learning_rate, "lstm")
        train_epochs(
            network,
            optimiser,
            lambda: self._epoch(network, optimiser, days),
            score,
            schedule,
            monitor,
            kept=monitor.resume(),
        )
        with torch.inference_mode():
            off = (network(windows)[:, -1] - ahead) * self._std
        self.error = off.square().mean(dim=0).sqrt().double().numpy()

    def _epoch(self, network: LSTMNetwork, optimiser: Any, days: Tensor) -> float:
        """One pass over the days; the mean loss of its windows."""
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
