"""Members of an ensemble: read from text, trained once and shared, replayed by themselves, stored.

    members="equal_weight, risk_parity, ppo(steps=1000)"      any agents, also other ensembles

In a text words need no quotes. Two ensembles that name the same member (same agent, same settings)
in one training share it, and one that finished in the same experiment is taken from there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents import AGENTS
from agents.base import Agent, Monitor, Task
from agents.growing import continues
from agents.kept_parts import Parts
from agents.rollout import Rollout, roll
from agents.schedule import start_weights
from agents.settings import as_dict
from market import Market, SettingError
from market.names import parse_call
from market.plugin import load_plugin, only_plugins, references_in

SPANS = {"week": 6, "month": 24, "quarter": 68, "year": 266}  # most trading days there are in one
CODES = {"week": "W", "month": "M", "quarter": "Q", "year": "Y"}


class Member(NamedTuple):
    """An agent, the name of its class, and the text it was read from."""

    text: str
    name: str
    agent: Agent

    @property
    def key(self) -> str:
        """The same for members that are trained alike."""
        return json.dumps([self.name, as_dict(self.agent.settings)], sort_keys=True)


def read_members(given: str | Sequence[str | Agent]) -> list[Member]:
    """Members from "a, b(c=1)", from a list of such texts, or from agents.

    Raises:
        SettingError: If there is none, one is unknown or has wrong settings, or was shown the
            future.

    """
    parts = split(given) if isinstance(given, str) else list(given)
    members = [_member(part) for part in parts]
    if not members:
        raise SettingError("members: needs at least 1 agent, got none")
    for member in members:
        if member.agent.hindsight:
            raise SettingError(f"members: {member.name} is shown the future; it cannot be one")
    return members


def split(text: str) -> list[str]:
    """The items between commas outside brackets and quotes."""
    items, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quote:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def _member(given: str | Agent) -> Member:
    if isinstance(given, Agent):
        name = AGENTS.name_of(type(given))
        return Member(_text(name, given), name, given)
    name, bracket, rest = given.partition("(")
    name, settings = name.strip(), dict[str, Any]()
    if bracket:
        _, positional, settings = parse_call(f"member({rest}", words=True)
        if positional:
            raise SettingError(f"member {given!r}: write settings by name, as {name}(key=value)")
    kind = load_plugin(name, "agent") if ":" in name else AGENTS[name]
    if not isinstance(kind, type) or not issubclass(kind, Agent):
        raise SettingError(f"member `{name}` must be a subclass of agents.base.Agent")
    return Member(given, name, kind(**settings))


def _text(name: str, agent: Agent) -> str:
    """The text that builds the agent again: what differs from the defaults."""
    usual = {entry.name: entry.default for entry in dataclasses.fields(type(agent).Settings)}
    settings = as_dict(agent.settings)
    given = [f"{key}={value!r}" for key, value in settings.items() if value != usual[key]]
    return f"{name}({', '.join(given)})" if given else name


class Pool:
    """One training, in which every member is trained once, however many ensembles name it.

    Args:
        train: The past to learn from.
        valid: Later data, or None.
        task: The rules.
        seed: Of every member.
        monitor: Told of progress; asked for members that are trained already. It may go on with a
            training that was cut off: members that were done then are as they were.

    """

    def __init__(
        self, train: Market, valid: Market | None, task: Task, seed: int, monitor: Monitor
    ) -> None:
        self.train, self.valid, self.task = train, valid, task
        self.seed, self.monitor, self.parts = seed, monitor, Parts(monitor)
        self._trained: dict[str, Agent] = {}
        self._paths: dict[str, Rollout] = {}

    def trained(self, members: Sequence[Member]) -> list[Member]:
        """The members, fitted; ensembles among them draw on this pool, too."""
        fitted = []
        for i, member in enumerate(members):
            if member.key not in self._trained:
                self._trained[member.key] = self._train(member, i, len(members))
            fitted.append(member._replace(agent=self._trained[member.key]))
        self.monitor.progress(1.0)
        return fitted

    def _train(self, member: Member, place: int, count: int) -> Agent:
        join: Callable[[Pool], Agent] | None = getattr(member.agent, "join", None)
        if join is not None:
            return join(self)
        with self.parts.unpacked(member.key) as folder:
            if folder is not None:
                with only_plugins(references_in(member.key)):
                    return type(member.agent).load(folder)
        known = None
        if not self.parts.under_way(member.key):
            known = self.monitor.trained(member.name, as_dict(member.agent.settings))
        if known is None:
            valid = None if self.valid is None else self.rows(member.agent)
            part = self.parts.part(member.key, f"member/{member.name}", place, count)
            known = member.agent.fit(
                self.train, valid, task=self.task, seed=self.seed, monitor=part
            )
        self.parts.done(member.key, known.save)
        return known

    def rows(self, agent: Agent) -> Market:
        """Validation with no more history in front than the agent's first decision needs."""
        assert self.valid is not None
        before = int((self.valid.dates <= self.train.dates[-1]).sum())
        return self.valid[max(0, before - agent.lookback - self.task.decision_lag) :]

    def path(self, member: Member) -> Rollout:
        """What a trained member does on validation.

        Raises:
            SettingError: If there is no validation, or it is too short for a decision.

        """
        needed = member.agent.lookback + self.task.decision_lag
        if self.valid is None or self.rows(member.agent).n_periods <= needed + 1:
            count = 0 if self.valid is None else self.valid.n_periods
            raise SettingError(
                f"ensemble: judging {member.text} on validation needs more than {needed + 1} rows "
                f"of it, history included, got {count}"
            )
        if member.key not in self._paths:
            self._paths[member.key] = roll(member.agent, self.rows(member.agent), self.task)
        return self._paths[member.key]


