"""`envs.group_newton` for a single row: the same operations in the same order, hence the same bits.

It exists because Python's floats are several times faster than arrays of one row.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.group_split import (
    INSIDE,
    KEEP_PRICE,
    KEEP_SIGMA,
    LOST,
    MAX_STEPS,
    SINGULAR,
    TOLERANCE,
    WORSE,
    Problem,
    Split,
)

Array = NDArray[np.float64]
Sums = list[tuple[float, float, float, float]]  # of each group: free, signs, moved, traded


class Guess(NamedTuple):
    """Multipliers."""

    level: float
    mu: list[float]
    sigma: float

    def halfway(self, other: "Guess") -> "Guess":
        """The mean of two guesses."""
        mu = [0.5 * (a + b) for a, b in zip(self.mu, other.mu, strict=True)]
        return Guess(0.5 * (self.level + other.level), mu, 0.5 * (self.sigma + other.sigma))


class Stage(NamedTuple):
    """How far a row has come."""

    step: int
    guess: Guess
    before: Guess  # the best so far
    least: float  # its miss


class _Row(NamedTuple):
    """Everything relative to what is held, assets in the order of the split."""

    gap: list[float]
    least: list[float]
    most: list[float]
    floors: list[float]
    caps: list[float]
    total: float
    limit: float
    accuracy: float


def solve_row(
    split: Split, problem: Problem, stage: Stage | None = None
) -> tuple[Array, bool, list[float]]:
    """Solve one problem, its arrays 1-D, from the start or from a stage.

    Returns:
        x (N,), whether it is the solution, and where it stands: level, price of each group, sigma.

    """
    held = [problem.held.item(i) for i in split.order]
    row = _row(split, problem, held)
    step, guess, before, least = stage or _start(split, row)
    while True:
        trades, sums = _trades(split, row, guess)
        error, following = _newton(split, row, guess, sums)
        if step == 0 and error <= INSIDE and trades == row.gap:
            return problem.point, True, [0.0] * (len(sums) + 2)
        done = error <= row.accuracy
        if done or step == MAX_STEPS:
            break
        if error > WORSE * least:
            guess = before.halfway(guess)
        else:
            before, least, guess = guess, error, following
        step += 1
    weights = np.empty(len(held))
    weights[split.order] = [a + b for a, b in zip(held, trades, strict=True)]
    weights = np.minimum(np.maximum(weights, problem.lower), problem.upper)
    prices = [price - guess.level for price in guess.mu]
    return weights, done, [guess.level, *prices, guess.sigma]


def _row(split: Split, problem: Problem, held: list[float]) -> _Row:
    sums = [sum(held[start:stop]) for start, stop, _ in split.spans]
    point, lower, upper = (a.tolist() for a in (problem.point, problem.lower, problem.upper))
    return _Row(
        [point[i] - h for i, h in zip(split.order, held, strict=True)],
        [lower[i] - h for i, h in zip(split.order, held, strict=True)],
        [upper[i] - h for i, h in zip(split.order, held, strict=True)],
        [floor - s for floor, s in zip(problem.floors.tolist(), sums, strict=True)],
        [cap - s for cap, s in zip(problem.caps.tolist(), sums, strict=True)],
        1.0 - sum(sums),
        problem.limit,
        TOLERANCE * max(1.0, max(map(abs, point))),
    )


def _start(split: Split, row: _Row) -> Stage:
    asked = sigma = 0.0
    for start, stop, risky in split.spans:
        asked += sum(map(abs, row.gap[start:stop])) * risky
    if asked > row.limit + INSIDE and row.limit > 0.0:
        sigma = split.first_sigma(asked, row.limit)
    guess = Guess(0.0, [0.0] * len(split.spans), sigma)
    return Stage(0, guess, guess, math.inf)


def _trades(split: Split, row: _Row, guess: Guess) -> tuple[list[float], Sums]:
    trades, sums = [], []
    gaps, least, most = row[:3]
    for mu, (start, stop, risky) in zip(guess.mu, split.spans, strict=True):
        band = guess.sigma * risky
        free = signs = moved = traded = 0.0
        for i in range(start, stop):
            slack = gaps[i] - mu
            wanted = slack - band if slack > band else slack + band if slack < -band else 0.0
            if wanted > most[i]:
                wanted = most[i]
            elif wanted < least[i]:
                wanted = least[i]
            elif wanted > 0.0:
                free += 1.0
                signs += 1.0
            elif wanted < 0.0:
                free += 1.0
                signs -= 1.0
            trades.append(wanted)
            moved += wanted
            traded += abs(wanted)
        sums.append((free, signs * risky, moved, traded * risky))
    return trades, sums


def _newton(split: Split, row: _Row, guess: Guess, sums: Sums) -> tuple[float, Guess]:
    """The miss of a guess, and the next one."""
    level, mu, sigma = guess
    n_free = n_signs = n_risky = crossed = pull = turn = moves = trades = error = 0.0
    groups = []
    for g, (free, signs, moved, traded) in enumerate(sums):
        price = mu[g] - level
        wanted = KEEP_PRICE * price + moved
        allowed = min(max(wanted, row.floors[g]), row.caps[g])
        tight = wanted != allowed
        short = allowed - moved if tight else price
        divisor = free if free > 1.0 else 1.0
        ratio, push = signs / divisor, short if tight else free * short
        if tight:
            crossed += ratio * signs
        else:
            n_free += free
            n_signs += signs
        n_risky += free * split.spans[g][2]
        pull += push + moved
        turn += ratio * push + traded
        moves += moved
        trades += traded
        error = max(error, abs(short))
        jump = 0.0
        if tight and not free and abs(short) > row.accuracy:
            jump = _jump(row, *split.spans[g], mu[g], sigma, short)
        groups.append((tight, short, signs, divisor, jump))
    pull, turn, room = pull - row.total, turn - row.limit, row.limit - trades
    error = max(error, abs(row.total - moves), abs(min(sigma, room)))
    rise = _rise(sigma, room, (n_free, n_signs, n_risky - crossed, pull, turn))
    level = level + (pull - n_signs * rise) / max(n_free, 1.0)
    following = [
        price - (short + signs * rise) / divisor - jump if tight else level
        for price, (tight, short, signs, divisor, jump) in zip(mu, groups, strict=True)
    ]
    return error, Guess(level, following, sigma + rise)


def _rise(sigma: float, room: float, system: tuple[float, float, float, float, float]) -> float:
    """By how much sigma changes."""
    n_free, n_signs, spread, pull, turn = system
    if not KEEP_SIGMA * sigma > room:
        return -sigma
    n_free = max(n_free, 1.0)
    determinant = n_free * spread - n_signs * n_signs
    if determinant > SINGULAR:
        return max((n_free * turn - n_signs * pull) / determinant, -sigma)
    return max(math.copysign(LOST * sigma, turn), -sigma)


def _jump(
    row: _Row, start: int, stop: int, risky: float, mu: float, sigma: float, short: float
) -> float:
    """How much further a price must fall for the first weight of a group to move, all at rest."""
    band, way = sigma * risky, math.inf
    for gap, least, most in zip(*(part[start:stop] for part in row[:3]), strict=True):
        if least == most:
            continue
        slack = gap - mu
        bottom = least - band if least < 0.0 else least + band  # below it a weight is at its least
        top = most + band if most > 0.0 else most - band  # above it, at its most
        if short > 0.0 and slack < bottom:
            way = min(way, bottom - slack)
        elif short <= 0.0 and slack > top:
            way = min(way, slack - top)
        elif abs(slack) <= band and least < 0.0 < most:
            way = min(way, band - slack if short > 0.0 else slack + band)
    if way == math.inf:
        return 0.0
    return way if short > 0.0 else -way
