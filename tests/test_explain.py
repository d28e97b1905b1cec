"""Explanations against closed forms and planted truths, and `allocgym explain` end to end."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from agents import AGENTS
from agents.base import Agent, Task
from agents.response import NoNetwork, Part, Response, blend, slopes
from envs.costs import ProportionalCost
from experiments.cli import main
from experiments.explain import spells
from experiments.gradients import Gradients, integrated_gradients
from experiments.importance import (
    PRICES,
    feature_groups,
    permutation_importance,
    shuffled_rows,
)
from experiments.run_dir import find_runs
from experiments.why import drivers, reason

L, M, F, G, N = 4, 3, 2, 2, 4


def linear(rng):
    """A response that is linear in everything it sees, and its coefficients."""
    shapes = {"features": (L, M, F, N), "context": (L, G, N), "held": (N, N)}
    weights = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    tensors = {key: torch.as_tensor(value, dtype=torch.float32) for key, value in weights.items()}

    def answer(features, context, held):
        return (
            torch.einsum("blmf,lmfn->bn", features, tensors["features"])
            + torch.einsum("blg,lgn->bn", context, tensors["context"])
            + held @ tensors["held"]
        )

    inputs = [rng.normal(size=shape[:-1]) for shape in (shapes["features"], shapes["context"])]
    features, context = (torch.as_tensor(part, dtype=torch.float32) for part in inputs)
    response = Response(
        features,
        context,
        torch.tensor([0.7, 0.1, 0.2, 0.0]),
        answer,
        "weight",
        ("a", "b", "c"),
        ("momentum", "volatility"),
        ("spread", "yield"),
    )
    return response, weights


def test_gradients_of_a_linear_answer_are_weight_times_distance(rng):
    response, weights = linear(rng)
    found = integrated_gradients(response, (0, 2), (32,))
    for place, column in enumerate((0, 2)):
        features = weights["features"][..., column] * response.features.numpy()
        np.testing.assert_allclose(found.features[place], features, atol=1e-5)
        context = weights["context"][..., column] * response.context.numpy()
        np.testing.assert_allclose(found.context[place], context, atol=1e-5)
        held = weights["held"][:, column] * (response.held.numpy() - 0.25)
        np.testing.assert_allclose(found.held[place], held, atol=1e-5)
    np.testing.assert_allclose(found.error, 0.0, atol=1e-5)
    assert found.baseline[0] == pytest.approx(0.25 * weights["held"][:, 0].sum(), abs=1e-6)


def test_gradients_of_a_product_by_hand(rng):
    """F = x y from 0: each gets half of x y, and inputs that are not read get nothing."""
    response, _ = linear(rng)

    def answer(features, context, held):
        product = features[:, 0, 0, 0] * features[:, 1, 2, 1]
        return product[:, None].expand(-1, N)

    found = integrated_gradients(dataclasses.replace(response, answer=answer), (1,), (32,))
    x, y = response.features[0, 0, 0].item(), response.features[1, 2, 1].item()
    assert found.features[0, 0, 0, 0] == pytest.approx(0.5 * x * y, rel=1e-4)
    assert found.features[0, 1, 2, 1] == pytest.approx(0.5 * x * y, rel=1e-4)
    assert np.count_nonzero(np.abs(found.features) > 1e-7) == 2
    assert not found.context.any()
    assert not found.held.any()


def test_parts_that_cancel_are_held_against_the_largest_part():
    parts = np.zeros((1, L, M, F))
    parts[0, 0, 0, :2] = 0.5, -0.499
    empty, held = np.zeros((1, L, 0)), np.zeros((1, N))
    made = Gradients((0,), parts, empty, held, np.array([0.0006]), np.array([0.0]), 256)
    assert made.relative_error == pytest.approx(0.0004 / 0.0006)
    assert made.is_complete  # 0.0004 of 0.5
    assert not dataclasses.replace(made, answer=np.array([0.02])).is_complete  # 0.019 of 0.5


def test_points_are_added_until_completeness_holds(rng):
    response, _ = linear(rng)

    def answer(features, context, held):
        return torch.sigmoid(60.0 * (features.sum((1, 2, 3)) - 1.0))[:, None].expand(-1, N)

    steep = dataclasses.replace(
        response, answer=answer, features=torch.full((L, M, F), 0.5, dtype=torch.float32)
    )
    coarse = integrated_gradients(steep, (0,), (4,))
    fine = integrated_gradients(steep, (0,), (4, 64, 256))
    assert coarse.relative_error > 0.01 >= fine.relative_error
    assert fine.points > 4


def test_drivers_add_up_and_the_sentence_names_the_largest(rng):
    response, _ = linear(rng)
    found = integrated_gradients(response, (0,))
    named = drivers(response, found, ("a", "b", "c", "cash"))
    change = float(found.answer[0] - found.baseline[0])
    assert sum(float(each["part"]) for each in named) == pytest.approx(change, abs=1e-5)
    sizes = [abs(float(each["part"])) for each in named]
    assert sizes == sorted(sizes, reverse=True)
    assert len(named) == M * F + G + N
    why = {
        "date": "2018-02-05",
        "asset": "a",
        "weight": 0.3,
        "mean_weight": 0.2,
        "answer": 0.35,
        "baseline": 0.25,
        "meaning": "weight",
        "drivers": [
            {"input": "momentum of a", "part": 0.08},
            {"input": "spread", "part": -0.03},
            {"input": "b held", "part": 0.02},
            {"input": "yield", "part": 0.03},
        ],
        "limits": ["max_weight"],
    }
    assert reason("ppo", why) == (
        "On 2018-02-05 ppo held 30.0% a (20.0% on average): its network's weight was 35.0%, "
        "+10.00 points from that of an average day, driven by momentum of a (+8.00 points), "
        "spread (-3.00 points) and b held (+2.00 points); all other inputs made +3.00 points; "
        "then max_weight moved the target."
    )


def test_slopes_are_numpys():
    rng = np.random.default_rng(0)
    points, values = rng.dirichlet(np.ones(3), 20), rng.normal(size=(2, 20))
    found = slopes(torch.as_tensor(values), torch.as_tensor(points)).numpy()
    for row in range(2):
        for column in range(3):
            assert found[row, column] == pytest.approx(
                np.polyfit(points[:, column], values[row], 1)[0]
            )


AGENTS_OF_EACH_KIND: dict[str, dict[str, Any]] = {
    "ppo": {"steps": 256, "num_envs": 8, "n_steps": 8, "evaluations": 1, "lookback": 10},
    "sac": {"steps": 200, "num_envs": 4, "learning_starts": 50, "evaluations": 1, "lookback": 10},
    "dqn": {"steps": 320, "num_envs": 8, "evaluations": 1, "lookback": 10},
    "qrdqn": {"steps": 320, "num_envs": 8, "evaluations": 1, "lookback": 10},
    "a2c": {"steps": 128, "num_envs": 8, "n_steps": 8, "evaluations": 1, "lookback": 10},
    "td3": {"steps": 120, "num_envs": 4, "learning_starts": 50, "evaluations": 1, "lookback": 10},
    "tqc": {"steps": 120, "num_envs": 4, "learning_starts": 50, "evaluations": 1, "lookback": 10},
    "recurrent_ppo": {"steps": 64, "num_envs": 4, "n_steps": 8, "evaluations": 1, "lookback": 10},
    "policy_gradient": {"steps": 3, "evaluations": 1, "lookback": 10},
    "lstm": {"epochs": 2, "lookback": 10, "hidden": 8},
    "forecast": {"forecaster": "gru(epochs=1, lookback=10, width=8)"},
    "stacking": {"forecasters": "mean, ridge(lookback=3), gru(epochs=1, lookback=10, width=8)"},
    "ensemble": {
        "members": "ppo(steps=128, num_envs=8, n_steps=8, evaluations=1, lookback=10), "
        "lstm(epochs=1, lookback=5, hidden=8), risk_parity",
        "band": 0.0,
    },
}


@pytest.mark.parametrize("name", AGENTS_OF_EACH_KIND)
def test_every_kind_of_network_answers_as_it_acts_and_is_explained_completely(make_market, name):
    market = make_market(260, 3)
    agent = AGENTS[name](**AGENTS_OF_EACH_KIND[name])
    agent.fit(market[:180], market[160:], task=Task(cost=ProportionalCost(0.0)), seed=0)
    held = np.array([0.4, 0.3, 0.2, 0.1])
    response = agent.response(market, held)
    now, acted = response.now().numpy(), agent.act(market, held)
    if response.meaning in ("weight", "proposal"):
        np.testing.assert_allclose(now, acted, atol=2e-6)
    elif response.meaning == "forecast":
        np.testing.assert_allclose(now, agent.forecaster.predict(market), atol=1e-6)
    else:
        assert np.isfinite(now).all()
    found = integrated_gradients(response, (0, 1), (64, 128, 256, 512))
    assert found.relative_error < 0.02
    assert found.features.shape[1:] == tuple(response.features.shape)


def test_a_blend_has_the_attributions_of_its_parts(rng):
    """Shares of linear answers: each part's own attributions, times its share, in its columns."""
    (one, first), (two, second) = linear(rng), linear(rng)
    two = dataclasses.replace(two, features=two.features[1:], context=two.context[1:, :0])

    def shorter(features, context, held):
        padding = features.new_zeros(len(features), 1, M, F)
        whole = torch.cat([padding, features], 1)
        return torch.einsum("blmf,lmfn->bn", whole, torch.tensor(second["features"]).to(whole))

    two = dataclasses.replace(two, answer=shorter, context_names=())
    rest = np.array([0.1, 0.2, 0.3, 0.4])
    held = np.full(N, 0.25)
    both = blend([Part("ppo", 0.25, one), Part("gru", 0.5, two)], rest, held)
    now = 0.25 * one.now() + 0.5 * two.now() + torch.tensor(rest, dtype=torch.float32)
    np.testing.assert_allclose(both.now(), now, atol=1e-6)
    found = integrated_gradients(both, (1,), (32,))
    own = 0.25 * first["features"][..., 1] * one.features.numpy()
    np.testing.assert_allclose(found.features[0, :, :, :F], own, atol=1e-5)
    others = 0.5 * second["features"][1:, :, :, 1] * two.features.numpy()
    np.testing.assert_allclose(found.features[0, 1:, :, F:], others, atol=1e-5)
    assert not found.features[0, 0, :, F:].any()
    np.testing.assert_allclose(
        found.context[0], 0.25 * first["context"][..., 1] * one.context.numpy(), atol=1e-5
    )
    assert not found.held.any()
    assert both.feature_names == (
        "ppo: momentum",
        "ppo: volatility",
        "gru: momentum",
        "gru: volatility",
    )
    assert both.context_names == ("ppo: spread", "ppo: yield")


