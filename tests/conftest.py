"""Small seeded markets that the tests share."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from market import Market


def random_market(
    periods: int = 120, risky: int = 4, seed: int = 0, cash_rate: float | None = 0.02, **fields
) -> Market:
    """A geometric random walk of `risky` assets, with cash unless cash_rate is None."""
    rng = np.random.default_rng(seed)
    log_returns = rng.normal(0.0003, 0.012, (periods, risky))
    frame = pd.DataFrame(
        100.0 * np.exp(np.cumsum(log_returns, axis=0)),
        index=pd.bdate_range("2015-01-01", periods=periods),
        columns=[f"A{i}" for i in range(risky)],
    )
    return Market.from_prices(frame, cash_rate=cash_rate, **fields)


@pytest.fixture
def make_market() -> Callable[..., Market]:
    return random_market


@pytest.fixture
def market() -> Market:
    return random_market()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240613)
