"""Training by epochs until validation stops improving, and what makes it repeatable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agents.base import Monitor
from agents.generators import generator_states, set_generator_states
from market import SettingError


@dataclass(frozen=True)
class Schedule:
    """How long to train, and what the curves are called.

    Attributes:
        epochs: At most.
        patience: Epochs without a better validation loss before training stops.
        learning_rate: For the message when it diverges.
        name: What that message calls the model.
        part: Which member of an ensemble of how many; each has curves of its own.

    """

    epochs: int
    patience: int
    learning_rate: float
    name: str
    part: tuple[int, int] = (0, 1)


def train_epochs(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    epoch: Callable[[], float],
    score: Callable[[], float],
    schedule: Schedule,
    monitor: Monitor,
    *,
    kept: dict[str, Any] | None = None,
    beside: Callable[[], Any] = dict,
) -> None:
    """Train, and put back the state of the epoch that scored best.

    Args:
        network: Under training.
        optimiser: Of its parameters.
        epoch: One pass over the training rows; its mean loss.
        score: The loss on validation; called in evaluation mode, without gradients.
        schedule: How long.
        monitor: Told of both losses and of progress, and given checkpoints before each epoch.
        kept: The checkpoint to go on from.
        beside: What else a checkpoint must hold.

    Raises:
        SettingError: If no epoch had a finite validation loss.

    """
    best, best_epoch, best_state, first = math.inf, 0, network.state_dict(), 1
    member, members = schedule.part
    suffix = f"/{member}" if member else ""
    if kept is not None:
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        best, best_epoch, best_state, first = kept["best"]
        set_generator_states(kept["generators"])

    def snapshot() -> dict[str, Any]:
        return {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "best": (best, best_epoch, best_state, number),
            "generators": generator_states(),
            "beside": beside(),
        }

    for number in range(first, schedule.epochs + 1):
        monitor.checkpoint(snapshot)
        network.train()
        loss = epoch()
        network.eval()
        with torch.inference_mode():
            found = score()
        monitor.record(number, {f"train/loss{suffix}": loss, f"eval/loss{suffix}": found})
        monitor.progress((member + number / schedule.epochs) / members)
        if found < best:
            best, best_epoch = found, number
            best_state = {key: value.clone() for key, value in network.state_dict().items()}
        if number - best_epoch >= schedule.patience:
            break
    if not math.isfinite(best):
        raise SettingError(f"{schedule.name}: diverged at learning_rate {schedule.learning_rate}")
    network.load_state_dict(best_state)
    monitor.progress((member + 1) / members)


@contextmanager
def one_thread() -> Iterator[None]:
    """A single torch thread: faster on small networks, and the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Torch's global generator seeded, on one thread; both are put back afterwards."""
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        yield
