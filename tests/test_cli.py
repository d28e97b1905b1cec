"""The `allocgym` command as people use it: help, the whole way through, and everything refused."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.cli import main
from experiments.commands import COMMANDS
from experiments.runs import Run
from market.errors import InputError, SettingError
from tests.conftest import write_prices

ROOT = Path(__file__).resolve().parents[1]
TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a price file in it."""
    write_prices(tmp_path, DATES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PRICES = ("--data", "files", "--data.options.path", "prices.csv")
TRAIN = ("train", "--agent", TINY, *PRICES)


def refused(capsys, *argv):
    """The one line on standard error of a command that must be refused and leave nothing."""
    status = main(list(argv))
    printed = capsys.readouterr()
    assert status == 2, printed
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("allocgym: error: ")
    assert not Path("results").exists()
    return lines[0]


def test_train_evaluate_report_and_train_again(here, capsys):
    assert main([*TRAIN, "--seeds", "2", "--workers", "1", "--agent.steps", "3"]) == 0
    printed = capsys.readouterr()
    assert "Tiny seed 1: finished" in printed.err
    run = here / "results" / "train" / "Tiny" / "seed_001"
    assert f"Run: {run.relative_to(here)}" in printed.out
    assert "tensorboard --logdir results/train" in printed.out
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "backtest.parquet")}

    folder_before = sorted(path for path in here.rglob("*"))
    assert main(["evaluate", str(run), "--trust"]) == 0
    shown = capsys.readouterr().out
    value = Run.read(run).backtest["value"].iloc[-1]
    assert f"{value:.3f}" in shown
    assert f"From the close of {DATES[95]:%Y-%m-%d} to {DATES[-1]:%Y-%m-%d}" in shown
    assert sorted(path for path in here.rglob("*")) == folder_before

    assert main(["report", "results/train"]) == 0
    assert "Report: results/train/report.html" in capsys.readouterr().out
    assert "<html" in (here / "results" / "train" / "report.html").read_text()[:300]

    copy = here / "copy.yaml"
    copy.write_bytes((run / "config.yaml").read_bytes())
    written = (run / "metrics.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["train", "copy.yaml", "--trust"]) == 0
    assert "kept: Tiny seed 1" in capsys.readouterr().err
    assert (run / "metrics.jsonl").stat().st_mtime_ns == written
    assert main(["train", "copy.yaml", "--trust", "--overwrite"]) == 0
    assert (run / "metrics.jsonl").stat().st_mtime_ns > written
    after = {name: (run / name).read_bytes() for name in before}
    assert after == before
    assert (run / "config.yaml").read_bytes() == copy.read_bytes()


def test_evaluate_on_other_data_and_days(here, capsys):
    assert main([*TRAIN, "--workers", "1"]) == 0
    run = "results/train/Tiny/seed_000"
    frame = pd.read_csv("prices.csv", index_col=0)
    frame.index = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2023-01-02", periods=120)]
    frame.rename_axis("date").to_csv("later.csv")
    capsys.readouterr()
    argv = ["evaluate", run, "--trust", "--data.options.path", "later.csv", "--output", "path.csv"]
    assert main(argv) == 0
    path = pd.read_csv("path.csv", index_col=0)
    assert (path.index[0], len(path)) == (frame.index[5], 115)  # a lookback of 5, then every day
    assert main(["evaluate", run, "--trust", "--start", f"{DATES[20]:%Y-%m-%d}"]) == 0
    shown = capsys.readouterr().out
    assert f"From the close of {DATES[20]:%Y-%m-%d}" in shown
    assert f"Note: days up to {DATES[95]:%Y-%m-%d} were used to train" in shown

    frame.rename(columns={"AAA": "CCC"}).rename_axis("date").to_csv("other.csv")
    assert main(["evaluate", run, "--trust", "--data.options.path", "other.csv"]) == 2
    assert "unknown asset" in capsys.readouterr().err


def test_evaluate_under_other_costs_and_rules(here, capsys):
    """Free trading is worth more than the run's 0.1 %, and 0.5 % less."""
    assert main([*TRAIN, "--workers", "1"]) == 0
    finals = []
    for cost in ("0", "0.001", "0.005"):
        argv = ["evaluate", "results/train/Tiny/seed_000", "--trust", "--output", "path.csv"]
        assert main([*argv, "--task.cost", cost, "--task.decision_lag", "1"]) == 0
        finals.append(pd.read_csv("path.csv")["value"].iloc[-1])
    assert finals[0] > finals[1] > finals[2]
    shown = " ".join(capsys.readouterr().out.split())
    note = "the rules differ from the run's own: task.cost.buy 0.0, was 0.001; task.decision_lag 1"
    assert note in shown
    assert main(["evaluate", "results/train/Tiny/seed_000", "--trust"]) == 0
    assert "rules differ" not in capsys.readouterr().out
    argv = ["evaluate", "results/train/Tiny/seed_000", "--trust", "--task.cost", "2"]
    assert main(argv) == 2 and "buy" in capsys.readouterr().err


def test_limits_at_work_are_counted_in_the_report(here, capsys):
    """The floors need more turnover from cash than the cap leaves: unmet on the first date."""
    limits = "max_weight(0.4),min_weight(0.15),turnover_cap(0.1)"
    argv = ["compare", *PRICES, "--agents", "equal_weight", "--task.constraints", limits]
    assert main([*argv, "--workers", "1"]) == 0
    frame = Run.read(here / "results/compare/equal_weight/seed_000").backtest
    page = (here / "results/compare/report.html").read_text()
    section = page[page.index('id="limits"') :]
    section = section[: section.index("</section>")]
    shown = re.findall(r"<td>([\d.]+%)</td>", section)
    expected = [frame[f"binding:{name.split('(')[0]}"].mean() for name in limits.split(",")]
    assert shown == [f"{share:.1%}" for share in (*expected, frame["unmet"].mean())]
    assert list(frame.index[frame["unmet"]]) == [frame.index[0]]
    assert expected[0] > 0 and (frame[["target:AAA", "target:BBB"]] <= 0.4 + 1e-12).all(axis=None)


def test_compare_prints_the_table_and_writes_the_report(here, capsys):
    argv = ["compare", *PRICES, "--agents", f"equal_weight, buy_and_hold, {TINY}", "--workers", "1"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert re.search(r"equal_weight \*? +-?\d", printed.out)
    assert "Report: results/compare/report.html" in printed.out
    assert "[7/7]" in printed.err  # five seeds of the one that learns
    folders = sorted(path.parent.name for path in Path("results").rglob("seed_000"))
    assert folders == ["Tiny", "buy_and_hold", "equal_weight"]
    assert (here / "results" / "compare" / "report.html").stat().st_size > 10_000


def test_a_failed_trial_gives_status_1_and_the_others_their_numbers(here, capsys):
    agents = f"equal_weight, {{name: '{TINY}', label: bad, fault: raise}}"
    argv = ["compare", *PRICES, "--agents", agents, "--seeds", "1", "--workers", "1"]
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == (
        "allocgym: error: bad seed 0: RuntimeError: the network fell over"
    )
    assert "Traceback" not in printed.err
    assert "equal_weight" in printed.out
    assert main([*TRAIN, "--agent.fault", "raise", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_action_with_nan_is_the_agents_fault_in_one_line(here, capsys):
    assert main([*TRAIN, "--agent.fault", "nan"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"allocgym: error: Tiny seed 0: Tiny on \d{4}-\d\d-\d\d: ", last)


def test_a_users_own_reward_from_a_file(here):
    Path("mine.py").write_text("def gain(transition):\n    return transition.portfolio_return\n")
    assert main([*TRAIN, "--task.reward", "mine.py:gain"]) == 0
    assert Run.read(here / "results/train/Tiny/seed_000").manifest["reward"] == "mine.py:gain"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--data.assets", "AAA,CCC"], ["unknown asset", "'CCC'", "AAA"]),
        (["--data.start", "1990-01-01"], ["1990-01-01", "2020-01-01"]),
        (["--data.end", "2120-01-01"], ["2120-01-01"]),
        (["--data.start", "yesterday"], ["start", "'yesterday'"]),
        (["--split.train_end", "2019-01-01", "--split.valid_end", "2020-03-02"], ["2019-01-01"]),
        (["--split.train_start", "2120-01-01"], ["split.train_start", "2120-01-01"]),
        (["--split.train_start", f"{DATES[-1]:%Y-%m-%d}"], ["must be before train_end"]),
        (["--split.train_start", f"{DATES[70]:%Y-%m-%d}"], ["lookback", "days of training, got"]),
        (["--agent.lookback", "500"], ["lookback 500", "days of training"]),
        (["--agent.lookback", "0"], ["lookback", "0"]),
        (["--agent.stepz", "5"], ["'--agent.stepz'", "did you mean 'agent.steps'"]),
        (["--agent.steps", "many"], ["agent.steps", "a whole number", "'many'"]),
        (["--data.options.path", "no.csv"], ["no.csv"]),
        (["--data.options.paht", "no.csv"], ["'paht'", "'path'"]),
        (["--data.options.start", "2020-01-01"], ["data.start"]),
        (["--task.reward", "log_return -"], ["log_return"]),
        (["--task.reward", "nowhere.py:Name"], ["nowhere.py"]),
        (["--task.cost", "-0.1"], ["task.cost.buy", "[0, 1)", "-0.1"]),
        (["--experiment", "../x"], ["experiment"]),
        (["--data", "moon"], ["'moon'", "multi_asset"]),
        (["a.yaml"], ["a.yaml does not exist"]),
        (["a.yaml", "b.yaml"], ["at most one settings file"]),
    ],
)
def test_what_train_refuses(here, capsys, argv, parts):
    line = refused(capsys, *TRAIN, *argv)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("cell", ["-3.2", "0", "inf", "abc"])
def test_a_bad_price_is_named_by_file_column_and_date(here, capsys, cell):
    lines = Path("prices.csv").read_text().splitlines()
    date, _, second = lines[31].split(",")
    lines[31] = f"{date},{cell},{second}"
    Path("prices.csv").write_text("\n".join(lines) + "\n")
    line = refused(capsys, *TRAIN)
    for part in ("prices.csv", "AAA", cell):
        assert part in line


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["trian"], "did you mean 'train'"),
        (["compare", "--agents", "equal_wait"], "did you mean 'equal_weight'"),
        (["compare", "--agents", "{name: mean_variance, windw: 3}"], "did you mean 'window'"),
        (["compare", "--agents", "ppo,ppo"], "give one of them a label"),
        (["evaluate"], "evaluate needs a RUN"),
        (["report"], "report needs a RUN"),
        (["compare", "--reference", "ppoo"], "reference: must be one of the agents"),
        (["walk-forward", "--walk.refit_every", "0"], "walk.refit_every must be at least 1"),
        (
            ["walk-forward", "--walk.start", "1999-08-02"],
            "the first test day, 1999-08-02, has 6 days before it, which do not hold",
        ),
        (["walk-forward", "--agents", "lstm", "--walk.warm_start", "true"], "cannot go"),
        (["evaluate", "nowhere"], "existing folder, got nowhere"),
        (["report", "nowhere"], "existing folder, got nowhere"),
        (["report", "."], "no runs in"),
        (["data", "show", "moon"], "multi_asset"),
        (["data", "hide"], "`show SOURCE`"),
    ],
)
def test_what_other_commands_refuse(here, capsys, argv, part):
    assert part in refused(capsys, *argv)


