"""Projection: against a quadratic programme, by hand, and row by row."""

import daqp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from envs.projection import Bounds, Region, project_simplex

FAR = 1e30


def nearest_by_programme(region: Region, point: np.ndarray, held: np.ndarray | None):
    """The projection of one point by an active-set solver; None where there is none.

    With a limit on turnover the variables are buys and sells, see `envs.general_projection`.
    """
    lower, upper, floors, caps = region.bounds
    n = len(point)
    risky = n - region.has_cash
    rows = np.vstack([np.ones(n), region.members])
    low, high = np.append(1.0, floors), np.append(1.0, caps)
    if held is None or np.isinf(region.turnover):
        x = _programme(point, lower, upper, rows, low, high)
        return x
    base = np.clip(held, lower, upper)
    base[risky:] = 0.0
    want = (point - base)[:risky]
    matrix = np.hstack([rows[:, :risky], -rows[:, :risky], rows[:, risky:]])
    matrix = np.vstack([matrix, np.append(np.ones(2 * risky), np.zeros(n - risky))])
    forced = np.abs(held - base)[:risky].sum()
    z = _programme(
        np.concatenate([want, -want, point[risky:]]),
        np.concatenate([np.zeros(2 * risky), lower[risky:]]),
        np.concatenate([(upper - base)[:risky], (base - lower)[:risky], upper[risky:]]),
        matrix,
        np.append(low - rows @ base, -FAR),
        np.append(high - rows @ base, 2.0 * region.turnover - forced),
    )
    if z is None:
        return None
    return np.append(base[:risky] + z[:risky] - z[risky : 2 * risky], z[2 * risky :])


def _programme(point, lower, upper, rows, low, high):
    sense = np.zeros(len(lower) + len(low), np.int32)
    sense[len(lower)] = 5  # the sum is an equation
    above = np.minimum(np.append(upper, high), FAR)
    below = np.maximum(np.append(lower, low), -FAR)
    x, _, flag, _ = daqp.solve(
        np.eye(len(point)), -point, rows, above, below, sense, primal_tol=1e-12, dual_tol=1e-14
    )
    return x if flag == 1 else None


def random_region(rng: np.random.Generator, n: int, overlapping: bool) -> tuple[Region, np.ndarray]:
    """A region, and weights that lie within it."""
    has_cash = bool(rng.integers(2))
    n_groups = int(rng.integers(0, 6))
    if overlapping:
        members = (rng.random((n_groups, n)) < 0.4).astype(float)
    else:
        members = (rng.integers(0, n_groups + 2, n) == np.arange(n_groups)[:, None]).astype(float)
    if has_cash:
        members[:, -1] = 0.0
    members = members[members.sum(axis=1) > 0]
    inside = rng.dirichlet(np.full(n, 2.0))
    upper, lower = np.ones(n), np.zeros(n)
    if rng.random() < 0.8:
        upper = np.minimum(1.0, np.maximum(1.02 * inside, rng.uniform(1.2, 4.0) / n))
    if rng.random() < 0.4:
        lower = inside * rng.uniform(0, 0.5) * (rng.random(n) < 0.3)
    sums, size = members @ inside, len(members)
    caps = np.where(rng.random(size) < 0.8, sums * rng.uniform(1.0, 1.5, size), np.inf)
    floors = np.where(rng.random(size) < 0.3, sums * rng.uniform(0.5, 1.0, size), -np.inf)
    turnover = float(rng.choice([np.inf, 0.02, 0.1, 0.3]))
    return Region(Bounds(lower, upper, floors, caps), members, turnover, has_cash), inside


