"""Runs that were cut off: what goes on, what is refused, and what is said."""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import tracking
from experiments.checkpoints import Checkpoints
from experiments.cli import main
from experiments.compare import run_experiments
from experiments.config import AgentConfig, CostConfig, DataConfig, ExperimentConfig, TaskConfig
from experiments.lock import locked
from experiments.runs import Run
from experiments.trial import Trial, trial
from experiments.walk_config import WalkConfig, WindowedConfig
from market.errors import DataError, SettingError

ROOT = Path(__file__).resolve().parent.parent
STEPPER = f"{Path(__file__).with_name('stepping_agent.py')}:Stepper"
DATES = pd.bdate_range("2020-01-01", periods=60)
PLACE = Path("results/train/Stepper/seed_000")


class Cut(BaseException):
    """As sudden as a kill, but for this process."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with prices, in which commands are given."""
    prices(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prices(folder, seed):
    steps = np.random.default_rng(seed).normal(0.0005, 0.01, (len(DATES), 2))
    frame = pd.DataFrame(np.exp(np.cumsum(steps, 0)) * 100, DATES, ["AAA", "BBB"])
    frame.rename_axis("date").to_csv(folder / "prices.csv")


def config(results="results", task=None, **settings) -> Any:
    return ExperimentConfig(
        agent=AgentConfig(name=STEPPER, settings=settings),
        data=DataConfig(source="files", options={"path": "prices.csv"}),
        task=task or TaskConfig(),
        results=results,
        checkpoint_every=0.0,
    )


def cut_off(monkeypatch, spec, at=5, after=lambda: None):
    """Run until the so-many-th checkpoint is there, and no further."""
    real = Checkpoints.save

    def save(self, state, about):
        number = real(self, state, about)
        if number == at:
            after()
            raise Cut
        return number

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(tracking.Checkpoints, "save", save)
        trial(spec)


def content(path: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "backtest.parquet", "robustness.parquet", "model/weights.json")
    return {name: (path / name).read_bytes() for name in names}


def state(folder: Path) -> dict[Path, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def points(path: Path) -> dict[str, list[int]]:
    """Steps of every curve in TensorBoard's file, of which there is one."""
    from tensorboard.backend.event_processing import event_file_loader  # type: ignore[import-untyped]

    found: dict[str, list[int]] = {}
    (file,) = path.glob("events.out.tfevents.*")
    for event in event_file_loader.EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars":
                found.setdefault(value.tag, []).append(event.step)
    return found


@pytest.fixture
def whole(here):
    return content(trial(Trial(config("whole"), 0)))


def tear(line: str) -> Any:
    def torn() -> None:
        with (PLACE / "metrics.jsonl").open("a") as file:
            file.write(line)

    return torn


@pytest.mark.parametrize(
    "rest", ["", '{"step": 5, "train/fir', '{"step": 5, "train/first": 0.1}\n']
)
def test_what_was_written_after_the_checkpoint_is_forgotten(here, whole, monkeypatch, rest):
    cut_off(monkeypatch, Trial(config(), 0), after=tear(rest))
    assert Run.read(PLACE).status == "failed"
    (PLACE / ".manifest.json.0123456789abcdef.tmp").write_text("half")  # as a kill leaves it
    assert content(trial(Trial(config(), 0))) == whole
    assert Run.read(PLACE).finished
    assert not (PLACE / "checkpoints").exists() and not list(PLACE.glob(".*"))


def test_curves_rise_over_a_resume_and_no_point_is_lost_or_doubled(here, monkeypatch):
    cut_off(monkeypatch, Trial(config(), 0), at=4)
    cut_off(monkeypatch, Trial(config(), 0), at=9)
    trial(Trial(config(), 0))
    steps = list(range(1, 13))
    found = points(PLACE)
    assert found["train/first"] == steps and found["time/now"] == steps
    assert list(Run.read(PLACE).metrics["step"])[:12] == steps
    assert all(len(at) == 1 for name, at in found.items() if name.startswith("test/"))


def test_a_lost_event_file_is_made_anew_from_the_metrics(here, whole, monkeypatch, caplog):
    def lose() -> None:
        for path in PLACE.glob("events*"):
            path.unlink()

    cut_off(monkeypatch, Trial(config(), 0), after=lose)
    assert content(trial(Trial(config(), 0))) == whole
    assert points(PLACE)["train/first"] == list(range(1, 13))
    assert "made anew from metrics.jsonl" in caplog.text


def test_a_damaged_checkpoint_is_said_and_the_one_before_gives_the_same(
    here, whole, monkeypatch, caplog
):
    cut_off(monkeypatch, Trial(config(), 0))
    (PLACE / "checkpoints/000005/weights.safetensors").write_bytes(b"x")
    assert content(trial(Trial(config(), 0))) == whole
    assert "000005: weights.safetensors is not the file that was written" in caplog.text


def test_metrics_that_were_changed_make_checkpoints_useless(here, monkeypatch):
    cut_off(monkeypatch, Trial(config(), 0))
    path = PLACE / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(
        DataError, match=r"no checkpoint can be used: .*metrics\.jsonl does not beg"
    ):
        trial(Trial(config(), 0))
    assert Checkpoints(PLACE).numbers() == [4, 5]
    run_experiments([config()], 1, overwrite=True)
    assert Run.read(PLACE).finished


def test_what_changed_since_is_listed_and_nothing_is_touched(here, whole, monkeypatch, capsys):
    cut_off(monkeypatch, Trial(config(), 0))
    before = state(here / "results")
    with pytest.raises(SettingError) as caught:
        run_experiments([config(steps=20, task=TaskConfig(cost=CostConfig(buy=0.002)))], 1)
    told = str(caught.value)
    assert "agent.steps 20, was 12; task.cost.buy 0.002, was 0.001" in told
    assert "--allow-changes" in told and "--overwrite" in told
    prices(here, 4)
    assert main(["train", "--resume", str(PLACE), "--trust"]) == 2
    assert "was made from something else: the data have other numbers" in capsys.readouterr().err
    prices(here, 3)
    manifest = json.loads((PLACE / "manifest.json").read_text())
    manifest["versions"]["torch"], manifest["git_commit"] = "1.0", "0" * 40
    manifest["code"] = dict.fromkeys(manifest["code"], "0" * 64)
    (PLACE / "manifest.json").write_text(json.dumps(manifest))
    assert main(["train", "--resume", str(PLACE), "--trust"]) == 2
    said = capsys.readouterr().err
    for change in ("stepping_agent.py has changed", "torch 1.0 (now", "source 000000000000 (now"):
        assert change in said
    now = state(here / "results")
    assert {k: v for k, v in now.items() if k.name != "manifest.json"} == {
        k: v for k, v in before.items() if k.name != "manifest.json"
    }
    assert main(["train", "--resume", str(PLACE), "--trust", "--allow-changes"]) == 0
    (noted,) = Run.read(PLACE).manifest["continued"]
    assert len(noted["changes"]) == 3 and "torch 1.0 (now" in noted["changes"][1]
    assert content(PLACE) == whole


def test_more_steps_may_be_allowed(here, monkeypatch):
    cut_off(monkeypatch, Trial(config(), 0))
    run_experiments([config(steps=20)], 1, existing="allow_changes")
    run = Run.read(PLACE)
    assert list(run.metrics["step"])[:20] == list(range(1, 21))
    assert run.manifest["continued"] == [{"changes": ["agent.steps 20, was 12"]}]


def test_a_finished_run_is_not_touched(here, capsys):
    assert main(["train", *ARGV]) == 0
    before = state(here / "results")
    for _ in range(2):
        assert main(["train", "--resume", str(PLACE), "--trust"]) == 0
    assert state(here / "results") == before
    assert "kept: Stepper seed 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["nowhere"], "nowhere is no run folder"),
        ([str(PLACE), "--overwrite"], "--resume takes the settings of its run"),
        ([str(PLACE)], "is code; add --trust"),
        ([str(PLACE), "--trust", "--allow-changes", "--overwrite"], "--resume takes"),
    ],
)
def test_a_resume_that_cannot_be_is_one_line(here, monkeypatch, capsys, argv, part):
    cut_off(monkeypatch, Trial(config(), 0))
    assert main(["train", "--resume", *argv]) == 2
    told = capsys.readouterr().err
    assert part in told and told.startswith("allocgym: error: ") and told.count("\n") == 1