def test_code_named_in_a_settings_file_needs_trust(here, capsys):
    Path("mine.yaml").write_text(f"agent: {TINY}\n")
    assert "--trust" in refused(capsys, "train", "mine.yaml", *PRICES)
    Path("mine.yaml").write_text("task: {reward: 'evil.py:Name'}\n")
    assert "--trust" in refused(capsys, *TRAIN, "mine.yaml")
    Path("mine.yaml").write_text("'task.reward': 'evil.py:Name'\n")
    assert "--trust" in refused(capsys, *TRAIN, "mine.yaml")
    Path("mine.yaml").write_text(f"agents: [equal_weight, {{name: '{TINY}'}}]\n")
    assert "--trust" in refused(capsys, "compare", "mine.yaml", *PRICES)


@pytest.mark.parametrize(
    "text",
    [
        "task: {cost: {more: ['evil.py:Name(1)']}}",
        "task: {constraints: ['max_weight(0.4)', 'evil:Name']}",
        "data: {features: ['return(1)', 'evil.py:feature']}",
        "agent: {name: ensemble, members: ['cash', 'evil.py:Agent']}",
        "agents: ['ensemble(members=[evil.py:Agent])']",
    ],
)
def test_code_anywhere_in_a_settings_file_needs_trust(here, capsys, text):
    Path("evil.py").write_text("open('ran', 'w')")
    Path("mine.yaml").write_text(text)
    command = "compare" if text.startswith("agents") else "train"
    assert "--trust" in refused(capsys, command, "mine.yaml", *PRICES)
    assert not Path("ran").exists()


