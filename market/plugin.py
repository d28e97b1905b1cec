"""A user's own code by `module:name` or `file.py:name`, and errors that say whose fault it was.

Whatever belongs to Python itself (`os:system`) is refused before it is imported. A file is run anew
each time it is named. While a stored model is read, only the code that its settings name is run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from market.errors import InputError, SettingError

CODE = re.compile(r"([\w./\\~-]+):[^\W\d]\w*")  # a reference; the group is its place
Result = TypeVar("Result")
_NAMED: ContextVar[frozenset[str] | None] = ContextVar("code that may be run", default=None)


def references_in(text: str) -> list[str]:
    """All that a text names as code."""
    return [match.group() for match in CODE.finditer(text)]


@contextmanager
def only_plugins(references: Iterable[str]) -> Iterator[None]:
    """Within, `load_plugin` refuses all but these."""
    before = _NAMED.set(frozenset(references))
    try:
        yield
    finally:
        _NAMED.reset(before)


def load_plugin(reference: str, kind: str) -> Any:
    """What `module:name` or `file.py:name` names.

    Args:
        reference: The module or file, a colon, and a name in it.
        kind: What it is used as, such as "feature", for messages.

    Raises:
        SettingError: If there is no such file, module or name, if it is part of Python itself, or
            if a stored model names it and its settings do not.

    """
    named = _NAMED.get()
    if named is not None and reference not in named:
        raise SettingError(f"{kind} `{reference}` is code that the run's settings do not name")
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        module = _run_file(Path(place).expanduser(), reference, kind)
    else:
        refuse_python(place, reference, kind)
        module = guarded(reference, kind, lambda: importlib.import_module(place))
    if not name or not hasattr(module, name):
        raise SettingError(f"{kind} `{reference}`: {place} has no {name!r}")
    return getattr(module, name)


def guarded(name: str, kind: str, call: Callable[[], Result]) -> Result:
    """Run a user's code; whatever it raises becomes one line that names the plug-in."""
    try:
        return call()
    except InputError:
        raise
    except Exception as error:  # any fault of code that is not ours
        reason = " ".join(str(error).split())
        raise SettingError(f"{kind} `{name}` raised {type(error).__name__}: {reason}") from error


def refuse_python(module: str, reference: str, kind: str) -> None:
    """Refuse a module of the standard library."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise SettingError(f"{kind} `{reference}`: {module} is part of Python, no {kind}")


def _run_file(path: Path, reference: str, kind: str) -> ModuleType:
    if not path.is_file():
        raise SettingError(f"{kind} `{reference}`: there is no file {path}")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"allocgym_{kind}_{digest}", path)
    if spec is None or spec.loader is None:
        raise SettingError(f"{kind} `{reference}`: {path} is no Python file")
    module, run = importlib.util.module_from_spec(spec), spec.loader.exec_module
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up there
    guarded(reference, kind, lambda: run(module))
    return module
