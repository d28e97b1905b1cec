"""Ensembles of forecasts: stacked on validation, or blended with a factor model.

stacking(forecasters=[mean, ridge, gru], rule=mean_variance)
factor_blend(forecaster=gru, components=3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from agents.base import Monitor
from agents.ensembles_members import split
from agents.factor_model import FactorModel, FactorModelSettings
from agents.forecast_agent import ForecastAgent
from agents.forecast_base import Forecaster
from agents.forecast_data import n_risky
from agents.forecast_targets import known_columns, target_of
from agents.forecasters import FORECASTERS
from agents.kept_parts import Parts
from agents.response import NoNetwork, Part, Response, blend
from agents.rule_base import build
from agents.settings import Space, require
from agents.simplex import minimise_on_simplex
from market import DataError, Market

PARTS: dict[str, type[Forecaster]] = {**FORECASTERS, "factor_model": FactorModel}
LEAST_ROWS = 20  # of validation


class StackedForecaster(Forecaster):
    """A mean of forecasts: sum_m b_m f_m, b >= 0, sum b = 1.

    b minimises the squared error of next-period returns on validation, each asset's divided by its
    variance in training; parts learn from training alone (validation stops them). Without a
    validation market the last fifth of the training rows takes its place.

    Args:
        parts: Forecasters, each trained once.
        shares: b, where it is not to be found, (M,).

    Source: Wolpert, Stacked generalization (1992); Breiman, Stacked regressions (1996), on weights
    that are not negative.
    """

    def __init__(self, parts: Sequence[Forecaster], shares: Sequence[float] | None = None) -> None:
        super().__init__()
        self.parts, self._given = list(parts), shares
        self.lookback = max(part.lookback for part in self.parts)
        self.shares = np.array(shares if shares is not None else np.ones(len(parts)) / len(parts))

    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Fit the parts, then the shares.

        Raises:
            DataError: If there are too few rows to find shares by.

        """
        monitor = monitor or Monitor()
        if valid is None:
            cut = train.n_periods - (train.n_periods - 1) // 5
            train, valid = train[:cut], train[max(0, cut - self.lookback) :]
        self.assets = train.assets
        self._fit_parts(train, valid, seed, monitor)
        made, came = self._on(valid, train)
        if self._given is None:
            self.shares = best_shares(made, came)
        self.error = np.sqrt(known_columns((came - made @ self.shares) ** 2, np.mean)) * _size(
            train
        )
        names = [f"eval/share_{i}_{type(part).__name__}" for i, part in enumerate(self.parts)]
        monitor.record(0, dict(zip(names, self.shares.tolist(), strict=True)))
        monitor.progress(1.0)
        return self

    def _fit_parts(self, train: Market, valid: Market, seed: int, monitor: Monitor) -> None:
        kept = Parts(monitor)
        for i, part in enumerate(self.parts):
            with kept.unpacked(str(i)) as folder:
                if folder is not None:
                    part.load(folder)
                    continue
            watched = kept.part(str(i), f"forecaster_{i}", i, len(self.parts))
            part.fit(train, valid, seed=seed, monitor=watched)
            kept.done(str(i), part.save)

    def predict(self, history: Market) -> np.ndarray:
        """The mean of the parts' forecasts, (N,)."""
        self.check(history)
        return self.shares @ np.array([part.predict(history) for part in self.parts])

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The mean of the parts' forecasts; those without a network are a constant.

        Raises:
            NoNetwork: If none has one.

        """
        self.check(history)
        parts, rest, others = list[Part](), np.zeros(history.n_assets), list[str]()
        for part, share in zip(self.parts, self.shares.tolist(), strict=True):
            try:
                parts.append(Part(part.title, share, part.response(history, weights)))
            except NoNetwork:
                rest, others = rest + share * part.predict(history), [*others, part.title]
        if not parts:
            raise NoNetwork("stacking: none of its forecasters has a network")
        return blend(parts, rest, weights, others)

    def tensors(self) -> dict[str, Tensor]:
        """Shares and error."""
        return {"shares": torch.from_numpy(self.shares), "error": torch.from_numpy(self.error)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        self.shares, self.error = tensors["shares"].numpy(), tensors["error"].numpy()

    def save(self, folder: Path) -> None:
        """As any forecaster, and a folder for each part."""
        super().save(folder)
        for i, part in enumerate(self.parts):
            own = folder / f"forecaster_{i}"
            own.mkdir()
            part.save(own)

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote."""
        super().load(folder)
        for i, part in enumerate(self.parts):
            part.load(folder / f"forecaster_{i}")

    def _on(self, market: Market, train: Market) -> tuple[np.ndarray, np.ndarray]:
        """Forecasts (R, n, M) and what came (R, n) after training, over training deviations.

        Both are nan where an asset could not be held.
        """
        count = n_risky(market)
        before = int(market.dates.searchsorted(train.dates[-1], side="right"))
        rows = range(max(self.lookback, before) - 1, market.n_periods - 1)
        if len(rows) < LEAST_ROWS:
            raise DataError(
                f"{market.name}: stacking needs {LEAST_ROWS} validation rows after the "
                f"{self.lookback} of a first forecast, got {max(0, len(rows))}"
            )
        made = np.array(
            [[part.predict(market.upto(row))[:count] for part in self.parts] for row in rows]
        )
        came = target_of(market.returns[:, :count], market.tradable[:, :count])[rows]
        known, size = np.isfinite(came), _size(train)
        scaled = np.where(known[..., None], np.moveaxis(made / size, 1, 2), np.nan)
        return scaled, came / size


