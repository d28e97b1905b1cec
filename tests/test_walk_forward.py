"""Walk-forward: what each refit sees, one path that pays at seams, and nothing computed twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.base import Agent, Task
from agents.rollout import roll
from envs.constraints import StopLoss
from experiments.cli import main
from experiments.compare import run_experiments
from experiments.config import AgentConfig, DataConfig
from experiments.runs import Run
from experiments.trial import Trial, trial
from experiments.walk_config import WalkConfig, WindowedConfig
from experiments.walk_forward import Relay, prepare_walk
from experiments.warm_start import start_from
from market.errors import SettingError
from tests.conftest import write_prices

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)
WALK = {"refit_every": 15, "valid_days": 20}


@pytest.fixture
def config(tmp_path):
    """A function that makes walk-forwards of the tiny agent: tests from row 72 on, 15 days each."""
    write_prices(tmp_path, DATES)

    def make(agent=TINY, walk=None, settings=None, **others):
        return WindowedConfig(
            agent=AgentConfig(name=agent, settings=settings or {}),
            data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
            walk=WalkConfig(**(WALK | (walk or {}))),
            results=str(tmp_path / "results"),
            experiment="walk",
            **others,
        )

    return make


def seen(path, number):
    return json.loads((path / f"windows/{number:03d}/model/state.json").read_text())["seen"]


def weights(path, number):
    return json.loads((path / f"windows/{number:03d}/model/state.json").read_text())["weights"]


@pytest.mark.parametrize("rolling", [None, 30])
def test_each_refit_sees_only_what_lies_before_its_test_window(config, rolling):
    path = trial(Trial(config(walk={"train_days": rolling}), 0))
    for number, first in enumerate([72, 87, 102, 117]):
        days = json.loads((path / f"windows/{number:03d}/window.json").read_text())
        start = DATES[0] if rolling is None else DATES[first - 1 - 20 - rolling]
        assert seen(path, number)["train"] == [f"{start:%Y-%m-%d}", f"{DATES[first - 21]:%Y-%m-%d}"]
        assert seen(path, number)["valid"][1] == f"{DATES[first - 1]:%Y-%m-%d}"
        assert seen(path, number)["first_return"] == f"{DATES[first - 20]:%Y-%m-%d}"
        assert days["test"] == [
            f"{DATES[first]:%Y-%m-%d}",
            f"{DATES[min(first + 14, 119)]:%Y-%m-%d}",
        ]
    frame = Run.read(path).backtest
    assert list(frame.index) == list(DATES[72:])


def test_the_path_is_the_hand_computed_one_and_pays_at_every_seam(config, tmp_path):
    path = trial(Trial(config(settings={"steps": 8}), 4))
    prices = pd.read_csv(tmp_path / "prices.csv", index_col=0).to_numpy()
    held, values, costs = np.array([0.0, 0.0, 1.0]), [], []
    value: float = 1.0
    for row in range(72, 120):
        target = np.array(weights(path, (row - 72) // 15))
        left = 1.0
        for _ in range(200):  # what trading leaves: 1 - 0.1 % of the risky weight traded
            left = 1.0 - 0.001 * np.abs(left * target - held)[:2].sum()
        growth = 1.0 + np.append(prices[row] / prices[row - 1] - 1.0, 0.0)
        gross = target @ growth
        value, held = value * float(left * gross), target * growth / gross
        values.append(value)
        costs.append(1.0 - left)
    frame = Run.read(path).backtest
    assert frame["value"].to_numpy() == pytest.approx(np.array(values), rel=1e-12)
    assert frame["cost"].to_numpy() == pytest.approx(np.array(costs), abs=1e-14)
    seams = frame["cost"].to_numpy()[[15, 30, 45]]
    # starting anew in cash would cost 0.1 % of all that is held; taking over costs the way there
    moved = [
        0.001 * np.abs(np.subtract(weights(path, n), weights(path, n - 1))[:2]).sum()
        for n in (1, 2, 3)
    ]
    assert seams == pytest.approx(np.array(moved), rel=0.1)
    assert min(moved) > 1e-4


def test_finished_windows_are_never_computed_again(config):
    whole = trial(Trial(config(), 2))
    expected = {
        name: (whole / name).read_bytes()
        for name in ("backtest.parquet", "robustness.parquet", "metrics.jsonl")
    }
    files = sorted(path for path in (whole / "windows").rglob("*") if path.is_file())
    first = [path for path in files if "/000/" in str(path) or "/001/" in str(path)]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first}
    assert len(first) >= 6
    plan = whole / "windows/plan.json"  # and as if two settings had come since, at their defaults
    settings, *rest = json.loads(plan.read_text())
    del settings["walk"]["warm_start"], settings["agents"][0]["lookback"]
    plan.write_text(json.dumps([settings, *rest]))
    # as a kill in the third window leaves it: two complete, one under its working name
    shutil.rmtree(whole / "windows/003")
    (whole / "windows/002").rename(whole / "windows/.002.part")
    (whole / "manifest.json").write_text(
        (whole / "manifest.json").read_text().replace('"finished"', '"running"')
    )
    assert trial(Trial(config(), 2)) == whole
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first} == before
    assert "lookback" not in plan.read_text()
    assert {name: (whole / name).read_bytes() for name in expected} == expected
    assert not list((whole / "windows").glob(".*"))


def test_a_finished_walk_forward_is_kept_and_a_changed_one_refused(config):
    run_experiments([config()], 1)
    path = Path(config().results) / "walk/Tiny/seed_000"
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}
    done = run_experiments([config()], 1)
    assert done.failed == [] and done.runs[0].finished
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}
    assert after == before
    with pytest.raises(SettingError, match=r"walk\.refit_every 16, was 15.*--overwrite"):
        run_experiments([config(walk={"refit_every": 16})], 1)
    run_experiments([config(walk={"refit_every": 24})], 1, overwrite=True)
    assert len(list((path / "windows").glob("[0-9]*"))) == 2


def test_limits_with_a_memory_keep_it_over_a_seam(make_market):
    """Two agents alike are one agent, whatever the task remembers."""

    class Half(Agent):
        def act(self, history, weights):
            return np.array([0.5, 0.5, 0.0])

    market = make_market(periods=200, risky=2)
    task = Task(constraints=(StopLoss(0.05),))
    alone = roll(Half(), market, task, start=20)
    relayed = roll(Relay([Half(), Half(), Half()], [20, 80, 140], 0), market, task, start=20)
    assert alone.binding["stop_loss"].any()
    np.testing.assert_array_equal(alone.values, relayed.values)


@pytest.mark.parametrize("lag", [0, 2])
def test_each_agent_decides_from_its_own_first_day_on(make_market, lag):
    class Tagged(Agent):
        def __init__(self, column):
            self.column = column

        def act(self, history, weights):
            return np.eye(history.n_assets)[self.column]

    market = make_market(periods=60, risky=2)
    task = Task(decision_lag=lag)
    path = roll(Relay([Tagged(0), Tagged(1)], [20, 40], lag), market, task, start=20)
    on_duty = path.targets.argmax(axis=1)
    assert on_duty.tolist() == [0] * 20 + [1] * 19


def test_a_warm_start_begins_with_the_last_network(make_market):
    from agents import AGENTS

    market = make_market(periods=160, risky=2)
    settings = {"steps": 64, "num_envs": 2, "episode_length": 16, "lookback": 5, "evaluations": 1}
    first = AGENTS["ppo"](**settings, learning_rate=1e-3).fit(market[:100], seed=1)
    # with next to no learning, the second is where the first ended; without it, elsewhere
    still = settings | {"learning_rate": 1e-12}
    warm, cold = AGENTS["ppo"](**still), AGENTS["ppo"](**still)
    start_from(warm, first)
    warm.fit(market[:100], seed=2)
    cold.fit(market[:100], seed=2)
    ours, theirs = warm.network.state_dict(), first.network.state_dict()
    assert all(np.allclose(ours[key], theirs[key], atol=1e-6) for key in theirs)
    assert any(not np.allclose(cold.network.state_dict()[k], theirs[k], atol=1e-3) for k in theirs)


def test_a_warm_start_is_refused_where_there_is_none(config):
    with pytest.raises(SettingError, match=r"warm_start: agent lstm cannot go on"):
        prepare_walk(config("lstm", walk={"warm_start": True}))
    plan = prepare_walk(config("equal_weight", walk={"warm_start": True}))  # a rule: nothing to do
    assert len(plan.windows) == 4


def test_the_command_prints_the_table_and_evaluates_the_last_refit(config, tmp_path, capsys):
    config()
    argv = ["--data", "files", "--data.options.path", str(tmp_path / "prices.csv")]
    argv += ["--results", str(tmp_path / "results"), "--agents", f"{TINY}, equal_weight"]
    argv += ["--seeds", "2", "--walk.refit_every", "15", "--walk.valid_days", "20"]
    assert main(["walk-forward", *argv, "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "equal_weight *" in shown and "Report: " in shown
    run = tmp_path / "results/walk_forward/Tiny/seed_001"
    assert main(["evaluate", str(run), "--trust"]) == 0
    assert f"From the close of {DATES[116]:%Y-%m-%d} to {DATES[-1]:%Y-%m-%d}" in (
        capsys.readouterr().out
    )
