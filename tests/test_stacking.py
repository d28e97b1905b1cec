"""Stacked forecasts and the factor model, by hand and against other solvers."""

import daqp
import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Monitor, Task
from agents.ensembles_forecasts import (
    FactorBlend,
    StackedForecaster,
    Stacking,
    best_shares,
    read_forecasters,
)
from agents.factor_model import FactorModel
from agents.forecast_base import Forecaster
from market import DataError, Market, SettingError, load_market


def market_of(n_periods=500, seed=0, cash: float | None = 0.02, signal=0.0):
    """Three assets; with a signal the first follows the second a day later."""
    rng = np.random.default_rng(seed)
    moves = 0.0005 + 0.01 * rng.standard_normal((n_periods, 3)) * [1.0, 1.5, 0.5]
    moves[1:, 0] += signal * moves[:-1, 1]
    prices = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0), columns=["a", "b", "c"])
    prices.index = pd.bdate_range("2015-01-01", periods=n_periods)
    return Market.from_prices(prices, cash_rate=cash)


class Follower(Forecaster):
    """Knows that the first asset follows the second; counts its trainings."""

    lookback = 1
    fits = 0

    def fit(self, train, valid, *, seed=0, monitor=None):
        self.assets = train.assets
        type(self).fits += 1
        return self

    def predict(self, history):
        forecast = np.zeros(history.n_assets)
        forecast[0] = history.returns[-1, 1]
        return forecast

    def tensors(self):
        return {}

    def restore(self, tensors):
        pass


class Liar(Follower):
    def predict(self, history):
        return -super().predict(history)


# ---- stacking


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_the_best_on_the_simplex(seed):
    rng = np.random.default_rng(seed)
    made, came = rng.standard_normal((60, 3, 4)), rng.standard_normal((60, 3))
    x, y = made.reshape(-1, 4), came.ravel()
    sense = np.array([0] * 4 + [5], np.int32)
    above, below = np.ones(5), np.append(np.zeros(4), 1.0)
    expected = daqp.solve(x.T @ x, -x.T @ y, np.ones((1, 4)), above, below, sense)[0]
    np.testing.assert_allclose(best_shares(made, came), expected, atol=1e-4)


@pytest.mark.parametrize(("signal", "knows"), [(1.5, 1.0), (0.6, 0.8)])
def test_a_part_that_knows_gets_what_its_forecast_is_worth(signal, knows):
    """F and -f in shares b and 1 - b forecast (2b - 1) f, and `signal` f is best."""
    market = market_of(2000, signal=signal)
    model = StackedForecaster([Liar(), Follower()])
    Follower.fits = Liar.fits = 0
    model.fit(market[:300], market[299:1900])
    np.testing.assert_allclose(model.shares, [1.0 - knows, knows], atol=0.03)
    assert (Follower.fits, Liar.fits) == (1, 1)
    expected = (model.shares[1] - model.shares[0]) * market.returns[-1, 1]
    np.testing.assert_allclose(model.predict(market)[0], expected)


def test_shares_of_forecasts_that_mean_nothing_shrink_towards_the_mean():
    market = market_of()
    model = StackedForecaster([Follower(), *read_forecasters("mean")])
    model.fit(market[:300], market[299:])
    assert model.shares[1] > 0.9


def test_only_rows_after_training_count():
    """History in front of validation, which parts learned from, is no evidence."""
    market = market_of(signal=0.8)
    first = StackedForecaster([Follower(), Liar()]).fit(market[:300], market[299:400])
    second = StackedForecaster([Follower(), Liar()]).fit(market[:300], market[100:400])
    np.testing.assert_array_equal(first.shares, second.shares)
    np.testing.assert_array_equal(first.error, second.error)


def test_the_error_is_that_of_validation():
    market = market_of(signal=0.8)
    model = StackedForecaster([Follower()]).fit(market[:300], market[299:400])
    made = np.array([model.predict(market.upto(t))[:3] for t in range(299, 399)])
    off = market.returns[300:400, :3] - made
    np.testing.assert_allclose(model.error, np.sqrt((off**2).mean(axis=0)), rtol=1e-9)


