"""Tests of windows, change points and regimes: against scipy, ruptures, hand values and luck."""

import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from experiments.changes import LEAST, change_points, cut_gains, scaled
from experiments.drift import (
    feature_drift,
    ks_of_windows,
    ks_statistic,
    lower_mean_test,
    mean_test,
    volatility_test,
)
from experiments.regimes import RegimeModel, market_returns
from market.errors import DataError


def persistent(rng, days, columns, memory=0.9):
    noise = rng.normal(size=(days + 300, columns))
    return lfilter([1.0], [1.0, -memory], noise, axis=0)[300:]


def features(rng, days):
    """Three that remember for weeks and two that do not."""
    panel = np.concatenate([persistent(rng, days, 3), rng.normal(size=(days, 2))], axis=1)
    return pd.DataFrame(panel, columns=list("abcde"))


@pytest.mark.parametrize("ties", [False, True])
def test_the_statistic_is_scipys(rng, ties):
    first, second = rng.normal(size=80), rng.normal(0.3, 1.2, size=33)
    if ties:
        first, second = first.round(1), second.round(1)
    assert ks_statistic(first, second) == pytest.approx(
        ks_2samp(first, second).statistic, abs=1e-12
    )


def test_windows_are_compared_with_their_rest(rng):
    """On a series of few values the grid holds them all, so scipy's statistic is met exactly."""
    series = rng.integers(0, 30, 120).astype(float)
    found = ks_of_windows(series, 25)
    for shift in (0, 1, 60, 119):
        inside = (np.arange(95, 120) + shift) % 120
        rest = np.setdiff1d(np.arange(120), inside)
        assert found[shift] == pytest.approx(ks_2samp(series[inside], series[rest]).statistic)


def test_planted_drift_is_found_and_named(rng):
    panel = features(rng, 1200)
    panel.loc[1000:, "d"] += 2.0
    table = feature_drift(panel[:1000], panel[1000:])
    assert table["p_adjusted"].idxmin() == "d"
    assert table["p_adjusted"]["d"] <= 0.05 / 6
    assert table["p_adjusted"].drop("d").min() > 0.05
    assert table["statistic"]["d"] == ks_2samp(panel["d"][:1000], panel["d"][1000:]).statistic


def test_clean_features_raise_no_more_alarms_than_the_level_allows():
    """At 5 %, 20 clean markets give 1 alarm; 4 or more has a probability of 1.6 %.

    The textbook p-values, as if days were independent, cry wolf on the same markets.
    """
    alarms = naive = 0
    for seed in range(20):
        panel = features(np.random.default_rng(seed), 900)
        past, new = panel[:750], panel[750:]
        alarms += feature_drift(past, new)["p_adjusted"].min() <= 0.05
        naive += min(ks_2samp(past[name], new[name]).pvalue for name in panel) <= 0.05 / 5
    assert alarms <= 3
    assert naive >= 8


def test_constant_features_and_other_columns(rng):
    panel = features(rng, 200).assign(flat=1.0)
    assert feature_drift(panel[:150], panel[150:])["p_adjusted"]["flat"] == 1.0
    with pytest.raises(DataError, match="columns must be"):
        feature_drift(panel[:150], panel[150:].drop(columns="a"))
    with pytest.raises(DataError, match="8 days"):
        feature_drift(panel[:150], panel[150:155])


def test_volatility_and_means_of_windows(rng):
    past, calm = rng.normal(0, 0.01, 1000), rng.normal(0, 0.01, 250)
    same, doubled = volatility_test(past, calm), volatility_test(past, 2 * calm)
    assert same.value == pytest.approx(calm.std(ddof=1))
    assert same.low < 0.01 < same.high
    assert same.p_value > 0.05 > doubled.p_value
    assert doubled.value > doubled.high
    turnover = np.abs(past)
    usual = mean_test(turnover, np.abs(calm))
    assert usual.value == pytest.approx(np.abs(calm).mean())
    assert usual.expected == pytest.approx(turnover.mean(), rel=0.05)
    assert mean_test(turnover, np.abs(calm) + 0.01).p_value < 0.01
    assert lower_mean_test(past, calm + 0.05).p_value == 1.0
    assert lower_mean_test(past, calm - 0.05).p_value < 0.01


