"""Markets with finitely many states and outcomes: every expectation about them is a finite sum.

    state[t] --(known at the close of t)--> outcome of t+1 --> returns[t+1]
        |
        +-- transition --> state[t+1]          independent of the outcome, given state[t]

What a policy may earn depends on the state alone, so the present state is all there is to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.errors import SettingError

_GAP = 1e-8  # a certified distance to the best growth that counts as none


@dataclass(frozen=True, eq=False)
class Chain:
    """A Markov chain of observable states, each with its distribution of returns.

    Attributes:
        transition: P(next state | state), (S, S).
        probabilities: P(outcome | state), (S, K).
        outcomes: Simple returns of all assets, above -1, (K, N).
        signals: What the feature "signal" shows in each state, (S,).

    """

    transition: np.ndarray
    probabilities: np.ndarray
    outcomes: np.ndarray
    signals: np.ndarray

    def __post_init__(self) -> None:
        for rows in (self.transition, self.probabilities):
            if not (np.allclose(rows.sum(1), 1.0, atol=1e-12) and (rows >= 0).all()):
                raise SettingError(f"probabilities must be >= 0 and sum to 1, got {rows.tolist()}")
        if not (self.outcomes > -1.0).all():
            raise SettingError(
                f"an outcome loses everything: return {self.outcomes.min():g} must be > -1; "
                "lower the volatility"
            )

    @classmethod
    def independent(cls, outcomes: np.ndarray, probabilities: np.ndarray) -> Chain:
        """One state: returns that are independent and alike in every period."""
        return cls(np.ones((1, 1)), probabilities[None], outcomes, np.zeros(1))

    @property
    def n_states(self) -> int:
        """S."""
        return len(self.transition)

    @property
    def n_assets(self) -> int:
        """N."""
        return self.outcomes.shape[1]

    @property
    def stationary(self) -> np.ndarray:
        """How often each state occurs in the long run, (S,)."""
        size = self.n_states
        balance = np.vstack([self.transition.T - np.eye(size), np.ones(size)])
        found = np.linalg.lstsq(balance, np.append(np.zeros(size), 1.0), rcond=None)[0]
        return np.clip(found, 0.0, 1.0)

    def log_growth(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Expected log growth of holding `targets` (*B, N) for a period from `states` (*B,)."""
        growth = np.log1p(targets @ self.outcomes.T)  # (*B, K)
        return (self.probabilities[states] * growth).sum(-1)

    def best_weights(self) -> np.ndarray:
        """The growth-optimal weights of each state without costs, (S, N)."""
        return np.stack([growth_optimal(row, self.outcomes) for row in self.probabilities])

    def sample(
        self, periods: int, rng: np.random.Generator, hand: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A path.

        Args:
            periods: T.
            rng: Source of randomness.
            hand: Outcomes are dealt in shuffled hands of so many visits to a state, which hold
                each in proportion; None: drawn independently.

        Returns:
            States (T,) and returns (T, N); returns[t + 1] follows states[t], and returns[0] = 0.

        """
        states = np.empty(periods, int)
        states[0] = rng.choice(self.n_states, p=self.stationary / self.stationary.sum())
        bounds, draws = np.cumsum(self.transition, axis=1), rng.random(periods)
        for t in range(1, periods):
            row = bounds[states[t - 1]]
            states[t] = min(np.searchsorted(row, draws[t], side="right"), self.n_states - 1)
        drawn = np.empty(periods - 1, int)
        for state, row in enumerate(self.probabilities):
            visits = np.flatnonzero(states[:-1] == state)
            drawn[visits] = _deal(row, len(visits), hand, rng)
        returns = np.zeros((periods, self.n_assets))
        returns[1:] = self.outcomes[drawn]
        return states, returns


def growth_optimal(probabilities: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Weights on the simplex that maximise sum_k p_k log(1 + w . r_k), shape (N,).

    The problem is convex. With g_i = E[(1 + r_i) / (1 + w . r)] no weights grow faster than w by
    more than log max_i g_i, which certifies the answer.

    Args:
        probabilities: (K,).
        outcomes: Simple returns, (K, N).

    Source: Kelly (1956); Cover, An algorithm for maximizing expected log investment return (1984).

    """
    from scipy.optimize import LinearConstraint, minimize  # 0.2 s, and only these markets need it

    gross = 1.0 + outcomes
    n_assets = gross.shape[1]

    def ratios(weights: np.ndarray) -> np.ndarray:
        return (probabilities / (gross @ weights)) @ gross

    def loss(weights: np.ndarray) -> float:
        return -float(probabilities @ np.log(gross @ weights))

    found = minimize(  # type: ignore[call-overload]  # stubs want fixed ranks
        loss,
        np.full(n_assets, 1.0 / n_assets),
        jac=lambda weights: -ratios(weights),
        bounds=[(0.0, 1.0)] * n_assets,
        constraints=LinearConstraint(np.ones(n_assets), 1.0, 1.0),
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    weights = np.where(found.x < 1e-9, 0.0, found.x)
    weights /= weights.sum()
    gap = float(np.log(ratios(weights).max()))
    assert gap < _GAP, f"growth-optimal weights are {gap:.1e} short of the best growth"
    return weights


def _deal(
    probabilities: np.ndarray, count: int, hand: int | None, rng: np.random.Generator
) -> np.ndarray:
    """`count` outcomes by their probabilities, (count,)."""
    if hand is None:
        return rng.choice(len(probabilities), size=count, p=probabilities)
    dealt, hands = np.zeros(len(probabilities), int), []
    for end in [*range(hand, count, hand), count]:
        share = np.maximum(probabilities * end - dealt, 0.0)  # due so far, less what was dealt
        whole = np.floor(share).astype(int)
        short = end - int(dealt.sum() + whole.sum())
        whole[np.argsort(whole - share, kind="stable")[: max(short, 0)]] += 1
        cards = np.repeat(np.arange(len(probabilities)), whole)
        hands.append(rng.permutation(cards)[: end - int(dealt.sum())])
        dealt += np.bincount(hands[-1], minlength=len(probabilities))
    return np.concatenate(hands)
