"""How the time of a step grows with assets, batch and lookback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import games
from benchmarks.timing import Task, best_rates

ASSETS = (5, 20, 50, 100, 200, 500)
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
LOOKBACKS = (1, 10, 30, 60, 120, 250)
KINDS = ("single, window", "256, window", "256, compact")


class Point(NamedTuple):
    """Microseconds of one environment's step."""

    axis: str
    at: int
    kind: str
    microseconds: float


def measure(repeats: int) -> Iterator[Point]:
    """Every point of the three curves, axis by axis; kinds at the same place take turns."""
    for n in ASSETS:
        market = games.make_market(n)
        steps = max(10, 2000 // n)
        kinds = (
            games.single(market, 1000),
            games.batch(market, 256, steps),
            games.batch(market, 256, steps, compact=True),
        )
        yield from _points("assets", n, dict(zip(KINDS, kinds, strict=True)), repeats)
    market = games.make_market()
    for n in BATCHES:
        steps = max(10, 20_000 // (n + 100))
        kinds_of_batch: dict[str, Task] = {
            "window": games.batch(market, n, steps),
            "compact": games.batch(market, n, steps, compact=True),
        }
        yield from _points("environments", n, kinds_of_batch, repeats)
    for lookback in LOOKBACKS:
        kinds = (
            games.single(market, 1000, lookback=lookback),
            games.batch(market, 256, 50, lookback=lookback),
            games.batch(market, 256, 50, lookback=lookback, compact=True),
        )
        yield from _points("lookback", lookback, dict(zip(KINDS, kinds, strict=True)), repeats)


def _points(axis: str, at: int, tasks: dict[str, Task], repeats: int) -> Iterator[Point]:
    for kind, rate in best_rates(tasks, repeats).items():
        yield Point(axis, at, kind, 1e6 / rate)
