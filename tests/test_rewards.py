"""Rewards against hand values, derivatives, other formulas and themselves in another library."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from envs.constraints import MaxWeight
from envs.costs import ProportionalCost
from envs.reward_ratios import ConditionalValueAtRisk
from envs.rewards import REWARDS, Reward, Violation, WeightedSum, check_reward, make_reward
from envs.simulator import Row, State, Transition, step
from market import Market, SettingError
from market.measures import conditional_value_at_risk, sharpe_ratio

TORCH = array_api_compat.array_namespace(torch.zeros(1))
PENALTIES = ("turnover", "cost", "drawdown", "concentration", "cvar")
SPECS = (*REWARDS, "drawdown(increase=True)", "rolling_sharpe(window=5)", "crra(risk_aversion=1)")


def path(portfolio_returns, n_assets=3, xp=np, seed=0):
    """An episode's transitions, from its portfolio returns (T, *B) and random weights."""
    returns = np.asarray(portfolio_returns, dtype=float)
    shape, rng = returns.shape[1:], np.random.default_rng(seed)
    value = peak = np.ones(shape)
    for t, portfolio_return in enumerate(returns):
        value = value * (1.0 + portfolio_return)
        peak = np.maximum(peak, value)
        weights, target = rng.dirichlet(np.ones(n_assets), (2, *shape))
        cost = rng.uniform(0.0, 0.01, shape)
        arrays = Transition(
            weights=weights,
            target=target,
            mu=1.0 - cost,
            cost=cost,
            turnover=0.5 * np.abs(target - weights).sum(-1),
            returns=rng.normal(0.0, 0.01, (*shape, n_assets)),
            portfolio_return=portfolio_return,
            risk_free=np.full(shape, 1e-4),
            value=value,
            drawdown=1.0 - value / peak,
            drifted=target,
            last=np.full(shape, t == len(returns) - 1),
        )
        yield arrays if xp is np else Transition(*(torch.as_tensor(array) for array in arrays))


def play(spec, portfolio_returns, **options):
    """Rewards (T, *B) of an episode, and its last memory."""
    reward = make_reward(spec)
    xp = options.get("xp", np)
    memory = reward.initial(np.shape(portfolio_returns)[1:], xp)
    values = []
    for transition in path(portfolio_returns, **options):
        value, memory = reward(transition, memory)
        values.append(value)
    return (np.stack(values) if xp is np else torch.stack(values)), memory


def draws(*shape, seed=1, scale=0.01):
    return np.random.default_rng(seed).normal(0.0005, scale, shape)


def one(**changes):
    """One transition of a single portfolio."""
    return next(path([0.02]))._replace(**changes)


def market(names=("A", "B")):
    dates = pd.date_range("2020-01-01", periods=3, freq="D")
    prices = np.linspace(1.0, 2.0, 3 * len(names)).reshape(3, -1)
    return Market.from_prices(pd.DataFrame(prices, dates, list(names)))


