"""Trials on a Ray cluster: two nodes on the loopback, the same bytes, losses named and survived."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from experiments.cli import main
from experiments.cluster import Desk
from experiments.compare import run_experiments
from experiments.config import AgentConfig, DataConfig, ExperimentConfig, SplitConfig
from experiments.outcome import Outcome
from experiments.parallel import capacity, run_trials
from experiments.progress import Display
from experiments.runs import Run
from experiments.trial import Trial
from market.errors import SettingError
from tests.conftest import write_prices

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)
SPLIT = SplitConfig(train_end=f"{DATES[59]:%Y-%m-%d}", valid_end=f"{DATES[79]:%Y-%m-%d}")
SMALL: dict[str, Any] = {
    "num_cpus": 1,
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 80 * 2**20,
}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, with a token and without a dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine never comes to them
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the loopback only
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args=SMALL)
        made.add_node(**SMALL)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def config(tmp_path):
    """A function that makes experiments with the tiny agent, all on the same prices."""
    write_prices(tmp_path, DATES)

    def make(label="tiny", results="results", **settings):
        blocks = {key: settings.pop(key) for key in ("seeds", "cluster") if key in settings}
        (tmp_path / results / "train").mkdir(parents=True, exist_ok=True)
        return ExperimentConfig(
            agent=AgentConfig(name=TINY, label=label, settings=settings),
            data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
            split=SPLIT,
            results=str(tmp_path / results),
            **blocks,
        )

    return make


def run(trials, workers=2, address=None, lines=None):
    """Outcomes, with what was shown written into `lines`."""
    shown = Display([("tiny", spec.name) for spec in trials], workers, Console(quiet=True))
    if lines is not None:
        setattr(shown, "_line", lines.append)  # noqa: B010  # a method, to mypy
    with shown:
        return run_trials(trials, workers=workers, display=shown, cluster=address)


def content(outcomes):
    """Numbers of finished runs, byte by byte."""
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    names = ("metrics.jsonl", "backtest.parquet", "robustness.parquet", "model/state.json")
    return [(outcome.path / name).read_bytes() for outcome in outcomes for name in names]


def test_one_process_and_a_cluster_write_the_same_bytes(cluster, config):
    assert capacity(0, cluster.address) == 2
    made = {}
    for name, workers, address in (("one", 1, None), ("ray", 2, cluster.address)):
        trials = [Trial(config(results=name), seed) for seed in range(3)]
        made[name] = content(run(trials, workers, address))
    assert made["one"] == made["ray"]


@pytest.mark.soak
def test_a_lost_worker_and_a_failing_trial_cost_only_themselves(cluster, config):
    capacity(0, cluster.address)
    faults = ("die", "", "raise", "")
    trials = [Trial(config(f"t{i}", fault=fault), 0) for i, fault in enumerate(faults)]
    lines: list[str] = []
    dead, good, bad, other = run(trials, 2, cluster.address, lines)
    assert "was lost" in str(dead.error)
    assert bad.error == "RuntimeError: the network fell over"
    assert "tiny_agent.py" in bad.trace
    assert Run.read(good.path).finished
    assert Run.read(other.path).finished
    named = [line for line in lines if "t0 seed 0: FAILED" in line]
    assert len(named) == 1
    assert lines.index(named[0]) < len(lines) - 1  # at once, not at the end


@pytest.mark.soak
def test_a_lost_node_costs_only_what_ran_on_it_and_a_rerun_does_that_alone(cluster, config):
    import ray

    cluster.add_node(**SMALL)
    capacity(0, cluster.address)
    ours = ray.get_runtime_context().get_node_id()  # the command's own node is not one to lose
    node = next(node for node in cluster.worker_nodes if node.node_id != ours)
    experiment = config(seeds=6, cluster=cluster.address, hold="go")
    release = Path(experiment.results) / "train" / "go"

    class Killer(Display):
        """Ends the node when all three cores are at work; its loss lets the others go on."""

        def started(self, name):
            super().started(name)
            if len(self.pace.started) == 3:
                cluster.remove_node(node, allow_graceful=False)

        def ended(self, name, error=None):
            super().ended(name, error)
            release.touch()

    trials = [Trial(experiment, seed) for seed in range(6)]
    named = [("tiny", spec.name) for spec in trials]
    with Killer(named, 3, Console(quiet=True)) as shown:
        outcomes = run_trials(trials, workers=3, display=shown, cluster=cluster.address)
    lost = [outcome for outcome in outcomes if outcome.error]
    assert len(lost) == 1
    assert "was lost" in str(lost[0].error)
    kept = {x.path: (x.path / "manifest.json").stat().st_mtime_ns for x in outcomes if x.path}
    again = run_experiments([experiment], 2, cluster=cluster.address)
    assert again.failed == []
    assert all((path / "manifest.json").stat().st_mtime_ns == at for path, at in kept.items())


def test_the_desk_hands_out_each_trial_once_and_names_what_is_lost(config):
    trials = [Trial(config(f"t{i}"), 0) for i in range(4)]
    desk = Desk(trials)
    desk.open(2)
    assert desk.take("a", "north") == (0, trials[0])
    assert desk.take("b", "south") == (1, trials[1])
    assert desk.tell("a", 0.5)
    desk.lost("b")
    said, _ = desk.news()
    assert said[:3] == [(0, 0.0), (1, 0.0), (0, 0.5)]
    assert said[3] == (1, Outcome(trials[1], error="its worker on south was lost"))
    assert desk.tell("a", Outcome(trials[0], Path("there")))
    assert desk.take("a", "north") is None  # half are lost: the round ends, with two waiting
    desk.open(1)
    assert desk.take("c", "north") == (2, trials[2])
    desk.close()
    assert not desk.tell("c", 0.1)
    assert desk.take("d", "south") is None


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("127.0.0.1:9", "nothing answers at 127.0.0.1:9"),
        ("nowhere", "must be host:port, or auto, got 'nowhere'"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address, part, config, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(SettingError, match=part) as caught:
        run_experiments([config()], 0, cluster=address)
    assert "\n" not in str(caught.value)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"allocgym\[cluster\]"):
        capacity(2, "127.0.0.1:6379")


def test_more_workers_than_cores_are_refused(cluster):
    with pytest.raises(SettingError, match="has 2 cores, got 5"):
        capacity(5, cluster.address)


@pytest.mark.parametrize("command", ["train", "compare", "walk-forward", "cross-validate", "tune"])
def test_every_command_that_trains_takes_a_cluster(command, config, monkeypatch, capsys):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    made = config()
    words = [command, "--cluster", "127.0.0.1:9", "--data", "files", "--results", made.results]
    words += ["--data.options.path", made.data.options["path"], "--task.cost", "0.002"]
    agents = ["--agent", "inverse_volatility"] if command in ("train", "tune") else []
    agents += ["--agent.window", "10"] if command in ("train", "tune") else []
    words += agents or ["--agents", "equal_weight,buy_and_hold"]
    words += ["--walk.valid_days", "20"] if command == "walk-forward" else []
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert "nothing answers at 127.0.0.1:9" in said
    assert "\n" not in said
    assert [path.name for path in Path(made.results).rglob("*")] == ["train"]  # the fixture's
