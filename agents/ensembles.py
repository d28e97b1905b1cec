"""Ensembles: agents whose weights are a mean of other agents' weights.

    ensemble(members=[equal_weight, risk_parity, ppo(steps=1000)], weighting=validation)

A share of the money follows each member, which decides as if it were alone (`Books`); what is
traded is the mean of their targets. Where no member trades and the shares stay, only what the
members have drifted apart would be traded, and that waits until it is worth it (`band`).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from agents import name_of
from agents.base import Agent, Monitor, Task
from agents.ensembles_members import (
    SPANS,
    Books,
    Member,
    Pool,
    load_members,
    period_starts,
    read_members,
    save_members,
)
from agents.growing import continues
from agents.outlook import Rates, trading_rates
from agents.response import NoNetwork, Part, Response, blend
from agents.rollout import evaluation, roll
from agents.schedule import start_weights
from agents.settings import Space, require
from envs.costs import ProportionalCost
from market import Market, SettingError, measures

Period = Literal["week", "month", "quarter", "year"]


@dataclass(frozen=True, kw_only=True)
class MembersSettings:
    """What all ensembles have in common."""

    members: str = "equal_weight, risk_parity, mean_variance"  # agents with their settings
    period: Period = "quarter"  # members' own portfolios are replayed from the one before the last
    band: float = 0.02  # turnover that is not traded while no member trades and no share changes

    def __post_init__(self) -> None:
        require(self, band="[0, 1]")


class EnsembleAgent(Agent):
    """A mean of members; a subclass says how much of the money follows each.

    `members` may be given as a list of texts or of agents, too.

    Attributes:
        joins: Draws on agents that may be trained by then; experiments run it last.
        members: Fitted after `fit`.

    """

    Settings: ClassVar[type] = MembersSettings
    learns: ClassVar[bool] = True
    joins: ClassVar[bool] = True
    settings: Any

    def __init__(self, members: str | Sequence[str | Agent] | None = None, **settings: Any) -> None:
        given = self.Settings().members if members is None else members
        self.members: list[Member] = read_members(given)
        text = ", ".join(member.text for member in self.members)
        super().__init__(**settings, members=text)
        self.rates: Rates | None = None
        self._ready(self.members)

    def _ready(self, members: list[Member]) -> None:
        """Take members in; their portfolios start anew."""
        self.members = members
        self.books = Books(members, self.settings.period)
        rows = self.books.lookback + 2 * SPANS[self.settings.period]
        self.lookback = 1 + self.rows_of_shares(rows)  # the row before tells whether shares stay

    def rows_of_shares(self, rows: int) -> int:
        """Rows of history that the shares need, where the members' portfolios need so many."""
        return rows

    @abstractmethod
    def shares(self, history: Market) -> np.ndarray:
        """How much of the money follows each member, non-negative, of sum 1, (M,)."""

    def learn(self, pool: Pool) -> None:
        """What there is to learn once all members are trained."""

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Train every member once, then learn the shares."""
        monitor, task = monitor or Monitor(), task or Task()
        self.join(Pool(train, valid, task, seed, monitor))
        if valid is not None and valid.n_periods > self.lookback + task.decision_lag + 1:
            values = evaluation(roll(self, valid, task), valid)
            monitor.record(0, {f"eval/{key}": value for key, value in values.items()})
        return self

    def join(self, pool: Pool) -> Self:
        """Take part in a training: members that others trained there are not trained again."""
        self._ready(pool.trained(self.members))
        self.rates = trading_rates(pool.task.cost, pool.train)
        self.learn(pool)
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The mean of the members' targets; what is held where neither they nor shares move."""
        page, shares = self.books.at(history), self.shares(history)
        self.failed = "; ".join(page.failed) or None
        target = np.maximum(shares @ page.targets, 0.0)
        target /= target.sum()
        near = 0.5 * np.abs(target - weights).sum() <= self.settings.band
        invested = not np.allclose(weights, start_weights(history), rtol=0.0, atol=1e-12)
        if near and invested and page.rests and self._stay(shares, history):
            return weights
        return target

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The mean of the members' answers; shares and what members hold are kept as they are.

        Members that answer with weights, and the targets of all others as a constant; without any,
        the mean of those that answer with forecasts, else of those with values.

        Raises:
            NoNetwork: If no member has one.

        """
        page, shares = self.books.at(history), self.shares(history)
        shown: dict[int, Part] = {}
        for i, (member, held) in enumerate(zip(self.members, page.held, strict=True)):
            if (found := _response(member.agent, history, held)) is not None:
                shown[i] = Part(member.name, float(shares[i]), found)
        for meanings in (("weight", "proposal"), ("forecast",), ("value",)):
            parts = {i: part for i, part in shown.items() if part.response.meaning in meanings}
            if parts:
                break
        else:
            raise NoNetwork(f"{name_of(type(self))}: no member has a network")
        others = [i for i in range(len(shares)) if i not in parts]
        names = [self.members[i].name for i in others]
        if "weight" in meanings:
            rest = shares[others] @ page.targets[others]
            return blend(list(parts.values()), rest, weights, names)
        total = sum(part.share for part in parts.values()) or 1.0
        mean = [part._replace(share=part.share / total) for part in parts.values()]
        return blend(mean, np.zeros(len(weights)), weights, names)

    def _stay(self, shares: np.ndarray, history: Market) -> bool:
        """Whether the shares are those of the row before."""
        if history.n_periods < self.lookback:
            return False
        return bool(np.abs(shares - self.shares(history.upto(history.n_periods - 2))).max() < 1e-12)

    def state(self) -> dict[str, Any]:
        """What was learned beside the members, as JSON has it."""
        rates = None if self.rates is None else [side.tolist() for side in self.rates]
        return {"rates": rates}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        if state["rates"] is not None:
            self.rates = Rates(*map(np.array, state["rates"]))

    def save(self, folder: Path) -> None:
        """Settings and what was learned as JSON, and a folder for each member."""
        super().save(folder)
        (folder / "state.json").write_text(json.dumps(self.state(), indent=1) + "\n")
        save_members(self.members, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The ensemble with its members."""
        agent = super().load(folder)
        agent._ready(load_members(agent.members, folder))
        agent.restore(json.loads((folder / "state.json").read_text()))
        return agent


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings(MembersSettings):
    """Settings of `ensemble`."""

    weighting: Literal["mean", "validation", "best"] = "mean"  # of the members
    window: int = 63  # days before a period by which "best" chooses the member it is left to

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, window="[5, inf)")


