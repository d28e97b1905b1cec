"""Who competes in the studies: every kind of agent there is, as texts that `allocgym` reads.

Learners are trained for a part of their default steps (`LEARNERS`) and looked at twice on
validation where ten is usual, forecasting networks are small (`SMALL`), so that all of them, on
every market and with several seeds, fit into an hour or two of one core. Where agents are refitted
through the years, each refit of a learner is shorter still (`REFITS`) and begins with what the last
one has learned. Whether chance is in an agent is said here, too: what gives the same answer for
every seed is run once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agents.rules import RULES
from experiments.config import MAX_SEED, AgentConfig

Kind = Literal["classical", "online", "hindsight", "forecast", "ensemble", "learner"]

CLASSICAL = (
    "equal_weight",
    "equal_weight(rebalance_every=month, label=equal_weight_monthly)",
    "buy_and_hold",
    "cash",
    "inverse_volatility",
    "minimum_variance",
    "risk_parity",
    "hierarchical_risk_parity",
    "maximum_diversification",
    "minimum_cvar",
    "mean_variance",
    "mean_variance(expanding=true, label=mean_variance_expanding)",
    "mean_variance(mean=empirical, covariance=empirical, label=mean_variance_unshrunk)",
    "maximum_sharpe",
    "black_litterman",
    "time_series_momentum",
    "cross_sectional_momentum",
    "volatility_managed",
)
INDEXED = ("index", "sixty_forty")  # where a market holds an index, and stocks beside bonds
ONLINE = (
    "uniform_mix",
    "exponentiated_gradient",
    "passive_aggressive",
    "moving_average_reversion",
    "newton_step",
    "universal",
)
HINDSIGHT = ("best_constant_mix", "best_single_asset")
FIXED = ("mean", "linear", "ridge")  # forecasters that chance has no part in
NETWORKS = {  # the others, each with one rule
    "fnn": "softmax",
    "cnn": "top_k",
    "rnn": "risk_parity",
    "gru": "black_litterman",
    "lstm": "mean_variance",
    "transformer": "proportional",
}
SMALL = "width=16, depth=1, batch_size=128, epochs=15, patience=3"  # 32, 2, 64, 50, 5 by default
NETWORK_SEEDS = 3  # at most
MEMBERS = "members=[equal_weight, risk_parity, mean_variance, time_series_momentum]"
ENSEMBLES = (
    f"ensemble({MEMBERS}, label=ensemble_mean)",
    f"ensemble({MEMBERS}, weighting=validation, label=ensemble_validation)",
    f"ensemble({MEMBERS}, weighting=best, label=ensemble_best)",
    f"regime_switch({MEMBERS}, label=regime_switch_hmm)",
    f"regime_switch({MEMBERS}, regime=volatility, label=regime_switch_volatility)",
    "stacking",
    "factor_blend",
)
LEARNERS = {  # steps of training; the default of each is behind it
    "ppo": "steps=24576",  # 120000
    "a2c": "steps=24576",  # 120000
    "recurrent_ppo": "steps=12288",  # 60000
    "sac": "steps=4000, learning_starts=1000",  # 8000
    "td3": "steps=4000, learning_starts=1000",  # 8000
    "tqc": "steps=4000, learning_starts=1000",  # 8000
    "dqn": "steps=6000, learning_starts=1000",  # 40000
    "qrdqn": "steps=6000, learning_starts=1000",  # 40000
    "policy_gradient": "steps=50",  # 100
}
REFITS = {  # steps of each refit, which goes on from the network of the one before
    "ppo": 8192,
    "a2c": 8192,
    "recurrent_ppo": 8192,
    "sac": 2000,
    "td3": 2000,
    "tqc": 2000,
    "dqn": 3000,
    "qrdqn": 3000,
    "policy_gradient": 25,
}
LATTICE = ("dqn", "qrdqn")  # choose among allocations, whose number grows fast with the assets


@dataclass(frozen=True)
class Entrant:
    """One agent of a study: its kind, itself, and how many seeds it is worth at most."""

    kind: Kind
    agent: AgentConfig
    most_seeds: int = 1

    @property
    def title(self) -> str:
        """Its row in the tables."""
        return self.agent.title


def roster(universe: str, *, refits: bool = False) -> list[Entrant]:
    """Everyone who can compete on a bundled universe, on one split or where agents are refitted.

    Hindsight has no place where windows follow each other, and learners go on from the last one.
    """
    classical = CLASSICAL + (INDEXED if universe == "multi_asset" else ())
    found = [*_read("classical", classical), *_read("online", ONLINE)]
    found += _read("hindsight", () if refits else HINDSIGHT)
    found += _read("forecast", _fixed_forecasts())
    found += _read("forecast", _network_forecasts(), NETWORK_SEEDS)
    found += _read("ensemble", ENSEMBLES)
    steps = [{"steps": REFITS[name]} if refits else {} for name in LEARNERS]
    learners = [
        learner(name, universe, name, **own) for name, own in zip(LEARNERS, steps, strict=True)
    ]
    return found + _read("learner", learners, MAX_SEED)


def learner(name: str, universe: str, label: str | None = None, **settings: object) -> str:
    """A learner as it competes on a universe, under another label and with more settings if asked.

    `dqn` and `qrdqn` choose among weights in halves, not quarters, where 21 assets would make
    10,626 allocations of the latter.
    """
    own = AgentConfig.of(f"{name}({LEARNERS[name]})").settings
    given = {**own, "evaluations": 2, **settings}
    if name in LATTICE and universe == "us_stocks":
        given["lattice"] = 2
    more = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{name}({more}, label='{label or name}')"


def _fixed_forecasts() -> list[str]:
    """Ridge with every rule, the other fixed forecasters with one each."""
    others = [_forecast("mean", "mean_variance"), _forecast("linear", "proportional")]
    return [_forecast("ridge", rule) for rule in RULES] + others


def _network_forecasts() -> list[str]:
    """Each network with one rule, and the textbook's."""
    small = [_forecast(f"{name}({SMALL})", rule) for name, rule in NETWORKS.items()]
    return [*small, "lstm(epochs=20, patience=5, label=textbook_lstm)"]


def _forecast(forecaster: str, rule: str) -> str:
    name = forecaster.partition("(")[0]
    return f"forecast(forecaster={forecaster}, rule={rule}, label='{name}-{rule}')"


def _read(kind: Kind, texts: Iterable[str], most_seeds: int = 1) -> list[Entrant]:
    return [Entrant(kind, AgentConfig.of(text), most_seeds) for text in texts]
