"""PPO's advantages against what the policy itself would have done on the same days.

The market does not react, so the days that came tell what any action would have earned on them and
where it would have left the portfolio. What was done is compared with the policy's own
deterministic action m, each held for K days:

    worth(a) = sum over k < K of gamma^k r_k(a) + gamma^K V(t + K, what is held then)
    advantage(a) = worth(a) - worth(m)

worth(m) is a baseline: it depends on the state and the market's moves, not on a, so that for K = 1
the gradient stays what it was in expectation (Mao et al., Variance reduction for reinforcement
learning in input-driven environments, 2019), and the days' chance is gone from it as far as a and m
hold the same. With K > 1 both hold where the policy might have traded: what an action is good for
shows in a few days' returns and not in small differences of V alone, for some bias. Values are
learned as before, with `gae_lambda`.

Agents that learn from a replay can do the same: `TryingReplayBuffer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples

from agents.device import to_host
from agents.replay import CompactReplayBuffer, CompactRolloutBuffer

Seen = dict[str, np.ndarray]
Advantage = Callable[[Seen, np.ndarray, np.ndarray], np.ndarray]


class CounterfactualBuffer(CompactRolloutBuffer):
    """A rollout whose advantages are asked for.

    Attributes:
        advantage: Of actions (M, ..) over the policy's own, given observations (M, ..) and how many
            steps ago each was made, (M,).

    """

    advantage: Advantage

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Returns as always; advantages by simulation."""
        super().compute_returns_and_advantage(last_values, dones)
        n_steps, n_envs = self.rewards.shape
        steps_ago = np.repeat(np.arange(n_steps, 0, -1), n_envs)
        seen = {key: _flat(part) for key, part in self.observations.items()}
        found = self.advantage(seen, _flat(self.actions), steps_ago)
        self.advantages = found.reshape(n_steps, n_envs).astype(np.float32)


def over_own_action(model: Any, days: int) -> Advantage:
    """Over the deterministic action of a model's policy; `days` is K."""
    space, env = model.action_space, model.env

    def worth(seen: Seen, actions: np.ndarray, steps_ago: np.ndarray) -> np.ndarray:
        if isinstance(space, spaces.Box):
            actions = np.clip(actions, space.low, space.high)
        rows, held = seen["time"][:, 0], seen["weights"]
        came = env.tried(rows, held, actions, steps_ago, model.gamma, days)
        later = {
            "time": torch.as_tensor(came.rows[:, None], device=model.device),
            "weights": torch.as_tensor(came.weights, dtype=torch.float32, device=model.device),
        }
        values = to_host(model.policy.predict_values(later)[:, 0])
        result: np.ndarray = came.reward + came.discount * values
        return result

    def advantage(seen: Seen, actions: np.ndarray, steps_ago: np.ndarray) -> np.ndarray:
        shown = {key: torch.as_tensor(part, device=model.device) for key, part in seen.items()}
        with torch.no_grad():
            own = to_host(model.policy.get_distribution(shown).mode())
            return worth(seen, actions, steps_ago) - worth(seen, own, steps_ago)

    return advantage


def _flat(part: np.ndarray) -> np.ndarray:
    """(steps, environments, ..) -> (M, ..)."""
    return part.reshape(-1, *part.shape[2:])


class TryingReplayBuffer(CompactReplayBuffer):
    """A replay that tries actions anew with the holdings that are stored, on stored days or all.

    Every other action of a sample is drawn at random, the others are those taken; each is held for
    so many days. One stored day then teaches as many actions as it is sampled.

    Attributes:
        env: Whose rules say what comes of actions.
        days: See this module's head.
        even_days: Whether days are dealt like cards instead of those stored: each of the market's
            comes once before any comes again, so that none counts for more than another.

    """

    env: Any
    days: int
    even_days: bool = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._hand = np.zeros(0, np.int64)  # rows of observations that are still to be dealt

    def snapshot(self) -> dict[str, Any]:
        """With what is still to be dealt."""
        return super().snapshot() | {"hand": self._hand}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        super().restore(snapshot)
        self._hand = snapshot["hand"]

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: Any = None
    ) -> DictReplayBufferSamples:
        stored = super()._get_samples(batch_inds, env)
        seen = stored.observations
        if self.even_days:
            seen = seen | {"time": self._tensor(self._deal(len(batch_inds))[:, None])}
        rows, held = (to_host(seen[key]) for key in ("time", "weights"))
        taken, space = to_host(stored.actions), self.env.action_space
        fresh = self.rng.uniform(-1.0, 1.0, taken.shape).astype(np.float32)
        actions = np.where(self.rng.random((len(taken), 1)) < 0.5, fresh, taken)
        asked = space.low + 0.5 * (actions + 1.0) * (space.high - space.low)
        now = np.zeros(len(rows), np.int64)
        came = self.env.tried(rows[:, 0], held, asked, now, self.gamma, self.days)
        after = {"time": came.rows[:, None], "weights": came.weights.astype(np.float32)}
        ended = (came.discount == 0.0) & (self.gamma > 0.0)
        return DictReplayBufferSamples(
            seen,
            self._tensor(actions),
            {key: self._tensor(part) for key, part in after.items()},
            self._tensor(ended[:, None].astype(np.float32)),
            self._tensor(came.reward[:, None].astype(np.float32)),
            self._tensor(came.discount[:, None].astype(np.float32)),
        )

    def _deal(self, number: int) -> np.ndarray:
        """The next rows (number,) of shuffled hands that hold each row of a decision once."""
        rules = self.env.games.rules
        while len(self._hand) < number:
            rows = np.arange(rules.first, rules.last) - rules.decision_lag
            self._hand = np.concatenate([self._hand, self.rng.permutation(rows)])
        dealt, self._hand = self._hand[:number], self._hand[number:]
        return dealt
