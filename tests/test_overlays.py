"""Risk overlays: each limit is met, exactly and with the least move, on past returns alone."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import envs.history
from envs.constraints import (
    ConstraintSet,
    CVaRLimit,
    StopLoss,
    ValueAtRiskLimit,
    VolatilityTarget,
)
from envs.history import RollingMoments
from market import Market, SettingError
from market.measures import conditional_value_at_risk, value_at_risk

LIMITS: dict[str, Any] = {
    "volatility": VolatilityTarget(0.08, window=40),
    "historical": ValueAtRiskLimit(0.006, tail=0.1, window=50),
    "parametric": ValueAtRiskLimit(0.006, tail=0.1, window=50, method="parametric"),
    "cvar": CVaRLimit(0.008, tail=0.07, window=50),
}


def wild(periods: int = 160, seed: int = 0, cash_rate: float | None = 0.03, scale: float = 0.015):
    """Three assets that rise and fall together, one of them with jumps; dollars are calm."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0004, scale, periods)
    returns = common[:, None] * [1.0, 0.7, 0.3] + rng.normal(0.0, 0.5 * scale, (periods, 3))
    returns[:, 1] -= (rng.random(periods) < 0.05) * 3 * scale
    prices = 100.0 * np.cumprod(1.0 + np.clip(returns, -0.5, 0.5), axis=0)
    dates = pd.bdate_range("2020-01-01", periods=periods)
    frame = pd.DataFrame(prices, index=dates, columns=["stock", "jumpy", "bond"])
    return Market.from_prices(frame, cash_rate=cash_rate)


def risk(name: str, limit, window: np.ndarray, weights: np.ndarray) -> float:
    """The measure a limit is on, by its definition and from code that is not ours to test."""
    returns = window @ weights
    if name == "volatility":
        return float(np.std(returns, ddof=1) * np.sqrt(252))
    if name == "parametric":
        return float(norm.ppf(1 - limit.tail) * np.std(returns, ddof=1) - returns.mean())
    measure = value_at_risk if name == "historical" else conditional_value_at_risk
    return float(measure(returns, limit.tail))


def apply(limit, market: Market, weights: np.ndarray, t):
    """Targets after one overlay, whether it moved them, and whether it is unmet."""
    limits = ConstraintSet.build([limit], market)
    shape = weights.shape[:-1]
    target, _, binding, unmet = limits.apply(
        weights, weights, t, limits.initial(shape), np.zeros(shape), np.ones(shape)
    )
    return target, binding[limits.names[0]], unmet


@pytest.mark.parametrize("safe", [None, "bond"])
@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_is_met_by_the_least_move(name: str, safe: str | None) -> None:
    """At the limit where it binds, and beyond it with a little more of the target kept."""
    market = wild()
    limit = LIMITS[name]
    limit = dataclasses.replace(limit, safe=safe, limit=limit.limit * (2.0 if safe else 1.0))
    place = market.assets.index(safe or "cash")
    rng = np.random.default_rng(1)
    weights, times = rng.dirichlet(np.ones(4), 150), rng.integers(70, 159, 150)
    target, moved, unmet = apply(limit, market, weights, times)
    level, reduced, kept = limit.limit, 0, 0
    for i in np.flatnonzero(~unmet):
        window = market.returns[times[i] - limit.window + 1 : times[i] + 1]
        before, after = (risk(name, limit, window, rows[i]) for rows in (weights, target))
        assert after <= level + 1e-12
        if not moved[i]:
            np.testing.assert_array_equal(target[i], weights[i])
            kept += 1
            continue
        reduced += 1
        assert before > level and after == pytest.approx(level, abs=1e-12)
        safe_weights = np.eye(4)[place]
        away = weights[i] - safe_weights
        share = (target[i] - safe_weights) @ away / (away @ away)
        np.testing.assert_allclose(target[i], safe_weights + share * away, atol=1e-14)
        for more in np.linspace(share + 1e-9, 1.0, 50):  # no larger share would do
            assert risk(name, limit, window, safe_weights + more * away) > level
    assert reduced > 30 and kept > 10


@pytest.mark.parametrize("name", LIMITS)
def test_where_no_share_meets_the_limit_everything_is_safe_and_unmet(name: str) -> None:
    market = wild(scale=0.03)
    limit = dataclasses.replace(LIMITS[name], safe="bond", limit=1e-4)
    weights = np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 1.0, 0.0]])
    target, moved, unmet = apply(limit, market, weights, 120)
    np.testing.assert_array_equal(target, [[0, 0, 1, 0], [0, 0, 1, 0]])
    assert unmet.all() and moved.all()


