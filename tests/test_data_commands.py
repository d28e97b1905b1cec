"""`allocgym data`: what it prints, and the exit status that scripts rely on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments.cli import main
from market.features import FEATURES, listing

LEAK = """
import numpy as np

def peek(market, days=1):
    return np.roll(market.returns, -days, axis=0)

def gain(market):
    return (market.returns > 0).astype(float)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    steps = np.random.default_rng(0).normal(0, 0.01, (500, 3))
    days = pd.bdate_range("2018-01-01", periods=500)
    frame = pd.DataFrame(100 * np.exp(steps.cumsum(0)), days, ["AAA", "BBB", "CCC"])
    frame.to_csv("good.csv", index_label="date")
    frame.loc[days[300] :, "AAA"] /= 2
    frame.to_csv("split.csv", index_label="date")
    Path("bad.csv").write_text("date,AAA\n2020-01-01,1\n2020-01-02,x\n")
    Path("mine.py").write_text(LEAK)
    return tmp_path


def test_lists_shows_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data"], ["data", "list"]):
        assert main(words) == 0
        assert "multi_asset" in capsys.readouterr().out
    assert main(["data", "show", "factors"]) == 0
    assert "volatility" in capsys.readouterr().out
    assert main(["data", "show", "synthetic", "--kind", "merton"]) == 0
    assert "Best policy: grows by" in capsys.readouterr().out
    assert main(["data", "show", "yahoo"]) == 0
    assert 'tickers: Such as ["SPY"' in capsys.readouterr().out
    assert main(["data", "download", "--help"]) == 0
    assert "--refresh" in capsys.readouterr().out
    assert main(["data", "--help"]) == 0
    assert "check SOURCE" in capsys.readouterr().out
    assert main(["data", "audit", "--help"]) == 0
    assert "--features" in capsys.readouterr().out


def test_every_feature_is_listed_with_its_formula(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "features"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for row in listing():
        assert row["name"] in out and row["formula"], row
    assert [row["name"] for row in listing()] == list(FEATURES)
    assert "price[t] / price[t-days] - 1" in out
    assert "window=20" in out


def test_a_file_is_shown_with_the_days_that_each_asset_has(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = pd.bdate_range("2018-01-01", periods=505)
    frame = pd.DataFrame({"OLD": 1.001 ** np.arange(505.0), "NEW": np.nan}, days)
    frame.iloc[-253:, 1] = 1.003 ** np.arange(253.0)  # 1.003 ** 252 = 2.1273
    frame.to_csv("late.csv", index_label="date")
    assert main(["data", "show", "late.csv", "--features", "return, volatility(20)"]) == 0
    out = capsys.readouterr().out
    growth = {line.split()[0]: line.split()[-3] for line in out.splitlines() if "%" in line}
    assert growth == {"OLD": f"{1.001**252 - 1:.1%}", "NEW": "112.7%", "cash": "0.0%"}
    assert "Features: return, volatility." in out and "late.csv: 485 days" in out
    for words, text in (
        (["none.csv"], "none.csv: no such file"),
        (["multi_aset"], "did you mean 'multi_asset'?"),
        (["late.csv", "--max_gp", "3"], "did you mean 'max_gap'?"),
    ):
        assert main(["data", "show", *words]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["good.csv"], 0, "good.csv: Nothing must be fixed"),
        (["split.csv"], 2, "Must be fixed: 'AAA', 2019-02-25: price is"),
        (["split.csv", "--allow_jumps", "true"], 0, "Good to know: 'AAA', 2019-02-25"),
        (["split.csv", "--allow-jumps=true"], 0, "allowed"),
        (["bad.csv"], 2, "Must be fixed: bad.csv: column 'AAA', row 3 (2020-01-02): 'x' is not"),
        (["none.csv"], 2, "no such file"),
        (["factors"], 0, "factors: Nothing must be fixed"),
    ],
)
def test_check_says_what_must_be_fixed(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, text: str
) -> None:
    assert main(["data", "check", *words]) == status
    assert text in " ".join(capsys.readouterr().out.split())


def test_check_draws_a_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "split.csv", "--html", "out/page.html"]) == 2
    assert "Page: out/page.html" in capsys.readouterr().out
    page = (here / "out" / "page.html").read_text()
    assert page.startswith("<!doctype html>") and "<svg" in page
    assert main(["data", "check", "bad.csv", "--html", "page.html"]) == 2
    assert "Refused" in (here / "page.html").read_text()
    (here / "file").write_text("")
    assert main(["data", "check", "good.csv", "--html", "file/page.html"]) == 2
    assert "--html: cannot write file/page.html" in capsys.readouterr().err