class Ensemble(EnsembleAgent):
    """Shares by a rule: equal, by validation, or all to whoever was best of late.

    - "mean": 1/M each.
    - "validation": in proportion to the Sharpe ratio on validation, none where it is negative;
      equal where none is positive.
    - "best": each calendar period is left to the member with the best Sharpe ratio, after costs
      but before limits, over the `window` days before it; of equals the first.

    Source: DeMiguel, Garlappi & Uppal, Optimal versus naive diversification (2009), for the mean;
    Yang, Liu, Zhong & Walid, Deep reinforcement learning for automated stock trading: an ensemble
    strategy (2020), for the best of each quarter.
    """

    Settings: ClassVar[type] = EnsembleSettings
    space: ClassVar[Space] = {
        "period": ["week", "month", "quarter"],
        "weighting": ["mean", "validation", "best"],
    }
    settings: EnsembleSettings

    def __init__(self, members: str | Sequence[str | Agent] | None = None, **settings: Any) -> None:
        super().__init__(members, **settings)
        self.fixed = np.full(len(self.members), 1.0 / len(self.members))
        self._chosen: tuple[np.ndarray, int, np.ndarray] | None = None

    def rows_of_shares(self, rows: int) -> int:
        """And the days before that "best" judges by."""
        return rows + (self.settings.window if self.settings.weighting == "best" else 0)

    def shares(self, history: Market) -> np.ndarray:
        """Those of `fit`, or all to one member."""
        if self.settings.weighting != "best":
            return self.fixed
        starts = period_starts(history, self.settings.period)
        row = max(int(starts[-1]) if len(starts) else 0, self._earliest(history))
        chosen = self._chosen
        if chosen is not None and chosen[1] == row and continues(chosen[0], history.returns):
            return chosen[2]
        scores = [self._score(member, history.upto(row)) for member in self.members]
        shares = np.eye(len(scores))[int(np.argmax(scores))]
        self._chosen = (history.returns[: row + 1], row, shares)
        return shares

    def learn(self, pool: Pool) -> None:
        """The shares by validation."""
        if self.settings.weighting == "validation":
            ratios = [sharpe(pool.path(member)) for member in self.members]
            self.fixed = positive_shares(np.array(ratios))

    def state(self) -> dict[str, Any]:
        """With the shares."""
        return super().state() | {"shares": self.fixed.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """With the shares."""
        super().restore(state)
        self.fixed = np.array(state["shares"])

    def _earliest(self, history: Market) -> int:
        """The first row with days enough behind it to choose by."""
        return min(self.books.lookback - 1 + self.settings.window, history.n_periods - 1)

    def _score(self, member: Member, history: Market) -> float:
        """Sharpe ratio of a member's path over the last `window` days of a history."""
        row = history.n_periods - 1 - self.settings.window
        if row < member.agent.lookback - 1:
            raise SettingError(
                f"ensemble: choosing needs {self.lookback} rows, got {history.n_periods}"
            )
        task = Task(cost=self._cost(history))
        return sharpe(roll(member.agent, history, task, start=history.dates[row]))

    def _cost(self, market: Market) -> ProportionalCost | None:
        """The task's costs as rates by asset."""
        if self.rates is None:
            return None
        risky = market.assets[: market.n_assets - market.has_cash]
        sides = [dict(zip(risky, side.tolist(), strict=False)) for side in self.rates]
        return ProportionalCost(*sides)


def _response(agent: Agent, history: Market, held: np.ndarray) -> Response | None:
    """What an agent's network answers, where it has one."""
    asked = getattr(agent, "response", None)
    if asked is None:
        return None
    try:
        found: Response = asked(history, held)
    except NoNetwork:
        return None
    return found


def sharpe(path: Any) -> float:
    """Sharpe ratio a period of a path; 0 where nothing moves."""
    ratio = float(measures.sharpe_ratio(path.returns, risk_free=path.risk_free, periods_per_year=1))
    return ratio if np.isfinite(ratio) else 0.0


def positive_shares(scores: np.ndarray) -> np.ndarray:
    """Scores (M,) as shares: in proportion where positive; equal where none is."""
    positive = np.maximum(scores, 0.0)
    total = positive.sum()
    return positive / total if total > 0.0 else np.full(len(scores), 1.0 / len(scores))
