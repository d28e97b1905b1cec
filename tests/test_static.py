"""What the code may not contain: doors for foreign code, hidden clocks, global random state.

Read off the syntax tree, so that a comment or a docstring may speak of them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["market", "envs", "agents", "experiments"]

UNPICKLE = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib.load"}
RUN_TEXT = {"eval", "exec", "compile", "__import__"}
UNSAFE_YAML = {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"}
UNSAFE_LOADERS = {
    "torch.load",
    "torch.jit.load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "tempfile.mktemp",
}
DOORS = ("socketserver.", "http.server.", "zipfile.", "tarfile.", "shutil.unpack_archive")
CLOCKS = ("time.", "datetime.datetime.now", "datetime.now", "datetime.today", "date.today")
GENERATORS = {  # of numpy.random: all else there draws from, or seeds, one global state
    "default_rng",
    "Generator",
    "SeedSequence",
    "PCG64",
    "BitGenerator",
}
# what a step, an account or an update may stand on; the rest may look at a clock to show progress
EXACT = ["market", "envs", "agents"]
CLOCK_ALLOWED = {
    "market/sources/cells.py",  # a date in the future is refused
    "market/sources/download_cache.py",  # the day of a download is recorded
    "market/sources/retry.py",  # waits between attempts
    "market/sources/yahoo.py",  # a download ends today unless told otherwise
}


def trees(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain; "" where it starts with something else than a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else ""
    return ""


def full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, so that `from time import time` is seen too."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return known


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    known = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = dotted(node.func).partition(".")
            name = known.get(first, first)
            yield (f"{name}.{rest}" if rest else name), node


def loads_code(name: str, call: ast.Call) -> bool:
    """Whether a call may run code that a file or a text brought along."""
    if name in RUN_TEXT or name in UNSAFE_YAML or name in UNSAFE_LOADERS:
        return True
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    allowed = options.get("allow_pickle")
    if isinstance(allowed, ast.Constant) and allowed.value:
        return True
    shell = options.get("shell")
    return isinstance(shell, ast.Constant) and bool(shell.value)


def opens_door(name: str, call: ast.Call) -> bool:
    """Whether a call listens for others, unpacks an archive, or starts Ray with its dashboard."""
    if name == "ray.init":
        given = {word.arg: word.value for word in call.keywords}
        shown = given.get("include_dashboard")
        joins = "address" in given  # a cluster that others have started
        return not joins and not (isinstance(shown, ast.Constant) and shown.value is False)
    return name.startswith(DOORS) or (name.endswith((".bind", ".listen")) and "socket" in name)


def draws_globally(name: str) -> bool:
    if name.endswith((".get_state", ".set_state", ".getstate", ".setstate")):
        return False  # a checkpoint holds them; nothing is drawn
    if name.startswith(("numpy.random.", "np.random.")):
        return name.split(".")[2] not in GENERATORS
    return name.startswith("random.") or name == "torch.seed"


def reads_clock(name: str) -> bool:
    return name.startswith(CLOCKS) or name.endswith(("Timestamp.now", "Timestamp.today"))


def test_nothing_unpickles():
    found = []
    for path, tree in trees(*PACKAGES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            else:
                continue
            found += [f"{path}:{node.lineno} {name}" for name in modules if name in UNPICKLE]
    assert not found


def test_no_text_is_run_as_code():
    found = [
        f"{path}:{call.lineno} {name}"
        for path, tree in trees(*PACKAGES)
        for name, call in calls(tree)
        if loads_code(name, call)
    ]
    assert not found


def test_nothing_listens_or_unpacks():
    found = [
        f"{path}:{call.lineno} {name}"
        for path, tree in trees(*PACKAGES)
        for name, call in calls(tree)
        if opens_door(name, call)
    ]
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_all_randomness_is_handed_in(package):
    found = [
        f"{path}:{call.lineno} {name}"
        for path, tree in trees(package)
        for name, call in calls(tree)
        if draws_globally(name)
    ]
    assert not found


@pytest.mark.parametrize("package", EXACT)
def test_no_clock_is_read_where_results_are_made(package):
    found = [
        f"{path}:{call.lineno} {name}"
        for path, tree in trees(package)
        for name, call in calls(tree)
        if reads_clock(name) and path.as_posix() not in CLOCK_ALLOWED
    ]
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_order_comes_from_a_set(package):
    """The order of a set of texts changes with PYTHONHASHSEED."""
    found = []
    for path, tree in trees(package):
        for node in ast.walk(tree):
            loops = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
            for over in loops:
                unordered = isinstance(over, ast.Set | ast.SetComp) or (
                    isinstance(over, ast.Call) and dotted(over.func) in ("set", "frozenset")
                )
                if unordered:
                    found.append(f"{path}:{over.lineno}")
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import torch\ntorch.load('x')",
        "from yaml import load\nload('x')",
        "eval('1')",
        "import subprocess\nsubprocess.run('x', shell=True)",
    ],
)
def test_the_search_for_code_finds_what_it_should(code):
    assert any(loads_code(name, call) for name, call in calls(ast.parse(code)))


@pytest.mark.parametrize(
    ("code", "open_"),
    [
        ("import ray\nray.init()", True),
        ("import ray\nray.init(include_dashboard=True)", True),
        ("import ray\nray.init(include_dashboard=False)", False),
        ("import ray\nray.init(address='auto')", False),
        ("import http.server\nhttp.server.HTTPServer(('', 1), x)", True),
        ("from zipfile import ZipFile\nZipFile('x').extractall()", True),
        ("import tarfile\ntarfile.open('x')", True),
    ],
)
def test_the_search_for_doors_finds_what_it_should(code, open_):
    assert any(opens_door(name, call) for name, call in calls(ast.parse(code))) is open_


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import numpy as np\nnp.random.normal()", draws_globally),
        ("from numpy.random import seed\nseed(1)", draws_globally),
        ("import random\nrandom.random()", draws_globally),
        ("from time import perf_counter\nperf_counter()", None),
        ("import time\ntime.time()", reads_clock),
        ("import pandas as pd\npd.Timestamp.now()", reads_clock),
        ("from datetime import datetime\ndatetime.now()", reads_clock),
    ],
)
def test_the_search_for_state_finds_what_it_should(code, seen):
    names = [name for name, _ in calls(ast.parse(code))]
    assert any((seen or reads_clock)(name) for name in names)
