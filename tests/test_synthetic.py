"""Synthetic markets: seeds, moments; optima against brute force, closed forms and simulation."""

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from envs.costs import ProportionalCost
from market import DataError, Market, SettingError, load_market
from market.sources.bands import Grid, value_left
from market.sources.chain import Chain, growth_optimal
from market.sources.optimum import Optimum
from market.sources.synthetic import KINDS, stationary_rows

KNOWN = ("gbm", "regimes", "noise", "kelly", "alternating", "merton")


def load(kind: str, **options: Any) -> Market:
    return load_market("synthetic", kind=kind, **options)


def optimum(kind: str, **options: Any) -> Optimum:
    found: Optimum = load(kind, periods=50, **options).optimum
    return found


def simulated(found: Optimum, steps: int = 2000, paths: int = 400) -> tuple[float, float]:
    """Growth of the best policy with drifting weights and costs paid, and its standard error."""
    rng, chain = np.random.default_rng(5), found.chain
    states = rng.choice(chain.n_states, size=paths, p=chain.stationary)
    held = np.tile(np.eye(chain.n_assets)[-1], (paths, 1))
    growth = np.zeros(paths)
    for _ in range(steps):
        target = np.clip(held, found.low[states], found.high[states])
        draws = rng.random(paths)[:, None]
        outcome = (draws > chain.probabilities[states].cumsum(1)).sum(1)
        gross = 1.0 + chain.outcomes[np.minimum(outcome, len(chain.outcomes) - 1)]
        grown = target * gross
        growth += np.log(grown.sum(1))
        if found.cost:  # a fixed point, solved by repetition instead of in closed form
            mu = np.ones(paths)
            for _ in range(20):
                mu = 1.0 - found.cost * np.abs(mu * target[:, 0] - held[:, 0])
            growth += np.log(mu)
        held = grown / grown.sum(1, keepdims=True)
        states = (rng.random(paths)[:, None] > chain.transition[states].cumsum(1)).sum(1)
    return float(growth.mean() / steps), float(growth.std() / steps / paths**0.5)


# ---- all kinds


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_seed_gives_one_market_to_the_bit(kind: str) -> None:
    first, again, other = (load(kind, seed=seed, periods=300) for seed in (3, 3, 4))
    assert first.n_periods == 300
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert np.isfinite(first.features).all()
    assert (first.optimum is not None) == (kind in KNOWN)
    assert KINDS[kind].__doc__


@pytest.mark.parametrize("kind", KNOWN)
def test_an_optimum_scores_1_and_equal_weight_0(kind: str) -> None:
    found = optimum(kind)
    assert found.method
    np.testing.assert_allclose(found.low.sum(1), 1.0, atol=1e-12)
    if kind == "noise":
        assert np.isnan(found.score(found.policy))
        return
    assert found.growth > found.growth_equal
    assert found.score(found.policy) == pytest.approx(1.0, abs=1e-6)
    size = found.chain.n_assets
    assert found.score(lambda _, held: np.full(held.shape, 1 / size)) == pytest.approx(0, abs=1e-6)