class TestFormulas:
    def test_returns_by_hand(self):
        transition = one(portfolio_return=np.float64(0.02), risk_free=np.float64(0.001))
        expected = {
            "log_return": math.log(1.02),
            "simple_return": 0.02,
            "excess_return": 0.019,
            "mean_variance(4)": 0.02 - 2 * 0.0004,
            "crra(3)": (1 - 1.02**-2) / 2,
            "crra(0.5)": 2 * (math.sqrt(1.02) - 1),
            "crra(1)": math.log(1.02),
            "crra(0)": 0.02,
        }
        for spec, number in expected.items():
            assert make_reward(spec)(transition, {})[0] == pytest.approx(number, rel=1e-12), spec

    def test_penalties_by_hand(self):
        transition = one(
            target=np.array([0.5, 0.3, 0.2]),
            turnover=np.float64(0.4),
            cost=np.float64(0.003),
            drawdown=np.float64(0.1),
        )
        expected = {"turnover": 0.4, "cost": 0.003, "drawdown": 0.1, "concentration": 0.38}
        for spec, number in expected.items():
            assert make_reward(spec)(transition, {})[0] == pytest.approx(number, rel=1e-12), spec

    @pytest.mark.parametrize("name", PENALTIES)
    def test_penalties_are_positive_amounts(self, name):
        values, _ = play(name, draws(200, 4))
        assert values.min() >= 0.0
        assert values.max() > 0.0

    @given(
        returns=st.lists(
            st.lists(st.floats(-0.6, 1.0), min_size=3, max_size=3), min_size=1, max_size=20
        ),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=50, deadline=None)
    def test_log_returns_add_up_to_the_log_of_the_final_value(self, returns, seed):
        rng, cost = np.random.default_rng(seed), ProportionalCost(0.01).bind(market())
        state = State(np.array([0.0, 0.0, 1.0]), np.float64(1.0), np.float64(1.0))
        reward, total = make_reward("log_return"), 0.0
        for row in np.array(returns):
            market_row = Row(row, 1.0 + row, np.float64(0.0), np.False_)
            state, transition = step(state, rng.dirichlet(np.ones(3)), market_row, cost)
            total += reward(transition, {})[0]
        assert total == pytest.approx(math.log(state.value), rel=1e-10, abs=1e-12)

    def test_crra_near_one_is_log(self):
        values = draws(50)
        near, _ = play("crra(1.000001)", values)
        np.testing.assert_allclose(near, np.log1p(values), atol=1e-8)

    def test_mean_variance_averages_to_mean_less_half_the_second_moment(self):
        values = draws(5000)
        utility = play("mean_variance(5)", values)[0].mean()
        variance = values.var() + values.mean() ** 2
        assert utility == pytest.approx(values.mean() - 2.5 * variance, rel=1e-12)

    def test_active_return_over_an_asset_and_over_equal_weight(self):
        returns = np.array([0.01, -0.02, 0.0])
        transition = one(portfolio_return=np.float64(0.005), returns=returns)
        for benchmark, earned in {"B": -0.02, "cash": 0.0, "equal_weight": -0.01 / 2}.items():
            reward = make_reward(f"active_return({benchmark!r})").bind(market())
            assert reward(transition, {})[0] == pytest.approx(0.005 - earned, rel=1e-12)

    def test_active_return_names_an_unknown_benchmark(self):
        with pytest.raises(SettingError, match=r"unknown benchmark .*'cahs'; did you mean 'cash'"):
            make_reward("log_return + active_return('cahs')").bind(market())
        with pytest.raises(SettingError, match="bind"):
            make_reward("active_return('A')")(one(), {})

    def test_drawdown_increase_counts_only_what_is_lost_anew(self):
        values, _ = play("drawdown(increase=True)", [0.1, -0.2, -0.5, 0.5, 0.1, -0.1])
        levels = np.array([0.0, 0.2, 0.6, 0.4, 0.34, 0.406])
        np.testing.assert_allclose(values, np.diff(levels, prepend=0).clip(0), atol=1e-12)

    def test_violation_charges_what_exceeds_a_soft_limit(self):
        reward = (make_reward("log_return") - 10 * Violation((MaxWeight(0.4),))).bind(market())
        within = one(target=np.array([0.3, 0.3, 0.4]))
        beyond = one(target=np.array([0.7, 0.2, 0.1]))
        assert reward.terms(within, {})[0]["violation"] == 0.0
        assert reward.terms(beyond, {})[0]["violation"] < -0.1
        with pytest.raises(SettingError, match="bind"):
            Violation((MaxWeight(0.4),))(within, {})


def averages(returns, eta):
    """Exponential averages before each period, started at 0, by pandas."""
    padded = pd.Series([0.0, *returns])
    return padded.ewm(alpha=eta, adjust=False).mean().to_numpy()[:-1]


def derivative(statistic, step=1e-5):
    """Central difference at 0, extrapolated once (error of the order of step^4)."""
    slope = lambda h: (statistic(h) - statistic(-h)) / (2 * h)  # noqa: E731
    return (4 * slope(step / 2) - slope(step)) / 3


