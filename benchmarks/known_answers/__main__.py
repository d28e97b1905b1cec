"""Score every learned allocator on markets whose best policy is known."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.known_answers import table
from benchmarks.known_answers.agents import ENTRIES
from benchmarks.known_answers.cases import CASES
from benchmarks.known_answers.study import STORE, Result, Store, better, perform_all, runs_of

PAGE = Path(__file__).parent.parent.parent / "docs" / "known_answers.md"
COMMAND = "python -m benchmarks.known_answers"


def main() -> None:
    """Run what is missing, print each result, and with --write renew the tables in docs/."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--agents", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    parser.add_argument("--markets", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, default=STORE, help="file of results, found or new")
    parser.add_argument("--write", action="store_true", help="renew the tables of docs/")
    parser.add_argument("--stored", action="store_true", help="train nothing; use what is there")
    asked = parser.parse_args()
    runs, store = runs_of(asked.markets, asked.agents, asked.seeds), Store(asked.store)
    if asked.stored:
        kept = [store.result(run) for run in runs]
        results = [result for result in kept if result is not None]
    else:
        results = []
        for result in perform_all(runs, store, asked.workers):
            results.append(result)
            print(line(result), flush=True)
    if not results:
        parser.exit(1, "no results\n")
    tables = table.markdown(results, f"{COMMAND} --seeds {asked.seeds} --write")
    print(f"\n{tables}")
    if asked.write:
        store.tidy()
        table.write(PAGE, tables)


def line(result: Result) -> str:
    """A result in a line."""
    trained = result["trained"]
    figures = ", ".join(f"{key} {value:.4f}" for key, value in trained.items() if key != "growth")
    worse = "" if better(result) else ", not better than untrained"
    about = f"{result['case']:<22} {result['agent']:<16} seed {result['seed']:<3}"
    return f"{about} {figures}{worse} ({result['seconds']:.0f} s)"


if __name__ == "__main__":
    main()