def test_the_optimum_survives_slices_features_and_pickling_but_not_other_assets() -> None:
    market = load("regimes", features=["return(5)", "table('signal')"], start="2001-01-01")
    found = market[10:60].upto(20).optimum
    assert found is market.optimum
    plain = load("regimes", start="2001-01-01")
    np.testing.assert_array_equal(found.states(market), found.states(plain))
    assert pickle.loads(pickle.dumps(market)).optimum.growth == found.growth  # noqa: S301
    with pytest.raises(DataError, match="has no feature 'signal'"):
        found.states(load("regimes", features=["return(5)"]))
    assert load("kelly", assets=["risky_0", "cash"]).optimum is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "regime"}, "did you mean 'regimes'"),
        ({"kind": "regimes", "acuracy": 0.8}, "did you mean 'accuracy'"),
        ({"kind": "kelly", "accuracy": 0.8}, "valid: correlation, hand, means"),
        ({"kind": "regimes", "accuracy": 1.2}, "accuracy: must be a number in [0.5, 1], got 1.2"),
        ({"kind": "regimes", "accuracy": "high"}, "accuracy: must be a number in [0.5, 1], got 'h"),
        ({"kind": "regimes", "cost": 1.0}, "cost: must be in [0, 1), got 1.0"),
        ({"kind": "regimes", "stay": 1.0}, "stay"),
        ({"kind": "regimes", "volatility": 1.5}, "an outcome loses everything"),
        ({"kind": "kelly", "means": [0.1]}, "means and volatilities"),
        ({"kind": "kelly", "correlation": 1.0}, "correlation: must be a number in [0, 1), got 1.0"),
        ({"kind": "kelly", "hand": 0}, "hand: must be >= 1"),
        ({"kind": "gbm", "seed": -1}, "seed: must be a whole number >= 0, got -1"),
        ({"kind": "gbm", "periods": 1}, "periods: must be a whole number in [2, 60000], got 1"),
        ({"kind": "gbm", "n_assets": 0}, "n_assets: must be a whole number >= 1, got 0"),
        ({"kind": "gbm", "volatility": 0.0}, "volatility: must be a number in (0, 10], got 0"),
        ({"kind": "noise", "n_assets": 9}, "n_assets: must be in [2, 8], got 9"),
        ({"kind": "mean_reverting", "half_life": 0}, "half_life"),
        ({"kind": "alternating", "step": 0}, "step: must be a number in (0, inf), got 0"),
        ({"kind": "merton", "volatility": 0}, "volatility: must be a number in (0, 10], got 0"),
        ({"kind": "bootstrap", "block": 0.5}, "block"),
        ({"kind": "bootstrap", "of": "nothing"}, "unknown market 'nothing'"),
        ({"kind": "regimes", "volatility": 0.5, "periods": 60000}, "prices grow or shrink"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_market("synthetic", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_no_memory_holds_is_refused_before_it_is_made() -> None:
    with pytest.raises(DataError, match=r"60000 dates x 10000000 assets need about \d+ GB"):
        load("gbm", periods=60000, n_assets=10_000_000)


# ---- optima without costs


def test_kelly_beats_every_point_of_a_grid() -> None:
    found = optimum("kelly")
    assert (found.low > 0.05).all()  # inside the simplex, cash included
    steps = range(41)
    grid = np.array(
        [
            (i, j, k, 40 - i - j - k)
            for i, j, k in itertools.product(steps, repeat=3)
            if i + j + k <= 40
        ]
    )
    growth = np.log(1.0 + grid / 40 @ found.chain.outcomes.T) @ found.chain.probabilities[0]
    assert growth.max() <= found.growth
    assert found.growth - growth.max() < 1e-4
    np.testing.assert_allclose(grid[growth.argmax()] / 40, found.low[0], atol=0.05)


def test_kelly_fraction_of_a_coin() -> None:
    for up, down in ((0.3, -0.2), (0.12, -0.1)):
        weights = growth_optimal(np.array([0.5, 0.5]), np.array([[up, 0.0], [down, 0.0]]))
        assert weights[0] == pytest.approx(min((up + down) / 2 / (-up * down), 1.0), abs=1e-6)


def test_merton_fraction_is_the_limit_of_short_periods() -> None:
    assert optimum("merton").low[0, 0] == pytest.approx(0.9, abs=0.005)
    assert "0.9" in optimum("merton").method
    short = optimum("merton", drift=0.00006, volatility=0.01)
    assert short.low[0, 0] == pytest.approx(0.6, abs=1e-4)


def test_gbm_with_one_asset_holds_its_merton_fraction() -> None:
    found = optimum("gbm", n_assets=1, drift=0.05, volatility=0.3, cash_rate=0.02)
    expected = (0.05 - np.log(1.02)) / 0.09
    assert found.low[0, 0] == pytest.approx(expected, abs=2e-3)
    assert optimum("gbm", n_assets=7).method.endswith("quadrature")
    assert load("gbm", n_assets=8, periods=50).optimum is None


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9])
def test_regimes_by_a_search_in_one_dimension(accuracy: float) -> None:
    found = optimum("regimes", accuracy=accuracy)
    right, wrong = accuracy / 2, (1 - accuracy) / 2
    odds = {0.11: right, -0.09: right, 0.09: wrong, -0.11: wrong}

    def loss(weight: float) -> float:
        return -sum(chance * np.log1p(weight * move) for move, chance in odds.items())

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    assert found.low[0, 0] == pytest.approx(best.x, abs=1e-5)
    assert found.low[1, 0] == 0.0  # cash, which earns nothing
    assert found.growth == pytest.approx(-best.fun / 2, abs=1e-10)


