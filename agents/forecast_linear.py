"""The floors any forecast has to beat: the historical mean, least squares, ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents.base import Monitor
from agents.forecast_data import Problem
from agents.settings import require
from agents.target_forecaster import TargetForecaster, TargetSettings

PENALTIES = tuple(10.0**power for power in (-4, -3, -2, -1, 0, 1, 2))


class HistoricalMean(TargetForecaster):
    """The mean target of the training rows: what knowing nothing would say."""

    name = "mean"
    holds_out = False

    def learn(self, problem: Problem, seed: int, monitor: Monitor) -> None:
        """The mean is the translation's centre; there is nothing else."""

    def outputs(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """No deviation from it."""
        return np.zeros((len(rows), panel.shape[1]))

    def learned(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def relearn(self, tensors: dict[str, Tensor], n_inputs: int) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class LinearSettings(TargetSettings):
    """Settings of `linear`."""

    lookback: int = 1  # rows of features it looks at

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, lookback="[1, inf)")


class Linear(TargetForecaster):
    """Least squares of all assets' standardised targets on their features, pooled.

    min_b mean (z - a - x.b)^2 + penalty |b|^2, x the features of `lookback` rows, scaled; a penalty
    of 0 gives the shortest b among the best.

    Source: Hoerl & Kennard, Ridge regression (1970); Gu, Kelly & Xiu, Empirical asset pricing via
    machine learning (2020), on pooling.
    """

    Settings: ClassVar[type] = LinearSettings
    name = "linear"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.holds_out = len(self.penalties()) > 1
        self._slopes, self._constant = np.zeros(0), 0.0

    def learn(self, problem: Problem, seed: int, monitor: Monitor) -> None:
        """The normal equations, solved once for each penalty; validation chooses among several."""
        x, z = self._pairs(problem, problem.train_rows)
        fits = {penalty: ridge(x, z, penalty) for penalty in self.penalties()}
        x, z = self._pairs(problem, problem.valid_rows)
        losses = {
            penalty: float(((z - constant - x @ slopes) ** 2).mean()) if len(z) else 0.0
            for penalty, (slopes, constant) in fits.items()
        }
        best = min(losses, key=lambda penalty: losses[penalty])
        self._slopes, self._constant = fits[best]
        monitor.record(1, {"eval/loss": losses[best], "eval/penalty": best})
        monitor.progress(1.0)

    def penalties(self) -> tuple[float, ...]:
        """Those to choose from."""
        return (0.0,)

    def outputs(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """The constant and x.b at each row."""
        return self._constant + self._inputs(panel, rows) @ self._slopes

    def standardised(self, inputs: Tensor) -> Tensor:
        """The constant and x.b."""
        flat = inputs.movedim(1, -2).flatten(-2)  # (B, n, L * F), the oldest row first
        return self._constant + flat @ torch.as_tensor(self._slopes, dtype=flat.dtype)

    def learned(self) -> dict[str, Tensor]:
        """Slopes and constant."""
        return {
            "slopes": torch.from_numpy(self._slopes),
            "constant": torch.tensor([self._constant], dtype=torch.float64),
        }

    def relearn(self, tensors: dict[str, Tensor], n_inputs: int) -> None:
        """Take them back."""
        self._slopes, self._constant = tensors["slopes"].numpy(), float(tensors["constant"])

    def _inputs(self, panel: Tensor, rows: Tensor) -> np.ndarray:
        """Features of the last `lookback` rows, the oldest first, (R, n, L * F) float64."""
        lags = [panel[rows - lag] for lag in reversed(range(self.lookback))]
        return torch.cat(lags, dim=-1).numpy().astype(np.float64)

    def _pairs(self, problem: Problem, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (P, L * F) and standardised targets (P,) of all that is known at the rows."""
        known = problem.known[rows].numpy()
        return self._inputs(problem.panel, rows)[known], problem.target[rows].numpy()[known].astype(
            np.float64
        )


@dataclass(frozen=True, kw_only=True)
class RidgeSettings(LinearSettings):
    """Settings of `ridge`."""

    penalty: float | None = None  # on squared slopes, a row; None: validation chooses

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, penalty="[0, inf)")


class Ridge(Linear):
    """`Linear` with slopes kept small; see there."""

    Settings: ClassVar[type] = RidgeSettings
    name = "ridge"

    def penalties(self) -> tuple[float, ...]:
        """The one given, or seven from 0.0001 to 100."""
        given = self.settings.penalty
        return PENALTIES if given is None else (given,)


def ridge(x: np.ndarray, z: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Slopes (F,) and constant that minimise mean (z - a - x.b)^2 + penalty |b|^2.

    Args:
        x: (P, F).
        z: (P,).
        penalty: >= 0; with 0 the solution of least length.

    """
    middle, level = x.mean(axis=0), z.mean()
    away = x - middle
    gram = away.T @ away / len(z) + penalty * np.eye(x.shape[1])
    moment = away.T @ (z - level) / len(z)
    if penalty > 0.0:
        slopes = np.linalg.solve(gram, moment)
    else:
        slopes = np.linalg.lstsq(away, z - level, rcond=1e-8)[0]
    return slopes, float(level - middle @ slopes)
