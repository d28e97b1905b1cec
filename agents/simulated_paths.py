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

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.band_policy import BandPolicy, Decision
from agents.base import Task
from envs.simulator import Row, State, Transition, drift, step
from market import Market

_LEAST_GROWTH = 1e-12


class Played(NamedTuple):
    """What segments gave: S steps of B segments."""

    returns: Tensor  # (S, B) after costs
    risk_free: Tensor  # (S, B)
    turnover: Tensor  # (S, B)
    cost: Tensor  # (S, B)
    held: Tensor  # (S + 1, B, N) weights before each trade, and after the last period; no gradient
    violation: Tensor  # (S, B) of limits on weights, before they were imposed
    imbalance: Tensor  # (S, B) squared distance of the proposal from equal weights
    band: Tensor  # (S, B)


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

    def play(self, policy: BandPolicy, starts: np.ndarray, length: int, held: Tensor) -> Played:
        """Let the policy decide `length` times from each start.

        Args:
            policy: Decides.
            starts: Rows of the first decisions, (B,), in first .. last + 1 - length.
            length: S.
            held: Weights before the first trades, (B, N), float64.

        """
        rows = torch.as_tensor(starts, device=self.device) + torch.arange(
            length, device=self.device
        ).unsqueeze(1)  # (S, B)
        seen = (rows - self.rules.decision_lag).flatten()
        table, index = policy.network.table_at(self.panel, seen, self.context, self.cash)
        tables = table.index_select(0, index).view(length, len(starts), *table.shape[1:])
        batch = Batch(self, starts, rows)
        state = State(held, torch.ones_like(held[:, 0]), torch.ones_like(held[:, 0]))
        steps, decisions, violations, weights = [], [], [], [held]
        for s, row in enumerate(tables.unbind(0)):
            decision = policy.decide(row, state.weights, batch.tradable(s))
            state, transition, violation = batch.advance(state, decision.target, s)
            steps.append(transition)
            decisions.append(decision)
            violations.append(violation)
            weights.append(state.weights.detach())
        return _collected(steps, decisions, violations, weights)


class Batch:
    """Segments under way: what each step of them needs, and the memory of their limits."""

    def __init__(self, world: SimulatedMarket, starts: np.ndarray, rows: Tensor) -> None:
        self.world, self.rules, self.starts = world, world.rules, starts
        size = (*rows.shape, world.n_assets)

        def gathered(panel: Tensor, at: Tensor) -> tuple[Tensor, ...]:
            return panel.index_select(0, at.flatten()).view(*size, *panel.shape[2:]).unbind(0)

        self.relatives = gathered(world.relatives, rows + 1)
        self.risk_free = world.risk_free[rows + 1].unbind(0)
        self._tradable = None if world.tradable is None else gathered(world.tradable, rows)
        self._overnight = None if world.overnight is None else gathered(world.overnight, rows + 1)
        self._limits = self.rules.constraints.initial((len(starts),))
        self._never = torch.zeros(len(starts), dtype=torch.bool, device=rows.device)

    def tradable(self, s: int) -> Tensor | None:
        """Which assets may be held after step s, (B, N); None: all."""
        return None if self._tradable is None else self._tradable[s]

    def advance(self, state: State, target: Tensor, s: int) -> tuple[State, Transition, Tensor]:
        """One step: limits, days without trading, what cannot be traded, then the simulator."""
        growth = None
        if self._overnight is not None:
            state, growth = drift(state, self._overnight[s])
        violation = torch.zeros_like(state.value)
        if self.rules.constraints:
            violation = self.rules.constraints.violation(target, state.weights)
            target = _straight_through(target, self._limited(target, state, s))
        target = self._held_between(target, state.weights, s)
        if self._tradable is not None:
            target = only_tradable(target, self._tradable[s], self.world.has_cash)
        liquidity = self.rules.cost.liquidity(self.starts + s)
        if liquidity is not None:
            target = _straight_through(target, self._reachable(target, state, liquidity))
        relatives = self.relatives[s]
        row = Row(relatives - 1.0, relatives, self.risk_free[s], self._never, liquidity)
        state, transition = step(state, target, row, self.rules.cost)
        if growth is not None:
            total = growth * (1.0 + transition.portfolio_return) - 1.0
            transition = transition._replace(portfolio_return=total)
        return state, transition, violation

    def _limited(self, target: Tensor, state: State, s: int) -> np.ndarray:
        portfolio = State(*(_numpy(part) for part in state))
        drawdown = 1.0 - portfolio.value / portfolio.peak
        limited, self._limits, _, _ = self.rules.constraints.apply(
            _numpy(target),
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
        held, value = _numpy(state.weights), _numpy(state.value)
        reached: np.ndarray = self.rules.cost.reachable(held, _numpy(target), value, liquidity)
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


def log_growth(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean log(1 + r)."""
    return torch.log((1.0 + returns).clamp(min=_LEAST_GROWTH)).mean()


def mean_variance(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean(r) - risk_aversion / 2 * var(r)."""
    return returns.mean() - 0.5 * risk_aversion * returns.var(correction=0)


def crra(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean ((1 + r)^(1 - a) - 1) / (1 - a), a the risk aversion; log growth at a = 1."""
    if risk_aversion == 1.0:
        return log_growth(returns, risk_free, risk_aversion)
    power = 1.0 - risk_aversion
    logs = torch.log((1.0 + returns).clamp(min=_LEAST_GROWTH))
    return torch.expm1(power * logs).mean() / power


def sharpe(returns: Tensor, risk_free: Tensor, risk_aversion: float) -> Tensor:
    """mean(r - risk_free) / std(r - risk_free), not annualised; 0 where returns never vary."""
    excess = returns - risk_free
    variance = excess.var(correction=0)
    return excess.mean() / torch.sqrt(variance + _LEAST_GROWTH)


UTILITIES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "log_growth": log_growth,
    "mean_variance": mean_variance,
    "crra": crra,
    "sharpe": sharpe,
}
"""Utility per period of returns of any shape, all periods of all segments taken together."""


def _straight_through(target: Tensor, moved: np.ndarray) -> Tensor:
    """The moved target, with the gradient of the one asked for."""
    there = torch.as_tensor(moved, device=target.device)
    return target + (there - target).detach()


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def _overnight(market: Market) -> np.ndarray:
    """open[t] / close[t-1], 1 where either is missing, (T, N)."""
    assert market.opens is not None
    ratio = np.ones_like(market.prices)
    ratio[1:] = market.opens[1:] / market.prices[:-1]
    return np.where(np.isfinite(ratio), ratio, 1.0)


def _collected(
    steps: list[Transition], decisions: list[Decision], violations: list[Tensor], held: list[Tensor]
) -> Played:
    proposals = torch.stack([decision.proposal for decision in decisions])
    return Played(
        returns=torch.stack([one.portfolio_return for one in steps]),
        risk_free=torch.stack([one.risk_free for one in steps]),
        turnover=torch.stack([one.turnover.detach() for one in steps]),
        cost=torch.stack([one.cost.detach() for one in steps]),
        held=torch.stack(held),
        violation=torch.stack(violations),
        imbalance=(proposals - 1.0 / proposals.shape[-1]).square().sum(-1),
        band=torch.stack([decision.band.detach() for decision in decisions]),
    )
