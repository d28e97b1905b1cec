"""PPO's advantages against what the policy itself would have done on the same day.

The market does not react, so a day tells what any action would have earned on it and where it would
have left the portfolio. What was done is compared with the policy's own deterministic action:

    advantage(a) = r(a) + gamma V(t + 1, held after a) - r(m) - gamma V(t + 1, held after m)

The part of m is a baseline: it depends on the state and the market's move, not on a, so that the
gradient stays what it was in expectation (Mao et al., Variance reduction for reinforcement learning
in input-driven environments, 2019), and the day's chance is gone from it as far as a and m hold the
same. Values are learned as before, with `gae_lambda`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer

from agents.device import to_host

Baseline = Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]


class CounterfactualBuffer(DictRolloutBuffer):
    """A rollout whose advantages are over a baseline (steps, environments) that is asked for.

    Attributes:
        baseline: Of observations (S * B, ..) and of how many steps ago each was made, (S * B,).

    """

    baseline: Baseline

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Returns as always; advantages of one step."""
        super().compute_returns_and_advantage(last_values, dones)
        returns, gae_lambda = self.returns.copy(), self.gae_lambda
        self.gae_lambda = 0.0
        super().compute_returns_and_advantage(last_values, dones)
        self.gae_lambda = gae_lambda
        shape = self.rewards.shape
        steps_ago = np.repeat(np.arange(shape[0], 0, -1), shape[1])
        seen = {key: part.reshape(-1, *part.shape[2:]) for key, part in self.observations.items()}
        self.advantages = self.returns - self.baseline(seen, steps_ago).reshape(shape)
        self.returns = returns


def own_action(model: Any) -> Baseline:
    """What the deterministic action of a model's policy would have earned, and be worth later."""
    space, env = model.action_space, model.env

    def baseline(seen: dict[str, np.ndarray], steps_ago: np.ndarray) -> np.ndarray:
        shown = {key: torch.as_tensor(part, device=model.device) for key, part in seen.items()}
        with torch.no_grad():
            action = to_host(model.policy.get_distribution(shown).mode())
            if isinstance(space, spaces.Box):
                action = np.clip(action, space.low, space.high)
            rows, held = seen["time"][:, 0], seen["weights"]
            reward, after, alive = env.tried(rows, held, action, steps_ago)
            later = {
                "time": shown["time"] + 1,
                "weights": torch.as_tensor(after, dtype=torch.float32, device=model.device),
            }
            value = to_host(model.policy.predict_values(later)[:, 0])
        result: np.ndarray = reward + model.gamma * alive * value
        return result

    return baseline
