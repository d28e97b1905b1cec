"""A reward's terms on the learning curves: what each learner's validation earns of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from experiments.config import AgentConfig, DataConfig, ExperimentConfig, SplitConfig, TaskConfig
from experiments.trial import Trial, trial

DATES = pd.bdate_range("2020-01-01", periods=120)
SPLIT = SplitConfig(train_end=f"{DATES[69]:%Y-%m-%d}", valid_end=f"{DATES[94]:%Y-%m-%d}")
TERMS = {"eval/reward/log_return", "eval/reward/turnover"}
LEARNERS: dict[str, dict[str, Any]] = {
    "dqn": {"steps": 200},
    "ppo": {"steps": 64, "n_steps": 16, "batch_size": 32},
    "sac": {"steps": 400},
    "policy_gradient": {"steps": 4},
    "lstm": {"epochs": 1},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_terms_are_in_the_metrics_and_in_tensorboard(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0005, 0.01, (120, 2)), 0))
    frame = pd.DataFrame(prices, DATES, ["AAA", "BBB"]).rename_axis("date")
    frame.to_csv(tmp_path / "prices.csv")
    config = ExperimentConfig(
        agent=AgentConfig(name=name, settings={"lookback": 5} | LEARNERS[name]),
        data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
        split=SPLIT,
        task=TaskConfig(reward="log_return - 0.1 * turnover"),
        results=str(tmp_path / "results"),
    )
    folder = trial(Trial(config, 0))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [line for line in lines if "eval/reward" in line]
    assert curve
    for line in curve:
        assert {key for key in line if key.startswith("eval/reward/")} == TERMS
        assert line["eval/reward"] == pytest.approx(sum(line[key] for key in TERMS), abs=1e-15)
        # turnover is shown a year, at its weight in the reward a day
        daily = -0.1 * line["eval/turnover"] / 252
        assert line["eval/reward/turnover"] == pytest.approx(daily, abs=1e-15)
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) >= TERMS
    for key in TERMS:
        shown = [(event.step, event.value) for event in events.Scalars(key)]
        expected = [(line["step"], np.float32(line[key])) for line in curve]
        assert shown == expected
