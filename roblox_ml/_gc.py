"""Mark and sweep over what this home keeps: pure functions over nodes and references.

Deleting too little costs a disk; deleting too much costs a model. So whatever a kept thing refers to stays, recent things
are kept as if somebody still needed them, and where the references cannot be read in full nothing behind them is swept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Node", "Plan", "mark", "mentions", "plan", "seconds_of"]

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_WORD = re.compile(r"""[^\s/"',:{}\[\]()\\]+""")
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Node:
    """One thing that can be kept or deleted: a run, an environment, a blob, an unpacked copy.

    `refers` are keys of other nodes (unknown keys are allowed and mean nothing); `used` is when it was last used, in
    seconds since the epoch; `pinned` nodes are roots: they stay, with all they refer to.
    """

    key: str
    kind: str
    size: int = 0
    used: float = 0.0
    refers: frozenset[str] = field(default_factory=frozenset)
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What stays and what goes; `why` explains kinds that were left alone altogether."""

    delete: tuple[Node, ...]
    keep: tuple[Node, ...]
    why: Mapping[str, str] = field(default_factory=dict)


def mark(nodes: Mapping[str, Node], roots: Iterable[str]) -> frozenset[str]:
    """Keys of every node that can be reached from the roots."""
    reached: set[str] = set()
    pending = [key for key in roots if key in nodes]
    while pending:
        key = pending.pop()
        if key not in reached:
            reached.add(key)
            pending += [other for other in nodes[key].refers if other in nodes and other not in reached]
    return frozenset(reached)


def plan(
    nodes: Iterable[Node],
    *,
    now: float,
    older_than: float,
    keep_runs: int,
    untouchable: Mapping[str, str] | None = None,
) -> Plan:
    """Decide. Roots are pinned nodes, everything used within `older_than` seconds, and the newest `keep_runs` runs.

    `untouchable` names kinds that must not be swept now, with the reason (the registry does not answer: it may refer to
    any blob).
    """
    known = {node.key: node for node in nodes}
    closed = untouchable or {}
    runs = sorted((node for node in known.values() if node.kind == "run"), key=lambda node: (-node.used, node.key))
    roots = {node.key for node in runs[: max(keep_runs, 0)]}
    roots |= {node.key for node in known.values() if node.pinned or node.kind in closed or now - node.used < older_than}
    reached = mark(known, roots)
    delete = tuple(known[key] for key in sorted(known) if key not in reached)
    return Plan(delete, tuple(known[key] for key in sorted(reached)), dict(closed))


def mentions(text: str, names: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Keys of nodes that a text mentions: digests anywhere, and names (run ids) as words or parts of a path.

    `names` maps a digest or a run id to the keys of the nodes of that name (a digest can name a blob and an
    environment). A digest that stands in the text by chance keeps one thing too many; none is kept too few.
    """
    words = {*_DIGEST.findall(text), *_WORD.findall(text)}
    return frozenset().union(*(names[word] for word in words & names.keys()))


def seconds_of(span: str | float) -> float:
    """`"7d"`, `"12h"`, `"30m"` or plain seconds, as seconds."""
    if isinstance(span, int | float):
        return float(span)
    match = _SPAN.fullmatch(span)
    if match is None:
        raise ValueError(f"{span!r} is no time span: write a number and s, m, h, d or w, for example '7d'")
    return float(match[1]) * _SECONDS[match[2]]
