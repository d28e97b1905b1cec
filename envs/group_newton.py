"""Fast nearest point where groups are disjoint: Newton steps on a handful of multipliers.

    minimise |x - y|^2 / 2   subject to   lower <= x <= upper,   sum x = 1,
                                          floor_g <= sum of group g <= cap_g,
                                          sum over risky assets of |x - held| <= limit

is solved by x = held + clip(soft(y - held - mu_g, sigma), lower - held, upper - held), where
soft(v, s) = v - clip(v, -s, s), mu_g = level + price_g is shared by group g and sigma >= 0 prices
turnover. The conditions on (level, mu, sigma) are piecewise linear; a Newton step solves those of
the present piece, which after eliminating mu_g is a 2 x 2 system. Most rows are done after three to
five steps; the few that stall are left to `envs.dual_ascent`.

One row and a batch go through the same operations in the same order, so their bits agree; one row
is worth a loop of its own because Python's floats are several times faster than arrays of one row.

Source: Qi & Sun, A nonsmooth version of Newton's method (1993).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOLERANCE = 1e-14
INSIDE = 1e-12  # by how much the sums of weights that are left alone may miss their limits
MAX_STEPS = 6
SINGULAR = 1e-9  # below this the 2 x 2 system has lost a dimension; its entries are about 1 or more

_clip = np._core.umath.clip  # type: ignore[attr-defined]  # np.clip without its Python layers


class Problem(NamedTuple):
    """B problems of N assets in G groups; parts without B hold for all of them."""

    point: Array  # y, (B, N)
    held: Array  # (B, N), with 0 for cash; (N,) zeros where turnover has no limit
    lower: Array  # (N,) or (B, N)
    upper: Array  # (N,) or (B, N)
    floors: Array  # (G,) or (B, G)
    caps: Array  # (G,) or (B, G)
    limit: float  # on the sum of |x - held| over risky assets; may be infinite

    def row(self, i: int) -> "Problem":
        """The problem of one row, its arrays 1-D."""
        *parts, limit = self
        arrays = (part[i] if np.ndim(part) == 2 else part for part in parts)
        return Problem(*arrays, limit)  # type: ignore[arg-type]  # one array for each field


class Split:
    """N assets split into G disjoint groups.

    Args:
        groups: Asset indices of each group; every asset is in one.
        risky: For each group, whether its trades are turnover; cash is a group by itself.

    """

    def __init__(self, groups: Sequence[Sequence[int]], risky: Sequence[bool]) -> None:
        self.groups = [list(group) for group in groups]
        self.risky = [float(flag) for flag in risky]
        n_assets, n_groups = sum(map(len, groups)), len(groups)
        # assets stand in a (depth, G) table, so that one reduction sums every group of every row
        self.table = np.full((max(map(len, groups)), n_groups), n_assets)
        for g, group in enumerate(self.groups):
            self.table[: len(group), g] = group
        self.places = np.argsort(self.table, axis=None, kind="stable")[:n_assets]
        self.order = [asset for group in self.groups for asset in group]
        stops = np.cumsum([len(group) for group in self.groups]).tolist()
        self.spans = list(zip([0, *stops[:-1]], stops, self.risky, strict=True))

    def spread(self, values: Array) -> Array:
        """(B, N) or (N,) as a table (depth, G, B) or (depth, G, 1), 0 where there is no asset."""
        columns = np.zeros((values.shape[-1] + 1, values.size // values.shape[-1]))
        columns[:-1] = values.T if values.ndim == 2 else values[:, None]
        return columns[self.table]

    def gather(self, table: Array) -> Array:
        """A table (depth, G, B) as rows (B, N)."""
        return table.reshape(-1, table.shape[-1])[self.places].T


class _Tables(NamedTuple):
    """A batch as tables: everything relative to what is held."""

    gap: Array  # y - held, (depth, G, B)
    least: Array  # lower - held
    most: Array  # upper - held
    floors: Array  # (G, B)
    caps: Array  # (G, B)
    total: Array  # (B,)
    accuracy: Array  # (B,)

    def rows(self, keep: NDArray[np.int64]) -> "_Tables":
        return _Tables(*(part[..., keep] if part.shape[-1] > 1 else part for part in self))


class _Multipliers(NamedTuple):
    level: Array  # (B,)
    mu: Array  # (G, B)
    sigma: Array  # (B,)

    def rows(self, keep: NDArray[np.int64]) -> "_Multipliers":
        return _Multipliers(*(part[..., keep] for part in self))


def solve_batch(split: Split, problem: Problem) -> tuple[Array, Flags, Array]:
    """Solve each row of a batch, B >= 2.

    Returns:
        x (B, N), rows that lie within all limits unchanged; which rows are solved, (B,); and where
        the others stand: level, price of each group, sigma, (B, G + 2).

    """
    n_rows = len(problem.point)
    tables = _tables(split, problem)
    risky = np.array(split.risky)[:, None]
    trades = np.empty(tables.gap.shape)
    solved = np.zeros(n_rows, bool)
    stand = np.empty((len(risky) + 2, n_rows))
    rows = np.arange(n_rows)
    guess = _Multipliers(np.zeros(n_rows), np.zeros((len(risky), n_rows)), np.zeros(n_rows))
    for step in range(MAX_STEPS + 1):
        trade, sums = _trades(tables, guess, risky)
        error, following = _newton(tables, guess, sums, risky, problem.limit)
        done = error <= tables.accuracy
        if step == 0:
            inside = (error <= INSIDE) & (trade == tables.gap).all(axis=(0, 1))
            done |= inside
        n_left = len(done) - np.count_nonzero(done)
        last = step == MAX_STEPS or n_left == 0
        if last or 2 * n_left < len(done):
            trades[..., rows] = trade
            solved[rows] = done
            stand[:, rows] = np.vstack([guess.level, guess.mu - guess.level, guess.sigma])
        if last:
            break
        # a solved row stays where it is, whatever its neighbours need
        pairs = zip(guess, following, strict=True)
        guess = _Multipliers(*(np.where(done, here, there) for here, there in pairs))
        if 2 * n_left < len(done):
            # never one row alone, which numpy would add up in another order
            keep = np.argsort(done, kind="stable")[: max(n_left, 2)]
            rows, tables, guess = rows[keep], tables.rows(keep), guess.rows(keep)
    weights = np.clip(problem.held + split.gather(trades), problem.lower, problem.upper)
    return np.where(inside[:, None], problem.point, weights), solved, stand.T


def _tables(split: Split, problem: Problem) -> _Tables:
    held = split.spread(problem.held)
    sums = np.add.reduce(held, axis=0)
    floors, caps = (a[:, None] if a.ndim == 1 else a.T for a in (problem.floors, problem.caps))
    return _Tables(
        gap=split.spread(problem.point) - held,
        least=split.spread(problem.lower) - held,
        most=split.spread(problem.upper) - held,
        floors=floors - sums,
        caps=caps - sums,
        total=1.0 - np.add.reduce(sums, axis=0),
        accuracy=TOLERANCE * np.maximum(1.0, np.abs(problem.point).max(axis=-1)),
    )


def _trades(tables: _Tables, guess: _Multipliers, risky: Array) -> tuple[Array, Array]:
    """Trades at the guess, and for each group the sums (4, G, B): free, signs, moved, traded."""
    slack = tables.gap - guess.mu
    band = guess.sigma * risky
    wanted = slack - _clip(slack, -band, band)
    parts = np.empty((4, *slack.shape))
    trade = _clip(wanted, tables.least, tables.most, out=parts[2])
    np.multiply(np.sign(wanted), wanted == trade, out=parts[1])
    np.abs(parts[1], out=parts[0])
    np.abs(trade, out=parts[3])
    return trade, np.add.reduce(parts, axis=1)


def _newton(
    tables: _Tables, guess: _Multipliers, sums: Array, risky: Array, limit: float
) -> tuple[Array, _Multipliers]:
    """By how much the guess misses the limits, (B,), and the next guess."""
    level, mu, sigma = guess
    free, signs, moved, traded = sums
    signs = signs * risky
    wanted = mu - level + moved
    allowed = _clip(wanted, tables.floors, tables.caps)
    tight = wanted != allowed
    short = allowed - moved
    divisor = np.maximum(free, 1.0)
    push = np.where(tight, short, free * short)
    loose = ~tight
    parts = np.empty((5, *free.shape))
    np.multiply(free, loose, out=parts[0])
    np.multiply(signs, loose, out=parts[1])
    np.subtract(free * risky, signs * signs / divisor * tight, out=parts[2])
    np.add(push, moved, out=parts[3])
    np.add(signs * push / divisor, traded * risky, out=parts[4])
    n_free, n_signs, spread, pull, turn = np.add.reduce(parts, axis=1)  # (B,) each
    pull, turn = pull - tables.total, turn - limit
    room = limit - np.add.reduce(traded * risky, axis=0)
    missing = tables.total - np.add.reduce(moved, axis=0)
    error = np.maximum(np.abs(missing), np.abs(short).max(axis=0))
    error = np.maximum(error, np.abs(np.minimum(sigma, room)))
    n_free = np.maximum(n_free, 1.0)
    determinant = n_free * spread - n_signs * n_signs
    regular = determinant > SINGULAR
    both = (n_free * turn - n_signs * pull) / np.where(regular, determinant, 1.0)
    alone = turn / np.maximum(spread, 1.0)
    rise = np.where(sigma > room, np.where(regular, both, alone), -sigma)
    rise = np.maximum(rise, -sigma)
    level = level + (pull - n_signs * rise) / n_free
    mu = np.where(tight, mu - (short + signs * rise) / divisor, level)
    return error, _Multipliers(level, mu, sigma + rise)


class _Row(NamedTuple):
    """One row as lists, assets in the order of the split."""

    gap: list[float]
    least: list[float]
    most: list[float]
    floors: list[float]
    caps: list[float]
    total: float
    limit: float


def solve_row(split: Split, problem: Problem) -> tuple[Array, bool, list[float]]:
    """`solve_batch` for one row, its arrays 1-D: the same bits, with Python's floats."""
    held = [problem.held.item(i) for i in split.order]
    row = _row(split, problem, held)
    accuracy = TOLERANCE * max(1.0, float(np.abs(problem.point).max()))
    level, mu, sigma = 0.0, [0.0] * len(split.groups), 0.0
    for step in range(MAX_STEPS + 1):
        trades, sums = _row_trades(split, row, mu, sigma)
        error, following = _row_newton(split, row, level, mu, sigma, sums)
        if step == 0 and error <= INSIDE and trades == row.gap:
            return problem.point, True, []
        done = error <= accuracy
        if done or step == MAX_STEPS:
            break
        level, mu, sigma = following
    weights = np.empty(len(held))
    weights[split.order] = [a + b for a, b in zip(held, trades, strict=True)]
    weights = np.minimum(np.maximum(weights, problem.lower), problem.upper)
    return weights, done, [level, *(price - level for price in mu), sigma]


