"""The studies: their arithmetic against hand values, and each one the whole way on few days."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Task
from agents.forecasters import FORECASTERS
from agents.rules import RULES
from envs.costs import ProportionalCost
from envs.rewards import make_reward
from experiments.backtest import backtest
from experiments.cli import main as allocgym
from experiments.config import AgentConfig, DataConfig
from experiments.provenance import git_commit
from experiments.studies import (
    all_agents,
    cost_sensitivity,
    false_discovery,
    reward_comparison,
    roster,
    sood,
    study_command,
)
from experiments.studies.pages import spread, table, write_section
from experiments.studies.repricing import break_even, charged
from experiments.walk_config import WalkConfig, WindowedConfig
from market import load_market
from market.sources.bundled import UNIVERSES

SMALL = ["--seeds", "2", "--resamples", "200"]
TINY = "steps=16, num_envs=2, n_steps=8, lookback=4, width=4"
TOGETHER = ("ensemble", "regime_switch", "stacking", "factor_blend")


# --- who competes ---------------------------------------------------------------------------


def test_every_agent_forecaster_and_rule_competes():
    found = roster.roster("multi_asset")
    assert {entrant.agent.name for entrant in found} == set(AGENTS)
    forecasts = [one.agent.settings for one in found if one.agent.name == "forecast"]
    used = {str(settings["forecaster"]).partition("(")[0] for settings in forecasts}
    assert used | {"textbook_lstm"} == set(FORECASTERS)  # the last is the agent `lstm`
    assert {str(settings["rule"]) for settings in forecasts} == set(RULES)
    assert set(roster.LEARNERS) == {one.agent.name for one in found if one.kind == "learner"}


@pytest.mark.parametrize("universe", sorted(UNIVERSES))
def test_the_roster_of_every_universe_can_be_built(universe):
    found = roster.roster(universe)
    titles = [entrant.title for entrant in found]
    assert len(set(titles)) == len(titles) >= 57
    for entrant in found:
        agent = AGENTS[entrant.agent.name](**entrant.agent.settings)
        assert agent.hindsight == (entrant.kind == "hindsight")
        chance = entrant.kind == "learner" or entrant.title.startswith(tuple(roster.NETWORKS))
        assert (entrant.most_seeds > 1) == (chance or entrant.title == "textbook_lstm")
    again = roster.roster(universe, refits=True)
    assert [one.title for one in again] == [one.title for one in found if one.kind != "hindsight"]
    shorter = {one.title: one.agent.settings["steps"] for one in again if one.kind == "learner"}
    assert set(shorter) == set(roster.REFITS) == set(roster.LEARNERS)
    assert all(
        shorter[one.title] < one.agent.settings["steps"] for one in found if one.title in shorter
    )
    for entrant in again:
        AGENTS[entrant.agent.name](**entrant.agent.settings)


def test_only_learners_go_on_from_the_last_refit():
    part = next(part for part in all_agents.PARTS if part.walk is not None)
    made = all_agents.configs(part, 1, only=["ppo", "lstm-mean_variance", "equal_weight"])
    refitted = [config for config in made if isinstance(config, WindowedConfig)]
    warm = {config.agent.title: config.walk.warm_start for config in refitted}
    assert warm == {"ppo": True, "lstm-mean_variance": False, "equal_weight": False}


def test_allocations_to_choose_from_stay_countable_where_assets_are_many():
    settings = AgentConfig.of(roster.learner("dqn", "us_stocks")).settings
    assert settings["lattice"] == 2  # 231 of 21 assets
    assert "lattice" not in AgentConfig.of(roster.learner("dqn", "factors")).settings


# --- pages ----------------------------------------------------------------------------------


def test_a_section_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "new" / "README.md"
    write_section(page, "one", "first")
    write_section(page, "two", "second")
    page.write_text(page.read_text().replace("# Results", "# Results\n\nSaid by hand."))
    write_section(page, "one", "anew")
    text = page.read_text()
    assert "first" not in text and text.startswith("# Results\n\nSaid by hand.\n")
    assert "<!-- one -->\nanew\n<!-- end of one -->" in text
    assert "<!-- two -->\nsecond\n<!-- end of two -->" in text
    write_section(page, "one", "anew")
    assert page.read_text() == text


def test_tables_and_intervals_as_text():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "|---|--:|", "| 1 | 2 |"]
    assert spread(0.5, -0.25, 1.0) == "+0.50 (-0.25 to +1.00)"
    assert spread(0.5, np.nan, np.nan, "{:.1f}") == "0.5"
    assert spread(np.nan, 0.0, 1.0) == "n/a"


# --- the same decisions at other costs ------------------------------------------------------


@pytest.mark.parametrize("name", ["equal_weight", "cross_sectional_momentum", "cash"])
@pytest.mark.parametrize("rate", [0.0, 0.004, 0.02])
def test_decisions_charged_anew_are_those_played_at_that_cost(name, rate):
    """Against the simulator itself."""
    market = load_market("multi_asset", start="2018-01-01")
    agent = AGENTS[name](**({"window": 40, "skip": 5} if "momentum" in name else {}))
    start = market.dates[60]
    paid = backtest(agent, market, cost=ProportionalCost(0.001), start=start).frame()
    played = backtest(agent, market, cost=ProportionalCost(rate), start=start)
    np.testing.assert_allclose(charged(paid, rate), played.returns, rtol=0.0, atol=1e-14)


def test_charges_by_hand():
    """From cash all into one asset that gains 10 %, then all back: 1 / 1.1, then 1 - 0.1."""
    days = pd.date_range("2020-01-01", periods=2, name="date")
    path = pd.DataFrame(
        {
            "portfolio_return": [0.1, 0.0],
            "cost": [0.0, 0.0],
            "target:A": [1.0, 0.0],
            "target:cash": [0.0, 1.0],
            "held:A": [1.0, 0.0],
            "held:cash": [0.0, 1.0],
        },
        index=days,
    )
    np.testing.assert_allclose(charged(path, 0.1), [1.1 / 1.1 - 1.0, -0.1], atol=1e-15)


def test_where_a_lead_ends():
    rates = (0.0, 0.001, 0.01)
    assert break_even(lambda rate: 0.5 - 100.0 * rate, rates) == pytest.approx(0.005, abs=1e-6)
    assert break_even(lambda rate: -0.1, rates) == 0.0
    assert break_even(lambda rate: np.nan, rates) == 0.0
    assert np.isinf(break_even(lambda rate: 1.0 - rate, rates))
    falls_and_rises = {0.0: 1.0, 0.001: -1.0, 0.01: 1.0}
    first = break_even(lambda rate: falls_and_rises.get(rate, 0.0005 - rate), rates)
    assert first == pytest.approx(0.0005, abs=1e-6)
    words = [cost_sensitivity.ended("a", rate) for rate in (0.0, 0.0025, np.inf)]
    assert words == ["behind while free", "0.25%", "above 5%"]


# --- rewards --------------------------------------------------------------------------------


def test_rewards_are_scaled_to_the_spread_of_log_returns():
    market = load_market("multi_asset", start="2003-01-01", end="2005-12-31")
    weights = np.append(np.full(market.n_assets - 1, 1.0 / (market.n_assets - 1)), 0.0)
    spreads = {}
    for reward, scale in reward_comparison.SCALES.items():
        env = Task(cost=ProportionalCost(0.001), reward=make_reward(reward)).env(market, lookback=1)
        env.reset(seed=0)
        paid = [env.step(weights)[1] for _ in range(500)]
        spreads[reward] = scale * float(np.std(paid))
    base = spreads.pop("log_return")
    for reward, found in spreads.items():
        assert 0.5 * base < found < 2.0 * base, reward


def test_rewards_have_folders_of_their_own():
    labels = [reward_comparison.label("ppo", reward) for reward in reward_comparison.SCALES]
    assert len(set(labels)) == len(labels)
    assert reward_comparison.label("ppo", "log_return - 0.1 * cvar") == "ppo-log_return-0-1-cvar"


# --- Sood et al. ----------------------------------------------------------------------------


def test_the_mean_of_yearly_sharpe_ratios_by_hand():
    """1 % and 3 % by turns, 252 days: mean 2 %, deviation 1 % times sqrt(252 / 251)."""
    year = np.tile([0.01, 0.03], 126)
    ratio = 2.0 * np.sqrt(251.0)  # 0.02 / (0.01 sqrt(252 / 251)) sqrt(252)
    seeds = np.stack([np.concatenate([year, -year])] * 2 + [np.concatenate([year, year])] * 2, 1)
    assert sood.yearly(seeds[:, :2]) == pytest.approx(0.0, abs=1e-12)
    assert sood.yearly(seeds[:, 2:]) == pytest.approx(ratio)
    assert sood.yearly(seeds) == pytest.approx(ratio / 2.0)
    assert sood.yearly(np.concatenate([seeds, seeds[:5]])) == pytest.approx(ratio / 2.0)


def test_the_index_is_the_change_of_its_prices():
    days = pd.DatetimeIndex(["1990-01-03"])
    found = sood.index_returns(days, pd.Timestamp("1990-01-02"))
    np.testing.assert_allclose(found, [358.76 / 359.69 - 1.0])


def test_windows_are_those_of_the_paper():
    assert (sood.WALK.train_days, sood.WALK.valid_days, sood.WALK.refit_every) == (1260, 252, 252)
    first, *rest = sood.configs(5)
    assert first.walk.warm_start and first.task.cost.buy == 0.0
    assert first.seed_list == [*range(5)]
    assert all(config.seed_list == [0] and config.task.cost.buy == sood.COST for config in rest)
    reward: Any = make_reward(sood.REWARD)
    assert reward.eta == pytest.approx(1.0 / 252.0, abs=1e-6)


# --- each one the whole way -----------------------------------------------------------------

START = "2022-06-01"
FEW = ("equal_weight", "buy_and_hold", "best_constant_mix", "newton_step")
LEARNS = "forecast(forecaster=fnn(lookback=2, width=2, depth=1, epochs=1), label=learns)"


def few(universe, *, refits=False):
    chosen = [one for one in roster.roster(universe, refits=refits) if one.title in FEW]
    return [*chosen, roster.Entrant("forecast", AgentConfig.of(LEARNS), most_seeds=9)]


def no_pictures(runs, path, **_):
    """In place of the report, which has tests of its own and takes longer than a study."""
    path.write_text(" ".join(run.agent for run in runs))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, and a market of seven months with few and small agents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(roster.LEARNERS, "ppo", TINY)
    monkeypatch.setattr(all_agents, "roster", few)
    walk = WalkConfig(start="2022-10-03", refit_every=40, valid_days=20)
    parts = (
        all_agents.Part("split", "factors", start=START),
        all_agents.Part("walked", "factors", walk, start=START),
    )
    monkeypatch.setattr(all_agents, "PARTS", parts)
    for module in (all_agents, study_command):
        monkeypatch.setattr(module, "write_report", no_pictures)
    return tmp_path


def rows_of(text, first):
    return [line for line in text.splitlines() if line.startswith(f"| {first}")]


def test_all_agents_the_whole_way(place, capsys):
    assert all_agents.main([*SMALL, "--write"]) == 0
    shown = capsys.readouterr().out
    page = (place / "results" / "all_agents.md").read_text()
    assert page.count("## factors") == 2
    assert len(rows_of(page, "learns | forecast | 2")) == 2
    assert len(rows_of(page, "equal_weight | classical | 1")) == 2
    hindsight = rows_of(page, "best_constant_mix | hindsight")
    assert len(hindsight) == 1 and "not ranked" in hindsight[0]
    readme = (place / "results" / "README.md").read_text()
    assert "`python -m experiments.studies.all_agents --seeds 2 --write`" in readme
    counts = rows_of(readme, "factors, one split | ")[1].strip("| ").split(" | ")
    split = page.partition("## factors, walk-forward")[0]
    cells = [line.strip("| ").split(" | ") for line in split.splitlines() if " | " in line]
    compared = [line for line in cells if len(line) > 11 and " to " in line[9]]
    assert int(counts[1]) == len(compared) == sum(map(int, counts[3:])) >= 2
    assert int(counts[2]) == sum(line[9].startswith("+") for line in compared)
    commit = (git_commit() or "unknown")[:12]
    finished = len(list(place.rglob("all_agents_split/*/*/backtest.parquet")))
    assert f"Runs were made at commit {commit} ({finished})." in split
    reports = re.findall(r"Report: (\S+)", shown)
    assert len(reports) == 2
    assert all("equal_weight learns learns" in (place / one).read_text() for one in reports)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("backtest.parquet")}
    capsys.readouterr()
    assert all_agents.main([*SMALL, "--stored", "--part", "split", "--write"]) == 0
    readme = (place / "results" / "README.md").read_text()
    assert "`python -m experiments.studies.all_agents --stored --write`" in readme
    assert capsys.readouterr().out.count("## factors") == 2  # kept pages are whole
    assert {path: path.stat().st_mtime_ns for path in place.rglob("backtest.parquet")} == before


def test_cost_sensitivity_the_whole_way(place, monkeypatch):
    monkeypatch.setattr(all_agents, "PARTS", all_agents.PARTS[:1])
    monkeypatch.setattr(cost_sensitivity, "UNIVERSES", ("factors",))
    monkeypatch.setattr(cost_sensitivity, "RETRAINED", "factors")
    monkeypatch.setattr(cost_sensitivity, "TRAINED_AT", (0.01,))
    monkeypatch.setattr(cost_sensitivity, "WEIGH_COSTS", (LEARNS,))
    assert cost_sensitivity.main([*SMALL, "--write"]) == 0
    readme = (place / "results" / "README.md").read_text()
    levels = [f"{rate:.2%}" for rate in cost_sensitivity.RATES]
    assert all(len(rows_of(readme, f"{level} | ")) == 1 for level in levels)
    assert len(rows_of(readme, "learns | 1.00% | 2")) == 1
    full = (place / "results" / "cost_sensitivity.md").read_text()
    assert len(rows_of(full, "equal_weight |")) == 1 and "best_constant_mix" not in full
    equal = rows_of(full, "equal_weight |")[0].strip("| ").split(" | ")
    assert [float(cell) for cell in equal[1:-1]] == sorted(map(float, equal[1:-1]), reverse=True)


def test_repricing_a_run_gives_its_own_doubled_costs(place):
    part = all_agents.PARTS[0]
    done = all_agents.run(part, 1)
    for run in done.runs:
        doubled = run.robustness["doubled costs"].to_numpy()
        np.testing.assert_allclose(charged(run.backtest, 0.002), doubled, rtol=0.0, atol=1e-12)


def test_reward_comparison_the_whole_way(place, monkeypatch):
    scales = {"log_return": 100.0, "rolling_sharpe": 0.4}
    monkeypatch.setattr(reward_comparison, "DATA", DataConfig(source="factors", start=START))
    monkeypatch.setattr(reward_comparison, "SCALES", scales)
    assert reward_comparison.main([*SMALL, "--learner", "ppo", "--write"]) == 0
    readme = (place / "results" / "README.md").read_text()
    assert "reward_comparison --learner ppo --seeds 2 --write`" in readme
    first, other = (rows_of(readme, f"`{reward}` | 2")[0].split(" | ") for reward in scales)
    assert len(first) == len(other) == len(reward_comparison.HEADINGS)
    assert first[8] == "" and " to " in other[8] and 0.0 <= float(other[9]) <= 1.0
    assert len(rows_of(readme, "(equal weight) | 1")) == 1


def test_sood_the_whole_way(place, monkeypatch):
    walk = WalkConfig(start="2022-09-01", refit_every=50, valid_days=20, train_days=40)
    monkeypatch.setattr(sood, "WALK", walk)
    monkeypatch.setattr(sood, "DATA", DataConfig(source="us_stocks", start=START))
    small = {"ppo": f"ppo({TINY}, label=ppo)", "equal_weight": "equal_weight"}
    monkeypatch.setattr(sood, "AGENTS", small)
    assert sood.main([*SMALL, "--write"]) == 0
    readme = (place / "results" / "README.md").read_text()
    assert len(rows_of(readme, "ppo | none | 2")) == len(rows_of(readme, "ppo | 0.1% | 2")) == 1
    assert len(rows_of(readme, "S&P 500, prices | none | 1")) == 1
    free, paid = (rows_of(readme, f"equal_weight | {cost}")[0] for cost in ("none", "0.1%"))
    assert float(free.split(" | ")[3]) >= float(paid.split(" | ")[3])


def test_false_discovery_keeps_its_lines(place, monkeypatch):
    better = "better than equal weight"
    table = pd.DataFrame({"verdict": ["reference", better, better]}, ["equal_weight", "a", "b"])
    found = iter([table[:2], table[:1], table, table[:1]] * 2)
    monkeypatch.setattr(false_discovery, "compare", lambda *_: next(found))
    assert false_discovery.main(["--markets", "4", "--write"]) == 0
    readme = (place / "results" / "README.md").read_text()
    assert "claimed in 2 (50%, 95 % interval 6.8% to 93.2%)" in readme  # scipy's table for 2 of 4
    assert readme.count("By: a 2, b 1.") == 2


# --- the command ----------------------------------------------------------------------------


def test_studies_are_listed_and_wrong_names_refused(capsys):
    assert allocgym(["study"]) == 0
    listed = capsys.readouterr().out
    for module in (all_agents, cost_sensitivity, reward_comparison, sood, false_discovery):
        assert (module.__doc__ or "").split("\n")[0] in listed
    assert allocgym(["study", "sod"]) == 2
    assert "did you mean 'sood'" in capsys.readouterr().err
    assert allocgym(["study", "sood", "--seeds", "x"]) == 2
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1 and "--seeds" in refused


def test_a_study_with_nothing_stored_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("all_agents", "cost_sensitivity", "reward_comparison", "sood"):
        assert allocgym(["study", name, "--stored"]) == 1
        assert "no finished run" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