def test_ensembles_of_forecasters_answer_with_the_mean_forecast(make_market):
    market = make_market(260, 3)
    agent = AGENTS["ensemble"](members="forecast(forecaster=ridge), lstm(epochs=1, lookback=5)")
    agent.fit(market[:180], market[160:], task=Task(cost=None), seed=0)
    response = agent.response(market, np.array([0.4, 0.3, 0.2, 0.1]))
    assert response.meaning == "forecast"
    mean = np.mean([each.agent.forecaster.predict(market) for each in agent.members], axis=0)
    np.testing.assert_allclose(response.now(), mean, atol=1e-6)


def test_inputs_stay_the_same_ones_while_shares_change(make_market):
    """What one day is left to and the next is not keeps its place, with nothing to say."""
    market = make_market(400, 3)
    members = "forecast(forecaster=ridge), lstm(epochs=1, lookback=5), equal_weight"
    agent = AGENTS["ensemble"](members=members, weighting="best", period="month", window=20)
    agent.fit(market[:180], market[160:260], task=Task(cost=None), seed=0)
    seen = set()
    for row in range(300, 400, 20):
        history = market.upto(row)
        response = agent.response(history, np.full(4, 0.25))
        shares = agent.shares(history)[:2]
        expected = np.zeros(4)
        for share, member in zip(shares, agent.members, strict=False):
            expected += share * member.agent.forecaster.predict(history)
        np.testing.assert_allclose(response.now(), expected, atol=1e-6)
        seen.add((response.features.shape, response.feature_names, response.note))
    assert len(seen) == 1
    assert seen.pop()[2] == "not attributed: what comes from equal_weight"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ensemble", {"members": "equal_weight, inverse_volatility"}),
        ("stacking", {"forecasters": "mean, factor_model"}),
    ],
)
def test_where_no_part_has_a_network_there_is_nothing_to_differentiate(make_market, name, settings):
    market = make_market(260, 3)
    agent = AGENTS[name](**settings).fit(market[:180], market[120:], task=Task(cost=None), seed=0)
    with pytest.raises(NoNetwork, match=f"{name}: no.* has a network"):
        agent.response(market, np.full(4, 0.25))