def test_the_same_command_goes_on(here, whole, monkeypatch, capsys):
    cut_off(monkeypatch, Trial(config(), 0))
    assert main(["train", *ARGV]) == 0
    assert "Cut off before, gone on with: Stepper seed 0" in capsys.readouterr().err
    assert content(PLACE) == whole


ARGV = ["--agent", STEPPER, "--data", "files", "--data.options.path", "prices.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_keeps_a_checkpoint_and_says_how_to_go_on(here, number, workers):
    seeds = ["--seeds", str(workers), "--workers", str(workers)]
    argv = [*ARGV, *seeds, "--agent.steps", "400", "--agent.pause", "0.05"]
    process = started(argv)
    places = [PLACE.with_name(f"seed_{seed:03}") for seed in range(workers)]
    for place in places:
        wait_for(process, place / "metrics.jsonl")
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = err.splitlines()[-1]
    assert last.startswith(f"allocgym: stopped by {number.name}; go on with: allocgym train ")
    assert "Traceback" not in err
    for place in places:
        found = Checkpoints(place).newest()
        assert found is not None
        rows = (place / "metrics.jsonl").read_text().splitlines()
        assert found.state["step"] == len(rows) > 0  # nothing that was done is lost
        run = Run.read(place)
        assert (run.status, run.error) == ("failed", "stopped by the user")
        assert not (place / ".lock").exists()


def test_a_second_signal_ends_at_once(here):
    process = started([*ARGV, "--workers", "1", "--agent.pause", "30"])
    wait_for(process, PLACE / "metrics.jsonl")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)  # waits for the end of the step, 30 s away
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def started(argv):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", "train", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def wait_for(process, path):
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def test_one_process_a_run_folder(here, monkeypatch, capsys):
    cut_off(monkeypatch, Trial(config(), 0))
    before = state(here / "results")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(PLACE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    assert main(["train", *ARGV, "--workers", "1"]) == 2
    told = f"{PLACE} is in use by process {holder.pid} on {socket.gethostname()}"
    assert told in capsys.readouterr().err
    after = state(here / "results")
    assert {path: after[path] for path in before} == before
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert (PLACE / ".lock").exists()  # of a process that is dead
    assert main(["train", *ARGV, "--workers", "1"]) == 0
    assert not (PLACE / ".lock").exists()


HOLD = """
import sys
from pathlib import Path
from experiments.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_of_a_dead_process_is_taken_over_and_said(tmp_path, caplog):
    (tmp_path / ".lock").write_text('{"pid": 999999, "host": "elsewhere"}')
    with locked(tmp_path):
        owner = json.loads((tmp_path / ".lock").read_text())
        assert owner == {"pid": os.getpid(), "host": socket.gethostname()}
        with pytest.raises(SettingError, match=f"in use by process {os.getpid()} on"):
            locked(tmp_path).__enter__()
    assert "taken over from process 999999 on elsewhere, which is gone" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_a_dying_process_left_with_its_child_is_waited_for(tmp_path):
    holder = subprocess.run(
        [sys.executable, "-c", LEAVE, str(tmp_path)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert holder.returncode == -signal.SIGKILL
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


LEAVE = """
import os, signal, sys, time
from pathlib import Path
from experiments.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(1.0)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("what", "settings", "limit"),
    [
        ("checkpoints", {"weight": 100_000}, 300_000),
        ("metrics.jsonl", {"curves": 60}, None),  # then the largest file but TensorBoard's
        ("events.out", {}, None),
    ],
)
def test_a_full_disk_is_said_with_path_and_size(here, monkeypatch, what, settings, limit):
    """The file that grows past the limit is named; with room again, the run goes on."""
    given = config(**settings)
    whole = content(trial(Trial(config("whole", **settings), 0)))
    cut_off(monkeypatch, Trial(given, 0))
    grown = max(path.stat().st_size for path in PLACE.glob(f"{what}*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        if what == "metrics.jsonl":
            patch.setattr(tracking.EventFile, "scalar", lambda *_: None)
            patch.setattr(tracking.EventFile, "summary", lambda *_: None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or grown + 20, hard))
        try:
            with pytest.raises(SettingError, match=rf"cannot write .*{what}.* bytes\): File too"):
                trial(Trial(given, 0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoints(PLACE).newest() is not None
    assert content(trial(Trial(given, 0))) == whole


@pytest.fixture
def small_disk(here):
    """A file system of its own of 600 KiB, full where a test fills it, and how to enlarge it."""
    disk = here / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("filled", [False, True])
def test_a_disk_without_room_is_said_and_with_room_the_run_goes_on(
    here, monkeypatch, small_disk, filled
):
    """Full by the third checkpoint, or by others as the run goes on."""
    settings = {"weight": 3_000 if filled else 30_000}  # numbers of 8 bytes
    given, place = config(str(small_disk), **settings), small_disk / "train/Stepper/seed_000"
    whole = content(trial(Trial(config("whole", **settings), 0)))
    filler = small_disk / "filler"
    if filled:
        cut_off(monkeypatch, Trial(given, 0))
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
    with pytest.raises(SettingError, match=rf"{small_disk}.* bytes\): No space left on device"):
        trial(Trial(given, 0))
    found = Checkpoints(place).newest()
    assert found is not None and found.damaged == []
    filler.unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert content(trial(Trial(given, 0))) == whole


def test_a_report_that_cannot_be_written_is_one_line_and_keeps_results(here, capsys):
    """And the page that is there."""
    assert main(["train", *ARGV]) == 0
    assert main(["report", "results/train", "--reference", "Stepper"]) == 0
    assert (here / "results/train/report.html").stat().st_size > 20_000
    before = state(here / "results")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert main(["report", "results/train", "--reference", "Stepper"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "report.html" in capsys.readouterr().err
    assert state(here / "results") == before


def test_a_window_that_was_cut_off_goes_on_and_finished_ones_stay(here, monkeypatch):
    shared = {field.name: getattr(config(), field.name) for field in dataclasses.fields(config())}
    del shared["split"]
    walk = WalkConfig(start=f"{DATES[40]:%Y-%m-%d}", refit_every=8, valid_days=10)
    given = WindowedConfig(**shared, walk=walk)
    expected = content(trial(Trial(dataclasses.replace(given, results="whole"), 0)))
    real, total = Checkpoints.save, [0]

    def save(self, state, about):
        number = real(self, state, about)
        total[0] += 1
        if total[0] == 12 + 5:  # within the second window
            raise Cut
        return number

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(tracking.Checkpoints, "save", save)
        trial(Trial(given, 0))
    first, part = PLACE / "windows/000", PLACE / "windows/.001.part"
    before = state(first)
    assert before and Checkpoints(part).numbers() == [4, 5]
    with pytest.raises(SettingError, match=r"walk\.refit_every 9, was 8"):
        run_experiments(
            [dataclasses.replace(given, walk=dataclasses.replace(walk, refit_every=9))], 1
        )
    assert main(["train", "--resume", str(PLACE), "--trust"]) == 0
    assert state(first) == before
    assert content(PLACE) == expected
    assert sorted(path.name for path in (PLACE / "windows").iterdir())[:2] == ["000", "001"]
    assert not list(PLACE.rglob("checkpoints"))


def test_checkpoints_take_a_hundredth_of_the_time_at_most(here, monkeypatch):
    """However short the interval, a slow disk makes checkpoints rarer."""
    clock, taken = [0.0], []
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])

    def slow(self, state, about):
        taken.append(clock[0])
        clock[0] += 2.0
        return len(taken)

    monkeypatch.setattr(tracking.Checkpoints, "save", slow)
    with trial_monitor(here) as monitor:
        for _ in range(100_000):
            clock[0] += 0.01
            monitor.checkpoint(dict)
    pauses = np.diff(taken)
    assert len(taken) == 5
    assert (pauses >= 200.0).all()


def test_no_more_than_one_interval_is_lost(here, monkeypatch):
    """Where the disk is quick: a checkpoint at the first chance after each second."""
    clock, taken = [0.0], []
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        tracking.Checkpoints, "save", lambda self, state, about: taken.append(clock[0])
    )
    with trial_monitor(here) as monitor:
        for _ in range(1_000):
            clock[0] += 0.01
            monitor.checkpoint(dict)
    assert len(taken) >= 9 and np.diff([0.0, *taken, clock[0]]).max() <= 1.0 + 0.02


def trial_monitor(folder):
    from experiments.run_dir import RunFolder

    run = RunFolder.create(folder / "results", "train", "agent", 0, config={})
    return tracking.RunMonitor(run, every=1.0)
