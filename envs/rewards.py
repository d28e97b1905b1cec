"""Rewards: `REWARDS` by name, and `make_reward` from an expression, an object or a user's code.

    make_reward("log_return - 0.1 * turnover")        make_reward("mean_variance(risk_aversion=5)")
    make_reward("my_rewards.py:Sortino(eta=0.01)")    make_reward(lambda transition: ...)

Objectives are better when higher; penalties (`turnover`, `cost`, `drawdown`, `concentration`,
`cvar`, `Violation`) are positive amounts to subtract. All are finite, also when all is lost.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from envs.reward_base import Memory, Reward, WeightedSum, weighted_sum
from envs.reward_expression import read_expression
from envs.reward_objectives import (
    CRRA,
    ActiveReturn,
    Concentration,
    ExcessReturn,
    LogReturn,
    MeanVariance,
    SimpleReturn,
    TradingCost,
    Turnover,
    Violation,
)
from envs.reward_plugin import PlugIn, check_reward
from envs.reward_ratios import (
    ConditionalValueAtRisk,
    DifferentialDownside,
    DifferentialSharpe,
    Drawdown,
    EpisodeSharpe,
    RollingSharpe,
)
from envs.simulator import Array, Transition
from market import SettingError
from market.names import unknown_name
from market.plugin import load_plugin

__all__ = ["REWARDS", "Memory", "Reward", "Violation", "WeightedSum", "check_reward", "make_reward"]

REWARDS: dict[str, type[Reward]] = {
    kind.name: kind
    for kind in (
        LogReturn,
        SimpleReturn,
        ExcessReturn,
        ActiveReturn,
        DifferentialSharpe,
        DifferentialDownside,
        RollingSharpe,
        EpisodeSharpe,
        MeanVariance,
        CRRA,
        ConditionalValueAtRisk,
        Turnover,
        TradingCost,
        Drawdown,
        Concentration,
    )
}

RewardSpec = str | Reward | Callable[[Transition], Array]


def make_reward(spec: RewardSpec, *, plugins: bool = True) -> Reward:
    """Build a reward.

    Args:
        spec: An expression over `REWARDS` such as "log_return - 0.1 * turnover", in which
            `module:Name` and `file.py:Name` name a user's own (in quotes if there are blanks);
            a Reward; or a function of the transition that returns an array of shape (*B,).
        plugins: Whether an expression may load a user's code.

    Raises:
        SettingError: If a name, setting or sign is not understood; with its position. What a user's
            reward returns is checked at every step.

    """
    if isinstance(spec, str):
        return read_expression(spec, partial(_named, plugins=plugins))
    if isinstance(spec, WeightedSum):
        return weighted_sum((weight, make_reward(part)) for weight, part in spec.parts)
    if isinstance(spec, Reward) and type(spec) in (*REWARDS.values(), Violation, PlugIn):
        return spec
    return PlugIn.wrap(spec)


def _named(
    reference: str, values: Sequence[Any], settings: Mapping[str, Any], plugins: bool
) -> Reward:
    if ":" in reference:
        if not plugins:
            raise SettingError(f"reward `{reference}` is a user's code, which is not allowed here")
        return PlugIn.wrap(load_plugin(reference, "reward"), values, settings, reference)
    if reference not in REWARDS:
        raise unknown_name("reward", reference, REWARDS)
    kind = REWARDS[reference]
    try:
        inspect.signature(kind).bind(*values, **settings)
    except TypeError as error:
        takes = ", ".join(inspect.signature(kind).parameters) or "no settings"
        raise SettingError(f"{reference}: {error}; it takes {takes}") from None
    return kind(*values, **settings)
