"""Network forecasters: one encoder shared by all assets, a linear head, any target, any loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.base import Monitor
from agents.forecast_data import Problem
from agents.forecast_losses import LOSSES, log_spread
from agents.forecast_training import Schedule, one_thread, reproducible, train_epochs
from agents.networks import NetworkSettings, encode_at, make_encoder
from agents.settings import require
from agents.target_forecaster import TargetForecaster, TargetSettings
from market import Market

_SEEDS_APART = 1_000_003  # between the members of an ensemble


@dataclass(frozen=True, kw_only=True)
class NetworkForecasterSettings(TargetSettings):
    """Settings of the network forecasters; sizes as in `EncoderSettings`."""

    lookback: int = 20  # rows of the window
    width: int = 32  # of every layer
    depth: int = 2  # layers
    dropout: float = 0.1  # after each layer, while training
    normalisation: Literal["none", "layer"] = "none"
    loss: Literal["mse", "huber", "gaussian", "ic"] = "mse"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3  # of AdamW
    noise: float = 0.0  # standard deviation of what is added to inputs, in those of train
    batch_size: int = 64  # decision days a gradient step
    epochs: int = 50  # at most
    patience: int = 5  # epochs without a better validation loss
    ensemble: int = 1  # networks from different seeds whose forecasts are averaged

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = ("batch_size", "epochs", "patience", "ensemble")
        require(self, **dict.fromkeys(whole, "[1, inf)"), learning_rate="(0, inf)")
        require(self, weight_decay="[0, inf)", noise="[0, inf)")


class ForecastNetwork(nn.Module):
    """Scaled inputs (T, n, F) at rows (B,) -> outputs (B, n, K)."""

    def __init__(self, n_inputs: int, settings: NetworkSettings, n_outputs: int) -> None:
        super().__init__()
        seed = int(torch.randint(2**31, ()))
        self.encoder = make_encoder(n_inputs, settings, seed)
        self.head = nn.Linear(settings.width, n_outputs)

    def forward(self, panel: Tensor, rows: Tensor) -> Tensor:
        """By the whole stretch of the panel or window by window, whichever is less work."""
        outputs: Tensor = self.head(encode_at(self.encoder, panel, rows))
        return outputs


class NetworkForecaster(TargetForecaster):
    """A network that reads the last `lookback` rows of an asset's features, and the context.

    Trained by AdamW on days of all assets at once; the epoch with the best validation loss is kept.
    Encoders with a finite memory take days in consecutive stretches, which share work, recurrent
    ones at random.

    Source: Gu, Kelly & Xiu, Empirical asset pricing via machine learning (2020), on early stopping
    and ensembles over seeds; Loshchilov & Hutter, Decoupled weight decay regularization (2019).
    """

    Settings: ClassVar[type] = NetworkForecasterSettings
    encoder: ClassVar[str] = "fnn"
    settings: NetworkForecasterSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._shape = self._network_settings()  # refuses sizes that do not fit the encoder
        self._networks: list[ForecastNetwork] = []
        self._calibration = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def learn(self, problem: Problem, seed: int, monitor: Monitor) -> None:
        """Train every member; an IC knows no scale, so it is found by regression afterwards."""
        self._networks, kept = [], monitor.resume()
        self._calibration = torch.tensor([0.0, 1.0], dtype=torch.float64)
        done = [] if kept is None else kept["beside"]  # members trained before the checkpoint
        for member in range(self.settings.ensemble):
            with reproducible(seed + _SEEDS_APART * member):
                network = self._build(problem.panel.shape[-1])
                if member < len(done):
                    network.load_state_dict(done[member])
                    network.eval()
                else:
                    self._train(network, problem, monitor, member, kept)
                    kept = None
            self._networks.append(network)
        if self.settings.loss == "ic":
            self._calibration = self._fitted_scale(problem)

    def outputs(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """The members' mean, calibrated."""
        shift, slope = self._calibration.tolist()
        return shift + slope * self._raw(panel, rows)[..., 0].mean(axis=0)

    def spread(self, history: Market) -> np.ndarray | None:
        """With the Gaussian loss, the deviation of the mixture of the members, (n,)."""
        if self.settings.loss != "gaussian":
            return None
        rows = torch.tensor([self.lookback - 1])
        raw = self._raw(self.window(history), rows)[:, 0]  # (members, n, 2)
        within = np.exp(2.0 * log_spread(torch.from_numpy(raw)).numpy())
        found: np.ndarray = np.sqrt(within.mean(axis=0) + raw[..., 0].var(axis=0))
        return found

    def standardised(self, inputs: Tensor) -> Tensor:
        """The members' mean, calibrated."""
        shift, slope = self._calibration.tolist()
        made = [network.head(network.encoder.encode(inputs)) for network in self._networks]
        return shift + slope * torch.stack(made)[..., 0].mean(0)

    def learned(self) -> dict[str, Tensor]:
        """Parameters of every member."""
        made = {"calibration": self._calibration}
        for member, network in enumerate(self._networks):
            made |= {f"{member}.{key}": value for key, value in network.state_dict().items()}
        return made

    def relearn(self, tensors: dict[str, Tensor], n_inputs: int) -> None:
        """Build the members and put their parameters in."""
        self._calibration, self._networks = tensors["calibration"], []
        for member in range(self.settings.ensemble):
            own = {
                key.removeprefix(f"{member}."): value
                for key, value in tensors.items()
                if key.startswith(f"{member}.")
            }
            with reproducible(0):
                network = self._build(n_inputs)
            network.load_state_dict(own)
            self._networks.append(network.eval())

    def _network_settings(self) -> NetworkSettings:
        names = ("lookback", "width", "depth", "dropout", "normalisation")
        sizes = {name: getattr(self.settings, name) for name in names}
        return NetworkSettings(encoder=self.encoder, **sizes)

    def _build(self, n_inputs: int) -> ForecastNetwork:
        return ForecastNetwork(n_inputs, self._shape, 1 + (self.settings.loss == "gaussian"))

    def _train(
        self,
        network: ForecastNetwork,
        problem: Problem,
        monitor: Monitor,
        member: int,
        kept: dict[str, Any] | None,
    ) -> None:
        settings, loss_of = self.settings, LOSSES[self.settings.loss]
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        valid = problem.valid_rows

        def epoch() -> float:
            losses = []
            for rows in self._batches(network, problem.train_rows):
                panel = problem.panel
                if settings.noise:
                    panel = panel + settings.noise * torch.randn_like(panel)
                outputs = network(panel, rows)
                loss = loss_of(outputs, problem.target[rows], problem.known[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
            return float(np.mean(losses))

        def score() -> float:
            outputs = network(problem.panel, valid)
            return loss_of(outputs, problem.target[valid], problem.known[valid]).item()

        schedule = Schedule(
            settings.epochs,
            settings.patience,
            settings.learning_rate,
            self.encoder,
            (member, settings.ensemble),
        )
        train_epochs(
            network,
            optimiser,
            epoch,
            score,
            schedule,
            monitor,
            kept=kept,
            beside=lambda: [before.state_dict() for before in self._networks],
        )

    def _batches(self, network: ForecastNetwork, rows: Tensor) -> Iterator[Tensor]:
        """All rows once (but for a rest before a random offset), in random order."""
        size = self.settings.batch_size
        if not network.encoder.finite_memory:
            yield from rows[torch.randperm(len(rows))].split(size)
            return
        offset = int(torch.randint(min(size, len(rows)), ()))
        stretches = rows[offset:].split(size)
        for number in torch.randperm(len(stretches)).tolist():
            yield stretches[number]

    def _raw(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """Outputs of every member, (members, R, n, K) float64."""
        with torch.inference_mode(), one_thread():
            made = [network(panel, rows).numpy() for network in self._networks]
        return np.array(made, np.float64)

    def _fitted_scale(self, problem: Problem) -> Tensor:
        """Constant and slope of standardised targets on outputs, over the training rows."""
        rows = problem.train_rows
        known = problem.known[rows].numpy()
        made = self._raw(problem.panel, rows)[..., 0].mean(axis=0)[known]
        came = problem.target[rows].numpy()[known].astype(np.float64)
        away = made - made.mean()
        square = away @ away
        slope = float(away @ came / square) if square > 0.0 else 0.0
        return torch.tensor([came.mean() - slope * made.mean(), slope], dtype=torch.float64)


class FNNForecaster(NetworkForecaster):
    """A feed-forward network over the flattened window."""

    name = encoder = "fnn"


class CNNForecaster(NetworkForecaster):
    """Causal dilated convolutions."""

    name = encoder = "cnn"


class RNNForecaster(NetworkForecaster):
    """An Elman network."""

    name = encoder = "rnn"


class GRUForecaster(NetworkForecaster):
    """Gated recurrent units."""

    name = encoder = "gru"


class LSTMForecaster(NetworkForecaster):
    """Long short-term memory, shared by all assets; `textbook_lstm` reads all assets at once."""

    name = encoder = "lstm"


class TransformerForecaster(NetworkForecaster):
    """A causal transformer."""

    name = encoder = "transformer"
