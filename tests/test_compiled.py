"""Compiled constraints: the same numbers as numpy's, row by row, and nobody waits who has none."""

import os
import subprocess
import sys

import numpy as np
import pytest

from envs import group_newton
from envs.compiled import COMPILES, compiled
from envs.constraints import (
    Cardinality,
    ConstraintSet,
    GroupCap,
    MaxWeight,
    MinWeight,
    StopLoss,
    TurnoverCap,
    ValueAtRiskLimit,
    VolatilityTarget,
)
from tests.test_constraints import applied, six
from tests.test_projection import random_region, random_rows


def both_ways(function, monkeypatch: pytest.MonkeyPatch):
    """What a function gives compiled, and by numpy alone."""
    assert COMPILES, "numba is among the development requirements"
    given = []
    for flag in (True, False):
        for module in ("group_newton", "history", "weight_limits"):
            monkeypatch.setattr(f"envs.{module}.COMPILES", flag)
        given.append(function())
    return given


def test_projections_are_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n_solved = 0
    for _ in range(60):
        region, inside = random_region(rng, int(rng.integers(2, 60)), overlapping=False)
        points, held = random_rows(rng, inside, 20)
        (first, found), (second, again) = both_ways(
            lambda r=region, p=points, h=held: r.project(p, h), monkeypatch
        )
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(found, again)
        split, rows = region._split, region._own_rows
        assert split is not None
        problem = group_newton.Problem(points, held, *rows, 2.0 * region.turnover)
        (_, solved, stand), (_, same, place) = both_ways(
            lambda s=split, p=problem: group_newton.solve(s, p), monkeypatch
        )
        np.testing.assert_array_equal(solved, same)
        np.testing.assert_array_equal(stand, place)
        n_solved += solved.sum()
    assert n_solved > 900


def test_next_to_no_row_goes_round_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of problems like those of an environment nearly all end by Newton's steps."""
    limits = [GroupCap("*", 0.4), MaxWeight(0.25), TurnoverCap(0.2)]
    region = ConstraintSet.build(limits, six()).project
    rng = np.random.default_rng(1)
    left = []
    solve = group_newton.solve

    def counted(*arguments):
        answer = solve(*arguments)
        left.append((~answer[1]).sum())
        return answer

    monkeypatch.setattr(group_newton, "solve", counted)
    held = region(rng.dirichlet(np.ones(7), 5000))
    region(rng.dirichlet(np.full(7, 0.3), 5000), held)
    assert len(left) == 2 and sum(left) <= 25


@pytest.mark.parametrize(
    "constraints",
    [
        (MaxWeight(0.3), GroupCap("*", 0.4), TurnoverCap(0.15), VolatilityTarget(0.05, window=20)),
        (MinWeight(0.02), Cardinality(6), StopLoss(0.1)),
        (MaxWeight(0.5), ValueAtRiskLimit(0.004, method="parametric", window=30, safe="gas")),
        (GroupCap("own", 0.5, 0.1, assets=("gold", "oil")), GroupCap("*", 0.45), TurnoverCap(0.1)),
    ],
)
def test_what_is_traded_and_logged_is_the_same(constraints, monkeypatch) -> None:
    limits = ConstraintSet.build(constraints, six())
    rng = np.random.default_rng(2)
    asked, held = rng.dirichlet(np.full(7, 0.5), (2, 200))
    times = rng.integers(0, 100, 200)
    compiled_ones, plain = both_ways(lambda: applied(limits, asked, held, times), monkeypatch)
    np.testing.assert_allclose(compiled_ones[0], plain[0], rtol=0.0, atol=1e-12)
    for name, flags in plain[2].items():
        np.testing.assert_array_equal(compiled_ones[2][name], flags)
    assert sum(flags.sum() for flags in plain[2].values()) > 50
    np.testing.assert_array_equal(compiled_ones[3], plain[3])


@pytest.mark.parametrize("flag", [True, False])
def test_alone_and_in_a_batch_on_both_ways(flag: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("group_newton", "history", "weight_limits"):
        monkeypatch.setattr(f"envs.{module}.COMPILES", flag)
    constraints = MaxWeight(0.3), GroupCap("*", 0.4), TurnoverCap(0.15), VolatilityTarget(0.05)
    limits = ConstraintSet.build(constraints, six())
    rng = np.random.default_rng(3)
    asked, held = rng.dirichlet(np.full(7, 0.5), (2, 50))
    times = rng.integers(30, 100, 50)
    target, _, binding, _ = applied(limits, asked, held, times)
    for i in range(50):
        alone, _, bound, _ = applied(limits, asked[i], held[i], int(times[i]))
        np.testing.assert_array_equal(alone, target[i])
        assert {k: bool(v) for k, v in bound.items()} == {k: bool(v[i]) for k, v in binding.items()}


def test_arrays_of_any_layout_are_taken() -> None:
    limits = ConstraintSet.build([MaxWeight(0.3), TurnoverCap(0.2)], six())
    scores, held = np.random.default_rng(4).dirichlet(np.ones(7), (2, 6))
    expected = limits.project(scores, held)
    strided = np.repeat(scores, 2, axis=1)[:, ::2]
    for given in (np.asfortranarray(scores), strided, scores[::-1][::-1]):
        given.flags.writeable = False
        np.testing.assert_array_equal(limits.project(given, held), expected)


def test_where_machine_code_cannot_be_kept_it_is_made_all_the_same() -> None:
    """Numba finds no folder to keep code that comes from no file."""
    scope: dict = {}
    exec("def double(x):\n    return 2.0 * x\n", scope)  # noqa: S102
    double = compiled(scope["double"])
    assert double(1.5) == 3.0 and double is not scope["double"]


RUN = """
import sys
import numpy as np
from envs import PortfolioEnv
from envs.constraints import MaxWeight, TurnoverCap
from market import load_market
market = load_market("multi_asset", start="2017-01-01", end="2018-01-01")
env = PortfolioEnv(market, lookback=5)
env.reset(seed=0)
env.step(env.action_space.sample())
assert "numba" not in sys.modules, "compiling without constraints"
env = PortfolioEnv(market, lookback=5, constraints=(MaxWeight(0.3), TurnoverCap(0.2)))
env.reset(seed=0)
for seed in range(30):
    _, _, _, _, info = env.step(np.random.default_rng(seed).dirichlet(np.ones(5)))
print("numba" in sys.modules, info["value"].hex())
"""


def test_numba_is_for_constraints_alone_and_can_be_turned_off() -> None:
    def run(**environment: str) -> list[str]:
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    on, off = run(NUMBA_DISABLE_JIT="0"), run(NUMBA_DISABLE_JIT="1")
    assert (on[0], off[0]) == ("True", "False") and on[1] == off[1]
