"""`envs.group_newton` row by row, to be compiled: the same operations in the same order.

A guess is one array: level, the price of each group with the level in it (mu), sigma.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.compiled import compiled

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

TOLERANCE = 1e-14
INSIDE = 1e-12  # by how much the sums of weights that are left alone may miss their limits
MAX_STEPS = 24
DAMPED = 6  # from this step on every second one is halved, so that none go round for ever
WORSE = 2.0  # growth of the miss at which a step is halved
SINGULAR = 1e-9  # below this the 2 x 2 system has lost a dimension; its entries are about 1 or more
LOST = 0.25  # then sigma changes by this part of itself, to find another piece
KEEP_SIGMA = 16.0  # room / sigma from which turnover that has a price is taken to be free
KEEP_PRICE = 4.0  # the same for the sums of groups
FIRST = 0.65  # of the sigma that is right where trades spread exponentially

GAP, LEAST, MOST = range(3)  # y, lower and upper, less what is held
FLOOR, CAP = range(2)
NOW, BEFORE, NEXT = range(3)  # guesses; before: the best so far
FREE, SIGNS, MOVED, TRADED, SHORT, TIGHT = range(6)  # sums of a group, and what they lack


class Groups(NamedTuple):
    """N assets split into G groups."""

    order: Indices  # see `solve_rows`
    stops: Indices
    risky: Array


class Row(NamedTuple):
    """One problem, everything relative to what is held, assets in the order of the groups."""

    assets: Array  # GAP, LEAST and MOST, (3, N)
    levels: Array  # FLOOR and CAP, (2, G)
    total: float
    limit: float
    accuracy: float


@compiled
def solve_rows(
    order: Indices, stops: Indices, risky: Array, problem: tuple[Array, ...], limit: float
) -> tuple[Array, Flags, Array]:
    """Solve each row of a problem.

    Args:
        order: Assets, group by group, (N,).
        stops: Where in `order` each group begins, and the end, (G + 1,).
        risky: 1 for each group, 0 for that of cash, (G,).
        problem: The arrays of `group_split.Problem`, all of two dimensions, of B rows or one.
        limit: On the sum of |x - held| over risky assets.

    Returns:
        As `group_newton.solve`.

    """
    point, held, lower, upper, floors, caps = problem
    groups, (n_rows, n_assets), n_groups = Groups(order, stops, risky), point.shape, len(risky)
    weights, solved = np.empty((n_rows, n_assets)), np.zeros(n_rows, np.bool_)
    stand = np.zeros((n_rows, n_groups + 2))
    assets, levels, trades = np.empty((3, n_assets)), np.empty((2, n_groups)), np.empty(n_assets)
    sums, guesses = np.empty((6, n_groups)), np.empty((3, n_groups + 2))
    for i in range(n_rows):
        near, least, most = held[i % len(held)], lower[i % len(lower)], upper[i % len(upper)]
        largest = _relative(order, point[i], near, (least, most), assets)
        total = _less_held(groups, near, (floors[i % len(floors)], caps[i % len(caps)]), levels)
        row = Row(assets, levels, total, limit, TOLERANCE * largest)
        inside, solved[i] = _solve(groups, row, trades, sums, guesses)
        for j in range(n_assets):
            k = order[j]
            moved = min(max(near[k] + trades[j], least[k]), most[k])
            weights[i, k] = point[i, k] if inside else moved
        if not solved[i]:
            for g in range(n_groups + 2):
                level = guesses[NOW, 0] if 0 < g <= n_groups else 0.0
                stand[i, g] = guesses[NOW, g] - level
    return weights, solved, stand


@compiled
def _relative(
    order: Indices, point: Array, held: Array, bounds: tuple[Array, Array], assets: Array
) -> float:
    """Fill `assets`; the largest size of a score, or 1."""
    largest = 1.0
    for j in range(len(order)):
        k = order[j]
        assets[GAP, j] = point[k] - held[k]
        assets[LEAST, j] = bounds[0][k] - held[k]
        assets[MOST, j] = bounds[1][k] - held[k]
        largest = max(largest, abs(point[k]))
    return largest


@compiled
def _less_held(groups: Groups, held: Array, limits: tuple[Array, Array], levels: Array) -> float:
    """Fill `levels`; what is left of the total of 1."""
    sums = 0.0
    for g in range(len(groups.risky)):
        taken = 0.0
        for j in range(groups.stops[g], groups.stops[g + 1]):
            taken += held[groups.order[j]]
        levels[FLOOR, g] = limits[0][g] - taken
        levels[CAP, g] = limits[1][g] - taken
        sums += taken
    return 1.0 - sums


@compiled
def _solve(
    groups: Groups, row: Row, trades: Array, sums: Array, guesses: Array
) -> tuple[bool, bool]:
    """Newton's steps from the start; fills the trades and leaves the last guess at NOW.

    Returns:
        Whether the row lies within all limits as it is, and whether it is solved.

    """
    _start(groups, row, guesses)
    least = math.inf
    for step in range(MAX_STEPS + 1):
        same = _trade(groups, row, guesses, trades, sums)
        error = _newton(groups, row, guesses, sums)
        if step == 0 and error <= INSIDE and same:
            return True, True
        if error <= row.accuracy:
            return False, True
        if step == MAX_STEPS:
            break
        worse, damped = error > WORSE * least, step >= DAMPED and step % 2 == 0
        least = least if worse else error
        for g in range(guesses.shape[1]):
            now, following = guesses[NOW, g], guesses[NEXT, g]
            if worse:
                guesses[NOW, g] = 0.5 * (guesses[BEFORE, g] + now)
            else:
                guesses[BEFORE, g] = now
                guesses[NOW, g] = 0.5 * (following + now) if damped else following
    return False, False


@compiled
def _start(groups: Groups, row: Row, guesses: Array) -> None:
    """No prices, and a guess at sigma where more turnover is asked for than there may be."""
    asked, n_risky = 0.0, 0
    for g in range(len(groups.risky)):
        wanted = guesses[NOW, g] = 0.0
        for j in range(groups.stops[g], groups.stops[g + 1]):
            wanted += abs(row.assets[GAP, j])
        asked += wanted * groups.risky[g]
        n_risky += int(groups.risky[g]) * (groups.stops[g + 1] - groups.stops[g])
    guesses[NOW, -2] = guesses[NOW, -1] = 0.0
    if asked > row.limit + INSIDE and row.limit > 0.0:
        guesses[NOW, -1] = first_sigma(asked, row.limit, n_risky)


@compiled
def first_sigma(asked: Any, limit: float, n_risky: int) -> Any:
    """A guess at sigma: two thirds of what is right where trades spread exponentially; any shape.

    From below, Newton's steps go straight to sigma. The logarithm of asked / limit is a
    rational one, made of operations that give the same bits on every machine.
    """
    x = asked / limit
    return asked * (FIRST / n_risky * (3.0 * (x * x - 1.0) / (x * x + 4.0 * x + 1.0)))


@compiled
def _trade(groups: Groups, row: Row, guesses: Array, trades: Array, sums: Array) -> bool:
    """Fill trades at the guess and the sums of groups; whether the trades are all those asked."""
    same = True
    for g in range(len(groups.risky)):
        mu, risky = guesses[NOW, 1 + g], groups.risky[g]
        band = guesses[NOW, -1] * risky
        free = signs = moved = traded = 0.0
        for j in range(groups.stops[g], groups.stops[g + 1]):
            slack, least, most = row.assets[GAP, j] - mu, row.assets[LEAST, j], row.assets[MOST, j]
            wanted = slack - min(max(slack, -band), band)
            trade = min(max(wanted, least), most)
            moves = trade == wanted
            rises, falls = moves & (wanted > 0.0), moves & (wanted < 0.0)
            free += rises | falls
            signs += rises
            signs -= falls
            trades[j] = trade
            same &= trade == row.assets[GAP, j]
            moved += trade
            traded += abs(trade)
        sums[FREE, g], sums[SIGNS, g] = free, signs * risky
        sums[MOVED, g], sums[TRADED, g] = moved, traded * risky
    return same


@compiled
def _newton(groups: Groups, row: Row, guesses: Array, sums: Array) -> float:
    """By how much a guess misses the limits; fills the next guess, what groups lack, and which."""
    level, sigma = guesses[NOW, 0], guesses[NOW, -1]
    n_free = n_signs = n_risky = crossed = pull = turn = moves = trades = error = 0.0
    for g in range(len(groups.risky)):
        free, signs, moved, traded = sums[FREE, g], sums[SIGNS, g], sums[MOVED, g], sums[TRADED, g]
        price = guesses[NOW, 1 + g] - level
        wanted = KEEP_PRICE * price + moved
        allowed = min(max(wanted, row.levels[FLOOR, g]), row.levels[CAP, g])
        tight = wanted != allowed
        short = allowed - moved if tight else price
        sums[TIGHT, g], sums[SHORT, g] = tight, short
        ratio, push = signs / max(free, 1.0), short if tight else free * short
        if tight:
            crossed += ratio * signs
        else:
            n_free += free
            n_signs += signs
        n_risky += free * groups.risky[g]
        pull += push + moved
        turn += ratio * push + traded
        moves += moved
        trades += traded
        error = max(error, abs(short))
    pull, turn, room = pull - row.total, turn - row.limit, row.limit - trades
    error = max(error, abs(row.total - moves), abs(min(sigma, room)))
    n_free = max(n_free, 1.0)
    rise = _rise(sigma, room, n_free, n_signs, n_risky - crossed, pull, turn)
    guesses[NEXT, 0] = level = level + (pull - n_signs * rise) / n_free
    guesses[NEXT, -1] = sigma + rise
    for g in range(len(groups.risky)):
        guesses[NEXT, 1 + g] = level
        if sums[TIGHT, g]:
            free, short = sums[FREE, g], sums[SHORT, g]
            guesses[NEXT, 1 + g] = guesses[NOW, 1 + g] - (short + sums[SIGNS, g] * rise) / max(
                free, 1.0
            )
            if free == 0.0 and abs(short) > row.accuracy:
                guesses[NEXT, 1 + g] -= _jump(groups, row, g, guesses[NOW, 1 + g], sigma, short)
    return error


@compiled
def _rise(
    sigma: float,
    room: float,
    n_free: float,
    n_signs: float,
    spread: float,
    pull: float,
    turn: float,
) -> float:
    """By how much sigma changes."""
    rise = -sigma
    if KEEP_SIGMA * sigma > room:
        determinant = n_free * spread - n_signs * n_signs
        if determinant > SINGULAR:
            rise = (n_free * turn - n_signs * pull) / determinant
        else:
            rise = math.copysign(LOST * sigma, turn)
    return max(rise, -sigma)


@compiled
def _jump(groups: Groups, row: Row, g: int, mu: float, sigma: float, short: float) -> float:
    """How much further a price must fall for the first weight of a group to move, all at rest."""
    band, way = sigma * groups.risky[g], math.inf
    for j in range(groups.stops[g], groups.stops[g + 1]):
        least, most = row.assets[LEAST, j], row.assets[MOST, j]
        if least == most:
            continue
        slack = row.assets[GAP, j] - mu
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
