"""Every forecaster: what it finds and what it must not, from what, how repeatably."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

from agents.base import Task
from agents.forecast_agent import ForecastAgent
from agents.forecast_data import window_panel
from agents.forecast_networks import NetworkForecaster
from agents.forecast_quality import quality
from agents.forecast_targets import Target
from agents.forecasters import FORECASTERS, HistoricalMean, TargetForecaster
from agents.rules import RULES
from experiments.backtest import backtest
from market import Market, SettingError
from market.audit import audit_function
from tests.curves import Curves

NETWORKS = ("fnn", "cnn", "rnn", "gru", "lstm", "transformer")
SMALL = "lookback=4, width=16, depth=1, dropout=0.05, learning_rate=0.008, epochs=10"
TINY = "lookback=4, width=6, depth=1, epochs=2"
LEARNED = ("linear", "ridge", *NETWORKS)


def market_of(returns, cash=0.01):
    frame = pd.DataFrame(100.0 * np.cumprod(1.0 + returns, axis=0)).rename(columns=str)
    frame.index = pd.bdate_range("2000-01-03", periods=len(frame))
    return Market.from_prices(frame, cash_rate=cash)


def noise(n_periods=1100, n_assets=6, seed=0, drift=0.0):
    rng = np.random.default_rng(seed)
    return drift + 0.01 * rng.standard_normal((n_periods, n_assets))


def planted(n_periods=1100, n_assets=6, seed=0, carry=0.4):
    """r[t+1] = 0.4 r[t] + noise in every asset: the correlation of both is 0.4, R2 0.16."""
    shocks = noise(n_periods, n_assets, seed)
    returns = shocks.copy()
    for t in range(1, n_periods):
        returns[t] = carry * returns[t - 1] + np.sqrt(1 - carry**2) * shocks[t]
    return returns


def spec(name, settings):
    return f"{name}({settings})" if name in NETWORKS else name


def fitted(market, valid_from=600, until=800, **settings):
    return ForecastAgent(**settings).fit(market[:valid_from], market[:until], seed=1)


# ---- what is there is found, what is not is not


@pytest.mark.parametrize("name", LEARNED)
def test_a_planted_signal_is_found_and_pays(name):
    """IC near 0.39 (the rank correlation that goes with 0.4), R2 near 0.16, more than 1/N gives."""
    market = market_of(planted())
    agent = fitted(market, forecaster=spec(name, SMALL), rule="top_k(k=1)")
    start = market.dates[799]
    found = quality(agent.forecasts(market, start))
    assert found["forecast_ic"] > 0.3 > 8 * found["forecast_ic_error"]
    assert 0.08 < found["forecast_r2"] < 0.25
    assert found["forecast_hit_rate"] > 0.57
    ours = backtest(agent, market, start=start).metrics()["sharpe"]
    equal = backtest(lambda history, _: np.append(np.full(6, 1 / 6), 0.0), market, start=start)
    assert ours > equal.metrics()["sharpe"] + 2.0


@pytest.mark.parametrize("name", ["mean", "linear", "ridge", "fnn", "gru", "transformer"])
def test_in_noise_nothing_is_found(name):
    market = market_of(noise(seed=5))
    agent = fitted(market, forecaster=spec(name, SMALL))
    found = quality(agent.forecasts(market, market.dates[799]))
    assert found["forecast_r2"] < 0.005
    if name != "mean":
        assert abs(found["forecast_ic"]) < 3.5 * found["forecast_ic_error"]


def test_the_historical_mean_is_the_floor_itself():
    """Fitted on all rows before, its R2 against the mean of all rows before is 0 on the next."""
    market = market_of(noise(200, 3, drift=0.001))
    model = HistoricalMean().fit(market[:150], None)
    agent = ForecastAgent(forecaster=model)
    next_day = agent.forecasts(market, market.dates[149], market.dates[149])
    np.testing.assert_allclose(next_day.made, next_day.usual, rtol=1e-9)
    assert quality(next_day)["forecast_r2"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "loss"), [("fnn", "huber"), ("fnn", "gaussian"), ("fnn", "ic"), ("gru", "gaussian")]
)
def test_every_loss_finds_it(name, loss):
    market = market_of(planted())
    agent = fitted(market, forecaster=spec(name, f"{SMALL}, loss={loss}"))
    found = quality(agent.forecasts(market, market.dates[799]))
    assert found["forecast_ic"] > 0.3 and found["forecast_r2"] > 0.05


@pytest.mark.parametrize("target", ["direction", "rank"])
@pytest.mark.parametrize("name", ["ridge", "cnn"])
def test_directions_and_ranks_become_returns(name, target):
    """In units of returns, and with caution: of a normal mean a sign tells 2 / pi."""
    market = market_of(planted())
    agent = fitted(market, forecaster=spec(name, SMALL), target=target)
    assert quality(agent.forecasts(market, market.dates[799]))["forecast_ic"] > 0.25
    rows = range(799, 1099)
    made = np.array([agent.forecaster.predict(market.upto(t))[:6] for t in rows])
    came = market.returns[800:, :6]
    assert np.corrcoef(made.ravel(), came.ravel())[0, 1] > 0.3
    slope = np.polyfit(made.ravel(), came.ravel(), 1)[0]
    assert slope == pytest.approx(np.pi / 2, rel=0.2)


@pytest.mark.parametrize("name", ["ridge", "gru"])
def test_volatility_that_clusters_is_foreseen(name):
    rng = np.random.default_rng(3)
    level = np.zeros((1600, 4))
    for t in range(1, 1600):
        level[t] = 0.97 * level[t - 1] + 0.25 * rng.standard_normal(4)
    market = market_of(0.01 * np.exp(0.5 * level) * rng.standard_normal((1600, 4)))
    moves = np.abs(market.returns)
    average = np.array([moves[max(0, t - 9) : t + 1].mean(axis=0) for t in range(1600)])
    seen = replace(market, features=average[:, :, None] * 100, feature_names=("moves",))
    agent = fitted(seen, forecaster=spec(name, SMALL), target="volatility", horizon=5)
    found = quality(agent.forecasts(seen, seen.dates[1299]))
    assert found["forecast_r2"] > 0.1 and found["forecast_ic"] > 0.15
    outlook = agent.forecaster.outlook(seen)
    assert outlook.volatility is not None and outlook.usual is not None
    assert (outlook.volatility[:4] > 0).all() and outlook.volatility[-1] == 0.0
    wild = average[1299:1590, :4].argmax(axis=1)  # the one that moved most gets the least
    weights = np.array([agent.act(seen.upto(t), np.eye(5)[-1]) for t in range(1299, 1590)])
    share = weights[np.arange(len(wild)), wild].mean() / weights[:, :4].mean()
    assert share < 0.9


def test_longer_forecasts_are_of_longer_returns():
    """5 days of r[t+1] = 0.4 r[t]: 0.4 + 0.16 + .. = 0.66 of today's, over 5 a day."""
    market = market_of(planted(6000, 4))
    agent = fitted(market, 4000, 5000, forecaster="linear", horizon=5)
    rows = np.arange(5000, 5990)
    made = agent.forecaster.estimates(market, rows) / 5
    np.testing.assert_allclose(
        agent.forecaster.predict(market)[:4] * 5,
        agent.forecaster.estimates(market, np.array([5999]))[0],
        rtol=1e-9,
    )
    slope = np.polyfit(market.returns[rows, :4].ravel(), made.ravel(), 1)[0]
    assert slope == pytest.approx(sum(0.4**k for k in range(1, 6)) / 5, rel=0.2)
    assert agent.horizon == 5


