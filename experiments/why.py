"""One weight on one day as a sentence: what was asked for, and the three inputs that moved it most.

Inputs are summed over their lags, so that a driver is one feature of one asset, one context
feature, or what was held. Drivers and what is left of the others add up to the change from the
answer to an average day.
"""

from __future__ import annotations

from typing import Any

from agents.response import Response
from experiments.gradients import Gradients

N_DRIVERS = 3
UNITS = {  # of an answer: what it is called, and how a number of it is written
    "weight": ("network's weight", "{:.1%}", "{:+.2f} points", 100.0),
    "proposal": ("proposed weight", "{:.1%}", "{:+.2f} points", 100.0),
    "forecast": ("forecast for the next day", "{:+.3%}", "{:+.2f} bp", 10_000.0),
    "value": ("estimate of what a unit more is worth", "{:+.4f}", "{:+.4f}", 1.0),
}


def drivers(
    response: Response, found: Gradients, assets: tuple[str, ...]
) -> list[dict[str, float | str]]:
    """Every input with its part of the change from the baseline, the largest first."""
    parts: dict[str, float] = {}
    for i, asset in enumerate(response.assets):
        for j, name in enumerate(response.feature_names):
            parts[f"{name} of {asset}"] = float(found.features[0, :, i, j].sum())
    for j, name in enumerate(response.context_names):
        parts[name] = float(found.context[0, :, j].sum())
    for i, asset in enumerate(assets):
        parts[f"{asset} held"] = float(found.held[0, i])
    ordered = sorted(parts.items(), key=lambda item: (-abs(item[1]), item[0]))
    return [{"input": name, "part": part} for name, part in ordered]


def reason(agent: str, why: dict[str, Any]) -> str:
    """The sentence."""
    called, form, step, factor = UNITS[why["meaning"]]
    change = why["answer"] - why["baseline"]
    first = why["drivers"][:N_DRIVERS]
    named = [f"{each['input']} ({step.format(factor * each['part'])})" for each in first]
    rest = change - sum(float(each["part"]) for each in first)
    held = (
        f"On {why['date']} {agent} held {why['weight']:.1%} {why['asset']} "
        f"({why['mean_weight']:.1%} on average)"
    )
    answer = (
        f"its {called} was {form.format(why['answer'])}, {step.format(factor * change)} from that "
        f"of an average day, driven by {', '.join(named[:-1])} and {named[-1]}; all other inputs "
        f"made {step.format(factor * rest)}"
    )
    bound = f"; then {_listed(why['limits'])} moved the target" if why["limits"] else ""
    return f"{held}: {answer}{bound}."


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
