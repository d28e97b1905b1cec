"""The spaces of what is observed."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from market import Market


def observed(market: Market, lookback: int, compact: bool, mask: bool) -> spaces.Dict:
    """A window of features and of context where the market has any, or its end row; weights.

    Args:
        market: What is traded.
        lookback: Rows of a window.
        compact: Name the window by its last row instead of copying it.
        mask: Say which assets are tradable.

    """
    n_assets, unbounded = market.n_assets, (-np.inf, np.inf)
    parts: dict[str, spaces.Space] = {}
    if compact:
        parts["time"] = spaces.Box(0, market.n_periods - 1, (1,), np.int64)
    else:
        n_features, n_context = len(market.feature_names), len(market.context_names)
        parts["features"] = spaces.Box(*unbounded, (lookback, n_assets, n_features), np.float32)
        if n_context:
            parts["context"] = spaces.Box(*unbounded, (lookback, n_context), np.float32)
    parts["weights"] = spaces.Box(0.0, 1.0, (n_assets,), np.float32)
    if mask:
        parts["tradable"] = spaces.Box(0, 1, (n_assets,), np.int8)
    return spaces.Dict(parts)
