"""Finished runs are kept, other settings refused with what differs; every configuration counts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import history
from experiments.compare import run_experiments
from experiments.config import AgentConfig, CostConfig, DataConfig, ExperimentConfig, TaskConfig
from experiments.reuse import changed_settings, changes
from experiments.runs import Run, find_runs
from experiments.walk_config import WalkConfig, WindowedConfig
from market.errors import SettingError

SOURCE = Path(__file__).with_name("tiny_agent.py")
DATES = pd.bdate_range("2020-01-01", periods=120)


@pytest.fixture
def config(tmp_path):
    """A function that makes experiments of a tiny agent of the user's own, on a price file."""
    (tmp_path / "mine.py").write_bytes(SOURCE.read_bytes())
    prices(tmp_path, 3)

    def make(task=None, seeds=1, **settings):
        return ExperimentConfig(
            agent=AgentConfig(name=f"{tmp_path / 'mine.py'}:Tiny", settings=settings),
            data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
            task=task or TaskConfig(),
            seeds=seeds,
            results=str(tmp_path / "results"),
        )

    return make


def prices(folder, seed):
    steps = np.random.default_rng(seed).normal(0.0005, 0.01, (120, 2))
    frame = pd.DataFrame(np.exp(np.cumsum(steps, 0)) * 100, DATES, ["AAA", "BBB"])
    frame.rename_axis("date").to_csv(folder / "prices.csv")


