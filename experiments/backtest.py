"""`backtest`: one portfolio path under the environment's rules, with its measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agents.base import Agent, Constant, Task
from agents.rollout import Closing, Failure, Rollout, path_metrics, roll
from envs.costs import Cost
from market import Market, SettingError


@dataclass(frozen=True)
class Backtest:
    """What a portfolio did from the close of `dates[0]` to `dates[n]`.

    Attributes:
        dates: The first decision, then the end of each period, (n + 1,).
        values: Portfolio value, 1 at the start, (n + 1,).
        weights: Weights held over each period, (n, N).
        held: Drifted weights at the end of each period, (n, N).
        returns: Simple returns after costs, (n,).
        costs: Fractions of value paid, (n,).
        turnover: Half the L1 norm of risky trades, (n,).
        risk_free: What cash earned, (n,).
        assets: Names, (N,).
        periods_per_year: For annualised measures.
        binding: For each constraint, whether it moved or held back the target, (n,).
        unmet: Whether a limit could not be met, (n,).
        closings: Holdings sold at their last price because they stopped trading.
        asset_returns: What each asset returned over the period, (n, N); None where not known.

    """

    dates: pd.DatetimeIndex
    values: np.ndarray
    weights: np.ndarray
    held: np.ndarray
    returns: np.ndarray
    costs: np.ndarray
    turnover: np.ndarray
    risk_free: np.ndarray
    assets: tuple[str, ...]
    periods_per_year: int
    binding: Mapping[str, np.ndarray]
    unmet: np.ndarray
    closings: tuple[Closing, ...] = ()
    failures: tuple[Failure, ...] = ()
    asset_returns: np.ndarray | None = None

    @classmethod
    def of(cls, path: Rollout, market: Market) -> Backtest:
        """A back-test of a path that was played on `market`."""
        kept: dict[str, Any] = path._asdict()
        del kept["rewards"], kept["terms"]
        kept["weights"] = kept.pop("targets")
        kept["asset_returns"] = market.returns[market.index(path.dates[0]) + 1 :][: len(path.costs)]
        return cls(**kept, assets=market.assets, periods_per_year=market.periods_per_year)

    def metrics(self) -> dict[str, float]:
        """Measures of the path; annualised with `periods_per_year`, Sharpe over the cash rate."""
        return path_metrics(self, self.periods_per_year)

    def frame(self) -> pd.DataFrame:
        """One row a period, indexed by the date of its end; written as `backtest.parquet`."""
        columns = {
            "value": self.values[1:],
            "portfolio_return": self.returns,
            "cost": self.costs,
            "turnover": self.turnover,
            "risk_free": self.risk_free,
        }
        columns |= {f"target:{a}": self.weights[:, i] for i, a in enumerate(self.assets)}
        columns |= {f"held:{a}": self.held[:, i] for i, a in enumerate(self.assets)}
        if self.asset_returns is not None:
            columns |= {f"return:{a}": self.asset_returns[:, i] for i, a in enumerate(self.assets)}
        columns |= {f"binding:{key}": value for key, value in self.binding.items()}
        if self.binding:
            columns["unmet"] = self.unmet
        return pd.DataFrame(columns, index=pd.DatetimeIndex(self.dates[1:], name="date"))


def backtest(
    agent: Agent | Callable[[Market, np.ndarray], Any] | Mapping[str, float] | Sequence[float],
    market: Market,
    *,
    cost: Cost | None = None,
    constraints: Sequence[Any] = (),
    start: Any = None,
    end: Any = None,
    weights: Any = None,
    decision_lag: int = 0,
    fill: str = "close",
    rebalance_every: int = 1,
    band: float = 0.0,
) -> Backtest:
    """Play an agent, a function or constant weights through a market.

    Args:
        agent: A fitted `Agent`; a function of (history, weights); or constant target weights,
            (N,) or by asset name, rebalanced every period.
        market: The data; decisions see only rows up to their own date.
        cost: What trading costs; None: nothing.
        constraints: Limits every target is put under.
        start: Date of the first decision, at whose close the money is invested; None: the first
            date the agent can decide on.
        end: Date of the last return; None: the end of the data.
        weights: What is held before the first decision; None: all cash, equal weights without cash.
        decision_lag: Days by which what the agent sees is older than its trade.
        fill: "close" or "next_open".
        rebalance_every: Trade on every k-th decision only; between them the portfolio drifts.
        band: Trade only where the target's turnover from the drifted weights is above this.

    Returns:
        The path: n returns from `start` to `end`, none dropped, and its measures.

    """
    if start is not None and end is not None and market.index(start) >= market.index(end):
        raise SettingError(f"start {start!r} must be before end {end!r}, to earn a return")
    task = Task(
        cost=cost,
        constraints=tuple(constraints),
        decision_lag=decision_lag,
        fill=fill,
        rebalance_every=rebalance_every,
        band=band,
    )
    path = roll(as_agent(agent, market), market, task, start=start, end=end, weights=weights)
    return Backtest.of(path, market)


def as_agent(given: Any, market: Market) -> Agent:
    """The agent itself, or one made of a function or of constant weights."""
    if isinstance(given, Agent):
        return given
    if callable(given):
        return _Function(given)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(market.assets))
        if unknown:
            raise SettingError(f"weights: unknown asset {unknown[0]!r}; assets are {market.assets}")
    return Constant(given)


class _Function(Agent):
    """A plain function of (history, weights)."""

    def __init__(self, function: Callable[[Market, np.ndarray], Any]) -> None:
        self.function = function

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """What the function says."""
        return np.asarray(self.function(history, weights), np.float64)
