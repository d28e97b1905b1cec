"""Permutation importance: what an agent loses when a group of inputs no longer fits the day.

The rows of a group are moved about in blocks, so that within a block everything looks as it always
does and only the day is wrong; then the agent is played again on the true market. What falls is how
much the group was worth to it; how far its weights move is how much it listens.

    | a b c d e f |  ->  | d a f c b e |          blocks of days of the group; all else stays

Source: Breiman, Random forests (2001), with blocks for dependence in time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.base import Agent, Task
from agents.rollout import Rollout, path_metrics, roll
from experiments.monitor import play
from market import Market, SettingError
from market.market import PANELS, simple_returns

PRICES = "past returns"
BLOCK = 21


@dataclass(frozen=True)
class Importance:
    """Of one group, over repeats.

    Attributes:
        group: Its name.
        members: The features in it.
        sharpe: Sharpe ratio lost, (repeats,).
        reward: Mean reward a period lost, (repeats,).
        moved: Mean half L1 distance between the weights asked for, (repeats,).

    """

    group: str
    members: tuple[str, ...]
    sharpe: np.ndarray
    reward: np.ndarray
    moved: np.ndarray

    def plain(self) -> dict[str, Any]:
        """Means and standard errors."""
        kept: dict[str, Any] = {"group": self.group, "members": list(self.members)}
        for key in ("sharpe", "reward", "moved"):
            values = getattr(self, key)
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            kept |= {key: float(values.mean()), f"{key}_error": float(error)}
        return kept


def feature_groups(market: Market) -> dict[str, tuple[str, ...]]:
    """Features by the name before their parameters, each context feature by itself, past returns.

    "return", "return(5)" and "return(20)" are one group; past returns are what agents read that
    look at prices rather than features.
    """
    groups: dict[str, list[str]] = {}
    for name in market.feature_names:
        groups.setdefault(name.partition("(")[0], []).append(name)
    for name in market.context_names:
        groups.setdefault(name, []).append(name)
    if np.isfinite(market.prices).all():
        groups[PRICES] = []
    return {group: tuple(members) for group, members in groups.items()}


def permutation_importance(
    agent: Agent,
    market: Market,
    task: Task,
    rng: np.random.Generator,
    *,
    start: Any = None,
    repeats: int = 5,
    block: int = BLOCK,
    progress: Callable[[float], None] = lambda done: None,
) -> list[Importance]:
    """Play the agent with each group of inputs shuffled in time.

    The group whose loss costs most is first; those that move no weight are last.

    Args:
        agent: Fitted.
        market: History and the days to play, which are shuffled among themselves.
        task: Rules; `reward` is measured too.
        rng: Of the shuffles.
        start: Date of the first decision.
        repeats: Shuffles of each group.
        block: Rows that stay together.
        progress: Told the fraction done.

    Raises:
        SettingError: If there are fewer than two blocks.

    """
    base = play(agent, market, task, start=start)
    first = max(0, market.index(base.dates[0]) - agent.lookback + 1)
    if repeats < 1 or block < 1 or (market.n_periods - first) < 2 * block:
        raise SettingError(
            f"importance: needs repeats >= 1 and two blocks, got {repeats} repeats and blocks of "
            f"{block} in {market.n_periods - first} days"
        )
    groups, found = feature_groups(market), []
    for number, (group, members) in enumerate(groups.items()):
        made = []
        for repeat in range(repeats):
            rows = shuffled_rows(market.n_periods, first, block, rng)
            seen = _seen(market, group, members, rows)
            made.append(_loss(agent, market, seen, task, base))
            progress((number + (repeat + 1) / repeats) / len(groups))
        found.append(Importance(group, members, *np.array(made).T))
    return sorted(found, key=_rank)


def _rank(found: Importance) -> tuple[bool, float]:
    """The most Sharpe ratio lost first; what moves no weight last."""
    return not found.moved.any(), -float(np.nan_to_num(found.sharpe.mean()))


def shuffled_rows(total: int, first: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers with blocks from row `first` on in random order, cut at a random place, (T,)."""
    rows = np.arange(first, total)
    cuts = np.arange(int(rng.integers(1, block + 1)), len(rows), block)
    blocks = np.split(rows, cuts)
    order = rng.permutation(len(blocks))
    return np.concatenate([np.arange(first), *(blocks[i] for i in order)])


def _seen(market: Market, group: str, members: tuple[str, ...], rows: np.ndarray) -> Market:
    """The market as the agent is shown it: the group's rows in another order."""
    if group == PRICES and not members:
        returns = market.returns[rows]
        prices = market.prices[0] * np.cumprod(np.vstack([returns[:1] * 0, returns[1:]]) + 1.0, 0)
        changed: dict[str, Any] = {key: None for key in PANELS if key != "volume"}
        changed |= {"prices": prices, "returns": simple_returns(prices)}
        return dataclasses.replace(market, **changed)
    features, context = np.array(market.features), np.array(market.context)
    for place, name in enumerate(market.feature_names):
        if name in members:
            features[:, :, place] = market.features[rows, :, place]
    for place, name in enumerate(market.context_names):
        if name in members:
            context[:, place] = market.context[rows, place]
    return market.with_values(features, context)


class _Misled(Agent):
    """The agent, shown another market than the one it is played on."""

    def __init__(self, agent: Agent, seen: Market) -> None:
        self.agent, self.seen, self.lookback = agent, seen, agent.lookback

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        return self.agent.act(self.seen.upto(history.n_periods - 1), weights)


def _loss(
    agent: Agent, market: Market, seen: Market, task: Task, base: Rollout
) -> tuple[float, float, float]:
    reading = getattr(agent, "reading", None)
    misled, start = _Misled(agent, seen), base.dates[0]
    if reading is None:
        path = roll(misled, market, task, start=start)
    else:
        with reading(seen):
            path = roll(misled, market, task, start=start)
    before, after = (path_metrics(each, market.periods_per_year)["sharpe"] for each in (base, path))
    moved = 0.5 * np.abs(path.targets - base.targets).sum(axis=1).mean()
    return before - after, float(base.rewards.mean() - path.rewards.mean()), float(moved)