class TestDifferentialRatios:
    eta = 0.05

    def test_sharpe_is_the_derivative_in_eta_of_the_moving_sharpe(self):
        returns = draws(200)
        values, _ = play(f"differential_sharpe(eta={self.eta})", returns)
        mean, square = averages(returns, self.eta), averages(returns**2, self.eta)
        assert values[0] == 0.0
        for t in range(1, len(returns)):

            def moving_sharpe(eta, t=t):
                a = mean[t] + eta * (returns[t] - mean[t])
                b = square[t] + eta * (returns[t] ** 2 - square[t])
                return a / math.sqrt(b - a * a)

            assert values[t] == pytest.approx(derivative(moving_sharpe), rel=1e-6, abs=1e-6)

    def test_downside_is_the_derivative_in_eta_of_the_moving_ratio(self):
        returns = np.array([-0.01, *draws(200)])
        values, _ = play(f"differential_downside(eta={self.eta})", returns)
        mean = averages(returns, self.eta)
        loss = averages(np.minimum(returns, 0.0) ** 2, self.eta)
        assert values[0] == 0.0
        for t in range(1, len(returns)):

            def moving_ratio(eta, t=t):
                a = mean[t] + eta * (returns[t] - mean[t])
                square = loss[t] + eta * (min(returns[t], 0.0) ** 2 - loss[t])
                return a / math.sqrt(square)

            assert values[t] == pytest.approx(derivative(moving_ratio), rel=1e-6, abs=1e-6)

    def test_second_step_by_hand(self):
        eta, first, second = 0.1, 0.02, -0.01
        a, b = eta * first, eta * first**2
        sharpe = (b * (second - a) - a * (second**2 - b) / 2) / (b - a * a) ** 1.5
        values, memory = play("differential_sharpe(0.1)", [first, second])
        assert values[1] == pytest.approx(sharpe, rel=1e-12)
        assert memory["mean"] == pytest.approx(a + eta * (second - a), rel=1e-12)
        assert memory["square"] == pytest.approx(b + eta * (second**2 - b), rel=1e-12)

    def test_downside_is_undefined_until_a_loss_and_then_follows_both_branches(self):
        eta = 0.1
        values, _ = play("differential_downside(0.1)", [0.02, -0.01, 0.03, -0.02])
        a, square = np.zeros(5), np.zeros(5)
        for t, r in enumerate([0.02, -0.01, 0.03, -0.02]):
            a[t + 1] = a[t] + eta * (r - a[t])
            square[t + 1] = square[t] + eta * (min(r, 0) ** 2 - square[t])
        gain = (0.03 - a[2] / 2) / math.sqrt(square[2])
        loss = (square[3] * (-0.02 - a[3] / 2) - a[3] * 0.02**2 / 2) / square[3] ** 1.5
        np.testing.assert_allclose(values, [0.0, 0.0, gain, loss], rtol=1e-12)

    def test_sum_approximates_the_change_of_the_moving_sharpe(self):
        returns, eta = draws(3000), 1e-3
        values, memory = play(f"differential_sharpe({eta}, prior_volatility=0.01)", returns)
        mean, square = memory["mean"], memory["square"]
        change = mean / math.sqrt(square - mean**2)  # from 0
        assert eta * values.sum() == pytest.approx(change, rel=0.05)

    @pytest.mark.parametrize("name", ["differential_sharpe", "differential_downside"])
    def test_prior_volatility_scales_the_first_reward(self, name):
        values, _ = play(f"{name}(prior_volatility=0.02)", [0.01])
        assert values[0] == pytest.approx(0.5, rel=1e-12)

    @pytest.mark.parametrize("spec", ["differential_sharpe", "differential_downside"])
    def test_no_return_at_all_pays_nothing(self, spec):
        np.testing.assert_array_equal(play(spec, np.zeros(100))[0], 0.0)


