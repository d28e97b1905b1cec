"""The page of promises: every row is there once, and every test that it names exists."""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = re.findall(r"^\| ([ABCD])(\d+) \| (.+) \| (.+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)(?:\[(.+?)\])?`", PAGE)))
LAST = {"A": 53, "B": 19, "C": 15, "D": 12}


@functools.cache
def defined(module: str) -> dict[str, ast.FunctionDef]:
    """Functions of a file of tests by name."""
    body = ast.parse((TESTS / f"{module}.py").read_text()).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("letter", LAST)
def test_rows_stand_once_and_in_order(letter):
    numbers = [int(number) for group, number, *_ in ROWS if group == letter]
    assert numbers == list(range(1, LAST[letter] + 1))
    assert all("`test_" in tests for group, *_, tests in ROWS if group == letter)


def test_every_promise_names_a_test_there_is():
    assert len(NAMED) > 50
    for module, test, case in NAMED:
        assert test in defined(module), f"{module}::{test}"
        assert case in (TESTS / f"{module}.py").read_text(), f"{module}::{test}[{case}]"


def test_every_row_has_a_test_that_always_runs():
    """What only `make soak` runs may be named beside it."""
    for letter, number, *_, tests in ROWS:
        always = []
        for module, test in re.findall(r"`(test_\w+)::(test_\w+)", tests):
            marks = [ast.unparse(mark) for mark in defined(module)[test].decorator_list]
            always.append("pytest.mark.soak" not in marks)
        assert any(always), f"{letter}{number}"
