"""Compact observations that were played, kept to learn from: rollouts and replay.

A transition is two row numbers, two sets of weights, the action, the reward and how it ended: 300
bytes or less for 20 assets. Stable-baselines3 has returns over several steps for plain
observations only, so they are here; prioritised replay it does not have, and neither have we.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer
from stable_baselines3.common.type_aliases import (
    DictReplayBufferSamples,
    DictRolloutBufferSamples,
)

_FLAT = ("actions", "rewards", "dones", "timeouts")


class CompactRolloutBuffer(DictRolloutBuffer):
    """Minibatches of a rollout, each in the order of its days.

    Which decisions meet in a minibatch is drawn as always; their order in it changes sums by
    rounding alone, and rows of an encoded market are read faster in the order of time.
    """

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: Any = None
    ) -> DictRolloutBufferSamples:
        days = self.observations["time"][:, 0].take(batch_inds)
        chosen = batch_inds.take(days.argsort(kind="stable"))

        def shown(stored: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(stored.take(chosen, axis=0)).to(self.device)

        return DictRolloutBufferSamples(
            {key: shown(part) for key, part in self.observations.items()},
            shown(self.actions.astype(np.float32, copy=False)),
            shown(self.values).flatten(),
            shown(self.log_probs).flatten(),
            shown(self.advantages).flatten(),
            shown(self.returns).flatten(),
        )


class CompactReplayBuffer(DictReplayBuffer):
    """Samples transitions of up to `n_steps` decisions.

    reward = sum over k < m of gamma^k r_k;  discount of the value after them = gamma^m

    m is `n_steps`, or less where the episode or what is stored ends first. The decisions after the
    first are those of the policy that played, as usual with such returns off policy.

    Args:
        n_steps: Rewards in a sample.
        gamma: Discount a step.
        seed: Of what is sampled.

    """

    def __init__(
        self, *args: Any, n_steps: int = 1, gamma: float = 0.99, seed: int = 0, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.n_steps, self.gamma = n_steps, gamma
        self.rng = np.random.default_rng(seed)

    def snapshot(self) -> dict[str, Any]:
        """What is stored, without the room that is still empty, and the generator."""
        stored = slice(None if self.full else self.pos)
        parts = {
            key: {name: part[stored] for name, part in getattr(self, key).items()}
            for key in ("observations", "next_observations")
        }
        flat = {key: getattr(self, key)[stored] for key in _FLAT}
        place = {"pos": self.pos, "full": self.full}
        return parts | flat | place | {"rng": self.rng.bit_generator.state}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.pos, self.full = snapshot["pos"], snapshot["full"]
        stored = slice(None if self.full else self.pos)
        for key in ("observations", "next_observations"):
            for name, part in getattr(self, key).items():
                part[stored] = snapshot[key][name]
        for key in _FLAT:
            getattr(self, key)[stored] = snapshot[key]
        self.rng.bit_generator.state = snapshot["rng"]

    def sample(  # type: ignore[override]
        self, batch_size: int, env: Any = None
    ) -> DictReplayBufferSamples:
        """Transitions drawn at random, with replacement, from all that are stored."""
        return self._get_samples(self.rng.integers(self.size(), size=batch_size), env)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: Any = None
    ) -> DictReplayBufferSamples:
        envs = self.rng.integers(self.n_envs, size=len(batch_inds))
        places, last = self._ends(batch_inds, envs)
        reward, discount = self._at(self.rewards, places[:, 0], envs), self.gamma ** (last + 1.0)
        for j in range(1, self.n_steps):
            more = self._at(self.rewards, places[:, j], envs)
            reward = reward + np.where(j <= last, self.gamma**j * more, 0.0)
        final = places[np.arange(len(last)), last]
        ended = self._at(self.dones, final, envs) * (1.0 - self._at(self.timeouts, final, envs))
        return DictReplayBufferSamples(
            self._shown(self.observations, batch_inds, envs),
            self._tensor(self._at(self.actions, batch_inds, envs)),
            self._shown(self.next_observations, final, envs),
            self._tensor(ended[:, None]),
            self._tensor(reward[:, None].astype(np.float32)),
            self._tensor(discount[:, None].astype(np.float32)),
        )

    def _ends(self, places: np.ndarray, envs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the decisions that follow (B, n), and which of them is the last, (B,)."""
        steps = np.arange(self.n_steps)
        following = (places[:, None] + steps) % self.buffer_size
        if self.n_steps == 1:
            return following, np.zeros(len(places), np.int64)
        over = self.dones[following, envs[:, None]] > 0.0
        over |= following == (self.pos - 1) % self.buffer_size  # the newest that is stored
        return following, np.where(over.any(1), over.argmax(1), self.n_steps - 1)

    def _shown(self, stored: dict[str, np.ndarray], places: np.ndarray, envs: np.ndarray) -> Any:
        return {key: self._tensor(self._at(part, places, envs)) for key, part in stored.items()}

    def _at(self, stored: np.ndarray, places: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Of an array (size, environments, ..), the chosen rows (B, ..)."""
        rows = stored.reshape(-1, *stored.shape[2:])
        chosen: np.ndarray = rows.take(places * self.n_envs + envs, axis=0)
        return chosen

    def _tensor(self, fresh: np.ndarray) -> torch.Tensor:
        """On the device; the array is ours, so the host needs no copy of it."""
        return torch.from_numpy(fresh).to(self.device)


class TakenReplayBuffer(CompactReplayBuffer):
    """A replay for values of choices, of which only the one that was taken need be worked out.

    It is part of what is shown, as "taken", and what is to be picked out of the answer is number 0.
    With a discount of 0 nothing that follows counts, and there, too, one choice is answer enough.
    """

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: Any = None
    ) -> DictReplayBufferSamples:
        stored = super()._get_samples(batch_inds, env)
        following, first = stored.next_observations, torch.zeros_like(stored.actions)
        return stored._replace(
            observations=stored.observations | {"taken": stored.actions},
            actions=first,
            next_observations=following if self.gamma else following | {"taken": first},
        )