class Follower(Agent):
    """Holds the asset whose first feature is highest; the other features are noise to it."""

    lookback = 3

    def act(self, history, weights):
        return np.eye(history.n_assets)[int(history.features[-1, :2, 0].argmax())]


def tipped(make_market):
    """A market one of whose features is tomorrow's return, and two are nothing."""
    market = make_market(300, 2)
    rng = np.random.default_rng(5)
    features = rng.normal(size=(300, 3, 3)).astype(np.float32)
    features[:-1, :, 0] = market.returns[1:]
    names = ("tip", "noise", "noise(5)")
    return dataclasses.replace(market, features=features, feature_names=names)


def test_the_planted_feature_is_first_and_noise_is_worth_nothing(make_market):
    market = tipped(make_market)
    assert feature_groups(market) == {"tip": ("tip",), "noise": ("noise", "noise(5)"), PRICES: ()}
    rng = np.random.default_rng(0)
    found = permutation_importance(Follower(), market, Task(cost=None), rng, repeats=3, block=5)
    first, *others = found
    assert first.group == "tip"
    assert first.sharpe.min() > 5.0
    assert first.reward.min() > 0.003
    assert 0.3 < first.moved.mean() < 0.7
    for other in others:
        np.testing.assert_array_equal(other.sharpe, 0.0)
        np.testing.assert_array_equal(other.moved, 0.0)


