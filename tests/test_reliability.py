"""The page of promises: every row is there once, and every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = re.findall(r"^\| ([ABCD])(\d+) \| (.+) \| (.+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)(?:\[(.+?)\])?`", PAGE)))
LAST = {"A": 53, "B": 19, "C": 15, "D": 12}


@pytest.mark.parametrize("letter", LAST)
def test_rows_stand_once_and_in_order(letter):
    numbers = [int(number) for group, number, *_ in ROWS if group == letter]
    assert numbers == list(range(1, LAST[letter] + 1))
    assert all("`test_" in tests for group, *_, tests in ROWS if group == letter)


def test_every_promise_names_a_test_there_is():
    assert len(NAMED) > 50
    sources = {module: (TESTS / f"{module}.py").read_text() for module, *_ in NAMED}
    names = {
        module: {node.name for node in ast.parse(source).body if hasattr(node, "name")}
        for module, source in sources.items()
    }
    for module, test, case in NAMED:
        defined, source = names[module], sources[module]
        assert test in defined, f"{module}::{test}"
        assert case in source, f"{module}::{test}[{case}]"