@pytest.mark.parametrize("name", LIMITS)
def test_nothing_after_the_decision_and_nothing_before_the_window_matters(name: str) -> None:
    market = wild()
    limit = dataclasses.replace(LIMITS[name], limit=LIMITS[name].limit / 3)
    weights = np.array([0.4, 0.4, 0.2, 0.0])
    target, moved, _ = apply(limit, market, weights, 100)
    assert moved
    other = market.returns.copy()
    other[101:] *= -7.0
    other[: 101 - limit.window] = 0.4
    prices = np.full_like(market.prices, 1.0)
    changed = Market(dates=market.dates, assets=market.assets, prices=prices.cumsum(0), name="x")
    object.__setattr__(changed, "returns", other)
    np.testing.assert_allclose(apply(limit, changed, weights, 100)[0], target, atol=1e-14)


def test_short_history_is_used_from_twenty_returns_on() -> None:
    market = wild()
    weights, limit = np.array([1.0, 0.0, 0.0, 0.0]), VolatilityTarget(0.02, window=60)
    for t in (0, 1, 19):
        target, moved, unmet = apply(limit, market, weights, t)
        np.testing.assert_array_equal(target, weights)
        assert not moved and not unmet
    target, moved, _ = apply(limit, market, weights, 30)
    window = market.returns[1:31]  # row 0 has no return
    assert moved and risk("volatility", limit, window, target) == pytest.approx(0.02, abs=1e-12)
    assert apply(dataclasses.replace(limit, window=5), market, weights, 5)[1]


@pytest.mark.parametrize("name", ["volatility", "parametric"])
def test_moments_are_the_same_where_covariances_would_take_too_much_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = wild()
    weights = np.random.default_rng(2).dirichlet(np.ones(4), 60)
    times = np.random.default_rng(3).integers(0, 159, 60)
    small = apply(LIMITS[name], market, weights, times)
    monkeypatch.setattr(envs.history, "MAX_BYTES", 0)
    assert RollingMoments(market.returns, 40, 3).covariances is None
    large = apply(LIMITS[name], market, weights, times)
    np.testing.assert_allclose(large[0], small[0], atol=1e-12)
    np.testing.assert_array_equal(large[1], small[1])


def test_covariances_are_those_of_numpy() -> None:
    market = wild()
    moments = RollingMoments(market.returns, 40, 3)
    assert moments.covariances is not None
    for t, start in ((10, 1), (39, 1), (40, 1), (41, 2), (159, 120)):
        window = market.returns[start : t + 1]
        np.testing.assert_allclose(moments.covariances[t], np.cov(window.T), atol=1e-18)
        np.testing.assert_allclose(moments.means[t], window.mean(axis=0), atol=1e-17)


def test_two_limits_are_both_met() -> None:
    """Also where a later overlay moves to an asset that an earlier one looks at."""
    market = wild()
    limits = ConstraintSet.build(
        [CVaRLimit(0.012, window=50), VolatilityTarget(0.1, window=40, safe="bond")], market
    )
    rng = np.random.default_rng(4)
    weights, times = rng.dirichlet([3, 3, 0.5, 0.5], 80), rng.integers(70, 159, 80)
    target, _, binding, unmet = limits.apply(weights, weights, times, {}, np.zeros(80), np.ones(80))
    assert binding["cvar_limit"].any() and binding["volatility_target"].any() and not unmet.all()
    for i in np.flatnonzero(~unmet):
        window = market.returns[: times[i] + 1]
        assert conditional_value_at_risk(window[-50:] @ target[i], 0.05) <= 0.012 + 1e-12
        assert np.std(window[-40:] @ target[i], ddof=1) * np.sqrt(252) <= 0.1 + 1e-12


def test_a_safe_asset_that_cannot_be_traded_is_no_refuge() -> None:
    market = wild()
    tradable = market.tradable.copy()
    tradable[100, 2] = False
    market = dataclasses.replace(market, tradable=tradable)
    limit = VolatilityTarget(0.08, window=40, safe="bond")
    weights = np.array([0.6, 0.4, 0.0, 0.0])
    target, moved, unmet = apply(limit, market, weights, 100)
    np.testing.assert_array_equal(target, weights)
    assert unmet and not moved
    assert apply(limit, market, weights, 101)[1]


