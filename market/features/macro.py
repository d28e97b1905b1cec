"""Features that all assets share: interest rates known at the close of each day, (T,) float64."""

from __future__ import annotations

import numpy as np

from market.errors import DataError
from market.market import Market


def term_spread(market: Market, long: str = "10y", short: str = "3m") -> np.ndarray:
    """Slope of the Treasury yield curve, a fraction a year.

    yield[long] - yield[short]

    Source: Fama & French, Journal of Financial Economics 25 (1989).
    """
    return treasury_yield(market, long) - treasury_yield(market, short)


def treasury_yield(market: Market, maturity: str = "3m") -> np.ndarray:
    """Treasury par yield of one maturity, a fraction a year.

    yield[maturity]
    """
    name = f"yield_{maturity}"
    if name not in market.context_names:
        raise DataError(
            f"{market.name}: has no '{name}' in its context ({list(market.context_names)})"
        )
    return market.context[:, market.context_names.index(name)].astype(np.float64)