def test_a_run_that_cannot_be_evaluated_says_why(here, capsys):
    assert main([*TRAIN, "--workers", "1"]) == 0
    run = Path("results/train/Tiny/seed_000")
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "--trust" in capsys.readouterr().err
    (run / "model" / "state.json").write_text("{")
    assert main(["evaluate", str(run), "--trust"]) == 2
    assert f"{run}/model: the model cannot be loaded" in capsys.readouterr().err
    (run / "manifest.json").unlink()
    assert main(["evaluate", str(run), "--trust"]) == 2
    assert "manifest.json is missing" in capsys.readouterr().err


def test_a_results_folder_that_is_a_file_is_refused_before_training(here, capsys):
    Path("results").write_text("")
    assert main([*TRAIN]) == 2
    assert "results" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(capsys, command):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: allocgym {command}")
    if command != "data":
        assert f"examples:\n  allocgym {command}" in text


def test_the_help_of_an_agent_shows_its_settings(capsys):
    assert main(["train", "--agent", "mean_variance", "--help"]) == 0
    assert "--agent.window" in capsys.readouterr().out


def test_data_lists_universes_with_span_and_assets(capsys):
    assert main(["data"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"multi_asset +1999-\d\d-\d\d +2018-12-31 +\d{4} +sp500, nasdaq", shown)
    assert main(["data", "show", "factors"]) == 0
    assert re.search(r"USMV +low_volatility +\d", capsys.readouterr().out)


def test_the_command_itself_refuses_without_a_traceback(here, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "report", "nowhere"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert re.fullmatch(r"allocgym: error: run path .* got nowhere\n", done.stderr)
    argv = ["train", *PRICES, "--data.assets", "CCC", "--agent", "equal_weight"]
    assert re.match(r"allocgym: error: unknown asset .*'CCC'", refused(capsys, *argv))
    with pytest.raises(SettingError, match="seeds must be at least 1"):
        main(["train", *PRICES, "--seeds", "0", "--debug"])


def test_help_and_version_import_nothing_slow(here):
    code = (
        "import sys; from experiments.cli import main; main(['--help']); main(['--version']);"
        "print([m for m in ('numpy', 'pandas', 'torch', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: allocgym COMMAND")
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_settings_of_a_run_are_plain_yaml(here):
    assert main([*TRAIN, "--workers", "1"]) == 0
    text = Path("results/train/Tiny/seed_000/config.yaml").read_text()
    assert yaml.safe_load(text)["split"]["train_end"] == f"{DATES[71]:%Y-%m-%d}"
    assert "!!" not in text


@pytest.mark.parametrize("command", [*COMMANDS, "no_such_command"])
def test_every_command_says_one_line_and_with_debug_the_traceback(here, capsys, command):
    argv = [command, "nothing", "--no_such_setting", "1"]
    assert refused(capsys, *argv)
    with pytest.raises(InputError):
        main([*argv, "--debug"])


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")


@contextlib.contextmanager
def full_output():
    full = open("/dev/full", "w")  # noqa: SIM115  # closed below, where what is left fails again
    try:
        with contextlib.redirect_stdout(full):
            yield
    finally:
        with contextlib.suppress(OSError):
            full.close()


FULL_LINE = "allocgym: error: standard output: No space left on device\n"


@FULL
@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["data"],
        ["data", "show", "prices.csv"],
        ["data", "check", "prices.csv", "--html", "page.html"],
        ["train", *PRICES, "--agent", "cash"],
    ],
)
def test_output_that_cannot_be_written_is_one_line(here, capsys, argv):
    with full_output():
        assert main(argv) == 2
        assert capsys.readouterr().err.endswith(FULL_LINE)
        with pytest.raises(OSError, match="No space left"):
            main(["data", "features", "--debug"])


