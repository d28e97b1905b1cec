"""Paths of a policy through the differentiable simulator: many segments of time, side by side.

    segment b:  held[start] --decide--> target --limits--> envs.simulator.step --> held[start + 1]

All that depends on time alone is gathered once per call; the loop over the steps of a segment then
only reads. Costs are those of the task, exactly, with their gradient. A segment starts at value 1
and without drawdown, which costs that depend on value and limits on drawdown see.

Constraints act as in the environment. They are computed in numpy, so that their gradient is taken
straight through: what a limit did to a target is added to it as a constant. That alone would say
nothing of how to use the room beside a limit, so `violation` of the unlimited target is returned to
be penalised. Overlays on risk have no such penalty.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.band_path import band_path
from agents.band_policy import BandPolicy, Plan
from agents.base import Task
from agents.device import to_host
from envs.costs import ProportionalRates
from envs.simulator import Row, State, Transition, drift, step
from market import Market


class Played(NamedTuple):
    """What segments gave: S steps of B segments."""

    returns: Tensor  # (S, B) after costs
    mu: Tensor  # (S, B) fraction of value left by costs
    risk_free: Tensor  # (S, B)
    turnover: Tensor  # (S, B)
    held: Tensor  # (S + 1, B, N) weights before each trade, and after the last period; no gradient
    violation: Tensor  # (S, B) of limits on weights, before they were imposed
    imbalance: Tensor  # (S, B) squared distance of the proposal from equal weights
    band: Tensor  # (S, B) mean distance between the edges of the band


class SimulatedMarket:
    """A market under a task's rules, as tensors.

    Args:
        market: With features as the policy sees them.
        task: Costs, limits and when trades happen.
        lookback: Rows a decision looks at.
        device: Where tensors live.

    Attributes:
        first, last: Rows of the first and the last decision.

    Raises:
        DataError: If the market is shorter than one window and one return.

    """

    def __init__(self, market: Market, task: Task, lookback: int, device: str = "cpu") -> None:
        self.rules = task.env(market, lookback=lookback).rules
        self.first, self.last = self.rules.first, self.rules.last - 1
        self.n_assets, self.has_cash = market.n_assets, market.has_cash
        self.device = torch.device(device)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(np.array(array), device=self.device)

        self.panel = tensor(market.features)  # (T, N, F)
        self.context = tensor(market.context) if market.context_names else None  # (T, G)
        self.cash = cash_flag(market).to(self.device)  # (N,)
        self.risk_free = tensor(market.risk_free)
        self.tradable = None if self.rules.all_tradable else tensor(market.tradable)
        self.relatives, self.overnight = tensor(self.rules.relatives), None
        if self.rules.fill == "next_open":
            self.overnight = tensor(_overnight(market))
            self.relatives = self.relatives / self.overnight

    @property
    def is_free(self) -> bool:
        """Whether trading costs nothing, whatever is traded."""
        cost = self.rules.cost
        return isinstance(cost, ProportionalRates) and not (cost.buy.any() or cost.sell.any())

    def play(self, policy: BandPolicy, starts: np.ndarray, length: int, held: Tensor) -> Played:
        """Let the policy decide `length` times from each start.

        Args:
            policy: Decides.
            starts: Rows of the first decisions, rising, (B,), in first .. last + 1 - length.
            length: S.
            held: Weights before the first trades, (B, N), float64.

        """
        rows = torch.as_tensor(starts, device=self.device)[:, None] + torch.arange(
            length, device=self.device
        )  # (B, S)
        batch = Batch(self, starts, rows.T)
        tables = self._tables(policy, rows - self.rules.decision_lag)
        state = State(held, torch.ones_like(held[:, 0]), torch.ones_like(held[:, 0]))
        if not policy.sees_weights:
            ready = policy.plan(tables.flatten(0, 1), held, batch.flat_tradable())
            shape = batch.relatives.shape
            if batch.is_plain:
                return batch.at_a_stroke(held, Plan(*(part.view(shape) for part in ready)))
            parts = (part.view(shape).unbind(0) for part in ready)
            for s, of_step in enumerate(zip(*parts, strict=True)):
                state = batch.advance(state, Plan(*of_step), s)
        else:
            for s, table in enumerate(tables.unbind(0)):
                plan = policy.plan(table, state.weights, batch.tradable(s))
                state = batch.advance(state, plan, s)
        return batch.played(state)

    def _tables(self, policy: BandPolicy, seen: Tensor) -> Tensor:
        """The network's table for windows that end at rows (B, S): shape (S, B, N, H)."""
        ends = seen.flatten()
        table, index = policy.network.table_at(self.panel, ends, self.context, self.cash)
        if len(table) != len(index):  # else the rows are distinct and rise, as the table's do
            table = table.index_select(0, index)
        return table.view(*seen.shape, *table.shape[1:]).transpose(0, 1)