def test_the_gaussian_loss_knows_when_it_is_wrong():
    """Every second stretch of days is five times as wild, and a feature says so."""
    rng = np.random.default_rng(4)
    wild = (np.arange(1600) // 40 % 2).astype(float)
    ahead = np.append(wild[1:], 0.0)
    returns = (0.004 + 0.016 * wild)[:, None] * rng.standard_normal((1600, 4))
    market = market_of(returns)
    features = np.repeat(ahead[:, None, None], market.n_assets, axis=1)
    market = replace(market, features=features, feature_names=("wild",))
    agent = fitted(market, forecaster=spec("fnn", f"{SMALL}, loss=gaussian"))
    spread = {
        flag: np.mean(
            [
                agent.forecaster.outlook(market.upto(t)).error[:4].mean()
                for t in range(1300, 1590)
                if ahead[t] == flag
            ]
        )
        for flag in (0.0, 1.0)
    }
    assert spread[0.0] == pytest.approx(0.004, rel=0.35)
    assert spread[1.0] == pytest.approx(0.020, rel=0.35)


# ---- regularisation


def test_an_ensemble_is_the_mean_of_networks_from_different_seeds():
    market = market_of(planted(400, 3))
    curves = Curves()
    settings = f"{TINY}, ensemble=3"
    model = ForecastAgent(forecaster=f"fnn({settings})").forecaster
    model.fit(market[:300], market[:380], seed=2, monitor=curves)
    assert isinstance(model, NetworkForecaster)
    rows = torch.arange(350, 380)
    assert model._scaler is not None
    panel = window_panel(model._scaler.transform(market))
    each = model._raw(panel, rows)[..., 0]
    assert each.shape == (3, 30, 3) and np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(model.outputs(panel, rows), each.mean(axis=0), rtol=1e-12)
    shown = {key for _, values in curves.rows for key in values}
    assert {"eval/loss", "eval/loss/1", "eval/loss/2"} <= shown
    assert curves.fractions[-1] == 1.0 and np.all(np.diff(curves.fractions) >= 0)


def test_patience_stops_and_the_best_epoch_is_kept():
    market = market_of(noise(500, 3))
    curves = Curves()
    model = ForecastAgent(
        forecaster="fnn(lookback=3, width=32, epochs=40, patience=3, learning_rate=0.02)"
    ).forecaster
    assert isinstance(model, NetworkForecaster)
    model.fit(market[:300], market[:450], seed=0, monitor=curves)
    losses = [values["eval/loss"] for _, values in curves.rows]
    assert len(losses) == int(np.argmin(losses)) + 4 < 40
    rows = np.arange(299, 449)
    made = model.estimates(market, rows)
    translation = model._translation
    assert translation is not None
    off = (market.returns[300:450, :3] - made) / translation.scale
    assert np.mean(off**2) == pytest.approx(min(losses), rel=1e-5)
    np.testing.assert_allclose(
        model.error, np.sqrt(((off * translation.scale) ** 2).mean(axis=0)), rtol=1e-5
    )


@pytest.mark.parametrize(
    "setting", ["dropout=0.5", "weight_decay=5.0", "noise=1.0", "ensemble=2", "normalisation=layer"]
)
def test_every_regulariser_changes_what_is_learned(setting):
    market = market_of(planted(300, 3))
    base, other = (
        ForecastAgent(forecaster=f"gru({TINY}{extra})").fit(market[:250], seed=0)
        for extra in ("", f", {setting}")
    )
    t = market.upto(280)
    assert np.abs(base.forecaster.predict(t) - other.forecaster.predict(t))[:3].max() > 1e-7


def test_weight_decay_shrinks():
    market = market_of(planted(400, 3))
    sizes = []
    for decay in (0.0, 20.0):
        settings = f"lookback=3, width=16, epochs=10, learning_rate=0.005, weight_decay={decay}"
        model = ForecastAgent(forecaster=f"fnn({settings})").fit(market[:350]).forecaster
        tensors = {key: value for key, value in model.tensors().items() if "weight" in key}
        sizes.append(sum(float(value.square().sum()) for value in tensors.values()))
    assert sizes[1] < 0.5 * sizes[0]


def test_ridge_takes_the_penalty_that_validates_best():
    market = market_of(noise(400, 4))
    curves = Curves()
    model = ForecastAgent(forecaster="ridge(lookback=5)").forecaster
    model.fit(market[:300], market[:390], monitor=curves)
    chosen = curves.rows[0][1]
    losses = {}
    for penalty in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0):
        own = Curves()
        one = ForecastAgent(forecaster=f"ridge(lookback=5, penalty={penalty})").forecaster
        one.fit(market[:300], market[:390], monitor=own)
        losses[penalty] = own.rows[0][1]["eval/loss"]
    assert chosen["eval/penalty"] == min(losses, key=lambda key: losses[key])
    assert chosen["eval/loss"] == min(losses.values())


