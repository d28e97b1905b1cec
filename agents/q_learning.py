"""Q-learning from every allocation at once.

One day reveals what each allocation would have earned and where it would have left the portfolio.
A population of portfolios plays side by side; each step simulates, from each of them, every point
of the lattice and not trading, in one call of the environments' own rules, and learns from all:

    W(t, w) <- reward(t, held -> w) + price(held, w) + gamma * V(t + 1, w drifted)
    V(t, held) = max(max_w W(t, w) - price(held, w), W(t, held))

Then each portfolio goes one of these ways: mostly the best one. No replay is needed, since a
population that starts on random days with random holdings is a fresh sample at every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.allocation_values import AllocationValues, fitted_prices
from agents.device import to_host
from agents.selection import Selection
from envs.game_state import plain_state, state_of
from envs.rules import GameState, Rules

WARM_UP = 32  # steps at random before the price of trades is measured


class Trials(NamedTuple):
    """What came of all choices from all portfolios: B portfolios, A + 1 choices, N assets."""

    following: GameState  # leading shape (B * (A + 1),)
    rows: Tensor  # (B,) newest row that is known at the decision
    held: Tensor  # (B, N) when the trade was made
    target: Tensor  # (B, A + 1, N) what was held after it: limits may move what was chosen
    drifted: Tensor  # (B, A + 1, N) a day later
    reward: Tensor  # (B, A + 1) scaled
    alive: Tensor  # (B, A + 1) 0 where the portfolio is ruined


class Population:
    """Portfolios that play side by side, each trying every choice at every step.

    Args:
        rules: Of the game, with simplex weights as actions.
        points: The lattice, (A, N).
        size: B.
        scale: Of rewards.
        rng: Of starts and holdings.
        device: Of what is learned from.
        less_market: Whether rewards are less the log growth of equal weights, see `agents.sb3_env`.
        even_starts: Whether portfolios that start together are spread evenly over the days.

    """

    def __init__(
        self,
        rules: Rules,
        points: np.ndarray,
        size: int,
        scale: float,
        rng: np.random.Generator,
        device: str = "cpu",
        less_market: bool = False,
        even_starts: bool = False,
    ) -> None:
        self.less_market, self.even_starts = less_market, even_starts
        self._market_growth = np.log(rules.relatives.mean(axis=1))  # (T,)
        self.rules, self.points, self.scale = rules, points, scale
        self.rng, self.device = rng, device
        self.state = self._fresh(size)

    def snapshot(self) -> dict[str, Any]:
        """Where every portfolio stands, and the generator."""
        return {"state": plain_state(self.state), "rng": self.rng.bit_generator.state}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.state = state_of(snapshot["state"])
        self.rng.bit_generator.state = snapshot["rng"]

    def trials(self) -> Trials:
        """Try everything, move nobody."""
        state, n_assets = self.state, self.points.shape[1]
        held = state.portfolio.weights
        size, n_choices = len(held), len(self.points) + 1
        chosen = np.empty((size, n_choices, n_assets))
        chosen[:, :-1], chosen[:, -1] = self.points, held
        spread = _map(lambda array: np.repeat(array, n_choices, axis=0), state)
        following, outcome = self.rules.advance(spread, chosen.reshape(-1, n_assets))
        made = outcome.transition
        return Trials(
            following,
            torch.as_tensor(state.t - self.rules.decision_lag, device=self.device),
            self._tensor(held),
            self._tensor(made.target.reshape(chosen.shape)),
            self._tensor(following.portfolio.weights.reshape(chosen.shape)),
            self._tensor(self.scale * self._counted(outcome.reward, spread.t, n_choices)),
            self._tensor(~outcome.terminated.reshape(size, n_choices)),
        )

    def prices(self) -> tuple[Tensor, Tensor]:
        """What trades cost in reward, see `AllocationValues`: days with and without each trade.

        Measured after some steps at random, so that rewards with a memory have one.
        """
        n_choices = len(self.points) + 1
        for _ in range(WARM_UP):
            trials = self.trials()
            self.move(trials, self.rng.integers(n_choices, size=len(trials.rows)))
        trials = self.trials()
        prices = self._without_trade(trials) - trials.reward
        trades = trials.target - trials.held.unsqueeze(1)
        return fitted_prices(trades.flatten(0, 1), prices.flatten())

    def move(self, trials: Trials, choices: np.ndarray) -> None:
        """Every portfolio goes the way chosen for it, (B,); episodes that ended start anew."""
        size, n_choices = trials.reward.shape
        places = np.arange(size) * n_choices + choices
        state = _map(lambda array: array[places], trials.following)
        ended = (state.t >= state.end) | (state.portfolio.value <= self.rules.ruin)
        if ended.any():
            where = np.flatnonzero(ended)
            fresh = self._fresh(len(where))
            state = _join(state, fresh, where)
        self.state = state

    def _without_trade(self, trials: Trials) -> Tensor:
        """Rewards (B, A + 1) had the targets been held all along."""
        n_choices, n_assets = trials.target.shape[1:]
        target = to_host(trials.target.reshape(-1, n_assets).double())
        target /= target.sum(-1, keepdims=True)
        state = _map(lambda array: np.repeat(array, n_choices, axis=0), self.state)
        state = state._replace(portfolio=state.portfolio._replace(weights=target))
        _, outcome = self.rules.advance(state, target)
        return self._tensor(self.scale * self._counted(outcome.reward, state.t, n_choices))

    def _counted(self, reward: np.ndarray, rows: np.ndarray, n_choices: int) -> np.ndarray:
        """Rewards (B, A + 1) of decisions at rows, less the market's growth where that is asked."""
        if self.less_market:
            reward = reward - self._market_growth[rows + 1]
        return reward.reshape(-1, n_choices)

    def _fresh(self, size: int) -> GameState:
        """Random days; holdings between two random points of the lattice."""
        starts = self._evenly(size) if self.even_starts else self._anywhere(size)
        a, b = self.points[self.rng.integers(len(self.points), size=(2, size))]
        share = self.rng.random((size, 1))
        return self.rules.initial(starts, share * a + (1.0 - share) * b)

    def _anywhere(self, size: int) -> np.ndarray:
        """Rows (size,) drawn one by one."""
        return np.array([self.rules.start_row(None, self.rng) for _ in range(size)])

    def _evenly(self, size: int) -> np.ndarray:
        """Rows (size,) at equal distances, from a random first one on.

        In as many steps as lie between two of them the portfolios see each day once: what is
        learned from these steps has no chance in it but that of holdings.
        """
        places = (np.arange(size) + self.rng.random()) / size
        days = self.rules.last_start + 1 - self.rules.first
        return self.rules.first + (days * places).astype(np.int64)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)


