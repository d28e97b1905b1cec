"""Small seeded markets that the tests share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from market import Market
from tests.forks import Forks


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


def write_prices(folder: Path, dates: pd.DatetimeIndex) -> Path:
    """The file `prices.csv` of two assets in a folder, and its path."""
    steps = np.random.default_rng(3).normal(0.0005, 0.01, (len(dates), 2))
    frame = pd.DataFrame(100.0 * np.exp(np.cumsum(steps, 0)), dates, ["AAA", "BBB"])
    path = folder / "prices.csv"
    frame.rename_axis("date").to_csv(path)
    return path


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> Iterator[Forks]:
    """Calls in children of one process that has imported everything, started at first need."""
    with Forks(tmp_path_factory.mktemp("forks") / "log") as made:
        yield made


@pytest.fixture
def make_market() -> Callable[..., Market]:
    return random_market


@pytest.fixture
def market() -> Market:
    return random_market()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240613)


@contextmanager
def address_space(size: int) -> Iterator[None]:
    """This process may have no more bytes than these, by the system's own limit."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