def _row(split: Split, problem: Problem, held: list[float]) -> _Row:
    sums = [sum(held[a:b]) for a, b, _ in split.spans]
    point, lower, upper = (values.tolist() for values in problem[:1] + problem[2:4])
    return _Row(
        [point[i] - h for i, h in zip(split.order, held, strict=True)],
        [lower[i] - h for i, h in zip(split.order, held, strict=True)],
        [upper[i] - h for i, h in zip(split.order, held, strict=True)],
        [value - s for value, s in zip(problem.floors.tolist(), sums, strict=True)],
        [value - s for value, s in zip(problem.caps.tolist(), sums, strict=True)],
        1.0 - sum(sums),
        problem.limit,
    )


def _row_trades(
    split: Split, row: _Row, mu: list[float], sigma: float
) -> tuple[list[float], list[tuple[float, float, float, float]]]:
    """`_trades` for one row."""
    trades, sums = [], []
    gaps, least, most, _, _, _, _ = row
    for g, (start, stop, risky) in enumerate(split.spans):
        level, band = mu[g], sigma * risky
        free = signs = moved = traded = 0.0
        for i in range(start, stop):
            slack = gaps[i] - level
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


def _row_newton(
    split: Split,
    row: _Row,
    level: float,
    mu: list[float],
    sigma: float,
    sums: list[tuple[float, float, float, float]],
) -> tuple[float, tuple[float, list[float], float]]:
    """`_newton` for one row: the miss, and the next guess."""
    n_free = n_signs = spread = pull = turn = moves = trades = error = 0.0
    groups = []
    for g, (free, signs, moved, traded) in enumerate(sums):
        wanted = mu[g] - level + moved
        allowed = min(max(wanted, row.floors[g]), row.caps[g])
        tight, short, divisor = wanted != allowed, allowed - moved, max(free, 1.0)
        push = short if tight else free * short
        if not tight:
            n_free += free
            n_signs += signs
        spread += free * split.risky[g] - (signs * signs / divisor if tight else 0.0)
        pull += push + moved
        turn += signs * push / divisor + traded
        moves += moved
        trades += traded
        error = max(error, abs(short))
        groups.append((tight, short, signs, divisor))
    pull, turn, room = pull - row.total, turn - row.limit, row.limit - trades
    error = max(error, abs(row.total - moves), abs(min(sigma, room)))
    n_free = max(n_free, 1.0)
    determinant = n_free * spread - n_signs * n_signs
    rise = -sigma
    if sigma > room:
        regular = determinant > SINGULAR
        both = (n_free * turn - n_signs * pull) / determinant if regular else 0.0
        rise = max(both if regular else turn / max(spread, 1.0), -sigma)
    level = level + (pull - n_signs * rise) / n_free
    following = [
        price - (short + signs * rise) / divisor if tight else level
        for price, (tight, short, signs, divisor) in zip(mu, groups, strict=True)
    ]
    return error, (level, following, sigma + rise)
