"""Measures against hand-computed numbers, skfolio and scipy, and their properties."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import skfolio.measures as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from market import measures as m

HAND = np.array([0.10, -0.05, 0.02, -0.08, 0.03])
SERIES: list[Any] = [
    m.total_return,
    m.annualised_return,
    m.annualised_volatility,
    m.sharpe_ratio,
    m.sortino_ratio,
    m.calmar_ratio,
    m.omega_ratio,
    m.max_drawdown,
    m.max_drawdown_duration,
    m.value_at_risk,
    m.conditional_value_at_risk,
    m.skewness,
    m.kurtosis,
    m.hit_rate,
]
AGAINST: list[Any] = [m.tracking_error, m.information_ratio, m.alpha, m.beta]


@pytest.fixture(scope="module")
def daily():
    """Fat-tailed returns of three assets over 1,000 days."""
    return 0.0004 + 0.01 * np.random.default_rng(7).standard_t(4, size=(1000, 3))


# ---- hand-computed numbers


def test_hand_computed():
    value = 1.10 * 0.95 * 1.02 * 0.92 * 1.03
    squares = 0.096**2 + 0.054**2 + 0.016**2 + 0.084**2 + 0.026**2
    sharpe = 0.004 / math.sqrt(squares / 4)
    trough = 1.0 - 0.95 * 1.02 * 0.92
    expected = {
        "total_return": value - 1.0,
        "annualised_return": value ** (12 / 5) - 1.0,
        "annualised_volatility": math.sqrt(12 * squares / 4),
        "sharpe_ratio": math.sqrt(12) * sharpe,
        "sortino_ratio": math.sqrt(12) * 0.004 / math.sqrt((0.05**2 + 0.08**2) / 5),
        "calmar_ratio": (value ** (12 / 5) - 1.0) / trough,
        "omega_ratio": 0.15 / 0.13,
        "max_drawdown": trough,
        "max_drawdown_duration": 4,
        "value_at_risk": 0.05,
        "conditional_value_at_risk": 0.065,
        "hit_rate": 0.6,
    }
    got = m.summary(HAND, tail=0.4, periods_per_year=12)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_drawdown_counts_the_start_and_is_compounded():
    np.testing.assert_allclose(m.drawdowns([-0.5, 0.5, 1.0]), [0.5, 0.25, 0.0], atol=1e-15)
    assert m.max_drawdown([-0.2]) == pytest.approx(0.2)
    assert math.copysign(1.0, float(m.max_drawdown([0.1, 0.2]))) == 1.0  # 0 and not -0
    assert m.max_drawdown([-0.5, 0.5, -0.5]) == pytest.approx(1 - 0.375)
    assert m.max_drawdown([0.1, 0.2]) == 0.0


def test_duration_is_the_longest_spell_below_a_peak():
    assert m.max_drawdown_duration([0.1, 0.1]) == 0
    assert m.max_drawdown_duration([-0.1, 1 / 9, -0.1, 0.01, 0.01]) == 3
    assert m.max_drawdown_duration([-0.1, -0.1, 1.0, -0.1]) == 2
    # back at the peak up to rounding is back at the peak
    assert m.max_drawdown_duration([0.1, -0.3, 1 / 0.7 - 1, -0.3, 1 / 0.7 - 1]) == 1


def test_total_loss():
    assert m.annualised_return([0.1, -1.0, 0.5]) == -1.0
    np.testing.assert_array_equal(m.drawdowns([0.1, -1.0, 0.5])[1:], [1.0, 1.0])


@pytest.mark.parametrize(
    ("tail", "periods", "rank"),
    [(0.05, 100, 5), (0.07, 100, 7), (0.29, 100, 29), (0.05, 101, 6), (0.05, 99, 5), (0.01, 5, 1)],
)
def test_value_at_risk_rank(tail, periods, rank):
    """The ceil(tail T)-th smallest, though e.g. 0.07 * 100 > 7 in floating point."""
    losses = np.arange(1, periods + 1)
    returns = np.random.default_rng(0).permutation(-losses / 1000.0)
    assert m.value_at_risk(returns, tail) == (periods + 1 - rank) / 1000.0


def test_conditional_value_at_risk_takes_part_of_the_last_loss():
    returns = [-0.04, -0.02, 0.01, 0.03]
    assert m.conditional_value_at_risk(returns, 0.375) == pytest.approx((0.04 + 0.5 * 0.02) / 1.5)
    assert m.conditional_value_at_risk(returns, 0.1) == pytest.approx(0.04)
    assert m.conditional_value_at_risk(returns, 0.5) == pytest.approx(0.03)


def test_conditional_value_at_risk_is_the_minimum_of_rockafellar_and_uryasev(daily):
    returns, tail = daily[:137, 0], 0.043
    candidates = -returns
    objective = candidates + np.maximum(-returns - candidates[:, None], 0).mean(1) / tail
    assert m.conditional_value_at_risk(returns, tail) == pytest.approx(objective.min(), rel=1e-12)


def test_omega_hit_rate_and_threshold():
    assert m.omega_ratio(HAND, threshold=0.02) == pytest.approx((0.08 + 0.01) / (0.07 + 0.10))
    assert m.hit_rate(HAND, 0.02) == 0.4  # an equal return is no hit


def test_against_a_benchmark_by_hand():
    returns, benchmark = [0.02, -0.01, 0.03, 0.0], [0.01, -0.02, 0.02, 0.01]
    # active 0.01, 0.01, 0.01, -0.01: mean 0.005, sum of squares about it 3 * 0.005^2 + 0.015^2
    year = {"periods_per_year": 4}
    assert m.tracking_error(returns, benchmark, **year) == pytest.approx(2 * 0.01)
    assert m.information_ratio(returns, benchmark, **year) == pytest.approx(2 * 0.5)
    # products about the means 0.5, 5, 3, -0.5 and squares 0.25, 6.25, 2.25, 0.25, in 1e-4
    assert m.beta(returns, benchmark) == pytest.approx(8 / 9)
    assert m.alpha(returns, benchmark, **year) == pytest.approx(4 * (0.01 - 8 / 9 * 0.005))
    assert m.alpha(returns, benchmark, 0.002, **year) == pytest.approx(4 * (0.008 - 8 / 9 * 0.003))


def test_shape_by_hand():
    returns = [0.0, 0.0, 0.0, 0.04]  # -1, -1, -1 and 3 hundredths about the mean
    assert m.skewness(returns) == pytest.approx((-3 + 27) / 4 / 3**1.5)
    assert m.kurtosis(returns) == pytest.approx((3 + 81) / 4 / 3**2)


def test_turnover_concentration():
    held = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    target = np.array([[0.2, 0.2, 0.6], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(m.turnover(target, held), [0.4, 0.0])
    np.testing.assert_allclose(m.turnover(target, held, has_cash=True), [0.2, 0.0])
    paid = m.turnover(target, held, cost=[0.01, 0.0], has_cash=True)
    np.testing.assert_allclose(paid, [0.5 * (0.5 - 0.198 + 0.3 - 0.198), 0.0])
    np.testing.assert_allclose(m.concentration(held), [0.38, 0.44])
    assert m.effective_number(np.full(8, 0.125)) == pytest.approx(8.0)


# ---- other libraries, where they define the same thing


def test_equals_skfolio(daily):
    n = len(daily)
    mean, deviation = sk.mean(daily), sk.standard_deviation(daily)
    np.testing.assert_allclose(m.sharpe_ratio(daily, periods_per_year=1), mean / deviation)
    downside = sk.semi_deviation(daily, min_acceptable_return=0.0, biased=True)
    np.testing.assert_allclose(m.sortino_ratio(daily, periods_per_year=1), mean / downside)
    drawdowns = sk.get_drawdowns(daily, compounded=True)
    np.testing.assert_allclose(m.max_drawdown(daily), sk.max_drawdown(drawdowns))
    np.testing.assert_allclose(m.skewness(daily), sk.skew(daily))
    np.testing.assert_allclose(m.kurtosis(daily), sk.kurtosis(daily))
    for tail in (0.05, 0.0333, 1e-4, 0.5):
        cvar = sk.cvar(daily, beta=1 - tail)
        np.testing.assert_allclose(m.conditional_value_at_risk(daily, tail), cvar, rtol=1e-9)
        if not (tail * n).is_integer():
            var = sk.value_at_risk(daily, beta=1 - tail)
            np.testing.assert_allclose(m.value_at_risk(daily, tail), var)
    # where tail * T is whole skfolio takes the next smaller loss; we take the tail T-th
    assert m.value_at_risk(daily[:, 0], 0.05) > sk.value_at_risk(daily[:, 0], beta=0.95)
    weights = np.array([0.5, 0.3, 0.2])
    assert m.effective_number(weights) == pytest.approx(sk.effective_number_assets(weights))


def test_equals_scipy_and_pandas(daily):
    np.testing.assert_allclose(m.skewness(daily), scipy.stats.skew(daily))
    np.testing.assert_allclose(m.kurtosis(daily), scipy.stats.kurtosis(daily, fisher=False))
    frame = pd.DataFrame(daily)
    np.testing.assert_allclose(m.annualised_volatility(frame), frame.std() * math.sqrt(252))
    wealth = pd.concat([pd.DataFrame(np.ones((1, 3))), (1 + frame).cumprod()])
    np.testing.assert_allclose(m.drawdowns(frame), (1 - wealth / wealth.cummax())[1:], atol=1e-14)


def test_value_at_risk_is_numpys_inverted_cdf_quantile(daily):
    for tail in (0.05, 0.013, 0.3337):
        quantile = np.quantile(daily, tail, axis=0, method="inverted_cdf")
        np.testing.assert_array_equal(m.value_at_risk(daily, tail), -quantile)


def test_alpha_and_beta_equal_least_squares(daily):
    returns, benchmark = daily[:, 0] + 0.7 * daily[:, 1], daily[:, 1]
    risk_free = np.linspace(0.0, 0.0002, len(daily))
    fit = scipy.stats.linregress(benchmark - risk_free, returns - risk_free)
    assert m.beta(returns, benchmark, risk_free) == pytest.approx(fit.slope, rel=1e-12)
    assert m.alpha(returns, benchmark, risk_free) == pytest.approx(252 * fit.intercept, rel=1e-9)
    active = returns - benchmark
    assert m.tracking_error(returns, benchmark) == pytest.approx(active.std(ddof=1) * 252**0.5)
    ratio = active.mean() / active.std(ddof=1) * 252**0.5
    assert m.information_ratio(returns, benchmark) == pytest.approx(ratio)


def test_sharpe_of_excess_returns(daily):
    rate = np.linspace(0.0, 0.001, len(daily))
    by_hand = m.sharpe_ratio(daily - rate[:, None])
    np.testing.assert_allclose(m.sharpe_ratio(daily, rate), by_hand)
    np.testing.assert_allclose(m.sortino_ratio(daily, rate), m.sortino_ratio(daily - rate[:, None]))
    level = 0.0002
    volatility = m.annualised_volatility(daily) / 252**0.5
    expected = (daily.mean(0) - level) / volatility * 252**0.5
    np.testing.assert_allclose(m.sharpe_ratio(daily, level), expected)


# ---- what is not defined


@pytest.mark.parametrize("level", [0.0, 0.001, -0.001, 0.1, 1e-5])
def test_constant_returns_have_no_sharpe(level):
    """Also with the rounding of prices that grew at a constant rate (naively 5e15)."""
    prices = 100.0 * (1.0 + level) ** np.arange(300)
    noise = level + 1e-17 * np.random.default_rng(0).normal(size=300)
    for returns in (np.full(300, level), prices[1:] / prices[:-1] - 1.0, noise):
        for measure in (m.sharpe_ratio, m.skewness, m.kurtosis):
            assert math.isnan(measure(returns)), measure.__name__
        assert m.undefined_reason("sharpe_ratio", returns) == "the returns do not vary"
    assert math.isnan(m.sharpe_ratio(np.full(9, level, np.float32) + np.float32(1e-9)))


def test_small_but_real_variation_has_a_sharpe():
    returns = 1e-6 + 1e-9 * np.random.default_rng(0).normal(size=500)
    expected = returns.mean() / returns.std(ddof=1) * 252**0.5
    assert m.sharpe_ratio(returns) == pytest.approx(expected, rel=1e-9)


def test_only_the_constant_column_is_undefined(daily):
    mixed = np.column_stack([daily[:, 0], np.full(len(daily), 0.001)])
    got = m.sharpe_ratio(mixed)
    assert got[0] == pytest.approx(m.sharpe_ratio(daily[:, 0]), rel=1e-12)
    assert math.isnan(got[1])


def test_undefined_is_nan_with_a_reason():
    rise, one = np.array([0.01, 0.02, 0.03]), [0.01]
    cases = [
        ("sharpe_ratio", one, "needs at least 2 periods, got 1"),
        ("annualised_volatility", one, "needs at least 2 periods, got 1"),
        ("skewness", one, "needs at least 2 periods, got 1"),
        ("calmar_ratio", rise, "the value never fell"),
        ("sortino_ratio", rise, "no period lost"),
        ("omega_ratio", rise, "no period lost"),
        ("sharpe_ratio", rise, None),
        ("max_drawdown", rise, None),
    ]
    for name, returns, reason in cases:
        assert m.undefined_reason(name, returns) == reason, name
        assert math.isnan(getattr(m, name)(returns)) == (reason is not None), name
    assert math.isnan(m.beta(rise, np.zeros(3)))
    for measure in (m.alpha, m.beta):
        name = measure.__name__
        assert m.undefined_reason(name, rise, np.zeros(3)) == "the benchmark does not vary"
        assert m.undefined_reason(name, rise, 0.5 * rise) is None
        assert math.isnan(measure(rise, np.zeros(3))) and math.isfinite(measure(rise, 0.5 * rise))
    assert m.undefined_reason("information_ratio", rise, rise) == "the returns do not vary"
    assert math.isnan(m.information_ratio(rise, rise))


# ---- shapes, libraries, options


@pytest.mark.parametrize("measure", SERIES, ids=lambda f: f.__name__)
def test_columns_are_independent_and_numpy_equals_torch(measure, daily):
    cube = daily[:, :, None] * np.array([1.0, -0.5])
    whole = measure(cube)
    assert whole.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            np.testing.assert_allclose(whole[i, j], measure(cube[:, i, j]), rtol=1e-10)
    tensor = measure(torch.from_numpy(cube))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), whole, rtol=1e-10)


@pytest.mark.parametrize("measure", AGAINST, ids=lambda f: f.__name__)
def test_against_a_benchmark_in_batches_and_torch(measure, daily):
    benchmark = daily.mean(axis=1)
    whole = measure(daily, benchmark)
    single = [measure(daily[:, i], benchmark) for i in range(3)]
    np.testing.assert_allclose(whole, single, rtol=1e-9)
    tensor = measure(torch.from_numpy(daily), torch.from_numpy(benchmark))
    np.testing.assert_allclose(tensor.numpy(), whole, rtol=1e-9)


def test_one_rate_per_period_even_when_there_are_as_many_series():
    square = 0.01 * np.random.default_rng(0).normal(size=(5, 5))
    rate = np.arange(5) / 1000
    expected = [m.sharpe_ratio(square[:, i] - rate) for i in range(5)]
    np.testing.assert_allclose(m.sharpe_ratio(square, rate), expected)


@pytest.mark.parametrize("measure", [m.sharpe_ratio, m.sortino_ratio, m.conditional_value_at_risk])
def test_gradient_equals_finite_differences(measure, daily):
    point = torch.tensor(daily[:30, :1], requires_grad=True)
    assert torch.autograd.gradcheck(measure, (point,), eps=1e-8, atol=1e-4, rtol=1e-4)


def test_lists_integers_and_pandas_are_read():
    assert m.max_drawdown([0, -1, 0]) == 1.0
    series = pd.Series(HAND, index=pd.bdate_range("2020-01-01", periods=5))
    assert m.sharpe_ratio(series, pd.Series(np.zeros(5))) == m.sharpe_ratio(HAND)


def test_summary_is_floats_and_agrees_with_the_functions(daily):
    got = m.summary(daily[:, 0], benchmark=daily[:, 1], risk_free=0.0001)
    assert all(type(value) is float for value in got.values())
    assert got["sharpe_ratio"] == m.sharpe_ratio(daily[:, 0], 0.0001)
    assert got["alpha"] == m.alpha(daily[:, 0], daily[:, 1], 0.0001)
    assert set(got) == {f.__name__ for f in SERIES + AGAINST}
    assert "beta" not in m.summary(daily[:, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.value_at_risk(HAND, 1.5), r"`tail` must be in \(0, 1\), got 1.5"),
        (lambda: m.conditional_value_at_risk(HAND, 0.0), r"`tail` must be in \(0, 1\), got 0.0"),
        (lambda: m.sharpe_ratio([]), r"`returns` must hold at least one period, got shape \(0,\)"),
        (lambda: m.sharpe_ratio([0.1, math.nan]), "`returns` must be finite, got .* in period 1"),
        (lambda: m.max_drawdown([0.1, -1.5]), "`returns` must be >= -1 to compound, got -1.5"),
        (lambda: m.sharpe_ratio(HAND, [0.1, 0.2]), r"`risk_free` must be a number.*got shape \(2"),
        (lambda: m.beta(HAND, [math.inf] * 5), "`benchmark` must be finite"),
        (lambda: m.annualised_return(HAND, periods_per_year=0), "`periods_per_year` must be"),
        (lambda: m.summary(HAND[:, None]), r"`returns` must have shape \(T,\), got \(5, 1\)"),
        (lambda: m.turnover([[0.5, 0.5]], [[1.0]]), "`held` must have the shape of `target`"),
    ],
)
def test_errors_name_argument_rule_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1.0, 2.0)), st.floats(0.01, 0.99))
def test_properties(returns, tail):
    """Bounds that hold for any returns; nothing warns (warnings are errors here)."""
    got = m.summary(returns, tail=tail)
    assert 0.0 <= got["max_drawdown"] <= 1.0
    assert 0 <= got["max_drawdown_duration"] <= len(returns)
    assert got["value_at_risk"] <= got["conditional_value_at_risk"] + 1e-12
    assert got["conditional_value_at_risk"] <= -returns.min() + 1e-12
    assert got["conditional_value_at_risk"] >= -returns.mean() - 1e-12
    assert got["total_return"] == pytest.approx(np.prod(1 + returns) - 1, rel=1e-9, abs=1e-9)
    scaled = m.sharpe_ratio(returns * 0.5)
    if abs(got["sharpe_ratio"]) < 1e6:
        assert scaled == pytest.approx(got["sharpe_ratio"], rel=1e-6)


def test_reading_it_imports_no_heavy_package():
    # the package's own __init__ reads pandas; what counts here is this module
    code = (
        "import sys, types; package = sys.modules['market'] = types.ModuleType('market');"
        "package.__path__ = ['market']; import market.measures;"
        "print([k for k in ('torch', 'scipy', 'pandas', 'skfolio') if k in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
