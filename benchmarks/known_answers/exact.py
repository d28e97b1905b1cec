"""What a learned policy is worth, summed over all that can happen instead of sampled.

With one risky asset and cash, growth is that of the chain which the policy induces on states and a
grid of 1,001 weights held (`Optimum.growth_of`). With more assets, where nothing is charged, it is
the expectation over all histories of a few periods from equal weights: what is held then matters
only as far as the policy looks at it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from agents.base import Agent, Task
from agents.policy_gradient import PolicyGradientAgent
from agents.rollout import roll
from agents.sb3 import SB3Agent
from market import Market
from market.sources.chain import Chain
from market.sources.optimum import Optimum, Policy

MOST_NODES = 10_000
DAYS = 252


class Idling(NamedTuple):
    """What an agent does where nothing is worth doing."""

    turnover: float  # mean of a day
    loss: float  # log growth a year that not trading would have saved, in expectation


def reading(agent: Agent, market: Market) -> Policy:
    """The agent's targets (B, N) at rows (B,) of a market, for weights held (B, N)."""
    if isinstance(agent, SB3Agent | PolicyGradientAgent):
        return lambda rows, held: agent.decide_all(rows, held, market)
    histories = [market.upto(row) for row in range(market.n_periods)]
    return lambda rows, held: np.array(
        [agent.act(histories[row], w) for row, w in zip(rows, held, strict=True)]
    )


def growth(agent: Agent, exam: Market, optimum: Optimum) -> float:
    """Log growth per period of the agent's deterministic policy.

    Args:
        agent: Fitted; it looks at one row.
        exam: Row s shows state s.
        optimum: Of the market that was trained on; its costs are charged.

    """
    policy = reading(agent, exam)
    with _reading(agent, exam):
        if optimum.chain.n_assets == 2:
            return optimum.growth_of(policy)
        assert not optimum.cost, "with costs, what is held matters too much"
        return growth_over_histories(policy, optimum.chain)


def growth_over_histories(policy: Policy, chain: Chain, most: int = MOST_NODES) -> float:
    """Expected log growth of the last of so many periods that no more than `most` nodes arise.

    A node is a state and the weights held in it; its children are all that can follow.
    """
    states = np.arange(chain.n_states)
    chances = chain.stationary
    held = np.full((chain.n_states, chain.n_assets), 1.0 / chain.n_assets)
    while True:
        targets = policy(states, held)
        per_node = [np.flatnonzero(row) for row in chain.probabilities]
        after = [np.flatnonzero(row) for row in chain.transition]
        children = sum(len(per_node[s]) * len(after[s]) for s in states)
        if children > most:
            return float(chances @ chain.log_growth(states, targets))
        drifted, outcomes = _drifted(states, targets, chain, per_node)
        parents = np.repeat(np.arange(len(states)), [len(per_node[s]) for s in states])
        chances = chances[parents] * chain.probabilities[states[parents], outcomes]
        fan = [len(after[s]) for s in states[parents]]
        following = np.concatenate([after[s] for s in states[parents]])
        moves = np.repeat(chain.transition[states[parents]], fan, axis=0)
        chances = np.repeat(chances, fan) * moves[np.arange(len(following)), following]
        states, held = following, np.repeat(drifted, fan, axis=0)


def _drifted(
    states: np.ndarray, targets: np.ndarray, chain: Chain, possible: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights after every outcome that may follow each node, and the outcomes' numbers."""
    outcomes = np.concatenate([possible[s] for s in states])
    grown = np.repeat(targets, [len(possible[s]) for s in states], axis=0)
    grown = grown * (1.0 + chain.outcomes[outcomes])
    return grown / grown.sum(-1, keepdims=True), outcomes


def idling(agent: Agent, fresh: Market, task: Task) -> Idling:
    """Turnover and loss on a path the agent has not seen, the luck of its outcomes taken out.

    Args:
        agent: Fitted.
        fresh: A market of pure noise.
        task: With the costs charged.

    """
    with _reading(agent, fresh):
        path = roll(agent, fresh, task)
    chain = fresh.optimum.chain
    n_periods, n_assets = path.targets.shape
    values = np.full(n_assets, 1.0 / n_assets) * fresh.prices / fresh.prices[agent.lookback - 1]
    kept = values[agent.lookback - 1 :][:n_periods]
    kept /= kept.sum(-1, keepdims=True)
    here = np.zeros(n_periods, int)
    earned = chain.log_growth(here, path.targets) + np.log1p(-path.costs)
    lost = chain.log_growth(here, kept) - earned
    return Idling(float(path.turnover.mean()), float(DAYS * lost.mean()))


def _reading(agent: Agent, market: Market):  # type: ignore[no-untyped-def]
    """Where an agent can encode a whole market at once, that is done once."""
    return agent.reading(market) if hasattr(agent, "reading") else nullcontext()
