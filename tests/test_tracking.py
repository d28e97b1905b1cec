"""Curves on disk and in TensorBoard, the pace of trials, and what people see of it."""

import io
import json

import pytest
from rich.console import Console

from experiments.pace import RULE, Pace
from experiments.progress import Display, Live, duration
from experiments.run_dir import RunFolder
from experiments.tracking import RunMonitor


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, "exp", "agent", 0, config={})


def events(path):
    """Scalars by name, and the plug-ins of what else is in the event file."""
    from tensorboard.backend.event_processing import event_file_loader  # type: ignore[import-untyped]

    scalars: dict[str, list[tuple[int, float]]] = {}
    others = []
    (file,) = path.glob("events.out.tfevents.*")
    for event in event_file_loader.EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars":
                scalars.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
            else:
                others.append(value)
    return scalars, others


def test_values_go_to_metrics_and_tensorboard_and_clocks_to_tensorboard_alone(run):
    with RunMonitor(run) as monitor:
        monitor.record(10, {"train/loss": 0.5, "time/speed": 99.0})
        monitor.record(20, {"time/speed": 98.0})
        monitor.record(20, {"train/loss": float("nan"), "eval/weight/AAA": 0.25})
        monitor.result({"sharpe": 1.5})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 10, "train/loss": 0.5},
        {"step": 20, "train/loss": None, "eval/weight/AAA": 0.25},
        {"step": 20, "test/sharpe": 1.5},
    ]
    scalars, _ = events(run.path)
    assert scalars["time/speed"] == [(10, 99.0), (20, 98.0)]
    assert scalars["eval/weight/AAA"] == [(20, 0.25)]
    assert scalars["test/sharpe"] == [(20, 1.5)]


def test_settings_appear_in_the_hparams_tab(run):
    from tensorboard.plugins.hparams import plugin_data_pb2  # type: ignore[import-untyped]

    config = {"agent": {"name": "ppo", "rate": 1e-4, "label": None}, "data": {"assets": ["A", "B"]}}
    with RunMonitor(run) as monitor:
        monitor.settings(config)
    _, others = events(run.path)
    found = {}
    for value in others:
        data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for key, entry in data.session_start_info.hparams.items():
            found[key] = entry.string_value or entry.number_value
        if data.experiment.metric_infos:
            metrics = {info.name.tag for info in data.experiment.metric_infos}
    assert found == {"agent.name": "ppo", "agent.rate": 1e-4, "data.assets": "A, B"}
    assert "test/sharpe" in metrics


def test_progress_is_passed_on_within_bounds(run):
    heard: list[float] = []
    with RunMonitor(run, heard.append) as monitor:
        for done in (-0.1, 0.5, 1.7):
            monitor.progress(done)
    assert heard == [0.0, 0.5, 1.0]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_time_left_is_extrapolated_and_shared_by_the_workers():
    clock = Clock()
    pace = Pace({"a 0": "a", "a 1": "a", "b 0": "b", "b 1": "b"}, 2, clock)
    assert pace.left() is None
    pace.start("a 0")
    pace.start("b 0")
    clock.now += 10
    pace.advance("a 0", 0.5)  # 20 s in all
    pace.advance("b 0", 0.1)  # 100 s in all
    # left: 10 and 90 of what runs, 20 and 100 of what waits, over two workers
    assert pace.left() == pytest.approx((10 + 90 + 20 + 100) / 2)
    assert pace.share() == pytest.approx(10 / (10 + 110))
    clock.now += 10
    assert pace.end("a 0") == pytest.approx(20)
    pace.advance("b 0", 0.2)
    assert pace.left() == pytest.approx((80 + 20 + 100) / 2)


def test_rules_that_wait_are_taken_to_be_brief_until_one_was_seen():
    clock = Clock()
    pace = Pace({"a 0": "a", "b 0": "b", "equal": RULE, "hold": RULE}, 1, clock)
    pace.start("a 0")
    clock.now += 10
    pace.end("a 0")
    assert pace.left() == pytest.approx(10)  # b as a, the rules nothing
    pace.start("equal")
    clock.now += 4
    pace.end("equal")
    assert pace.left() == pytest.approx(10 + 4)


def test_time_left_is_no_less_than_the_longest_that_runs_and_zero_at_the_end():
    clock = Clock()
    pace = Pace({"a": "a", "b": "b"}, 2, clock)
    pace.start("a")
    pace.start("b")
    clock.now += 10
    pace.advance("a", 0.1)
    pace.end("b")
    assert pace.left() == pytest.approx(90)
    pace.end("a")
    assert (pace.left(), pace.share(), pace.done) == (0.0, 1.0, 2)


def play(display, clock):
    with display:
        display.started("ppo seed 0")
        clock.now += 30
        display.advanced("ppo seed 0", 0.5)
        display.tick()
        clock.now += 30
        display.ended("ppo seed 0")
        display.started("sac seed 0")
        display.ended("sac seed 0", "it broke")


def test_without_a_terminal_there_is_a_plain_line_for_each_start_and_end():
    clock, out = Clock(), io.StringIO()
    trials = [("ppo", "ppo seed 0"), ("sac", "sac seed 0")]
    play(Display(trials, 1, Console(file=out, width=40), clock), clock)
    assert out.getvalue().splitlines() == [
        "[0/2] ppo seed 0: started",
        "[1/2] ppo seed 0: finished in 1 min 0 s, about 1 min 0 s left",
        "[1/2] sac seed 0: started",
        "[2/2] sac seed 0: FAILED: it broke",
    ]


def test_on_a_terminal_the_display_shows_what_runs_and_the_time_left():
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None)
    trials = [("ppo", "ppo seed 0"), ("sac", "sac seed 0")]
    live = Live(trials, 1, console, clock)
    with live:
        live.started("ppo seed 0")
        clock.now += 30
        live.advanced("ppo seed 0", 0.5)
        live._bars.refresh()
        live.ended("ppo seed 0", "it broke")
    text = out.getvalue()
    assert "ppo seed 0" in text
    assert "50 %" in text
    assert "0 of 2, about 1 min 30 s left" in text
    assert "ppo seed 0: FAILED: it broke" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text
