"""Online portfolio selection: rules that update a mix of assets after each day, by their papers.

    row          0            1             ...          t
    relatives                x_1 = p_1/p_0  ...  x_t = p_t/p_{t-1}
    mix       b_1 = 1/k  ->  b_2(b_1, x_1)  ...  b_{t+1}      held over x_{t+1}

A rule runs from the first row of the history it is given; to start it afresh give `market[start:]`.
Its mix is its own, whatever is really held; an asset without a price has the relative 1, and one
that cannot be held now is left out of the target. Updates are cached while the history grows by
rows of the same market, so that n days cost n updates; the answer depends on the history alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from agents.base import Agent
from agents.growing import continues
from agents.schedule import equal, investable
from agents.settings import Space, require
from agents.simplex import minimise_on_simplex
from envs.projection import project_simplex
from market import Market


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """What all online rules have in common."""

    include_cash: bool = False  # whether cash is one of the assets


class _Run(NamedTuple):
    """How far a history has been read."""

    returns: np.ndarray  # its rows; kept so that its memory stays its own
    state: Any


class OnlineAgent(Agent):
    """An online rule; a subclass gives the first state, the update and the mix of a state."""

    Settings: ClassVar[type] = OnlineSettings
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._run: _Run | None = None

    @property
    def memory(self) -> int:
        """Days whose relatives an update reads, the new one included."""
        return 1

    @abstractmethod
    def begin(self, count: int) -> Any:
        """The state before the first day, for k assets."""

    @abstractmethod
    def update(self, state: Any, relatives: np.ndarray) -> Any:
        """The state after one more day.

        Args:
            state: After the day before; not changed.
            relatives: Price relatives of the last `memory` days, or of all there were, the new
                one last, (m, k).

        """

    def mix(self, state: Any) -> np.ndarray:
        """The mix to hold next, (k,); the state itself unless a subclass says otherwise."""
        return state

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The mix after all days of the history, of the assets that can be held."""
        count = history.n_assets - (history.has_cash and not self.settings.include_cash)
        target = np.zeros(history.n_assets)
        target[:count] = self.mix(self._catch_up(history, count))
        open_ = investable(history, include_cash=self.settings.include_cash)
        target = np.where(open_, target, 0.0)
        total = target.sum()
        return target / total if total > 1e-12 else equal(open_, history)

    def _catch_up(self, history: Market, count: int) -> Any:
        """The state after the last row; continued from the last call where it read these rows."""
        returns, run = history.returns, self._run
        if run is not None and continues(run.returns, returns):
            state, first = run.state, len(run.returns)
        else:
            state, first = self.begin(count), 1
        offset = max(1, first + 1 - self.memory)
        relatives = 1.0 + returns[offset:, :count]
        for t in range(first, len(returns)):
            stop = t + 1 - offset
            state = self.update(state, relatives[max(0, stop - self.memory) : stop])
        self._run = _Run(returns, state)
        return state


class UniformMix(OnlineAgent):
    """UCRP, the uniform constant rebalanced portfolio: b = 1/k every day."""

    def begin(self, count: int) -> np.ndarray:
        """Equal parts."""
        return np.full(count, 1.0 / count)

    def update(self, state: np.ndarray, relatives: np.ndarray) -> np.ndarray:
        """Nothing is learned."""
        return state


@dataclass(frozen=True, kw_only=True)
class ExponentiatedGradientSettings(OnlineSettings):
    """Settings of `exponentiated_gradient`."""

    rate: float = 0.05  # eta

    def __post_init__(self) -> None:
        require(self, rate="(0, inf)")


class ExponentiatedGradient(OnlineAgent):
    """EG: b_i <- b_i exp(eta x_i / b.x), normalised.

    Source: Helmbold, Schapire, Singer & Warmuth, On-line portfolio selection using multiplicative
    updates (1998), eq. 3.
    """

    Settings: ClassVar[type] = ExponentiatedGradientSettings
    space: ClassVar[Space] = {"rate": "0.005..1.0 log"}
    settings: ExponentiatedGradientSettings

    def begin(self, count: int) -> np.ndarray:
        """Equal parts."""
        return np.full(count, 1.0 / count)

    def update(self, state: np.ndarray, relatives: np.ndarray) -> np.ndarray:
        """A step along the gradient of log b.x in the geometry of relative entropy."""
        x = relatives[-1]
        ratio = self.settings.rate * x / (state @ x)
        grown = state * np.exp(ratio - ratio.max())
        return grown / grown.sum()


