"""What a step's environment was the last time it ran: an upgrade in the kernel is a change of every step that imports it.

A lock is made from what is installed, so upgrading a package in the notebook changes the next run without a line of code
having changed. The record of the last run says what it ran with; the difference is said before the next one starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ._store import StoreError, home, open_store

__all__ = ["LastRun", "last_run", "since"]

_LOOKED_AT = 20
_SHOWN = 4
_EXECUTOR = re.compile(r"^ {4}exec-([a-z0-9-]+):\n((?: {5,}.*\n| *\n)*)", re.MULTILINE)
_LOCK = re.compile(r'"--lock"\n\s*- "?([0-9a-f]{64})"?')


@dataclass(frozen=True, slots=True)
class LastRun:
    """A recorded run and the lock digest of each of its steps, by component name."""

    id: str
    locks: Mapping[str, str]


def last_run(*, pipeline: str | None = None, step: str | None = None) -> LastRun | None:
    """The newest recorded run of the pipeline, or of any that has this step (`train_it` and `train-it` alike)."""
    if not (home() / "runs").is_dir():
        return None
    from ._runs import runs

    wanted = step.replace("_", "-").lower() if step else None
    for run in runs(pipeline=pipeline, limit=_LOOKED_AT if step else 1):
        try:
            text = run.ir
        except OSError:
            continue
        locks = {name: found[1] for name, body in _EXECUTOR.findall(text) if (found := _LOCK.search(body))}
        if wanted is None or wanted in locks:
            return LastRun(run.id, locks)
    return None


def since(last: LastRun | None, locks: Mapping[str, str]) -> tuple[str, ...]:
    """What changed since that run in the steps' locks, given as text by component name; one line, or none."""
    if last is None:
        return ()
    changed: dict[str, None] = {}
    for name, text in locks.items():
        before = last.locks.get(name)
        if before is not None:
            changed |= dict.fromkeys(_changes(before, text))
    if not changed:
        return ()
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return (f"since run {last.id}: {_list(changed)}{more}",)


def _list(changed: Iterable[str]) -> str:
    return ", ".join(list(changed)[:_SHOWN])


def _changes(before: str, text: str) -> tuple[str, ...]:
    from ._env import changes
    from .errors import EnvironmentError_

    try:
        old = open_store().get(before).decode()
        return () if old == text else changes(old, text)
    except (StoreError, OSError, UnicodeDecodeError, EnvironmentError_):
        return ()  # collected since, or of another schema: nothing to compare with
