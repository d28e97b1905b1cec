"""The textbook LSTM and forecast agents: what they learn, from what, and how repeatably."""

import numpy as np
import pandas as pd
import pytest
import torch

from agents import AGENTS
from agents.forecast_agent import ForecastAgent
from agents.forecasters import FORECASTERS, Forecaster, HistoricalMean, TextbookLSTM
from agents.rules import RULES, Proportional
from market import DataError, Market, SettingError, load_market
from tests.curves import Curves

SMALL = dict.fromkeys(
    ("fnn", "cnn", "rnn", "gru", "lstm", "transformer"), "(lookback=5, width=4, depth=1, epochs=1)"
) | {"textbook_lstm": "(lookback=10, hidden=4, epochs=1)"}
QUICK = {"lookback": 10, "hidden": 16, "epochs": 3}


def market_of(returns, cash=0.01):
    frame = pd.DataFrame(100.0 * np.cumprod(1.0 + returns, axis=0)).rename(columns=str)
    frame.index = pd.bdate_range("2000-01-03", periods=len(frame))
    return Market.from_prices(frame, cash_rate=cash)


def noise(n_periods=300, n_assets=3, seed=0):
    return 0.01 * np.random.default_rng(seed).standard_normal((n_periods, n_assets))


def test_learns_what_one_asset_says_about_another():
    """r_b[t+1] = 0.9 r_a[t] + noise: the forecast of b must follow a, out of sample."""
    returns = noise(900, 2)
    returns[1:, 1] = 0.9 * returns[:-1, 0] + 0.2 * returns[1:, 1]
    market = market_of(returns)
    train, valid, test = market[:600], market[600:700], market[680:]
    settings = {"lookback": 20, "hidden": 16, "epochs": 60, "learning_rate": 0.01}
    model = TextbookLSTM(**settings).fit(train, valid, seed=0)
    rows = range(model.lookback, test.n_periods - 1)
    forecast = np.array([model.predict(test.upto(t))[1] for t in rows])
    ahead = test.returns[model.lookback + 1 :, 1]
    floor = np.mean((ahead - train.returns[1:, 1].mean()) ** 2)
    assert 1.0 - np.mean((ahead - forecast) ** 2) / floor > 0.8


