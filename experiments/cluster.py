"""Trials on the machines of a Ray cluster, through joblib. No other file knows Ray.

A desk beside the command hands out trials and hears of them; joblib starts one server a core, and
each takes trial after trial until none is left. A server that is lost, with its process or with its
node, costs the trial it held, which is named at once; the others go on. Where a tenth of them are
lost, those left end what they have at hand and as many start anew as there are cores by then.

Every node must see the results folder, and the data, under the same path as the command does.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from experiments.outcome import Outcome, attempt, teller
from experiments.progress import Display
from experiments.trial import Trial
from market.errors import SettingError

PATIENCE = 10.0  # seconds that a server has to end its trial when the command is stopped
REACHED_IN, ANSWERED_IN = 5.0, 120.0  # seconds
ROUND = 0.2  # seconds between looks at the desk
EVERY = 2.0  # seconds between what a server tells of its trial: 1,000 of them share the desk
LOOPBACK = ("127.0.0.1:", "localhost:")
_ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
_STAY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": loopback is not replaced by an outer address
RETRIES = 5  # rounds in which servers are lost before they have done anything
OVER = 10  # a round is over when one in so many servers is lost


class Home(NamedTuple):
    """Where servers work: the command's folder, and a file that only a shared one shows."""

    folder: str
    probe: str


class Desk:
    """Hands out trials and collects what is said of them; its methods are called from far."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = list(trials)
        self.waiting = deque(range(len(trials)))
        self.held: dict[str, tuple[int, str]] = {}  # server -> trial and node
        self.said: list[tuple[int, float | Outcome]] = []
        self.refusals: dict[str, str] = {}  # node -> why it cannot work
        self.servers = self.lost_servers = 0
        self.closed = False

    def open(self, servers: int) -> None:
        """A round begins."""
        self.servers, self.lost_servers = servers, 0

    def take(self, server: str, node: str) -> tuple[int, Trial] | None:
        """The next trial, or None where there is none for this server."""
        if self.closed or not self.waiting or self.lost_servers * OVER > self.servers:
            return None
        index = self.waiting.popleft()
        self.held[server] = index, node
        self.said.append((index, 0.0))
        return index, self.trials[index]

    def tell(self, server: str, said: float | Outcome) -> bool:
        """How far a server's trial is, or how it ended; whether to go on."""
        index, _ = self.held.pop(server) if isinstance(said, Outcome) else self.held[server]
        self.said.append((index, said))
        return not self.closed

    def refuse(self, node: str, why: str) -> None:
        """A node that cannot work."""
        self.refusals[node] = why

    def lost(self, server: str) -> None:
        """A server that is no more, and the trial it held."""
        self.lost_servers += 1
        if server in self.held:
            index, node = self.held.pop(server)
            error = f"its worker on {node} was lost"
            self.said.append((index, Outcome(self.trials[index], error=error)))

    def news(self) -> tuple[list[tuple[int, float | Outcome]], dict[str, str]]:
        """What was said since the last time, and all refusals."""
        said, self.said = self.said, []
        return said, self.refusals

    def close(self) -> None:
        """Hand out no more, and end what is running."""
        self.closed = True


def connect(address: str, workers: int) -> int:
    """Join a cluster, with token authentication.

    Args:
        address: host:port of its head, or "auto" for the cluster this machine is a node of.
        workers: Trials at the same time; 0 for as many as the cluster has cores.

    Returns:
        How many trials will run at the same time.

    Raises:
        SettingError: If Ray is not installed, nothing answers, or there are fewer cores.

    """
    for variable, value in _ENVIRONMENT.items():  # read when Ray is imported
        os.environ.setdefault(variable, value)
    if address.startswith(LOOPBACK):
        os.environ.setdefault(_STAY, "0")
    try:
        import ray
    except ImportError:
        raise SettingError(
            "cluster: needs Ray; install it with: pip install 'allocgym[cluster]'"
        ) from None
    if not ray.is_initialized():
        _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())
            raise SettingError(f"cluster: cannot join {address}: {reason}") from error
    cores = int(ray.cluster_resources().get("CPU", 0))
    if not 1 <= max(1, workers) <= cores:
        raise SettingError(f"workers: the cluster at {address} has {cores} cores, got {workers}")
    return workers or cores


def _check_reachable(address: str) -> None:
    """Ray itself asks for two minutes and then ends the process."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingError(f"cluster: must be host:port, or auto, got {address!r}")
    try:
        socket.create_connection((host, int(port)), REACHED_IN).close()
    except (OSError, OverflowError) as error:
        raise SettingError(f"cluster: nothing answers at {address}: {error}") from error


def _cores() -> int:
    """Cores of the nodes that answer: Ray counts one that has just died for a while yet."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    answer: Any = ray.remote(_answer)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            call = answer.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
            asked[call] = int(node["Resources"]["CPU"])
    heard, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERED_IN)
    for call in silent:
        ray.cancel(call)
    return sum(asked[call] for call in heard if _succeeded(call))


def _answer() -> None:
    """What a node has to do to be counted."""


