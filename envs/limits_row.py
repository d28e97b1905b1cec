"""Where weights stand to their limits, row by row, to be compiled: see `envs.weight_limits`."""

import numpy as np
from numpy.typing import NDArray

from envs.compiled import compiled

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@compiled
def standing(
    rows: tuple[Array, Array, Array], members: Array, n_risky: int, near: Array, beyond: Array
) -> tuple[Flags, Flags]:
    """Which limits rows that were moved have reached, (B, 2M), and which rows miss one, (B,).

    Args:
        rows: Weights, weights held and weights asked for, (B, N) each.
        members: Groups, (G, N) of 0 and 1.
        n_risky: Assets that count for turnover and cardinality.
        near: From where a measure has reached its limit, (2M,).
        beyond: From where it misses it, (2M,).

    """
    weights, held, asked = rows
    n_rows, size = len(weights), len(near) // 2
    reached, missed = np.zeros((n_rows, 2 * size), np.bool_), np.zeros(n_rows, np.bool_)
    measures = np.empty(size)
    for i in range(n_rows):
        _measure(weights[i], held[i], members, n_risky, measures)
        moved = False
        for j in range(weights.shape[1]):
            moved |= weights[i, j] != asked[i, j]
        for k in range(size):
            above, below = measures[k], -measures[k]
            missed[i] |= above > beyond[k] or below > beyond[size + k]
            reached[i, k] = moved and above >= near[k]
            reached[i, size + k] = moved and below >= near[size + k]
    return reached, missed


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