# ---- no look ahead

LEAKLESS: list[tuple[str, dict[str, Any]]] = [
    ("mean", {}),
    ("ridge", {"target": "rank", "horizon": 3, "rule": "top_k(k=1)"}),
    ("linear", {"target": "volatility", "horizon": 5, "rule": "mean_variance(window=40)"}),
    ("gru", {"horizon": 2, "rule": "black_litterman(window=40)"}),
    ("transformer", {"target": "direction", "rule": "risk_parity(window=40)"}),
    ("cnn", {"rule": "softmax", "volatility": 0.1, "volatility_window": 30}),
    ("textbook_lstm", {"volatility": 0.1, "volatility_window": 30}),
    ("fnn", {"rule": "proportional"}),
    ("rnn", {}),
    ("lstm", {"target": "rank"}),
]


def quick(name):
    if name == "textbook_lstm":
        return "textbook_lstm(lookback=10, hidden=4, epochs=1)"
    return spec(name, TINY)


def test_every_forecaster_rule_and_target_is_audited_for_leaks():
    rules = {str(settings.get("rule", "")).partition("(")[0] for _, settings in LEAKLESS}
    assert {name for name, _ in LEAKLESS} == set(FORECASTERS)
    assert rules - {""} == set(RULES)
    targets = {settings.get("target", "return") for _, settings in LEAKLESS}
    assert targets == set(get_args(Target))


