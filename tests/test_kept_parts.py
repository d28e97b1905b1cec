"""Trainings in parts: what was done before a cut is taken back as it was, and is only data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.base import Agent
from agents.ensembles import Ensemble
from agents.kept_parts import unpack
from market import SettingError
from market.plugin import load_plugin
from tests.stepping_agent import Stepper
from tests.test_exact_resume import Keeper, through_files


class Watch(Keeper):
    """Without clocks."""

    def record(self, step, values):
        timeless = {key: value for key, value in values.items() if "/time/" not in key}
        super().record(step, timeless)


class Unsaved(Stepper):
    """Cannot be stored."""

    def save(self, folder):
        raise NotImplementedError


def fitted(market, first=Stepper, start=None):
    """An ensemble whose first member takes 3 steps and whose last takes 4."""
    monitor = Watch(start)
    members = [first(steps=3, lookback=2), "equal_weight", Stepper(steps=4, lookback=3)]
    agent = Ensemble(members=members, period="week").fit(market[:60], market[50:], monitor=monitor)
    trained: list[Any] = [agent.members[place].agent for place in (0, 2)]
    return monitor, [member.weights for member in trained]


@pytest.mark.parametrize("first", [Stepper, Unsaved])
def test_every_cut_ends_in_the_same_curves_and_members(make_market, first):
    """A member that is done and trained again would record its steps again."""
    market = make_market(periods=90, risky=2)
    whole, expected = fitted(market, first)
    assert len(whole.checkpoints) == 3 + 4 + 3  # before each step, and after each member
    assert len(whole.rows) == 3 + 4 + 1
    for rows, state in whole.checkpoints:
        went_on, found = fitted(market, first, through_files(state))
        assert went_on.rows == whole.rows[rows:], rows
        np.testing.assert_array_equal(found, expected)


def test_a_member_that_is_done_is_read_and_not_trained(make_market, monkeypatch):
    market = make_market(periods=90, risky=2)
    whole, expected = fitted(market)
    begun: list[int] = []
    fit = Stepper.fit

    def noted(self, *args, **more):
        begun.append(self.settings.steps)
        return fit(self, *args, **more)

    monkeypatch.setattr(Stepper, "fit", noted)
    for (_, state), trained in zip(whole.checkpoints, [3] * 3 + [4] * 6 + [0], strict=True):
        begun.clear()
        np.testing.assert_array_equal(fitted(market, start=through_files(state))[1], expected)
        assert begun == {3: [3, 4], 4: [4], 0: []}[trained]


def test_a_checkpoint_of_another_training_is_refused(make_market):
    market = make_market(periods=90, risky=2)
    for state in ({"weights": 1}, [1, 2], {"done": 3, "part": "", "state": None}):
        with pytest.raises(SettingError, match="it is of no training in parts"):
            fitted(market, start=state)


@dataclass(frozen=True, kw_only=True)
class NamingSettings:
    name: str = ""


class Naming(Agent):
    """Reads what its settings name, as an ensemble reads its members."""

    Settings = NamingSettings

    def __init__(self, **settings):
        super().__init__(**settings)
        if self.settings.name:
            load_plugin(self.settings.name, "agent")

    def act(self, history, weights):
        return weights


def test_a_checkpoint_of_somebody_elses_names_no_code(make_market, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w')\nAgent = 1\n")
    market = make_market(periods=90, risky=2)

    def train(start=None):
        monitor = Watch(start)
        members = [Naming(), Stepper(steps=2)]
        Ensemble(members=members, period="week").fit(market[:60], market[50:], monitor=monitor)
        return monitor.checkpoints

    state = train()[-1][1]
    train(state)
    (key,) = [key for key in state["done"] if "Naming" in key]
    text = json.dumps({"name": "evil.py:Agent"}).encode()
    state["done"][key] = {"settings.json": np.frombuffer(text, np.uint8)}
    with pytest.raises(SettingError, match="is code that the run's settings do not name"):
        train(state)
    assert not Path("ran").exists()


def test_files_of_a_part_lead_nowhere_else(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("../out", str(tmp_path / "out"), "a/../../out"):
        with pytest.raises(SettingError, match="leads out of its part"):
            unpack({name: np.zeros(3, np.uint8)}, inner)
    assert not (tmp_path / "out").exists()
