"""Ensembles: shares and targets by hand, members trained once, no future, stored and back."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Agent, Monitor, Task
from agents.baselines import BuyAndHold, Cash, EqualWeight
from agents.ensembles import Ensemble, positive_shares, sharpe
from agents.ensembles_members import Books, read_members, split
from agents.ensembles_regime import RegimeSwitch
from agents.optimisers import MeanVariance
from agents.risk_based import RiskParity
from agents.rollout import roll
from envs.costs import ProportionalCost
from experiments.backtest import backtest
from experiments.compare import run_experiments
from experiments.config import AgentConfig, CompareConfig, DataConfig
from market import Market, SettingError

MONTHLY = "risk_parity(window=40), mean_variance(window=40, solver=direct, risk_aversion=20)"
KINDS = {
    "ensemble(mean)": lambda: Ensemble(members=f"equal_weight, {MONTHLY}"),
    "ensemble(validation)": lambda: Ensemble(members=MONTHLY, weighting="validation"),
    "ensemble(best)": lambda: Ensemble(
        members=f"equal_weight, {MONTHLY}", weighting="best", window=20, period="month"
    ),
    "regime(hmm)": lambda: RegimeSwitch(members=MONTHLY, window=60),
    "regime(volatility)": lambda: RegimeSwitch(
        members=f"equal_weight, cash, {MONTHLY}", regime="volatility", states=3, window=60
    ),
    "nested": lambda: Ensemble(members=[f"ensemble(members=[{MONTHLY}], period=month)", "cash"]),
}


@cache
def fitted(kind):
    """One of `KINDS` on the market of seed 0; asking it changes nothing."""
    return fit(KINDS[kind](), market_of())


def market_of(n_periods=700, seed=0, cash: float | None = 0.02):
    rng = np.random.default_rng(seed)
    calm = np.where((np.arange(n_periods) // 60) % 2, 2.0, 0.7)[:, None]
    moves = 0.0008 + 0.008 * calm * rng.standard_normal((n_periods, 3)) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 1.2]]
    )
    dates = pd.bdate_range("2015-01-01", periods=n_periods)
    prices = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0), dates, ["a", "b", "c"])
    return Market.from_prices(prices, cash_rate=cash)


def fit(agent, market, seed=0, monitor=None, cost=0.001):
    """Trained on 300 rows, validated on the next 150 with the history they need."""
    task = Task(cost=ProportionalCost(cost))
    history = min(agent.lookback, 300)
    train, valid, _ = market.split(
        market.dates[299].strftime("%Y-%m-%d"),
        market.dates[449].strftime("%Y-%m-%d"),
        history=history,
    )
    return agent.fit(train, valid, task=task, seed=seed, monitor=monitor)


# ---- members


def test_members_are_split_outside_brackets_and_quotes():
    text = "a, b(x=1, y=[2, 3]), file.py:C(name='d, e'), "
    assert split(text) == ["a", "b(x=1, y=[2, 3])", "file.py:C(name='d, e')"]


def test_members_as_text_list_and_objects_are_the_same():
    text = Ensemble(members="equal_weight, risk_parity(window=40)")
    listed = Ensemble(members=["equal_weight", "risk_parity(window=40)"])
    made = Ensemble(members=[EqualWeight(), RiskParity(window=40)])
    assert text.settings == listed.settings == made.settings
    assert [m.agent.settings for m in text.members] == [m.agent.settings for m in made.members]


def test_members_that_cannot_be_are_named():
    for given, message in [
        ("", "needs at least 1 agent, got none"),
        ("equal_wait", r"unknown agent 'equal_wait'; did you mean 'equal_weight'"),
        ("best_constant_mix", "best_constant_mix is shown the future"),
        ("risk_parity(40)", "write settings by name, as risk_parity"),
        ("risk_parity(windw=40)", "unknown setting of .* 'windw'"),
        ("json:JSONDecoder", "json is part of Python"),
    ]:
        with pytest.raises(SettingError, match=message):
            read_members(given)


def test_a_member_of_the_users_own(tmp_path):
    code = "import numpy as np\nfrom agents.base import Agent\n\n\nclass Last(Agent):\n"
    code += "    def act(self, history, weights):\n        return np.eye(history.n_assets)[2]\n"
    (tmp_path / "own.py").write_text(code)
    market = market_of()
    agent = fit(Ensemble(members=f"{tmp_path / 'own.py'}:Last, cash"), market)
    np.testing.assert_allclose(agent.act(market, np.full(4, 0.25)), [0.0, 0.0, 0.5, 0.5])


# ---- members' own portfolios


def test_members_hold_what_they_would_hold_alone():
    """A quarter after the replay began a monthly member stands where it always stood."""
    market = market_of()
    member = read_members("risk_parity(window=40)")[0]
    books = Books([member], "quarter")
    alone = backtest(RiskParity(window=40), market)
    first = market.n_periods - len(alone.returns) - 1
    for row in range(300, 700, 7):
        page = books.at(market.upto(row))
        np.testing.assert_allclose(page.held[0], alone.held[row - first - 1], atol=1e-12)
        if row < 699:
            np.testing.assert_allclose(page.targets[0], alone.weights[row - first], atol=1e-12)


def test_replaying_anew_equals_going_on():
    market = market_of()
    members = read_members(f"buy_and_hold, {MONTHLY}")
    going = Books(members, "month")
    for row in (400, 401, 402, 430, 455, 500, 420):
        expected = Books(members, "month").at(market.upto(row))
        found = going.at(market.upto(row))
        np.testing.assert_array_equal(found.targets, expected.targets)
        np.testing.assert_array_equal(found.held, expected.held)


# ---- shares


def test_the_mean_by_hand():
    market = market_of()
    agent = fit(Ensemble(members="equal_weight, cash"), market)
    np.testing.assert_allclose(agent.act(market, np.full(4, 0.25)), [1 / 6, 1 / 6, 1 / 6, 0.5])


def test_the_mean_of_monthly_members_trades_monthly():
    market = market_of()
    members = "risk_parity(window=40), inverse_volatility(window=20)"
    agent = fit(Ensemble(members=members), market)
    path = backtest(agent, market, start=market.dates[449])
    decisions = path.dates[:-1]
    traded = decisions[path.turnover > 1e-9]
    first_of_month = decisions[1:][np.diff(decisions.month) != 0]
    assert list(traded) == [decisions[0], *first_of_month]
    alone = [read_members(text)[0].agent for text in split(members)]
    weights = [backtest(member, market).weights[-1] for member in alone]
    np.testing.assert_allclose(agent.books.at(market.upto(698)).targets, weights, atol=1e-9)
    np.testing.assert_allclose(path.weights[-1], np.mean(weights, axis=0), atol=0.02)


def test_what_members_drift_apart_is_traded_beyond_the_band():
    market = market_of()
    turnovers = []
    for band in (0.0, 0.05, 1.0):
        agent = fit(Ensemble(members="index(asset=a), index(asset=b)", band=band), market)
        path = backtest(agent, market, start=market.dates[449])
        turnovers.append(path.turnover[1:])
        if band == 0.0:
            assert np.abs(path.weights - [0.5, 0.5, 0.0, 0.0]).max() < 1e-12
    assert (turnovers[0] > 1e-9).all() and turnovers[2].max() < 1e-12
    rare = turnovers[1] > 1e-9
    assert turnovers[1][rare].min() > 0.05 and 1 <= rare.sum() < 20


def test_validation_shares_are_sharpe_ratios_of_validation():
    market = market_of()
    agent = fit(Ensemble(members=f"cash, {MONTHLY}", weighting="validation"), market)
    ratios = [0.0]
    for text in split(MONTHLY):
        member = read_members(text)[0].agent.fit(market[:300], task=Task())
        path = roll(member, market[:450], Task(), start=market.dates[299])
        ratios.append(sharpe(path))
    assert agent.shares(market) == pytest.approx(positive_shares(np.array(ratios)), abs=1e-12)
    assert agent.shares(market)[0] == 0.0 and agent.shares(market).sum() == pytest.approx(1.0)


def test_shares_where_nobody_earned_anything_are_equal():
    np.testing.assert_allclose(positive_shares(np.array([-1.0, -2.0])), 0.5)
    np.testing.assert_allclose(positive_shares(np.array([-1.0, 1.0, 3.0])), [0.0, 0.25, 0.75])


def test_best_is_whoever_led_before_the_period_began():
    market = market_of()
    agent = fit(
        Ensemble(
            members="index(asset=a), index(asset=b), cash",
            weighting="best",
            window=30,
            period="month",
        ),
        market,
    )
    winners = set()
    for row in range(500, 700):
        month = market.dates[: row + 1].to_period("M")
        start = int(np.flatnonzero(month[1:] != month[:-1])[-1]) + 1
        tails = (
            market.returns[start - 29 : start + 1, :2]
            - market.risk_free[start - 29 : start + 1, None]
        )
        tails[0] -= 0.001 * (1.0 + tails[0])  # which it takes to get in
        ratios = [*(tails.mean(axis=0) / tails.std(axis=0, ddof=1)), 0.0]
        expected = int(np.argmax(ratios))
        assert agent.shares(market.upto(row)).argmax() == expected
        winners.add(expected)
    assert winners == {0, 1, 2}


def test_regimes_mix_the_members_they_belong_to():
    market = market_of()
    agent = fit(RegimeSwitch(members="equal_weight, cash", assign="order", window=60), market)
    known = np.array([agent.probabilities(market.upto(t)) for t in range(450, 700)])
    assert known.min() >= 0.0 and known[:, 0].max() > 0.9 and known[:, 1].max() > 0.9
    np.testing.assert_allclose(agent.shares(market), known[-1])
    target = agent.act(market, np.full(4, 0.25))
    np.testing.assert_allclose(target[-1], known[-1][1], atol=1e-12)


def test_a_regime_goes_to_the_member_that_did_best_in_it():
    """Cash for falling turbulent days, stocks for rising calm ones."""
    rng = np.random.default_rng(1)
    wild = (np.arange(700) // 50) % 2 == 1
    moves = np.where(wild, -0.004, 0.002) + np.where(wild, 0.02, 0.004) * rng.standard_normal(700)
    prices = pd.DataFrame(
        {"a": 100 * np.cumprod(1 + moves)}, pd.bdate_range("2015-01-01", periods=700)
    )
    market = Market.from_prices(prices, cash_rate=0.02)
    for regime in ("hmm", "volatility"):
        agent = fit(RegimeSwitch(members="cash, index", regime=regime, window=60), market)
        assert agent.owners == [1, 0], regime
        path = backtest(agent, market, start=market.dates[449])
        index = backtest({"a": 1.0}, market, start=market.dates[449])
        assert path.values[-1] > 1.3 * index.values[-1]


# ---- trained once


class Counter(Agent):
    """Counts how often it is trained."""

    fits: list[tuple[int, int, int]] = []  # noqa: RUF012  # of all

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        self.fits.append((train.n_periods, valid.n_periods, seed))
        monitor.progress(0.5)
        monitor.record(3, {"eval/sharpe": 1.0})
        return self

    def act(self, history, weights):
        return np.eye(history.n_assets)[0]


class Listener(Monitor):
    def __init__(self, known=None):
        self.done, self.keys, self.known, self.asked = [], set(), known, []

    def record(self, step, values):
        self.keys |= set(values)

    def progress(self, done):
        self.done.append(done)

    def trained(self, name, settings):
        self.asked.append(name)
        return self.known


def test_members_are_trained_once_however_many_ensembles_name_them():
    market, listener = market_of(), Listener()
    name = f"{__name__}:Counter"
    inner = Ensemble(members=[Counter(), "equal_weight"])
    outer = Ensemble(members=[Counter(), inner, Ensemble(members=[Counter(), "cash"])])
    Counter.fits.clear()
    fit(outer, market, seed=7, monitor=listener)
    assert Counter.fits == [(300, 151, 7)]  # with the one row of history that its decision needs
    nested: list[Any] = [member.agent for member in outer.members]
    assert nested[1].members[0].agent is nested[0]
    assert nested[2].members[0].agent is nested[0]
    assert listener.done[-1] == 1.0 and min(listener.done) > 0.0
    assert f"member/{name}/eval/sharpe" in listener.keys or any(
        key.startswith("member/") and key.endswith("eval/sharpe") for key in listener.keys
    )


def test_a_member_that_is_there_already_is_not_trained():
    known = Counter()
    Counter.fits.clear()
    agent = fit(Ensemble(members=[Counter(), "cash"]), market_of(), monitor=Listener(known))
    assert Counter.fits == [] and agent.members[0].agent is known


def test_a_comparison_trains_a_competitor_that_is_a_member_once(tmp_path):
    """The ensemble runs last and takes the competitor's model; numbers are as if it had not."""
    market = market_of(400)
    prices = pd.DataFrame(market.prices[:, :3], market.dates, ["a", "b", "c"])
    prices.rename_axis("date").to_csv(tmp_path / "prices.csv")
    ridge = "forecast(forecaster=ridge)"
    both = f"ensemble(members=[{ridge}, equal_weight], period=month, label=both)"
    values = {}
    for case, agents in {"shared": [both, ridge], "alone": [both]}.items():
        config = CompareConfig(
            experiment=case,
            agents=agents,
            seeds=1,
            workers=1,
            data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
            results=str(tmp_path / "results"),
        )
        done = run_experiments(config.experiments(), 1)
        assert not done.failed, [outcome.error for outcome in done.failed]
        runs = {run.agent: run for run in done.runs}
        values[case] = runs["both"].backtest["value"]
        curves = [key for key in runs["both"].metrics if str(key).startswith("member/forecast/")]
        assert bool(curves) == (case == "alone")
    pd.testing.assert_series_equal(values["shared"], values["alone"])


