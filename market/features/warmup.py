"""How many rows features need before their first value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from market.errors import InputError
from market.features.build import FeatureSet, build_features
from market.features.specification import expand_features, parse_feature
from market.market import Market

_MOST_ROWS = 60_000
_MATURITIES = ("yield_3m", "yield_10y")


def warmup_rows(built: FeatureSet) -> tuple[int, str]:
    """How many leading rows hold a nan, and the feature that takes longest."""
    slowest, rows = "", 0
    for names, panel in (
        (built.names, built.features.transpose(2, 0, 1)),
        (built.context_names, built.context.T[:, :, None]),
    ):
        for name, values in zip(names, panel, strict=True):
            missing = np.flatnonzero(np.isnan(values).any(axis=1))
            if missing.size and missing[-1] + 1 > rows:
                slowest, rows = name, int(missing[-1]) + 1
    return rows, slowest


def rows_needed(market: Market, specs: str | Sequence[str], feature: str) -> int | None:
    """Rows of history up to the first value of a feature, found out on made-up prices.

    Args:
        market: On which it has no value.
        specs: What was asked for.
        feature: The name one of them has in the market.

    Returns:
        The number of rows; None where it is not prices that are missing, or not to be found out.

    """
    spec = next(spec for spec in expand_features(specs) if parse_feature(spec).text == feature)
    entry = parse_feature(spec)
    if entry.feature.table or ":" in entry.name:
        return None
    named = [value for value in entry.settings.values() if value in market.assets]
    assets = list(dict.fromkeys([*named, *market.assets[:3]]))
    rows = 2 * market.n_periods
    while rows <= _MOST_ROWS:
        try:
            missing, _ = warmup_rows(build_features(_made_up(rows, assets), [spec]))
        except InputError:
            return None
        if missing < rows:
            return missing + 1
        rows *= 2
    return None


def _made_up(rows: int, assets: list[str]) -> Market:
    """A random walk with every panel and yield that features read."""
    rng = np.random.default_rng(0)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (rows, len(assets))), axis=0))
    panels: dict[str, Any] = {"highs": 1.01 * prices, "lows": 0.99 * prices, "volume": prices}
    return Market(
        dates=pd.bdate_range("1800-01-01", periods=rows),
        assets=tuple(sorted(assets, key="cash".__eq__)),
        prices=prices,
        context=np.full((rows, len(_MATURITIES)), 0.02),
        context_names=_MATURITIES,
        **panels,
    )