class Batch:
    """Segments under way: what each step of them needs, and the memory of their limits."""

    def __init__(self, world: SimulatedMarket, starts: np.ndarray, rows: Tensor) -> None:
        self.world, self.rules, self.starts = world, world.rules, starts
        # rates do not depend on value, and what is held next does not depend on what was paid
        self.at_once = isinstance(self.rules.cost, ProportionalRates) and not self.rules.constraints
        self.relatives, self.risk_free = world.relatives[rows + 1], world.risk_free[rows + 1]
        self._tradable = None if world.tradable is None else world.tradable[rows]
        self._overnight = None if world.overnight is None else world.overnight[rows + 1]
        self._limits = self.rules.constraints.initial((len(starts),))
        self.plans: list[Plan] = []
        self.decided: list[Tensor] = []  # weights at the decision; at the open they may be others
        self.held: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.growth: list[Tensor] = []
        self.violations: list[Tensor] = []
        self.transitions: list[Transition] = []

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the band decides what is traded, and every asset keeps some value."""
        rules = self.rules
        plain = self.at_once and rules.rebalance_every == 1 and rules.band == 0.0
        everything = self._tradable is None and self._overnight is None
        return plain and everything and bool((self.relatives > 0.0).all())

    def at_a_stroke(self, held: Tensor, plans: Plan) -> Played:
        """All steps of all segments, for plans (S, B, N)."""
        path, targets = band_path(plans.low, plans.high, held, self.relatives)
        return self._outcome(path[:-1], targets, plans, path.detach())

    def tradable(self, s: int) -> Tensor | None:
        """Which assets may be held after step s, (B, N); None: all."""
        return None if self._tradable is None else self._tradable[s]

    def flat_tradable(self) -> Tensor | None:
        """The same for all steps, (S * B, N)."""
        return None if self._tradable is None else self._tradable.flatten(0, 1)

    def advance(self, state: State, plan: Plan, s: int) -> State:
        """One step: limits, days without trading, what cannot be traded, then the simulator."""
        target = plan.target(state.weights)
        self.plans.append(plan)
        self.decided.append(state.weights.detach())
        if self._overnight is not None:
            state, growth = drift(state, self._overnight[s])
            self.growth.append(growth)
        liquidity = self.rules.cost.liquidity(self.starts + s)
        target = self._traded(target, state, s, liquidity)
        self.held.append(state.weights)
        self.targets.append(target)
        if self.at_once:
            return drift(state._replace(weights=target), self.relatives[s])[0]
        state, transition = step(state, target, self._row(s, liquidity), self.rules.cost)
        self.transitions.append(transition)
        return state

    def played(self, state: State) -> Played:
        """What happened; costs that were left for later are worked out, for all steps at once."""
        plans = Plan(*(torch.stack(parts) for parts in zip(*self.plans, strict=True)))
        after = torch.stack([*self.decided, state.weights.detach()])
        return self._outcome(torch.stack(self.held), torch.stack(self.targets), plans, after)

    def _outcome(self, held: Tensor, targets: Tensor, plans: Plan, met: Tensor) -> Played:
        """Of weights before and after each trade, (S, B, N); `met` are those of decisions."""
        if self.at_once:
            ones = torch.ones_like(held[..., 0])
            row = self._row(slice(None), None)
            _, path = step(State(held, ones, ones), targets, row, self.rules.cost)
        else:
            path = Transition(
                *(torch.stack(parts) for parts in zip(*self.transitions, strict=True))
            )
        returns, none = path.portfolio_return, torch.zeros_like(path.mu)
        if self.growth:
            returns = torch.stack(self.growth) * (1.0 + returns) - 1.0
        n_assets = held.shape[-1]
        return Played(
            returns=returns,
            mu=path.mu,
            risk_free=path.risk_free,
            turnover=path.turnover.detach(),
            held=met,
            violation=torch.stack(self.violations) if self.violations else none,
            imbalance=(plans.proposal - 1.0 / n_assets).square().sum(-1),
            band=(plans.high - plans.low).detach().mean(-1),
        )

    def _row(self, s: int | slice, liquidity: Any) -> Row:
        """The market's move after step s, or after every step."""
        relatives = self.relatives[s]
        never = torch.zeros_like(self.risk_free[s], dtype=torch.bool)
        return Row(relatives - 1.0, relatives, self.risk_free[s], never, liquidity)

    def _traded(self, target: Tensor, state: State, s: int, liquidity: Any) -> Tensor:
        if self.rules.constraints:
            violation = self.rules.constraints.violation(target, state.weights)
            self.violations.append(violation)
            target = _straight_through(target, self._limited(target, state, s))
        target = self._held_between(target, state.weights, s)
        if self._tradable is not None:
            target = only_tradable(target, self._tradable[s], self.world.has_cash)
        if liquidity is not None:
            target = _straight_through(target, self._reachable(target, state, liquidity))
        return target

    def _limited(self, target: Tensor, state: State, s: int) -> np.ndarray:
        portfolio = State(*(to_host(part) for part in state))
        drawdown = 1.0 - portfolio.value / portfolio.peak
        limited, self._limits, _, _ = self.rules.constraints.apply(
            to_host(target),
            portfolio.weights,
            self.starts + s,
            self._limits,
            drawdown,
            portfolio.value,
        )
        return limited

    def _held_between(self, target: Tensor, held: Tensor, s: int) -> Tensor:
        """The target on days of trading and outside the task's band, else what is held."""
        every, band = self.rules.rebalance_every, self.rules.band
        if every == 1 and band == 0.0:
            return target
        n_risky = self.rules.cost.n_risky
        distance = 0.5 * (target - held)[:, :n_risky].abs().sum(-1)
        age = torch.as_tensor(self.starts + s - self.world.first, device=target.device)
        trades = (age % every == 0) & (distance > band)
        return torch.where(trades[:, None], target, held)

    def _reachable(self, target: Tensor, state: State, liquidity: Any) -> np.ndarray:
        held, value = to_host(state.weights), to_host(state.value)
        reached: np.ndarray = self.rules.cost.reachable(held, to_host(target), value, liquidity)
        return reached


