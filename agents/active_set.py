"""Mean-variance programmes from a guess of what binds: exact, and quick where the guess is near.

From day to day much the same is held, the same limits bind and most trades are not worth their
cost. Given all that, the optimum is the solution of linear equations; what it contradicts is
changed and they are solved again, until nothing is contradicted, which proves the optimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agents.moments import is_sharp

TOLERANCE = 1e-12  # of weights, rows and slopes, in units of the scaled programme
SOFTNESS = 1e-9  # of rows while they are solved for, so that too many at once are no obstacle
LEAST_PIVOT = 1e-5  # of the Cholesky factor, least over largest: below, the optimum is not sharp
NEAR = 0.97  # of a limit: who has drifted from it since yesterday is taken to stand at it
PATIENCE = 3  # rounds without fewer contradictions before giving up


class Programme(NamedTuple):
    """Minimise w.P.w / 2 + q.w + buy.(w - held)+ + sell.(held - w)+ over w >= 0 within rows."""

    quadratic: np.ndarray  # P, (k, k)
    linear: np.ndarray  # q, (k,)
    held: np.ndarray  # (k,), not negative
    buy: np.ndarray  # (k,)
    sell: np.ndarray  # (k,)
    rows: np.ndarray  # R of R w <= level, (r, k)
    level: np.ndarray  # (r,)
    full: bool  # whether the first row holds with equality


class _Guess(NamedTuple):
    """What is taken to bind."""

    free: np.ndarray  # (k,) bool: weights neither at zero nor as held
    side: np.ndarray  # (k,) 1 bought, -1 sold (wholly where not free), 0 as held
    rows: np.ndarray  # (r,) bool

    def apart(self, other: _Guess) -> int:
        """In how many places another differs."""
        moved = (self.free != other.free) | (self.side != other.side)
        return int(moved.sum() + (self.rows != other.rows).sum())


class _Point(NamedTuple):
    """What follows from a guess."""

    weights: np.ndarray  # (k,)
    prices: np.ndarray  # (r,) of the rows
    exact: bool  # whether the rows taken to bind can all bind at once


def follow(programme: Programme, start: np.ndarray) -> np.ndarray | None:
    """The optimum (k,), from the guess that much the same binds at `start` (k,).

    Returns:
        What meets the conditions of optimality to rounding, whatever the guess was; None where P
        is nearly singular or contradictions do not grow fewer, for another solver to answer.

    Source: Bergounioux, Ito & Kunisch, Primal-dual strategy for constrained optimal control
    problems (1999); Hintermueller, Ito & Kunisch, The primal-dual active set strategy as a
    semismooth Newton method (2002).
    """
    if not is_sharp(programme.quadratic, LEAST_PIVOT):
        return None
    bought = start > programme.held
    rows = programme.rows @ start >= NEAR * programme.level
    rows &= programme.rows @ bought > 0.0
    rows[0] |= programme.full
    guess, fewest, patience = _Guess(bought, bought.astype(np.float64), rows), len(start) + 1, 0
    while patience <= PATIENCE:
        point = _solved(programme, guess)
        after = _corrected(programme, guess, point)
        contradictions = guess.apart(after)
        if contradictions == 0:
            return np.maximum(point.weights, 0.0) if point.exact else None
        patience = 0 if contradictions < fewest else patience + 1
        guess, fewest = after, min(contradictions, fewest)
    return None


def _solved(programme: Programme, guess: _Guess) -> _Point:
    """Weights and prices if the guess were right."""
    free, side = guess.free, guess.side
    weights = np.where(free | (side < 0.0), 0.0, programme.held)
    rate = np.where(side > 0.0, programme.buy, np.where(side < 0.0, -programme.sell, 0.0))
    rows, level = programme.rows[guess.rows], programme.level[guess.rows]
    count = int(free.sum())
    matrix, right = np.zeros((count + len(rows), count + len(rows))), np.empty(count + len(rows))
    matrix[:count, :count] = programme.quadratic[np.ix_(free, free)]
    matrix[:count, count:] = rows[:, free].T
    matrix[count:, :count] = rows[:, free]
    right[:count] = -(programme.linear + rate + programme.quadratic @ weights)[free]
    right[count:] = level - rows @ weights
    found, exact = _refined(matrix, right, count)
    weights[free] = found[:count]
    prices = np.zeros(len(guess.rows))
    prices[guess.rows] = found[count:]
    return _Point(weights, prices, exact)


def _refined(matrix: np.ndarray, right: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """The x of matrix @ x = right, and whether there is one, by steps of its softened inverse."""
    soft = matrix.copy()
    soft[range(count, len(soft)), range(count, len(soft))] = -SOFTNESS
    inverse = np.linalg.inv(soft)
    found = inverse @ right
    close = TOLERANCE * (1.0 + np.abs(right).max(initial=0.0))
    for _ in range(3):
        rest = right - matrix @ found
        if np.abs(rest).max(initial=0.0) <= close:
            return found, True
        found += inverse @ rest
    return found, False


def _corrected(programme: Programme, guess: _Guess, point: _Point) -> _Guess:
    """The guess without what its point contradicts; the same where that is the optimum."""
    free, side, held, weights = guess.free, guess.side, programme.held, point.weights
    slope = programme.quadratic @ weights + programme.linear + point.prices @ programme.rows
    close = TOLERANCE * (1.0 + np.abs(programme.linear).max())
    kept, gone = ~free & (side == 0.0), ~free & (side < 0.0)
    enter = kept & (slope + programme.buy < -close)
    leave = kept & (slope - programme.sell > close) & (held > 0.0)
    again = gone & (slope - programme.sell < -close)
    back = free & (side * (weights - held) < -TOLERANCE)
    empty = free & (side < 0.0) & (weights < -TOLERANCE)
    over = programme.rows @ weights > programme.level + TOLERANCE
    rows = np.where(guess.rows, point.prices >= -close, over)
    rows[0] |= programme.full
    return _Guess(
        (free & ~back & ~empty) | enter | leave | again,
        np.where(enter, 1.0, np.where(leave, -1.0, np.where(back, 0.0, side))),
        rows,
    )
