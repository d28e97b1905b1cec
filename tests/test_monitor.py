"""`allocgym monitor` as people and schedulers use it: planted changes, clean days, refits."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.cli import main
from experiments.commands import run_config
from experiments.monitor import MonitorSettings, Report, monitor
from experiments.resampling import Comparison
from experiments.retrain import replace_run
from experiments.run_dir import find_runs
from experiments.runs import Run
from market.errors import SettingError

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2012-01-02", periods=900)
PRICES = ("--data", "files", "--data.options.path", "prices.csv")
RUN = "results/train/Tiny/seed_000"
CHECKS = ["features", "performance", "regimes", "volatility", "turnover", "cost"]


def write_prices(name, seed=3, scale=None, dates=DATES):
    steps = np.random.default_rng(seed).normal(0.0003, 0.01, (len(dates), 2))
    steps = steps if scale is None else steps * scale[:, None]
    frame = pd.DataFrame(np.exp(np.cumsum(steps, 0)) * 100, dates, ["AAA", "BBB"])
    frame.rename_axis("date").to_csv(name)


def wilder(at=720, by=3.0):
    return np.where(np.arange(len(DATES)) >= at, by, 1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 900 quiet days: 540 of training, 180 of validation."""
    folder = tmp_path_factory.mktemp("monitor")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_prices("prices.csv")
        assert main(["train", "--agent", TINY, *PRICES, "--workers", "1"]) == 0
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_a_rolling_walk_forward_is_held_against_its_last_window_and_refitted_on_as_many_days(
    here, capsys
):
    walk = ["--walk.start", f"{DATES[600]:%Y-%m-%d}", "--walk.refit_every", "120"]
    walk += ["--walk.valid_days", "100", "--walk.train_days", "300", "--agents", TINY]
    walk += ["--experiment", "rolled"]
    assert main(["walk-forward", *walk, *PRICES, "--seeds", "1", "--workers", "1"]) == 0
    path = Path("results/rolled/Tiny/seed_000")
    days = json.loads((path / "windows/002/window.json").read_text())
    capsys.readouterr()
    cut = f"{DATES[860]:%Y-%m-%d}"
    main(["monitor", str(path), "--trust", "--json", "--retrain", cut])
    found = json.loads(capsys.readouterr().out)
    assert found["training"] == days["train"]
    first = int(DATES.searchsorted(days["train"][0]))
    assert found["reference"][0] == f"{DATES[first + 5 + 1]:%Y-%m-%d}"  # lookback 5, first left out
    seen = json.loads((Path(found["refit"]["run"]) / "model/state.json").read_text())["seen"]
    old = DATES.slice_indexer(*days["train"])
    new = DATES.slice_indexer(*seen["train"])
    assert new.stop - new.start == old.stop - old.start == 301  # 300 returns
    assert new.stop > old.stop


def check(capsys, *argv):
    """Exit status and the report."""
    capsys.readouterr()
    status = main(["monitor", RUN, "--trust", "--json", *argv])
    return status, json.loads(capsys.readouterr().out)


