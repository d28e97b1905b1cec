"""Replay of compact observations, with returns over several steps.

A transition is two row numbers, two sets of weights, the action, the reward and how it ended: 300
bytes or less for 20 assets. Stable-baselines3 has returns over several steps for plain
observations only, so they are here; prioritised replay it does not have, and neither have we.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples


class CompactReplayBuffer(DictReplayBuffer):
    """Samples transitions of up to `n_steps` decisions.

    reward = sum over k < m of gamma^k r_k;  discount of the value after them = gamma^m

    m is `n_steps`, or less where the episode or what is stored ends first. The decisions after the
    first are those of the policy that played, as usual with such returns off policy.

    Args:
        n_steps: Rewards in a sample.
        gamma: Discount a step.

    """

    def __init__(self, *args: Any, n_steps: int = 1, gamma: float = 0.99, **more: Any) -> None:
        super().__init__(*args, **more)
        self.n_steps, self.gamma = n_steps, gamma

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: Any = None
    ) -> DictReplayBufferSamples:
        if self.n_steps == 1:
            return super()._get_samples(batch_inds, env)
        envs = np.random.randint(0, self.n_envs, len(batch_inds))  # noqa: NPY002  # as the others
        steps = np.arange(self.n_steps)
        places = (batch_inds[:, None] + steps) % self.buffer_size  # (B, n)
        over = self.dones[places, envs[:, None]] > 0.0
        over |= places == (self.pos - 1) % self.buffer_size  # the newest that is stored
        last = np.where(over.any(1), over.argmax(1), self.n_steps - 1)
        counted = self.gamma**steps * (steps <= last[:, None])
        reward = (self.rewards[places, envs[:, None]] * counted).sum(1, keepdims=True)
        first, final = (batch_inds, envs), (places[np.arange(len(last)), last], envs)
        done = self.dones[final] * (1.0 - self.timeouts[final])
        discount = self.gamma ** (last + 1.0)
        return DictReplayBufferSamples(
            {key: self.to_torch(stored[first]) for key, stored in self.observations.items()},
            self.to_torch(self.actions[first]),
            {key: self.to_torch(stored[final]) for key, stored in self.next_observations.items()},
            self.to_torch(done[:, None]),
            self.to_torch(reward.astype(np.float32)),
            self.to_torch(discount[:, None].astype(np.float32)),
        )
