"""The textbook study on few days and with a small network: the whole way, and its free paths."""

from xml.etree import ElementTree

import numpy as np
import pytest

from experiments.config import CostConfig, DataConfig, TaskConfig
from experiments.runs import find_runs
from experiments.studies import textbook
from experiments.walk_config import WalkConfig
from market import load_market

LSTM = {"name": "lstm", "lookback": 10, "hidden": 4, "epochs": 1, "volatility_window": 20}
SHORT = {
    "data": DataConfig(start="2017-01-01"),
    "agents": [LSTM, textbook.MEAN, "equal_weight"],
    "walk": WalkConfig(start="2018-06-01", refit_every=80, train_days=120, valid_days=40),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place, before = tmp_path_factory.mktemp("textbook"), dict(textbook.SETTINGS)
    textbook.SETTINGS.update(SHORT)
    words = ["--seeds", "2", "--workers", "1", "--results"]
    try:
        assert textbook.main([*words, str(place / "paid")]) == 0
        textbook.SETTINGS["task"] = TaskConfig(cost=CostConfig(buy=0.0))
        assert textbook.main([*words, str(place / "free")]) == 0
    finally:
        textbook.SETTINGS.clear()
        textbook.SETTINGS.update(before)
    return place


def test_free_paths_are_those_of_a_run_without_costs(folder):
    """(1 + r) / (1 - cost) - 1, against the study played without any costs."""
    for agent in ("lstm", "mean_forecast", "equal_weight"):
        paid, free = (find_runs([folder / kind / "textbook" / agent]) for kind in ("paid", "free"))
        assert len(paid) == len(free) == (1 if agent == "equal_weight" else 2)
        expected = textbook.paths(free, free=False)
        np.testing.assert_allclose(textbook.paths(paid, free=True), expected, atol=1e-12)
        assert (textbook.paths(paid, free=False) <= expected + 1e-15).all()
        assert paid[0].backtest["cost"].sum() > 0.0 == free[0].backtest["cost"].sum()


def test_tables_and_chart_show_every_agent(folder):
    made = folder / "paid" / "textbook"
    lines = (made / "textbook.md").read_text().splitlines()
    days = load_market("multi_asset", start="2018-06-01").n_periods
    assert lines[0] == f"2018-06-01 to 2018-12-31, {days} days; 2 seeds."
    rows = [line.split(" | ") for line in lines if line.startswith(("| lstm", "| mean", "| equal"))]
    assert len(rows) == 3 * 2 + 2 + 2  # with costs and without, forecasts, against equal weight
    assert all(" to " in cell for row in rows[8:] for cell in row[1:])
    values = {(row[0], row[1]): float(row[8].strip(" |")) for row in rows[:6]}
    for name in ("| lstm", "| mean_forecast", "| equal_weight"):
        assert values[name, "0.1 %"] <= values[name, "none"]
    assert values["| lstm", "0.1 %"] < values["| lstm", "none"]
    assert ElementTree.parse(made / "textbook.svg").getroot().tag.endswith("svg")  # noqa: S314
    assert "How good the forecasts were" in (made / "report.html").read_text("utf-8")


def test_the_settings_are_the_textbooks():
    from agents import AGENTS

    agent = AGENTS["lstm"]()
    assert (agent.settings.layers, agent.settings.hidden, agent.settings.volatility) == (2, 64, 0.1)
    walk = textbook.SETTINGS["walk"]
    assert (walk.train_days + walk.valid_days, walk.refit_every) == (5 * 252, 252)
