"""`allocgym tune`: search for good settings of an agent on validation."""

from __future__ import annotations

import inspect

from experiments.commands import FLAGS, SWITCHES, command_line, failed_status
from experiments.options import agent_options, options_of, show_help
from experiments.settings import (
    agent_config,
    agent_name,
    build,
    read_tokens,
    refuse_foreign_code,
    resolve,
    settings_file,
)
from experiments.tune_config import TuneConfig

EXAMPLES = """examples:
  allocgym tune --agent ppo --trials 40 --seeds 3
  allocgym tune --agent mean_variance --trials 60 --experiment mv
  allocgym tune --agent sac --agent.steps 4000 --space.learning_rate "1e-5..1e-3 log" \\
                --space.width "[8, 16, 32]" --space.gamma null
  allocgym tune --agent ppo --trials 40           the same again: goes on where it was stopped
  allocgym tune --agent ppo --trials 40 --cluster 10.0.0.1:6379
  allocgym train results/tune/tuning/ppo/best.yaml --experiment tuned"""


def tune(argv: list[str]) -> int:
    """Search for good settings of one agent, on validation alone; the test days are never read.

    Prints the best settings with how sure they are, and writes them to
    results/<experiment>/tuning/<agent>/best.yaml for train. Each agent says what is worth trying
    (shown below); --space adds to it, and a setting given as --agent.KEY stays as given. Several
    processes, machines (in one shared folder) or calls work on the same search. All that is tried
    counts in the deflated Sharpe ratios of later comparisons in the same --experiment.
    """
    line = read_tokens(argv, flags=FLAGS)
    document = settings_file(line.words)
    if "trust" not in line.flags:
        refuse_foreign_code(document, line.pairs)
    name = agent_name(document, line.pairs)
    from experiments.agent_choice import agent_class

    kind = agent_class(name)
    options = [*options_of(TuneConfig), *agent_options(kind, name)]
    if "help" in line.flags:
        tried = "\n".join(f"  {key}: {_shown(room)}" for key, room in kind.space.items())
        what = f"{name} tries\n{tried}" if tried else f"{name} names nothing to try; give --space"
        text = f"{inspect.getdoc(tune)}\n\n{what}\n\n{SWITCHES}"
        show_help("allocgym tune", "[FILE.yaml] [--key value ...]", text, options, EXAMPLES)
        return 0
    values = resolve(document, line.pairs, options)
    values["agent"] = agent_config(values)
    config = build(TuneConfig, values)
    from experiments.tune_view import report_search
    from experiments.tuning import tune as run

    search = run(config, command_line("tune", argv), overwrite="overwrite" in line.flags)
    report_search(search)
    return failed_status(search.outcomes, line.flags)


def _shown(room: object) -> str:
    return f"[{', '.join(map(str, room))}]" if isinstance(room, list) else str(room)
