"""What is asked of speed, line by line: our rate beside that of bare numpy, or of a peer."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks import bare, games
from benchmarks.sekai_peer import Sekai
from benchmarks.timing import Task, best_rates


class Line(NamedTuple):
    """Our task, what it is held against, and the least ratio of our rate to the other's."""

    name: str
    ours: Task
    other_name: str
    other: Task
    least: float


class Result(NamedTuple):
    """A line measured: steps a second."""

    name: str
    ours: float
    other_name: str
    other: float
    least: float

    @property
    def ratio(self) -> float:
        """Our rate over the other's."""
        return self.ours / self.other

    @property
    def met(self) -> bool:
        """Whether the ratio is at least what is asked."""
        return self.ratio >= self.least


def lines(sekai: Sekai | None) -> list[Line]:
    """All lines; those against sekai where it runs.

    The least ratios come from one quiet machine: 40,000 steps a second alone where bare numpy made
    61,000; 1,000,000 of 256 environments where it copied 7,000,000 windows; 2,000,000 of compact
    ones where it made 2,200,000.
    """
    plain, wide = games.make_market(), games.make_market(n_features=8)
    found = [
        Line(f"single, window, {name}", games.single(market), "numpy", bare.single(market), 40 / 61)
        for name, market in (("1 feature", plain), ("8 features", wide))
    ]
    copies = [bare.window_copies(market, 256) for market in (plain, wide)]
    found += [
        Line("256, window, 1 feature", games.batch(plain, 256), "copies", copies[0], 1 / 7),
        Line("256, window, 8 features", games.batch(wide, 256), "copies", copies[1], 0.7),
    ]
    for n in (1024, 4096):
        ours = games.batch(plain, n, compact=True)
        found.append(Line(f"{n:,}, compact", ours, "numpy", bare.compact(plain, n), 2.0 / 2.2))
    return found + constrained() + (against(sekai) if sekai else [])


def constrained() -> list[Line]:
    """All constraints on, against none: no worse than 5 times slower."""
    market, limits = games.make_market(), games.all_constraints()
    alone = games.single(market, 500, constraints=limits), games.single(market, 500)
    found = [Line("single, all constraints", alone[0], "none", alone[1], 1 / 5)]
    for n in (256, 1024):
        steps = max(10, 20_480 // n)
        on = games.batch(market, n, steps, compact=True, constraints=limits)
        off = games.batch(market, n, steps, compact=True)
        found.append(Line(f"{n:,}, compact, all constraints", on, "none", off, 1 / 5))
    return found


def against(sekai: Sekai) -> list[Line]:
    """Window observations of one feature, which sekai has too."""
    market = games.make_market()
    found = [Line("single, window", games.single(market), "sekai", sekai.task(1, 1000), 1.0)]
    for n in (16, 256):
        steps = 200 if n == 16 else 40
        ours, theirs = games.batch(market, n, steps), sekai.task(n, steps)
        found.append(Line(f"{n}, window", ours, "sekai", theirs, 1.0))
    return found


def measure(line: Line, repeats: int) -> Result:
    """Both tasks, in turns."""
    rates = best_rates({"ours": line.ours, "other": line.other}, repeats)
    return Result(line.name, rates["ours"], line.other_name, rates["other"], line.least)
