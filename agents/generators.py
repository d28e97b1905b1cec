"""States of the generators that libraries share: torch's, numpy's old one and Python's.

Our own code draws from generators that are passed in; stable-baselines3 draws from these. They are
put back last of all, since building networks and environments draws from them, too.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """As they stand."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002  # what stable-baselines3 draws from
        "python": random.getstate(),
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put back what `generator_states` gave."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])  # noqa: NPY002  # as above
    random.setstate(states["python"])
