"""Tests of windows, change points and regimes: against scipy, ruptures, hand values and luck."""

import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy.signal import lfilter
from scipy.stats import ks_2samp, permutation_test

from experiments.changes import LEAST, change_points, cut_gains, scaled
from experiments.drift import (
    DEALS,
    Blocks,
    feature_drift,
    ks_statistic,
    lower_mean_test,
    mean_test,
    memory,
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


def test_blocks_are_whole_and_the_first_deal_is_what_happened(rng):
    blocks = Blocks.cut(103, 45, 20.0)
    assert blocks.n_new == 2
    np.testing.assert_array_equal(blocks.starts, [0, 20, 41, 61, 82, 103, 125])
    np.testing.assert_array_equal(blocks.sizes, [20, 21, 20, 21, 21, 22, 23])
    deals = blocks.deals(rng)
    np.testing.assert_array_equal(deals[0], [5, 6, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(np.sort(deals, axis=1), np.tile(np.arange(7), (len(deals), 1)))
    assert np.bincount(deals[1:, 0]) / DEALS == pytest.approx(np.full(7, 1 / 7), abs=0.03)
    series = rng.normal(size=148)
    assert blocks.sums(series)[5] == pytest.approx(series[103:125].sum())


def test_the_mean_is_tested_as_scipy_permutes_block_means(rng):
    """Blocks of ten days that remember nothing: scipy exchanges their means."""
    series = rng.normal(size=720)
    series[600:] += 0.1
    assert memory(series[:600]) == 10
    found = mean_test(series[:600], series[600:], rng)
    means = series.reshape(72, 10).mean(axis=1)
    expected = permutation_test(
        (means[60:], means[:60]),
        lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)),
        vectorized=True,
        n_resamples=9999,
        alternative="greater",
        rng=rng,
    ).pvalue
    assert found.p_value == pytest.approx(expected, abs=0.04)
    assert 0.02 < expected < 0.9
    assert found.expected == pytest.approx(series[:600].mean())


def test_planted_drift_is_found_and_named(rng):
    panel = features(rng, 1200)
    panel.loc[1000:, "d"] += 2.0
    table = feature_drift(panel[:1000], panel[1000:], rng)
    assert table["p_adjusted"].idxmin() == "d"
    assert table["p_adjusted"]["d"] <= 0.05 / 6
    assert table["p_adjusted"].drop("d").min() > 0.05
    assert table["statistic"]["d"] == ks_2samp(panel["d"][:1000], panel["d"][1000:]).statistic
    assert table["recent"]["d"] == ks_2samp(panel["d"][:1000], panel["d"][1150:]).statistic


@pytest.mark.parametrize("since", [650, 840, 1060])
def test_a_change_is_found_wherever_in_the_new_days_it_began(rng, since):
    """New days nearly as many as the past, wilder from some day on: an alarm in every case."""
    series = rng.normal(size=1250)
    series[since:] *= 3.0
    past, new = (pd.DataFrame({"x": part}) for part in np.split(series, [650]))
    table = feature_drift(past, new, rng)
    assert table["p_adjusted"]["x"] <= 0.05 / 6
    found = volatility_test(series[:650], series[650:], rng)
    assert found.p_value <= 0.05 / 6
    assert found.value > found.high
    assert mean_test(np.abs(series[:650]), np.abs(series[650:]), rng).p_value <= 0.05 / 6


def test_a_feature_that_stops_moving_has_drifted(rng):
    panel = pd.DataFrame(rng.normal(size=(900, 3)), columns=list("abc"))
    panel.loc[600:, "b"] = 0.0
    table = feature_drift(panel[:600], panel[600:], rng)
    assert list(table.index[table["p_adjusted"] <= 0.05 / 6]) == ["b"]


def test_what_remembers_for_years_says_nothing_in_weeks(rng):
    """A wandering level is elsewhere in its last weeks, as it always is: no alarm."""
    level = pd.DataFrame({"yield": np.cumsum(rng.normal(size=1060)) + 50.0})
    assert memory(level["yield"].to_numpy()[:1000]) > 60
    table = feature_drift(level[:1000], level[1000:], rng)
    assert table["p_adjusted"]["yield"] > 0.05


def test_clean_features_raise_no_more_alarms_than_the_level_allows():
    """At 5 %, 20 clean markets give 1 alarm; 4 or more has a probability of 1.6 %.

    The textbook p-values, as if days were independent, cry wolf on the same markets.
    """
    alarms = naive = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        panel = features(rng, 900)
        past, new = panel[:750], panel[750:]
        alarms += feature_drift(past, new, rng)["p_adjusted"].min() <= 0.05
        naive += min(ks_2samp(past[name], new[name]).pvalue for name in panel) <= 0.05 / 5
    assert alarms <= 3
    assert naive >= 8


def test_constant_features_and_other_columns(rng):
    panel = features(rng, 200).assign(flat=1.0)
    assert feature_drift(panel[:150], panel[150:], rng)["p_adjusted"]["flat"] == 1.0
    with pytest.raises(DataError, match="columns must be"):
        feature_drift(panel[:150], panel[150:].drop(columns="a"), rng)
    with pytest.raises(DataError, match="8 days"):
        feature_drift(panel[:150], panel[150:155], rng)


def test_volatility_and_means_of_windows(rng):
    past, calm = rng.normal(0, 0.01, 1000), rng.normal(0, 0.01, 250)
    same, doubled = volatility_test(past, calm, rng), volatility_test(past, 2 * calm, rng)
    assert same.value == pytest.approx(calm.std(ddof=1))
    assert same.expected == pytest.approx(past.std(ddof=1))
    assert same.low < 0.01 < same.high
    error = 0.01 / np.sqrt(2 * 250)  # of a standard deviation of 250 normal days
    assert (same.high - same.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.25)
    assert same.p_value > 0.05 > doubled.p_value
    assert doubled.value > doubled.high
    turnover = 1e-7 * np.abs(past)  # however small the numbers are
    usual = mean_test(turnover, 1e-7 * np.abs(calm), rng)
    assert usual.value == pytest.approx(1e-7 * np.abs(calm).mean())
    assert usual.expected == pytest.approx(turnover.mean())
    assert 0.05 < usual.p_value < 0.999
    assert mean_test(turnover, 1e-7 * np.abs(calm) + 1e-9, rng).p_value < 0.01
    assert lower_mean_test(past, calm + 0.05, rng).p_value == 1.0
    assert lower_mean_test(past, calm - 0.05, rng).p_value < 0.01


def test_what_never_happens_is_no_alarm(rng):
    nothing = mean_test(np.zeros(300), np.zeros(60), rng)
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
