"""What every forecaster is: a model of what comes after a decision, free of any allocation.

    row            t-L+1 ........... t           t+1 ........ t+k
                   |<--- window --->|            |--- target ---|
                     outlook(history)  ------->

`predict` gives expected simple returns of one period per asset; cash is forecast at its last known
rate.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.base import Monitor
from agents.forecast_targets import Target
from agents.outlook import Outlook
from agents.response import NoNetwork, Response
from agents.settings import NoSettings, as_dict, build_settings
from market import DataError, Market, SettingError


class Forecaster(ABC):
    """A model of what comes next.

    Attributes:
        name: What errors call it, as in `FORECASTERS`; of your own, the class.
        lookback: Rows of history `predict` needs.
        target: What `estimates` are of; see `target_of`.
        horizon: Periods it reaches ahead.
        error: Root mean square of what returns a period were off forecasts on rows it did not
            learn from, one number a risky asset; empty where nobody measured it.

    """

    Settings: ClassVar[type] = NoSettings
    name: ClassVar[str] = ""
    lookback: int = 2
    target: Target = "return"
    horizon: int = 1

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = build_settings(self.Settings, settings, self.title)
        self.assets: tuple[str, ...] = ()
        self.error = np.zeros(0)

    @property
    def title(self) -> str:
        """Its name, or that of its class."""
        return self.name or type(self).__name__

    @abstractmethod
    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Learn from `train`; `valid` may stop the learning and choose its best state."""

    @abstractmethod
    def predict(self, history: Market) -> np.ndarray:
        """Expected simple returns of the period after the last row, (N,)."""

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The forecast as a differentiable function of its window, for explanations."""
        raise NoNetwork(f"{self.title}: holds no network to explain")

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What was learned."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave; `assets` and settings are set."""

    def outlook(self, history: Market) -> Outlook:
        """All that is expected after the last row."""
        error = with_cash_at(self.error, 0.0, history) if len(self.error) else None
        return Outlook(self.predict(history), error=error, horizon=self.horizon)

    def estimates(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """Forecasts of the target of risky assets at rows of a market, (R, n)."""
        n_risky = market.n_assets - market.has_cash
        made = [self.predict(market.upto(int(row)))[:n_risky] for row in rows]
        return self.horizon * np.array(made).reshape(len(rows), n_risky)

    def save(self, folder: Path) -> None:
        """Write settings as JSON and what was learned as tensors."""
        about = {"settings": as_dict(self.settings), "assets": self.assets}
        (folder / "forecaster.json").write_text(json.dumps(about, indent=1) + "\n")
        save_file(self.tensors(), folder / "forecaster.safetensors")

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote, into a forecaster of the same settings."""
        self.assets = tuple(json.loads((folder / "forecaster.json").read_text())["assets"])
        self.restore(load_file(folder / "forecaster.safetensors"))

    def check(self, history: Market) -> None:
        """Refuse to predict before `fit`, or for other assets than those of `fit`."""
        if not self.assets:
            raise SettingError(f"{self.title}: call fit before predict")
        if history.assets != self.assets:
            raise DataError(
                f"{history.name}: assets {history.assets} are not those of training {self.assets}"
            )


def with_cash_at(risky: np.ndarray, cash: float, market: Market) -> np.ndarray:
    """Numbers of risky assets (n,) with that of cash behind them, where there is cash, (N,)."""
    return np.append(risky, cash) if market.has_cash else np.array(risky)