def best_shares(made: np.ndarray, came: np.ndarray) -> np.ndarray:
    """The b on the simplex of the least mean |came - made b|^2, for (R, n, M) and (R, n).

    What is nan in `came` counts nowhere.
    """
    known = np.isfinite(came)
    x, y = made[known], came[known]
    square = x.T @ x / len(x)
    square += 1e-6 * np.trace(square) / len(square) * np.eye(len(square))  # equal parts share alike
    start = np.full(len(square), 1.0 / len(square))
    return minimise_on_simplex(square, -x.T @ y / len(x), start)


def read_forecasters(given: str | Sequence[str]) -> list[Forecaster]:
    """Forecasters from "mean, ridge(lookback=5)"."""
    texts = split(given) if isinstance(given, str) else list(given)
    return [build(text, PARTS, "forecaster") for text in texts]


@dataclass(frozen=True, kw_only=True)
class AllocationSettings:
    """What agents that stack or blend do with forecasts, as `forecast` does."""

    rule: str = "proportional"  # a name of RULES, with settings: "top_k(k=3)"
    volatility: float | None = None  # limit a year; None: no limit
    volatility_window: int = 60  # returns its covariance is estimated from

    def __post_init__(self) -> None:
        require(self, volatility="(0, inf)", volatility_window="[2, inf)")


@dataclass(frozen=True, kw_only=True)
class StackingSettings(AllocationSettings):
    """Settings of `stacking`."""

    forecasters: str = "mean, ridge, factor_model"  # names of forecasters, with settings


class Stacking(ForecastAgent):
    """Allocates by forecasts that are stacked: see `StackedForecaster`."""

    Settings: ClassVar[type] = StackingSettings
    space: ClassVar[Space] = {"rule": ["proportional", "mean_variance", "top_k"]}
    settings: StackingSettings

    def __init__(self, **settings: Any) -> None:
        given = settings.get("forecasters")
        if isinstance(given, list):
            settings["forecasters"] = ", ".join(given)
        super().__init__(**settings)

    def _forecaster(self) -> Forecaster:
        return StackedForecaster(read_forecasters(self.settings.forecasters))


@dataclass(frozen=True, kw_only=True)
class FactorBlendSettings(AllocationSettings, FactorModelSettings):
    """Settings of `factor_blend`."""

    forecaster: str = "ridge"  # a name of FORECASTERS, with settings
    share: float | None = None  # of the factor model; None: what is best on validation

    def __post_init__(self) -> None:
        AllocationSettings.__post_init__(self)
        FactorModelSettings.__post_init__(self)
        require(self, share="[0, 1]")


class FactorBlend(ForecastAgent):
    """Allocates by (1 - s) forecast + s factor model: see `FactorModel`.

    Source: Black & Litterman, Global portfolio optimization (1992), on pulling views towards what a
    model of the market implies.
    """

    Settings: ClassVar[type] = FactorBlendSettings
    space: ClassVar[Space] = {
        "components": "1..4",
        "forecaster": ["mean", "ridge", "fnn"],
    }
    settings: FactorBlendSettings

    def _forecaster(self) -> Forecaster:
        settings = self.settings
        factors = FactorModel(components=settings.components, factors=settings.factors)
        parts = [*read_forecasters([settings.forecaster]), factors]
        share = settings.share
        return StackedForecaster(parts, None if share is None else [1.0 - share, share])


def _size(train: Market) -> np.ndarray:
    """Standard deviation of each risky asset's returns while it could be held in training, (n,)."""
    count = n_risky(train)
    moves = target_of(train.returns[:, :count], train.tradable[:, :count])
    return np.maximum(known_columns(moves, np.std), 1e-12)
