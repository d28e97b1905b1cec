"""Print how fast environments and training are: in ratios to bare numpy, peers, the usual way."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import baselines, features, goals, report, scaling, sekai_peer, training
from benchmarks.games import make_market

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    """Measure, print, and with --write put tables and plot into docs/."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="turns of each pair of tasks")
    parser.add_argument("--only", default="", help="lines whose name contains this; no curves")
    parser.add_argument("--no-peer", action="store_true", help="leave sekai out")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md and plot")
    asked = parser.parse_args()
    notes = []
    if asked.only in features.NAME:
        notes.append(f"{features.measure()}.")
        print(notes[-1])
    if asked.only == "features":
        return
    if asked.no_peer:
        problem: str | None = "sekai was left out"
    else:
        problem = sekai_peer.install()
    if problem:
        notes.append(f"{problem}.")
        print(problem)
        results = measure_lines(None, asked)
    else:
        with sekai_peer.Sekai(make_market()) as sekai:
            results = measure_lines(sekai, asked)
    print("\ntraining")
    trained = training.printed(asked.only)
    print("\nbaselines")
    played = baselines.printed(asked.only)
    met = [result.met for result in (*results, *trained, *played)]
    print(f"\n{sum(met)} of {len(met)} lines met")
    if asked.only:
        return
    print("\nmicroseconds of one environment's step")
    points = []
    for point in scaling.measure(max(2, asked.repeats // 3)):
        points.append(point)
        print(f"{point.axis:>12} {point.at:>5}  {point.kind:<16} {point.microseconds:10.2f}")
    if asked.write:
        report.write(DOCS, report.markdown(results, points, notes), points)


def measure_lines(sekai: sekai_peer.Sekai | None, asked: argparse.Namespace) -> list[goals.Result]:
    """Measure the lines and print each when it is known."""
    print(report.text(report.HEAD))
    results = []
    for line in goals.lines(sekai):
        if asked.only in line.name:
            results.append(goals.measure(line, asked.repeats))
            print(report.text(report.row(results[-1])), flush=True)
    return results


if __name__ == "__main__":
    main()
