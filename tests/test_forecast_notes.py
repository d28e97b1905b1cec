"""What is written and shown of the quality of forecasts, from a run to the page."""

import json
import math

import pytest

from agents.forecast_agent import ForecastAgent
from agents.forecast_quality import quality
from experiments.cli import main
from experiments.forecast_notes import cells, forecast_rows, note_forecasts
from experiments.runs import find_runs
from market import load_market

MODEL = "forecast(forecaster=linear, rule=top_k(k=1), horizon=2, label=linear)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison of one agent that forecasts and one that does not."""
    results = tmp_path_factory.mktemp("results")
    words = ["--agents", f"{MODEL}, equal_weight", "--workers", "1", "--seeds", "1"]
    words += ["--data.start", "2014-01-01", "--split.train_end", "2016-12-30"]
    words += ["--split.valid_end", "2017-12-29", "--results", str(results)]
    assert main(["compare", *words]) == 0
    return results / "compare"


def test_test_days_are_judged_by_the_stored_agent(folder):
    """Manifest and metrics have what the loaded agent's forecasts come to."""
    run = folder / "linear" / "seed_000"
    manifest = json.loads((run / "manifest.json").read_text())
    market = load_market("multi_asset", start="2014-01-01")
    agent = ForecastAgent.load(run / "model")
    start = market.dates[market.index("2017-12-29")]
    expected = quality(agent.forecasts(market, start))
    assert manifest["forecasts"] == pytest.approx(expected, rel=1e-9)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (on_test,) = [line for line in lines if "test/forecast_r2" in line]
    assert on_test["test/forecast_ic"] == pytest.approx(expected["forecast_ic"], rel=1e-9)
    (on_valid,) = [line for line in lines if "eval/forecast_r2" in line]
    assert on_valid["eval/forecast_r2"] != on_test["test/forecast_r2"]
    assert "test/sharpe" in lines[-1]
    plain = json.loads((folder / "equal_weight" / "seed_000" / "manifest.json").read_text())
    assert "forecasts" not in plain


def test_evaluate_and_the_page_show_it(folder, capsys):
    runs = find_runs([folder])
    (row,) = forecast_rows(runs).values()
    shown = cells(row)
    assert main(["evaluate", str(folder / "linear" / "seed_000")]) == 0
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in shown) and "Campbell & Thompson" in printed
    page = (folder / "report.html").read_text("utf-8")
    assert "How good the forecasts were" in page
    assert all(cell.replace("-", "\N{MINUS SIGN}") in page for cell in shown)
    assert main(["report", str(folder / "equal_weight"), "--output", str(folder / "x.html")]) == 0
    assert "How good the forecasts were" not in (folder / "x.html").read_text("utf-8")


def test_parts_of_a_walk_forward_count_as_one():
    market = load_market("multi_asset", start="2014-01-01", end="2016-12-30")
    agent = ForecastAgent(forecaster="linear").fit(market[:400])
    days = [market.dates[row] for row in (500, 549, 550, 600)]
    two = note_forecasts([agent, agent], [(days[0], days[1]), (days[2], days[3])], market)
    one = note_forecasts([agent], [(days[0], days[3])], market)
    assert two == pytest.approx(one, rel=1e-9)
    assert note_forecasts([object()], [(None, None)], market) == {}


def test_what_is_not_known_is_said():
    assert cells({"forecast_r2": math.nan, "forecast_ic": 0.0123}) == [
        "n/a",
        "+0.012",
        "n/a",
        "n/a",
    ]
    assert forecast_rows([]) == {}