@dataclass(frozen=True, kw_only=True)
class PassiveAggressiveSettings(OnlineSettings):
    """Settings of `passive_aggressive`."""

    sensitivity: float = 0.5  # epsilon: daily growth above which the mix is changed
    variant: Literal["pamr", "pamr-1", "pamr-2"] = "pamr"
    aggressiveness: float = 500.0  # C of the variants 1 and 2

    def __post_init__(self) -> None:
        require(self, sensitivity="[0, inf)", aggressiveness="(0, inf)")


class PassiveAggressive(OnlineAgent):
    """PAMR, passive aggressive mean reversion: sell what rose, so that b.x falls to epsilon.

    b <- P(b - tau (x - mean x)), tau = l / |x - mean x|^2, l = max(0, b.x - epsilon), P the
    projection on the simplex; variant 1 caps tau at C, variant 2 adds 1 / 2C below the line.

    Source: Li, Zhao, Hoi & Gopalkrishnan, PAMR: passive aggressive mean reversion strategy for
    portfolio selection (2012), algorithm 1.
    """

    Settings: ClassVar[type] = PassiveAggressiveSettings
    space: ClassVar[Space] = {"sensitivity": "0.0..1.0"}
    settings: PassiveAggressiveSettings

    def begin(self, count: int) -> np.ndarray:
        """Equal parts."""
        return np.full(count, 1.0 / count)

    def update(self, state: np.ndarray, relatives: np.ndarray) -> np.ndarray:
        """Passive below epsilon, else the least change that gets there."""
        x, limit = relatives[-1], self.settings.aggressiveness
        away = x - x.mean()
        loss, square = max(0.0, state @ x - self.settings.sensitivity), away @ away
        if self.settings.variant == "pamr-2":
            square += 0.5 / limit
        if loss == 0.0 or square < 1e-24:  # all moved alike: there is nothing to shift
            return state
        step = loss / square
        if self.settings.variant == "pamr-1":
            step = min(limit, step)
        return project_simplex(state - step * away)


@dataclass(frozen=True, kw_only=True)
class MovingAverageReversionSettings(OnlineSettings):
    """Settings of `moving_average_reversion`."""

    average: Literal["simple", "exponential"] = "simple"  # OLMAR-1 or OLMAR-2
    window: int = 5  # days of the simple average
    decay: float = 0.5  # weight of today in the exponential average
    threshold: float = 10.0  # epsilon: growth that is asked of the prediction

    def __post_init__(self) -> None:
        require(self, window="[2, inf)", decay="(0, 1]", threshold="[0, inf)")


