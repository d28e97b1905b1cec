"""`monitor`: is what an agent meets now still what it was trained on and judged by?

    | training ........ | validation ... | new days ...................... |
      features, regimes   the agent's own back-test up to here is what is expected

Each check gives a p-value of "nothing has changed"; an alarm is one below level / checks, so that
a report on unchanged days raises any alarm with about the probability `level`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agents.base import Agent, Task
from agents.rollout import Rollout, roll
from experiments.changes import LEAST, change_points
from experiments.config import ExperimentConfig
from experiments.drift import (
    WindowTest,
    feature_drift,
    feature_table,
    lower_mean_test,
    mean_test,
    volatility_test,
)
from experiments.evaluate import PINNED, check_market, load_agent
from experiments.monitor_notes import notes
from experiments.plan import first_row, make_task, read_market
from experiments.regimes import RegimeModel, market_returns
from experiments.runs import Run
from market import DataError, Market, SettingError
from market.errors import InputError

CHECKS = ("features", "performance", "regimes", "volatility", "turnover", "cost")
LEAST_DAYS = 20


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """How new days are held against the past.

    Attributes:
        start: First new day; the day after validation ended when not given.
        last: Only the last so many new days; all when not given.
        level: Probability of any alarm on days that are no different.
        regimes: Number of market regimes.
        seed: Of shuffles and of the regimes' fit.

    """

    start: str | None = None
    last: int | None = None
    level: float = 0.05
    regimes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise SettingError(f"level must be in (0, 1), got {self.level}")
        if self.last is not None and self.last < LEAST_DAYS:
            raise SettingError(f"last must be at least {LEAST_DAYS}, got {self.last}")
        if not 1 <= self.regimes <= 6:
            raise SettingError(f"regimes must be in [1, 6], got {self.regimes}")


@dataclass(frozen=True)
class Span:
    """A past that is known and days that are new.

    Attributes:
        known: Data the run was made with.
        market: Data that hold the new days; the same where they go on.
        train_start: First day of training.
        train_end: Last day of training.
        known_end: Last day that agent was trained or chosen on.
        first: First new day.

    """

    known: Market
    market: Market
    train_start: pd.Timestamp
    train_end: pd.Timestamp
    known_end: pd.Timestamp
    first: pd.Timestamp

    @property
    def train_row(self) -> int:
        """Row of the first day of training in `known`."""
        return int(self.known.dates.searchsorted(self.train_start))

    def train(self) -> Market:
        """Rows of training."""
        return self.known[self.train_row : self.known.index(self.train_end) + 1]

    def new_rows(self) -> slice:
        """Rows of the new days in `market`."""
        return slice(int(self.market.dates.searchsorted(self.first)), self.market.n_periods)


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        about: Run, spans, level.
        checks: By name of `CHECKS`: p-value, alarm, and what was measured.
        notes: Caveats.

    """

    about: dict[str, Any]
    checks: dict[str, dict[str, Any]]
    notes: list[str]

    @property
    def alarms(self) -> list[str]:
        """Checks that found a change."""
        return [name for name, check in self.checks.items() if check["alarm"]]

    @property
    def status(self) -> int:
        """For a scheduler: 0, or 1 where something asks for attention."""
        return int(bool(self.alarms))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {"status": self.status, "alarms": self.alarms}
        return {**self.about, **found, "checks": self.checks, "notes": self.notes}