@pytest.mark.parametrize(("name", "settings"), LEAKLESS)
def test_decisions_do_not_know_the_future(name, settings):
    """The leak audit: weights up to t are the same whatever comes after."""
    whole = market_of(noise(220, 4, drift=0.0005))
    start = whole.dates[150]
    agent = ForecastAgent(forecaster=quick(name), **settings)
    agent.fit(whole[:120], whole[:151], task=Task())

    def weights(market: Market) -> pd.DataFrame:
        done = backtest(agent, market, start=start).frame()
        return done[[column for column in done if str(column).startswith("target:")]].round(12)

    found = audit_function(
        weights, whole, dates=3, tests=("truncate", "poison"), after=whole.dates[151]
    )
    assert {finding.verdict for finding in found} == {"pass"}, found


@pytest.mark.parametrize("target", ["return", "volatility", "direction", "rank"])
@pytest.mark.parametrize("name", ["mean", "linear", "ridge(penalty=0.1)"])
def test_what_is_fitted_does_not_know_validation(name, target):
    """Scaling, translation and slopes are those of training, whatever validation holds."""
    market = market_of(noise(300, 3))
    wild = market.prices[:, :3].copy()
    wild[200:] *= np.exp(np.random.default_rng(1).standard_normal((100, 3)) * 0.2)
    other = Market.from_prices(
        pd.DataFrame(wild, market.dates, list(market.assets[:3])), cash_rate=0.01
    )
    learned = []
    for valid in (market[:280], other[:280]):
        agent = ForecastAgent(forecaster=name, target=target, horizon=5).fit(market[:200], valid)
        model = agent.forecaster
        assert isinstance(model, TargetForecaster) and model._scaler is not None
        learned.append((model.tensors(), model._scaler.to_json()))
    (first, scaler), (second, scaler_too) = learned
    assert scaler == scaler_too
    assert all(torch.equal(first[key], second[key]) for key in first if key != "error")
    assert not torch.equal(first["error"], second["error"])  # which validation measures


