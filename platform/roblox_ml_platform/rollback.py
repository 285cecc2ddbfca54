"""Where a rollback leads. Pure: from the moves of an alias (or endpoint) to the target before the current one.

A rollback undoes a move, so a second one goes further back instead of returning to the version that was just left: in an
incident "back" must never mean "forward to the bad one". Going forward again is a promotion.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

__all__ = ["stack_of", "target"]

T = TypeVar("T")


def stack_of(moves: Iterable[tuple[bool, T]]) -> list[T]:
    """The targets still standing, oldest first. A move is (is a rollback, target)."""
    stack: list[T] = []
    for is_rollback, to in moves:
        if is_rollback:
            while stack and stack[-1] != to:
                stack.pop()
        if not stack or stack[-1] != to:
            stack.append(to)
    return stack


def target(stack: Sequence[T], gone: Container[T] = ()) -> T | None:
    """The last standing target that differs from the current one and still exists, or None."""
    if not stack:
        return None
    current = stack[-1]
    return next((to for to in reversed(stack[:-1]) if to != current and to not in gone), None)