def test_noise_is_best_held_equally() -> None:
    market = load("noise", periods=20000, mean=0.0004)
    found = market.optimum
    rng = np.random.default_rng(0)
    for weights in rng.dirichlet(np.ones(4), 20):
        assert (
            found.growth_of(lambda _, held, w=weights: np.tile(w, (len(held), 1))) <= found.growth
        )
    assert abs(market.returns.mean(0) - 0.0004).max() < 4 * 0.01 / 20000**0.5
    assert (
        np.abs(np.corrcoef(market.features[:-1, 0].T, market.returns[1:, 0])[-1, :-1]).max() < 0.03
    )


@pytest.mark.parametrize("kind", ["kelly", "regimes", "merton"])
def test_growth_is_what_long_paths_earn(kind: str) -> None:
    found = optimum(kind)
    mean, error = simulated(found)
    assert mean == pytest.approx(found.growth, abs=4 * error)


def test_a_policy_that_looks_at_what_it_holds_is_valued_on_paths() -> None:
    found = optimum("kelly")
    hold_cash = found.growth_of(lambda _, held: np.eye(4)[np.full(len(held), 3)])
    assert hold_cash == pytest.approx(0.0, abs=1e-15)
    mixed = found.growth_of(lambda _, held: 0.5 * held + 0.5 * found.low)
    assert found.growth_equal < mixed < found.growth


# ---- optima under costs: a no-trade band


def test_the_value_left_is_that_of_the_environment() -> None:
    held, target = np.random.default_rng(1).random((2, 200))
    market = load("regimes", periods=20)
    for rate in (0.005, 0.02, 0.1):
        cost = ProportionalCost(rate).bind(market)
        pair = [np.stack([risky, 1 - risky], axis=-1) for risky in (held, target)]
        mu, _ = cost.solve(pair[0], pair[1], np.ones(200), None)
        np.testing.assert_allclose(value_left(held, target, rate), mu, atol=1e-12)


@pytest.mark.parametrize("accuracy", [1.0, 0.8])
@pytest.mark.parametrize("cost", [0.005, 0.02, 0.1])
def test_no_other_band_grows_faster(accuracy: float, cost: float) -> None:
    found = optimum("regimes", accuracy=accuracy, cost=cost)
    assert "dynamic programming" in found.method
    low, high = found.low[:, 0], np.sort(found.high[:, 0])[::-1]
    assert (found.low[:, 0] <= found.high[:, 0]).all()
    rng = np.random.default_rng(2)
    grid = Grid(found.chain, cost)
    for spread in (0.02, 0.1, 0.5):
        for _ in range(6):
            edges = np.sort(
                np.clip(np.stack([low, high]) + spread * rng.normal(size=(2, 2)), 0, 1), 0
            )
            targets = np.clip(grid.nodes, edges[0][:, None], edges[1][:, None])
            assert grid.growth(targets) <= found.growth + 1e-9


def test_costs_widen_the_band_and_cost_growth() -> None:
    bands = [optimum("regimes", accuracy=0.8, cost=cost) for cost in (0.0, 0.005, 0.02, 0.1)]
    growth = [found.growth for found in bands]
    assert growth == sorted(growth, reverse=True)
    widths = [float((found.high - found.low)[0, 0]) for found in bands]
    assert widths == sorted(widths) and widths[0] == 0.0 and widths[1] > 0.1
    tiny = optimum("regimes", accuracy=0.8, cost=1e-6)
    assert tiny.growth == pytest.approx(growth[0], abs=1e-6)
    assert tiny.low[0, 0] == pytest.approx(bands[0].low[0, 0], abs=0.02)


def test_growth_under_costs_is_what_long_paths_earn() -> None:
    for options in ({"cost": 0.02}, {"cost": 0.02, "accuracy": 0.8}):
        found = optimum("regimes", **options)
        mean, error = simulated(found)
        assert mean == pytest.approx(found.growth, abs=4 * error)


def test_the_grid_is_fine_enough() -> None:
    chain = optimum("regimes").chain
    growth = [
        Grid(chain, 0.02, points).growth(Grid(chain, 0.02, points).best()) for points in (501, 2001)
    ]
    assert growth[0] == pytest.approx(growth[1], rel=2e-5)


