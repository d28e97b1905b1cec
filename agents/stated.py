"""Mean-variance utility as skfolio states it, once; the days that follow only change its numbers.

Most of the time of an optimiser of that kind goes into turning formulas into matrices. Here means,
risk, holdings, rates and limits are parameters of the formulas, so that is done once for a number
of assets and a kind of room, and a day takes a fifth of the time.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from agents.quadratic import TOLERANCES
from agents.rolling import given_prior
from agents.room import Room

FAR = 1e6  # beyond any trade


class StatedUtility:
    """max w.mu - lambda/2 w.S.w - costs within a room, stated by skfolio's `MeanRisk`.

    Risk enters as a sum of squares, which the solver takes as it is: skfolio's own risk measure is
    a cone, of which it finds weights to 1e-5 only.

    Args:
        room: Of the first day.

    """

    def __init__(self, room: Room) -> None:
        import cvxpy as cp

        count, self._shape = len(room.held), _shape(room)
        n_limits = 0 if room.limits is None else len(room.limits[1])
        self._numbers = {
            "mean": cp.Parameter(count),
            "root": cp.Parameter((count, count)),
            "budget": cp.Parameter(),
            "held": cp.Parameter(count),
            "buy": cp.Parameter(count, nonneg=True),
            "sell": cp.Parameter(count, nonneg=True),
            "reach": cp.Parameter(),
            "matrix": cp.Parameter((max(n_limits, 1), count)),
            "level": cp.Parameter(max(n_limits, 1)),
        }
        self._weights: Any = None
        self._problem: Any = None

    def fits(self, room: Room) -> bool:
        """Whether a room differs from the first in its numbers only."""
        return _shape(room) == self._shape

    def solve(
        self,
        mean: np.ndarray,
        covariance: np.ndarray,
        risk_aversion: float,
        room: Room,
        periods: float = 1.0,
    ) -> np.ndarray:
        """The optimum (k,), costs spread over so many periods.

        Raises:
            ArithmeticError, cvxpy.error.SolverError: If there is none.

        """
        if self._problem is None:
            self._state(room)
        scale = 1.0 / (risk_aversion * float(np.diag(covariance).mean()))
        given: dict[str, Any] = {"mean": scale * mean, "budget": room.budget}
        given["root"] = _root(scale * risk_aversion * covariance)
        trading = room.trading(periods)
        if trading is not None:
            given |= {"held": trading.held, "reach": min(room.reach, FAR)}
            given |= {"buy": scale * trading.buy, "sell": scale * trading.sell}
        if room.limits is not None:
            given |= dict(zip(("matrix", "level"), room.limits, strict=True))
        for name, value in given.items():
            self._numbers[name].value = value
        with warnings.catch_warnings():  # what it calls inaccurate is within 1e-9: see TOLERANCES
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            self._problem.solve(solver="CLARABEL", warm_start=False, **TOLERANCES)
        if self._problem.status not in ("optimal", "optimal_inaccurate"):
            raise ArithmeticError(f"skfolio's programme: {self._problem.status}")
        return np.asarray(self._weights.value)

    def _state(self, room: Room) -> None:
        """Let skfolio write the problem down; it solves it once, too, so the numbers are easy."""
        import cvxpy as cp
        from skfolio import RiskMeasure
        from skfolio.optimization import MeanRisk, ObjectiveFunction

        of, count, trades = self._numbers, len(room.held), room.trading() is not None
        for name, number in of.items():
            number.value = np.full(number.shape, FAR if name in ("level", "reach") else 0.0)
        of["root"].value, of["budget"].value = np.eye(count), 1.0
        bought, sold = (cp.Variable(count, nonneg=True) for _ in range(2))

        def objective(weights: Any) -> Any:
            risk = 0.5 * cp.sum_squares(of["root"] @ weights)
            return -risk - of["buy"] @ bought - of["sell"] @ sold if trades else -risk

        def conditions(weights: Any) -> list[Any]:
            self._weights, total = weights, cp.sum(weights)
            made = [total == of["budget"] if room.full else total <= of["budget"]]
            if room.limits is not None:
                made.append(of["matrix"] @ weights <= of["level"])
            if trades:
                made.append(weights - of["held"] == bought - sold)
                made.append(cp.sum(bought) + cp.sum(sold) <= of["reach"])
            return made

        model = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_RETURN,
            overwrite_expected_return=lambda weights: of["mean"] @ weights,
            add_objective=objective,
            add_constraints=conditions,
            prior_estimator=given_prior(np.zeros(count), np.eye(count)),
            max_weights=None,
            budget=None,
            risk_measure=RiskMeasure.WORST_REALIZATION,  # of no returns: one idle variable
            save_problem=True,
        )
        self._problem = model.fit(np.zeros((2, count))).problem_


def _shape(room: Room) -> tuple[Any, ...]:
    n_limits = None if room.limits is None else len(room.limits[1])
    return len(room.held), room.full, n_limits, room.trading() is not None


def _root(covariance: np.ndarray) -> np.ndarray:
    """R of R'R = S, also where S is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