def test_without_validation_the_last_fifth_of_training_takes_its_place():
    market = market_of(301, signal=0.8)
    alone = StackedForecaster(read_forecasters("mean, ridge")).fit(market, None)
    given = StackedForecaster(read_forecasters("mean, ridge")).fit(market[:241], market[240:])
    np.testing.assert_array_equal(alone.shares, given.shares)


def test_later_rows_do_not_matter_to_the_shares():
    market = market_of()
    prices = np.array(market.prices[:, :3])
    prices[400:] = prices[400:][::-1]
    other = Market.from_prices(pd.DataFrame(prices, market.dates, ["a", "b", "c"]), 0.02)
    fits = [
        StackedForecaster(read_forecasters("mean, ridge, factor_model(components=1)")).fit(
            data[:300], data[299:400]
        )
        for data in (market, other)
    ]
    np.testing.assert_array_equal(fits[0].shares, fits[1].shares)
    np.testing.assert_array_equal(fits[0].predict(market), fits[1].predict(market))


def test_too_little_validation_is_named():
    market = market_of()
    with pytest.raises(DataError, match="stacking needs 20 validation rows after the 1 of a first"):
        StackedForecaster([Follower()]).fit(market[:300], market[299:310])


# ---- the factor model


def test_one_factor_by_hand():
    market = market_of()
    model = FactorModel(factors="b").fit(market, None)
    excess = market.returns[1:, :3] - market.risk_free[1:, None]
    for i in range(3):
        slope = np.cov(excess[:, i], excess[:, 1])[0, 1] / excess[:, 1].var(ddof=1)
        expected = market.risk_free[-1] + slope * excess[:, 1].mean()
        assert model.predict(market)[i] == pytest.approx(expected, rel=1e-9)
    assert model.predict(market)[3] == market.risk_free[-1]


def test_as_many_components_as_assets_explain_all_means():
    market = market_of()
    model = FactorModel(components=3).fit(market, None)
    excess = (market.returns[1:, :3] - market.risk_free[1:, None]).mean(axis=0)
    found = model.predict(market)[:3] - market.risk_free[-1]
    np.testing.assert_allclose(found, excess, rtol=1e-9)
    np.testing.assert_allclose(
        FactorModel(factors="c, a, b").fit(market, None).predict(market), model.predict(market)
    )


def test_components_find_the_factor_behind_the_returns():
    """r_i = b_i f + noise: expected returns are in proportion to b, luck aside."""
    rng = np.random.default_rng(0)
    factor = 0.001 + 0.01 * rng.standard_normal(4000)
    slopes = np.array([0.5, 1.0, 1.5, 2.0])
    moves = factor[:, None] * slopes + 0.0002 * rng.standard_normal((4000, 4))
    prices = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0)).rename(columns=str)
    prices.index = pd.bdate_range("2000-01-03", periods=4000)
    market = Market.from_prices(prices, cash_rate=None)
    found = FactorModel(components=1).fit(market, None).predict(market)
    np.testing.assert_allclose(found, slopes * factor.mean(), rtol=0.02)


def test_factor_funds_of_the_bundled_data():
    market = load_market("factors", end="2018-12-31")
    model = FactorModel(factors="QUAL, VLUE").fit(market, None)
    assert np.isfinite(model.predict(market)).all()


def late_market(listed):
    """The third asset is listed from that row on."""
    prices = pd.DataFrame(np.array(market_of().prices[:, :3]), market_of().dates, ["a", "b", "c"])
    prices.iloc[:listed, 2] = np.nan
    return Market.from_prices(prices, cash_rate=0.02)


