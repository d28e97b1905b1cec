"""Finite sets of allocations for value learners: a lattice, pairwise moves, a menu of portfolios.

Lattice(4)      every portfolio in steps of 1/4             C(k + N - 1, N - 1) actions
Moves(0.1)      hold, or shift 10 % from one to another     1 + N (N - 1)
Menu()          equal weight, each asset alone, momentum,   N + 4
                inverse volatility, minimum variance
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from envs.action_base import Discretisation, checked_target
from envs.portfolios import PORTFOLIOS, make_portfolio
from market import Market, SettingError

MAX_ACTIONS = 20_000
EACH_ASSET = "each_asset"  # of a menu: N portfolios

PortfolioSpec = str | Callable[[Market], np.ndarray]


@dataclass(frozen=True)
class Lattice(Discretisation):
    """All weights in steps of 1/k: C(k + N - 1, N - 1) portfolios.

    Args:
        k: Steps from nothing to everything, >= 1.

    """

    k: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.k, numbers.Integral) or self.k < 1:
            raise SettingError(f"lattice: k must be a whole number >= 1, got {self.k!r}")

    def size(self, n_assets: int) -> int:
        """C(k + N - 1, N - 1), refused beyond 20,000."""
        size = math.comb(self.k + n_assets - 1, n_assets - 1)
        if size > MAX_ACTIONS:
            raise SettingError(
                f"lattice: steps of 1/{self.k} over {n_assets} assets make {size:,} portfolios, "
                f"more than {MAX_ACTIONS:,}; use {self._instead(n_assets)}"
            )
        return size

    def names(self, market: Market) -> list[str]:
        """Such as "50 % sp500, 50 % cash"."""
        return [portfolio_name(row, market) for row in lattice_points(market.n_assets, self.k)]

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """The chosen portfolio."""
        return lattice_points(held.shape[-1], self.k)[self.choice(action, held)]

    def _instead(self, n_assets: int) -> str:
        """The finest lattice within the limit, and sets that grow more slowly."""
        fits = [k for k in range(1, self.k) if math.comb(k + n_assets - 1, k) <= MAX_ACTIONS]
        others = [f"lattice({fits[-1]})"] if fits else []
        if 1 + n_assets * (n_assets - 1) <= MAX_ACTIONS:
            others.append(f"moves(0.1) with {1 + n_assets * (n_assets - 1):,}")
        return ", ".join([*others, f"or menu with {Menu().size(n_assets):,}"])


@dataclass(frozen=True)
class Moves(Discretisation):
    """Action 0 holds; the others shift `step` from A to B, or all of A where less is held.

    Actions 1 .. N (N - 1) run through all A and, for each, through all B other than A.

    Args:
        step: Fraction of portfolio value shifted, in (0, 1].

    """

    step: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.step, numbers.Real) or not 0.0 < self.step <= 1.0:
            raise SettingError(f"moves: step must be in (0, 1], got {self.step!r}")

    def size(self, n_assets: int) -> int:
        """1 + N (N - 1), refused beyond 20,000."""
        size = 1 + n_assets * (n_assets - 1)
        if size > MAX_ACTIONS:
            raise SettingError(
                f"moves: pairs of {n_assets} assets make {size:,} actions, more than "
                f"{MAX_ACTIONS:,}; use menu with {Menu().size(n_assets):,}"
            )
        return size

    def names(self, market: Market) -> list[str]:
        """Such as "10 % sp500 -> gold"."""
        source, sink = asset_pairs(market.n_assets)
        step = f"{100 * self.step:.3g} %"
        pairs = zip(source[1:], sink[1:], strict=True)
        return ["hold", *(f"{step} {market.assets[a]} -> {market.assets[b]}" for a, b in pairs)]

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """What is held, shifted; holding trades nothing at all."""
        choice = self.choice(action, held)
        source, sink = (assets[choice][..., None] for assets in asset_pairs(held.shape[-1]))
        given = np.take_along_axis(held, source, -1)
        shift = np.where(choice[..., None] > 0, np.minimum(self.step, given), 0.0)
        target = held.copy()
        np.put_along_axis(target, source, given - shift, -1)
        received = np.take_along_axis(target, sink, -1) + shift
        np.put_along_axis(target, sink, received, -1)
        return target


@dataclass(frozen=True)
class Menu(Discretisation):
    """Named portfolios, each computed from the market's past at the day of the decision.

    Args:
        portfolios: Names in `PORTFOLIOS` with settings, such as "momentum(120)"; "each_asset" for
            every asset alone, cash too; or functions of the market up to the day -> weights (N,).

    """

    portfolios: Sequence[PortfolioSpec] = (
        "equal_weight",
        EACH_ASSET,
        "momentum",
        "inverse_volatility",
        "minimum_variance",
    )
    past: _Past | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        chosen = (self.portfolios,) if isinstance(self.portfolios, str) else tuple(self.portfolios)
        if not chosen:
            raise SettingError(f"menu: needs a portfolio, got none; valid: {sorted(PORTFOLIOS)}")
        object.__setattr__(self, "portfolios", chosen)
        for portfolio in set(chosen) - {EACH_ASSET}:
            make_portfolio(portfolio)

    def bind(self, market: Market) -> Menu:
        """The menu over this market's past."""
        return replace(self, past=_Past(market, self))

    def size(self, n_assets: int) -> int:
        """One for each portfolio, N for "each_asset"."""
        return sum(n_assets if name == EACH_ASSET else 1 for name in self.portfolios)

    def names(self, market: Market) -> list[str]:
        """As given; of "each_asset", the assets' names."""
        names: list[str] = []
        for given in self.portfolios:
            if given == EACH_ASSET:
                names.extend(market.assets)
            else:
                names.append(given if isinstance(given, str) else _function_name(given))
        return names

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """The chosen portfolio as of row t."""
        choice = self.choice(action, held)
        if self.past is None:
            raise SettingError("menu: call bind(market) first, whose past the portfolios read")
        return self.past.menus(t)[(*np.indices(choice.shape), choice)]

    def weights(self, history: Market) -> np.ndarray:
        """Every portfolio of the menu at the end of `history`, (K, N)."""
        n_assets = history.n_assets
        rows: list[np.ndarray] = []
        for given in self.portfolios:
            if given == EACH_ASSET:
                rows.extend(np.eye(n_assets))
            else:
                weights = make_portfolio(given)(history)
                rows.append(checked_target(weights, np.zeros(n_assets), self))
        return np.stack(rows)


