"""The same settings and data give the same bytes: anywhere, and an account on any processor."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.base import Agent
from envs.costs import ProportionalCost
from experiments.backtest import backtest
from market import Market

ROOT = Path(__file__).resolve().parents[1]
BUY, SELL = 0.003, 0.001
STEPS, ASSETS = 60, 3
# sha256 of values, weights, held, costs and turnover of `played`, float64 in little-endian order;
# the numbers themselves are held against exact fractions below
ACCOUNT = "9070afa72a88d30f44a26248b8f3ac5c4b369a25307c2d7d25f6083edc9dd29d"


def draws(number: int, low: int, high: int, start: int) -> np.ndarray:
    """Whole numbers in [low, high) of a linear congruential generator: no library's draws."""
    state, made = start, []
    for _ in range(number):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        made.append(low + (state >> 33) % (high - low))
    return np.array(made)


def world() -> Market:
    """Prices by products of ratios of whole numbers; cash earns nothing, so no power is taken."""
    ratios = draws(STEPS * ASSETS, 950, 1055, 1).reshape(STEPS, ASSETS) / 1000.0
    ratios[0] = 1.0
    prices = 100.0 * np.cumprod(ratios, axis=0)
    dates = pd.bdate_range("2020-01-01", periods=STEPS)
    return Market.from_prices(pd.DataFrame(prices, dates, ["A", "B", "C"]), cash_rate=0.0)


TARGETS = draws(STEPS * (ASSETS + 1), 0, 10, 2).reshape(STEPS, -1)
TARGETS[:, -1] += 1  # never nothing at all


class Planned(Agent):
    """Holds what the table says."""

    def __init__(self) -> None:
        pass

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        row = TARGETS[history.n_periods - 1]
        return row / row.sum()


def played():
    return backtest(Planned(), world(), cost=ProportionalCost(BUY, SELL))


def digest() -> str:
    made, total = played(), hashlib.sha256()
    for array in (made.values, made.weights, made.held, made.costs, made.turnover):
        total.update(np.ascontiguousarray(array, "<f8").tobytes())
    return total.hexdigest()


def exact_values(
    prices: np.ndarray,
    targets: list[list[Fraction]],
    start: list[Fraction],
    buy: float,
    sell: float,
    risky: int,
) -> list[Fraction]:
    """The account in fractions, from prices and targets alone: which trades are purchases is tried.

    Value after costs is mu * value where mu = 1 - sum_i c_i |mu x_i - w_i| over the `risky` first.
    """
    exact = [[Fraction(float(price)) for price in row] for row in prices]
    held, value, values = start, Fraction(1), [Fraction(1)]
    for today, tomorrow, target in zip(exact, exact[1:], targets, strict=False):
        mus = set()
        for sides in range(2**risky):
            rates = [Fraction(buy) if sides >> i & 1 else -Fraction(sell) for i in range(risky)]
            top = 1 + sum(c * w for c, w in zip(rates, held, strict=False))
            mu = top / (1 + sum(c * x for c, x in zip(rates, target, strict=False)))
            legs = [mu * x - w for x, w in zip(target[:risky], held[:risky], strict=True)]
            bought = [sides >> i & 1 for i in range(risky)]
            if all(leg >= 0 if up else leg <= 0 for leg, up in zip(legs, bought, strict=True)):
                mus.add(mu)
        assert len(mus) == 1
        growth = [after / before for before, after in zip(today, tomorrow, strict=True)]
        parts = [x * g for x, g in zip(target, growth, strict=True)]
        value = rounded(value * mus.pop() * sum(parts, start=Fraction(0)))
        held = [rounded(part / sum(parts, start=Fraction(0))) for part in parts]
        values.append(value)
    return values


def rounded(number: Fraction | float) -> Fraction:
    """To 200 binary digits, so that fractions do not grow without end."""
    assert isinstance(number, Fraction)
    return Fraction(number.numerator * 2**200 // number.denominator, 2**200)


def test_an_account_agrees_with_exact_fractions():
    targets = [[Fraction(int(part), int(row.sum())) for part in row] for row in TARGETS]
    start = [Fraction(0)] * ASSETS + [Fraction(1)]
    expected = exact_values(world().prices, targets, start, BUY, SELL, ASSETS)
    for found, exact in zip(played().values, expected, strict=True):
        assert abs(Fraction(float(found)) / exact - 1) < Fraction(1, 10**12)


def plainer(level: str) -> dict[str, str]:
    """The environment in which torch and numpy take the processor for a lesser one."""
    kernels = importlib.import_module("numpy._core._multiarray_umath")
    found = [name for name in kernels.__cpu_dispatch__ if kernels.__cpu_features__.get(name)]
    if level == "avx2":
        found = [name for name in found if "AVX512" in name or name == "X86_V4"]
    off = {"NPY_DISABLE_CPU_FEATURES": " ".join(found)} if found else {}
    return off | {"ATEN_CPU_CAPABILITY": level}


def test_an_account_has_the_bytes_it_had():
    assert digest() == ACCOUNT


@pytest.mark.parametrize("level", ["default", "avx2"])
def test_an_account_has_the_same_bytes_on_any_processor(level):
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | plainer(level),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ACCOUNT


# ---- one command, twice


TIMES = ("seconds",)
PLACES = [
    {"TZ": "UTC", "LANG": "C.UTF-8", "PYTHONHASHSEED": "1"},
    {"TZ": "Pacific/Kiritimati", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "PYTHONHASHSEED": "77"},
]


def test_the_same_command_elsewhere_writes_the_same_files(tmp_path):
    """B15: another folder, zone, language and hash seed; only clocks differ, in files of theirs."""
    steps = np.random.default_rng(3).normal(0.0005, 0.01, (120, 2))
    dates = pd.bdate_range("2020-01-01", periods=120)
    frame = pd.DataFrame(100.0 * np.exp(np.cumsum(steps, 0)), dates, ["AAA", "BBB"])
    argv = ["train", "--agent", "ppo", "--data", "files", "--data.options.path", "prices.csv"]
    for key, value in {"steps": 64, "num_envs": 2, "n_steps": 8, "lookback": 5}.items():
        argv += [f"--agent.{key}", str(value)]
    made = []
    for number, place in enumerate(PLACES):
        folder = tmp_path / f"place {number}" / ("deep" * number)
        folder.mkdir(parents=True)
        frame.rename_axis("date").to_csv(folder / "prices.csv")
        done = subprocess.run(
            [Path(sys.executable).with_name("allocgym"), *argv],
            cwd=folder,
            env=os.environ | place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made.append(written(folder / "results"))
    assert set(made[0]) == set(made[1])
    assert len(made[0]) == 9, sorted(made[0])
    for name in made[0]:
        assert made[0][name] == made[1][name], name


def written(results: Path) -> dict[str, bytes]:
    """Every file's bytes by its path, manifests without their clocks."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if not path.is_file() or "tfevents" in name:  # TensorBoard's carry a clock each
            continue
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            content = json.dumps({k: v for k, v in manifest.items() if k not in TIMES}).encode()
        found[name] = content
    return found