def test_past_returns_matter_to_who_reads_prices(make_market):
    market = make_market(400, 3)
    agent = AGENTS["cross_sectional_momentum"]()
    rng = np.random.default_rng(0)
    found = permutation_importance(agent, market, Task(), rng, repeats=2)
    moved = {each.group: each.moved.mean() for each in found}
    assert moved[PRICES] > 0.05
    assert all(value == 0.0 for group, value in moved.items() if group != PRICES)


def test_shuffled_rows_keep_the_past_and_the_blocks(rng):
    rows = shuffled_rows(100, 30, 7, rng)
    assert sorted(rows) == list(range(100))
    np.testing.assert_array_equal(rows[:30], np.arange(30))
    breaks = np.count_nonzero(np.diff(rows[30:]) != 1)
    assert 3 <= breaks <= 11


def test_spells():
    dates = pd.bdate_range("2020-01-01", periods=6)
    found = spells(dates, np.array([True, True, False, False, True, False]))
    assert found == [["2020-01-01", "2020-01-02", 2], ["2020-01-07", "2020-01-07", 1]]


SETTINGS = ("--agent.steps", "256", "--agent.num_envs", "8", "--agent.n_steps", "8")
RUN, RULE = "results/train/ppo/seed_000", "results/train/equal_weight/seed_000"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A PPO with a limit on weights, and a rule, on two assets of a file."""
    folder = tmp_path_factory.mktemp("explain")
    dates = pd.bdate_range("2015-01-01", periods=400)
    steps = np.random.default_rng(3).normal(0.0003, 0.01, (400, 2))
    frame = pd.DataFrame(np.exp(np.cumsum(steps, 0)) * 100, dates, ["AAA", "BBB"])
    frame.rename_axis("date").to_csv(folder / "prices.csv")
    data = ("--data", "files", "--data.options.path", "prices.csv", "--workers", "1")
    limit = ("--task.constraints", "max_weight(0.335)")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        more = ("--agent.evaluations", "1", "--agent.lookback", "10")
        assert main(["train", "--agent", "ppo", *SETTINGS, *more, *data, *limit]) == 0
        assert main(["train", "--agent", "equal_weight", *data]) == 0
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_explain_prints_keeps_and_the_report_shows(here, capsys):
    backtest = find_runs([RUN])[0].backtest
    day, after = f"{backtest.index[9]:%Y-%m-%d}", backtest.iloc[10]
    argv = ["explain", RUN, "--date", day, "--asset", "BBB", "--repeats", "1", "--days", "2"]
    assert main(argv) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"On {day} ppo held {after['target:BBB']:.1%} BBB" in shown
    assert "Completeness" in shown
    kept = json.loads((here / RUN / "explanation.json").read_text())
    why = kept["why"]
    assert why["weight"] == pytest.approx(after["target:BBB"])
    parts = sum(each["part"] for each in why["drivers"])
    assert parts == pytest.approx(why["answer"] - why["baseline"], abs=1e-6 + 0.01 * abs(parts))
    limit = kept["limits"][0]
    assert limit["share"] == pytest.approx(backtest["binding:max_weight"].mean())
    assert sum(days for _, _, days in limit["spells"]) == backtest["binding:max_weight"].sum()
    assert main(["report", RUN, "--output", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert f"On {day} ppo held {after['target:BBB']:.1%} BBB" in page
    assert "Where the return came from" in page
    assert page.count('id="why-0') >= 1
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == kept


def test_a_rule_has_importance_but_no_gradients(here, capsys):
    assert main(["explain", RULE, "--repeats", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "no integrated gradients: equal_weight decides by a rule" in shown
    assert "No limits were set." in shown
    assert main(["report", RULE, "--output", "rule.html"]) == 0
    assert "decides by a rule" in Path("rule.html").read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([RUN, "--date", "2016-01-02"], "date must be a decision's day"),
        ([RUN, "--date", "noon"], "date must be a date"),
        ([RUN, "--asset", "CCC"], "asset must be one of AAA, BBB, cash, got 'CCC'"),
        ([RUN, "--days", "0"], "days must be at least 1, got 0"),
        ([RUN, "--block", "500"], "two blocks"),
        ([RULE, "--asset", "AAA"], "decides by a rule"),
        (["results/train"], "expected one run, got 2"),
    ],
)
def test_wrong_settings_are_one_line_and_status_2(here, capsys, argv, words):
    capsys.readouterr()
    assert main(["explain", *argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1


def test_without_captum_the_extra_is_named(rng, monkeypatch):
    response, _ = linear(rng)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ValueError, match=r"pip install 'allocgym\[explain\]'"):
        integrated_gradients(response, (0,))


def test_without_a_sharpe_ratio_the_report_shows_the_reward_lost(here, capsys):
    """Who holds cash alone has returns over cash that do not vary."""
    data = ("--data", "files", "--data.options.path", "prices.csv", "--workers", "1")
    run = "results/idle/cash/seed_000"
    assert main(["train", "--agent", "cash", "--experiment", "idle", *data]) == 0
    assert main(["explain", run, "--repeats", "1"]) == 0
    assert "n/a" in capsys.readouterr().out
    assert (
        json.loads((here / run / "explanation.json").read_text())["importance"][0]["sharpe"] is None
    )
    assert main(["report", run, "--output", "idle.html"]) == 0
    assert "Reward a period lost when shuffled in time" in Path("idle.html").read_text()


def test_a_damaged_explanation_is_named(here, capsys):
    path = here / RULE / "explanation.json"
    path.write_text("{}")
    assert main(["report", RULE, "--output", "broken.html"]) == 2
    assert "explanation.json: not what explain writes" in capsys.readouterr().err
    path.unlink()