class TestSharpeRatios:
    def test_rolling_sharpe_is_that_of_the_window(self):
        returns = draws(30, 4)
        values, _ = play("rolling_sharpe(8)", returns)
        np.testing.assert_array_equal(values[:7], 0.0)
        for t in range(7, 30):
            expected = sharpe_ratio(returns[t - 7 : t + 1], 1e-4)
            np.testing.assert_allclose(values[t], expected, rtol=1e-10)

    def test_episode_sharpe_is_paid_once_at_the_end(self):
        returns = draws(40, 4)
        values, _ = play("episode_sharpe", returns)
        np.testing.assert_array_equal(values[:-1], 0.0)
        np.testing.assert_allclose(values[-1], sharpe_ratio(returns, 1e-4), rtol=1e-10)

    def test_periods_per_year(self):
        returns = draws(40)
        values, _ = play("episode_sharpe(periods_per_year=12)", returns)
        expected = sharpe_ratio(returns, 1e-4, periods_per_year=12)
        assert values[-1] == pytest.approx(expected, rel=1e-10)

    @pytest.mark.parametrize("returns", [[0.01], [1e-4] * 20])
    def test_undefined_is_zero(self, returns):
        for spec in ("rolling_sharpe(5)", "episode_sharpe"):
            np.testing.assert_array_equal(play(spec, returns)[0], 0.0)


class TestTailPenalty:
    def test_by_hand(self):
        values, _ = play("cvar(tail=0.5, window=4)", [-0.04, -0.02, 0.03, -0.05])
        # the second greatest of the four losses before: 0, 0, 0.02, 0.02
        expected = [0.04 / 0.5, 0.02 / 0.5, 0.02, 0.02 + 0.03 / 0.5]
        np.testing.assert_allclose(values, expected, rtol=1e-12)

    def test_mean_is_the_conditional_value_at_risk(self):
        tail, scale = 0.05, 0.01
        values, _ = play(f"cvar({tail}, window=400)", draws(900, 100, scale=scale))
        quantile = stats.norm.ppf(tail)
        exact = scale * stats.norm.pdf(quantile) / tail - 0.0005
        mean = values[400:].mean()  # noise of about 0.6 %; never below but for that
        assert exact * 0.985 < mean < exact * 1.03

    def test_full_window_that_repeats_gives_the_historical_number(self):
        returns = draws(100, seed=4)
        values, _ = play("cvar(0.05, window=100)", np.tile(returns, 2))
        # any 100 successive losses are the same set, so v is its value at risk throughout
        assert values[100:].mean() == pytest.approx(
            conditional_value_at_risk(returns, 0.05), rel=1e-10
        )