class MovingAverageReversion(OnlineAgent):
    """OLMAR: prices are predicted to return to their moving average.

    x~ = MA(w) / p, b <- P(b + lambda (x~ - mean x~)), lambda = max(0, (epsilon - b.x~) /
    |x~ - mean x~|^2). In the first days the average is over the prices there are. The exponential
    form is x~ <- a + (1 - a) x~ / x, from x~ = 1.

    Source: Li & Hoi, On-line portfolio selection with moving average reversion (2012), algorithm 2.
    """

    Settings: ClassVar[type] = MovingAverageReversionSettings
    space: ClassVar[Space] = {"window": "2..30", "threshold": "1.0..20.0"}
    settings: MovingAverageReversionSettings

    @property
    def memory(self) -> int:
        """A window of prices holds one relative less."""
        return self.settings.window - 1

    def begin(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Equal parts, and the prediction that nothing moves."""
        return np.full(count, 1.0 / count), np.ones(count)

    def update(
        self, state: tuple[np.ndarray, np.ndarray], relatives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Towards what is predicted to rise, by the least that promises epsilon."""
        mix, ahead = state
        if self.settings.average == "exponential":
            decay = self.settings.decay
            ahead = decay + (1.0 - decay) * ahead / relatives[-1]
        else:
            earlier = 1.0 / np.multiply.accumulate(relatives[::-1])  # p_{t-1} / p_t, p_{t-2} / p_t
            ahead = (1.0 + np.add.reduce(earlier)) / (len(relatives) + 1)
        away = ahead - np.add.reduce(ahead) / len(ahead)
        square, lacking = away @ away, self.settings.threshold - mix @ ahead
        if lacking <= 0.0 or square < 1e-24:
            return mix, ahead
        return project_simplex(mix + lacking / square * away), ahead

    def mix(self, state: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The first part of the state."""
        return state[0]


@dataclass(frozen=True, kw_only=True)
class NewtonStepSettings(OnlineSettings):
    """Settings of `newton_step`."""

    smoothing: float = 0.0  # eta: share of the uniform mix that is blended in
    beta: float = 1.0
    delta: float = 0.125

    def __post_init__(self) -> None:
        require(self, smoothing="[0, 1]", beta="(0, inf)", delta="(0, inf)")


class NewtonStep(OnlineAgent):
    """ONS, the online Newton step.

    b = P_A(delta A^-1 c), A = I + sum g g', c = (1 + 1/beta) sum g, g = x / b.x, with P_A the
    projection on the simplex in the norm of A: the b that minimises b.A.b / 2 - delta c.b.

    Source: Agarwal, Hazan, Kale & Schapire, Algorithms for portfolio management based on the Newton
    method (2006), figure 1; A starts from the identity as in their experiments.
    """

    Settings: ClassVar[type] = NewtonStepSettings
    space: ClassVar[Space] = {
        "smoothing": "0.0..0.5",
        "beta": "0.1..2.0 log",
        "delta": "0.01..1.0 log",
    }
    settings: NewtonStepSettings

    def begin(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Equal parts, A and the sum of gradients."""
        return np.full(count, 1.0 / count), np.eye(count), np.zeros(count)

    def update(self, state: Any, relatives: np.ndarray) -> Any:
        """One gradient more, and the projection."""
        point, matrix, total = state
        x = relatives[-1]
        gradient = x / (point @ x)
        matrix, total = matrix + np.outer(gradient, gradient), total + gradient
        pull = self.settings.delta * (1.0 + 1.0 / self.settings.beta) * total
        return minimise_on_simplex(matrix, -pull, point), matrix, total

    def mix(self, state: Any) -> np.ndarray:
        """The point, blended with equal parts."""
        smoothing = self.settings.smoothing
        return (1.0 - smoothing) * state[0] + smoothing / len(state[0])


@dataclass(frozen=True, kw_only=True)
class UniversalSettings(OnlineSettings):
    """Settings of `universal`."""

    samples: int = 5_000  # constant mixes that stand for all of them
    seed: int = 0  # of the draw

    def __post_init__(self) -> None:
        require(self, samples="[1, inf)", seed="[0, inf)")


class Universal(OnlineAgent):
    """Cover's universal portfolio: the mean of all constant mixes, weighted by their wealth.

    b = sum b_j S_j / sum S_j over mixes b_j drawn uniformly from the simplex, S_j = prod b_j.x_t.

    Source: Cover, Universal portfolios (1991), eq. 1.3, by Monte Carlo.
    """

    Settings: ClassVar[type] = UniversalSettings
    settings: UniversalSettings

    def begin(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The mixes, all equally wealthy."""
        rng = np.random.default_rng(self.settings.seed)
        mixes = rng.dirichlet(np.ones(count), self.settings.samples)
        return mixes, np.full(len(mixes), 1.0 / len(mixes))

    def update(
        self, state: tuple[np.ndarray, np.ndarray], relatives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Wealth grows; it is kept as shares of the total."""
        mixes, wealth = state
        wealth = wealth * (mixes @ relatives[-1])
        return mixes, wealth / wealth.sum()

    def mix(self, state: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Mean over the wealth; before the first day exactly equal parts."""
        mixes, wealth = state
        if (wealth == wealth[0]).all():
            return np.full(mixes.shape[1], 1.0 / mixes.shape[1])
        return wealth @ mixes
