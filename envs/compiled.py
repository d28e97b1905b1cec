"""Functions compiled by numba where it is installed (`pip install 'allocgym[fast]'`).

Numba takes a while to import: modules that use the decorator are imported where they are needed.
Machine code is kept beside the source, or in the user's cache folder, or nowhere where neither can
be written. Numba tells that kept code is out of date by its own file alone, so a compiled function
uses no function and no constant of another file. NUMBA_DISABLE_JIT=1 turns compiling off.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

COMPILES = find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def compiled(function: Function) -> Function:
    """The function as machine code: the same operations in the same order, hence the same bits."""
    if not COMPILES:
        return function
    import numba

    settings: dict[str, Any] = {"error_model": "numpy"}
    try:
        made: Any = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no folder to keep the code in
        made = numba.njit(**settings)(function)
    return made
