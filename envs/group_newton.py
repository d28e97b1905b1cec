"""Fast nearest point where groups are disjoint: Newton steps on a handful of multipliers.

    minimise |x - y|^2 / 2   subject to   lower <= x <= upper,   sum x = 1,
                                          floor_g <= sum of group g <= cap_g,
                                          sum over risky assets of |x - held| <= limit

is solved by x = held + clip(soft(y - held - mu_g, sigma), lower - held, upper - held), where
soft(v, s) = v - clip(v, -s, s), mu_g = level + price_g is shared by group g and sigma >= 0 prices
turnover. The conditions on (level, mu, sigma) are piecewise linear; a Newton step solves those of
the present piece, which after eliminating mu_g is a 2 x 2 system. Most rows are done after two to
four steps; the few that stall are left to `envs.dual_ascent`.

Source: Qi & Sun, A nonsmooth version of Newton's method (1993).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.compiled import COMPILES
from envs.group_newton_row import (
    DAMPED,
    INSIDE,
    KEEP_PRICE,
    KEEP_SIGMA,
    LOST,
    MAX_STEPS,
    SINGULAR,
    TOLERANCE,
    WORSE,
    first_sigma,
    solve_rows,
)
from envs.group_split import Problem, Split

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

_clip = np._core.umath.clip  # type: ignore[attr-defined]  # np.clip without its Python layers


class _Tables(NamedTuple):
    """A batch as tables: everything relative to what is held."""

    gap: Array  # y - held, (depth, G, B)
    least: Array  # lower - held
    most: Array  # upper - held
    floors: Array  # (G, B)
    caps: Array  # (G, B)
    total: Array  # (B,)
    accuracy: Array  # (B,)

    def rows(self, keep: Indices) -> "_Tables":
        return _Tables(*(np.take(a, keep, axis=-1) if a.shape[-1] > 1 else a for a in self))


class _Guess(NamedTuple):
    """Multipliers."""

    level: Array  # (B,)
    mu: Array  # (G, B)
    sigma: Array  # (B,)

    def rows(self, keep: Indices) -> "_Guess":
        return _Guess(*(np.take(part, keep, axis=-1) for part in self))

    def where(self, flags: Flags, other: "_Guess") -> "_Guess":
        """This guess where flagged, else the other."""
        return _Guess(*(np.where(flags, a, b) for a, b in zip(self, other, strict=True)))

    def halfway(self, other: "_Guess") -> "_Guess":
        """The mean of two guesses."""
        return _Guess(*(0.5 * (a + b) for a, b in zip(self, other, strict=True)))

    def stand(self) -> Array:
        """Level, price of each group without the level, sigma, (B, G + 2)."""
        return np.column_stack([self.level, (self.mu - self.level).T, self.sigma])


def solve(split: Split, problem: Problem) -> tuple[Array, Flags, Array]:
    """Solve each row of a problem: one by one where that is compiled, else by numpy.

    Returns:
        x (B, N), rows that lie within all limits unchanged; which rows are solved, (B,); and where
        the others stand: level, price of each group, sigma, (B, G + 2).

    """
    # numpy takes longer for one row alone, and would add it up in another order
    if not COMPILES and len(problem.point) > 1:
        return solve_batch(split, problem)
    # other layouts would be compiled anew
    arrays = tuple(a if a.flags.carray else a.copy() for a in problem[:-1])
    return solve_rows(split.order, split.stops, split.flags, arrays, problem.limit)


def solve_batch(split: Split, problem: Problem) -> tuple[Array, Flags, Array]:
    """`solve` by numpy for two rows or more: a step is taken by all rows that are left."""
    n_rows = len(problem.point)
    tables, rows = _tables(split, problem), np.arange(n_rows)
    guess = before = _start(split, tables, problem.limit)
    trades, least = np.empty(tables.gap.shape), np.full(n_rows, np.inf)
    solved, stand = np.zeros(n_rows, bool), np.zeros((n_rows, len(split.groups) + 2))
    for step in range(MAX_STEPS + 1):
        trade, sums = _trades(split, tables, guess)
        error, following = _newton(split, tables, guess, sums, problem.limit)
        done = error <= tables.accuracy
        if step == 0:
            inside = (error <= INSIDE) & (trade == tables.gap).all(axis=(0, 1))
            done |= inside
        left = np.flatnonzero(~done)
        last = step == MAX_STEPS or not left.size
        if last or 2 * len(left) < len(done):
            trades[..., rows], solved[rows] = trade, done
        if last:
            break
        worse = error > WORSE * least
        if step >= DAMPED and step % 2 == 0:
            following = following.halfway(guess)
        following = before.halfway(guess).where(worse, following)
        before, least = before.where(worse, guess), np.where(worse, least, error)
        guess = guess.where(done, following)  # a solved row stays, whatever its neighbours need
        if 2 * len(left) < len(done):
            # never one row alone, which numpy would add up in another order
            left = left if len(left) > 1 else np.append(left, np.flatnonzero(done)[0])
            rows, tables, least = rows[left], tables.rows(left), least[left]
            guess, before = guess.rows(left), before.rows(left)
    weights = np.clip(problem.held + split.gather(trades), problem.lower, problem.upper)
    weights = np.where(inside[:, None], problem.point, weights)
    stand[rows[left]] = guess.rows(left).stand()
    return weights, solved, stand


def _tables(split: Split, problem: Problem) -> _Tables:
    held = split.spread(problem.held)
    sums = np.add.reduce(held, axis=0)
    return _Tables(
        gap=split.spread(problem.point) - held,
        least=split.spread(problem.lower) - held,
        most=split.spread(problem.upper) - held,
        floors=problem.floors.T - sums,
        caps=problem.caps.T - sums,
        total=1.0 - np.add.reduce(sums, axis=0),
        accuracy=TOLERANCE * np.maximum(1.0, np.abs(problem.point).max(axis=-1)),
    )


def _start(split: Split, tables: _Tables, limit: float) -> _Guess:
    """No prices, and a guess at sigma where more turnover is asked for than there may be."""
    asked = np.add.reduce(np.add.reduce(np.abs(tables.gap), axis=0) * split.risky, axis=0)
    sigma = np.zeros(asked.shape)
    if 0.0 < limit < np.inf:
        sigma = np.where(asked > limit + INSIDE, first_sigma(asked, limit, split.n_risky), 0.0)
    return _Guess(np.zeros(asked.shape), np.zeros((len(split.risky), len(asked))), sigma)


def _trades(split: Split, tables: _Tables, guess: _Guess) -> tuple[Array, Array]:
    """Trades at the guess, and for each group the sums (4, G, B): free, signs, moved, traded."""
    slack = tables.gap - guess.mu
    band = guess.sigma * split.risky
    wanted = slack - _clip(slack, -band, band)
    parts = np.empty((4, *slack.shape))
    trade = _clip(wanted, tables.least, tables.most, out=parts[2])
    np.multiply(np.sign(wanted), wanted == trade, out=parts[1])
    np.abs(parts[1], out=parts[0])
    np.abs(trade, out=parts[3])
    sums = np.add.reduce(parts, axis=1)
    if split.has_cash:
        sums[1::2, -1] = 0.0
    return trade, sums


def _newton(
    split: Split, tables: _Tables, guess: _Guess, sums: Array, limit: float
) -> tuple[Array, _Guess]:
    """By how much the guess misses the limits, (B,), and the next guess."""
    level, mu, sigma = guess
    free, signs, moved, traded = sums
    price = mu - level
    wanted = KEEP_PRICE * price + moved
    allowed = _clip(wanted, tables.floors, tables.caps)
    tight = wanted != allowed
    loose = ~tight
    short = np.where(tight, allowed - moved, price)
    divisor = np.maximum(free, 1.0)
    ratio, push = signs / divisor, short * np.where(tight, 1.0, free)
    parts = np.empty((8, *free.shape))
    np.multiply(free, loose, out=parts[0])
    np.multiply(signs, loose, out=parts[1])
    np.multiply(free, split.risky, out=parts[2])
    np.multiply(ratio * signs, tight, out=parts[3])
    np.add(push, moved, out=parts[4])
    np.add(ratio * push, traded, out=parts[5])
    parts[6:] = sums[2:]
    n_free, n_signs, n_risky, crossed, pull, turn, moves, trades = np.add.reduce(parts, axis=1)
    pull, turn, room = pull - tables.total, turn - limit, limit - trades
    error = np.maximum(np.abs(tables.total - moves), np.abs(short).max(axis=0))
    error = np.maximum(error, np.abs(np.minimum(sigma, room)))
    n_free = np.maximum(n_free, 1.0)
    rise = _rise(sigma, room, (n_free, n_signs, n_risky - crossed, pull, turn))
    level = level + (pull - n_signs * rise) / n_free
    prices = np.where(tight, mu - (short + signs * rise) / divisor, level)
    stuck = tight & (free == 0.0) & (np.abs(short) > tables.accuracy)
    if stuck.any():
        group, row = np.nonzero(stuck)
        prices[group, row] -= _jump(tables, mu, sigma * split.risky, short, group, row)
    return error, _Guess(level, prices, sigma + rise)


def _rise(sigma: Array, room: Array, system: tuple[Array, Array, Array, Array, Array]) -> Array:
    """By how much sigma changes."""
    n_free, n_signs, spread, pull, turn = system
    determinant = n_free * spread - n_signs * n_signs
    regular = determinant > SINGULAR
    rise = (n_free * turn - n_signs * pull) / np.where(regular, determinant, 1.0)
    rise = np.where(regular, rise, np.copysign(LOST * sigma, turn))
    return np.maximum(np.where(KEEP_SIGMA * sigma > room, rise, -sigma), -sigma)


def _jump(
    tables: _Tables, mu: Array, band: Array, short: Array, group: Indices, row: Indices
) -> Array:
    """How much further a price must fall for the first weight of a group to move, all at rest."""
    gap, least, most = (
        part[:, group, row if part.shape[-1] > 1 else 0]
        for part in (tables.gap, tables.least, tables.most)
    )
    slack, band, up = gap - mu[group, row], band[group, row], short[group, row] > 0.0
    resting = (np.abs(slack) <= band) & (least < 0.0) & (most > 0.0)
    bottom = least + np.where(least < 0.0, -band, band)  # below it a weight is at its least
    top = most + np.where(most > 0.0, band, -band)  # above it, at its most
    rise = np.where(slack < bottom, bottom - slack, np.where(resting, band - slack, np.inf))
    fall = np.where(slack > top, slack - top, np.where(resting, slack + band, np.inf))
    way = np.where(least < most, np.where(up, rise, fall), np.inf).min(axis=0)
    return np.where(np.isfinite(way), np.where(up, way, -way), 0.0)
