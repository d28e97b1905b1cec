"""Agents that predict, then allocate: any forecaster with any rule, under a volatility limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from agents.base import Agent, Monitor, Task
from agents.forecasters import FORECASTERS, Forecaster, TextbookLSTM, TextbookLSTMSettings
from agents.response import Response
from agents.rollout import evaluation, roll
from agents.rules import RULES, Proportional, Rule, build, limit_volatility
from agents.settings import as_dict, require
from envs.constraints import VolatilityTarget
from market import Market


@dataclass(frozen=True, kw_only=True)
class ForecastSettings:
    """Settings of `forecast`."""

    forecaster: str = "lstm"  # a name of FORECASTERS, with settings: "lstm(hidden=32)"
    rule: str = "proportional"  # a name of RULES, with settings
    volatility: float | None = None  # limit a year; None: no limit
    volatility_window: int = 60  # returns its covariance is estimated from

    def __post_init__(self) -> None:
        require(self, volatility="(0, inf)", volatility_window="[2, inf)")


class ForecastAgent(Agent):
    """Forecast the next period's returns, turn them into weights, limit their volatility.

    `forecaster` and `rule` may be given as objects too.
    """

    Settings: ClassVar[type] = ForecastSettings
    settings: Any
    learns: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        parts: dict[str, Any] = {
            key: part for key, part in settings.items() if isinstance(part, (Forecaster, Rule))
        }
        super().__init__(**(settings | {key: described(part) for key, part in parts.items()}))
        self.forecaster: Forecaster = parts.get("forecaster") or self._forecaster()
        self.rule: Rule = parts.get("rule") or self._rule()
        limited = self.settings.volatility is not None
        window = self.settings.volatility_window + 1 if limited else 0
        self.lookback = max(self.forecaster.lookback, self.rule.lookback, window)

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Fit the forecaster; rules need no fitting."""
        if self.settings.volatility is not None:
            VolatilityTarget(self.settings.volatility).safe_asset(train)
        curves = _LastStep(monitor or Monitor())
        self.forecaster.fit(train, valid, seed=seed, monitor=curves)
        if valid is not None and valid.n_periods > self.lookback + (task or Task()).decision_lag:
            path = roll(self, valid, task or Task())
            values = {f"eval/{key}": value for key, value in evaluation(path, valid).items()}
            curves.record(curves.last, values)
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Weights of the rule for the forecast, under the limit."""
        target = self.rule(self.forecaster.predict(history), history, weights)
        settings = self.settings
        if settings.volatility is None:
            return target
        return limit_volatility(target, history, settings.volatility, settings.volatility_window)

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The forecaster's, for explanations."""
        return self.forecaster.response(history, weights)

    def save(self, folder: Path) -> None:
        """Settings as JSON, and the forecaster's files."""
        super().save(folder)
        self.forecaster.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """An agent of the stored settings with the stored forecaster."""
        agent = cls(**json.loads((folder / "settings.json").read_text()))
        agent.forecaster.load(folder)
        return agent

    def _forecaster(self) -> Forecaster:
        return build(self.settings.forecaster, FORECASTERS, "forecaster")

    def _rule(self) -> Rule:
        return build(self.settings.rule, RULES, "rule")


@dataclass(frozen=True, kw_only=True)
class TextbookSettings(TextbookLSTMSettings):
    """Settings of `lstm`."""

    volatility: float | None = 0.10  # limit a year; None: no limit
    volatility_window: int = 60  # returns its covariance is estimated from

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, volatility="(0, inf)", volatility_window="[2, inf)")


class TextbookAgent(ForecastAgent):
    """The textbook example: an LSTM of 2 layers of 64 units predicts next-day returns.

    Weights are proportional to the positive forecasts (all cash when none is positive), and
    volatility is limited to 10 % a year by moving into cash.
    """

    Settings: ClassVar[type] = TextbookSettings

    def _forecaster(self) -> Forecaster:
        names = [entry.name for entry in fields(TextbookLSTMSettings)]
        return TextbookLSTM(**{name: getattr(self.settings, name) for name in names})

    def _rule(self) -> Rule:
        return Proportional()


def described(part: Any) -> str:
    """The text that builds a forecaster or rule again: "name(setting=value)"."""
    kinds: dict[str, Any] = {**FORECASTERS, **RULES}
    names = [name for name, kind in kinds.items() if kind is type(part)]
    settings = as_dict(getattr(part, "settings", part))
    values = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{names[0] if names else type(part).__name__}({values})"


class _LastStep(Monitor):
    """Passes everything on and remembers where training stood."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.folder, self.last = monitor, monitor.folder, 0

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on, remembering the step."""
        self.last = step
        self.monitor.record(step, values)

    def progress(self, done: float) -> None:
        """Pass on."""
        self.monitor.progress(done)
