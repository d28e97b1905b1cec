"""Short trainings and what came of them; renews `golden_training.json`, or prints runs by name.

The file holds every setting of each run, so that new defaults change nothing here. Where a change
of results is meant, or versions have moved, renew it and say why:

    OMP_NUM_THREADS=1 python tests/golden_training.py
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

from agents import AGENTS
from agents.base import Task
from agents.rollout import roll
from agents.settings import build_settings
from envs.costs import ProportionalCost
from market import Market
from market.measures import sharpe_ratio

FILE = Path(__file__).with_name("golden_training.json")
GOLDEN: dict[str, Any] = json.loads(FILE.read_text())
LIBRARIES = ("torch", "numpy", "stable-baselines3")
TRAINED, JUDGED = 120, 160


def world() -> Market:
    """Three assets, of which the first two follow their own last move, and cash."""
    rng = np.random.default_rng(11)
    moves = rng.normal(0.001, 0.01, (JUDGED, 3))
    for row in range(1, JUDGED):
        moves[row, :2] += 0.7 * moves[row - 1, :2]
    prices = 100.0 * np.exp(np.cumsum(moves, axis=0))
    dates = pd.bdate_range("2010-01-04", periods=JUDGED)
    return Market.from_prices(pd.DataFrame(prices, dates, ["a", "b", "c"]), cash_rate=0.02)


def train(name: str) -> dict[str, Any]:
    """A run of the golden file: sha256 of the weights, and figures of the validation span."""
    run, market = GOLDEN["runs"][name], world()
    task = Task(reward="log_return", cost=ProportionalCost(0.001))
    agent = AGENTS[run["agent"]](**run["settings"])
    agent.fit(market[:TRAINED], market[TRAINED:], task=task, seed=0)
    path = roll(agent, market, task, start=market.dates[TRAINED])
    means = zip(market.assets, path.targets.mean(0), strict=True)
    figures = {
        "sharpe": sharpe_ratio(
            path.returns, path.risk_free, periods_per_year=market.periods_per_year
        ),
        "turnover": path.turnover.sum(),
        **{f"mean weight of {asset}": mean for asset, mean in means},
    }
    return {
        "weights": weights_digest(agent),
        "figures": {key: float(value) for key, value in figures.items()},
    }


def weights_digest(agent: Any) -> str:
    """sha256 of every tensor that is stored, by name, in order of the names."""
    total, count = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory() as folder:
        agent.save(Path(folder))
        for file in sorted(Path(folder).rglob("*.safetensors")):
            for key, array in sorted(load_file(file).items()):
                total.update(f"{key} {array.dtype} {array.shape}\n".encode() + array.tobytes())
                count += 1
    assert count > 0
    return total.hexdigest()


def versions() -> dict[str, str]:
    return {library: importlib.metadata.version(library) for library in LIBRARIES}


def processor() -> dict[str, str]:
    """What torch takes of the processor, and its name: matrix libraries choose by both."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    level = torch.backends.cpu.get_cpu_capability()
    return {"level": level, "name": names[0] if names else platform.processor()}


def renew() -> None:
    """Run all anew; settings stay as they are, those that are new get their defaults of today."""
    for run in GOLDEN["runs"].values():
        kind = AGENTS[run["agent"]].Settings
        run["settings"] = dataclasses.asdict(build_settings(kind, run["settings"], run["agent"]))
    runs = {name: GOLDEN["runs"][name] | train(name) for name in GOLDEN["runs"]}
    made = {"versions": versions(), "processor": processor(), "runs": runs}
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps({name: train(name) for name in sys.argv[1:]}))
    else:
        renew()