def monitor(
    run: Run, config: ExperimentConfig, changes: Mapping[str, Any], settings: MonitorSettings
) -> Report:
    """Hold a run's new days against its past.

    Args:
        run: A finished run with a stored agent.
        config: What it was run with.
        changes: Fields of the data block that differ, such as another file.
        settings: Of the checks.

    Raises:
        InputError: If there are too few new days, or the data do not suit the agent.

    """
    agent, span = load_agent(run, config.agent), read_span(run, config, changes, settings)
    task = make_task(config.task)
    before, after = paths(agent, task, span)
    level, per_year = settings.level / len(CHECKS), span.market.periods_per_year
    rng = np.random.default_rng(settings.seed)
    pairs = {key: (before[key].to_numpy(), after[key].to_numpy()) for key in before}
    found = {
        "features": _features(span, level, rng),
        "performance": _performance(before, after, span, level, rng),
        "regimes": _regimes(span, settings, level, rng),
        "volatility": _window(volatility_test(*pairs["excess"], rng), level, np.sqrt(per_year)),
        "turnover": _window(mean_test(*pairs["turnover"], rng), level, per_year),
        "cost": _window(mean_test(*pairs["cost"], rng), level, per_year),
    }
    about = {
        "run": str(run.path),
        "agent": run.agent,
        "seed": run.seed,
        "training": [f"{span.train_start:%Y-%m-%d}", f"{span.train_end:%Y-%m-%d}"],
        "reference": [f"{before.index[0]:%Y-%m-%d}", f"{before.index[-1]:%Y-%m-%d}", len(before)],
        "new": [f"{after.index[0]:%Y-%m-%d}", f"{after.index[-1]:%Y-%m-%d}", len(after)],
        "level": settings.level,
        "level_of_a_check": level,
    }
    said = notes(
        run,
        span.known,
        span.market,
        chosen=pd.Timestamp(str(config.split.valid_end)),
        first=span.first,
        history=agent.lookback + task.decision_lag,
    )
    return Report(about, found, said)


def read_span(
    run: Run, config: ExperimentConfig, changes: Mapping[str, Any], settings: MonitorSettings
) -> Span:
    """The run's own data, its newer days included, or other data that carry on."""
    other = "source" in changes or "options" in changes
    free: dict[str, Any] = dict.fromkeys(PINNED) if other else {"end": None}
    market = read_market(dataclasses.replace(config.data, **(free | dict(changes))))
    known = _own_market(run, config) if other else market
    for data in (known, market):
        check_market(run, data)
    for key in ("feature_names", "context_names"):
        if getattr(market, key) != getattr(known, key):
            raise DataError(
                f"{market.name}: features must be those of training, {getattr(known, key)}; "
                f"got {getattr(market, key)}"
            )
    known_end = pd.Timestamp(str(config.split.valid_end))
    first = known_end + pd.Timedelta(days=1)
    if settings.start is not None:
        first = as_date("start", settings.start)
    days = market.dates[market.dates >= first]
    if settings.last is not None:
        days = days[-settings.last :]
    if len(days) < LEAST_DAYS:
        raise DataError(
            f"{market.name}: monitor needs {LEAST_DAYS} new days from {first:%Y-%m-%d} on, got "
            f"{len(days)} (the data end on {market.dates[-1]:%Y-%m-%d})"
        )
    end = min(known_end, days[0] - pd.Timedelta(days=1))
    trained = known.dates[first_row(known, config.split)], pd.Timestamp(str(config.split.train_end))
    return Span(known, market, *trained, end, days[0])


def _own_market(run: Run, config: ExperimentConfig) -> Market:
    """The data the run was made with, which other data are held against."""
    try:
        return read_market(config.data)
    except InputError as error:
        raise DataError(f"{run.path}: its own data, which must be at hand: {error}") from error


def as_date(key: str, text: str) -> pd.Timestamp:
    """A setting that is a plain date."""
    try:
        date = pd.Timestamp(text)
    except ValueError:
        raise SettingError(f"{key} must be a date such as 2016-01-04, got {text!r}") from None
    if pd.isna(date) or date.tz is not None:
        raise SettingError(f"{key} must be a date such as 2016-01-04, got {text!r}")
    return date


