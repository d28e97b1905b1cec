"""Synthetic markets whose best policy is known; the returned `Market` carries it as `.optimum`.

Outcomes are few and large, so that a path of some thousand periods says what there is to learn:
think of months rather than days. All growth rates are logarithmic and per period. Cash earns 0.

The optimum is that of independent draws. A path by default deals its outcomes in shuffled hands,
without replacement, so that it shows the true odds: who counts what a hand still holds can earn
more on it than the optimum. No policy of the state and the weights held can count. With `hand=None`
draws are independent, and the optimum is the best of all policies.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from market.errors import SettingError
from market.market import CASH, Market
from market.sources.chain import Chain
from market.sources.optimum import SIGNAL, Optimum
from market.sources.paths import check_number, market_of_returns

HAND = 200
_HERMITE = 5


def kelly(
    seed: int = 0,
    periods: int = 5000,
    *,
    means: Sequence[float] = (0.025, 0.006, 0.003),
    volatilities: Sequence[float] = (0.2, 0.15, 0.1),
    correlation: float = 0.1,
    hand: int | None = HAND,
) -> Market:
    """Independent periods in which every asset rises or falls; the optimum is Kelly's.

    r_i = mean_i + volatility_i * (sqrt(c) * f + sqrt(1 - c) * e_i), all of f, e_1 .. e_n being fair
    draws of +1 or -1. The default has its optimum inside the simplex, cash included.

    Args:
        seed: Of the path; the market is the same for all seeds.
        periods: Rows.
        means: Expected return of each risky asset.
        volatilities: Standard deviation of each.
        correlation: Between any two of them, c in [0, 1).
        hand: Outcomes come in shuffled hands of so many that hold each in proportion, so that the
            path shows the true odds, and rewards who counts them; None: independent draws, of
            which the optimum is the best of all policies.

    """
    mean, volatility = np.asarray(means, float), np.asarray(volatilities, float)
    if mean.shape != volatility.shape or mean.ndim != 1 or not 1 <= mean.size <= 8:
        raise SettingError(
            f"means and volatilities: need one number each for 1 to 8 assets, got {mean.shape} "
            f"and {volatility.shape}"
        )
    check_number("correlation", correlation, 0.0, 1.0, "[)")
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=mean.size + 1)))
    shocks = np.sqrt(correlation) * signs[:, :1] + np.sqrt(1.0 - correlation) * signs[:, 1:]
    chain = Chain.independent(
        _beside_cash(mean + volatility * shocks), np.full(len(signs), 1 / len(signs))
    )
    return _market("kelly", chain, seed, periods, hand)


def regimes(
    seed: int = 0,
    periods: int = 5000,
    *,
    accuracy: float = 1.0,
    cost: float = 0.0,
    stay: float = 0.95,
    edge: float = 0.01,
    volatility: float = 0.1,
    hand: int | None = HAND,
) -> Market:
    """A risky asset that tends up or down, cash, and a feature that says which.

    The feature "signal" is +1 or -1 and stays what it is with probability `stay`. The next return
    has the mean signal * edge with probability `accuracy`, else the opposite one, and lies one
    volatility above or below that mean, at even odds. Nothing but the signal is of any help.

    Args:
        seed: Of the path; the market is the same for all seeds.
        periods: Rows.
        accuracy: How often the signal is right, in [0.5, 1].
        cost: Proportional cost for which the optimum is solved: a no-trade band. The market does
            not charge it; set the same rate in the environment.
        stay: Probability that the signal stays.
        edge: Size of the mean return.
        volatility: Standard deviation around the mean.
        hand: As in `kelly`, for each signal.

    """
    check_number("accuracy", accuracy, 0.5, 1.0)
    check_number("stay", stay, 0.0, 1.0, "()")
    risky = [edge + volatility, edge - volatility, volatility - edge, -volatility - edge]
    right, wrong = accuracy / 2.0, (1.0 - accuracy) / 2.0
    chain = Chain(
        np.array([[stay, 1.0 - stay], [1.0 - stay, stay]]),
        np.array([[right, right, wrong, wrong], [wrong, wrong, right, right]]),
        _beside_cash(np.array(risky)[:, None]),
        np.array([1.0, -1.0]),
    )
    return _market("regimes", chain, seed, periods, hand, cost)


def alternating(
    seed: int = 0, periods: int = 5000, *, step: float = 0.1, cost: float = 0.0
) -> Market:
    """A risky asset that rises by `step` and falls back to where it was, in turn, and cash.

    The feature "signal" is +1 before a rise and -1 before a fall; so does the last return tell.

    Args:
        seed: Says whether the first period rises or falls.
        periods: Rows.
        step: Simple return of a rise; the fall is 1 / (1 + step) - 1.
        cost: As in `regimes`.

    Source: the motivating market of Li & Hoi, On-line portfolio selection with moving average
    reversion (2012).

    """
    check_number("step", step, 0.0, np.inf, "()")
    chain = Chain(
        np.array([[0.0, 1.0], [1.0, 0.0]]),
        np.eye(2),
        _beside_cash(np.array([[step], [1.0 / (1.0 + step) - 1.0]])),
        np.array([1.0, -1.0]),
    )
    return _market("alternating", chain, seed, periods, None, cost)


def merton(
    seed: int = 0,
    periods: int = 5000,
    *,
    drift: float = 0.036,
    volatility: float = 0.2,
    cost: float = 0.0,
    hand: int | None = HAND,
) -> Market:
    """A geometric Brownian asset and cash: the best policy keeps Merton's constant fraction.

    Log returns are drift - volatility^2 / 2 + volatility * z, z one of the 5 nodes of Gauss-Hermite
    quadrature, which has the first nine moments of the normal. With logarithmic utility the
    fraction is drift / volatility^2 in continuous time; that of discrete periods is solved for.

    Args:
        seed: Of the path; the market is the same for all seeds.
        periods: Rows.
        drift: Excess return a period.
        volatility: Standard deviation of the log return a period.
        cost: As in `regimes`.
        hand: As in `kelly`.

    Source: Merton, Lifetime portfolio selection under uncertainty (1969).

    """
    check_number("volatility", volatility, 0.0, 10.0, "(]")
    shocks, chances = normal_nodes(_HERMITE)
    risky = np.expm1(drift - volatility**2 / 2.0 + volatility * shocks)
    chain = Chain.independent(_beside_cash(risky[:, None]), chances)
    note = f"; Merton's fraction in continuous time is {drift / volatility**2:.4g}"
    return _market("merton", chain, seed, periods, hand, cost, note)


def noise(
    seed: int = 0,
    periods: int = 2520,
    *,
    n_assets: int = 4,
    n_features: int = 3,
    mean: float = 0.0,
    volatility: float = 0.01,
) -> Market:
    """Independent assets alike in everything, with features that mean nothing; no cash.

    Returns are mean + volatility * z, z one of the 3 nodes of Gauss-Hermite quadrature. By symmetry
    equal weights are best without costs, and with costs not trading loses next to nothing.

    Args:
        seed: Of returns and features.
        periods: Rows.
        n_assets: 2 to 8.
        n_features: Standard normal features per asset, called noise_0, noise_1, ...
        mean: Expected simple return a period.
        volatility: Standard deviation.

    """
    if not 2 <= n_assets <= 8:
        raise SettingError(f"n_assets: must be in [2, 8], got {n_assets!r}")
    if n_features < 1:
        raise SettingError(f"n_features: must be >= 1, got {n_features!r}")
    outcomes, chances = product_nodes(3, n_assets)
    chain = Chain.independent(mean + volatility * outcomes, chances)
    equal = np.full((1, n_assets), 1.0 / n_assets)
    growth = float(chain.log_growth(np.zeros(1, int), equal)[0])
    method = "by symmetry: the assets are exchangeable, and growth is concave in the weights"
    optimum = Optimum("noise", chain, 0.0, equal, equal, growth, growth, method)
    rng = np.random.default_rng(seed)
    _, returns = chain.sample(periods, rng, None)
    assets = tuple(f"asset_{i}" for i in range(n_assets))
    names = tuple(f"noise_{i}" for i in range(n_features))
    features = rng.standard_normal((periods, n_assets, n_features)).astype(np.float32)
    return market_of_returns(
        "noise", returns, assets, 0.0, features=features, feature_names=names, optimum=optimum
    )


def normal_nodes(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and probabilities with the first 2 * points - 1 moments of the standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    return nodes, weights / weights.sum()


def product_nodes(points: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for `size` independent normals: (points ** size, size) and their probabilities."""
    nodes, chances = normal_nodes(points)
    values = np.array(list(itertools.product(nodes, repeat=size)))
    return values, np.array(list(itertools.product(chances, repeat=size))).prod(axis=1)


