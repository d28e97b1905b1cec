"""`allocgym cross-validate`: many paths through one history."""

from __future__ import annotations

import inspect

from experiments.commands import FLAGS, SWITCHES, command_line, failed_status
from experiments.cross_config import CrossConfig
from experiments.options import options_of, show_help
from experiments.settings import build, read_tokens, refuse_foreign_code, resolve, settings_file

EXAMPLES = """examples:
  allocgym cross-validate --agents "mean_variance, risk_parity, equal_weight"
  allocgym cross-validate --agents "ppo, equal_weight" --seeds 2 --folds.number 5
  allocgym cross-validate --folds.number 10 --folds.test 2 --data us_stocks --experiment stocks
  allocgym cross-validate --data.end 2015-12-31   keeps later days for a last look"""


def cross_validate(argv: list[str]) -> int:
    """Fit agents on every choice of folds and judge them on the folds left out.

    Combinatorial purged cross-validation (Lopez de Prado): the tests make many paths through all
    days instead of one, so a Sharpe ratio becomes a spread. Days whose labels or windows reach into
    a test are left out of training: purge and embargo follow from lookback, horizon, decision_lag
    and the features' memory. Prints a table with the lead over the reference on each path, and the
    probability of overfitting when picking among the agents. What is finished is kept: an agent's
    paths with one seed; where they were cut off they are computed anew, from no checkpoint.
    """
    line = read_tokens(argv, flags=FLAGS)
    options = list(options_of(CrossConfig))
    if "help" in line.flags:
        text = f"{inspect.getdoc(cross_validate)}\n\n{SWITCHES}"
        usage = "[FILE.yaml] [--key value ...]"
        show_help("allocgym cross-validate", usage, text, options, EXAMPLES)
        return 0
    document = settings_file(line.words)
    if "trust" not in line.flags:
        refuse_foreign_code(document, line.pairs)
    config = build(CrossConfig, resolve(document, line.pairs, options))
    from experiments.cross_run import cross
    from experiments.cross_view import print_crossed

    done = cross(config, command_line("cross-validate", argv), overwrite="overwrite" in line.flags)
    print_crossed(done)
    return failed_status(done.outcomes, line.flags)