def test_alternating_returns_are_followed_until_costs_eat_them() -> None:
    assert optimum("alternating").growth == pytest.approx(np.log(1.1) / 2, abs=1e-9)
    followed = np.log(1.1 * (1 - 0.005) / (1 + 0.005)) / 2
    assert optimum("alternating", cost=0.005).growth == pytest.approx(followed, abs=1e-9)
    assert optimum("alternating", cost=0.1).growth == pytest.approx(0.0, abs=1e-6)
    market = load("alternating", periods=100)
    up = market.features[:-1, 0, 1] > 0
    np.testing.assert_allclose(market.returns[1:, 0], np.where(up, 0.1, 1 / 1.1 - 1), atol=1e-12)


def test_the_best_of_a_menu() -> None:
    menu = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    free = optimum("regimes", accuracy=0.8)
    by_hand = max(free.chain.log_growth(np.zeros(3, int), menu)) / 2
    assert free.growth_within(menu) == pytest.approx(by_hand, abs=1e-12)
    paid = optimum("regimes", cost=0.02)
    both = []
    for chosen in (1, 2):
        rule = np.array([chosen, 0])
        both.append(paid.growth_of(lambda states, _, rule=rule: menu[rule[states]]))  # type: ignore[misc]
    assert max(both) - 1e-9 <= paid.growth_within(menu) <= paid.growth
    with pytest.raises(SettingError, match="sum to 1"):
        free.growth_within(np.array([[0.5, 0.6]]))


def test_decisions_along_a_path_are_valued_without_luck() -> None:
    for options in ({}, {"accuracy": 0.8}):
        market = load("regimes", periods=400, **options)
        found = market.optimum
        held = np.random.default_rng(0).dirichlet(np.ones(2), 400)
        targets = found.policy(found.states(market), held)
        assert found.growth_along(market, held, targets) == pytest.approx(found.growth, abs=1e-9)
    market = load("regimes", periods=20000, cost=0.02)
    found, states = market.optimum, market.optimum.states(market)
    held, targets = np.empty((20000, 2)), np.empty((20000, 2))
    weights = np.array([0.0, 1.0])
    for t in range(20000):
        held[t] = weights
        targets[t] = found.policy(states[t : t + 1], weights[None])[0]
        grown = targets[t] * (1 + market.returns[min(t + 1, 19999)])
        weights = grown / grown.sum()
    assert found.score_of(found.growth_along(market, held, targets)) == pytest.approx(1, abs=0.05)


def test_costs_need_one_risky_asset() -> None:
    with pytest.raises(SettingError, match="needs one risky asset and cash, got 4 assets"):
        Optimum.solve("kelly", optimum("kelly").chain, 0.01)
    with pytest.raises(SettingError, match="probabilities must be >= 0 and sum to 1"):
        Chain.independent(np.zeros((2, 2)), np.array([0.5, 0.6]))


# ---- paths


def test_the_signal_is_right_as_often_as_it_says() -> None:
    for accuracy, hand in ((1.0, 200), (0.8, 200), (0.8, None)):
        market = load("regimes", periods=20001, accuracy=accuracy, hand=hand)
        signal, moves = market.features[:-1, 0, 1], market.returns[1:, 0]
        up = np.isclose(np.abs(moves - 0.01), 0.1)
        share = np.mean(up == (signal > 0))
        assert share == pytest.approx(accuracy, abs=0.012)
        assert np.mean(signal[1:] == signal[:-1]) == pytest.approx(0.95, abs=0.008)


def test_hands_hold_each_outcome_in_proportion() -> None:
    market = load("kelly", periods=2001, hand=160)
    found = market.optimum.chain
    drawn = np.abs(market.returns[1:, None] - found.outcomes).sum(2).argmin(1)
    for start in range(0, 1920, 160):
        assert (np.bincount(drawn[start : start + 160], minlength=16) == 10).all()
    assert any("hands of 160" in note for note in market.notes)
    free = load("kelly", periods=2001, hand=None)
    drawn = np.abs(free.returns[1:, None] - found.outcomes).sum(2).argmin(1)
    assert np.bincount(drawn[:160], minlength=16).std() > 0


