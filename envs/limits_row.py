"""Where weights stand to their limits, row by row, to be compiled: see `envs.weight_limits`."""

import numpy as np
from numpy.typing import NDArray

from envs.compiled import compiled

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@compiled
def standing(
    rows: tuple[Array, Array, Array],
    members: Array,
    n_risky: int,
    edges: tuple[Array, Array],
    owners: Flags,
) -> Flags:
    """Which of the rows that were moved have reached each limit, and last which miss one.

    Args:
        rows: Weights, weights held and weights asked for, (B, N) each.
        members: Groups, (G, N) of 0 and 1.
        n_risky: Assets that count for turnover and cardinality.
        edges: From where a measure or its negative has reached a limit, and misses it, (2M,) each.
        owners: Which limits an edge belongs to, (2M, limits).

    Returns:
        (limits + 1, B).

    """
    (weights, held, asked), (near, beyond) = rows, edges
    size, n_limits = len(near) // 2, owners.shape[1]
    flags, measures = np.zeros((n_limits + 1, len(weights)), np.bool_), np.empty(size)
    for i in range(len(weights)):
        _measure(weights[i], held[i], members, n_risky, measures)
        moved = False
        for j in range(weights.shape[1]):
            moved |= weights[i, j] != asked[i, j]
        for k in range(2 * size):
            measure = measures[k] if k < size else -measures[k - size]
            flags[n_limits, i] |= measure > beyond[k]
            if moved and measure >= near[k]:
                for limit in range(n_limits):
                    flags[limit, i] |= owners[k, limit]
    return flags


@compiled
def _measure(weights: Array, held: Array, members: Array, n_risky: int, measures: Array) -> None:
    """Fill in weights, group sums, turnover and the number of assets."""
    n_assets = len(weights)
    for j in range(n_assets):
        measures[j] = weights[j]
    for g in range(len(members)):
        measures[n_assets + g] = 0.0
        for j in range(n_assets):
            measures[n_assets + g] += members[g, j] * weights[j]
    turnover = count = 0.0
    for j in range(n_risky):
        turnover += 0.5 * abs(weights[j] - held[j])
        count += weights[j] > 0.0
    measures[-2], measures[-1] = turnover, count
