"""Play an agent through the environment, day by day, and keep what happened."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from agents import name_of
from agents.base import Agent, Task
from market import Market, SettingError, measures


class Closing(NamedTuple):
    """A holding that was sold at its last price because it stopped trading."""

    date: pd.Timestamp
    asset: str
    weight: float


class Failure(NamedTuple):
    """A decision that could not be made; what was held stayed as it was."""

    date: pd.Timestamp
    reason: str


class Rollout(NamedTuple):
    """n periods from a decision at `dates[0]` to the last return at `dates[n]`."""

    dates: pd.DatetimeIndex  # (n + 1,) the first decision, then the end of each period
    values: np.ndarray  # (n + 1,) portfolio value, 1 at the start
    targets: np.ndarray  # (n, N) weights held over each period
    held: np.ndarray  # (n, N) drifted weights at its end
    returns: np.ndarray  # (n,) after costs
    costs: np.ndarray  # (n,) fraction of value paid
    turnover: np.ndarray  # (n,)
    rewards: np.ndarray  # (n,)
    terms: dict[str, np.ndarray]  # (n,) each: what the rewards are the sums of
    risk_free: np.ndarray  # (n,)
    binding: dict[str, np.ndarray]  # (n,) bool per constraint: it moved or held back the target
    unmet: np.ndarray  # (n,) bool: some limit could not be met
    closings: tuple[Closing, ...] = ()
    failures: tuple[Failure, ...] = ()


def roll(
    agent: Agent,
    market: Market,
    task: Task,
    *,
    start: Any = None,
    end: Any = None,
    weights: Any = None,
) -> Rollout:
    """Let the agent decide at every close from `start` to the day before `end`.

    Args:
        agent: Asked with `market.upto(t)` (older by the task's decision_lag) and drifted weights.
        market: Data; rows after a decision's date are never shown.
        task: Costs, reward and limits.
        start: Date of the first decision; None: the first with `agent.lookback` rows behind it.
        end: Date of the last return; None: the last of the data.
        weights: Held before the first decision; None: all cash, or equal weights without cash.

    Returns:
        One entry a period: no day between start and end is dropped.

    """
    if end is not None:
        market = market.upto(market.index(end))
    env = task.env(market, lookback=agent.lookback, actions="simplex")
    _, info = env.reset(options={"start": start, "weights": weights})
    first = t = market.index(info["date"])
    steps: list[dict[str, Any]] = []
    closings: list[Closing] = []
    failures: list[Failure] = []
    over = False
    while not over:
        history = market.upto(t - task.decision_lag)
        held = info["weights"].copy()
        target = agent.act(history, held.copy())
        try:
            _, reward, terminated, truncated, info = env.step(target)
        except ValueError as error:
            name = name_of(type(agent))
            raise SettingError(f"{name} on {market.dates[t]:%Y-%m-%d}: {error}") from error
        limits = {
            key: flag or agent.binding.get(key) for key, flag in info.get("binding", {}).items()
        }
        steps.append(info | {"reward": reward, "binding": limits})
        if agent.failed is not None:
            failures.append(Failure(market.dates[t], agent.failed))
        for i in np.flatnonzero(info.get("closed", ())):
            closings.append(Closing(market.dates[t], market.assets[i], float(held[i])))
        over, t = terminated or truncated, t + 1
    collected = {key: np.array([step[key] for step in steps]) for key in _KEPT}
    return Rollout(
        dates=market.dates[first : t + 1],
        values=np.concatenate([[1.0], collected["value"]]),
        targets=collected["target"],
        held=collected["weights"],
        returns=collected["portfolio_return"],
        costs=collected["cost"],
        turnover=collected["turnover"],
        rewards=collected["reward"],
        terms={
            key: np.array([step["reward_terms"][key] for step in steps])
            for key in steps[0]["reward_terms"]
        },
        risk_free=market.risk_free[first + 1 : t + 1],
        binding={
            key: np.array([bool(step["binding"][key]) for step in steps])
            for key in steps[0]["binding"]
        },
        unmet=np.array([step.get("unmet", False) for step in steps]),
        closings=tuple(closings),
        failures=tuple(failures),
    )


def path_metrics(path: Any, periods_per_year: int) -> dict[str, float]:
    """Measures of a path with returns, risk_free, turnover, costs and values; see market.measures.

    Returns:
        Annualised return and volatility, Sharpe ratio over the cash rate, Sortino and Calmar,
        greatest drawdown, daily VaR and CVaR at 5 %, turnover and cost a year, final value.

    """
    annual = {"periods_per_year": periods_per_year}
    figures = {
        "return": measures.annualised_return(path.returns, **annual),
        "volatility": measures.annualised_volatility(path.returns, **annual),
        "sharpe": measures.sharpe_ratio(path.returns, risk_free=path.risk_free, **annual),
        "sortino": measures.sortino_ratio(path.returns, **annual),
        "calmar": measures.calmar_ratio(path.returns, **annual),
        "drawdown": measures.max_drawdown(path.returns),
        "value_at_risk": measures.value_at_risk(path.returns),
        "conditional_value_at_risk": measures.conditional_value_at_risk(path.returns),
        "turnover": path.turnover.mean() * periods_per_year,
        "cost": path.costs.mean() * periods_per_year,
        "final_value": path.values[-1],
    }
    return {key: float(value) for key, value in figures.items()}


def evaluation(path: Rollout, market: Market) -> dict[str, float]:
    """What a learning curve shows of a path: measures, mean weights, mean reward and its terms."""
    values = path_metrics(path, market.periods_per_year)
    for asset, weight in zip(market.assets, path.targets.mean(0), strict=True):
        values[f"weight/{asset}"] = float(weight)
    for term, amounts in path.terms.items():
        values[f"reward/{term}"] = float(amounts.mean())
    return values | {"reward": float(path.rewards.mean())}


_KEPT = ("value", "target", "weights", "portfolio_return", "cost", "turnover", "reward")
