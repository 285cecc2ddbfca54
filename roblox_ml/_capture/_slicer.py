"""The def/use slice: from a step's function to every statement a fresh process must run before it.

A name read at once (a default value, a base class, a constant's expression) means the value it had at that point of the
execution; a name read inside a function means the value it has now. Both are followed to the statements that bound the name,
and to those that changed its object since. Nothing is dropped silently: what cannot be repeated becomes a finding.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from functools import lru_cache

from roblox_ml._capture import _findings, _findings_outside
from roblox_ml._capture._effects import concerns, is_seed
from roblox_ml._capture._imports import ImportRef, imports_of
from roblox_ml._capture._index import END, Index
from roblox_ml._capture._judge import Judge
from roblox_ml._capture._local_state import module_differences
from roblox_ml._capture._marks import GENERATORS, Touch
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
        self._needed: set[tuple[str, int, bool, bool]] = set()
        self._taken: set[tuple[int, int]] = set()

    def run(self, entry: int) -> None:
        """Choose everything the statement at `entry` needs."""
        self.judge.judge_default(entry)
        self._include(entry, "the step itself", END)
        self._carry_effects()
        self.judge.report_globals(self.chosen)

    def _need(self, name: str, at: int, user: int, *, hard: bool, runs: bool = False) -> None:
        """Choose what makes `name`. `hard`: it must exist; `runs`: who may read it runs here, and would miss a value left out."""
        key = (name, at, hard, hard or runs)
        if key in self._needed or (name, at, True, True) in self._needed:
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
            if self.judge.judge(position, name, user, at, hard=hard or runs):
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
                self._need(name, position, position, hard=False, runs=True)
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
        """Statements that change the object of `name`. State of modules and of the process has a rule of its own."""
        return self.index.mutators(name, after, before)

    def _carry_effects(self) -> None:
        """Add settings, random draws and changed module attributes that the slice can feel, until nothing is added."""
        done: set[int] = set()
        changed = bool(self.index.touches)
        while changed:
            changed = False
            used = self.imported()
            start = self._draws_from()
            for position in self._lasting():
                if position in done:
                    continue
                felt = [
                    t for t in self.index.touches[position] if concerns(t, used) and position >= start.get(t.group, 0)
                ]
                if felt:
                    done.add(position)
                    changed |= self._carry_effect(position, felt[0])

    def _lasting(self) -> list[int]:
        """Touching statements in order; of a setting made several times in the same words, only the last."""
        found: dict[str, int] = {}
        for position, touches in sorted(self.index.touches.items()):
            statement = self.index.placed[position].statement
            again = all(
                t.kind == "set" or (t.kind == "store" and isinstance(statement.node, ast.Assign)) for t in touches
            )
            key = statement.text if again and not statement.binds else str(position)
            if key in found and self._matters_twice(statement, touches, found[key], position):
                found[f"{key} {found[key]}"] = found[key]
            found[key] = position
        return sorted(found.values())

    def _matters_twice(self, statement: Statement, touches: tuple[Touch, ...], first: int, last: int) -> bool:
        """Whether the first of two runs of one setting was felt: something read by it, drawn or removed came between."""
        if any(first < p < last for name in statement.now for p in self.index.all_binders(name)):
            return True
        tops = {touch.top for touch in touches}
        for position in self.chosen:  # an import between the two took what the first had put there
            alias = self.index.placed[position].statement.alias
            if (
                first < position < last
                and alias is not None
                and alias.name is not None
                and alias.target.partition(".")[0] in tops
            ):
                return True
        groups = {touch.group for touch in touches}
        between = [
            (p, t) for p, found in self.index.touches.items() if first < p < last for t in found if t.group in groups
        ]
        return any(t.kind == "draw" or isinstance(self.index.placed[p].statement.node, ast.Delete) for p, t in between)

    def _draws_from(self) -> dict[str, int]:
        """For each shared generator, where its history begins to matter: the last seed before the first draw in the slice."""
        result: dict[str, int] = {}
        for generator in GENERATORS:
            touched = [(p, t) for p, found in self.index.touches.items() for t in found if t.group == generator]
            seeds = sorted(p for p, t in touched if is_seed(t))
            drawn = min((p for p, t in touched if p in self.chosen and t.kind == "draw"), default=END)
            before = [p for p in seeds if p < drawn]
            # Without any seed the generator is different in every process anyway.
            result[generator] = before[-1] if before else END
        return result

    def _carry_effect(self, position: int, touch: Touch) -> bool:
        """Take one touch into the slice, or refuse it; True when that may have brought new imports."""
        placed = self.index.placed[position]
        offence = self.index.offence(position)
        if position in self.chosen or offence is None:
            self.effects.append(position)
            new = position not in self.chosen
            words = {"set": "sets", "draw": "draws random numbers:", "store": "changes"}[touch.kind]
            self._include(position, f"{words} `{touch.path}`", END)
            return new
        module, _, name = touch.path.rpartition(".")
        if touch.call and module in sys.modules:
            later = [
                p
                for p, found in self.index.touches.items()
                if p > position and any(t.path == touch.path for t in found)
            ]
            if any(isinstance(self.index.placed[p].statement.node, ast.Assign) for p in later):
                return False  # the module's attribute was set anew since
            if name not in module_differences(sys.modules[module], ()):
                return False  # it left no trace that can be seen
        self.judge.add(
            _findings_outside.uncarried_effect(touch, self.judge.step, placed.cell, placed.statement.lines, offence)
        )
        return False

    def wanted_now(self) -> set[str]:
        """Names whose present value the step may read."""
        return {name for name, at, hard, _ in self._needed if at == END and hard}

    def imported(self) -> set[str]:
        """Top-level names of the modules that chosen statements import, anywhere in them."""
        return {ref.top for position in self.chosen for ref in imports_in(self.index.placed[position].statement)}


@lru_cache(maxsize=8192)
def imports_in(statement: Statement) -> tuple[ImportRef, ...]:
    """The imports a statement makes, at once or later."""
    return tuple(imports_of([statement.node]))
