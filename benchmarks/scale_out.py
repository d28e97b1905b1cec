"""How well trials share a machine, and how 10,000 of them would share 1,000 cores.

    python -m benchmarks.scale_out               efficiency of 2 workers on this machine
    python -m benchmarks.scale_out --simulate    the study on paper, from measured durations

Efficiency: the same trials are run one after the other in this process and two at a time, in
turns, and the ratio is of the two times in one run: 2 would be perfect. On a busy machine the clock
says little; twice the ratio of processor times is what two free cores would give at most. The
simulation plays what `experiments.cluster` does, event by event: workers take the next trial from
one desk, pay to start, are slow or lost by chance, and a loss costs the trial that was running,
which a rerun repeats.
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Machines and what goes wrong on them; times in seconds.

    Attributes:
        workers: Cores, each with one worker.
        duration: Median of a trial's work.
        spread: Standard deviation of the logarithm of that work.
        start: Of a worker: process and imports, once; again after a loss.
        desk: Taking one trial from the desk, one after the other.
        slow: Share of workers that are stragglers.
        slowness: How many times longer those take.
        losses: Lost workers in an hour, for each worker.

    """

    workers: int = 1000
    duration: float = 300.0
    spread: float = 0.5
    start: float = 15.0
    desk: float = 0.005
    slow: float = 0.0
    slowness: float = 2.0
    losses: float = 0.0


@dataclass(frozen=True)
class Played:
    """What came of it: hours until all is done, share of core time that was work, trials redone."""

    hours: float
    efficiency: float
    redone: int


def simulate(farm: Farm, trials: int, seed: int = 0) -> Played:
    """Play a farm until every trial is done, those lost repeated at the end, as a rerun would."""
    rng = np.random.default_rng(seed)
    work = farm.duration * rng.lognormal(0.0, farm.spread, trials)
    pace = np.where(rng.random(farm.workers) < farm.slow, farm.slowness, 1.0)
    now, redone, waiting = 0.0, 0, list(range(trials))
    while waiting:
        now, lost = _round(farm, work, pace, waiting, now, rng)
        redone, waiting = redone + len(lost), lost
    return Played(now / 3600.0, float(work.sum() / (now * farm.workers)), redone)


def _round(
    farm: Farm,
    work: np.ndarray,
    pace: np.ndarray,
    waiting: list[int],
    begin: float,
    rng: np.random.Generator,
) -> tuple[float, list[int]]:
    """One call of the command: when its last trial ends, and which were lost."""
    free = [(begin + farm.start, worker) for worker in range(min(farm.workers, len(waiting)))]
    heapq.heapify(free)
    desk, end, lost = begin, begin, []
    for trial in waiting:
        at, worker = heapq.heappop(free)
        desk = max(desk, at) + farm.desk
        takes = float(work[trial] * pace[worker])
        dies = rng.exponential(3600.0 / farm.losses) if farm.losses else np.inf
        if dies < takes:
            lost.append(trial)
            done, ready = desk + dies, desk + dies + farm.start
        else:
            done = ready = desk + takes
        end = max(end, done)
        heapq.heappush(free, (ready, worker))
    return end, lost


def cases(duration: float, start: float) -> Iterator[tuple[str, Farm]]:
    """What is asked of the farm, one thing after the other."""
    plain = Farm(duration=duration, start=start)
    yield "nothing goes wrong", plain
    yield "trials all alike", replace(plain, spread=0.0)
    yield "one worker in ten takes twice as long", replace(plain, slow=0.1)
    yield "a worker in a thousand is lost an hour", replace(plain, losses=0.001)
    yield "a worker in ten is lost an hour", replace(plain, losses=0.1)
    yield "both", replace(plain, slow=0.1, losses=0.1)
    yield "trials of a tenth of the length", replace(plain, duration=duration / 10)


def table(duration: float, start: float, trials: int = 10_000) -> list[str]:
    """The study as rows of a table."""
    rows = ["| case | hours | efficiency | redone |", "|---|--:|--:|--:|"]
    for name, farm in cases(duration, start):
        played = simulate(farm, trials)
        rows.append(f"| {name} | {played.hours:.2f} | {played.efficiency:.0%} | {played.redone} |")
    return rows


class Spent(NamedTuple):
    """Seconds on the clock, and of all processors."""

    clock: float
    processor: float


def measure(trials: int, steps: int, turns: int) -> dict[int, list[Spent]]:
    """What the same trials take with one worker and with two, in turns."""
    spent: dict[int, list[Spent]] = {1: [], 2: []}
    for turn in range(turns):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            spent[workers].append(_spent(trials, steps, workers))
    return spent


def processor_seconds() -> float:
    """Of this process and its children, with all that those have waited for (Linux)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if os.getpid() in (int(path.parent.name), int(fields[1])):
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def _spent(trials: int, steps: int, workers: int) -> Spent:
    from rich.console import Console

    from experiments.config import AgentConfig, ExperimentConfig
    from experiments.parallel import run_trials
    from experiments.progress import Display
    from experiments.trial import Trial

    with tempfile.TemporaryDirectory() as folder:
        agent = AgentConfig(name="ppo", settings={"steps": steps})
        config = ExperimentConfig(agent=agent, results=str(Path(folder) / "results"))
        specs = [Trial(config, seed) for seed in range(trials)]
        shown = Display([("ppo", x.name) for x in specs], workers, Console(quiet=True))
        started, before = time.perf_counter(), processor_seconds()
        with shown:
            outcomes = run_trials(specs, workers=workers, display=shown)
        taken = Spent(time.perf_counter() - started, processor_seconds() - before)
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed:
        raise RuntimeError(failed[0])
    return taken


def main() -> None:
    """Measure, or simulate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_out", description=__doc__)
    parser.add_argument("--simulate", action="store_true", help="the study on paper")
    parser.add_argument("--duration", type=float, default=300.0, help="median seconds of a trial")
    parser.add_argument("--start", type=float, default=15.0, help="seconds until a worker works")
    parser.add_argument("--trials", type=int, default=4, help="trials of a measurement")
    parser.add_argument("--steps", type=int, default=120_000, help="steps of ppo in each")
    parser.add_argument("--turns", type=int, default=2, help="measurements of each kind")
    asked = parser.parse_args()
    if asked.simulate:
        print("\n".join(table(asked.duration, asked.start)))
        return
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    load = os.getloadavg()[0]
    spent = measure(asked.trials, asked.steps, asked.turns)
    print(f"load before: {load:.1f}; {asked.trials} trials of ppo, {asked.steps:,} steps")
    for workers, found in spent.items():
        shown = ", ".join(
            f"{one.clock:.1f} s ({one.processor:.1f} s of processors)" for one in found
        )
        print(f"{workers} at a time: {shown}")
    clock, processor = (
        min(one[kind] for one in spent[1]) / min(one[kind] for one in spent[2]) for kind in (0, 1)
    )
    print(f"2 cores with 2 workers: {clock:.2f} times as fast (asked: 1.80)")
    print(f"by processor time, whatever else runs: {2 * processor:.2f} at most")


if __name__ == "__main__":
    main()