class Page(NamedTuple):
    """What members do on a row, each with its own portfolio."""

    held: np.ndarray  # (M, N) before the decision
    targets: np.ndarray  # (M, N)
    failed: tuple[str, ...]  # why decisions could not be made

    @property
    def rests(self) -> bool:
        """Whether no member trades."""
        return bool(np.abs(self.targets - self.held).max() <= 1e-12)


class _Run(NamedTuple):
    """How far members have been replayed."""

    returns: np.ndarray  # rows read; kept so that their memory stays theirs
    first: int
    page: Page


class Books:
    """Each member's own portfolio, replayed from the start of the calendar period before the last.

    A member that rebalances monthly holds what it chose this month, drifted, whatever the ensemble
    holds. Replaying from a date of the calendar makes that a function of the history alone; what
    never trades is bought anew at the start of each replay. Rows that follow each other in the same
    market cost one decision a member.

    Args:
        members: Fitted.
        period: "week", "month", "quarter" or "year": no shorter than members take to rebalance.

    """

    def __init__(self, members: Sequence[Member], period: str) -> None:
        self.members, self.period = list(members), period
        self.lookback = max(member.agent.lookback for member in members)
        self._run: _Run | None = None

    def at(self, history: Market) -> Page:
        """The page of the last row."""
        now, first = history.n_periods - 1, self._first(history)
        run = self._run
        if run is not None and run.first == first and continues(run.returns, history.returns):
            page, done = run.page, len(run.returns) - 1
        else:
            held = np.tile(start_weights(history.upto(first)), (len(self.members), 1))
            page, done = self._decided(history.upto(first), held), first
        for row in range(done + 1, now + 1):
            grown = page.targets * (1.0 + history.returns[row])
            page = self._decided(history.upto(row), grown / grown.sum(axis=1, keepdims=True))
        self._run = _Run(history.returns, first, page)
        return page

    def _decided(self, history: Market, held: np.ndarray) -> Page:
        targets, failed = np.empty_like(held), []
        for i, member in enumerate(self.members):
            targets[i] = member.agent.act(history, held[i].copy())
            if member.agent.failed is not None:
                failed.append(f"{member.name}: {member.agent.failed}")
        return Page(held, targets, tuple(failed))

    def _first(self, history: Market) -> int:
        """Row of the start of the period before the current one."""
        earliest = min(self.lookback, history.n_periods) - 1
        starts = period_starts(history, self.period)
        return max(earliest, int(starts[-2]) if len(starts) > 1 else 0)


def period_starts(history: Market, period: str) -> np.ndarray:
    """Rows of the first days of the latest calendar periods, at least two where the data reach."""
    begin = max(0, history.n_periods - 2 * SPANS[period] - 1)
    codes = history.dates[begin:].to_period(CODES[period])
    return begin + 1 + np.flatnonzero(codes[1:] != codes[:-1])


def save_members(members: Sequence[Member], folder: Path) -> None:
    """Each in a folder of its own."""
    for i, member in enumerate(members):
        own = folder / f"member_{i}"
        own.mkdir()
        member.agent.save(own)


def load_members(members: Sequence[Member], folder: Path) -> list[Member]:
    """The members as `save_members` stored them."""
    return [
        member._replace(agent=type(member.agent).load(folder / f"member_{i}"))
        for i, member in enumerate(members)
    ]