def walk(rule: StopLoss, values, market: Market | None = None, t: int = 30) -> list[bool]:
    """Whether the rule is out at each of a path of values."""
    limits = ConstraintSet.build([rule], wild() if market is None else market)
    memory, asked, out = limits.initial(()), np.array([0.5, 0.3, 0.2, 0.0]), []
    for i, value in enumerate(values):
        target, memory, binding, unmet = limits.apply(asked, asked, t + i, memory, 0.0, value)
        np.testing.assert_array_equal(target, [0, 0, 0, 1] if binding["stop_loss"] else asked)
        assert not unmet
        out.append(bool(binding["stop_loss"]))
    return out


def test_stop_loss_leaves_at_the_drawdown_and_returns_after_its_days() -> None:
    """Out at 0.9 of the peak of 1.1, for two decisions; then the peak is that of the re-entry."""
    values = [1.0, 1.1, 1.0, 0.99, 0.99, 0.99, 0.95, 0.90, 0.89, 0.89]
    expected = [False, False, False, True, True, False, False, False, True, True]
    assert walk(StopLoss(0.1, reentry=2), values) == expected


def test_stop_loss_waits_for_the_market_to_recover() -> None:
    """Risky assets fall to a trough and rise by 10 % a day: 5 % are there a day after it."""
    level = [100.0] * 31 + [90.0, 80.0, 70.0, 77.0, 84.7, 90.0, 90.0]
    dates = pd.bdate_range("2020-01-01", periods=len(level))
    prices = pd.DataFrame({name: level for name in ("stock", "jumpy", "bond")}, index=dates)
    market = Market.from_prices(prices)
    values = [1.0, 0.85, 0.85, 0.85, 0.85, 0.85, 0.85]
    at_once = [False, True, False, False, False, False, False]
    assert walk(StopLoss(0.1, reentry=1), values, market) == at_once
    waiting = [False, True, True, True, False, False, False]
    assert walk(StopLoss(0.1, reentry=1, recovery=0.05), values, market) == waiting
    longer = [False, True, True, True, True, False, False]
    assert walk(StopLoss(0.1, reentry=1, recovery=0.2), values, market) == longer


def test_stop_loss_rows_are_independent() -> None:
    limits = ConstraintSet.build([StopLoss(0.1, reentry=2)], wild())
    paths = np.array([[1.0, 0.8, 0.8, 0.8], [1.0, 1.0, 0.8, 0.8], [1.0, 1.0, 1.0, 1.0]])
    memory, asked, out = limits.initial((3,)), np.full((3, 4), 0.25), []
    for i in range(4):
        _, memory, binding, _ = limits.apply(asked, asked, 30 + i, memory, None, paths[:, i])
        out.append(binding["stop_loss"])
    expected = [[False, True, True, False], [False, False, True, True], [False] * 4]
    np.testing.assert_array_equal(np.transpose(out), expected)


def make_limit(**settings: Any) -> ValueAtRiskLimit:
    return ValueAtRiskLimit(0.1, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VolatilityTarget(0.0), "VolatilityTarget: limit must be > 0, got 0.0"),
        (lambda: VolatilityTarget(0.1, window=1), "VolatilityTarget: window must be > 1, got 1"),
        (lambda: ValueAtRiskLimit(0.1, tail=1.0), "tail must be in (0, 1), got 1.0"),
        (lambda: ValueAtRiskLimit(0.1, 0.5, method="parametric"), "tail must be in (0, 0.5)"),
        (lambda: make_limit(method="historic"), "did you mean 'historical'"),
        (lambda: CVaRLimit(float("nan")), "CVaRLimit: limit must be > 0, got nan"),
        (lambda: StopLoss(1.5), "StopLoss: limit must be in (0, 1), got 1.5"),
        (lambda: StopLoss(0.1, reentry=0), "StopLoss: reentry must be > 0, got 0"),
        (lambda: StopLoss(0.1, recovery=-1.0), "StopLoss: recovery must be >= 0, got -1.0"),
    ],
)
def test_mistakes_are_named(make, message: str) -> None:
    with pytest.raises(SettingError) as refused:
        make()
    assert message in str(refused.value)


def test_the_safe_asset_must_exist() -> None:
    with pytest.raises(SettingError, match="did you mean 'bond'"):
        ConstraintSet.build([CVaRLimit(0.1, safe="bonds")], wild())
    with pytest.raises(SettingError, match="moves to cash and prices has none"):
        ConstraintSet.build([StopLoss(0.1)], wild(cash_rate=None))
    assert ConstraintSet.build([StopLoss(0.1, safe="bond")], wild(cash_rate=None))