def test_an_asset_listed_late_weighs_no_more_in_the_shares_than_others():
    """Its days before the listing say nothing, neither of its deviation nor of the errors."""
    market = late_market(200)
    parts = read_forecasters("mean, ridge")
    stacked = StackedForecaster(parts).fit(market[:300], market[:420])
    moves = market.returns[201:300, 2]
    rows = range(299, 419)
    made = np.array([[part.predict(market.upto(row))[:3] for part in parts] for row in rows])
    size = np.append(market.returns[1:300, :2].std(axis=0), moves.std())
    x = np.moveaxis(made, 1, 2) / size[:, None]
    y = market.returns[300:420, :3] / size
    np.testing.assert_allclose(stacked.shares, best_shares(x, y), atol=1e-9)
    off = y - x @ stacked.shares
    np.testing.assert_allclose(stacked.error, np.sqrt((off**2).mean(axis=0)) * size, rtol=1e-9)


def test_an_asset_listed_after_training_does_not_rule_the_shares():
    market, without = late_market(320), market_of()
    found = StackedForecaster(read_forecasters("mean, ridge")).fit(market[:300], market[:420])
    assert np.isfinite(found.error).all() and found.error.max() < 0.1
    assert found.error[2] > 1e-4
    usual = StackedForecaster(read_forecasters("mean, ridge")).fit(without[:300], without[:420])
    assert abs(found.shares[0] - usual.shares[0]) < 0.5


def test_the_factor_model_says_when_no_day_has_all_assets():
    with pytest.raises(DataError, match="needs 23 days on which all assets trade, got 0"):
        FactorModel().fit(late_market(320)[:300], None)


def test_an_asset_that_never_moves_loads_on_no_component():
    prices = pd.DataFrame(np.array(market_of().prices[:, :3]), market_of().dates, ["a", "b", "c"])
    still = Market.from_prices(prices.assign(d=100.0), cash_rate=None)
    model = FactorModel(components=4).fit(still, None)
    alone = FactorModel(components=3).fit(Market.from_prices(prices, cash_rate=None), None)
    np.testing.assert_allclose(model.predict(still)[:3], alone.predict(
        Market.from_prices(prices, cash_rate=None)
    ), atol=1e-12)  # fmt: skip
    assert abs(model.predict(still)[3]) < 1e-12


def test_factors_that_are_not_there_are_named():
    market = market_of()
    with pytest.raises(SettingError, match=r"factor_model: factors must be risky assets .* got x$"):
        FactorModel(factors="a, x").fit(market, None)
    with pytest.raises(DataError, match="needs 23 days on which all assets trade, got 19"):
        FactorModel().fit(market[:20], None)


# ---- as agents


def test_a_blend_with_a_given_share_is_the_mean():
    market = market_of()
    agent = FactorBlend(forecaster="mean", components=1, share=0.25)
    agent.fit(market[:300], market[299:400], task=Task())
    parts = [FactorModel(components=1).fit(market[:300], None), *read_forecasters("mean")]
    parts[1].fit(market[:300], market[299:400])
    expected = 0.25 * parts[0].predict(market) + 0.75 * parts[1].predict(market)
    np.testing.assert_allclose(agent.forecaster.predict(market), expected, rtol=1e-12)


def test_curves_and_progress_are_passed_on():
    class Listener(Monitor):
        def __init__(self):
            self.done, self.keys = [], set()

        def record(self, step, values):
            self.keys |= set(values)

        def progress(self, done):
            self.done.append(done)

    market, listener = market_of(), Listener()
    Stacking(forecasters=["mean", "ridge"]).fit(market[:300], market[299:400], monitor=listener)
    assert {"forecaster_1/eval/loss", "eval/share_0_HistoricalMean", "eval/sharpe"} <= listener.keys
    assert listener.done[-1] == 1.0


@pytest.mark.parametrize("name", ["stacking", "factor_blend"])
def test_stored_and_back(name, tmp_path):
    market = market_of()
    agent = AGENTS[name](rule="top_k(k=1)").fit(market[:300], market[299:400])
    agent.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    again = AGENTS[name].load(tmp_path)
    for row in (420, 499):
        history = market.upto(row)
        np.testing.assert_array_equal(
            again.forecaster.predict(history), agent.forecaster.predict(history)
        )