def test_an_audit_without_leaks_passes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "audit", "--features", "return,rsi(3)", "--dates", "4", "--rows", "300"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "No leak found at 4 dates." in out
    assert [line.split() for line in out.splitlines() if "rsi(3)" in line] == [
        ["rsi(3)", "pass", "pass", "pass", "pass"]
    ]


def test_an_audit_finds_a_users_leak(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--data", "files", "--data.options.path", "good.csv", "--dates", "4"]
    assert main(["data", "audit", "--features", "mine.py:peek,mine.py:gain", *files]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "LEAK mine.py:peek: truncate moved 20" in out
    assert "LEAK mine.py:gain" not in out
    assert "1 of those above know what they cannot." in out
    assert main(["data", "audit", "--features", "mine.py:peek(2)", *files]) == 2
    assert "LEAK mine.py:peek(2)" in capsys.readouterr().out


def test_the_whole_audit_of_a_file_covers_joins_and_scalers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", "files", "--data.options.path", "good.csv", "--dates", "2", "--rows", "400"]
    assert main(["data", "audit", *argv]) == 0
    out = capsys.readouterr().out
    for name in (*FEATURES, "join files", "join weekly", "scaler standard"):
        assert name in out
    assert "Not tested: volume_ratio" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["hide"], "expected list, `show SOURCE`"),
        (["show"], "expected `show SOURCE`, got 'nothing'"),
        (["show", "moon"], "unknown source 'moon'"),
        (["list", "all"], "expected `list`, got 'all'"),
        (["features", "--x", "1"], "expected `features`, got '--x'"),
        (["check"], "expected `check SOURCE`"),
        (["check", "good.csv", "--max_gaps", "3"], "did you mean 'max_gap'?"),
        (["check", "factors", "--max_gap", "3"], "max_gap"),
        (["audit", "rsi"], "takes options only, got 'rsi'"),
        (["audit", "--features", "rsy"], "unknown feature 'rsy'; did you mean 'rsi'"),
        (["audit", "--features", "rsi", "--dates", "0"], "dates must be >= 1"),
        (["audit", "--data", "moon"], "'moon'"),
        (["audit", "--date", "3"], "unknown setting '--date'"),
    ],
)
def test_a_mistake_is_one_line_with_status_2(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_longer_periods_are_a_setting(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--data", "files", "--data.options.path", "good.csv", "--data.frequency", "weekly"]
    assert main(["data", "audit", "--features", "return(3)", "--dates", "3", *files]) == 0
    argv = ["train", "--agent", "equal_weight", *files, "--data.features", "return(3)"]
    assert main([*argv, "--experiment", "weekly"]) == 0
    table = pd.read_parquet(next(here.glob("results/weekly/**/backtest.parquet")))
    assert (pd.DatetimeIndex(table.index).day_of_week == 4).all()
    assert main([*argv[:-4], "--data.frequency", "hourly"]) == 2
    assert "data.frequency" in capsys.readouterr().err


FILE = ["compare", "--agents", "equal_weight", "--data", "files", "--data.options.path", "good.csv"]


def test_feature_sets_caches_and_tables_are_settings(here: Path) -> None:
    Path("set.yaml").write_text("- return(5)\n- macro('cpi')\n")
    Path("cpi.csv").write_text(
        "date,published,value\n2017-01-01,2017-02-14,1\n2018-01-01,2018-02-14,2\n"
    )
    options = ["--data.features", "set.yaml", "--data.options.feature_cache", "kept"]
    options += ["--data.options.tables", "{cpi: cpi.csv}"]
    assert main([*FILE, *options]) == 0
    assert len(list((here / "kept").glob("*.features.npy"))) == 1
    config = next((here / "results").glob("*/equal_weight/seed_000/config.yaml"))
    stored = yaml.safe_load(config.read_text())["data"]
    assert stored["features"] == ["return(5)", "macro('cpi')"]
    manifest = json.loads(config.with_name("manifest.json").read_text())
    assert manifest["data"]["periods_per_year"] == 252


@pytest.mark.parametrize(
    ("rows", "advice"),
    [(500, "the earliest train_end is 2018-12-20"), (100, "bring 154 rows more of history")],
)
def test_a_short_history_says_when_training_can_end(
    here: Path, capsys: pytest.CaptureFixture[str], rows: int, advice: str
) -> None:
    lines = Path("good.csv").read_text().splitlines(keepends=True)
    Path("good.csv").write_text("".join(lines[: rows + 1]))
    ends = ["--split.train_end", "2018-03-01", "--split.valid_end", "2018-04-02"]
    assert main([*FILE[:2], "mean_variance", *FILE[3:], *ends]) == 2
    error = capsys.readouterr().err
    assert "needs 254 days of training, got 44 (2018-01-01 .. 2018-03-01)" in error
    assert advice in error
    assert not (here / "results").exists()