def _beside_cash(risky: np.ndarray) -> np.ndarray:
    return np.column_stack([risky, np.zeros(len(risky))])


def _market(
    kind: str,
    chain: Chain,
    seed: int,
    periods: int,
    hand: int | None,
    cost: float = 0.0,
    note: str = "",
) -> Market:
    if hand is not None and hand < 1:
        raise SettingError(f"hand: must be >= 1 or None, got {hand!r}")
    states, returns = chain.sample(periods, np.random.default_rng(seed), hand)
    risky = chain.n_assets - 1
    names = ("risky",) if risky == 1 else tuple(f"risky_{i}" for i in range(risky))
    shown = np.broadcast_to(chain.signals[states][:, None], returns.shape)
    notes: tuple[str, ...] = ()
    if hand is not None:
        dealt = f"outcomes are dealt in shuffled hands of {hand}"
        notes = (f"{dealt}: the optimum is that of policies which do not count them",)
        note += f"; of policies without memory of earlier outcomes: {dealt}, and counting pays"
    return market_of_returns(
        kind,
        returns,
        (*names, CASH),
        0.0,
        features=np.stack([returns, shown], axis=-1).astype(np.float32),
        feature_names=("return", SIGNAL),
        optimum=Optimum.solve(kind, chain, cost, note),
        notes=notes,
    )
