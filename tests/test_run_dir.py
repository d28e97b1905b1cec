"""Run folders: what is written is read back, names cannot escape, damage is seen and said."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.provenance import git_commit, software_versions
from experiments.run_dir import Run, RunFolder, find_runs, run_path, write_atomic
from market.errors import DataError, SettingError


@pytest.fixture
def backtest():
    rng = np.random.default_rng(3)
    returns = rng.normal(0.0004, 0.01, 30)
    return pd.DataFrame(
        {
            "value": np.cumprod(1 + returns),
            "portfolio_return": returns,
            "cost": 1e-4,
            "turnover": 0.1,
            "risk_free": 5e-5,
            "target:stocks": 0.6,
            "target:cash": 0.4,
            "held:stocks": 0.61,
            "held:cash": 0.39,
        },
        index=pd.date_range("2016-01-04", periods=30, freq="B", name="date"),
    )


def create(root, agent="ppo", seed=0, **about):
    return RunFolder.create(
        root, "demo", agent, seed, config={"lr": 1e-4}, command="allocgym train", **about
    )


def test_everything_written_is_read_back(tmp_path, backtest):
    with create(tmp_path, seed=7, splits={"test": ["2016-01-04", "2016-02-12"]}) as run:
        run.log(100, {"eval/sharpe": 0.5, "train/loss": float("nan")})
        run.log(200, {"eval/sharpe": 0.75})
        run.write_backtest(backtest)
        run.update(seconds={"fit": 1.5})
        run.update(seconds={"test": 0.5})
    found = Run.read(tmp_path / "demo" / "ppo" / "seed_007")
    assert (found.experiment, found.agent, found.seed) == ("demo", "ppo", 7)
    assert found.finished and not found.error and not found.notes
    assert found.config == {"lr": 1e-4}
    assert found.manifest["seconds"] == {"fit": 1.5, "test": 0.5}
    assert found.manifest["splits"] == {"test": ["2016-01-04", "2016-02-12"]}
    assert found.manifest["versions"]["numpy"] == np.__version__
    assert found.metrics["step"].tolist() == [100, 200]
    assert found.metrics["eval/sharpe"].tolist() == [0.5, 0.75]
    assert np.isnan(found.metrics["train/loss"]).all()
    assert found.assets == ("stocks", "cash")
    pd.testing.assert_frame_equal(found.backtest, backtest, check_freq=False)


def test_metrics_hold_one_strict_json_object_a_line(tmp_path):
    run = create(tmp_path)
    run.log(1, {"a": float("inf")})
    run.log(2, {"a": np.float32(0.5)})
    text = (run.path / "metrics.jsonl").read_text()
    assert text == '{"step": 1, "a": null}\n{"step": 2, "a": 0.5}\n'


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\nb", "ü", "<script>", "x" * 65]
)
def test_names_that_could_escape_are_refused(tmp_path, name):
    for key, experiment, agent in (("experiment", name, "ppo"), ("agent", "demo", name)):
        with pytest.raises(SettingError, match=f"`{key}`"):
            run_path(tmp_path / "results", experiment, agent, 0)
        with pytest.raises(SettingError, match=f"`{key}`"):
            RunFolder.create(tmp_path / "results", experiment, agent, 0, config={})
    assert list(tmp_path.iterdir()) == []


def test_a_link_out_of_the_results_folder_is_refused(tmp_path):
    root, outside = tmp_path / "results", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "demo").symlink_to(outside)
    with pytest.raises(SettingError, match="leads out"):
        create(root)
    assert list(outside.iterdir()) == []


def test_a_negative_seed_and_an_unusable_root_are_refused(tmp_path):
    with pytest.raises(SettingError, match="`seed` must be at least 0, got -1"):
        create(tmp_path, seed=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot write the run folder"):
        create(tmp_path / "file")


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_atomic(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_atomic_write_syncs_the_file_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def note_fsync(handle):
        calls.append("fsync")
        fsync(handle)

    def note_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomic(tmp_path / "x", b"data")
    assert calls == ["fsync", "rename", "fsync"]


def test_a_new_run_leaves_nothing_of_the_old_one(tmp_path, backtest):
    with create(tmp_path) as run:
        run.log(1, {"eval/sharpe": 9.0})
        run.write_backtest(backtest)
        run.model.mkdir()
        (run.model / "weights").write_text("old")
        (run.path / "events.out.tfevents.1").write_text("old")
        (run.path / "notes.txt").write_text("the user's own")
    again = create(tmp_path)
    names = sorted(p.name for p in again.path.iterdir())
    assert names == ["config.yaml", "manifest.json", "notes.txt"]
    assert Run.read(again.path).status == "running"


def test_an_error_inside_the_run_is_recorded_and_raised(tmp_path):
    with pytest.raises(DataError), create(tmp_path, seed=0):
        raise DataError("prices.csv: row 3: price must be positive, got -1")
    with pytest.raises(KeyboardInterrupt), create(tmp_path, seed=1):
        raise KeyboardInterrupt
    first, second = find_runs([tmp_path])
    assert (first.status, second.status) == ("failed", "failed")
    assert first.error == "prices.csv: row 3: price must be positive, got -1"
    assert second.error == "stopped by the user"
    assert first.backtest.empty


def test_a_backtest_with_a_hole_is_not_stored(tmp_path, backtest):
    run = create(tmp_path)
    for broken, message in (
        (backtest.drop(columns="cost"), "columns cost are missing"),
        (backtest.filter(regex="^(?!target)"), "target:<asset>"),
        (backtest.replace({"turnover": {0.1: np.nan}}), "turnover holds NaN"),
        (backtest.iloc[::-1], "rising dates"),
        (backtest.iloc[[0, 0]], "rising dates"),
        (backtest.iloc[:0], "no rows"),
    ):
        with pytest.raises(DataError, match=message):
            run.write_backtest(broken)
    assert not (run.path / "backtest.parquet").exists()


def finished(root, backtest, seed=0):
    with create(root, seed=seed) as run:
        run.log(1, {"eval/sharpe": 0.1})
        run.write_backtest(backtest)
    return run.path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("backtest.parquet", None, "backtest.parquet is missing"),
        ("backtest.parquet", b"PAR1 torn", "backtest.parquet is unreadable"),
        ("config.yaml", None, "config.yaml is missing"),
        ("config.yaml", b"!!python/object/apply:os.getcwd []", "config.yaml is unreadable"),
        ("config.yaml", b"- a list", "expected a mapping, got list"),
        ("metrics.jsonl", b'{"step": 1}\n{"st\n{"step": 3}\n', "metrics.jsonl is unreadable"),
        ("metrics.jsonl", b"\xff\xfe\n", "metrics.jsonl is unreadable"),
        ("manifest.json", b'{"status": "finished"', "manifest.json is unreadable"),
        ("manifest.json", b'{"status": "sunny"}', ""),
        ("manifest.json", None, "manifest.json is missing"),
    ],
)
def test_damage_makes_a_run_failed_and_named_never_hidden(
    tmp_path, backtest, name, content, reason
):
    path = finished(tmp_path, backtest)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    (run,) = find_runs([tmp_path])
    assert run.status in ("failed", "missing") and not run.finished
    assert reason in run.error and "\n" not in run.error
    assert (run.agent, run.seed) == ("ppo", 0)
    assert run.backtest.empty


def test_a_torn_last_line_of_metrics_is_left_out_and_said(tmp_path, backtest):
    path = finished(tmp_path, backtest)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "eval/sh')
    run = Run.read(path)
    assert run.finished
    assert run.metrics["step"].tolist() == [1]
    assert run.notes == ("metrics.jsonl: a torn last line was left out",)


def test_find_runs_takes_any_level_and_each_run_once(tmp_path, backtest):
    paths = [finished(tmp_path, backtest, seed) for seed in (2, 0, 1)]
    for given in ([tmp_path], [tmp_path / "demo"], paths, [tmp_path, *paths]):
        assert [run.seed for run in find_runs(given)] == [0, 1, 2]
    assert [run.seed for run in find_runs([paths[0]])] == [2]
    with pytest.raises(SettingError, match="existing folder"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="no runs in"):
        find_runs([tmp_path / "empty"])


def test_versions_name_every_package_that_matters():
    versions = software_versions()
    assert set(versions) >= {"python", "allocgym", "numpy", "pandas", "torch", "gymnasium"}
    assert versions["pandas"] == pd.__version__


def test_git_commit_is_the_head_and_says_when_files_differ(tmp_path: Path):
    assert git_commit(tmp_path) is None

    def git(*words: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == head
    (tmp_path / "file").write_text("2")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == f"{head}-dirty"
    manifest = json.loads((create(tmp_path).path / "manifest.json").read_text())
    assert "git_commit" in manifest