def test_a_walk_forward_is_watched_from_its_last_refit_on(here, capsys):
    walk = ["--walk.start", f"{DATES[600]:%Y-%m-%d}", "--walk.refit_every", "120"]
    walk += ["--walk.valid_days", "100", "--agents", TINY, "--experiment", "walked"]
    assert main(["walk-forward", *walk, *PRICES, "--seeds", "1", "--workers", "1"]) == 0
    capsys.readouterr()
    status = main(["monitor", "results/walked/Tiny/seed_000", "--trust", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (status, found["alarms"], found["notes"]) == (0, [], [])
    assert found["new"] == [f"{DATES[840]:%Y-%m-%d}", f"{DATES[899]:%Y-%m-%d}", 60]
    assert found["training"] == [f"{DATES[0]:%Y-%m-%d}", f"{DATES[739]:%Y-%m-%d}"]


def test_quiet_days_are_fine(here, capsys):
    status, found = check(capsys)
    assert (status, found["status"], found["alarms"]) == (0, 0, [])
    assert list(found["checks"]) == CHECKS
    assert found["new"][2] == 180
    assert found["reference"][1] == f"{DATES[719]:%Y-%m-%d}"
    volatility = found["checks"]["volatility"]
    assert volatility["low"] < volatility["expected"] < volatility["high"]
    held = Run.read(RUN).backtest
    excess = held["portfolio_return"] - held["risk_free"]
    yearly = excess.std() * 252**0.5  # but for the entry, which the back-test pays for anew
    assert volatility["value"] == pytest.approx(yearly, rel=5e-3)
    assert found["checks"]["turnover"]["value"] == pytest.approx(
        252 * held["turnover"][1:].mean(), rel=0.02
    )
    assert sum(found["checks"]["regimes"]["last_day"]) == pytest.approx(1.0)


def test_wild_days_are_an_alarm_in_the_data_of_the_file_that_carries_on(here, capsys):
    write_prices("wild.csv", scale=wilder())
    status, found = check(capsys, "--data.options.path", "wild.csv", "--output", "found.json")
    assert (status, found["status"]) == (1, 1)
    assert {"features", "volatility"} <= set(found["alarms"])
    assert found["checks"]["features"]["drifted"]
    volatility = found["checks"]["volatility"]
    assert volatility["value"] > 2.0 * volatility["expected"]
    assert json.loads(Path("found.json").read_text()) == found
    assert main(["monitor", RUN, "--trust", "--data.options.path", "wild.csv"]) == 1
    shown = capsys.readouterr().out
    assert "ALARM" in shown
    assert "Status 1: attention" in shown


def test_a_file_of_later_days_only(here, capsys):
    """Its days follow those of the run; the portfolio carries on with what it held."""
    later = pd.bdate_range(DATES[-1] + pd.Timedelta(days=1), periods=130)
    write_prices("later.csv", seed=8, dates=later)
    status, found = check(capsys, "--data.options.path", "later.csv")
    assert status == 0
    assert found["new"][1:] == [f"{later[-1]:%Y-%m-%d}", 125]  # a lookback of 5
    assert found["notes"] == [
        "later.csv: its first 5 new days are the agent's history and are not judged; data that "
        "reach further back have them judged too"
    ]
    assert found["reference"][1] == f"{DATES[719]:%Y-%m-%d}"


def test_only_the_last_days(here, capsys):
    _, found = check(capsys, "--last", "60")
    assert found["new"] == [f"{DATES[-60]:%Y-%m-%d}", f"{DATES[-1]:%Y-%m-%d}", 60]


def test_revised_data_are_noted(here, capsys):
    frame = pd.read_csv("prices.csv")
    frame.loc[100:, "BBB"] *= 1.02  # one return is another
    frame.to_csv("other.csv", index=False)
    _, found = check(capsys, "--data.options.path", "other.csv")
    assert found["notes"] == [  # the run's own data are as they were
        "other.csv: returns differ from those of the run's data on 1 of 899 days, first on "
        f"{DATES[100]:%Y-%m-%d}, BBB"
    ]
    kept = Path("prices.csv").read_bytes()
    try:
        write_prices("prices.csv", seed=4)
        _, found = check(capsys)
    finally:
        Path("prices.csv").write_bytes(kept)
    assert "are not those of the run" in found["notes"][0]


def test_clean_markets_alarm_no_more_often_than_the_level(here):
    """5 % of 8 reports: 3 or more have a probability of 0.6 %."""
    run = find_runs([RUN])[0]
    config = run_config(run.path, True)
    alarms = 0
    for seed in range(8):
        write_prices("clean.csv", seed=100 + seed)
        changes = {"options": {"path": "clean.csv"}}
        report = monitor(run, config, changes, MonitorSettings(seed=seed))
        assert isinstance(report, Report)
        alarms += report.status
    assert alarms <= 2


def test_without_the_run_s_own_data_it_says_which_are_missing(here, capsys):
    write_prices("more.csv")
    Path("prices.csv").rename("away.csv")
    try:
        said = refused(capsys, RUN, "--trust", "--data.options.path", "more.csv")
    finally:
        Path("away.csv").rename("prices.csv")
    assert f"{RUN}: its own data, which must be at hand: prices.csv: no such file" in said


def test_a_change_just_before_the_new_days_is_an_alarm_too(here, capsys):
    """Where performance changed is known to within weeks; 10 days before the first new one."""
    frame = pd.read_csv("prices.csv", index_col="date")
    lost = 0.01 * np.maximum(np.arange(len(DATES)) - 709, 0)  # 1 % a day from the 710th on
    (frame * np.exp(-lost)[:, None]).to_csv("falling.csv")
    status, found = check(capsys, "--data.options.path", "falling.csv")
    assert status == 1
    assert "performance" in found["alarms"]
    likeliest = pd.Timestamp(found["checks"]["performance"]["likeliest"])
    assert DATES[700] <= likeliest < DATES[720]


def refused(capsys, *argv):
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["monitor", *argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert sorted(Path().rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--start", "2030-01-01"], "needs 20 new days from 2030-01-01 on, got 0"),
        (["--start", "soon"], "start must be a date"),
        (["--last", "3"], "last must be at least 20, got 3"),
        (["--level", "2"], "level must be in (0, 1), got 2"),
        (["--regimes", "0"], "regimes must be in [1, 6]"),
        (["--replace"], "--replace needs --retrain"),
        (["--output", "none/found.json"], "cannot write none/found.json: none is not a folder"),
        (["--output", "found.txt"], "--output must end in .json, got found.txt"),
        (["--retrain", f"{DATES[100]:%Y-%m-%d}"], "retrain must be after"),
        (["--retrain", f"{DATES[-3]:%Y-%m-%d}"], "must leave 20 days"),
        (["--data.options.path", "none.csv"], "none.csv"),
    ],
)
def test_wrong_settings_are_one_line_and_status_2(here, capsys, argv, words):
    assert words in refused(capsys, RUN, "--trust", *argv)


def test_evaluate_refuses_a_wrong_ending_before_any_work(here, capsys):
    capsys.readouterr()
    assert main(["evaluate", RUN, "--trust", "--output", "path.txt"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--output must end in .parquet or .csv, got path.txt" in printed.err


def test_no_run_is_one_line(here, capsys):
    assert "run path must be an existing folder" in refused(capsys, "nowhere")


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_refit_replaces_nothing_unless_asked(here, capsys):
    before, cut = files(RUN), f"{DATES[780]:%Y-%m-%d}"
    status, found = check(capsys, "--retrain", cut)
    refit = found["refit"]
    assert status == 0
    assert files(RUN) == before
    assert not refit["replaced"]
    new = Run.read(refit["run"])
    assert new.manifest["splits"]["valid"][1] == cut
    assert new.manifest["splits"]["test"][0] == f"{DATES[781]:%Y-%m-%d}"
    assert refit["days"] == [f"{DATES[781]:%Y-%m-%d}", f"{DATES[-1]:%Y-%m-%d}", 119]
    assert refit["new"]["final_value"] == pytest.approx(new.backtest["value"].iloc[-1])
    old = Run.read(RUN).backtest["value"]
    since = old.iloc[-1] / old[pd.Timestamp(cut)]
    assert refit["old"]["final_value"] == pytest.approx(since, rel=2e-3)  # but for its entry
    lead = refit["sharpe_difference"]
    assert lead["low"] <= lead["difference"] <= lead["high"]
    gap = refit["new"]["sharpe"] - refit["old"]["sharpe"]
    assert lead["difference"] == pytest.approx(gap, rel=1e-6)


def test_a_refit_that_is_worse_is_not_put_into_service(here, monkeypatch, capsys):
    worse = Comparison(-1.0, -1.6, -0.4, 0.001)
    monkeypatch.setattr("experiments.retrain.sharpe_difference", lambda *_, **__: worse)
    before, cut = files(RUN), f"{DATES[770]:%Y-%m-%d}"
    status, found = check(capsys, "--retrain", cut, "--replace")
    assert (status, found["refit"]["replaced"], found["refit"]["kept_back"]) == (1, False, True)
    assert files(RUN) == before
    assert Run.read(found["refit"]["run"]).finished
    assert main(["monitor", RUN, "--trust", "--retrain", cut, "--replace"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing was replaced, because the new one is worse on these days" in said


def test_a_place_that_is_taken_is_refused_before_any_work(here, capsys):
    cut = f"{DATES[775]:%Y-%m-%d}"
    taken = Path(f"results/train-replaced-{cut}/Tiny/seed_000")
    taken.mkdir(parents=True)
    words = refused(capsys, RUN, "--trust", "--retrain", cut, "--replace")
    assert f"{taken} exists already; move it away first" in words


def test_replacing_keeps_the_old_one(trained, tmp_path, monkeypatch, capsys):
    """In a copy of the folder, so that other tests find theirs."""
    monkeypatch.chdir(tmp_path)
    for name in ("prices.csv", *(str(p.relative_to(trained)) for p in (trained / RUN).rglob("*"))):
        if (trained / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((trained / name).read_bytes())
    before, cut = Run.read(RUN), f"{DATES[780]:%Y-%m-%d}"
    status, found = check(capsys, "--retrain", cut, "--replace")
    refit = found["refit"]
    assert status == 0
    assert refit["replaced"]
    kept, now = Run.read(refit["kept"]), Run.read(RUN)
    pd.testing.assert_frame_equal(kept.backtest, before.backtest)
    assert (kept.experiment, now.experiment) == (f"train-replaced-{cut}", "train")
    assert now.manifest["splits"]["valid"][1] == cut
    assert now.config["experiment"] == "train"
    assert main(["evaluate", RUN, "--trust"]) == 0
    with pytest.raises(SettingError, match="must be after"):
        from experiments.retrain import plan_refit

        plan_refit(now, run_config(now.path, True), {}, cut)
    seen = []

    def replace(old: Run, new: Run) -> Path:
        seen.append(capsys.readouterr().out)
        return replace_run(old, new)

    monkeypatch.setattr("experiments.retrain.replace_run", replace)
    later = f"{DATES[800]:%Y-%m-%d}"
    assert main(["monitor", RUN, "--trust", "--retrain", later, "--replace"]) == 0
    assert "Sharpe ratio of new minus old" in seen[0] and "Replaced" not in seen[0]
    assert f"Replaced: {RUN}" in " ".join(capsys.readouterr().out.split())
