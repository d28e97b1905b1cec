"""Targets, losses and measures of forecasts, each against numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast_data import Problem
from agents.forecast_linear import ridge
from agents.forecast_losses import LOSSES, gaussian, huber, log_spread, mean_squared, one_minus_ic
from agents.forecast_quality import (
    Forecasts,
    hit_rate,
    information_coefficient,
    joined_forecasts,
    mean_error,
    out_of_sample_r2,
    prevailing_mean,
    quality,
)
from agents.forecast_targets import Translation, ranks, target_of
from market import DataError, Market
from market.features.scaling import Scaler

RETURNS = np.array([[0.0, 0.0], [0.10, -0.02], [-0.05, 0.04], [0.02, 0.01], [0.00, -0.03]])
OPEN = np.ones((5, 2), bool)
NAN = np.nan


# ---- targets


def test_returns_of_one_and_two_days_by_hand():
    np.testing.assert_array_equal(target_of(RETURNS, OPEN)[:4], RETURNS[1:])
    assert np.isnan(target_of(RETURNS, OPEN)[4]).all()
    two = target_of(RETURNS, OPEN, "return", 2)
    np.testing.assert_allclose(two[0], [1.1 * 0.95 - 1, 0.98 * 1.04 - 1], rtol=1e-12)
    assert np.isfinite(two[:3]).all() and np.isnan(two[3:]).all()


def test_volatility_direction_and_rank_by_hand():
    two = target_of(RETURNS, OPEN, "volatility", 2)
    assert two[0, 0] == pytest.approx(math.sqrt((0.01 + 0.0025) / 2))
    np.testing.assert_array_equal(
        target_of(RETURNS, OPEN, "direction")[:4], [[1, 0], [0, 1], [1, 1], [0, 0]]
    )
    np.testing.assert_array_equal(
        target_of(RETURNS, OPEN, "rank")[:4], [[1, -1], [-1, 1], [1, -1], [1, -1]]
    )


def test_what_cannot_be_held_has_no_target():
    shut = OPEN.copy()
    shut[1, 0] = False
    for kind in ("return", "volatility", "direction", "rank"):
        found = target_of(RETURNS, shut, kind, 1)
        assert np.isnan(found[1, 0]) and np.isfinite(found[0]).all()
    assert target_of(RETURNS, shut, "rank")[1, 1] == 0.0  # alone that day


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_ranks_are_those_of_scipy(values):
    numbers = np.array(values, float)
    count = len(numbers)
    places = scipy.stats.rankdata(numbers)
    expected = (2 * places - count - 1) / (count - 1) if count > 1 else np.zeros(1)
    np.testing.assert_allclose(ranks(numbers), expected, atol=1e-12)


def test_translation_of_direction_is_the_mean_gain_and_the_mean_loss():
    """E[r] = p (mean gain) + (1 - p) (mean loss)."""
    rng = np.random.default_rng(0)
    returns = 0.01 * rng.standard_normal((500, 2)) + 0.001
    up = (returns > 0).astype(float)
    made = Translation.fit(up, returns, returns, "direction", 1)
    for i in range(2):
        gain = returns[up[:, i] == 1, i].mean()
        loss = returns[up[:, i] == 0, i].mean()
        found = made.mean(np.full(2, 0.7))[i]
        assert found == pytest.approx(0.7 * gain + 0.3 * loss, rel=1e-9)


def test_translation_of_returns_and_volatility():
    rng = np.random.default_rng(1)
    daily = 0.01 * rng.standard_normal((600, 1)) + 0.0005
    five = target_of(daily, np.ones_like(daily, bool), "return", 5)
    made = Translation.fit(five, five, daily, "return", 5)
    np.testing.assert_allclose(made.mean(np.array([0.05])), [0.01])
    moves = target_of(daily, np.ones_like(daily, bool), "volatility")
    made = Translation.fit(moves, daily, daily, "volatility", 1)
    known = np.isfinite(moves)
    at_mean = made.volatility(moves[known].mean(keepdims=True))
    np.testing.assert_allclose(at_mean, np.sqrt((daily**2).mean()), rtol=1e-9)
    np.testing.assert_allclose(made.mean(np.array([0.03])), daily.mean(), rtol=1e-9)
    assert made.volatility(np.array([-1.0])) == pytest.approx(0.1 * made.usual)


# ---- who may see what


def market_of(returns, cash=0.0):
    frame = pd.DataFrame(100.0 * np.cumprod(1.0 + returns, axis=0)).rename(columns=str)
    frame.index = pd.bdate_range("2000-01-03", periods=len(frame))
    return Market.from_prices(frame, cash_rate=cash)


@pytest.mark.parametrize("horizon", [1, 5, 21])
def test_a_training_target_ends_within_training(horizon):
    market = market_of(0.01 * np.random.default_rng(2).standard_normal((200, 3)))
    train, valid = market[:120], market[100:180]
    given_ = Problem.of(train, valid, Scaler.fit(train), "return", horizon, 10)
    assert (int(given_.train_rows[0]), int(given_.train_rows[-1])) == (9, 119 - horizon)
    assert (int(given_.valid_rows[0]), int(given_.valid_rows[-1])) == (119, 179 - horizon)
    alone = Problem.of(train, None, Scaler.fit(train), "return", horizon, 10)
    cut = 120 - 119 // 5
    assert int(alone.train_rows[-1]) + horizon == cut - 1
    assert int(alone.valid_rows[0]) == cut - 1 and int(alone.valid_rows[-1]) + horizon == 119
    own = market.returns[1:120, 0]
    if horizon == 1:
        assert given_.translation.center[0] == pytest.approx(own.mean(), rel=1e-12)
        assert given_.translation.scale[0] == pytest.approx(own.std(), rel=1e-12)


def test_too_few_rows_and_other_assets_are_refused():
    market = market_of(0.01 * np.random.default_rng(2).standard_normal((60, 3)))
    train = market[:40]
    with pytest.raises(DataError, match=r"lookback 10 and horizon 30 need more than 40 rows"):
        Problem.of(train, market[40:], Scaler.fit(train), "return", 30, 10)
    other = market_of(0.01 * np.random.default_rng(2).standard_normal((60, 2)))
    with pytest.raises(DataError, match="assets"):
        Problem.of(train, other[40:], Scaler.fit(train), "return", 1, 10)
    with pytest.raises(DataError, match="no validation row is later than"):
        Problem.of(train, market[:30], Scaler.fit(train), "return", 1, 10)


# ---- losses

OUTPUTS = torch.tensor([[[0.5], [-1.0]], [[2.0], [0.0]]])
TARGETS = torch.tensor([[1.0, 1.0], [0.0, 9.0]])
KNOWN = torch.tensor([[True, True], [True, False]])


def test_losses_by_hand():
    assert mean_squared(OUTPUTS, TARGETS, KNOWN).item() == pytest.approx((0.25 + 4 + 4) / 3)
    assert huber(OUTPUTS, TARGETS, KNOWN).item() == pytest.approx((0.125 + 1.5 + 1.5) / 3)
    two = torch.cat([OUTPUTS, torch.tensor([[[0.3], [-0.2]], [[0.0], [1.0]]])], -1)
    spread = log_spread(two).exp()
    density = torch.distributions.Normal(two[..., 0], spread).log_prob(TARGETS)
    expected = -(density[KNOWN] + 0.5 * math.log(2 * math.pi)).mean()
    assert gaussian(two, TARGETS, KNOWN).item() == pytest.approx(expected.item(), rel=1e-5)
    assert log_spread(torch.zeros(1, 1, 2)).item() == pytest.approx(0.0, abs=1e-6)


def test_the_ic_loss_is_one_minus_the_mean_daily_correlation():
    rng = np.random.default_rng(3)
    made, came = rng.standard_normal((2, 6, 5))
    known = rng.uniform(size=(6, 5)) < 0.8
    known[:, :3] = True
    daily = [np.corrcoef(made[t][known[t]], came[t][known[t]])[0, 1] for t in range(6)]
    args = (torch.tensor(made)[..., None], torch.tensor(came), torch.tensor(known))
    assert one_minus_ic(*args).item() == pytest.approx(1 - np.mean(daily), abs=1e-6)
    pair = tuple(part[:, :2] for part in args)  # two assets: over all of the batch
    everything = np.corrcoef(made[:, :2].ravel(), came[:, :2].ravel())[0, 1]
    assert one_minus_ic(*pair).item() == pytest.approx(1 - everything, abs=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_have_finite_slopes_and_ignore_what_is_not_known(name):
    outputs = torch.randn(7, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    outputs.requires_grad_(True)
    targets = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)).double()
    known = torch.ones(7, 4, dtype=torch.bool)
    known[2] = False
    known[5, 1] = False
    other = torch.where(known, targets, 50.0)
    loss = LOSSES[name](outputs, targets, known)
    assert loss.item() == pytest.approx(LOSSES[name](outputs, other, known).item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, targets, known), outputs)


# ---- measures


def test_out_of_sample_r2_by_hand():
    came, made, usual = np.array([[1.0, -1.0]]), np.array([[0.5, 0.0]]), np.zeros((1, 2))
    assert out_of_sample_r2(came, made, usual) == pytest.approx(1 - 1.25 / 2)
    assert out_of_sample_r2(came, usual, usual) == 0.0
    assert out_of_sample_r2(came, came, usual) == 1.0
    assert math.isnan(out_of_sample_r2(usual, made, usual))
    gap = np.array([[1.0, NAN]])
    assert out_of_sample_r2(gap, made, usual) == pytest.approx(0.75)


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_historical_mean_knows_what_was_known(horizon):
    """At row t: targets of rows up to t - k, from the 20th on; a brute-force loop says so too."""
    targets = np.random.default_rng(4).standard_normal((60, 2))
    targets[10, 0] = NAN
    found = prevailing_mean(targets, horizon)
    for t in range(60):
        for i in range(2):
            past = targets[: max(t - horizon + 1, 0), i]
            past = past[np.isfinite(past)]
            expected = past.mean() if len(past) >= 20 else NAN
            np.testing.assert_allclose(found[t, i], expected, rtol=1e-12)


def test_information_coefficient_is_the_mean_of_spearmans():
    rng = np.random.default_rng(5)
    came = rng.standard_normal((50, 6))
    made = came + 2.0 * rng.standard_normal((50, 6))
    made[:, 0] = np.round(made[:, 0])
    came[3, 2] = NAN
    daily = []
    for t in range(50):
        known = np.isfinite(came[t])
        daily.append(scipy.stats.spearmanr(came[t, known], made[t, known])[0])
    value, error = information_coefficient(came, made)
    assert value == pytest.approx(np.mean(daily), abs=1e-12)
    assert error == pytest.approx(np.std(daily, ddof=1) / math.sqrt(50), rel=1e-12)


def test_the_error_of_a_mean_after_newey_and_west_by_hand():
    series = np.array([1.0, 2.0, 4.0, 3.0])
    away = series - 2.5
    variance = (away**2).sum() / 3 + 2 * 0.5 * (away[1:] * away[:-1]).sum() / 3
    assert mean_error(series, 1) == pytest.approx(math.sqrt(variance / 4), rel=1e-12)
    assert mean_error(series, 0) == pytest.approx(series.std(ddof=1) / 2, rel=1e-12)


def test_the_error_of_overlapping_forecasts_is_the_spread_it_claims():
    """Of 5-day targets over 400 days and 5 assets, 300 times: claimed 0.8 to 1.1 of what it is."""
    rng = np.random.default_rng(6)
    found = []
    for _ in range(300):
        daily = rng.standard_normal((405, 5))
        came = np.sum([daily[k : k + 400] for k in range(5)], axis=0)
        signal = rng.standard_normal((405, 5))
        made = np.sum([signal[k : k + 400] for k in range(5)], axis=0)
        found.append(information_coefficient(came, made, 5))
    values, errors = np.array(found).T
    assert 0.8 < errors.mean() / values.std() < 1.1
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(300)


def test_one_asset_is_correlated_over_time():
    rng = np.random.default_rng(7)
    came = rng.standard_normal((80, 1))
    made = came + rng.standard_normal((80, 1))
    value, error = information_coefficient(came, made, 2)
    expected = scipy.stats.spearmanr(came[:, 0], made[:, 0])[0]
    assert value == pytest.approx(expected, abs=1e-12)
    assert error == pytest.approx(math.sqrt((1 - expected**2) / 38), rel=1e-12)


def test_hits_by_hand():
    came = np.array([[0.1, -0.2, 0.0, 0.3, NAN]])
    made = np.array([[0.2, 0.1, 0.5, 0.1, 1.0]])
    assert hit_rate(came, made, 0.0) == pytest.approx(2 / 3)  # no move and no number do not count
    assert hit_rate(np.array([[1.0, 0.0]]), np.array([[0.4, 0.3]]), 0.5) == 0.5
    assert math.isnan(hit_rate(np.zeros((1, 1)), made[:, :1], 0.0))


def test_quality_has_all_measures_and_parts_join():
    rng = np.random.default_rng(8)
    came, made = rng.standard_normal((2, 40, 3))
    usual = np.full((40, 3), 0.1)
    whole = Forecasts(came, made, usual, "return", 1, ("a", "b", "c"))
    parts = [Forecasts(came[s], made[s], usual[s], *whole[3:]) for s in (slice(25), slice(25, 40))]
    values = quality(joined_forecasts(parts))
    assert values == quality(whole)
    assert values["forecast_r2/b"] == out_of_sample_r2(came[:, 1], made[:, 1], usual[:, 1])
    assert list(values)[:4] == [
        "forecast_r2",
        "forecast_ic",
        "forecast_ic_error",
        "forecast_hit_rate",
    ]
    assert quality(whole._replace(came=np.full((40, 3), NAN))) == {}


# ---- the closed form


@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
def test_ridge_is_that_of_scikit_learn(penalty):
    from sklearn.linear_model import Ridge  # type: ignore[import-untyped]

    rng = np.random.default_rng(9)
    x = rng.standard_normal((200, 6)) + 0.5
    z = x @ rng.standard_normal(6) + rng.standard_normal(200)
    expected = Ridge(alpha=penalty * 200).fit(x, z)
    slopes, constant = ridge(x, z, penalty)
    np.testing.assert_allclose(slopes, expected.coef_, rtol=1e-9)
    assert constant == pytest.approx(expected.intercept_, rel=1e-9)


def test_no_penalty_is_least_squares_and_the_shortest_of_many():
    rng = np.random.default_rng(10)
    x = rng.standard_normal((100, 3))
    z = x @ np.array([1.0, -2.0, 0.5]) + 3.0
    slopes, constant = ridge(x, z, 0.0)
    np.testing.assert_allclose(slopes, [1.0, -2.0, 0.5], atol=1e-10)
    assert constant == pytest.approx(3.0)
    twice = np.column_stack([x, x[:, 0]])
    np.testing.assert_allclose(ridge(twice, z, 0.0)[0], [0.5, -2.0, 0.5, 0.5], atol=1e-9)
