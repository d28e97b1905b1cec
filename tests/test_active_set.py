"""Programmes solved from a guess of what binds, against other solvers and the conditions."""

import daqp
import numpy as np
import pytest

from agents import AGENTS, quadratic
from agents.active_set import Programme, follow
from agents.base import Task
from agents.quadratic import Trading, best_utility
from agents.rollout import roll
from envs.constraints import MaxWeight
from market.sources.synthetic import gbm

AVERSION = 5.0


def problem(seed, count=12):
    """Moments of daily returns, and holdings that leave some out."""
    rng = np.random.default_rng(seed)
    moves = 0.01 * rng.standard_normal((60, count)) @ rng.standard_normal((count, count)) / 3.0
    held = rng.dirichlet(np.ones(count)) * (rng.random(count) < 0.7)
    mean = 1e-3 * rng.standard_normal(count)
    return mean, np.cov(moves.T) + 1e-5 * np.eye(count), held / max(held.sum(), 1.0)


def programme_of(mean, covariance, held, costs, caps, full):
    count = len(mean)
    scale = 1.0 / (AVERSION * np.diag(covariance).mean())
    own = held if costs else np.zeros(count)
    rates = scale * costs * np.ones(count)
    return Programme(
        scale * AVERSION * covariance,
        -scale * mean,
        own,
        rates,
        0.5 * rates,
        np.vstack([np.ones(count), np.eye(count)]),
        np.append(1.0, np.full(count, caps)),
        full,
    )


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("costs", [0.0, 2e-4])
@pytest.mark.parametrize("caps", [1.0, 0.3])
def test_the_answer_is_the_interior_points_and_mostly_there(full, costs, caps):
    found = 0
    for seed in range(40):
        mean, covariance, held = problem(seed)
        if full:
            held = held / held.sum()
        trading = Trading(held, np.full(12, costs), np.full(12, 0.5 * costs)) if costs else None
        limits = (np.eye(12), np.full(12, caps))
        expected = best_utility(
            mean, covariance, AVERSION, full=full, trading=trading, limits=limits
        )
        answer = follow(programme_of(mean, covariance, held, costs, caps, full), held)
        if answer is not None:
            found += 1
            np.testing.assert_allclose(answer, expected, rtol=0.0, atol=1e-6)
    assert found >= 15, found


@pytest.mark.parametrize("costs", [0.0, 2e-4])
def test_where_it_starts_does_not_matter(costs):
    mean, covariance, held = problem(3)
    programme = programme_of(mean, covariance, held, costs, 1.0, full=False)
    rng = np.random.default_rng(0)
    starts = [held, np.zeros(12), *rng.dirichlet(np.ones(12), 20), *np.eye(12)]
    answers = [follow(programme, start) for start in starts]
    known = [answer for answer in answers if answer is not None]
    assert len(known) > 12
    for answer in known:
        np.testing.assert_allclose(answer, known[0], rtol=0.0, atol=1e-13)


def test_the_optimum_meets_its_conditions_to_rounding():
    mean, covariance, held = problem(5)
    programme = programme_of(mean, covariance, held, 0.0, 1.0, full=True)
    weights = follow(programme, held)
    assert weights is not None
    slope = programme.quadratic @ weights + programme.linear
    price = slope[weights > 0.0].mean()
    np.testing.assert_allclose(slope[weights > 0.0], price, rtol=0.0, atol=1e-12)
    assert (slope >= price - 1e-12).all() and weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0, abs=1e-14)


def test_it_agrees_with_daqp():
    for seed in range(20):
        mean, covariance, held = problem(seed)
        programme = programme_of(mean, covariance, held, 0.0, 0.25, full=False)
        found = follow(programme, held)
        if found is None:
            continue
        above, below = np.append(np.full(12, 0.25), 1.0), np.append(np.zeros(12), -1e30)
        expected, _, flag, _ = daqp.solve(
            programme.quadratic, programme.linear, np.ones((1, 12)), above, below,
            np.zeros(13, np.int32),
        )  # fmt: skip
        assert flag == 1
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-9)


def test_it_leaves_to_others_what_has_no_sharp_or_no_answer():
    mean, covariance, held = problem(1)
    flat = np.outer(covariance[0], covariance[0]) / covariance[0, 0]
    assert follow(programme_of(mean, flat, held, 0.0, 1.0, full=True), held) is None
    contradictory = programme_of(mean, covariance, held, 0.0, 0.05, full=True)  # 12 * 5 % < 1
    assert follow(contradictory, held) is None
    unknown = programme_of(mean * np.nan, covariance, held, 0.0, 1.0, full=True)
    assert follow(unknown, held) is None


# ---- in a back-test


def walk():
    return gbm(4, 420, n_assets=8, drift=0.15)


def test_from_day_to_day_no_other_solver_is_needed(monkeypatch):
    def refused(*given):
        raise AssertionError("asked the interior-point solver")

    monkeypatch.setattr(quadratic, "_solve", refused)
    market = walk()
    for costs in (False, True):
        agent = AGENTS["mean_variance"](solver="direct", rebalance_every=1, costs=costs)
        task = Task()
        path = roll(agent.fit(market, task=task), market, task)
        assert not path.failures and path.turnover.sum() > 0.0


@pytest.mark.parametrize("constraints", [(), (MaxWeight(0.25),)])
def test_a_whole_back_test_is_that_of_skfolio(constraints):
    market, task = walk()[:310], Task(constraints=constraints)
    direct, skfolio = (
        roll(
            AGENTS["mean_variance"](solver=solver, rebalance_every=1).fit(market, task=task),
            market,
            task,
        ).targets
        for solver in ("direct", "skfolio")
    )
    np.testing.assert_allclose(direct, skfolio, rtol=0.0, atol=1e-6)


def test_the_same_question_gets_the_same_bits_whatever_was_asked_before():
    market = walk()
    held = np.append(np.full(8, 0.1), 0.2)
    used = AGENTS["mean_variance"](solver="direct", rebalance_every=1)
    for row in range(300, 420):
        used.act(market.upto(row), np.eye(9)[row % 9])
    fresh = AGENTS["mean_variance"](solver="direct", rebalance_every=1)
    for row in (400, 310, 300):
        mine, theirs = (agent.act(market.upto(row), held) for agent in (used, fresh))
        assert mine.tobytes() == theirs.tobytes()


def test_an_optimum_wholly_in_cash_is_no_failure(monkeypatch):
    """Where rounding leaves less than nothing in every asset, the sum is below the least."""
    agent = AGENTS["mean_variance"](solver="direct", rebalance_every=1)
    monkeypatch.setattr(agent, "solve", lambda excess, room: np.full(excess.shape[1], -1e-14))
    weights = agent.act(walk(), np.append(np.full(8, 0.1), 0.2))
    assert agent.failed is None
    np.testing.assert_array_equal(weights, np.eye(9)[-1])