@pytest.mark.parametrize("name", NETWORKS)
def test_one_window_and_the_whole_panel_forecast_alike(name):
    market = market_of(planted(200, 3))
    agent = ForecastAgent(forecaster=quick(name)).fit(market[:150])
    rows = np.arange(160, 199)
    together = agent.forecaster.estimates(market, rows)
    alone = np.array([agent.forecaster.predict(market.upto(t))[:3] for t in rows])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-8)


# ---- repeatable, storable, explainable


@pytest.mark.parametrize("name", [*FORECASTERS])
def test_same_seed_same_bytes_and_saved_is_loaded(name, tmp_path):
    market = market_of(noise(240, 3))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    folders = []
    for number, seed in enumerate((7, 7, 8)):
        agent = ForecastAgent(forecaster=quick(name)).fit(market[:180], market[:220], seed=seed)
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        agent.save(folders[-1])
    assert torch.equal(torch.rand(2), expected)
    files = sorted(path.name for path in folders[0].iterdir())
    assert {path.rpartition(".")[2] for path in files} == {"json", "safetensors"}
    first, second, third = ([(f / file).read_bytes() for file in files] for f in folders)
    assert first == second
    assert (first != third) == (name in (*NETWORKS, "textbook_lstm"))
    again, held = ForecastAgent.load(folders[2]), np.eye(4)[-1]
    np.testing.assert_array_equal(again.act(market, held), agent.act(market, held))
    ours, theirs = agent.forecaster.outlook(market), again.forecaster.outlook(market)
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    assert ours.error is not None and theirs.error is not None
    np.testing.assert_array_equal(ours.error, theirs.error)
    assert (ours.error[:3] > 0.005).all() and (ours.error[:3] < 0.02).all()


@pytest.mark.parametrize("loss", ["gaussian", "ic"])
def test_saved_losses_of_two_outputs_and_of_no_scale(loss, tmp_path):
    market = market_of(noise(240, 3))
    agent = ForecastAgent(forecaster=f"cnn({TINY}, loss={loss}, ensemble=2)").fit(market[:200])
    agent.save(tmp_path)
    ours, theirs = (one.forecaster.outlook(market) for one in (agent, ForecastAgent.load(tmp_path)))
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    np.testing.assert_array_equal(np.array(ours.error), np.array(theirs.error))


@pytest.mark.parametrize("name", ["fnn", "lstm", "transformer", "ridge"])
def test_the_explained_function_is_the_forecast(name):
    market = market_of(noise(200, 3))
    forecaster = name if name == "ridge" else quick(name)
    agent = ForecastAgent(forecaster=forecaster, target="rank").fit(market[:150])
    response = agent.response(market, np.eye(4)[-1])
    np.testing.assert_allclose(response.now(), agent.forecaster.predict(market), atol=1e-7)
    with pytest.raises(SettingError, match="mean: has no inputs to explain it by"):
        ForecastAgent(forecaster="mean").fit(market[:150]).response(market, np.eye(4)[-1])


def test_validation_figures_are_recorded():
    market = market_of(planted(500, 3))
    curves = Curves()
    agent = ForecastAgent(forecaster="linear").fit(market[:300], market[290:450], monitor=curves)
    recorded = curves.rows[-1][1]
    expected = quality(agent.forecasts(market[:450], market.dates[299]))
    for key, value in expected.items():
        assert recorded[f"eval/{key}"] == pytest.approx(value, rel=1e-9)
    assert {"eval/sharpe", "eval/forecast_r2/0"} <= set(recorded)


def test_divergence_is_an_error():
    market = market_of(noise(200, 3))
    settings: dict[str, Any] = {"forecaster": f"fnn({TINY}, learning_rate=1e30)"}
    with pytest.raises(SettingError, match="fnn: diverged at learning_rate"):
        ForecastAgent(**settings).fit(market)