def test_same_seed_same_bits_and_the_callers_generator_is_untouched():
    market = market_of(noise())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    models = [TextbookLSTM(**QUICK).fit(market[:200], market[200:], seed=s) for s in (4, 4, 5)]
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads
    first, second, other = (model.tensors() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_scaling_is_that_of_the_training_rows():
    returns = noise()
    returns[200:] *= 50.0
    returns = np.clip(returns, -0.9, 0.9)
    market = market_of(returns)
    tensors = TextbookLSTM(**QUICK).fit(market[:200], market[200:]).tensors()
    expected = market.returns[1:200, :3]
    np.testing.assert_allclose(tensors["mean"], expected.mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(tensors["std"], expected.std(axis=0, ddof=1), rtol=1e-5)


def test_validation_chooses_the_epoch_and_stops():
    """The kept parameters score the best recorded loss; training stops `patience` later."""
    market = market_of(noise(400))
    train, valid = market[:300], market[280:]  # 20 rows of history in front, as splits give
    curves = Curves()
    settings = {"lookback": 10, "hidden": 16, "epochs": 60, "patience": 4, "learning_rate": 0.01}
    model = TextbookLSTM(**settings).fit(train, valid, seed=1, monitor=curves)
    losses = [values["eval/loss"] for _, values in curves.rows]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 4 < 60
    assert curves.fractions[-1] == 1.0 and np.all(np.diff(curves.fractions) >= 0)
    tensors = model.tensors()
    forecasts = np.array([model.predict(market.upto(t))[:3] for t in range(299, 399)])
    errors = (market.returns[300:, :3] - forecasts) / tensors["std"].numpy()
    assert np.mean(errors**2) == pytest.approx(losses[best], rel=1e-5)


def test_without_validation_the_last_fifth_of_training_takes_its_place():
    market = market_of(noise(301))
    alone = TextbookLSTM(**QUICK).fit(market, None, seed=2).tensors()
    given = TextbookLSTM(**QUICK).fit(market[:241], market[241:], seed=2).tensors()
    assert all(torch.equal(alone[key], given[key]) for key in alone)


def test_all_cash_when_no_forecast_is_positive():
    class Pessimist(Forecaster):
        def fit(self, train, valid, *, seed=0, monitor=None):
            return self

        def predict(self, history):
            return np.full(history.n_assets, -0.01)

        def tensors(self):
            return {}

        def restore(self, tensors):
            pass

    market = market_of(noise(30))
    agent = ForecastAgent(forecaster=Pessimist(), rule=Proportional()).fit(market)
    np.testing.assert_array_equal(agent.act(market, np.full(4, 0.25)), [0, 0, 0, 1])
    assert agent.settings.rule == "proportional()"


def test_objects_and_texts_build_the_same_agent():
    model = TextbookLSTM(**QUICK)
    given = ForecastAgent(forecaster=model, rule=Proportional())
    again = ForecastAgent(forecaster=given.settings.forecaster, rule=given.settings.rule)
    assert again.forecaster.settings == model.settings and again.rule == given.rule


def test_volatility_is_limited():
    market = market_of(0.001 + 3.0 * noise(300))
    agent = AGENTS["lstm"](**QUICK, volatility=0.10, volatility_window=60)
    agent.fit(market[:200], market[200:250])
    targets = np.array([agent.act(market.upto(t), np.eye(4)[-1]) for t in range(250, 300)])
    for t, target in zip(range(250, 300), targets, strict=True):
        path = market.returns[t - 59 : t + 1] @ target
        assert path.std(ddof=1) * np.sqrt(252) <= 0.10 * (1 + 1e-9)
    assert (targets[:, -1] > 0.1).all()


def test_refusals_name_the_thing():
    market, bare = market_of(noise(60)), market_of(noise(60), cash=None)
    with pytest.raises(SettingError, match="call fit before predict"):
        TextbookLSTM(**QUICK).predict(market)
    with pytest.raises(SettingError, match="VolatilityTarget moves to cash and prices has none"):
        AGENTS["lstm"](**QUICK).fit(bare)
    with pytest.raises(DataError, match=r"lookback 100 needs more than 48 rows"):
        TextbookLSTM(lookback=100).fit(market, None)
    model = TextbookLSTM(**QUICK).fit(market, None)
    with pytest.raises(DataError, match="are not those of training"):
        model.predict(bare)


def test_divergence_is_an_error():
    with pytest.raises(SettingError, match="diverged at learning_rate"):
        TextbookLSTM(lookback=5, hidden=4, epochs=3, learning_rate=1e30).fit(
            market_of(noise(100)), None
        )


def test_the_textbook_agent_decides_on_the_bundled_universe():
    market = load_market("multi_asset", start="2010-01-01", end="2012-12-31")
    agent = AGENTS["lstm"](epochs=1).fit(market[:500], market[500:600])
    assert (agent.settings.layers, agent.settings.hidden, agent.lookback) == (2, 64, 61)
    target = agent.act(market, np.eye(5)[-1])
    assert target.sum() == pytest.approx(1.0) and target.min() >= 0.0


def test_historical_mean_by_hand():
    market = market_of(noise(100), cash=0.05)
    model = HistoricalMean().fit(market[:60], None)
    forecast = model.predict(market)
    np.testing.assert_allclose(forecast[:3], market.returns[1:60, :3].mean(axis=0), rtol=1e-12)
    assert forecast[3] == market.risk_free[-1] > 0.0


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("forecaster", sorted(FORECASTERS))
def test_any_forecaster_with_any_rule(forecaster, rule, tmp_path):
    market = market_of(noise(120))
    rules = {"top_k": "top_k(k=1)", "softmax": "softmax(temperature=0.01)"}
    spec = forecaster + SMALL.get(forecaster, "")
    covariance = (
        "(window=40)" if rule in ("mean_variance", "black_litterman", "risk_parity") else ""
    )
    agent = ForecastAgent(
        forecaster=spec,
        rule=rules.get(rule, rule + covariance),
        volatility=0.05,
        volatility_window=30,
    )
    agent.fit(market[:80], market[80:100], seed=3)
    target = agent.act(market, np.eye(4)[-1])
    assert target.min() >= 0.0 and target.sum() == pytest.approx(1.0)
    agent.save(tmp_path)
    again = ForecastAgent.load(tmp_path)
    np.testing.assert_array_equal(again.act(market, np.eye(4)[-1]), target)
