"""Quadratic programmes over the simplex, by an exact active-set method that can start warm."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-11


def minimise_on_simplex(quadratic: np.ndarray, linear: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The x that minimises x.P.x / 2 + q.x over x >= 0, sum x = 1.

    Primal active-set method: solve on the support, walk there until an asset runs out, let in the
    asset that would gain most, until none would. A start near the solution takes a step or two.

    Args:
        quadratic: P, positive definite, (k, k).
        linear: q, (k,).
        start: A point of the simplex, (k,).

    Raises:
        ArithmeticError: If it does not end within 20 k + 100 steps.

    Source: Nocedal & Wright, Numerical optimization (2006), algorithm 16.3.
    """
    x, inside = start.copy(), start > 0.0
    scale = quadratic.diagonal().max() + np.abs(linear).max()  # the diagonal holds the largest
    for _ in range(20 * len(x) + 100):
        goal, price = _on_support(quadratic, linear, inside)
        if goal.min() >= -TOLERANCE:
            x = np.maximum(goal, 0.0)
            gain = np.where(inside, 0.0, quadratic @ x + linear - price)
            best = int(gain.argmin())
            if gain[best] >= -TOLERANCE * scale:
                return x / x.sum()
            inside[best] = True
        else:
            falling = inside & (goal < 0.0)
            ratio = np.where(falling, x / np.where(falling, x - goal, 1.0), np.inf)
            first = int(ratio.argmin())
            x = x + min(ratio[first], 1.0) * (goal - x)
            x[first], inside[first] = 0.0, False
    raise ArithmeticError("the quadratic programme over the simplex did not end")


def _on_support(
    quadratic: np.ndarray, linear: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, float]:
    """The minimum over sum x = 1 with x = 0 off the support, and the gradient on it."""
    rows = inside.nonzero()[0]
    right = np.ones((len(rows), 2))
    right[:, 1] = -linear[rows]
    both = np.linalg.solve(quadratic[rows[:, None], rows], right)
    price = (1.0 - both[:, 1].sum()) / both[:, 0].sum()
    goal = np.zeros(len(inside))
    goal[rows] = price * both[:, 0] + both[:, 1]
    return goal, float(price)


def best_constant_mix(relatives: np.ndarray) -> np.ndarray:
    """The constant rebalanced portfolio b of the largest final wealth, prod b.x_t.

    Sequential quadratic programming on the mean of -log b.x; at the end no asset would have added:
    mean(x_i / b.x) <= 1 + 1e-9 for all i, which proves the optimum.

    Args:
        relatives: x_t, price relatives, positive, (T, k).

    Raises:
        ArithmeticError: If that certificate is not reached.

    Source: Cover, An algorithm for maximizing expected log investment return (1984), for the
    certificate.
    """
    mix = np.full(relatives.shape[1], 1.0 / relatives.shape[1])
    for _ in range(100):
        scaled = relatives / (relatives @ mix)[:, None]  # (T, k)
        gradient = scaled.mean(axis=0)
        if gradient.max() <= 1.0 + 1e-9:
            return mix
        curvature = scaled.T @ scaled / len(scaled)
        curvature += 1e-12 * np.trace(curvature) * np.eye(len(mix))
        goal = minimise_on_simplex(curvature, -gradient - curvature @ mix, mix)
        mix = _line_search(relatives, mix, goal)
    raise ArithmeticError(f"best constant mix: gain of {gradient.max() - 1.0:.2g} a period is left")


def _line_search(relatives: np.ndarray, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The furthest of the halved steps to `goal` that does not lower the growth rate."""
    before = np.log(relatives @ start).mean()
    step = 1.0
    while step > 1e-12:
        tried = start + step * (goal - start)
        if np.log(relatives @ tried).mean() >= before:
            return tried
        step /= 2.0
    return start
