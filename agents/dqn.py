"""Deep Q-learning (Mnih et al. 2015) over a lattice of allocations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import DQN

from agents.sb3 import SB3Agent, SB3Settings
from agents.settings import require
from envs.actions import ActionMap, Lattice


@dataclass(frozen=True, kw_only=True)
class DQNSettings(SB3Settings):
    """Settings of `dqn`."""

    lattice: int = 4  # weights in steps of 1/lattice
    steps: int = 50_000
    num_envs: int = 16
    buffer_size: int = 100_000
    batch_size: int = 256
    train_every: int = 4  # steps of all environments between updates
    updates: int = 2  # gradient steps at each
    learning_starts: int = 2_000
    target_update_interval: int = 1_000
    exploration_fraction: float = 0.3
    exploration_final_eps: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, lattice="[1, inf)")


class DQNAgent(SB3Agent):
    """Values every allocation of a lattice; acts by the best."""

    Settings: ClassVar[type[SB3Settings]] = DQNSettings

    def algorithm(self) -> Any:
        """Stable-baselines3's DQN."""
        return DQN

    def actions(self) -> ActionMap:
        """All weights in steps of 1/lattice."""
        return Lattice(self.settings.lattice)

    def model_settings(self) -> dict[str, Any]:
        """DQN's own."""
        keys = ("buffer_size", "batch_size", "learning_starts", "target_update_interval")
        keys += ("exploration_fraction", "exploration_final_eps")  # type: ignore[assignment]
        own = {key: getattr(self.settings, key) for key in keys}
        settings = self.settings
        return own | {"train_freq": settings.train_every, "gradient_steps": settings.updates}