def state(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_run_is_a_no_op_and_only_what_is_missing_is_made(config, tmp_path, capsys):
    assert run_experiments([config(seeds=2)], 1).failed == []
    before = state(tmp_path / "results")
    done = run_experiments([config(seeds=2)], 1)
    assert state(tmp_path / "results") == before
    assert [run.finished for run in done.runs] == [True, True]
    assert "kept: Tiny seed 0, Tiny seed 1" in capsys.readouterr().err
    assert len(run_experiments([config(seeds=3)], 1).runs) == 3
    after = state(tmp_path / "results")
    assert {path: after[path] for path in before if path.name != history.FILE} == {
        path: kept for path, kept in before.items() if path.name != history.FILE
    }
    assert "[1/1] Tiny seed 2: finished" in capsys.readouterr().err


def test_what_differs_is_listed_and_nothing_is_touched(config, tmp_path):
    run_experiments([config()], 1)
    before = state(tmp_path / "results")
    changed = config(steps=5, task=TaskConfig(cost=CostConfig(buy=0.002)))
    with pytest.raises(SettingError) as caught:
        run_experiments([changed], 1)
    assert "agent.steps 5, was 4; task.cost.buy 0.002, was 0.001" in str(caught.value)
    prices(tmp_path, 4)
    with pytest.raises(SettingError, match="the data have other numbers"):
        run_experiments([config()], 1)
    prices(tmp_path, 3)
    (tmp_path / "mine.py").write_text(SOURCE.read_text() + "\n# another version\n")
    with pytest.raises(SettingError, match=r"the code of .*mine\.py has changed"):
        run_experiments([config()], 1)
    assert state(tmp_path / "results") == before
    run_experiments([changed], 1, overwrite=True)
    run = Run.read(tmp_path / "results/train/Tiny/seed_000")
    assert run.config["agent"]["steps"] == 5


def test_a_run_that_did_not_finish_is_made_again_without_asking(config, tmp_path):
    assert run_experiments([config(fault="raise")], 1).failed
    assert run_experiments([config()], 1).failed == []
    manifest = tmp_path / "results/train/Tiny/seed_000/manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    assert run_experiments([config(steps=6)], 1).failed == []


def test_a_kept_run_of_other_versions_is_told(config, tmp_path, capsys):
    run_experiments([config()], 1)
    path = tmp_path / "results/train/Tiny/seed_000/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    run_experiments([config()], 1)
    assert "They were made with torch 1.0 (now" in capsys.readouterr().err


def forget(path, *keys):
    """As if these settings had not existed when a run was made."""
    stored = yaml.safe_load(path.read_text())
    for key in keys:
        *above, last = key.split(".")
        block = stored
        for name in above:
            block = block[int(name) if isinstance(block, list) else name]
        del block[last]
    path.write_text(yaml.safe_dump(stored))


def test_a_setting_that_a_run_did_not_have_yet_was_at_its_default(config, tmp_path, capsys):
    run_experiments([config()], 1)
    path = tmp_path / "results/train/Tiny/seed_000/config.yaml"
    forget(path, "task.band", "task.cost.buy", "agent.lookback", "data.frequency")
    before = state(path.parent)
    capsys.readouterr()
    run_experiments([config()], 1)
    assert "kept: Tiny seed 0" in capsys.readouterr().err
    other = config(TaskConfig(cost=CostConfig(buy=0.002), band=0.1), lookback=7)
    with pytest.raises(SettingError) as caught:
        run_experiments([other], 1)
    told = "agent.lookback 7, was 5; task.band 0.1, was 0.0; task.cost.buy 0.002, was 0.001"
    assert told in str(caught.value)
    assert state(path.parent) == before


def test_a_setting_without_a_default_or_of_another_kind_of_run_still_differs(config):
    ours = config().plain()
    theirs = {key: value for key, value in ours.items() if key != "split"}
    assert [*changed_settings(ours | {"split": {"train_end": "2020-03-02"}}, theirs)] == [
        "split.train_end 2020-03-02, was None"
    ]
    assert [*changed_settings(ours, ours | {"experiment": "other"})] == [
        "experiment train, was other"
    ]
    assert [*changed_settings({"agent": {"name": "cash", "x": 1}}, {"agent": {"name": "cash"}})]


def test_refits_and_records_of_searches_keep_what_was_made_before_a_setting(config, tmp_path):
    one = config()
    walk = WindowedConfig(
        agent=one.agent,
        data=one.data,
        results=one.results,
        walk=WalkConfig(refit_every=30, valid_days=20),
    )
    run_experiments([walk], 1)
    path = tmp_path / "results/train/Tiny/seed_000/config.yaml"
    forget(path, "agents.0.lookback", "walk.warm_start", "task.fill")
    before = state(path.parent)
    run_experiments([walk], 1)
    assert state(path.parent) == before
    with pytest.raises(SettingError, match=r"agent\.lookback 6, was 5"):
        run_experiments([dataclasses.replace(walk, agent=config(lookback=6).agent)], 1)
    made = {"settings": walk.plain(), "data": "x", "code": {}}
    less = json.loads(json.dumps(made))
    del less["settings"]["task"]["cost"]["sell"], less["settings"]["walk"]["train_days"]
    assert list(changes(made, less)) == []
    assert list(changes(made | {"data": "y"}, less)) == ["the data have other numbers"]
    less["settings"]["task"]["decision_lag"], less["code"] = 1, {"mine.py": "z"}
    assert list(changes(made, less)) == [
        "task.decision_lag 0, was 1",
        "the code of mine.py has changed",
    ]


def test_every_configuration_ever_tried_counts_once_whatever_its_seeds(config, tmp_path):
    run_experiments([config(seeds=2)], 1)
    for steps in (5, 6):
        run_experiments([config(steps=steps, seeds=2)], 1, overwrite=True)
    run_experiments([config(steps=6, seeds=2)], 1, overwrite=True)  # again, not another
    folder = tmp_path / "results/train"
    lines = [json.loads(line) for line in (folder / history.FILE).read_text().splitlines()]
    assert len(lines) == 8
    tried = history.trials(find_runs([folder]))
    assert tried.number == 3
    last = {(one["digest"], one["seed"]): one["sharpe"] for one in lines}
    means = [
        np.mean([ratio for (key, _), ratio in last.items() if key == name])
        for name in {one["digest"] for one in lines}
    ]
    assert tried.variance == pytest.approx(np.var(means, ddof=1), rel=1e-9)
    returns = Run.read(folder / "Tiny/seed_000").backtest
    excess = returns["portfolio_return"] - returns["risk_free"]
    assert lines[-2]["sharpe"] == pytest.approx(excess.mean() / excess.std(ddof=1), rel=1e-12)


def test_a_torn_line_of_history_is_no_trial(tmp_path):
    history.note(tmp_path, "a", seed=0, digest="x", returns=np.array([0.01, -0.02, 0.03]))
    with (tmp_path / history.FILE).open("a") as file:
        file.write('{"digest": "y", "se')
    assert [entry["digest"] for entry in history.read(tmp_path)] == ["x"]
