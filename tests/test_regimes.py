"""Regimes: the filter against hmmlearn on prefixes and by hand, and that the future is no part."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM

from agents.regimes import HiddenMarkov, VolatilityState, regime_series, regimes_from
from market import DataError, Market, SettingError


def two_regimes(n_days=1500, seed=0):
    """Calm and turbulent days from a sticky chain; the states, and the returns."""
    rng = np.random.default_rng(seed)
    states = np.zeros(n_days, int)
    for t in range(1, n_days):
        states[t] = states[t - 1] ^ (rng.random() < (0.02 if states[t - 1] == 0 else 0.05))
    mean, deviation = np.array([0.001, -0.001]), np.array([0.006, 0.02])
    return states, mean[states] + deviation[states] * rng.standard_normal(n_days)


def as_hmmlearn(model):
    """The same model, with hmmlearn's own arithmetic."""
    other = GaussianHMM(len(model.mean), "diag")
    other.startprob_, other.transmat_ = model.start, model.transition
    other.means_, other.covars_ = model.mean[:, None], model.deviation[:, None] ** 2
    other.n_features = 1
    return other


@pytest.mark.parametrize("states", [2, 3])
def test_the_filter_is_the_posterior_of_the_last_row_of_every_prefix(states):
    _, series = two_regimes()
    model = HiddenMarkov.fit(series[:1000], states, seed=0)
    other, found = as_hmmlearn(model), model.filtered(series)
    for t in [0, 1, 2, 10, 500, 1000, 1499]:
        expected = other.predict_proba(series[: t + 1, None])[-1]
        np.testing.assert_allclose(found[t], expected, atol=1e-9)
    smoothed = other.predict_proba(series[:, None])
    assert np.abs(found - smoothed).max() > 0.2  # which the filter must not be


def test_the_filter_by_hand():
    model = HiddenMarkov(
        np.array([0.5, 0.5]),
        np.array([[0.9, 0.1], [0.2, 0.8]]),
        np.zeros(2),
        np.array([1.0, 2.0]),
    )
    calm = lambda x: np.exp(-0.5 * x**2)  # noqa: E731
    wild = lambda x: 0.5 * np.exp(-0.125 * x**2)  # noqa: E731
    first = calm(1.0) / (calm(1.0) + wild(1.0))
    ahead = 0.9 * first + 0.2 * (1 - first)
    second = ahead * calm(3.0) / (ahead * calm(3.0) + (1 - ahead) * wild(3.0))
    found = model.filtered(np.array([1.0, 3.0]))
    np.testing.assert_allclose(found[:, 0], [first, second], rtol=1e-12)


@pytest.mark.parametrize("kind", ["hmm", "volatility"])
def test_the_future_does_not_matter(kind):
    _, series = two_regimes()
    model = (
        HiddenMarkov.fit(series[:800], 2, seed=1)
        if kind == "hmm"
        else VolatilityState.fit(series[:800], 3, 21)
    )
    poisoned = series.copy()
    poisoned[1001:] = 50.0 * poisoned[1001:][::-1] + 0.3
    np.testing.assert_array_equal(model.filtered(poisoned)[:1001], model.filtered(series)[:1001])


def test_finds_the_regimes_and_orders_them_from_calm_to_turbulent():
    states, series = two_regimes(4000)
    model = HiddenMarkov.fit(series[:3000], 2, seed=0)
    np.testing.assert_allclose(model.deviation, [0.006, 0.02], rtol=0.1)
    np.testing.assert_allclose(np.diag(model.transition), [0.98, 0.95], atol=0.02)
    np.testing.assert_allclose(model.start @ model.transition, model.start, atol=1e-9)
    seen = model.filtered(series)[3000:].argmax(axis=1)
    assert (seen == states[3000:]).mean() > 0.9


def test_same_seed_same_model_and_the_global_generator_is_untouched():
    _, series = two_regimes()
    before: Any = np.random.get_state()  # noqa: NPY002  # that it is left alone
    first, second = (HiddenMarkov.fit(series, 2, seed=3) for _ in range(2))
    after: Any = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(first.transition, second.transition)


def test_numbers_far_from_all_states_still_have_a_posterior():
    model = HiddenMarkov(np.array([1.0, 0.0]), np.eye(2), np.zeros(2), np.array([0.001, 0.002]))
    found = model.filtered(np.array([0.0, 1e3, 0.0]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_volatility_states_by_hand():
    series = np.concatenate([np.tile([0.01, -0.01], 50), np.tile([0.03, -0.03], 50)])
    model = VolatilityState.fit(series, 2, window=10)
    found = model.filtered(series)
    np.testing.assert_array_equal(found[:9], 0.5)
    np.testing.assert_array_equal(found[20], [1.0, 0.0])
    np.testing.assert_array_equal(found[150], [0.0, 1.0])
    known = pd.Series(series).rolling(10).std().dropna()
    assert model.edges == pytest.approx([known.median()])


def test_models_are_stored():
    _, series = two_regimes()
    for model in (HiddenMarkov.fit(series, 2, seed=0), VolatilityState.fit(series, 3, 21)):
        again = regimes_from(json.loads(json.dumps(model.plain())))
        np.testing.assert_array_equal(again.filtered(series), model.filtered(series))


def test_the_series_is_the_mean_of_what_could_be_held():
    prices = pd.DataFrame(
        {"a": [1.0, 1.1, 1.21], "b": [np.nan, 1.0, 1.3]}, pd.bdate_range("2020-01-01", periods=3)
    )
    market = Market.from_prices(prices, cash_rate=0.01)
    np.testing.assert_allclose(regime_series(market)[2], 0.2)
    np.testing.assert_allclose(regime_series(market, "a"), [0.0, 0.1, 0.1])
    with pytest.raises(SettingError, match=r"asset must be one of .*got 'c'"):
        regime_series(market, "c")


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(DataError, match="2 states need 40 returns that move, got 30"):
        HiddenMarkov.fit(np.arange(30.0), 2, seed=0)
    with pytest.raises(DataError, match="that move"):
        HiddenMarkov.fit(np.zeros(100), 2, seed=0)
    with pytest.raises(DataError, match="windows of 21 need 42 returns"):
        VolatilityState.fit(np.arange(30.0), 2, 21)
