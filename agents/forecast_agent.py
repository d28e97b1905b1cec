"""Agents that predict, then allocate: any forecaster with any rule, under a volatility limit.

    forecast(forecaster=gru, target=rank, horizon=5, rule=top_k(k=3))

Rules know what trading costs: the rates of the task the agent was fitted under, stored with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from agents.base import Agent, Monitor, Task
from agents.forecast_data import joined, n_risky
from agents.forecast_quality import Forecasts, prevailing_mean, quality
from agents.forecast_targets import Target, target_of
from agents.forecasters import FORECASTERS, Forecaster, TextbookLSTM, TextbookLSTMSettings
from agents.outlook import Rates, trading_rates
from agents.response import Response
from agents.rolling import solver_errors
from agents.rollout import evaluation, roll
from agents.rules import RULES, Proportional, Rule, build, limit_volatility
from agents.settings import Space, as_dict, require
from envs.constraints import VolatilityTarget
from market import Market, SettingError
from market.names import parse_call


@dataclass(frozen=True, kw_only=True)
class ForecastSettings:
    """Settings of `forecast`."""

    forecaster: str = "ridge"  # a name of FORECASTERS, with settings: "lstm(width=16)"
    target: Target | None = None  # what it foresees; None: returns, or as the forecaster says
    horizon: int | None = None  # periods ahead; None: 1, or as the forecaster says
    rule: str = "proportional"  # a name of RULES, with settings: "top_k(k=3)"
    volatility: float | None = None  # limit a year; None: no limit
    volatility_window: int = 60  # returns its covariance is estimated from

    def __post_init__(self) -> None:
        require(self, horizon="[1, inf)")
        require(self, volatility="(0, inf)", volatility_window="[2, inf)")


class ForecastAgent(Agent):
    """Forecast what comes, turn it into weights, limit their volatility.

    `forecaster` and `rule` may be given as objects too, and `model` is another word for
    `forecaster`. Where a rule's optimum cannot be found, the holdings stay as they are.

    Attributes:
        horizon: Periods ahead that a forecast reaches.
        failures: Date and reason of each decision whose optimum was not found.

    """

    Settings: ClassVar[type] = ForecastSettings
    space: ClassVar[Space] = {
        "forecaster": ["mean", "ridge", "fnn", "gru"],
        "horizon": [1, 5, 21],
        "rule": ["proportional", "mean_variance", "black_litterman", "top_k", "risk_parity"],
    }
    settings: Any
    learns: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        if "model" in settings:
            if "forecaster" in settings:
                raise SettingError("forecast: model and forecaster are the same; give one")
            settings["forecaster"] = settings.pop("model")
        parts: dict[str, Any] = {
            key: part for key, part in settings.items() if isinstance(part, (Forecaster, Rule))
        }
        super().__init__(**(settings | {key: described(part) for key, part in parts.items()}))
        self.forecaster: Forecaster = parts.get("forecaster") or self._forecaster()
        self.rule: Rule = parts.get("rule") or self._rule()
        limited = self.settings.volatility is not None
        window = self.settings.volatility_window + 1 if limited else 0
        self.lookback = max(self.forecaster.lookback, self.rule.lookback, window)
        self.horizon = self.forecaster.horizon
        self.rates: Rates | None = None
        self.failures: list[tuple[pd.Timestamp, str]] = []

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Fit the forecaster; rules need no fitting, but learn what trading costs."""
        task = task or Task()
        if self.settings.volatility is not None:
            VolatilityTarget(self.settings.volatility).safe_asset(train)
        curves = _LastStep(monitor or Monitor())
        self.rates = trading_rates(task.cost, train)
        self.forecaster.fit(train, valid, seed=seed, monitor=curves)
        if valid is not None and valid.n_periods > self.lookback + task.decision_lag:
            path = roll(self, valid, task)
            values = evaluation(path, valid) | quality(self._validation(train, valid))
            curves.record(curves.last, {f"eval/{key}": value for key, value in values.items()})
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Weights of the rule for the forecast, under the limit."""
        outlook, self.failed = replace(self.forecaster.outlook(history), rates=self.rates), None
        try:
            target = self.rule(outlook, history, weights)
        except solver_errors() as error:
            self.failed = f"{type(error).__name__}: {error}"
            self.failures.append((history.dates[-1], self.failed))
            return weights
        settings = self.settings
        if settings.volatility is None:
            return target
        return limit_volatility(target, history, settings.volatility, settings.volatility_window)

    def forecasts(self, market: Market, start: Any = None, end: Any = None) -> Forecasts:
        """Forecasts at decisions from `start` to `end`, both included, and what came of them.

        The historical mean they are held against is over all earlier rows of the market.
        """
        first = 0 if start is None else market.index(start)
        last = market.n_periods - 1 if end is None else market.index(end)
        return self._forecasts([market], market, 0, range(first, last + 1))

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The forecaster's, for explanations."""
        return self.forecaster.response(history, weights)

    def save(self, folder: Path) -> None:
        """Settings as JSON, and the forecaster's files."""
        super().save(folder)
        rates = None if self.rates is None else {k: v.tolist() for k, v in self._rates().items()}
        (folder / "rates.json").write_text(json.dumps(rates) + "\n")
        self.forecaster.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """An agent of the stored settings with the stored forecaster."""
        agent = cls(**json.loads((folder / "settings.json").read_text()))
        rates = json.loads((folder / "rates.json").read_text())
        if rates is not None:
            agent.rates = Rates(**{key: np.array(value) for key, value in rates.items()})
        agent.forecaster.load(folder)
        return agent

    def _rates(self) -> dict[str, np.ndarray]:
        assert self.rates is not None
        return self.rates._asdict()

    def _validation(self, train: Market, valid: Market) -> Forecasts:
        """Forecasts on validation, held against the mean since the start of training."""
        parts, n_train = joined(train, valid)
        offset = n_train - (valid.n_periods - parts[1].n_periods)  # of valid's first row
        return self._forecasts(parts, valid, offset, range(n_train - 1 - offset, valid.n_periods))

    def _forecasts(
        self, parts: list[Market], market: Market, offset: int, span: range
    ) -> Forecasts:
        """At rows `span` of `market`, whose row 0 is row `offset` of the parts joined."""
        count, model = n_risky(market), self.forecaster
        returns = np.concatenate([part.returns for part in parts])[:, :count]
        tradable = np.concatenate([part.tradable for part in parts])[:, :count]
        targets = target_of(returns, tradable, model.target, model.horizon)
        usual = prevailing_mean(targets, model.horizon)
        rows = np.arange(max(span.start, model.lookback - 1), span.stop)
        known = (targets[rows + offset], model.estimates(market, rows), usual[rows + offset])
        return Forecasts(*known, model.target, model.horizon, market.assets[:count])

    def _forecaster(self) -> Forecaster:
        """The forecaster named, with target and horizon where they are given."""
        asked = {key: getattr(self.settings, key) for key in ("target", "horizon")}
        given = {key: value for key, value in asked.items() if value is not None}
        spec = self.settings.forecaster
        made: Forecaster
        if given and parse_call(spec, words=True)[0] == "textbook_lstm":
            if (given.get("target", "return"), given.get("horizon", 1)) != ("return", 1):
                raise SettingError("textbook_lstm foresees next-day returns alone; use lstm")
            given = {}
        made = build(spec, FORECASTERS, "forecaster", **given)
        return made

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
    space: ClassVar[Space] = {
        "hidden": [32, 64, 128],
        "layers": "1..3",
        "dropout": "0.0..0.4",
        "learning_rate": "1e-4..1e-2 log",
        "batch_size": [8, 32, 128],
        "lookback": [20, 60, 120],
    }

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

    def resume(self) -> Any:
        """Pass on; the step follows from what is recorded after it."""
        return self.monitor.resume()

    def checkpoint(self, state: Callable[[], Any]) -> None:
        """Pass on."""
        self.monitor.checkpoint(state)
