"""Settings and rewards that cannot be (A33 to A40, A47, A51): one line, status 2, nothing made."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs import PortfolioEnv, PortfolioVectorEnv
from experiments.cli import main
from experiments.runs import Run
from market.errors import DataError, SettingError
from tests.conftest import write_prices
from tests.test_files import FAULTS

DATES = pd.bdate_range("2020-01-01", periods=120)
PRICES = ("--data", "files", "--data.options.path", "prices.csv")
PPO = ("--agent", "ppo", "--agent.lookback", "5")
REWARDS = """
import numpy as np
def raises(transition): raise ValueError("out of\\nluck")
def nan(transition): return transition.portfolio_return * np.nan
def infinite(transition): return transition.portfolio_return + np.inf
def huge(transition): return transition.portfolio_return + 1e38
def nothing(transition): return None
def three(transition): return np.zeros(3)
def later(transition):
    return np.where(transition.value > 1.001, np.nan, transition.portfolio_return)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_prices(tmp_path, DATES)
    (tmp_path / "mine.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *argv, text=None):
    """The one line of error; nothing stands where results would."""
    words = list(argv)
    if text is not None:
        Path("x.yaml").write_text(text)
        words.insert(1, "x.yaml")
    before = sorted(Path().rglob("*"))
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1, printed.err
    assert [p for p in sorted(Path().rglob("*")) if "__pycache__" not in str(p)] == before
    return printed.err


FILES = {
    "A33 misspelt": (
        "agent: ppo\nlerning_rate: 1\n",
        r"'lerning_rate' \(line 2 of x\.yaml\); did you mean 'agent\.learning_rate'\?",
    ),
    "A33 misspelt inside": (
        "agent:\n  name: ppo\n  lerning_rate: 1\n",
        r"'agent\.lerning_rate' \(line 3 of x\.yaml\); did you mean 'agent\.learning_rate'\?",
    ),
    "A34 twice": (
        "seeds: 1\nagent: ppo\nseeds: 2\n",
        r"x\.yaml: key 'seeds' appears twice, on lines 1 and 3",
    ),
    "A34 twice inside": (
        "agent:\n  name: ppo\n  steps: 1\n  steps: 2\n",
        r"key 'agent\.steps' appears twice, on lines 3 and 4",
    ),
    "A35 sexagesimal": (
        "agent: {name: ppo, learning_rate: 1:30}\n",
        r"agent\.learning_rate must be a number, got '1:30' \(line 1 of x\.yaml\)",
    ),
    "A36 truth values": (
        "data:\n  assets: [ON, no, true]\n",
        r"data\.assets\[2\].*true.*quotes.*line 2 of x\.yaml",
    ),
    "half of a character": (
        'agent: cash\nexperiment: "a\\ud83d"\n',
        r"line 2 of x\.yaml: 'a\\ud83d' holds half of a character",
    ),
    "NUL in a path": (
        'agent: cash\nresults: "a\\0b"\n',
        r"results must not hold the character NUL, got 'a\\x00b' \(line 2 of x\.yaml\)",
    ),
    "NUL inside": (
        'agent: cash\ndata: {source: files, options: {path: ["a", "\\0"]}}\n',
        r"data\.options must not hold the character NUL, got .* \(line 2 of x\.yaml\)",
    ),
    "A40 aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n"
            for a, b in zip("abcd", "bcde", strict=True)
        ),
        r"x\.yaml: more than 10000 values once aliases expand",
    ),
    "A40 huge": ("#" * 2_000_000, r"x\.yaml: must be at most 1000000 bytes, got 2000000"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_settings_file_names_key_and_line(here, capsys, case):
    text, words = FILES[case]
    assert re.search(words, refused(capsys, "train", *PRICES, text=text))


SOME = ("empty", "torn line", "a field more", "long twice", "thousands", "negative", "path name")


@pytest.mark.parametrize("fault", [*SOME, "one asset alone", "serial dates", "NUL"])
def test_a_bad_price_file_is_one_line_of_the_command(here, capsys, fault):
    """A2 to A27, as a user meets them; with --debug there is the traceback."""
    content, words = FAULTS[fault]
    Path("prices.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    argv = ["train", "--agent", "equal_weight", *PRICES]
    if fault == "one asset alone":
        argv += ["--data.options.cash_rate", "null"]
    line = refused(capsys, *argv)
    assert line.startswith("allocgym: error: prices.csv: ") and words in line
    with pytest.raises(DataError):
        main([*argv, "--debug"])
    assert not Path("results").exists()


def test_a_path_that_the_system_does_not_give_us_is_one_line(here, capsys):
    """A1, of settings and runs."""
    long = "x" * 300
    for argv in (["train", f"{long}.yaml"], ["evaluate", long], ["report", long]):
        line = refused(capsys, *argv)
        assert long in line and "File name too long" in line


def test_numbers_in_a_file_are_the_numbers_they_look_like(here):
    """A35: 1e-4 is no text, 010 is ten."""
    Path("x.yaml").write_text("agent: {name: mean_variance, window: 010, risk_aversion: 1e-1}\n")
    assert main(["train", "x.yaml", *PRICES]) == 0
    agent = Run.read(here / "results/train/mean_variance/seed_000").config["agent"]
    assert (agent["window"], agent["risk_aversion"]) == (10, 0.1)


def test_all_that_is_out_of_range_is_told_at_once(here, capsys):
    argv = ["--agent.gamma", "1.5", "--agent.num_envs", "0", "--agent.n_epochs", "-2"]
    argv += ["--task.cost", "-1", "--seeds", f"[-1, {2**70}]", "--task.band", "3"]
    line = refused(capsys, "train", *PPO, *PRICES, *argv)
    for told in (
        "gamma must be in [0, 1), got 1.5",
        "num_envs must be in [1, inf), got 0",
        "n_epochs must be in [1, inf), got -2",
        "task.cost.buy must be in [0, 1), got -1.0",
        "seeds must be in [0, 2**32), got -1",
        f"seeds must be in [0, 2**32), got {2**70}",
        "task.band must be in [0, 1), got 3.0",
    ):
        assert told in line
    agents = "{name: ppo, gamma: 2}, {name: sac, gamma: 3}"
    line = refused(capsys, "compare", "--agents", agents, *PRICES)
    assert "ppo: gamma must be in [0, 1), got 2" in line
    assert "sac: gamma must be in [0, 1), got 3" in line


CLASHES = {
    "A37 test before train": (
        ["--split.train_end", "2020-04-01", "--split.valid_end", "2020-03-02"],
        ["split.train_end", "split.valid_end", "2020-04-01", "2020-03-02"],
    ),
    "A37 no test": (
        ["--split.train_end", "2020-04-01", "--split.valid_end", "2020-06-16"],
        ["split.train_end", "split.valid_end", "2020-06-16"],
    ),
    "A38 window": (["--agent.lookback", "300"], ["lookback 300", "301 days", "72", "181 rows"]),
    "A47 floors": (
        ["--task.constraints", "min_weight({'AAA': 0.6, 'BBB': 0.7})"],
        ["MinWeight", "2 assets", "1.3 > 1"],
    ),
    "A47 floor and cap": (
        ["--task.constraints", "min_weight({'AAA': 0.6}),max_weight(0.5)"],
        ["MinWeight 0.6 on AAA", "MaxWeight 0.5", "0.6 > 0.5"],
    ),
    "A39 unknown": (["--task.reward", "log_retrun"], ["'log_retrun'", "'log_return'"]),
    "A39 not there": (["--task.reward", "mine.py:gain"], ["mine.py", "'gain'"]),
    "A39 raises": (["--task.reward", "mine.py:raises"], ["`raises`", "ValueError: out of luck"]),
    "A39 nothing": (["--task.reward", "mine.py:nothing"], ["`nothing`", "numbers", "None"]),
    "A39 shape": (["--task.reward", "mine.py:three"], ["`three`", "shape ()", "(3,)"]),
    "A51 nan": (["--task.reward", "mine.py:nan"], ["`nan`", "finite", "nan", "2020-01-07"]),
    "A51 infinite": (["--task.reward", "mine.py:infinite"], ["`infinite`", "finite", "inf"]),
    "A51 huge": (["--task.reward", "mine.py:huge"], ["`huge`", "1e+12", "1e+38", "step 1"]),
}


@pytest.mark.parametrize("case", CLASHES)
def test_what_cannot_be_is_refused_before_anything_is_written(here, capsys, case):
    argv, parts = CLASHES[case]
    line = refused(capsys, "train", *PPO, *PRICES, *argv)
    for part in parts:
        assert part in line, line


def test_a_reward_that_fails_in_training_fails_the_run_by_step_and_date(here, capsys):
    argv = [*PRICES, "--task.reward", "mine.py:later"]
    assert main(["train", *PPO, "--agent.steps", "500", *argv]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    words = r"seed 0: ppo on (.+): reward `later` .* got nan \(step \d+, decided on \1\)$"
    assert re.search(words, last)
    assert Run.read(here / "results/train/ppo/seed_000").status == "failed"
    assert main(["train", *argv, "--agent", "equal_weight", "--debug"]) == 2
    assert "RewardFault: reward `later`" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["raises", "returns"])
def test_the_fault_of_a_reward_is_placed_alone_and_in_a_batch(make_market, fault):
    """The step, date and environment named are those at which the value first passes 1.01."""
    market = make_market()

    def late(transition):
        over = np.asarray(transition.value) > 1.01
        if fault == "raises" and over.any():
            raise ZeroDivisionError("late")
        return np.where(over, np.nan, transition.portfolio_return)

    even = np.full(5, 0.2)
    fine, faulty = (PortfolioEnv(market, lookback=5, reward=r) for r in ("log_return", late))
    infos = []
    for env in (fine, faulty):
        infos = [env.reset(seed=0, options={"start": 10})[1]]
    while infos[-1]["value"] <= 1.01:
        infos.append(fine.step(even)[-1])
    step, date = len(infos) - 1, f"{infos[-2]['date']:%Y-%m-%d}"
    assert step > 1
    with pytest.raises(SettingError, match=rf"\(step {step}, decided on {date}\)$"):
        for _ in range(step):
            faulty.step(even)
    batch = PortfolioVectorEnv(market, 3, lookback=5, reward=late, random_start=True)
    batch.reset(options={"start": 10})
    actions = np.stack([np.eye(5)[-1], even, np.eye(5)[-1]])
    place = rf"environment 1, step {step}, decided on {date}"
    if fault == "raises":
        place = rf"in a step of 3 environments decided on {date} \.\. {date}"
    with pytest.raises(SettingError, match=rf"\({place}\)$"):
        for _ in range(step):
            batch.step(actions)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write to")
@pytest.mark.parametrize("results", ["file", "/proc/results", "file/below"])
def test_results_that_cannot_be_written_are_refused_before_training(here, capsys, results):
    """B7: a file in its place, a folder of which nobody has the right."""
    Path("file").write_text("mine")
    line = refused(capsys, "train", *PPO, *PRICES, "--results", results)
    assert results in line
    assert Path("file").read_text() == "mine"