@FULL
def test_a_report_is_written_where_its_place_cannot_be_said(here, capsys):
    assert main(["train", *PRICES, "--agent", "cash"]) == 0
    capsys.readouterr()
    with full_output():
        assert main(["report", "results"]) == 2
    assert capsys.readouterr().err == FULL_LINE
    assert Path("results/report.html").exists()


@FULL
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("--help >/dev/full", 2, FULL_LINE),
        ("--help | true", 1, ""),
        ("--help >&-", 0, ""),
    ],
)
def test_where_output_goes_is_nothing_to_crash_over(tmp_path, line, status, said):
    """As a shell has it: full, gone, closed."""
    command = Path(sys.executable).with_name("allocgym")
    shell = f"set -o pipefail; {command} {line}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)


def test_an_interrupt_while_libraries_load_is_one_line(here, capsys, monkeypatch):
    """Whose import is the first thing a command does."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "experiments.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "experiments.commands")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert main(["data"]) == 130
    assert capsys.readouterr().err == "allocgym: interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        main(["data", "--debug"])


def test_a_current_folder_that_is_gone_is_one_line(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert main(["data"]) == 2
    assert capsys.readouterr().err.startswith("allocgym: error: the current folder: No such file")
    monkeypatch.chdir(tmp_path)


def test_what_is_doubted_of_data_is_said_once(here, caplog):
    """As the plan is checked; the trial that reads the file again says nothing more."""
    head, *rows = Path("prices.csv").read_text().splitlines()
    Path("prices.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert main(["train", *PRICES, "--agent", "equal_weight"]) == 0
    assert sum("dates do not rise" in message for message in caplog.messages) == 1
    notes = Run.read(here / "results/train/equal_weight/seed_000").manifest["data"]["notes"]
    assert any("dates do not rise" in note for note in notes)
