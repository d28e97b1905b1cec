"""Every command and example of the README runs, in order; commands on less data where they can."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with the README's own files and a price table, as a reader would have."""
    folder = tmp_path_factory.mktemp("reader")
    for language, text in BLOCKS:
        name = re.match(r"# (\w+\.py)\n", text)
        if language == "python" and name:
            (folder / name[1]).write_text(text)
    rng = np.random.default_rng(0)
    prices = 100 * np.exp(np.cumsum(rng.normal(0.0003, 0.01, (900, 3)), 0))
    dates = pd.bdate_range("2015-01-01", periods=900, name="date")
    pd.DataFrame(prices, dates, ["AAA", "BBB", "CCC"]).to_csv(folder / "prices.csv")
    return folder


def run(command, folder):
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=os.environ | paths,
        capture_output=True,
        text=True,
    )


YEARS = {
    "multi_asset": ["--data.start", "2010-01-04", "--data.end", "2016-12-30"],
    "us_stocks": ["--data.start", "2016-01-04", "--data.end", "2019-12-31"],
}
FOLDS = {"multi_asset": ["--data.start", "2010-01-04", "--folds.number", "4"]}
SEVERAL = ("compare", "walk-forward", "cross-validate", "tune")


def on_less(command, workers):
    """The words of a command, with fewer steps, trials, folds, and fewer years of bundled data."""
    fewer = re.sub(r"(--agent\.steps) \d+", r"\1 1000", command)
    words = shlex.split(re.sub(r"(--trials) \d+", r"\1 4", fewer))[1:]
    source = words[words.index("--data") + 1] if "--data" in words else "multi_asset"
    if words[0] in ("train", *SEVERAL):
        words += (FOLDS if words[0] == "cross-validate" else YEARS).get(source, [])
    return [*words, *workers] if words[0] in SEVERAL else words


def test_allocgym_commands_run_in_order(workshop, forks):
    """The first as it is written, the others in children of a process that has imported all."""
    first, *commands = [line for line in COMMANDS if line.startswith("allocgym ")]
    assert len(commands) >= 6
    finished = run(first, workshop)
    assert finished.returncode == 0, f"{first}\n{finished.stdout}\n{finished.stderr}"
    workers: list[str] = []  # as many as there are cores, for the first that has several runs
    for command in commands:
        argv = on_less(command, workers)
        assert forks.run("command", argv=argv, folder=str(workshop)) == 0, forks.said()
        workers = ["--workers", "1"] if argv[0] in SEVERAL else workers
    assert (workshop / "stocks.html").exists() and (workshop / "results/mine/report.html").exists()
    assert "tensorboard --logdir results" in COMMANDS
    curves = run("tensorboard --inspect --logdir results", workshop)
    assert curves.returncode == 0 and "eval/sharpe" in curves.stdout


def test_python_examples_run(workshop):
    examples = [text for language, text in BLOCKS if language == "python"]
    assert len(examples) >= 3
    for text in examples:
        finished = subprocess.run(
            [sys.executable, "-c", text],
            cwd=workshop,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, text + finished.stderr


def test_make_targets_exist():
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        planned = run(f"make --dry-run {target}", ROOT)
        assert planned.returncode == 0, planned.stderr
    assert "allocgym compare" in run("make --dry-run demo", ROOT).stdout


def test_the_plain_lines_are_what_make_does():
    """Those without make install with the very command of the Makefile."""
    install = next(line for line in COMMANDS if "pip install" in line)
    words = install.removeprefix(".venv/bin/pip install ")
    makefile = (ROOT / "Makefile").read_text()
    assert words in makefile
    others = [line for line in COMMANDS if line.startswith((".venv/bin", "python3"))]
    beside = str(Path(sys.executable).parent)
    for line in others:
        assert shutil.which(line.split()[0].replace(".venv/bin/", ""), path=beside), line


def test_pictures_are_there():
    for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 10_000


def test_every_command_is_covered():
    known = ("allocgym ", "make ", "python3 -m venv", ".venv/bin/", "tensorboard ")
    assert all(line.startswith(known) for line in COMMANDS if line), COMMANDS