class QLearner:
    """Trains `AllocationValues`; between updates it is wholly described by its attributes.

    Args:
        values: The network.
        population: Where it learns.
        settings: Of `dqn`.
        seed: Of exploration.

    Attributes:
        step: Decisions made, over all portfolios.
        updates: Gradient steps made.
        slow: The copy that values tomorrow.
        optimizer: With its moments.
        rng: Of exploration; the population has its own, and its portfolios.

    """

    def __init__(
        self, values: AllocationValues, population: Population, settings: Any, seed: int
    ) -> None:
        self.values, self.population, self.settings = values, population, settings
        self.step = self.updates = 0
        self.rng = np.random.default_rng([seed, 1])
        self.slow = copy.deepcopy(values).requires_grad_(False)
        self.slow.train(False)
        self.optimizer = torch.optim.Adam(values.parameters(), lr=settings.learning_rate)

    def learn(self, selection: Selection) -> None:
        """Play and learn for `steps` decisions."""
        selection.follow(self)
        while self.step < self.settings.steps and not selection.stopped:
            selection.look(self.step)
            loss = self.advance()
            selection.check(self.step, loss)
            if self.updates % self.settings.log_every == 0:
                selection.monitor.record(self.step, {"train/loss": float(loss)})
                selection.progress(self.step)
        selection.end(self.step)

    def snapshot(self) -> dict[str, Any]:
        """See `agents.selection.Loop`."""
        return {
            "values": self.values.state_dict(),
            "slow": self.slow.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "population": self.population.snapshot(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
            "updates": self.updates,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """See `agents.selection.Loop`."""
        self.values.load_state_dict(snapshot["values"])
        self._renew()  # so that it reads the market
        self.slow.load_state_dict(snapshot["slow"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.population.restore(snapshot["population"])
        self.rng.bit_generator.state = snapshot["rng"]
        self.step, self.updates = snapshot["step"], snapshot["updates"]

    def advance(self) -> Tensor:
        """One decision of every portfolio, and one gradient step; its loss."""
        left = 1.0 - self.step / self.settings.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(left)
        if self.updates % self.settings.target_every == 0:
            self._renew()
        trials = self.population.trials()
        loss, worth = self._update(trials)
        self.population.move(trials, self._ways(trials, worth, left))
        self.step, self.updates = self.step + len(trials.rows), self.updates + 1
        return loss

    def _renew(self) -> None:
        """Copy the parameters to the slow network, which stands still until the next time."""
        self.slow.load_state_dict(self.values.state_dict())
        self.slow.panel.show(self.values.panel.panel, still=True)

    def _update(self, trials: Trials) -> tuple[Tensor, Tensor]:
        """One gradient step on all choices of all portfolios; loss, and W as it was before."""
        goal = self.goal(trials)
        self.values.train(True)
        worth = self.values(trials.rows, trials.target)
        loss = (worth - goal).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.values.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.values.train(False)
        return loss.detach(), worth.detach()

    @torch.no_grad()
    def goal(self, trials: Trials) -> Tensor:
        """What W should be for each target, (B, A + 1).

        Where limits move targets, the points within reach tomorrow are taken to be today's.
        """
        price = self.values.price(trials.held.unsqueeze(1), trials.target).squeeze(1)
        if self.settings.gamma == 0.0:  # nothing later counts, so it need not be valued
            return trials.reward + price
        rows, n_choices = trials.rows + 1, trials.reward.shape[1]
        points = trials.target[:, :-1]
        ways = torch.cat([points, trials.drifted], 1)
        cost = self.values.price(trials.drifted, points)  # (B, A + 1, A)
        slow = _after(self.slow(rows, ways), cost, n_choices)
        if self.settings.double:
            best = _after(self.values(rows, ways), cost, n_choices).argmax(-1, keepdim=True)
            future = slow.gather(-1, best).squeeze(-1)
        else:
            future = slow.amax(-1)
        return trials.reward + price + self.settings.gamma * trials.alive * future

    def _ways(self, trials: Trials, worth: Tensor, left: float) -> np.ndarray:
        """The best choice, or with a probability that falls, any."""
        settings = self.settings
        price = self.values.price(trials.held.unsqueeze(1), trials.target).squeeze(1)
        best = to_host((worth - price).argmax(1))
        done = min(1.0, (1.0 - left) / settings.exploration_fraction)
        epsilon = 1.0 + done * (settings.exploration_final_eps - 1.0)
        anything = self.rng.integers(worth.shape[1], size=len(best))
        return np.where(self.rng.random(len(best)) < epsilon, anything, best)


def _after(worth: Tensor, cost: Tensor, n_choices: int) -> Tensor:
    """Values (B, A + 1, A + 1) of going on to each point, or holding, from each drifted holding."""
    points, held = worth[:, :-n_choices], worth[:, -n_choices:]
    return torch.cat([points.unsqueeze(1) - cost, held.unsqueeze(2)], 2)


def _map(function: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """The function of every array in tuples and dicts of arrays."""
    if isinstance(state, dict):
        return {key: _map(function, value) for key, value in state.items()}
    if isinstance(state, tuple):
        return type(state)(*(_map(function, value) for value in state))
    return function(state)


def _join(state: Any, fresh: Any, where: np.ndarray) -> Any:
    """The state with rows `where` from `fresh`."""
    if isinstance(state, dict):
        return {key: _join(state[key], fresh[key], where) for key in state}
    if isinstance(state, tuple):
        return type(state)(*(_join(a, b, where) for a, b in zip(state, fresh, strict=True)))
    joined = state.copy()
    joined[where] = fresh
    return joined
