"""kill -9 at random instants, or too little memory: a run that died ends as one that did not."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.checkpoints import Checkpoints
from market.sources.download_cache import DownloadCache
from tests.conftest import write_prices

DATES = pd.bdate_range("2020-01-01", periods=90)
SMALL = {"lookback": 5, "width": 4, "depth": 1}
RL = SMALL | {"num_envs": 4, "episode_length": 12, "evaluations": 2}
AGENTS: dict[str, dict[str, Any]] = {
    "ppo": RL | {"name": "ppo", "steps": 192, "n_steps": 4, "batch_size": 16, "n_epochs": 2},
    "sac": RL | {"name": "sac", "steps": 80, "learning_starts": 16, "batch_size": 8},
    "dqn": RL | {"name": "dqn", "steps": 64},
    "policy_gradient": SMALL
    | {"name": "policy_gradient", "steps": 10, "evaluations": 2, "segments": 4}
    | {"segment_length": 8},
    "lstm": {"name": "lstm", "lookback": 5, "hidden": 4, "epochs": 20, "patience": 20}
    | {"volatility_window": 10},
}
ENSEMBLE = {
    "name": "ensemble",
    "period": "week",
    "members": "equal_weight, policy_gradient(lookback=5, width=4, depth=1, steps=6, segments=4, "
    "segment_length=8, evaluations=2), lstm(lookback=5, hidden=4, epochs=10, patience=10, "
    "volatility_window=10)",
}


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return str(write_prices(tmp_path_factory.mktemp("data"), DATES))


def left_behind(run: Path) -> dict[str, str]:
    """Digest of each file that tells of numbers; nothing of when or how often it was started."""
    names = ("metrics.jsonl", "backtest.parquet", "robustness.parquet")
    model = sorted(path for path in (run / "model").rglob("*") if path.is_file())
    files = [run / name for name in names] + model
    return {str(path.relative_to(run)): digest(path) for path in files}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("agent", "kills"),
    [
        *((agent, 10) for agent in AGENTS),
        *(pytest.param(agent, 50, marks=pytest.mark.soak) for agent in [*AGENTS, "ensemble"]),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(forks, prices, tmp_path, agent, kills):
    rng = np.random.default_rng(kills)
    settings = AGENTS.get(agent, ENSEMBLE)
    config = {"prices": prices, "agent": settings, "checkpoint_every": 0.0}

    def run(results: Path, kill_after: float | None = None) -> int:
        given = config | {"results": str(results)}
        return forks.run("train", kill_after=kill_after, config=given)

    shortest = np.inf
    for _ in range(2):  # the first one pays for what is imported and made at its first use
        shutil.rmtree(tmp_path / "whole", ignore_errors=True)
        started = time.monotonic()
        assert run(tmp_path / "whole") == 0, forks.said()
        shortest = min(shortest, time.monotonic() - started)
    place = f"train/{agent}/seed_000"
    expected = left_behind(tmp_path / "whole" / place)
    landed = 0
    for number in range(10 * kills):
        results = tmp_path / str(number)
        started = time.monotonic()
        status = run(results, rng.uniform(0.1, 0.9) * shortest)
        if status == -9:
            landed += 1
            assert run(results) == 0, forks.said()
        else:  # it was done before the kill came
            shortest = min(shortest, time.monotonic() - started)
        assert left_behind(results / place) == expected, f"kill {number}"
        assert not (results / place / "checkpoints").exists()
        if landed == kills:
            return
    pytest.fail(f"{landed} of {kills} kills came before the run was done")


def test_many_kills_of_one_run(forks, prices, tmp_path):
    """Each start gets a little further, from the checkpoint of the one before."""
    config = {"prices": prices, "agent": AGENTS["dqn"], "checkpoint_every": 0.0}
    started = time.monotonic()
    whole = config | {"results": str(tmp_path / "whole")}
    assert forks.run("train", config=whole) == 0, forks.said()
    took = time.monotonic() - started
    cut = config | {"results": str(tmp_path / "cut")}
    statuses = [forks.run("train", kill_after=0.6 * took, config=cut) for _ in range(5)]
    if statuses[-1] != 0:
        assert forks.run("train", config=cut) == 0, forks.said()
    place = "train/dqn/seed_000"
    assert left_behind(tmp_path / "cut" / place) == left_behind(tmp_path / "whole" / place)


def test_a_killed_walk_forward_keeps_its_finished_windows(forks, prices, tmp_path):
    agent = AGENTS["ppo"] | {"steps": 96}
    walk = {"start": f"{DATES[50]:%Y-%m-%d}", "refit_every": 14, "valid_days": 15}
    config = {"prices": prices, "agent": agent, "walk": walk, "checkpoint_every": 0.0}
    started = time.monotonic()
    whole = config | {"results": str(tmp_path / "whole")}
    assert forks.run("train", config=whole) == 0, forks.said()
    took = time.monotonic() - started
    place = "train/ppo/seed_000"
    expected = left_behind(tmp_path / "whole" / place)
    for number, share in enumerate((0.35, 0.55, 0.75)):
        cut = config | {"results": str(tmp_path / str(number))}
        path = tmp_path / str(number) / place
        status = forks.run("train", kill_after=share * took, config=cut)
        finished = {
            file: (file.read_bytes(), file.stat().st_mtime_ns)
            for file in path.glob("windows/[0-9]*/**/*")
            if file.is_file()
        }
        if status == -9:
            assert forks.run("train", config=cut) == 0, forks.said()
        now = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished}
        assert now == finished
        assert left_behind(path) == expected
        ours, theirs = (
            {file.relative_to(root): file.read_bytes() for file in root.glob("windows/*/model/*")}
            for root in (path, tmp_path / "whole" / place)
        )
        assert ours == theirs and len(ours) == 9
        assert not list(path.glob("windows/.*"))


def test_a_kill_at_any_line_of_saving_leaves_the_old_checkpoint_or_the_new(forks, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    Checkpoints(folder).save({"value": 1}, {})
    found = []
    for line in range(1, 1000):
        again = tmp_path / str(line)
        shutil.copytree(folder, again)
        status = forks.run("save", folder=str(again), line=line)
        newest = Checkpoints(again).newest()
        assert newest is not None and newest.damaged == []
        found.append(newest.state["value"])
        shutil.rmtree(again)
        if status == 0:
            break
        assert status == 9
    assert found == sorted(found)  # the old one, and from some line on the new one
    assert found.count(1) > 30 and found.count(2) > 3


def test_a_kill_at_any_line_of_storing_a_download_leaves_the_old_copy_or_the_new(forks, tmp_path):
    """B16: of data and entry, each by its own rename."""

    def copy(folder: Path) -> Any:
        stored = DownloadCache("vendor", folder).read("A")
        assert stored is not None
        return stored.frame["value"].tolist()

    frame = pd.DataFrame({"value": [1.0]}, pd.DatetimeIndex(["2020-01-01"], name="date"))
    DownloadCache("vendor", tmp_path / "old").write("A", frame, {})
    found = []
    for line in range(1, 1000):
        again = tmp_path / str(line)
        shutil.copytree(tmp_path / "old", again)
        status = forks.run("keep", folder=str(again), line=line)
        found.append(copy(again))
        if status == 0:
            break
        assert status == 9, forks.said()
    assert found == sorted(found)
    assert found.count([1.0]) > 20 and found.count([2.0]) > 2


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_too_little_memory_is_one_line_and_the_checkpoint_stays(forks, prices, tmp_path, library):
    """The sixth step asks for more than the system lets the process have (RLIMIT_AS)."""
    agent = f"{Path(__file__).with_name('stepping_agent.py')}:Stepper"
    options = {"--agent": agent, "--data": "files", "--data.options.path": prices}
    options |= {"--checkpoint_every": "0", "--workers": "1", "--agent.hungry": library}
    argv = ["train", *(word for pair in options.items() for word in pair)]

    def train(results: str, *more: str, room: int = 2**27) -> int:
        folder = ["--results", str(tmp_path / results)]
        given = [*argv, *folder, *more]
        return forks.run("command", argv=given, folder=str(tmp_path), room=room)

    assert train("whole") == 0, forks.said()
    begun = len(forks.said())
    assert train("cut", "--agent.hunger", str(2**29)) == 1
    said = forks.said()[begun:]
    assert "out of memory; what was trained up to the last checkpoint is kept" in said
    assert "Traceback" not in said
    place = "train/Stepper/seed_000"
    found = Checkpoints(tmp_path / "cut" / place).newest()
    assert found is not None and found.state["step"] == 5 and found.damaged == []
    assert train("cut", "--allow-changes") == 0, forks.said()  # asks for less
    assert left_behind(tmp_path / "cut" / place) == left_behind(tmp_path / "whole" / place)
    assert train("room", "--agent.hunger", str(2**29), room=2**30) == 0  # it was the limit
