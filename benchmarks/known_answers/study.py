"""Runs of the study: train, value exactly, beside the same agent untrained; and their store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.base import Agent
from benchmarks.known_answers.agents import ENTRIES
from benchmarks.known_answers.cases import CASES, Case
from benchmarks.known_answers.exact import growth, idling
from envs.menus import lattice_points
from experiments.seeds import interquartile_mean
from market import Market
from market.sources.optimum import Optimum

STORE = Path("results") / "known_answers.jsonl"
FIRST = 3  # seeds of the first pass
FRESH = 1_000  # added to the seed of a path that was not trained on
NOTHING = 1e-6  # a loss of so much a year is rounding
Result = dict[str, Any]


class Run(NamedTuple):
    """One agent on one market with one seed, of both the path and the agent."""

    case: str
    agent: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the agent's defaults."""
        return ENTRIES[self.agent].settings(CASES[self.case].cost)

    @property
    def digest(self) -> str:
        """Of the settings: a result belongs to the settings it was found with."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Store:
    """Finished runs, a JSON object a line; a line is appended as soon as its run is done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._found = {_key(result): result for result in map(json.loads, lines)}

    def result(self, run: Run) -> Result | None:
        """What was found before with the settings of today, or None."""
        return self._found.get((*run, run.digest))

    def add(self, result: Result) -> None:
        """Keep a result."""
        self._found[_key(result)] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")

    def tidy(self) -> None:
        """Drop what was found with settings that are no more, and put the rest in order."""
        kept = [result for key, result in sorted(self._found.items()) if _is_of_today(result)]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(result) + "\n" for result in kept))
        fresh.replace(self.path)


def _key(result: Result) -> tuple[str, str, int, str]:
    return result["case"], result["agent"], result["seed"], result["settings"]


def _is_of_today(result: Result) -> bool:
    run = Run(result["case"], result["agent"], result["seed"])
    return run.case in CASES and run.agent in ENTRIES and run.digest == result["settings"]


def perform(run: Run) -> Result:
    """Train, and value beside the same agent untrained."""
    case, entry = CASES[run.case], ENTRIES[run.agent]
    market, began = case.market(run.seed), time.process_time()
    agent = entry.agent(case.cost).fit(market, task=case.task, seed=run.seed)
    seconds = time.process_time() - began
    untrained = entry.agent(case.cost, trained=False).fit(market, task=case.task, seed=run.seed)
    return run._asdict() | {
        "settings": run.digest,
        "seconds": round(seconds, 2),
        "trained": figures(agent, case, market, run.seed),
        "untrained": figures(untrained, case, market, run.seed),
    }


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


def perform_all(runs: Sequence[Run], store: Store, workers: int) -> Iterator[Result]:
    """Results of all runs, of those not yet known as they come; they are stored."""
    missing = []
    for run in runs:
        known = store.result(run)
        if known is None:
            missing.append(run)
        else:
            yield known
    for result in _performed(missing, workers):
        store.add(result)
        yield result


def _performed(runs: Sequence[Run], workers: int) -> Iterator[Result]:
    if workers == 1:
        yield from map(perform, runs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(perform, run) for run in runs]):
            yield done.result()


def better(result: Result) -> bool:
    """Whether training made the agent better: more growth, or on noise less loss.

    On noise an agent may lose nothing untrained; not to lose anything either is then the best.
    """
    return _better(result["trained"], result["untrained"])


def better_on_average(results: Sequence[Result]) -> bool:
    """The same of the interquartile means over seeds of one agent on one market."""
    key = "loss" if "loss" in results[0]["trained"] else "growth"
    means = [
        {key: interquartile_mean(np.array([result[which][key] for result in results]))}
        for which in ("trained", "untrained")
    ]
    return _better(*means)


def _better(trained: Mapping[str, float], untrained: Mapping[str, float]) -> bool:
    if "loss" in trained:
        return bool(trained["loss"] < max(untrained["loss"], NOTHING))
    return bool(trained["growth"] > untrained["growth"])


def scores(results: Sequence[Result], key: str = "score") -> np.ndarray:
    """A figure of each, (S,)."""
    return np.array([result["trained"][key] for result in results])


def runs_of(cases: Sequence[str], agents: Sequence[str], seeds: int) -> list[Run]:
    """All agents on all markets with a few seeds first, then with the others."""
    blocks = (range(min(seeds, FIRST)), range(FIRST, seeds))
    return [Run(c, a, s) for block in blocks for c in cases for s in block for a in agents]