def test_what_never_happens_is_no_alarm():
    nothing = mean_test(np.zeros(300), np.zeros(60))
    assert (nothing.value, nothing.p_value) == (0.0, 1.0)


def test_gains_of_cuts_are_the_squared_error_they_explain(rng):
    series = rng.normal(size=90)
    whole = np.square(series - series.mean()).sum()
    for k in (LEAST, 47, 90 - LEAST):
        parts = (series[:k], series[k:])
        left = sum(np.square(part - part.mean()).sum() for part in parts)
        assert cut_gains(series)[k - LEAST] == pytest.approx(whole - left)


def test_a_change_point_is_found_where_it_is(rng):
    returns = rng.normal(0.0, 0.01, 500)
    returns[300:] -= 0.006
    found = change_points(returns, rng, 0.01)
    assert found.p_value <= 0.01
    assert abs(found.best - 300) <= 15
    assert len(found.rows) == 1
    assert abs(found.rows[0] - found.best) <= 1


def test_returns_without_a_change_stay_in_one_piece():
    found = [
        change_points(np.random.default_rng(s).standard_t(4, 400) / 100, np.random.default_rng(s))
        for s in range(12)
    ]
    assert sum(bool(each.rows) for each in found) <= 2
    assert sum(each.p_value <= 0.05 for each in found) <= 2


def test_scaling_looks_back_only(rng):
    returns = rng.normal(0, 0.01, 300)
    other = returns.copy()
    other[200:] = 0.5
    np.testing.assert_array_equal(scaled(returns)[:200], scaled(other)[:200])


def regime_days(rng, n=1500):
    """A calm and a wild regime that last about 50 days each; also which one it is."""
    state = np.cumsum(rng.random(n) < 0.02) % 2
    return rng.normal(0.05, np.where(state == 0, 0.5, 2.0)), state


def test_regimes_are_recovered_and_filtered_without_the_future(rng):
    series, state = regime_days(rng)
    model = RegimeModel.fit(series[:1000])
    assert model.names == ("calm", "turbulent")
    np.testing.assert_allclose(model.deviations, [0.5, 2.0], rtol=0.15)
    filtered, _ = model.filter(series)
    np.testing.assert_allclose(filtered.sum(axis=1), 1.0)
    assert ((filtered[:, 1] > 0.5) == (state == 1)).mean() > 0.85
    np.testing.assert_array_equal(model.filter(series[:700])[0], filtered[:700])


def test_the_filter_is_hmmlearns_at_the_last_day_and_in_its_likelihood(rng):
    """Smoothed and filtered probabilities agree on the last day, where there is no future."""
    series, _ = regime_days(rng, 400)
    model = RegimeModel.fit(series)
    theirs = GaussianHMM(2, "diag")
    theirs.startprob_, theirs.transmat_ = model.start, model.moves
    theirs.means_, theirs.covars_ = model.means[:, None], np.square(model.deviations)[:, None]
    filtered, density = model.filter(series)
    np.testing.assert_allclose(filtered[-1], theirs.predict_proba(series[:, None])[-1], atol=1e-8)
    assert density.sum() == pytest.approx(theirs.score(series[:, None]))


def test_too_little_to_fit_regimes_on():
    with pytest.raises(DataError, match="100 training days"):
        RegimeModel.fit(np.zeros(50))


def test_the_market_is_its_risky_assets(make_market):
    market = make_market(50, 3)
    mean = market.returns[:, :3].mean(axis=1)
    np.testing.assert_allclose(market_returns(market), 100 * np.log1p(mean))
