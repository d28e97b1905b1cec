"""What the rest of a stable-baselines3 training depends on, at the start of a rollout.

There the last update is over and the next decision not made: parameters, optimisers, the games
through `CompactVecEnv`, replay, counters, what has been logged but not written, and the generators.
Its own `save` leaves out most of them, and its `load` draws new seeds and starts new episodes.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from sb3_contrib.common.recurrent.type_aliases import RNNStates

COUNTERS = (
    "num_timesteps",
    "exploration_rate",  # of DQN and QR-DQN, as is the next
    "_n_calls",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "_last_lstm_states",  # of recurrent PPO
)


class AlgorithmState:
    """An algorithm as a `Loop` (`agents.selection`).

    Args:
        model: A stable-baselines3 algorithm on a `CompactVecEnv`, with a logger of its own.

    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def snapshot(self) -> dict[str, Any]:
        """All but the generators that libraries share."""
        model = self.model
        _, variables = model._get_torch_save_params()
        kept = {
            "parameters": model.get_parameters(),
            "variables": {name: getattr(model, name) for name in variables or ()},
            "counters": {key: getattr(model, key) for key in COUNTERS if hasattr(model, key)},
            "games": model.env.snapshot(),
            "action_space": model.action_space.np_random.bit_generator.state,
            "episodes": [list(model.ep_info_buffer), list(model.ep_success_buffer)],
            "logged": {key: dict(getattr(model.logger, key)) for key in _LOGGED},
        }
        replay = getattr(model, "replay_buffer", None)
        return kept if replay is None else kept | {"replay": replay.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Make the algorithm go on at the start of that rollout; `learn` must not reset it."""
        model = self.model
        model.set_parameters(snapshot["parameters"], device=model.device)
        with torch.no_grad():
            for name, value in snapshot["variables"].items():
                getattr(model, name).copy_(value)
        for key, value in snapshot["counters"].items():
            setattr(model, key, value)
        states = snapshot["counters"].get("_last_lstm_states")
        if states is not None:
            model._last_lstm_states = RNNStates(*states)
        model.env.restore(snapshot["games"])
        model.action_space.np_random.bit_generator.state = snapshot["action_space"]
        model.ep_info_buffer, model.ep_success_buffer = (
            deque(kept, maxlen=model._stats_window_size) for kept in snapshot["episodes"]
        )
        for key in _LOGGED:
            getattr(model.logger, key).update(snapshot["logged"][key])
        if "replay" in snapshot:
            model.replay_buffer.restore(snapshot["replay"])


_LOGGED = ("name_to_value", "name_to_count", "name_to_excluded")