# ---- the contract of agents


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_valid_and_later_rows_do_not_matter(kind):
    market, agent = market_of(), fitted(kind)
    held = np.array([0.1, 0.2, 0.3, 0.4])
    prices = np.array(market.prices[:, :-1])
    prices[601:] *= np.exp(np.random.default_rng(0).standard_normal(prices[601:].shape))
    poisoned = Market.from_prices(pd.DataFrame(prices, market.dates, ["a", "b", "c"]), 0.02)
    for row in (560, 599, 600):
        found = agent.act(market.upto(row), held)
        assert found.min() >= 0.0 and found.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_array_equal(agent.act(poisoned.upto(row), held), found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_of_the_split_does_not_matter_to_what_is_learned(kind):
    market = market_of()
    prices = np.array(market.prices[:, :-1])
    prices[450:] = prices[450:][::-1]
    other = Market.from_prices(pd.DataFrame(prices, market.dates, ["a", "b", "c"]), 0.02)
    assert market.fingerprint() != other.fingerprint()
    assert fit(KINDS[kind](), other).state() == fitted(kind).state()


@pytest.mark.parametrize("kind", KINDS)
def test_lookback_is_enough_and_acting_leaves_no_trace(kind):
    market, agent = market_of(), fitted(kind)
    held = np.array([0.1, 0.2, 0.3, 0.4])
    whole = agent.act(market, held)
    np.testing.assert_allclose(agent.act(market[-agent.lookback :], held), whole, atol=1e-6)
    for row in range(640, 700):
        agent.act(market.upto(row), held)
    np.testing.assert_array_equal(agent.act(market, held), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_and_back(kind, tmp_path):
    market, agent = market_of(), fitted(kind)
    agent.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    again = type(agent).load(tmp_path)
    assert again.settings == agent.settings and again.lookback == agent.lookback
    held = np.array([0.1, 0.2, 0.3, 0.4])
    for row in (500, 600, 699):
        history = market.upto(row)
        np.testing.assert_array_equal(again.act(history, held), agent.act(history, held))


def test_failed_decisions_of_members_are_told(monkeypatch):
    market = market_of()
    agent = fit(Ensemble(members=[MeanVariance(window=40, rebalance_every=1), "cash"]), market)

    def fail(excess, room):
        raise ArithmeticError("no such weights")

    monkeypatch.setattr(agent.members[0].agent, "solve", fail)
    path = backtest(agent, market, start=market.dates[680])
    assert len(path.failures) == len(path.returns)
    assert path.failures[0].reason == "mean_variance: ArithmeticError: no such weights"


def test_refusals_name_the_thing():
    market = market_of()
    with pytest.raises(SettingError, match="judging cash on validation needs more than 2 rows"):
        Ensemble(members="cash", weighting="validation").fit(market[:300])
    with pytest.raises(
        SettingError, match="assign=order needs a member for each of 3 states, got 2"
    ):
        RegimeSwitch(members="cash, index", states=3, assign="order")
    with pytest.raises(SettingError, match="RegimeSwitch: call fit before act"):
        RegimeSwitch(members="cash, index").act(market, np.full(4, 0.25))
    with pytest.raises(SettingError, match="volatility_window must be at most window 20, got 30"):
        RegimeSwitch(members="cash, index", window=20, volatility_window=30)


def test_registered():
    assert AGENTS["ensemble"] is Ensemble and AGENTS["regime_switch"] is RegimeSwitch
    assert AGENTS.name_of(EqualWeight) == "equal_weight" and AgentConfig(name="ensemble").title
    assert {type(m.agent) for m in read_members("cash, buy_and_hold")} == {Cash, BuyAndHold}
