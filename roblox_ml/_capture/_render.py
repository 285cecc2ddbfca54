"""Chosen statements → the text of one module, in an order that depends on nothing but the statements themselves.

Execution order is kept wherever it can matter (one statement reads or changes what another binds or changes); where it
cannot, imports come first, then constants, classes and functions by name, the step last. So the same code gives the same
bytes whether cells ran top to bottom once or in the disorder of a working day.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping

from roblox_ml._capture._index import Index, Placed
from roblox_ml._capture._types import Origin

HEADER = "# Source slice of one pipeline step.\n"
_RANKS = {"import": 0, "from": 1, "classdef": 3, "functiondef": 4, "asyncfunctiondef": 4}


def ordered(index: Index, chosen: Iterable[int], reads: Mapping[int, set[str]], writes: Mapping[int, set[str]],
            barriers: Iterable[int], entry: int) -> list[int]:  # fmt: skip
    """The canonical order of `chosen` positions: topological over conflicts, ties broken by kind, name and text."""
    positions = sorted(chosen)
    fixed = set(barriers)
    after: dict[int, set[int]] = {position: set() for position in positions}

    readers: dict[str, list[int]] = defaultdict(list)
    writer: dict[str, int] = {}
    last_barrier: int | None = None
    seen: list[int] = []
    for position in positions:
        statement = index.placed[position].statement
        wanted = reads.get(position, set()) | statement.now
        changed = statement.binds | statement.mutates | statement.registers | writes.get(position, set())
        for name in wanted | changed:
            if name in writer:
                after[position].add(writer[name])
        for name in changed:
            after[position].update(readers.pop(name, ()))
            writer[name] = position
        for name in wanted:
            readers[name].append(position)
        if last_barrier is not None:
            after[position].add(last_barrier)
        if position in fixed:
            after[position].update(seen)
            last_barrier = position
        seen.append(position)
        after[position].discard(position)
    return _topological(index, positions, after, entry)


def _topological(index: Index, positions: list[int], after: Mapping[int, set[int]], entry: int) -> list[int]:
    def key(position: int) -> tuple[int, str, str, int]:
        statement = index.placed[position].statement
        rank = 5 if position == entry else _RANKS.get(statement.kind, 2)
        return rank, min(statement.binds, default="~"), statement.text, position

    waiting = {position: len(after[position]) for position in positions}
    before: dict[int, list[int]] = defaultdict(list)
    for position, earlier in after.items():
        for other in earlier:
            before[other].append(position)
    ready = [key(position) for position, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    result: list[int] = []
    while ready:
        position = heapq.heappop(ready)[-1]
        result.append(position)
        for follower in before[position]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, key(follower))
    return result


def render(index: Index, order: Iterable[int], reasons: Mapping[int, str]) -> tuple[bytes, dict[int, Origin]]:
    """The module's bytes and, for each of its lines that came from the user, the origin."""
    chosen = [(position, index.placed[position]) for position in order]
    features = sorted(set().union(*(placed.future for _, placed in chosen)))
    lines = [HEADER.rstrip("\n")]
    lines += [f"from __future__ import {feature}" for feature in features]
    origins: dict[int, Origin] = {}
    previous = "from" if features else ""
    for position, placed in chosen:
        kind = placed.statement.kind
        lines += [""] * _gap(previous, kind)
        for offset, text in enumerate(placed.statement.text.split("\n")):
            lines.append(text)
            origins[len(lines)] = _origin(placed, offset, reasons[position])
        previous = kind
    return ("\n".join(lines) + "\n").encode(), origins


def _origin(placed: Placed, offset: int, why: str) -> Origin:
    lines = placed.statement.lines
    line = lines[min(offset, len(lines) - 1)]
    return Origin(placed.cell.where(line), line + placed.cell.first - 1, why)


def _gap(previous: str, kind: str) -> int:
    block = ("functiondef", "asyncfunctiondef", "classdef")
    if previous in block or kind in block:
        return 2
    return 0 if previous == kind or {previous, kind} <= {"import", "from"} else 1
