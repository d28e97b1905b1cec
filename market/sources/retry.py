"""Asking again, later and later, when a server is busy or out of reach."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from market.errors import SettingError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_WAIT = 2.0


class TryAgainError(Exception):
    """The answer may come later: no connection, a busy server, a limit of requests."""


def with_retries(action: Callable[[], Result], tries: int, what: str) -> Result:
    """The result of an action, tried again after 2, 4, 8, ... seconds.

    Args:
        action: Raises TryAgainError where another try may help.
        tries: How often in all, >= 1.
        what: For the log.

    Raises:
        TryAgainError: The last one, when all tries failed.

    """
    if type(tries) is not int or tries < 1:
        raise SettingError(f"tries: must be a whole number >= 1, got {tries!r}")
    for attempt in range(1, tries):
        try:
            return action()
        except TryAgainError as error:
            wait = FIRST_WAIT * 2.0 ** (attempt - 1)
            log.warning("%s: %s; trying again in %g s", what, error, wait)
            time.sleep(wait)
    return action()