def _succeeded(call: Any) -> bool:
    import ray

    try:
        ray.get(call)
    except ray.exceptions.RayError:  # its node is gone
        return False
    return True


def run_on_cluster(trials: Sequence[Trial], workers: int, display: Display) -> list[Outcome]:
    """Run all trials on the cluster that was joined; outcomes in their order.

    Raises:
        SettingError: If no node can work.

    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind: Any = ray.remote(Desk)
    desk = kind.options(num_cpus=0, scheduling_strategy=here).remote(trials)
    outcomes: dict[int, Outcome] = {}
    idle = 0  # rounds without an outcome
    config = trials[0].config
    with _home(Path(config.results) / config.experiment) as home:
        while len(outcomes) < len(trials):
            before, room = len(outcomes), min(workers, _cores()) if outcomes or idle else workers
            with _Round(desk, home, max(1, room)) as servers:
                while servers.at_work():
                    time.sleep(ROUND)
                    _hear(desk, trials, outcomes, display)
            refused = _hear(desk, trials, outcomes, display)
            idle = 0 if len(outcomes) > before else idle + 1
            if (refused and idle) or idle > RETRIES:
                why = "; ".join(f"{node} {reason}" for node, reason in sorted(refused.items()))
                raise SettingError(
                    f"cluster: no node can work: {why or 'servers are lost at once'}"
                )
            time.sleep(idle)  # a node that has just died may still be counted
    return [outcomes[index] for index in range(len(trials))]


def _hear(
    desk: Any, trials: Sequence[Trial], outcomes: dict[int, Outcome], display: Display
) -> dict[str, str]:
    """Show what is new; the nodes that cannot work, and why."""
    import ray

    news, refused = ray.get(desk.news.remote())
    for index, said in news:
        name = trials[index].name
        if isinstance(said, Outcome):
            outcomes[index] = said
            display.ended(name, said.error)
        elif said == 0.0:
            display.started(name)
        else:
            display.advanced(name, said)
    display.tick()
    return dict(refused)


@contextmanager
def _home(results: Path) -> Iterator[Home]:
    """With a file in the results folder that every node must see."""
    probe = results.resolve() / f".{secrets.token_hex(8)}.cluster"
    probe.touch(exist_ok=False)
    try:
        yield Home(os.getcwd(), str(probe))
    finally:
        probe.unlink(missing_ok=True)


class _Round:
    """Servers at work, until there is nothing for them or they are lost."""

    def __init__(self, desk: Any, home: Home, servers: int) -> None:
        import ray

        self.desk, self.home, self.servers = desk, home, servers
        self.error: BaseException | None = None
        self.backend = _backend(desk)
        ray.get(desk.open.remote(servers))
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def at_work(self) -> bool:
        """Whether any server still is."""
        return self.thread.is_alive()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:  # trials note that they were stopped, if they get to it
            self.desk.close.remote()
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                self.backend.terminate()
        elif self.error is not None and not _is_loss(self.error):
            reason = " ".join(str(self.error).split())
            raise SettingError(f"cluster: a node cannot run trials: {reason}") from self.error

    def _work(self) -> None:
        from joblib import Parallel, delayed

        calls = [delayed(_serve)(self.desk, self.home) for _ in range(self.servers)]
        try:
            Parallel(self.servers, backend=self.backend, batch_size=1, pre_dispatch="all")(calls)
        except BaseException as error:  # raised anew where the round ends
            self.error = error


def _is_loss(error: Any) -> bool:
    """Whether a server is no more, rather than broken."""
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError)


def _backend(desk: Any) -> Any:
    """Joblib's Ray backend, to which a lost server is an outcome rather than the end of all."""
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):
        def retrieve_result_callback(self, out: Any) -> Any:
            if _is_loss(out) and out.actor_id is not None:
                desk.lost.remote(out.actor_id)
                return [None]
            return super().retrieve_result_callback(out)

    return Backend(ray_remote_args={"num_cpus": 1, "scheduling_strategy": "SPREAD"})


def _serve(desk: Any, home: Home) -> None:
    """On a node: run trial after trial until the desk has none."""
    import ray

    me, node = ray.get_runtime_context().get_actor_id() or "the command", socket.gethostname()
    try:
        os.chdir(home.folder)
        os.stat(home.probe)
    except OSError as error:
        reason = f"does not see {error.filename}: the results folder must be shared by all nodes"
        ray.get(desk.refuse.remote(node, reason))
        return
    if home.folder not in sys.path:  # for a user's own agents, as on the command line
        sys.path.append(home.folder)
    logging.getLogger("market").setLevel(logging.ERROR)  # the command has said it once

    def tell(said: float | Outcome) -> None:
        if not ray.get(desk.tell.remote(me, said)) and not isinstance(said, Outcome):
            raise KeyboardInterrupt

    while (given := ray.get(desk.take.remote(me, node))) is not None:
        try:
            tell(attempt(given[1], teller(tell, EVERY)))
        except KeyboardInterrupt:
            return