class TestEveryReward:
    @pytest.mark.parametrize("spec", SPECS)
    def test_torch_equals_numpy(self, spec):
        returns = draws(70, 5)
        tensors, _ = play(spec, returns, xp=TORCH)
        assert tensors.dtype == torch.float64
        np.testing.assert_allclose(tensors.numpy(), play(spec, returns)[0], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("spec", SPECS)
    def test_batch_row_equals_single(self, spec):
        reward, returns = make_reward(spec), draws(70, 3)
        batch, single = reward.initial((3,)), reward.initial(())
        for transition in path(returns):
            values, batch = reward(transition, batch)
            value, single = reward(Transition(*(field[1] for field in transition)), single)
            assert values.shape == (3,)
            assert np.shape(value) == ()
            assert values[1] == value

    @pytest.mark.parametrize("spec", [*SPECS, "log_return - 0.1 * cvar - rolling_sharpe(5)"])
    def test_memory_is_rows_that_reset_alone_and_is_never_changed(self, spec):
        reward, returns = make_reward(spec), draws(12, 3)
        memory = reward.initial((3,))
        for transition in path(returns):
            before = {key: array.copy() for key, array in memory.items()}
            _, after = reward(transition, memory)
            for key, array in before.items():
                np.testing.assert_array_equal(memory[key], array)
                assert after[key].shape == array.shape
            memory = after
        fresh, keep = reward.initial((3,)), np.array([True, False, True])
        mixed = {
            key: np.where(keep.reshape(3, *[1] * (array.ndim - 1)), array, fresh[key])
            for key, array in memory.items()
        }
        transition = next(path(draws(1, 3, seed=9)))
        value, _ = reward(transition, mixed)
        assert value[1] == reward(transition, fresh)[0][1]
        assert value[0] == reward(transition, memory)[0][0]

    @pytest.mark.parametrize("spec", SPECS)
    @pytest.mark.parametrize("returns", [[-1.0], [0.01, -0.02, -1.0], [0.01] * 70 + [-1.0]])
    def test_finite_at_ruin_in_float32_too(self, spec, returns):
        for xp in (np, TORCH):
            values, _ = play(spec, returns, xp=xp)
            assert np.isfinite(np.asarray(values, dtype=np.float32)).all()
        if spec in ("log_return", "crra(risk_aversion=1)"):
            assert values[-1] == pytest.approx(math.log(1e-12), rel=1e-4)

    @pytest.mark.parametrize("risk_aversion", [0, 0.5, 2, 50, 1000])
    def test_crra_of_ruin_is_bounded(self, risk_aversion):
        value = play(f"crra({risk_aversion})", [-1.0])[0][0]
        assert -5e8 < value < 0.0

    @pytest.mark.parametrize(
        "spec",
        [
            "log_return",
            "simple_return",
            "excess_return",
            "mean_variance",
            "crra",
            "active_return",
            "differential_sharpe",
            "differential_downside",
            "rolling_sharpe(5)",
            "episode_sharpe",
            "cvar(0.2, window=5)",
        ],
    )
    def test_gradient_through_an_episode_equals_finite_differences(self, spec):
        reward, transitions = make_reward(spec), list(path(draws(12), xp=TORCH))

        def total(returns):
            memory, value = reward.initial((), TORCH), torch.zeros((), dtype=torch.float64)
            for transition, now in zip(transitions, returns, strict=True):
                earned, memory = reward(transition._replace(portfolio_return=now), memory)
                value = value + earned
            return value

        returns = torch.tensor(draws(12), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(total, (returns,), eps=1e-7, atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize("name", ["differential_sharpe", "rolling_sharpe(3)", "crra"])
    def test_gradient_is_finite_where_the_value_is_undefined(self, name):
        returns = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        reward, memory = make_reward(name), make_reward(name).initial((), TORCH)
        total = torch.zeros((), dtype=torch.float64)
        for transition, now in zip(path(np.zeros(5), xp=TORCH), returns, strict=True):
            earned, memory = reward(transition._replace(portfolio_return=now), memory)
            total = total + earned
        total.backward()
        assert returns.grad is not None
        assert torch.isfinite(returns.grad).all()

    @pytest.mark.parametrize("name", REWARDS)
    def test_registered_under_its_own_name(self, name):
        reward = make_reward(name)
        assert type(reward) is REWARDS[name]
        assert str(reward) == name
        terms, _ = reward.terms(one(), reward.initial(()))
        assert list(terms) == [name]


class TestExpressions:
    def test_string_equals_python(self):
        kinds = {name: kind() for name, kind in REWARDS.items()}
        log_return, turnover, cost = kinds["log_return"], kinds["turnover"], kinds["cost"]
        pairs = {
            "log_return - 0.1 * turnover": log_return - 0.1 * turnover,
            "-turnover": -turnover,
            "2 * (log_return + cost / 4)": 2 * (log_return + cost / 4),
            "+log_return*3 - -cost": log_return * 3 + cost,
            "log_return - (turnover - cost)": log_return - (turnover - cost),
            "1e-1 * 2 * cost": 0.2 * cost,
            "mean_variance(risk_aversion=5) - cvar(0.1, window=20)": make_reward("mean_variance(5)")
            - ConditionalValueAtRisk(0.1, 20),
        }
        for text, reward in pairs.items():
            assert make_reward(text) == reward, text
            assert make_reward(str(reward)) == reward, text

    def test_terms_are_contributions_that_add_up(self):
        reward, transition = make_reward("log_return - 0.5 * turnover - 2 * cvar"), one()
        memory = reward.initial(())
        terms, _ = reward.terms(transition, memory)
        assert list(terms) == ["log_return", "turnover", "cvar"]
        assert terms["turnover"] == pytest.approx(-0.5 * transition.turnover, rel=1e-15)
        assert sum(terms.values()) == pytest.approx(reward(transition, memory)[0], rel=1e-15)

    def test_equal_parts_merge_and_others_of_one_name_are_counted(self):
        assert make_reward("cost + cost") == 2 * make_reward("cost")
        reward = make_reward("crra(2) + crra(3) + drawdown(True) - 2 * differential_sharpe")
        terms, memory = reward.terms(one(), reward.initial(()))
        assert list(terms) == ["crra", "crra_2", "drawdown", "differential_sharpe"]
        expected = {"drawdown.before", "differential_sharpe.mean", "differential_sharpe.square"}
        assert set(memory) == expected

    def test_sum_of_a_list(self):
        reward = sum([make_reward("log_return"), -make_reward("cost")])
        assert reward == make_reward("log_return - cost")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "log_retrun",
                r"unknown reward 'log_retrun'; did you mean 'log_return'\?.*position 1 ",
            ),
            ("log_return - 0.1 * turnovr", r"did you mean 'turnover'.*position 20 "),
            ("log_return +", r"invalid syntax at position 13"),
            ("log_return - (cost", r"never closed at position 14"),
            ("log_return + 1", r"a number can only scale a reward"),
            ("log_return * cost", r"do not multiply"),
            ("cost / 0", r"divided by a number other than 0"),
            ("1 / cost", r"divided by a number"),
            ("cost ** 2", r"only \+ - \* / can be used"),
            ("3", r"a number alone"),
            ("1e999 * cost", r"real and finite"),
            ("2j * cost", r"real and finite"),
            ("True * cost", r"real and finite"),
            ("cost if 1 else cost", r"only rewards, numbers"),
            ("crra(risk=2)", r"crra: got an unexpected keyword argument 'risk'; .* risk_aversion"),
            ("crra(1, 2)", r"too many positional arguments; it takes risk_aversion"),
            ("log_return(2)", r"it takes no settings"),
            ("crra(risk_aversion=1, risk_aversion=2)", r"given once"),
            ("crra(**{})", r"given once"),
            ("crra(*[2])", r"a setting must be a number"),
            ("crra(-1)", r"crra: `risk_aversion` must be a number in \[0, 1000\], got -1"),
            ("crra('high')", r"`risk_aversion` must be a number .*got 'high'"),
            ("crra(True)", r"`risk_aversion` must be a number"),
            ("cvar(window=2.5)", r"`window` must be a whole number"),
            ("cvar(tail=0.9)", r"`tail` must be"),
            ("differential_sharpe(0)", r"`eta` must be a number in"),
            ("drawdown(increase=1)", r"`increase` must be True or False, got 1"),
            ("active_return(3)", r"`benchmark` must be"),
            ("", r"1 to 1000 printable"),
            ("cost\0", r"1 to 1000 printable"),
            ("cost" * 300, r"1 to 1000 printable"),
            ("(" * 400 + "cost" + ")" * 400, r"reward `\(+\.\.\.`: "),
            ("9" * 900 + " * cost", r"real and finite"),
        ],
    )
    def test_what_is_not_understood_is_one_line(self, text, message):
        with pytest.raises(SettingError, match=message) as caught:
            make_reward(text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').mkdir('MARK')",
            "(lambda: cost)()",
            "[cost for cost in (1,)]",
            "cost.__class__",
            "cost[0]",
            "f'{cost}'",
            "(x := cost)",
            "crra(__import__('os').mkdir('MARK'))",
        ],
    )
    def test_nothing_is_evaluated(self, text, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SettingError):
            make_reward(text)
        assert not list(tmp_path.iterdir())

    words = st.sampled_from(
        [*REWARDS, "0.1", "2", "+", "-", "*", "/", "(", ")", ",", "eta=", "'A'", "a:b", "~", " "]
    )

    @given(text=st.one_of(st.text(max_size=30), st.lists(words, max_size=12).map("".join)))
    @settings(max_examples=300, deadline=None)
    def test_any_text_is_a_reward_or_one_line(self, text):
        try:
            reward = make_reward(text, plugins=False)
        except SettingError as error:
            assert "\n" not in str(error)
        else:
            assert make_reward(str(reward)) == reward

    def test_weights_must_be_finite(self):
        with pytest.raises(SettingError, match="finite"):
            make_reward("cost") * math.inf
        with pytest.raises(TypeError):
            make_reward("cost") * make_reward("cost")  # type: ignore[operator]
        with pytest.raises(TypeError):
            make_reward("cost") + 1  # type: ignore[operator]


