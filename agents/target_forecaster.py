"""Forecasters of any target from scaled features; what they share but for the model itself.

What is fitted (scaling, translation, model) sees training rows alone, and a training row only if
its target was known by the last of them; validation stops the learning and measures the error.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from agents.base import Monitor
from agents.forecast_base import Forecaster, with_cash_at
from agents.forecast_data import Problem, window_panel
from agents.forecast_targets import Target, Translation
from agents.outlook import Outlook
from agents.response import NoNetwork, Response
from agents.settings import require
from market import Market
from market.features.scaling import Scaler


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """What forecasters of any target have in common."""

    target: Target = "return"  # what to foresee; returns are inferred from it
    horizon: int = 1  # periods ahead

    def __post_init__(self) -> None:
        require(self, horizon="[1, inf)")


class TargetForecaster(Forecaster):
    """A forecaster of any target from the market's features, scaled; a subclass is the model.

    Risky assets alone are forecast. Every asset has its own mean and deviation of the target, in
    units of which the model works; the model itself is shared.

    Attributes:
        holds_out: Whether rows are kept from learning, to stop or to choose by, where there is no
            validation market.

    """

    Settings: ClassVar[type] = TargetSettings
    holds_out: bool = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.target, self.horizon = self.settings.target, self.settings.horizon
        self.lookback = getattr(self.settings, "lookback", 1)
        self._scaler: Scaler | None = None
        self._translation: Translation | None = None

    @abstractmethod
    def learn(self, problem: Problem, seed: int, monitor: Monitor) -> None:
        """Learn to give the standardised target at a row from the panel up to it."""

    @abstractmethod
    def outputs(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """Standardised forecasts at rows of a scaled panel (T, n, F), (R, n)."""

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """The model's parameters."""

    @abstractmethod
    def relearn(self, tensors: dict[str, Tensor], n_inputs: int) -> None:
        """Take the parameters back, for F inputs."""

    def spread(self, history: Market) -> np.ndarray | None:
        """How wrong the model expects to be now, (n,), in standardised units; None: as ever."""
        return None

    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Scale and translate by training rows, learn, and measure the error on the others."""
        self._scaler = Scaler.fit(train)
        problem = Problem.of(
            train, valid, self._scaler, self.target, self.horizon, self.lookback, self.holds_out
        )
        self._translation = problem.translation
        self.assets = train.assets
        self.learn(problem, seed, monitor or Monitor())
        made = problem.translation.mean(
            problem.translation.target(self.outputs(problem.panel, problem.valid_rows))
        )
        self.error = problem.error(made)
        return self

    def predict(self, history: Market) -> np.ndarray:
        """Expected simple returns of the period after the last row, (N,)."""
        estimate = self._estimate(history)
        assert self._translation is not None
        rate = float(history.risk_free[-1])
        return with_cash_at(self._translation.mean(estimate), rate, history)

    def outlook(self, history: Market) -> Outlook:
        """Expected returns, and a volatility where that was the target."""
        estimate, translation = self._estimate(history), self._translation
        assert translation is not None
        mean = with_cash_at(translation.mean(estimate), float(history.risk_free[-1]), history)
        error, spread = self.error, self.spread(history)
        if spread is not None:
            error = spread * translation.scale * np.abs(translation.slope)
        volatility = usual = None
        if self.target == "volatility":
            volatility = with_cash_at(translation.volatility(estimate), 0.0, history)
            usual = with_cash_at(translation.usual, 0.0, history)
        error = with_cash_at(error, 0.0, history)
        return Outlook(mean, error, volatility, usual, self.horizon)

    def estimates(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """Forecasts of the target at rows of a market, (R, n), all at once."""
        self.check(market)
        assert self._scaler is not None and self._translation is not None
        panel = window_panel(self._scaler.transform(market))
        return self._translation.target(self.outputs(panel, torch.as_tensor(rows)))

    def standardised(self, inputs: Tensor) -> Tensor:
        """Standardised forecasts (B, n) of windows (B, L, n, F), differentiably."""
        raise NoNetwork(f"{self.title}: has no inputs to explain it by")

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """Expected returns as a function of the window of scaled features and context."""
        assert self._translation is not None and self._scaler is not None, "fit first"
        window, n_own = self.window(history), len(self._scaler.names)
        n_assets, translation = window.shape[1], self._translation
        scale = torch.as_tensor(translation.slope * translation.scale, dtype=torch.float32)
        start = torch.as_tensor(translation.mean(translation.center), dtype=torch.float32)
        rate = torch.full((history.n_assets - n_assets,), float(history.risk_free[-1]))
        self.standardised(window[None])  # has it inputs at all?

        def answer(features: Tensor, context: Tensor, held: Tensor) -> Tensor:
            shared = context[:, :, None].expand(-1, -1, n_assets, -1)
            outputs = self.standardised(torch.cat([features, shared], -1))
            return torch.cat([start + scale * outputs, rate.expand(len(outputs), -1)], -1)

        return Response(
            window[..., :n_own],
            window[:, 0, n_own:],
            torch.as_tensor(weights, dtype=torch.float32),
            answer,
            "forecast",
            self.assets[:n_assets],
            self._scaler.names,
            self._scaler.context_names,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, translation and error."""
        assert self._translation is not None, "fit first"
        known = {f"translation.{key}": value for key, value in asdict(self._translation).items()}
        known["error"] = self.error
        made = {key: torch.from_numpy(np.array(value)) for key, value in known.items()}
        return made | self.learned()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take all back."""
        assert self._scaler is not None, "load first"
        prefix = "translation."
        own = {key: tensors.pop(key).numpy() for key in list(tensors) if key.startswith(prefix)}
        translation = {key.removeprefix(prefix): value for key, value in own.items()}
        self._translation, self.error = Translation(**translation), tensors.pop("error").numpy()
        self.relearn(tensors, len(self._scaler.names) + len(self._scaler.context_names))

    def save(self, folder: Path) -> None:
        """As any forecaster, and the scaler as JSON."""
        assert self._scaler is not None, "fit first"
        super().save(folder)
        (folder / "scaler.json").write_text(self._scaler.to_json())

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote."""
        self._scaler = Scaler.from_json((folder / "scaler.json").read_text())
        super().load(folder)

    def window(self, history: Market) -> Tensor:
        """The scaled inputs of the last `lookback` rows, (L, n, F)."""
        self.check(history)
        assert self._scaler is not None
        return window_panel(self._scaler.transform(history[-self.lookback :]))

    def _estimate(self, history: Market) -> np.ndarray:
        """Forecast target after the last row, (n,)."""
        outputs = self.outputs(self.window(history), torch.tensor([self.lookback - 1]))
        assert self._translation is not None
        return self._translation.target(outputs[0])
