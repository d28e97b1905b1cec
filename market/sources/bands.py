"""One risky asset and cash under proportional costs, solved by dynamic programming.

Only the weight w of the risky asset before trading matters beside the state, so the problem has one
dimension. Trading from w to a at rate c leaves the fraction of value

    mu = (1 + c w) / (1 + c a)  where a >= w (buying),     (1 - c w) / (1 - c a)  where a < w

which is `mu = 1 - c |mu a - w|` solved. Since log mu splits into a term of w and one of a, the best
purchase and the best sale come from a running maximum: the optimum is to do nothing inside a band
and to trade to its nearer edge outside (Davis & Norman 1990, Portfolio selection with transaction
costs).

The drifted weight falls between two nodes of the grid and is given to both in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from market.sources.chain import Chain

POINTS = 1001
_LEAK = 1e-7  # what a period is discounted by: growth per period is this times the value
_ROUNDS = 60


def value_left(held: np.ndarray, target: np.ndarray, rate: float) -> np.ndarray:
    """mu, the fraction of value left after trading the risky weight from `held` to `target`."""
    buying = (1.0 + rate * held) / (1.0 + rate * target)
    return np.where(target >= held, buying, (1.0 - rate * held) / (1.0 - rate * target))


@dataclass(frozen=True, eq=False)
class Grid:
    """The weights of the risky asset, node by node, in a market of one risky asset and cash.

    Attributes:
        chain: The market; its second asset is cash.
        rate: Proportional cost of buying and of selling, in [0, 1).
        points: Nodes M.

    """

    chain: Chain
    rate: float
    points: int = POINTS

    @cached_property
    def nodes(self) -> np.ndarray:
        """Weights of the risky asset, (M,)."""
        return np.linspace(0.0, 1.0, self.points)

    def growth(self, targets: np.ndarray) -> float:
        """Log growth per period in the long run, starting from cash.

        Args:
            targets: The risky weight traded to from each state and node, (S, M).

        """
        value = self._values(targets)
        return float(_LEAK * self.chain.stationary @ value[:, 0])

    def best(self, menu: np.ndarray | None = None, *, hold: bool = False) -> np.ndarray:
        """The targets (S, M) of the policy that grows fastest, by policy iteration.

        Args:
            menu: The only weights that may be traded to, each in [0, 1]; any when None.
            hold: Whether not trading is a choice beside those of the menu.

        """
        start = 0.5 if menu is None else float(menu[0])
        targets = np.full((self.chain.n_states, self.points), start)
        for _ in range(_ROUNDS):
            value = self._values(targets)
            improved = self._band(value) if menu is None else self._choice(value, menu, hold)
            if np.array_equal(improved, targets):
                break
            targets = improved
        return targets

    def _values(self, targets: np.ndarray) -> np.ndarray:
        """Discounted sum of log growth from each state and node, (S, M)."""
        from scipy.sparse import coo_matrix, identity
        from scipy.sparse.linalg import splu

        held = np.broadcast_to(self.nodes, targets.shape)
        states = np.broadcast_to(np.arange(len(targets))[:, None], targets.shape)
        reward = np.log(value_left(held, targets, self.rate)) + self._next_growth(states, targets)
        rows, columns, entries = [], [], []
        for k, (low, share) in enumerate(self._drifted(targets)):
            for after in range(len(targets)):
                chance = self.chain.probabilities[states, k] * self.chain.transition[states, after]
                for node, part in ((low, 1.0 - share), (low + 1, share)):
                    rows.append(np.arange(targets.size))
                    columns.append((after * self.points + node).ravel())
                    entries.append((chance * part).ravel())
        moves = coo_matrix(
            (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))),
            shape=(targets.size, targets.size),
        )
        system = identity(targets.size, format="csc") - (1.0 - _LEAK) * moves.tocsc()
        return splu(system).solve(reward.ravel()).reshape(targets.shape)

    def _next_growth(self, states: np.ndarray, risky: np.ndarray) -> np.ndarray:
        return self.chain.log_growth(states, np.stack([risky, 1.0 - risky], axis=-1))

    def _drifted(self, risky: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each outcome the node below the drifted weight and the share of the one above."""
        found = []
        for asset, cash in self.chain.outcomes:
            grown = risky * (1.0 + asset)
            position = grown / (grown + (1.0 - risky) * (1.0 + cash)) * (self.points - 1)
            low = np.minimum(position.astype(int), self.points - 2)
            found.append((low, position - low))
        return found

    def _worth(self, value: np.ndarray, risky: np.ndarray) -> np.ndarray:
        """What it is worth to hold `risky` (A,) after trading, in each state, (S, A)."""
        size = len(value)
        states = np.arange(size)[:, None]
        worth = self._next_growth(states, np.broadcast_to(risky, (size, len(risky))))
        expected = self.chain.transition @ value  # (S, M)
        for k, (low, share) in enumerate(self._drifted(risky)):
            later = expected[:, low] * (1.0 - share) + expected[:, low + 1] * share
            worth = worth + (1.0 - _LEAK) * self.chain.probabilities[:, k, None] * later
        return worth

    def _band(self, value: np.ndarray) -> np.ndarray:
        """Buy to the lower edge of the band, sell to the upper one, hold in between, (S, M)."""
        worth = self._worth(value, self.nodes)
        low = self.nodes[(worth - np.log1p(self.rate * self.nodes)).argmax(axis=1)]
        high = self.nodes[(worth - np.log1p(-self.rate * self.nodes)).argmax(axis=1)]
        return np.clip(self.nodes, low[:, None], np.maximum(low, high)[:, None])

    def _choice(self, value: np.ndarray, menu: np.ndarray, hold: bool) -> np.ndarray:
        """The best entry of a menu, or what is held, from each state and node, (S, M)."""
        paid = np.log(value_left(self.nodes[:, None], menu[None, :], self.rate))  # (M, A)
        worth = paid + self._worth(value, menu)[:, None, :]  # (S, M, A)
        chosen: np.ndarray = menu[worth.argmax(axis=2)]
        if not hold:
            return chosen
        return np.where(self._worth(value, self.nodes) > worth.max(axis=2), self.nodes, chosen)
