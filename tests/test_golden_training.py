"""Short trainings give what they gave before: to the byte on the same versions and processor."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests import golden_training
from tests.golden_training import GOLDEN, processor, train, versions
from tests.test_determinism import plainer

# relative; between AVX-512, AVX2 and neither at most 7e-5 was found (turnover of policy_gradient)
TOLERANCE = 1e-3


def compare(name: str, made: dict[str, Any], same_processor: bool) -> None:
    """To the byte on the same processor, else within the tolerance."""
    kept = GOLDEN["runs"][name]
    if same_processor:
        assert made["weights"] == kept["weights"], "weights differ; see tests/golden_training.py"
        assert made["figures"] == kept["figures"]
    else:
        assert made["figures"] == pytest.approx(kept["figures"], rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_training_gives_what_it_gave(name):
    if versions() != GOLDEN["versions"]:  # draws and kernels are promised by no later version
        pytest.skip(f"the golden file is of {GOLDEN['versions']}, this is {versions()}")
    compare(name, train(name), processor() == GOLDEN["processor"])


@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_a_golden_run_learns_and_tells_runs_apart(name):
    """No run is that of another, and every one moved its weights and trades."""
    figures = GOLDEN["runs"][name]["figures"]
    assert figures["turnover"] > 0.0
    weights = [value for key, value in figures.items() if key.startswith("mean weight")]
    assert len(weights) == 4 and sum(weights) == pytest.approx(1.0, abs=1e-9)
    assert len({run["weights"] for run in GOLDEN["runs"].values()}) == len(GOLDEN["runs"])


@pytest.mark.soak
@pytest.mark.parametrize("level", ["default", "avx2"])
def test_a_plainer_processor_stays_within_the_tolerance(tmp_path, level):
    matrices = {"MKL_CBWR": "COMPATIBLE" if level == "default" else "AVX2"}
    done = subprocess.run(
        [sys.executable, golden_training.__file__, *GOLDEN["runs"]],
        cwd=tmp_path,
        env=os.environ | plainer(level) | matrices,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, made in json.loads(done.stdout).items():
        compare(name, made, same_processor=False)
