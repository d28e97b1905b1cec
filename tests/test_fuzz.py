"""Hostile input by the hundred: settings, price files, actions and reward expressions.

Whatever comes in, it is accepted and works, or refused by one line that says what is wrong: no
other exception, no number that is not finite, nothing half-made. `make soak` tries thousands.
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs import PortfolioEnv
from envs.rewards import REWARDS, make_reward
from experiments.cli import main
from experiments.commands import ExperimentConfig
from experiments.options import options_of
from experiments.plan import prepare
from market import InputError, Market, load_market
from market.errors import ActionError
from tests.conftest import write_prices

CASES = int(os.environ.get("ALLOCGYM_FUZZ_CASES", "200"))
fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES == 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = [
    "",
    "ppo",
    "NO",
    "null",
    "1e-4",
    "-1",
    "nan",
    ".inf",
    "../x",
    "<b>",
    "2020-13-45",
    "é\u200b",
    "\U0001f600:x",
]
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [option.key for option in options_of(ExperimentConfig)] + [
    "agent.steps",
    "agent",
    "lerning",
    "",
]


class Accepted(Exception):
    """All settings passed; training would start now."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with prices, where a run ends before it trains."""
    write_prices(tmp_path, pd.bdate_range("2020-01-01", periods=80))
    monkeypatch.chdir(tmp_path)

    def stop_before_training(configs, *rest, **more):
        for config in configs:
            prepare(config)
        raise Accepted

    monkeypatch.setattr("experiments.compare.run_experiments", stop_before_training)
    return tmp_path


def run(capsys, *argv):
    """Either accepted, or one line and status 2; nothing on the disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a market that looks odd
        try:
            status = main(list(argv))
        except Accepted:
            status = 0
    printed = capsys.readouterr()
    assert status in (0, 2), printed.err
    if status == 2:
        assert len(printed.err.splitlines()) == 1, printed.err
        assert printed.err.startswith("allocgym: error: ")
        assert "Traceback" not in printed.err
    assert not Path("results").exists()


def placed(keys: dict) -> dict:
    """Dotted keys as the nested mapping of a settings file."""
    nest: dict = {}
    for key, value in keys.items():
        block = nest
        *outer, last = key.split(".")
        for part in outer:
            inner = block.setdefault(part, {})
            block = inner if isinstance(inner, dict) else block
        block[last] = value
    return nest


@fuzzed
@given(given_keys=st.dictionaries(st.sampled_from(KEYS), nested, max_size=4))
def test_settings_in_a_file(here, capsys, given_keys):
    base = {"agent": "equal_weight", "data": {"source": "files", "options": {"path": "prices.csv"}}}
    text = yaml.safe_dump(base | placed(given_keys), allow_unicode=True)
    Path("x.yaml").write_text(text, encoding="utf-8", errors="replace")
    run(capsys, "train", "x.yaml")


@fuzzed
@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_a_settings_file_of_anything(here, capsys, text):
    Path("x.yaml").write_bytes(text.encode(errors="replace") if isinstance(text, str) else text)
    run(
        capsys,
        "train",
        "x.yaml",
        "--data",
        "files",
        "--data.options.path",
        "prices.csv",
        "--agent",
        "cash",
    )


@fuzzed
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(WORDS) | st.text(max_size=12)), max_size=3
    )
)
def test_settings_on_the_command_line(here, capsys, pairs):
    words = [word for key, value in pairs for word in (f"--{key}", value)]
    run(
        capsys,
        "train",
        "--data",
        "files",
        "--data.options.path",
        "prices.csv",
        "--agent",
        "cash",
        *words,
    )


GOOD = "date,AAA,BBB\n" + "".join(
    f"{day:%Y-%m-%d},{10 + i % 7},{20 + i % 5}\n"
    for i, day in enumerate(pd.bdate_range("2020-01-01", periods=30))
)
INSERTS = [
    "",
    ",",
    "\n",
    '"',
    "-",
    "nan",
    "inf",
    "1e400",
    "0",
    ".",
    " ",
    "\0",
    "é",
    "=1+1",
    ";",
    "\t",
    "2020-01-07",
]


@st.composite
def damaged(draw) -> bytes:
    """A price file with up to four places cut out or written over."""
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 2, 11, 40]))
        text = text[:start] + draw(st.sampled_from(INSERTS)) + text[start + length :]
    return text.encode()


@fuzzed
@given(content=damaged() | st.binary(max_size=300))
def test_a_damaged_price_file(tmp_path, content):
    path = tmp_path / "prices.csv"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            market = load_market("files", path=path)
        except InputError as error:
            assert "prices.csv" in str(error)
            assert "\n" not in str(error)
            return
    assert np.isfinite(market.returns).all()
    assert np.isfinite(market.features).all()
    assert (market.prices[market.tradable] > 0).all()
    assert market.dates.is_monotonic_increasing
    assert market.dates.is_unique


MARKET = Market.from_prices(
    pd.DataFrame(
        100.0 * np.exp(np.random.default_rng(0).normal(0.0, 0.01, (40, 3)).cumsum(0)),
        pd.bdate_range("2015-01-01", periods=40),
        ["A", "B", "C"],
    ),
    cash_rate=0.02,
)
numbers = st.floats(width=64) | st.sampled_from([0.0, 1e308, -1e308, 1e3, 1e-300, 0.25])
FORMS = ["simplex", "softmax", "project"]


@fuzzed
@given(
    form=st.sampled_from(FORMS),
    actions=st.lists(st.lists(numbers, min_size=0, max_size=6) | nested, min_size=1, max_size=3),
)
def test_an_action_of_anything(form, actions):
    env = PortfolioEnv(MARKET, lookback=5, actions=form)
    env.reset(seed=0)
    for action in actions:
        before = json.dumps(env.get_state(), default=np.ndarray.tolist, sort_keys=True)
        try:
            observation, reward, *_, info = env.step(action)
        except ActionError as error:
            assert "\n" not in str(error)
            after = json.dumps(env.get_state(), default=np.ndarray.tolist, sort_keys=True)
            assert after == before
            continue
        assert np.isfinite(reward)
        assert np.isfinite(info["value"])
        assert info["weights"].min() >= 0.0
        assert info["weights"].sum() == pytest.approx(1.0, abs=1e-12)
        assert all(np.isfinite(part).all() for part in observation.values())


TERMS = [
    *sorted(REWARDS),
    "nonsense",
    "os:system",
    "__import__",
    "1",
    "-0.5",
    "1e400",
    "0x1F",
    "'a b'",
]
JOINTS = [
    " + ",
    " - ",
    " * ",
    " / ",
    "",
    "(",
    ")",
    "(1, ",
    "=",
    ",",
    " ** ",
    ".",
    ":",
    "\u2212",
    " if ",
]


@st.composite
def expression(draw) -> str:
    parts = [draw(st.sampled_from(TERMS))]
    for _ in range(draw(st.integers(0, 4))):
        parts += [draw(st.sampled_from(JOINTS)), draw(st.sampled_from(TERMS))]
    return "".join(parts)


@fuzzed
@given(text=expression() | st.text(max_size=30))
def test_a_reward_of_anything(text):
    try:
        reward = make_reward(text)
        env = PortfolioEnv(MARKET, lookback=5, reward=reward)
    except InputError as error:
        assert "\n" not in str(error)
        return
    env.reset(seed=0)
    for _ in range(3):
        *_, info = env.step(np.full(4, 0.25))
        assert all(np.isfinite(value) for value in info["reward_terms"].values())
