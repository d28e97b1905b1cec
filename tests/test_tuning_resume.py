"""Searches that are cut off: trials go on from their checkpoints and end as if nothing had been."""

import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import history, tracking, tune_view
from experiments.checkpoints import Checkpoints
from experiments.cli import main
from experiments.config import AgentConfig, DataConfig, SplitConfig
from experiments.plan import prepare
from experiments.study import SCORES, bury, latest, open_study, study_folder, trial_folder
from experiments.tune_config import TuneConfig
from experiments.tune_view import report_search
from experiments.tuning import Search, tune
from tests.conftest import write_prices
from tests.test_resume import Cut

STEPPER = f"{Path(__file__).with_name('stepping_agent.py')}:Stepper"
DATES = pd.bdate_range("2020-01-01", periods=80)
SPLIT = SplitConfig(train_end=f"{DATES[39]:%Y-%m-%d}", valid_end=f"{DATES[59]:%Y-%m-%d}")
SPACE = {"judged": "-1.0..1.0", "steps": "3..6"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with prices and a search that nothing cut off."""
    folder = tmp_path_factory.mktemp("made")
    write_prices(folder, DATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tune(search())
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copy(made / "prices.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(results="results", **changes) -> TuneConfig:
    defaults: dict[str, Any] = {"trials": 7, "seeds": 2, "workers": 1, "sampler": "random"}
    agent = AgentConfig(name=STEPPER, label="stepper", settings={"judged": 0.0})
    return TuneConfig(
        agent=agent,
        data=DataConfig(source="files", options={"path": "prices.csv"}),
        split=SPLIT,
        space=SPACE,
        results=results,
        checkpoint_every=0.0,
        **(defaults | changes),
    )


def cut_off(monkeypatch, config, at):
    """Run until the so-many-th checkpoint of all is there, and no further; steps taken."""
    real, count = Checkpoints.save, [0]

    def save(self, state, about):
        number = real(self, state, about)
        count[0] += 1
        if count[0] == at:
            raise Cut
        return number

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(tracking.Checkpoints, "save", save)
        tune(config)


def test_a_trial_that_was_cut_off_is_not_said_to_run_elsewhere(here, monkeypatch, capsys):
    config = search(trials=1)
    cut_off(monkeypatch, config, 2)
    tried = latest(open_study(config))
    assert [one.state.name for one in tried.values()] == ["RUNNING"]
    left = Search(config, prepare(config.single()), tried, [], study_folder(config))
    capsys.readouterr()
    report_search(left)
    told = "1 of 1 trials: 1 cut off, gone on with by the same command"
    assert told in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(tune_view, "held", lambda path: nullcontext(False))
    report_search(left)
    assert "1 of 1 trials: 1 running elsewhere" in " ".join(capsys.readouterr().out.split())


def outcome(config) -> dict[int, Any]:
    """All that the journal and the folders say of each trial, by its number."""
    found = {}
    for number, one in latest(open_study(config)).items():
        files = {
            path.relative_to(trial_folder(config, number)): path.read_bytes()
            for name in ("metrics.jsonl", "validation.parquet")
            for path in trial_folder(config, number).rglob(name)
        }
        scores = one.user_attrs.get(SCORES)
        found[number] = one.state.name, one.params, one.intermediate_values, scores, files
    return found


@pytest.fixture(scope="module")
def whole(made):
    found = outcome(search(str(made / "results")))
    assert {state for state, *_ in found.values()} == {"COMPLETE", "PRUNED"}
    return found


def steps_in(found: dict[int, Any]) -> int:
    """All that the curves tell of."""
    files = (data for *_, files in found.values() for data in files.values())
    return sum(data.count(b"train/first") for data in files)


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps of training."""
    taken, record = [0], tracking.RunMonitor.record

    def noted(self, step, values):
        taken[0] += "train/first" in values
        record(self, step, values)

    monkeypatch.setattr(tracking.RunMonitor, "record", noted)
    return taken


def test_a_search_that_is_cut_off_again_and_again_ends_as_one_that_was_not(
    made, here, whole, monkeypatch, steps
):
    """In the first seed of a trial and in the second, and in one that is stopped as too poor."""
    config = search()
    for at in (3, 6, 11, 25):
        cut_off(monkeypatch, config, at)
    tune(config)
    assert outcome(config) == whole
    assert len(open_study(config).trials) == len(whole)  # no attempt was begun anew
    lines = sum(
        data.count(b"train/first") for *_, files in whole.values() for data in files.values()
    )
    assert steps[0] == lines  # and no step taken twice
    assert not list(here.glob("results/**/checkpoints"))
    tried = [history.trials_in([folder / "results/tune"]) for folder in (made, here)]
    assert tried[0] == tried[1]


def test_a_trial_whose_end_was_recorded_goes_on_as_a_new_attempt(here, whole, monkeypatch, steps):
    """As when a worker was killed, and the search itself was not."""
    config = search()
    cut_off(monkeypatch, config, 9)
    number = max(latest(open_study(config)))
    bury(open_study(config), number, "its process died: signal SIGKILL")
    tune(config)
    assert outcome(config) == whole
    assert len(open_study(config).trials) == len(whole) + 1
    assert steps[0] == steps_in(whole)


@pytest.mark.parametrize("what", ["damaged", "software"])
def test_what_cannot_be_gone_on_with_is_begun_anew(here, whole, monkeypatch, caplog, what):
    config = search()
    cut_off(monkeypatch, config, 4)
    if what == "damaged":
        for path in here.glob("results/**/weights.safetensors"):
            path.write_bytes(b"x")
    else:
        monkeypatch.setattr("experiments.tune_seeds.git_commit", lambda: "another")
    tune(config)
    assert outcome(config) == whole
    assert ("no checkpoint can be used; trained anew" in caplog.text) == (what == "damaged")


def test_a_signal_keeps_a_checkpoint_and_says_how_to_go_on(here, whole, monkeypatch, capsys):
    real = tracking.RunMonitor.record

    def record(self, step, values):
        real(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    argv = ["tune", "--agent", STEPPER, "--agent.label", "stepper", "--agent.judged", "0.0"]
    argv += ["--data", "files", "--data.options.path", "prices.csv", "--trials", "7"]
    argv += ["--seeds", "2", "--workers", "1", "--sampler", "random", "--space.judged", "-1.0..1.0"]
    argv += ["--space.steps", "3..6", "--split.train_end", SPLIT.train_end or ""]
    argv += ["--split.valid_end", SPLIT.valid_end or ""]
    with monkeypatch.context() as patch:
        patch.setattr(tracking.RunMonitor, "record", record)
        assert main(argv) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("allocgym: stopped by SIGTERM; go on with: allocgym tune --agent")
    found = Checkpoints(trial_folder(search(), 0) / "of_seed_0").newest()
    assert found is not None and found.state["step"] == 3
    assert main(argv) == 0
    assert outcome(search()) == whole
