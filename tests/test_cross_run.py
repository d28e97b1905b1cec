"""The cross-validation command: the same folds for all, gaps from settings, runs that are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import history
from experiments.cli import main
from experiments.config import DataConfig
from experiments.cross_config import CrossConfig, FoldsConfig
from experiments.cross_run import cross, feature_memory
from experiments.cross_view import overfitting, sharpe_of_paths, summary
from experiments.statistics import probability_of_backtest_overfitting
from market import load_market
from market.errors import DataError, SettingError
from tests.conftest import write_prices

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=200)


@pytest.fixture
def prices(tmp_path):
    return write_prices(tmp_path, DATES)


@pytest.fixture
def config(tmp_path, prices):
    def make(**changes):
        learner = {"name": TINY.replace(":Tiny", ":Guess"), "label": "guess"}
        defaults: dict[str, Any] = {
            "agents": [learner, {"name": "inverse_volatility", "window": 10}, "equal_weight"],
            "seeds": 2,
            "folds": FoldsConfig(number=5, test=2),
            "workers": 1,
            "results": str(tmp_path / "results"),
        }
        data = DataConfig(source="files", options={"path": str(prices)})
        return CrossConfig(data=data, **(defaults | changes))

    return make


def test_all_agents_walk_the_same_days_and_gaps_follow_from_their_lookback(config):
    done = cross(config())
    first = done.free.index[0]
    assert first == DATES[11]  # inverse_volatility sees 11 rows; the first return is a day later
    for frames in done.paths.values():
        for frame in frames:
            assert list(frame.columns) == ["0", "1", "2", "3"]  # 10 choices of 2 of 5: 4 paths
            assert list(frame.index) == list(DATES[11:])
    assert {name: len(frames) for name, frames in done.paths.items()} == {
        "guess": 2,
        "inverse_volatility": 1,
        "equal_weight": 1,
    }
    assert done.spaces["inverse_volatility"] == (0, 11)
    assert done.spaces["equal_weight"] == (0, 1)


def test_agents_of_different_horizons_are_judged_on_the_same_days(config):
    ahead = {"name": "forecast", "forecaster": "linear(lookback=5)", "horizon": 4, "label": "ahead"}
    done = cross(config(agents=[ahead, "equal_weight"], seeds=1))
    assert done.spaces == {"ahead": (3, 5), "equal_weight": (0, 1)}
    for (frame,) in done.paths.values():
        assert list(frame.index) == list(done.free.index) == list(DATES[5:])
    assert set(summary(done).index) == {"ahead", "equal_weight"}


def test_the_summary_is_of_paths_and_their_lead_over_the_reference(config):
    done = cross(config())
    frame = summary(done)
    ratios = sharpe_of_paths(done, "guess")
    assert ratios.shape == (2, 4)
    free = done.free.to_numpy()
    excess = done.paths["guess"][1]["2"].to_numpy() - free
    assert ratios[1, 2] == pytest.approx(excess.mean() / excess.std(ddof=1) * 252**0.5)
    lead = ratios.mean(0) - sharpe_of_paths(done, "equal_weight").mean(0)
    assert frame.loc["guess", "low"] == ratios.min()
    assert frame.loc["guess", "ahead"] == (lead > 0).mean()
    assert list(frame.index[frame["lead"].isna()]) == ["equal_weight"]
    panel = np.column_stack(
        [
            np.mean([one["3"].to_numpy() for one in frames], axis=0) - free
            for frames in done.paths.values()
        ]
    )
    assert overfitting(done)[3] == probability_of_backtest_overfitting(panel, 16)
    assert history.trials_in([Path(done.config.results) / "cross_validation"]).number == 3


def test_finished_paths_are_kept_and_other_settings_refused(config):
    first = cross(config(workers=2))
    kept = cross(config())
    assert kept.outcomes == []
    for name, frames in first.paths.items():
        for one, other in zip(frames, kept.paths[name], strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    more = cross(config(seeds=3))
    assert [outcome.spec.name for outcome in more.outcomes] == ["guess seed 2"]
    with pytest.raises(SettingError, match=r"made from something else: .*folds\.number 4, was 5"):
        cross(config(folds=FoldsConfig(number=4, test=2)))
    again = cross(config(), overwrite=True)
    pd.testing.assert_frame_equal(again.paths["guess"][1], first.paths["guess"][1])


def test_the_memory_of_features_is_found_out():
    market = load_market("synthetic", features=["return", "return(21)", "volatility(60)"])
    found = feature_memory(market, ["return", "return(21)", "volatility(60)"])
    assert found == 60  # 60 returns need a price before them
    assert feature_memory(market, None) == 0


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"folds": {"number": 1}}, SettingError, "folds.number must be at least 2"),
        ({"folds": {"test": 6}}, SettingError, r"folds.test must be in \[1, folds.number\)"),
        (
            {"folds": {"memory": 30}},
            DataError,
            r"agent guess: .* too short for a purge of 0 and an embargo of 31.*"
            r"\(lookback 1, horizon 1, decision_lag 0, memory of features 30\)",
        ),
        ({"folds": {"start": "2020-01-03"}}, SettingError, "folds.start: must be from 2020-01-15"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_written(config, changes, error, part):
    with pytest.raises(error, match=part):
        cross(config(folds=FoldsConfig(**changes["folds"])))
    assert not Path(config().results).exists()


def test_the_command_prints_the_table(prices, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["cross-validate", "--agents", "equal_weight,buy_and_hold", "--data", "files"]
    words += ["--data.options.path", str(prices), "--workers", "1", "--folds.number", "4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in ("buy_and_hold", "equal_weight *", "paths ahead", "6 fits make 3 paths", "0 / 1"):
        assert part in " ".join(said.split())
    words[2] = "inverse_volatility,buy_and_hold"
    assert main(words) == 2
    assert "200 days are too few: the agent that looks back furthest" in capsys.readouterr().err
    words[2] = "buy_and_hold,uniform_mix"
    assert main([*words, "--experiment", "alone"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No reference to measure a lead against: equal weight is not among" in said
    assert "* is the reference" not in said
    kept = Path("results/cross_validation/paths/buy_and_hold/of_seed_0/settings.json")
    assert json.loads(kept.read_text())["settings"]["folds"]["start"] == f"{DATES[0]:%Y-%m-%d}"
    assert main(["cross-validate", "--help"]) == 0
    assert "--folds.number" in capsys.readouterr().out
