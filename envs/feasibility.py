"""Whether limits on weights can be met at all, and what gives way on a date when they cannot."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.general_projection import Bounds
from envs.limits import Part
from market import SettingError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SLACK = 1e-9


@dataclass(frozen=True)
class Merged:
    """All limits of a set taken together.

    Attributes:
        bounds: Tightest bounds of assets (N,) and groups (G,).
        members: Which assets form which group, (G, N) of 0 and 1; cash may be in one.
        turnover: Tightest turnover.
        count: Smallest cardinality, or None.
        has_cash: Whether the last asset is cash.

    """

    bounds: Bounds
    members: Array
    turnover: float
    count: int | None
    has_cash: bool


def merge(parts: list[Part], n_assets: int, has_cash: bool) -> Merged:
    """The tightest of all limits; groups with the same members become one."""
    lower, upper = np.zeros(n_assets), np.ones(n_assets)
    groups: dict[tuple[int, ...], tuple[float, float]] = {}
    for part in parts:
        for i, value in (part.lower or {}).items():
            lower[i] = max(lower[i], value)
        for i, value in (part.upper or {}).items():
            upper[i] = min(upper[i], value)
        for _, assets, floor, cap in part.groups:
            key = tuple(sorted(assets))
            least, most = groups.get(key, (0.0, 1.0))
            groups[key] = max(least, floor), min(most, cap)
    members = np.zeros((len(groups), n_assets))
    for row, key in zip(members, groups, strict=True):
        row[list(key)] = 1.0
    levels = np.array(list(groups.values())).reshape(-1, 2)
    counts = [part.count for part in parts if part.count is not None]
    turnover = min((part.turnover for part in parts), default=np.inf)
    bounds = Bounds(lower, upper, levels[:, 0], levels[:, 1])
    return Merged(bounds, members, turnover, min(counts, default=None), has_cash)


def check(limits: list[tuple[str, Part]], assets: tuple[str, ...], has_cash: bool) -> None:
    """Refuse limits that collide, naming no more of them than it takes, with the arithmetic.

    Args:
        limits: Kind and part of each limit.
        assets: Names, (N,).
        has_cash: Whether the last asset is cash.

    Raises:
        SettingError: If no weights meet all limits.

    """

    def merged(keep: list[int]) -> Merged:
        return merge([limits[i][1] for i in keep], len(assets), has_cash)

    kept = list(range(len(limits)))
    if not limits or _meets_one(_reach(merged(kept))):
        return
    for i in range(len(limits)):  # what the others collide without has no part in it
        fewer = [j for j in kept if j != i]
        if not _meets_one(_reach(merged(fewer))):
            kept = fewer
    names = " and ".join(_text(*limits[i], assets) for i in kept)
    raise SettingError(f"{names} {_arithmetic(merged(kept), len(kept) > 1, assets)}")


def widened(bounds: Bounds, members: Array) -> Bounds | None:
    """Bounds of one row with floors dropped and caps raised by the least common factor.

    None where no factor helps: nothing may be held.
    """
    from scipy.optimize import linprog

    n_assets = len(bounds.upper)
    ones = np.ones((1, n_assets))
    # variables: weights and the factor, which multiplies every upper bound and cap
    rows = np.vstack([np.eye(n_assets), members])
    levels = np.concatenate([bounds.upper, bounds.caps])
    finite = np.isfinite(levels)
    found = linprog(
        np.append(np.zeros(n_assets), 1.0),
        A_ub=np.column_stack([rows, -levels])[finite],
        b_ub=np.zeros(finite.sum()),
        A_eq=np.column_stack([ones, [[0.0]]]),
        b_eq=[1.0],
        bounds=[(0.0, None)] * n_assets + [(1.0, None)],
    )
    if found.x is None:
        return None
    factor = found.x[-1] * (1.0 + SLACK)
    none = np.zeros_like(bounds.lower)
    caps = bounds.caps * factor
    return Bounds(none, np.minimum(bounds.upper * factor, 1.0), np.full_like(caps, -np.inf), caps)


def _meets_one(reach: tuple[float, float]) -> bool:
    return reach[0] <= 1.0 + SLACK and reach[1] >= 1.0 - SLACK


def _reach(merged: Merged) -> tuple[float, float]:
    """Least and largest sum of weights that the limits allow; nan where they allow none."""
    from scipy.optimize import Bounds as Box
    from scipy.optimize import LinearConstraint, milp

    n_assets = merged.members.shape[1]
    n_risky = n_assets - merged.has_cash
    lower, upper, floors, caps = merged.bounds
    if (lower > upper).any():
        return np.nan, np.nan
    # a flag for each risky asset: its weight is at most the flag, and flags are counted
    eye, blank = np.eye(n_assets)[:n_risky], np.zeros((len(merged.members), n_risky))
    flags = np.concatenate([np.zeros(n_assets), np.ones(n_risky)])
    rules = [
        LinearConstraint(np.hstack([eye, -np.eye(n_risky)]), -np.inf, 0.0),
        LinearConstraint(flags, 0.0, n_risky if merged.count is None else merged.count),
        *([LinearConstraint(np.hstack([merged.members, blank]), floors, caps)] * bool(len(blank))),
    ]
    box = Box(np.append(lower, np.zeros(n_risky)), np.append(upper, np.ones(n_risky)))
    ends = [
        milp(sign * (1.0 - flags), bounds=box, constraints=rules, integrality=flags)
        for sign in (1.0, -1.0)
    ]
    least, most = ends[0].fun, ends[1].fun
    if least is None or most is None:
        return np.nan, np.nan
    return float(least), -float(most)


def _text(kind: str, part: Part, assets: tuple[str, ...]) -> str:
    """A limit in words: "MaxWeight 0.2 on 4 assets"."""
    if part.count is not None:
        return f"{kind} {part.count}"
    if part.groups:
        levels = [
            f"{name} {cap:g}" + (f" with floor {floor:g}" if floor else "")
            for name, _, floor, cap in part.groups
        ]
        return f"{kind} {', '.join(levels)}"
    bounds = part.lower or part.upper or {}
    values = sorted(set(bounds.values()))
    where = f"{len(bounds)} assets" if len(bounds) > 1 else assets[next(iter(bounds))]
    return f"{kind} {' to '.join(f'{v:g}' for v in values[:1] + values[1:][-1:])} on {where}"


def _arithmetic(merged: Merged, several: bool, assets: tuple[str, ...]) -> str:
    """The rest of the sentence: by how much the limits miss a sum of 1."""
    least, most = _reach(merged)
    ending = "" if several else "s"
    if least > 1.0:
        return f"need{ending} {least:.6g} > 1"
    if most < 1.0:
        cash = "" if merged.has_cash else " and there is no cash"
        return f"reach{'' if several else 'es'} {most:.6g} < 1{cash}"
    lower, upper, floors, caps = merged.bounds
    for i in np.flatnonzero(lower > upper):
        return f"collide on {assets[i]}: {lower[i]:.6g} > {upper[i]:.6g}"
    for row, floor, cap in zip(merged.members, floors, caps, strict=True):
        if row @ lower > cap:
            return f"collide: the group's assets need {row @ lower:.6g} > {cap:.6g}"
        if row @ upper < floor:
            return f"collide: the group's assets reach {row @ upper:.6g} < {floor:.6g}"
    return "cannot be met together"