def paths(agent: Agent, task: Task, span: Span) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The agent's days up to the last known one, and the new ones, carried on where it stood.

    Returns:
        Columns `excess` (return over cash), `turnover` and `cost`, by the date a period ends. The
        very first period, in which the money is invested, is left out.

    """
    task = dataclasses.replace(task, reward="log_return")
    if span.market is span.known:
        days = _days(play(agent, span.market, task, start=_first(agent, task, span)))[1:]
        return days[: span.known_end], days[span.first :]
    before = play(agent, span.known, task, start=_first(agent, task, span), end=span.known_end)
    earliest = agent.lookback - 1 + task.decision_lag
    start = max(span.new_rows().start - 1, earliest)
    if span.market.n_periods - 1 - start < LEAST_DAYS:
        raise DataError(
            f"{span.market.name}: the agent needs {earliest + 1} days of history before "
            f"{LEAST_DAYS} new days, got {span.market.n_periods} days in all"
        )
    after = play(agent, span.market, task, start=start, weights=before.held[-1])
    return _days(before)[1:], _days(after)


def _first(agent: Agent, task: Task, span: Span) -> int:
    """Row of the first decision of the past: the first of training that has its history."""
    return span.train_row + agent.lookback - 1 + task.decision_lag


def _days(path: Rollout) -> pd.DataFrame:
    columns = {"excess": path.returns - path.risk_free, "turnover": path.turnover}
    return pd.DataFrame(columns | {"cost": path.costs}, path.dates[1:])


def play(agent: Agent, market: Market, task: Task, **limits: Any) -> Rollout:
    """`roll`, by an agent that may read the whole market at once where it can."""
    reading = getattr(agent, "reading", None)
    with reading(market) if reading is not None else nullcontext():
        return roll(agent, market, task, **limits)


def _features(span: Span, level: float, rng: np.random.Generator) -> dict[str, Any]:
    train, new = feature_table(span.train()), feature_table(span.market[span.new_rows()])
    table = feature_drift(train, new, rng)
    table = table.sort_values(["p_adjusted", "statistic"], ascending=[True, False])
    rows = [{"feature": str(name), **row} for name, row in table.to_dict("index").items()]
    drifted = [row["feature"] for row in rows if row["p_adjusted"] <= level]
    p_value = float(table["p_adjusted"].min())
    return {"p_value": p_value, "alarm": p_value <= level, "drifted": drifted, "features": rows}


def _performance(
    before: pd.DataFrame,
    after: pd.DataFrame,
    span: Span,
    level: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Change points of returns over cash, from the first day after training on."""
    days = pd.concat([before["excess"][before.index > span.train_end], after["excess"]])
    returns, dates = days.to_numpy(), pd.DatetimeIndex(days.index)
    found = change_points(returns, rng, level)
    per_year = span.market.periods_per_year
    edges = [0, *found.rows, len(returns)]
    stretches = [
        {
            "from": f"{dates[a]:%Y-%m-%d}",
            "to": f"{dates[b - 1]:%Y-%m-%d}",
            "return": float(returns[a:b].mean() * per_year),
            "volatility": float(returns[a:b].std() * np.sqrt(per_year)),
        }
        for a, b in itertools.pairwise(edges)
    ]
    is_new = found.best > len(returns) - len(after) - LEAST  # where it was is not known to the day
    return {
        "p_value": found.p_value,
        "alarm": bool(found.p_value <= level and is_new),
        "likeliest": f"{dates[found.best]:%Y-%m-%d}",
        "stretches": stretches,
    }


def _regimes(
    span: Span, settings: MonitorSettings, level: float, rng: np.random.Generator
) -> dict[str, Any]:
    """How likely each regime is, and whether the new days fit any of them."""
    train, rows = market_returns(span.train())[1:], span.new_rows()
    model = RegimeModel.fit(train, settings.regimes, settings.seed)
    whole = market_returns(span.market)
    joined = whole[1:] if span.market is span.known else np.concatenate([train, whole[rows]])
    probabilities, density = model.filter(joined)
    n_new = rows.stop - rows.start
    past, new = slice(0, len(train)), slice(len(joined) - n_new, len(joined))
    test = lower_mean_test(density[past], density[new], rng)
    return {
        **_window(test, level),
        "names": list(model.names),
        "training": probabilities[past].mean(axis=0).tolist(),
        "new": probabilities[new].mean(axis=0).tolist(),
        "last_day": probabilities[-1].tolist(),
        "volatility": (model.deviations / 100 * np.sqrt(span.market.periods_per_year)).tolist(),
    }


def _window(test: WindowTest, level: float, factor: float = 1.0) -> dict[str, Any]:
    """A test's numbers, a year where a factor says how many periods that is."""
    measured = {key: factor * value for key, value in test._asdict().items() if key != "p_value"}
    return {"p_value": test.p_value, "alarm": bool(test.p_value <= level), **measured}
