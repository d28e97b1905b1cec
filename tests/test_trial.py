"""Trials: what an agent is shown, what a run leaves behind, and that equal runs are equal."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from envs.constraints import CashFloor, MaxWeight
from envs.costs import make_cost
from experiments.agent_choice import agent_class, make_agent
from experiments.compare import run_experiments, trials_of
from experiments.config import (
    AgentConfig,
    CostConfig,
    DataConfig,
    ExperimentConfig,
    SplitConfig,
    TaskConfig,
)
from experiments.parallel import run_trials
from experiments.plan import make_task, prepare
from experiments.progress import Display
from experiments.runs import Run
from experiments.trial import Trial, trial
from market.errors import DataError, SettingError
from tests.conftest import write_prices

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)


@pytest.fixture
def prices(tmp_path):
    """A CSV file of two assets, and its path."""
    return write_prices(tmp_path, DATES)


@pytest.fixture
def config(tmp_path, prices):
    """A function that makes experiments with the tiny agent on these prices."""

    def make(agent=TINY, **settings):
        blocks = {key: settings.pop(key) for key in ("split", "task", "seeds") if key in settings}
        label = settings.pop("label", None)
        return ExperimentConfig(
            agent=AgentConfig(name=agent, label=label, settings=settings),
            data=DataConfig(source="files", options={"path": str(prices)}),
            results=str(tmp_path / "results"),
            **blocks,
        )

    return make


SPLIT = SplitConfig(train_end=f"{DATES[59]:%Y-%m-%d}", valid_end=f"{DATES[79]:%Y-%m-%d}")


def test_an_agent_sees_train_and_valid_with_history_and_test_starts_on_its_first_day(config):
    path = trial(Trial(config(split=SPLIT, lookback=7), 0))
    seen = json.loads((path / "model" / "state.json").read_text())["seen"]
    assert seen["train"] == [f"{DATES[0]:%Y-%m-%d}", f"{DATES[59]:%Y-%m-%d}"]
    assert seen["valid"] == [f"{DATES[53]:%Y-%m-%d}", f"{DATES[79]:%Y-%m-%d}"]
    assert seen["first_return"] == f"{DATES[60]:%Y-%m-%d}"
    frame = pd.read_parquet(path / "backtest.parquet")
    assert list(frame.index) == list(DATES[80:])


def test_decision_lag_moves_the_window_not_the_days_earned(config):
    task = TaskConfig(decision_lag=3)
    path = trial(Trial(config(split=SPLIT, task=task, lookback=7), 0))
    seen = json.loads((path / "model" / "state.json").read_text())["seen"]
    assert seen["valid"][0] == f"{DATES[50]:%Y-%m-%d}"
    assert seen["first_return"] == f"{DATES[60]:%Y-%m-%d}"
    assert pd.read_parquet(path / "backtest.parquet").index[0] == DATES[80]


def test_the_path_is_the_product_of_returns_of_the_weights_held(config, prices):
    cost = CostConfig(buy=0.0)
    path = trial(Trial(config(split=SPLIT, task=TaskConfig(cost=cost)), 1))
    weights = json.loads((path / "model" / "state.json").read_text())["weights"]
    table = pd.read_csv(prices, index_col=0)
    growth = 1 + (table / table.shift()).sub(1).to_numpy()[80:] @ np.array(weights[:2])
    values = pd.read_parquet(path / "backtest.parquet")["value"]
    assert values.to_numpy() == pytest.approx(np.cumprod(growth), rel=1e-12)


def test_a_run_folder_says_what_was_run(config):
    spec = Trial(config(split=SPLIT), 5, "allocgym train --seeds [5]")
    run = Run.read(trial(spec))
    assert run.finished
    assert (run.agent, run.seed, run.experiment) == ("Tiny", 5, "train")
    manifest = run.manifest
    assert manifest["command"] == "allocgym train --seeds [5]"
    assert manifest["data"]["assets"] == ["AAA", "BBB", "cash"]
    assert len(manifest["data"]["sha256"]) == 64
    assert manifest["splits"]["valid"] == [f"{DATES[60]:%Y-%m-%d}", f"{DATES[79]:%Y-%m-%d}"]
    assert manifest["splits"]["test"] == [f"{DATES[80]:%Y-%m-%d}", f"{DATES[-1]:%Y-%m-%d}"]
    assert set(manifest["seconds"]) == {"fit", "test"}
    assert manifest["reward"] == "log_return"
    assert run.config["agent"]["steps"] == 4  # a default, spelt out
    assert run.config["data"]["start"] == f"{DATES[0]:%Y-%m-%d}"
    assert list(run.metrics["step"]) == [1, 2, 3, 4, 4]
    assert not any(str(name).startswith("time/") for name in run.metrics)
    value = run.metrics["test/final_value"].iloc[-1]
    assert value == pytest.approx(run.backtest["value"].iloc[-1])


def test_equal_seeds_write_equal_bytes_and_others_do_not(config):
    def content(seed):
        path = trial(Trial(config(split=SPLIT), seed))
        return (path / "metrics.jsonl").read_bytes(), (path / "backtest.parquet").read_bytes()

    assert content(1) == content(1)
    assert content(1)[0] != content(2)[0]


def quiet(trials, workers):
    named = [(spec.config.agent.title, spec.name) for spec in trials]
    with Display(named, workers, Console(quiet=True)) as display:
        return run_trials(trials, workers=workers, display=display)


def test_numbers_do_not_depend_on_the_number_of_workers(config):
    specs = trials_of(config(split=SPLIT, seeds=2))
    specs += trials_of(config("mean_variance", split=SPLIT, window=20, label="mv"))

    def content(workers):
        outcomes = quiet(specs, workers)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        names = ("metrics.jsonl", "backtest.parquet")
        return [(outcome.path / name).read_bytes() for outcome in outcomes for name in names]

    assert content(1) == content(2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_trial_is_named_and_costs_only_itself(config, workers):
    specs = [
        Trial(config(split=SPLIT, fault="raise", label="bad"), 0),
        Trial(config(split=SPLIT, label="good"), 0),
    ]
    bad, good = quiet(specs, workers)
    assert bad.error == "RuntimeError: the network fell over"
    assert "tiny_agent.py" in bad.trace
    assert not bad.users
    assert Run.read(good.path).finished
    failed = Run.read(good.path.parents[1] / "bad" / "seed_000")
    assert (failed.status, failed.error) == ("failed", "RuntimeError: the network\nfell over")


def test_a_killed_process_costs_only_its_trial(config):
    specs = [
        Trial(config(split=SPLIT, fault="die", label="bad"), 0),
        Trial(config(split=SPLIT, label="good"), 0),
    ]
    bad, good = quiet(specs, 2)
    assert bad.error == "its process died: signal SIGKILL"
    assert Run.read(good.path).finished


def test_an_agent_that_returns_nan_fails_by_name_and_date(config):
    (outcome,) = quiet([Trial(config(split=SPLIT, fault="nan"), 0)], 1)
    # validation is played before the fault, so the first test decision is the first to see it
    assert outcome.users
    assert f"{DATES[79]:%Y-%m-%d}" in outcome.error
    assert "Tiny" in outcome.error


def test_an_agent_without_save_is_still_judged(config, tmp_path):
    path = trial(Trial(config(TINY.replace(":Tiny", ":Unsaved"), split=SPLIT), 0))
    run = Run.read(path)
    assert run.finished
    assert not (path / "model").exists()
    assert "Unsaved cannot be saved" in run.manifest["model"]
    assert run.backtest["value"].to_numpy() == pytest.approx(1.0)


def test_agents_that_do_not_learn_run_once(config):
    assert len(trials_of(config("equal_weight", seeds=3))) == 1
    assert len(trials_of(config(seeds=3))) == 3


def test_splits_without_dates(config):
    plan = prepare(config())
    assert plan.splits["train"][1] == f"{DATES[71]:%Y-%m-%d}"  # 60 % of 120 days
    assert plan.splits["valid"][1] == f"{DATES[95]:%Y-%m-%d}"  # 80 %
    rolling = prepare(config(split=SplitConfig(train_start=f"{DATES[30]:%Y-%m-%d}")))
    assert rolling.splits["train"] == [f"{DATES[30]:%Y-%m-%d}", f"{DATES[71]:%Y-%m-%d}"]
    assert (rolling.train.dates[0], rolling.train.n_periods) == (DATES[30], 42)
    bundled = ExperimentConfig(agent=AgentConfig(name="equal_weight"))
    assert prepare(bundled).ends == ("2012-12-31", "2015-12-31")
    late = ExperimentConfig(
        agent=AgentConfig(name="equal_weight"), data=DataConfig(start="2013-06-03")
    )
    assert prepare(late).splits["train"][0] == "2013-06-03"


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"lookback": 60, "split": SPLIT}, DataError, "lookback 60"),
        ({"lookback": 0}, SettingError, "lookback"),
        ({"stepz": 1}, SettingError, "did you mean 'steps'"),
        ({"agent": "pppo"}, SettingError, "did you mean 'ppo'"),
        ({"agent": "nowhere.py:Name"}, SettingError, "no file nowhere.py"),
        ({"agent": "os:system"}, SettingError, "part of Python"),
        ({"agent": "json_no_such_module:Name"}, SettingError, "ModuleNotFoundError"),
        ({"agent": TINY.replace("Tiny", "Missing")}, SettingError, "has no 'Missing'"),
        ({"agent": TINY.replace("Tiny", "json")}, SettingError, "subclass of agents.base.Agent"),
        ({"label": "../x"}, SettingError, "label"),
        ({"task": TaskConfig(reward="log_retrun")}, SettingError, "log_retrun"),
        ({"task": TaskConfig(fill="next_open")}, SettingError, "opens"),
        ({"task": TaskConfig(constraints=["max_wait(1)"])}, SettingError, "max_weight"),
        ({"task": TaskConfig(constraints=["max_weight(1,2,3,4)"])}, SettingError, "max_weight"),
        (
            {"split": SplitConfig(train_end="1990-01-01", valid_end="2020-02-03")},
            DataError,
            "1990-01-01",
        ),
        (
            {"split": SplitConfig(train_end="2020-03-02", valid_end="2020-02-03")},
            DataError,
            "split",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    config, tmp_path, changes, error, part
):
    with pytest.raises(error) as caught:
        run_experiments([config(**changes)], 1)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_limits_and_costs_are_built_from_text(tmp_path, make_market):
    (tmp_path / "mine.py").write_text(
        "from envs.costs import HalfSpread\nclass Stamp(HalfSpread):\n    pass\nnumber = 1\n"
    )
    stamp = f"{tmp_path / 'mine.py'}:Stamp(0.004)"
    task = TaskConfig(
        cost=CostConfig(buy=0.001, sell=0.002, more=["fixed_fee(1, capital=1000)", stamp]),
        constraints=["max_weight(0.4)", "cash_floor(0.05)"],
        rebalance_every=5,
        band=0.01,
    )
    made = make_task(task)
    assert [type(one) for one in made.constraints] == [MaxWeight, CashFloor]
    assert (made.rebalance_every, made.band) == (5, 0.01)
    assert made.cost is not None
    bound = made.cost.bind(make_market(30, risky=2))
    held, target = np.array([0.5, 0.0, 0.5]), np.array([0.25, 0.25, 0.5])
    mu, _ = bound.solve(held, target, np.float64(1.0), bound.liquidity(0))
    # sold at 0.2 + 0.4 %, bought at 0.1 + 0.4 %, cash moves free, two fees of 1 / 1000
    left = 1.0 - 0.006 * (0.5 - 0.25 * mu) - 0.005 * 0.25 * mu - 0.002
    assert mu == pytest.approx(left, abs=1e-14)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("half_spred(0.1)", "did you mean 'half_spread'"),
        ("half_spread()", "missing 1 required"),
        ("fixed_fee(1, capital=-1)", "capital > 0"),
        ("half_spread(0.1", "cannot read"),
        ("mine.py:number", "derived from Cost"),
        ("os:system('ls')", "part of Python"),
    ],
)
def test_costs_that_cannot_be_are_named(text, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("number = 1\n")
    with pytest.raises(SettingError, match=re.escape(part)) as caught:
        make_cost(text)
    assert "\n" not in str(caught.value)


def test_a_users_agent_is_found_by_module_and_by_file(monkeypatch):
    assert make_agent(AgentConfig(name=TINY, settings={"steps": 2})).settings.steps == 2
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert agent_class("tiny_agent:Tiny").__name__ == "Tiny"
