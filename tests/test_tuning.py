"""Searches: on validation alone, shared by processes, gone on with, and counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from agents import AGENTS
from agents.search import Range, read_space
from experiments import history
from experiments.cli import main
from experiments.config import AgentConfig, DataConfig, SplitConfig
from experiments.guard import Guard, LookAheadError
from experiments.plan import prepare
from experiments.runs import Run
from experiments.study import NUMBER, SCORES, open_study, trial_folder
from experiments.tune_config import TuneConfig
from experiments.tune_view import report_search
from experiments.tuning import Search, tune
from market.errors import SettingError
from tests.conftest import write_prices

HERE = Path(__file__)
TINY = f"{HERE.with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)
SPLIT = SplitConfig(train_end=f"{DATES[59]:%Y-%m-%d}", valid_end=f"{DATES[79]:%Y-%m-%d}")


@pytest.fixture
def prices(tmp_path):
    return write_prices(tmp_path, DATES)


@pytest.fixture
def config(tmp_path, prices):
    """A function that makes searches over the tiny agent."""

    def make(agent=TINY, settings=None, **changes):
        defaults: dict[str, Any] = {
            "trials": 4,
            "seeds": 2,
            "sampler": "random",
            "workers": 1,
            "space": {"steps": "1..5", "lookback": [3, 5, 8]},
            "results": str(tmp_path / "results"),
        }
        return TuneConfig(
            agent=AgentConfig(name=agent, label="tiny", settings=settings or {}),
            data=DataConfig(source="files", options={"path": str(prices)}),
            split=SPLIT,
            **(defaults | changes),
        )

    return make


def found(search: Search) -> dict:
    """Settings and scores by number."""
    return {n: (one.params, one.user_attrs.get(SCORES)) for n, one in search.tried.items()}


def test_the_test_span_is_never_read(config, prices, monkeypatch):
    before = found(tune(config(results=config().results + "1")))
    table = pd.read_csv(prices, index_col="date")
    table.iloc[80:] *= np.linspace(1.0, 9.0, 40)[:, None]
    table.to_csv(prices)

    def forbidden(guard, last=None):
        raise AssertionError("the guard was released")

    reads = []
    rows = Guard.rows

    def watched(guard, start, stop):
        part = rows(guard, start, stop)
        reads.append(part.dates[-1])
        return part

    monkeypatch.setattr(Guard, "release", forbidden)
    monkeypatch.setattr(Guard, "rows", watched)
    assert found(tune(config())) == before
    assert max(reads) == DATES[79]
    with pytest.raises(LookAheadError, match="before the final evaluation"):
        prepare(config().single()).guard.rows(0, 81)


def test_scores_are_sharpe_ratios_of_the_validation_days(config):
    search = tune(config(trials=1))
    assert list(search.tried) == [0]
    (one,) = search.scored
    assert one.params == {"steps": 4, "lookback": 5}  # as it is
    for seed, score in enumerate(one.user_attrs[SCORES]):
        frame = pd.read_parquet(
            trial_folder(search.config, 0) / f"of_seed_{seed}" / "validation.parquet"
        )
        assert list(frame.index) == list(DATES[60:80])
        excess = frame["portfolio_return"] - frame["risk_free"]
        assert score == pytest.approx(excess.mean() / excess.std() * 252**0.5)
    assert one.value == pytest.approx(np.mean(one.user_attrs[SCORES]))


def test_trials_do_not_depend_on_the_number_of_workers(config):
    one, two = (tune(config(workers=n, results=config().results + str(n))) for n in (1, 2))
    assert found(one) == found(two)
    for number in range(4):
        files = [trial_folder(s.config, number) / "of_seed_1" / "metrics.jsonl" for s in (one, two)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_killed_trial_is_named_and_only_it_runs_again(config, capsys):
    searched = {"fault": ["", "die"], "lookback": [3, 5, 8]}
    first = tune(config(trials=5, workers=2, space=searched))
    dead = [outcome for outcome in first.outcomes if outcome.error]
    states = {n: one.state.name for n, one in first.tried.items()}
    assert 0 < len(dead) < 5
    assert {one.error for one in dead} == {"its process died: signal SIGKILL"}
    assert {n for n, state in states.items() if state == "FAIL"} == {x.spec.seed for x in dead}
    assert all(f"tiny trial {x.spec.seed}: FAILED" in capsys.readouterr().err for x in dead[:1])
    again = tune(config(trials=5, workers=2, space=searched))
    assert {x.spec.seed for x in again.outcomes} == {x.spec.seed for x in dead}
    for number, (settings, scores) in found(first).items():
        assert found(again)[number][0] == settings
        assert found(again)[number][1] == scores


def test_a_search_goes_on_where_it_stopped(config):
    few = tune(config(trials=2))
    stamps = {n: (trial_folder(few.config, n) / "of_seed_1").stat().st_mtime_ns for n in (0, 1)}
    more = tune(config(trials=4))
    assert [outcome.spec.seed for outcome in more.outcomes] == [2, 3]
    assert {
        n: (trial_folder(few.config, n) / "of_seed_1").stat().st_mtime_ns for n in (0, 1)
    } == stamps
    whole = tune(config(trials=4, results=config().results + "2"))
    assert found(more) == found(whole)


def test_another_search_in_the_same_place_is_refused(config):
    tune(config(trials=1))
    with pytest.raises(SettingError, match=r"another search: .*space\.steps Range\(low=1, high=9"):
        tune(config(trials=1, space={"steps": "1..9"}))
    with pytest.raises(SettingError, match=r"another search: seeds \[0, 1, 2\], was"):
        tune(config(trials=1, seeds=3))
    assert len(tune(config(trials=1, seeds=3), overwrite=True).scored[0].user_attrs[SCORES]) == 3


def test_every_trial_counts_for_the_deflated_sharpe_ratio(config):
    search = tune(config(trials=4))
    folder = Path(search.config.results) / "tune"
    tried = history.trials_in([folder])
    assert tried.number == len({json.dumps(one.params) for one in search.tried.values()})
    by_settings = {}
    for number, one in search.tried.items():
        ratios = []
        for seed in (0, 1):
            path = trial_folder(search.config, number) / f"of_seed_{seed}" / "validation.parquet"
            frame = pd.read_parquet(path)
            excess = frame["portfolio_return"] - frame["risk_free"]
            ratios.append(excess.mean() / excess.std())
        by_settings[json.dumps(one.params)] = np.mean(ratios)
    assert tried.variance == pytest.approx(np.var(list(by_settings.values()), ddof=1))


def test_settings_that_cannot_be_are_failed_trials_that_count(config):
    search = tune(config(trials=3, space={"lookback": [5, 70]}, seeds=1))
    failed = [one for one in search.tried.values() if one.state.name == "FAIL"]
    assert failed
    assert all("lookback 70" in one.user_attrs["reason"] for one in failed)
    assert len(search.scored) + len(failed) == 3


def test_poor_trials_are_stopped_early(config):
    ladder = f"{HERE.with_name('tiny_agent.py')}:Ladder"
    search = tune(config(ladder, trials=16, seeds=1, pruner="median", space={"level": "-2.0..2.0"}))
    pruned = [one for one in search.tried.values() if one.state.name == "PRUNED"]
    assert pruned
    for one in pruned:
        number = one.user_attrs[NUMBER]
        lines = trial_folder(search.config, number) / "of_seed_0" / "metrics.jsonl"
        assert len(lines.read_text().splitlines()) < 10
        before = [x.params["level"] for x in search.scored if x.user_attrs[NUMBER] < number]
        assert len(before) >= 5
        assert one.params["level"] < np.median(before)
    assert history.trials_in([Path(search.config.results) / "tune"]).number == 16


def test_the_best_settings_are_a_file_that_train_takes(config, tmp_path, capsys):
    search = tune(config(trials=4))
    report_search(search)
    said = capsys.readouterr().out
    assert "4 of 4 trials: 4 scored" in said
    assert "as it is" in said
    best = search.scored[0]
    path = search.folder / "best.yaml"
    made = yaml.safe_load(path.read_text())
    assert {key: made["agent"][key] for key in best.params} == best.params
    assert main(["train", str(path), "--seeds", "1", "--trust"]) == 0
    run = tmp_path / "results" / "tune" / "tiny" / "seed_000"
    tried = {json.dumps(one.params) for one in search.tried.values()}
    assert history.trials([Run.read(run)]).number == len(tried)  # the run is one of them
    assert list((trial_folder(search.config, 0) / "of_seed_0").glob("events.out.tfevents.*"))
    scored = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("eval/sharpe", -9.0) for line in scored) == pytest.approx(
        best.user_attrs[SCORES][0]
    )


def test_a_space_without_the_agent_as_it_is_says_so(config, capsys):
    report_search(tune(config(trials=2, space={"steps": "1..3"})))
    said = " ".join(capsys.readouterr().out.split())
    assert "agent as it is was not tried" in said
    assert "the space does not hold its steps 4." in said


@pytest.mark.parametrize("name", [name for name in AGENTS if AGENTS[name].space])
def test_what_an_agent_says_is_worth_trying_can_be_set_and_holds_its_defaults(name):
    kind = AGENTS[name]
    own = kind().settings
    for key, room in read_space(kind.space).items():
        assert getattr(own, key) in room or getattr(own, key) is None
        for value in (room.low, room.high) if isinstance(room, Range) else room:
            assert getattr(kind(**{key: value}).settings, key) == value


def test_spaces_are_read_as_they_are_written():
    assert read_space(
        {"a": "1..9", "b": "0..1.0", "c": "1e-5..1e-2 log", "d": ["x", 3], "e": None}
    ) == {
        "a": Range(1, 9),
        "b": Range(0.0, 1.0),
        "c": Range(1e-5, 1e-2, log=True),
        "d": ("x", 3),
    }
    assert 3 in Range(1, 9)
    assert 3.5 not in Range(1, 9)
    assert True not in Range(0, 1)


@pytest.mark.parametrize(
    ("space", "part"),
    [
        ({"steps": "5"}, "space.steps: must be a range such as"),
        ({"steps": "5..1"}, "must rise, got '5..1'"),
        ({"steps": "0..1 log"}, "must rise from above 0"),
        ({"steps": []}, "at least 1 and differ"),
        ({"steps": [1, 1]}, "at least 1 and differ"),
        ({"stepz": "1..2"}, "did you mean 'steps'"),
    ],
)
def test_spaces_that_cannot_be_are_one_line(config, space, part):
    with pytest.raises(SettingError) as caught:
        tune(config(space=space))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(config().results).exists()


def test_help_says_what_an_agent_tries(capsys):
    assert main(["tune", "--agent", "ppo", "--help"]) == 0
    said = capsys.readouterr().out
    for part in ("learning_rate: 1e-4..1e-2 log", "clip_range", "--trials", "--space", "examples:"):
        assert part in said


def test_a_study_is_optunas_own(config):
    search = tune(config(trials=2))
    assert len(open_study(search.config).trials) == 2