def counted_growth(market: Market, hand: int) -> tuple[float, float]:
    """Log growth a period, on the path, of the optimum and of who counts the cards.

    Late in a hand the counter goes all into what the cards that are left say is best.
    """
    chain, best = market.optimum.chain, market.optimum.low[0]
    odds, returns = chain.probabilities[0], market.returns[1:]
    menu = np.vstack([best, np.eye(chain.n_assets)])
    drawn = np.abs(returns[:, None] - chain.outcomes).sum(2).argmin(1)
    counting = []
    for start in range(0, len(drawn), hand):
        left = odds * hand
        for place, card in enumerate(drawn[start : start + hand]):
            due = 0.9 * left / max(left.sum(), 1e-9) + 0.1 * odds
            pick = int((np.log1p(menu @ chain.outcomes.T) @ due).argmax()) * (place >= 0.9 * hand)
            counting.append(np.log1p(menu[pick] @ chain.outcomes[card]))
            left[card] = max(left[card] - 1, 0.0)
    return float(np.log1p(returns @ best).mean()), float(np.mean(counting))


@pytest.mark.parametrize("kind", ["kelly", "merton"])
def test_the_optimum_is_of_policies_without_memory_where_outcomes_are_dealt(kind: str) -> None:
    dealt, free = load(kind, seed=3), load(kind, seed=3, hand=None)
    best, counter = counted_growth(dealt, 200)
    assert best == pytest.approx(dealt.optimum.growth, rel=0.02)
    assert counter > best + 0.0005 and counter > dealt.optimum.growth
    best, counter = counted_growth(free, 200)
    assert counter < best
    assert "policies without memory of earlier outcomes" in dealt.optimum.method
    assert "which do not count them" in " ".join(dealt.notes)
    assert "memory" not in free.optimum.method and not free.notes
    assert dealt.optimum.growth == free.optimum.growth


def test_gbm_has_the_moments_asked_for() -> None:
    market = load("gbm", periods=50000, n_assets=3, drift=0.1, volatility=0.2, correlation=0.4)
    logs = np.log1p(market.returns[1:, :3])
    np.testing.assert_allclose(logs.std(0) * 252**0.5, [0.1, 0.2, 0.3], rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(logs.T)[np.triu_indices(3, 1)], 0.4, atol=0.02)
    assert (1 + market.returns[1:, -1]) ** 252 == pytest.approx(1.02)


def test_mean_reverting_prices_close_their_gap_at_the_speed_asked_for() -> None:
    market = load("mean_reverting", periods=50000, half_life=10.0)
    gap, logs = market.features[:-1, 0, 1].astype(float), np.log1p(market.returns[1:, 0])
    slope = np.polyfit(gap, logs, 1)[0]
    assert slope == pytest.approx(1 - 2 ** (-1 / 10), rel=0.06)
    np.testing.assert_allclose(
        market.prices[1:, 0] / market.prices[0, 0],
        np.exp(gap[0] - market.features[1:, 0, 1]),
        rtol=1e-4,
    )


def test_the_bootstrap_keeps_rows_tails_and_correlations() -> None:
    source = load_market("multi_asset")
    market = load("bootstrap", of=source, periods=20000, block=25.0)
    assert market.assets == source.assets and market.sectors == source.sectors
    known = {row.tobytes() for row in source.returns[1:]}
    rows = np.unique(market.returns[1:200].round(12), axis=0)
    assert all(np.abs(source.returns - row).sum(1).min() < 1e-10 for row in rows[:20])
    assert len(known) > 4000

    def shape(returns: np.ndarray) -> tuple[float, float]:
        scaled = (returns[:, 0] - returns[:, 0].mean()) / returns[:, 0].std()
        return float((scaled**4).mean()), float(np.corrcoef(returns[:, 0], returns[:, 2])[0, 1])

    (tail, link), (tail_there, link_there) = shape(market.returns), shape(source.returns)
    assert tail == pytest.approx(tail_there, rel=0.25) and tail > 6
    assert link == pytest.approx(link_there, abs=0.05)
    named = load("bootstrap", periods=100)
    assert named.name == "synthetic bootstrap of multi_asset"


def test_blocks_have_the_mean_length_asked_for_and_go_round() -> None:
    rows = stationary_rows(1000, 100_000, 12.5, np.random.default_rng(0))
    breaks = np.mean(np.diff(rows) % 1000 != 1)
    assert 1 / breaks == pytest.approx(12.5, rel=0.03)
    assert np.bincount(rows, minlength=1000).min() > 40


def test_the_bootstrap_needs_assets_that_trade_throughout() -> None:
    source = load("gbm", periods=60)
    prices = source.prices.copy()
    prices[:10, 1] = np.nan
    late = Market(dates=source.dates, assets=source.assets, prices=prices, name="late")
    with pytest.raises(DataError, match="late: 'asset_1' is not tradable throughout"):
        load("bootstrap", of=late)
