"""What the study found, as Markdown: scores with intervals, and floors met or missed."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from benchmarks.known_answers.agents import ENTRIES
from benchmarks.known_answers.cases import CASES
from benchmarks.known_answers.study import Result, better, better_on_average, scores
from benchmarks.report import BEGIN, END
from experiments.provenance import git_commit, software_versions
from experiments.seeds import interquartile_mean, interquartile_mean_interval

FREE = {"policy_gradient": 0.98, "ppo": 0.95, "sac": 0.95, "dqn": 0.95, "dqn_plain": 0.75}
PAID = {"policy_gradient": 0.90, "ppo": 0.85, "sac": 0.85, "dqn": 0.85, "dqn_plain": 0.65}
POWER = 0.9
MOST_TURNOVER, MOST_LOSS = 0.005, 0.01
FREE_CASES = ("kelly", "regimes_100", "regimes_80", "alternating", "merton")


def floor(case: str, agent: str) -> float | None:
    """The least interquartile mean that counts as found, where one is asked for."""
    if case == "power":
        return POWER
    if case in FREE_CASES:
        return FREE.get(agent)
    return PAID.get(agent) if case.endswith("_cost_2") else None


def met(case: str, agent: str, results: Sequence[Result]) -> bool | None:
    """Whether these seeds meet what is asked of them; None where nothing is."""
    if CASES[case].view is None:
        turnover = interquartile_mean(scores(results, "turnover"))
        loss = interquartile_mean(scores(results, "loss"))
        return bool(turnover < MOST_TURNOVER and loss < MOST_LOSS)
    least = floor(case, agent)
    return None if least is None else bool(interquartile_mean(scores(results)) >= least)


def cell(case: str, agent: str, results: Sequence[Result]) -> str:
    """Interquartile mean, interval, and a mark where a floor is missed."""
    if not results:
        return ""
    if CASES[case].view is None:
        turnover = interquartile_mean(scores(results, "turnover"))
        loss = interquartile_mean_interval(scores(results, "loss"))
        text = f"{turnover:.2%} a day, {loss.estimate:.2%} [{loss.low:.2%}, {loss.high:.2%}]"
    else:
        found = interquartile_mean_interval(scores(results))
        text = f"{100 * found.estimate:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    marks = {True: "", None: "", False: " **missed**"}[met(case, agent, results)]
    beaten = sum(map(better, results))
    untrained = "" if beaten == len(results) else f"; {beaten}/{len(results)} beat untrained"
    few = "" if len(results) >= 10 else f" (n = {len(results)})"
    return text + marks + few + untrained


def markdown(results: Sequence[Result], command: str) -> str:
    """The tables, and how they were made."""
    agents = [name for name in ENTRIES if any(r["agent"] == name for r in results)]
    versions = software_versions()
    shown = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "torch"))
    lines = [
        f"Made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by `{command}`",
        f"with {shown}, stable-baselines3 {versions['stable-baselines3']}, "
        f"commit {(git_commit() or 'unknown')[:12]}.",
        "",
        "| market | " + " | ".join(agents) + " |",
        "|---|" + "---|" * len(agents),
    ]
    for case, about in CASES.items():
        row = [[r for r in results if r["case"] == case and r["agent"] == a] for a in agents]
        if any(row):
            cells = [cell(case, agent, own) for agent, own in zip(agents, row, strict=True)]
            lines.append(f"| {about.title} | " + " | ".join(cells) + " |")
    lines += ["", *summary(results, agents)]
    return "\n".join(lines)


def summary(results: Sequence[Result], agents: Sequence[str]) -> list[str]:
    """Floors met of those asked for, runs that beat the untrained, and time."""
    lines = [
        "| agent | floors met | markets where it is better than untrained | runs | seconds a run |",
        "|---|--:|--:|--:|--:|",
    ]
    for agent in agents:
        own = [r for r in results if r["agent"] == agent]
        cases = dict.fromkeys(r["case"] for r in own)
        groups = {case: [r for r in own if r["case"] == case] for case in cases}
        asked = [met(case, agent, group) for case, group in groups.items()]
        asked = [answer for answer in asked if answer is not None]
        improved = f"{sum(map(better_on_average, groups.values()))} of {len(groups)}"
        seconds = sum(r["seconds"] for r in own) / len(own)
        counted = f"{sum(map(better, own))} of {len(own)}"
        lines.append(
            f"| {agent} | {sum(map(bool, asked))} of {len(asked)} | {improved} | {counted} | "
            f"{seconds:.0f} |"
        )
    return lines


def write(page: Path, tables: str) -> None:
    """Put the tables between the marks of the page."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