USER_FILE = """
from __future__ import annotations
from dataclasses import dataclass
import os
from os import system as borrowed
from envs.rewards import Reward

def gain(transition):
    return 3 * transition.portfolio_return

@dataclass(frozen=True)
class Streak(Reward):
    unit: float = 1.0
    def initial(self, batch_shape, xp=None):
        import numpy
        return {"days": numpy.zeros(batch_shape)}
    def __call__(self, transition, memory):
        days = (memory["days"] + 1) * (transition.portfolio_return > 0)
        return self.unit * days, {"days": days}

class NoReward:
    def __call__(self, transition):
        return transition.value

ready = Streak(2.0)
number = 5

def two(transition, memory):
    return transition.value

def broken(transition):
    return 1 / 0

class Lost(Reward):
    def __call__(self, transition, memory):
        return transition.value

class BadMemory(Reward):
    def initial(self, batch_shape, xp=None):
        return {"days": [0.0]}
    def __call__(self, transition, memory):
        return transition.value, memory
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_rewards.py"


@pytest.mark.usefixtures("user_file")
class TestUsersOwn:
    @pytest.mark.parametrize("place", ["my_rewards.py", "./my_rewards.py", "my_rewards"])
    def test_function_by_file_and_by_module(self, place):
        reward = make_reward(f"{place}:gain")
        assert reward(one(), {})[0] == pytest.approx(0.06)
        assert list(reward.terms(one(), {})[0]) == ["gain"]

    def test_class_with_settings_and_memory_inside_an_expression(self):
        text = "log_return + 0.5 * my_rewards.py:Streak(unit=2) - my_rewards:gain"
        reward = make_reward(text)
        memory = reward.initial((2,))
        assert set(memory) == {"Streak.days"}
        for t, transition in enumerate(path(np.full((3, 2), 0.01))):
            terms, memory = reward.terms(transition, memory)
            np.testing.assert_allclose(terms["Streak"], 0.5 * 2 * (t + 1))
            np.testing.assert_allclose(terms["gain"], -0.03)
        assert str(reward) == "log_return + 0.5 * my_rewards.py:Streak(unit=2) - my_rewards:gain"

    def test_path_with_blanks_and_signs_in_quotes(self, user_file):
        folder = user_file.parent / "my - own"
        folder.mkdir()
        (folder / "r.py").write_text(USER_FILE)
        reward = make_reward("2 * 'my - own/r.py:gain' - cost")
        assert reward.terms(one(), {})[0]["gain"] == pytest.approx(0.12)

    def test_path_beside_signs(self, user_file):
        absolute = f"0.5*{user_file}:gain"
        assert make_reward(absolute).terms(one(), {})[0]["gain"] == pytest.approx(0.03)
        assert make_reward("-my_rewards:gain").terms(one(), {})[0]["gain"] == pytest.approx(-0.06)

    def test_instance_by_name_and_objects_in_python(self):
        assert make_reward("my_rewards.py:ready")(one(), {"days": 0.0})[0] == 2.0
        double = functools.partial(lambda factor, transition: factor * transition.value, 2.0)
        for source in (lambda transition: transition.value, double):
            value = make_reward(source)(one(value=np.float64(1.5)), {})[0]
            assert value in (1.5, 3.0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("os:system", "os is part of Python"),
            ("subprocess:call", "subprocess is part of Python"),
            ("builtins:print", "builtins is part of Python"),
            ("my_rewards.py:borrowed", "is part of Python"),
            ("my_rewards.py:os", "must be an expression, a Reward or a function"),
            ("my_rewards.py:number", "must be an expression, a Reward or a function"),
            ("my_rewards.py:NoReward", "must subclass Reward"),
            ("my_rewards.py:two", "one argument, the transition"),
            ("my_rewards.py:absent", "has no 'absent'"),
            ("my_rewards.py:gain(3)", "only a class takes settings"),
            ("my_rewards.py:Streak(speed=3)", r"Streak` raised TypeError"),
            ("absent.py:gain", "there is no file absent.py"),
            ("absent_module:gain", "No module named 'absent_module'"),
            ("envs.rewards:Reward", "must subclass Reward and write"),
        ],
    )
    def test_what_cannot_be_a_reward_is_refused(self, text, message):
        with pytest.raises(SettingError, match=message) as caught:
            make_reward(f"log_return + {text}")
        assert "\n" not in str(caught.value)

    def test_what_is_no_spec_is_refused(self):
        specs: tuple[Any, ...] = (None, 3, os.system, os, Path)
        for spec in specs:
            with pytest.raises(SettingError, match="reward"):
                make_reward(spec)

    def test_users_code_can_be_forbidden(self, user_file):
        user_file.write_text("raise SystemExit")
        with pytest.raises(SettingError, match="not allowed here"):
            make_reward("log_return - my_rewards.py:gain", plugins=False)

    def test_file_that_fails_is_named(self, user_file):
        user_file.write_text("import absent_module")
        with pytest.raises(SettingError, match=r"my_rewards.py:gain` raised ModuleNotFoundError"):
            make_reward("my_rewards.py:gain")

    def test_file_is_read_anew(self, user_file):
        make_reward("my_rewards.py:gain")
        user_file.write_text("def gain(transition):\n    return transition.cost * 0 + 7\n")
        os.utime(user_file, (1, 1))
        assert make_reward("my_rewards.py:gain")(one(), {})[0] == 7.0

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda t: None, "numbers, got None"),
            (lambda t: "0.1", "numbers, got '0.1'"),
            (lambda t: t.portfolio_return * math.nan, r"finite .*got nan in row 0"),
            (lambda t: np.where([False, True], math.inf, 0.0), "got inf in row 1"),
            (lambda t: np.where([False, True], -1e38, 0.0), r"got -1e\+38 in row 1"),
            (lambda t: t.target, r"shape \(2,\), got shape \(2, 3\)"),
            (lambda t: 0.0, r"shape \(2,\), got shape \(\)"),
            (lambda t: t.portfolio_return * 1j, "numbers"),
            (lambda t: t.absent, "raised AttributeError"),
        ],
    )
    def test_bad_values_name_the_reward_and_the_row(self, function, message):
        function.__name__ = "mine"
        for reward in (
            make_reward(function),
            make_reward(make_reward("cost") - make_reward(function)),
        ):
            with pytest.raises(SettingError, match=rf"reward `mine` .*{message}") as caught:
                reward(next(path(draws(1, 2))), {})
            assert "\n" not in str(caught.value)

    def test_bad_subclasses_are_named(self):
        with pytest.raises(SettingError, match=r"`Lost`: __call__ must return \(reward, memory\)"):
            make_reward("my_rewards.py:Lost")(one(), {})
        with pytest.raises(SettingError, match=r"`BadMemory`: memory 'days' must be an array"):
            make_reward("my_rewards.py:BadMemory").initial((2,))
        with pytest.raises(SettingError, match="`broken` raised ZeroDivisionError"):
            make_reward("my_rewards.py:broken")(one(), {})

    def test_a_subclass_used_in_python_is_checked_too(self):
        class Endless(Reward):
            def __call__(self, transition, memory):
                return transition.portfolio_return + math.inf, memory

        for reward in (Endless(), make_reward("log_return") - 0.5 * Endless()):
            with pytest.raises(SettingError, match="`Endless` must be finite"):
                make_reward(reward)(one(), {})

    def test_bind_reaches_a_users_reward(self):
        class Bound(Reward):
            assets: tuple[str, ...] = ()

            def bind(self, market):
                bound = Bound()
                bound.assets = market.assets
                return bound

            def __call__(self, transition, memory):
                return transition.portfolio_return * 0 + len(self.assets), memory

        reward = make_reward(make_reward("cost") * 0 + Bound()).bind(market())
        assert isinstance(reward, WeightedSum)
        assert reward(one(), {})[0] == 3.0

    def test_gradient_passes_through_the_check(self):
        returns = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
        transition = next(path(draws(1, 2), xp=TORCH))._replace(portfolio_return=returns)
        make_reward(lambda t: t.portfolio_return**2)(transition, {})[0].sum().backward()
        assert returns.grad is not None
        np.testing.assert_allclose(returns.grad.numpy(), [0.2, 0.4])

    def test_integers_become_float64(self):
        checked = check_reward(np.array([1, 2]), "mine", np.zeros(2))
        assert checked.dtype == np.float64
