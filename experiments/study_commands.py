"""`allocgym study`: the studies that come with the project, listed and run."""

from __future__ import annotations

import ast
import importlib
from importlib.resources import files

from market.names import unknown_name

STUDIES = (
    "all_agents",
    "cost_sensitivity",
    "reward_comparison",
    "sood",
    "textbook",
    "false_discovery",
)
HELP = """usage: allocgym study NAME [options]

Experiments worth repeating: one question, one command each. Finished runs are kept, so that the
same command goes on where it was stopped; --help after a name lists its options. Tables of the
last full run are in results/README.md of the source.

studies:
{studies}
Optima that are known: python -m benchmarks.known_answers.

examples:
  allocgym study sood --help
  allocgym study all_agents --part factors_walk --seeds 3
"""


def study(argv: list[str]) -> int:
    """Run a study, or list them all."""
    words = [word for word in argv if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        listed = "".join(f"  {name:<18} {question(name)}\n" for name in STUDIES)
        print(HELP.format(studies=listed), end="")
        return 0
    name, *rest = words
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    status: int = importlib.import_module(f"experiments.studies.{name}").main(rest)
    return status


def question(name: str) -> str:
    """The first line of a study, without importing what it needs."""
    source = files("experiments.studies").joinpath(f"{name}.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