class _Past:
    """The menu (K, N) of each row of a market, computed when first asked for."""

    def __init__(self, market: Market, menu: Menu) -> None:
        self._market, self._menu = market, menu
        size = menu.size(market.n_assets)
        self._table = np.empty((market.n_periods, size, market.n_assets))
        self._known = np.zeros(market.n_periods, bool)

    def menus(self, t: Any) -> np.ndarray:
        """The menus of rows t (*B,), (*B, K, N)."""
        known = self._known[t]
        if not np.all(known):
            for row in np.unique(np.asarray(t)[~known]):
                self._table[row] = self._menu.weights(self._market.upto(int(row)))
                self._known[row] = True
        return self._table[t]


@lru_cache(maxsize=8)
def lattice_points(n_assets: int, k: int) -> np.ndarray:
    """All non-negative integer vectors that sum to k, over k, in lexical order, (size, N)."""
    if n_assets == 1:
        return np.ones((1, 1))
    rows = [
        np.column_stack([np.full(len(rest), first), rest * (k - first)])
        for first in range(k + 1)
        for rest in (
            lattice_points(n_assets - 1, k - first) if first < k else np.zeros((1, n_assets - 1)),
        )
    ]
    return np.concatenate(rows) / k


@lru_cache(maxsize=8)
def asset_pairs(n_assets: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and sink of each move, (1 + N (N - 1),) each; of the first, which holds, (0, 0)."""
    source, sink = np.nonzero(~np.eye(n_assets, dtype=bool))
    return np.append(0, source), np.append(0, sink)


def portfolio_name(weights: np.ndarray, market: Market) -> str:
    """The non-zero weights in words."""
    parts = zip(weights, market.assets, strict=True)
    return ", ".join(f"{100 * weight:.3g} % {asset}" for weight, asset in parts if weight > 0.0)


def _function_name(function: Any) -> str:
    if isinstance(function, partial):
        return _function_name(function.func)
    return getattr(function, "__name__", type(function).__name__)
