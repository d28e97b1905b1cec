"""One run of the study: train, value exactly, beside the same agent untrained; kept as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.base import Agent
from benchmarks.known_answers.agents import ENTRIES, Entry
from benchmarks.known_answers.cases import CASES, Case
from benchmarks.known_answers.exact import growth, idling
from envs.menus import lattice_points
from market import Market
from market.sources.optimum import Optimum

FOLDER = Path("results") / "known_answers"
FIRST = 3  # seeds of the first pass
FRESH = 1_000  # added to the seed of a path that was not trained on
Result = dict[str, Any]


class Run(NamedTuple):
    """One agent on one market with one seed, of both the path and the agent."""

    case: str
    agent: str
    seed: int

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / self.case / self.agent / f"seed_{self.seed:03d}.json"

    def result(self, folder: Path) -> Result | None:
        """What was found before with the settings of today, or None."""
        if not self.file(folder).exists():
            return None
        found: Result = json.loads(self.file(folder).read_text())
        settings = ENTRIES[self.agent].settings(CASES[self.case].cost)
        return found if found["settings"] == settings else None


def perform(run: Run, folder: Path) -> Result:
    """Train, value, and keep what was found."""
    case, entry = CASES[run.case], ENTRIES[run.agent]
    market, began = case.market(run.seed), time.process_time()
    agent = entry.agent(case.cost).fit(market, task=case.task, seed=run.seed)
    seconds = time.process_time() - began
    untrained = entry.agent(case.cost, trained=False).fit(market, task=case.task, seed=run.seed)
    about = {"case": run.case, "agent": run.agent, "seed": run.seed}
    found = about | {"settings": entry.settings(case.cost), "seconds": round(seconds, 2)}
    found |= {"trained": figures(agent, case, market, run.seed)}
    found |= {"untrained": figures(untrained, case, market, run.seed)}
    file = run.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(found) + "\n")
    fresh.replace(file)
    return found


def figures(agent: Agent, case: Case, market: Market, seed: int) -> dict[str, float]:
    """Growth and score, or on pure noise turnover and loss."""
    if case.view is None:
        return idling(agent, case.market(FRESH + seed), case.task)._asdict()
    optimum: Optimum = market.optimum
    earned = growth(agent, case.exam(market), optimum)
    room = limit(agent, optimum) - optimum.growth_equal
    return {"growth": earned, "score": (earned - optimum.growth_equal) / room}


def limit(agent: Agent, optimum: Optimum) -> float:
    """The best growth there is, or that a lattice of allocations, and holding, allows."""
    lattice = getattr(agent.settings, "lattice", None)
    if lattice is None:
        return optimum.growth
    points = lattice_points(optimum.chain.n_assets, lattice)
    return optimum.growth_within(points, hold=True)


def perform_all(runs: Sequence[Run], folder: Path, workers: int) -> Iterator[Result]:
    """Results of all runs, of those not yet known as they come."""
    missing = []
    for run in runs:
        known = run.result(folder)
        if known is None:
            missing.append(run)
        else:
            yield known
    if workers == 1:
        yield from (perform(run, folder) for run in missing)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(perform, run, folder) for run in missing]):
            yield done.result()


def better(result: Result) -> bool:
    """Whether training made the agent better: more growth, or on noise less loss."""
    trained, untrained = result["trained"], result["untrained"]
    if "loss" in trained:
        return bool(trained["loss"] < untrained["loss"])
    return bool(trained["growth"] > untrained["growth"])


def scores(results: Sequence[Result], key: str = "score") -> np.ndarray:
    """A figure of each, (S,)."""
    return np.array([result["trained"][key] for result in results])


def runs_of(cases: Sequence[str], agents: Sequence[str], seeds: int) -> list[Run]:
    """All agents on all markets with a few seeds first, then with the others."""
    blocks = (range(min(seeds, FIRST)), range(FIRST, seeds))
    return [Run(c, a, s) for block in blocks for c in cases for s in block for a in agents]


__all__ = ["FOLDER", "Entry", "Run", "better", "figures", "perform", "perform_all", "runs_of"]