def only_tradable(target: Tensor, tradable: Tensor, has_cash: bool) -> Tensor:
    """What is asked of assets that cannot be held goes to cash, else to the others in proportion.

    Where nothing else is asked for, those that can be held share it equally.
    """
    kept = torch.where(tradable, target, 0.0)
    left = kept.sum(-1, keepdim=True)
    if has_cash:
        return torch.cat([kept[..., :-1], kept[..., -1:] + 1.0 - left], -1)
    equal = tradable / tradable.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(left > 0.0, kept / torch.where(left > 0.0, left, 1.0), equal)


def cash_flag(market: Market) -> Tensor:
    """True for cash, (N,)."""
    flags = torch.zeros(market.n_assets, dtype=torch.bool)
    flags[-1] = market.has_cash
    return flags


def _straight_through(target: Tensor, moved: np.ndarray) -> Tensor:
    """The moved target, with the gradient of the one asked for."""
    there = torch.as_tensor(moved, device=target.device)
    return target + (there - target).detach()


def _overnight(market: Market) -> np.ndarray:
    """open[t] / close[t-1], 1 where either is missing, (T, N)."""
    assert market.opens is not None
    ratio = np.ones_like(market.prices)
    ratio[1:] = market.opens[1:] / market.prices[:-1]
    return np.where(np.isfinite(ratio), ratio, 1.0)
