"""The import arrows, experiments -> agents -> envs -> market, and nothing heavy before its use."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["market", "envs", "agents", "experiments"]
HEAVY = ("torch", "skfolio", "matplotlib", "stable_baselines3", "arch", "plotly", "ray")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down(package):
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in (ROOT / package).rglob("*.py"):
        upward = {name for name in imported(path) if name.split(".")[0] in above}
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}"


def test_no_private_name_crosses_a_package():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    owner = node.module.split(".")[0]
                    private = [a.name for a in node.names if a.name.startswith("_")]
                    assert owner not in PACKAGES or owner == package or not private, path


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_ours(package):
    assert Path(importlib.import_module(package).__file__ or "").is_relative_to(ROOT)


@pytest.mark.parametrize("package", ["market", "envs", "agents"])
def test_import_is_light(package):
    code = f"import sys, {package}; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