def random_rows(rng: np.random.Generator, inside: np.ndarray, n_rows: int):
    """Points anywhere near the simplex, and weights held not far from `inside`."""
    n = len(inside)
    points = rng.dirichlet(np.full(n, rng.choice([0.1, 0.5, 1.0, 5.0])), n_rows)
    points += rng.choice([0.0, 0.0, 0.1, 1.0]) * rng.normal(size=(n_rows, n))
    return points, 0.65 * inside + 0.35 * rng.dirichlet(np.full(n, 2.0), n_rows)


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_a_quadratic_programme(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 problems of up to 100 assets, to 1e-9; where there is no solution, least turnover.

    Compiled and by numpy.
    """
    rng = np.random.default_rng(seed)
    compared = 0
    for trial in range(25):
        n = 2 + int(98 * rng.random() ** 3)
        region, inside = random_region(rng, n, overlapping=trial % 5 == 4)
        points, held = random_rows(rng, inside, 40)
        with monkeypatch.context() as patch:
            patch.setattr("envs.group_newton.COMPILES", False)
            by_numpy, _ = region.project(points, held)
        weights, found = region.project(points, held)
        np.testing.assert_allclose(weights, by_numpy, rtol=0.0, atol=1e-12)
        assert found.all()
        assert np.abs(weights.sum(axis=1) - 1.0).max() <= 1e-12
        assert (weights >= region.bounds.lower).all() and (weights <= region.bounds.upper).all()
        n_risky = n - region.has_cash
        turnover = 0.5 * np.abs(weights - held)[:, :n_risky].sum(axis=1)
        for i in range(len(points)):
            expected = nearest_by_programme(region, points[i], held[i])
            if expected is None:
                assert turnover[i] > region.turnover
            else:
                compared += 1
                assert np.abs(weights[i] - expected).max() <= 1e-9
    assert compared > 900


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_row_does_not_depend_on_its_batch(overlapping: bool) -> None:
    """The same bits alone, in any batch and in any order."""
    rng = np.random.default_rng(5)
    for _ in range(25):
        region, inside = random_region(rng, int(rng.integers(2, 40)), overlapping)
        points, held = random_rows(rng, inside, 33)
        together, _ = region.project(points, held)
        alone = [region.project(points[[i]], held[[i]])[0][0] for i in range(33)]
        shuffled = rng.permutation(33)
        np.testing.assert_array_equal(together, alone)
        np.testing.assert_array_equal(
            together[shuffled], region.project(points[shuffled], held[shuffled])[0]
        )
        np.testing.assert_array_equal(together[:2], region.project(points[:2], held[:2])[0])


@pytest.mark.parametrize("overlapping", [False, True])
def test_weights_inside_come_back_bit_for_bit(overlapping: bool) -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        region, inside = random_region(rng, int(rng.integers(2, 60)), overlapping)
        points, _ = random_rows(rng, inside, 8)
        weights, _ = region.project(np.vstack([inside, points]))
        np.testing.assert_array_equal(weights[0], inside)
        np.testing.assert_array_equal(region.project(weights)[0], weights)
        np.testing.assert_array_equal(region.project(weights[[1]])[0], weights[[1]])


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(7)
    region, inside = random_region(rng, 12, overlapping=False)
    points, held = random_rows(rng, inside, 9)
    before = points.copy(), held.copy()
    region.project(points, held)
    np.testing.assert_array_equal(points, before[0])
    np.testing.assert_array_equal(held, before[1])


def plain(upper: float, n: int, turnover: float = np.inf, has_cash: bool = False) -> Region:
    none = np.zeros(0)
    return Region(
        Bounds(np.zeros(n), np.full(n, upper), none, none), np.zeros((0, n)), turnover, has_cash
    )


def test_a_cap_by_hand() -> None:
    """0.3 above the cap goes to the others in equal parts."""
    weights, _ = plain(0.5, 3).project(np.array([[0.8, 0.2, 0.0]]))
    np.testing.assert_allclose(weights, [[0.5, 0.35, 0.15]], atol=1e-15)


def test_turnover_by_hand() -> None:
    """All of asset 0 into asset 1, of which a turnover of 0.1 allows a tenth."""
    held, point = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])
    weights, _ = plain(1.0, 3, 0.1).project(point, held)
    np.testing.assert_allclose(weights, [[0.9, 0.1, 0.0]], atol=1e-15)
    cash = np.array([[0.0, 0.0, 1.0]])  # from cash, only the risky leg is turnover
    weights, _ = plain(1.0, 3, 0.1, has_cash=True).project(point, cash)
    np.testing.assert_allclose(weights, [[0.0, 0.2, 0.8]], atol=1e-15)


def test_no_turnover_at_all_means_what_is_held() -> None:
    held = np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    weights, _ = plain(1.0, 3, 0.0).project(np.eye(3)[:2], held)
    np.testing.assert_allclose(weights, held, atol=1e-13)


def test_where_limits_collide_turnover_is_the_least_there_is() -> None:
    """The least turnover is that of a linear programme; the weights are the nearest with it."""
    rng = np.random.default_rng(8)
    for trial in range(30):
        n = int(rng.integers(3, 25))
        region, inside = random_region(rng, n, overlapping=trial % 2 == 1)
        region = Region(region.bounds, region.members, 0.001, region.has_cash)
        points, _ = random_rows(rng, inside, 4)
        held = rng.dirichlet(np.full(n, 0.3), 4)
        weights, found = region.project(points, held)
        assert found.all()
        n_risky = n - region.has_cash
        for i in range(4):
            turnover = 0.5 * np.abs(weights[i] - held[i])[:n_risky].sum()
            if turnover <= 0.001 + 1e-12:
                continue
            assert turnover == pytest.approx(least_turnover(region, held[i]), abs=1e-7)
            wider = Region(region.bounds, region.members, turnover + 1e-10, region.has_cash)
            expected = nearest_by_programme(wider, points[i], held[i])
            assert expected is not None
            np.testing.assert_allclose(weights[i], expected, atol=2e-5)


def least_turnover(region: Region, held: np.ndarray) -> float:
    """Least half sum of t with t >= |x - held| over the bounds."""
    n = len(held)
    n_risky = n - region.has_cash
    eye = np.eye(n)[:n_risky]
    lower, upper, floors, caps = region.bounds
    rows = [np.hstack([eye, -eye[:, :n_risky]]), np.hstack([-eye, -eye[:, :n_risky]])]
    sides = [held[:n_risky], -held[:n_risky]]
    wide = np.hstack([region.members, np.zeros((len(caps), n_risky))])
    rows += [wide[np.isfinite(caps)], -wide[np.isfinite(floors)]]
    sides += [caps[np.isfinite(caps)], -floors[np.isfinite(floors)]]
    found = linprog(
        np.append(np.zeros(n), np.full(n_risky, 0.5)),
        A_ub=np.vstack(rows),
        b_ub=np.concatenate(sides),
        A_eq=np.append(np.ones(n), np.zeros(n_risky))[None],
        b_eq=[1.0],
        bounds=[*zip(lower, upper, strict=True), *[(0.0, None)] * n_risky],
    )
    assert found.fun is not None
    return float(found.fun)


def test_bounds_without_weights_are_told() -> None:
    weights, found = plain(0.2, 4).project(np.eye(4))
    assert not found.any() and weights.shape == (4, 4)


def test_scores_of_any_size() -> None:
    """Sums stay exact, and shifting all scores changes nothing but rounding."""
    rng = np.random.default_rng(9)
    region, _ = random_region(rng, 15, overlapping=False)
    scores = rng.normal(size=(20, 15))
    for scale in (1e2, 1e6, 1e12):
        weights, _ = region.project(scores * scale)
        assert np.abs(weights.sum(axis=1) - 1.0).max() <= 1e-12
        assert (weights >= 0.0).all()
    near, _ = region.project(scores)
    far, _ = region.project(scores + 1e4)
    np.testing.assert_allclose(far, near, atol=1e-10)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_projections_bring_points_no_farther_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    region, inside = random_region(rng, int(rng.integers(2, 30)), overlapping=bool(seed % 2))
    points, _ = random_rows(rng, inside, 2)
    weights, _ = region.project(points)
    before, after = (np.linalg.norm(rows[0] - rows[1]) for rows in (points, weights))
    assert after <= before + 1e-12


def test_the_simplex_by_programme_and_by_hand() -> None:
    rng = np.random.default_rng(10)
    scores = rng.normal(size=(6, 50, 7)) * rng.choice([0.1, 1.0, 1e3], (6, 50, 1))
    weights = project_simplex(scores)
    assert np.abs(weights.sum(axis=-1) - 1.0).max() <= 1e-12 and (weights >= 0.0).all()
    for row, expected in zip(scores[0], weights[0], strict=True):
        found = nearest_by_programme(plain(1.0, 7), row, None)
        np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(project_simplex(np.array([2.0, 2.0, -1.0])), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(project_simplex(np.array([0.4, 0.2, 0.1])), [0.5, 0.3, 0.2])
