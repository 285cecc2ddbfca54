"""The def/use slice: from a step's function to every statement a fresh process must run before it.

A name read at once (a default value, a base class, a constant's expression) means the value it had at that point of the
execution; a name read inside a function means the value it has now. Both are followed to the statements that bound the name,
and to those that changed its object since. Nothing is dropped silently: what cannot be repeated becomes a finding.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import lru_cache

from roblox_ml._capture import _findings
from roblox_ml._capture._imports import ImportRef, imports_of
from roblox_ml._capture._index import END, Index
from roblox_ml._capture._judge import Judge
from roblox_ml._capture._scopes import dotted_name
from roblox_ml._capture._statements import Statement, hard_names
from roblox_ml._capture._types import Source


class Slicer:
    """One slice. `chosen` maps positions to the reason they are in, `reads_at` to what they read when they run."""

    def __init__(self, index: Index, source: Source, step: str) -> None:
        self.index = index
        self.judge = Judge(index, source, step)
        self.chosen: dict[int, str] = {}
        self.reads_at: dict[int, set[str]] = defaultdict(set)
        self.writes: dict[int, set[str]] = defaultdict(set)
        self.effects: list[int] = []
        self._needed: set[tuple[str, int, bool]] = set()
        self._taken: set[tuple[int, int]] = set()

    def run(self, entry: int) -> None:
        """Choose everything the statement at `entry` needs."""
        self.judge.judge_default(entry)
        self._include(entry, "the step itself", END)
        self._carry_effects()
        self.judge.report_globals(self.chosen)

    def _need(self, name: str, at: int, user: int, *, hard: bool) -> None:
        key = (name, at, hard)
        if key in self._needed or (name, at, True) in self._needed:
            return
        self._needed.add(key)
        if at != END:
            self.reads_at[at].add(name)
        positions = self.index.binders(name, at)
        if not positions:
            if hard:
                self.judge.missing(name, user, at)
            return
        last = self.index.placed[positions[-1]]
        if last.statement.kind == "delete":
            if hard or at != END:  # a statement that may read it would find another value in the slice
                where = self.judge.at(positions[-1])
                self.judge.add(_findings.deleted(name, self.judge.user_of(user), *where, last.statement.node))
            return
        changes = self._changes(name, min(positions), at)
        if at == END and hard:
            changes, agrees = self.judge.agrees(name, positions, changes, user)
            if not agrees:
                return
        for position in [*positions, *changes, *self.index.submodules(name, at)]:
            reason = f"`{name}` for {self.judge.user_of(user)}"
            if position in changes:
                reason = f"changes `{name}` for {self.judge.user_of(user)}"
                self.writes[position].add(name)
            if self.judge.judge(position, name, user, at, hard=hard):
                self._include(position, reason, at)

    def _include(self, position: int, why: str, at: int) -> None:
        self.chosen.setdefault(position, why)
        placed = self.index.placed[position]
        statement = placed.statement
        if (position, END) not in self._taken:
            self._taken.add((position, END))
            lazy = "annotations" in placed.future
            for name in sorted(hard_names(statement) if lazy else statement.now):
                self._need(name, position, position, hard=True)
            for name in sorted(statement.maybe):
                self._need(name, position, position, hard=False)
            for name in sorted(statement.later):
                self._need(name, END, position, hard=True)
            for name in sorted(statement.soft | (statement.now if lazy else frozenset())):
                self._need(name, END, position, hard=False)
        if (position, at) not in self._taken:  # a function called while a later statement runs sees that point's values
            self._taken.add((position, at))
            for name in sorted(statement.later):
                self._need(name, at, position, hard=False)
            for name in sorted(statement.now):  # functions may be reached through the values a statement holds
                for inner in self.index.binders(name, position):
                    if inner in self.chosen and self.index.placed[inner].statement.alias is None:
                        self._include(inner, why, at)

    def _changes(self, name: str, after: int, before: int) -> list[int]:
        """Statements that change the object of `name`, but for process-wide settings, which have a rule of their own."""
        found: dict[str, int] = {}
        module = self.index.alias(name, before) is not None
        for position in self.index.mutators(name, after, before):
            statement = self.index.placed[position].statement
            if position in self.index.effects or _is_search_path(statement.node):
                continue
            if module and before != END and statement.text == self.index.placed[before].statement.text:
                continue
            found[statement.text if module else str(position)] = position  # setting an option twice is setting it once
        return sorted(found.values())

    def _carry_effects(self) -> None:
        """Add known process-wide settings of modules the slice uses, until nothing is added."""
        last = {self.index.placed[position].statement.text: position for position in self.index.effects}
        waiting = sorted(last.values())
        changed = True
        while changed:
            changed = False
            used = self.imported()
            for position in [p for p in waiting if self._concerns(self.index.effects[p], used)]:
                waiting.remove(position)
                changed |= self._carry_effect(position, used)

    def _carry_effect(self, position: int, used: set[str]) -> bool:
        """Take one setting into the slice, or refuse it; True when that may have brought new imports."""
        placed = self.index.placed[position]
        path = self.index.effects[position]
        offence = self.index.offence(position)
        if position in self.chosen or offence is None:
            self.effects.append(position)
            new = position not in self.chosen
            self._include(position, f"sets `{path}`", END)
            return new
        if path != "os.environ" or "os" in used:
            step = self.judge.step
            self.judge.add(_findings.uncarried_effect(path, step, placed.cell, placed.statement.lines, offence))
        return False

    def _concerns(self, path: str, used: set[str]) -> bool:
        if path.startswith("os."):
            return bool(used - {"os", "roblox_ml"}) or "os" in used
        return path.partition(".")[0] in used

    def wanted_now(self) -> set[str]:
        """Names whose present value the step may read."""
        return {name for name, at, hard in self._needed if at == END and hard}

    def imported(self) -> set[str]:
        """Top-level names of the modules that chosen statements import, anywhere in them."""
        return {ref.top for position in self.chosen for ref in imports_in(self.index.placed[position].statement)}


@lru_cache(maxsize=8192)
def imports_in(statement: Statement) -> tuple[ImportRef, ...]:
    """The imports a statement makes, at once or later."""
    return tuple(imports_of([statement.node]))


def _is_search_path(node: ast.stmt) -> bool:
    """Changes of `sys.path` are not carried: the local modules they lead to are shipped instead."""
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [getattr(node, "target", None)]
    for target in targets:
        while isinstance(target, ast.Subscript):
            target = target.value
        if target is not None and dotted_name(target) == ("sys", "path"):
            return True
    return False
