"""From the cache, else from the vendor: all of what was asked for is stored, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from market.errors import DataError
from market.sources.download_cache import DownloadCache, Stored
from market.sources.retry import TryAgainError, with_retries
from market.sources.revisions import rewritten

log = logging.getLogger(__name__)

Answers = dict[str, pd.DataFrame]
Reasons = dict[str, str]
Ask = Callable[[list[str]], tuple[Answers, Reasons, bool]]


def obtain(
    store: DownloadCache,
    keys: Sequence[str],
    ask: Ask,
    *,
    refresh: bool,
    tries: int,
    scaled: Sequence[str] = (),
    strict: bool = False,
) -> tuple[dict[str, Stored], list[str]]:
    """What is asked for, and notes about what the vendor changed or failed to give.

    Args:
        store: The copies of this vendor.
        keys: What is wanted.
        ask: Keys -> answers, the reasons for those without, and whether asking again may help.
        refresh: Whether to ask for what is stored too.
        tries: How often to ask.
        scaled: See `rewritten`.
        strict: Whether a failure is an error where there is a copy of everything, too.

    Raises:
        DataError: Naming every key that could not be had, and why; the cache is as it was.

    """
    old = _stored(store, keys, refresh)
    missing = [key for key in keys if refresh or key not in old]
    if not missing:
        return old, []
    answers, reasons = ask_again(ask, missing, tries, store.source)
    for key in [key for key in old if key in answers]:
        shorter = _shorter(old[key].frame, answers[key])
        if shorter:
            reasons[key] = shorter
    if reasons:
        return old, [_fall_back(store.source, missing, old, reasons, strict)]
    found, notes = dict(old), []
    for key in missing:
        changes: list[str] = []
        if key in old:
            name = f"{store.source} {key}"
            changes, scales = rewritten(name, old[key].frame, answers[key], scaled)
            notes += [f"history rewritten by the vendor: {line}" for line in changes] + scales
        entry = store.write(key, answers[key], {"rewritten": changes}, keep_old=bool(changes))
        found[key] = Stored(answers[key], entry)
    for note in notes:
        log.warning("%s", note)
    return found, notes


def ask_again(ask: Ask, keys: list[str], tries: int, vendor: str) -> tuple[Answers, Reasons]:
    """All answers that a number of tries gave, and the last reasons for those that lack."""
    answers: Answers = {}
    reasons: Reasons = {}

    def attempt() -> None:
        found, failed, passing = ask([key for key in keys if key not in answers])
        answers.update(found)
        reasons.clear()
        reasons.update(failed)
        if passing:
            key = next(iter(failed))
            raise TryAgainError(
                f"{len(failed)} of {len(keys)} failed, such as {key}: {failed[key]}"
            )

    try:
        with_retries(attempt, tries, vendor)
    except TryAgainError:
        log.info("%s: gave up after %d tries", vendor, tries)  # the reasons are handed back
    return answers, reasons


def _fall_back(
    vendor: str, missing: list[str], old: dict[str, Stored], reasons: Reasons, strict: bool
) -> str:
    """The note that copies are used, where there is one of everything."""
    listed = "; ".join(f"{key} ({reason})" for key, reason in sorted(reasons.items()))
    failure = f"{vendor}: {len(reasons)} of {len(missing)} could not be downloaded: {listed}"
    if any(key not in old for key in missing):
        raise DataError(f"{failure}; nothing was stored")
    dates = sorted({old[key].downloaded for key in missing})
    copies = f"the copies of {' .. '.join(dict.fromkeys([dates[0], dates[-1]]))}"
    if strict:
        raise DataError(f"{failure}; {copies} are kept")
    note = f"{failure}; {copies} are used"
    log.warning("%s", note)
    return note


def _stored(store: DownloadCache, keys: Sequence[str], refresh: bool) -> dict[str, Stored]:
    """What the cache holds; a damaged copy stops a call unless it asks for a new one."""
    found = {}
    for key in keys:
        try:
            copy = store.read(key)
        except DataError as error:
            if not refresh:
                raise
            log.warning("%s", error)
            continue
        if copy is not None:
            found[key] = copy
    return found


def _shorter(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """Why an answer is only a part of what is stored; empty where it is not."""
    if new.index[0] <= old.index[0] and new.index[-1] >= old.index[-1]:
        return ""
    spans = [
        " .. ".join(f"{first_date(row):%Y-%m-%d}" for row in (frame.index[0], frame.index[-1]))
        for frame in (new, old)
    ]
    return f"the answer spans {spans[0]} only, the stored copy {spans[1]}"


def first_date(row: Any) -> pd.Timestamp:
    """The date of a row, the first where it is named by several."""
    return pd.Timestamp(row[0] if isinstance(row, tuple) else row)
