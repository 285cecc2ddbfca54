"""Statements in execution order, and who binds, changes and resolves a name at any point of that order.

A cell that is run again unchanged adds nothing: its statements fold into their first execution when nothing they read
and nothing they bind changed in between. So a re-run notebook and a freshly started one give the same slice.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from roblox_ml._capture._binding import callee
from roblox_ml._capture._calls import Calls
from roblox_ml._capture._effects import is_seed, touch_of
from roblox_ml._capture._local_state import changed_by_call
from roblox_ml._capture._marks import Touch
from roblox_ml._capture._policy import Names, Offence, statement_offence
from roblox_ml._capture._scopes import dotted_name
from roblox_ml._capture._statements import (
    Alias,
    Statement,
    future_features,
    parse,
    with_decorators,
)
from roblox_ml._capture._tables import EFFECT_CHAINS, EFFECT_IMPORTS
from roblox_ml._capture._types import Cell
from roblox_ml._capture._variants import interrupted, is_main_guard, mentions, rebinds_alike, star_names

END = 1 << 60
"""The point after the last executed statement: what the kernel holds now."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A statement and the cell it ran in. `stopped`: the exception with which it ended half-way."""

    statement: Statement
    cell: Cell
    future: frozenset[str]
    stopped: str = ""


class Index:
    """Read-only lookup over the executed statements. Positions are indices into `placed`."""

    def __init__(self, cells: tuple[Cell, ...], package: str, module: str) -> None:
        self.placed: list[Placed] = []
        self.stars: list[int] = []
        self.broken: list[Cell] = []
        self.calls = Calls()
        self.touches: dict[int, tuple[Touch, ...]] = {}
        self._binders: dict[str, list[int]] = defaultdict(list)
        self._mutators: dict[str, list[int]] = defaultdict(list)
        self._aliases: list[tuple[int, str, str]] = []
        self._changes: dict[tuple[str, int, int], list[int]] = {}
        self._offences: dict[int, Offence | None] = {}
        future: frozenset[str] = frozenset()
        parsed = [(cell, parse(cell.text, package)) for cell in cells]
        mentioned = frozenset(
            n for _, statements in parsed for s in statements if s.kind != "from" for n in mentions(s)
        )
        for cell, statements in parsed:
            if not statements and cell.text.strip():
                self.broken.append(cell)
            future |= future_features(statements)
            for statement in statements:
                if module == "__main__" or not is_main_guard(statement.node):
                    stopped = cell.reached(statement.lines)
                    if stopped is None:
                        break
                    part = interrupted(statement) if stopped else statement
                    for single in star_names(part, mentioned) if part is not None and part.kind == "star" else [part]:
                        if single is not None:
                            self._place(single, cell, future, stopped)

    def _place(self, statement: Statement, cell: Cell, future: frozenset[str], stopped: str) -> None:
        step = False
        if statement.bare is not None:
            step = any(self.resolve(root, END) == "roblox_ml.step" for root in statement.step_roots)
            statement = statement.bare if step else with_decorators(statement)
        position = len(self.placed)
        touches = tuple(self._touches_of(statement, position))
        changes = self.calls.changes(statement)
        if not touches and not changes and self._repeats(statement, future):
            return
        self.placed.append(Placed(statement, cell, future, stopped))
        if touches:
            self.touches[position] = touches
        if not self._is_pipeline(statement):
            self.calls.add(statement, step=step)
        if statement.kind == "star":
            self.stars.append(position)
        for name in statement.binds:
            self._binders[name].append(position)
        for name in sorted(statement.mutates | statement.registers | changes):
            if name not in statement.binds:
                self._mutators[name].append(position)
        for name in statement.augments - statement.mutates:
            self._mutators[name].append(position)
        for bound, read in statement.aliases:
            receiver = bound not in statement.binds
            if not self._is_constant(read, position) and not (receiver and self._is_constant(bound, position)):
                self._aliases.append((position, bound, read))

    def _is_pipeline(self, statement: Statement) -> bool:
        """A pipeline's body draws a graph: calling it, or running it, runs no code of the notebook in this kernel."""
        found = (dotted_name(callee(decorator)) for decorator in getattr(statement.node, "decorator_list", ()))
        return any(path is not None and self.resolve(path, END) == "roblox_ml.pipeline" for path in found)

    def _touches_of(self, statement: Statement, position: int) -> Iterator[Touch]:
        """State outside the notebook's names that running `statement` sets, draws from or changes."""
        if statement.alias is not None:
            if statement.alias.target.startswith(EFFECT_IMPORTS):
                yield Touch(statement.alias.target, "set")
            return
        found = {(mark, "") for mark in statement.marks} | set(self.calls.marks(statement))
        for mark, function in sorted(found, key=repr):
            path = ".".join(mark.path) if mark.absolute else self.resolve(mark.path, position)
            if not path:
                if mark.how == "store" and (shared := self._process_object(mark.path[0], position)):
                    yield Touch(shared, "store", function)
                continue
            touch = touch_of(mark.how, path, function)
            if touch is not None:
                yield touch
            elif mark.how == "call":
                yield from (Touch(changed, "store", function, path) for changed in changed_by_call(path))

    def _process_object(self, name: str, position: int) -> str | None:
        """The call that gave `name` an object all code shares: `log = logging.getLogger("x")` finds the same one each time."""
        positions = self._binders.get(name, [])
        node = self.placed[positions[-1]].statement.node if positions else None
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        parts = dotted_name(value.func) if isinstance(value, ast.Call) else None
        path = self.resolve(parts, position) if parts else None
        return path if path in EFFECT_CHAINS else None

    def _repeats(self, statement: Statement, future: frozenset[str]) -> bool:
        """Whether `statement` binds anew exactly what it bound before."""
        if not statement.binds or (statement.mutates | statement.registers) - statement.binds:
            return False
        last = {self._binders[name][-1] if self._binders.get(name) else -1 for name in statement.binds}
        position = last.pop()
        if last or position < 0:
            return False
        earlier = self.placed[position]
        if earlier.statement.text != statement.text or earlier.future != future or earlier.stopped:
            return False
        reads = statement.now | statement.maybe
        for name in reads:
            binders = self._binders.get(name, [])
            if (binders and binders[-1] >= position) or any(p > position for p in self._mutators.get(name, [])):
                return False
        for name in statement.binds:
            if any(p > position for p in self._mutators.get(name, [])):
                return False
        if self._outside_changed(statement, reads, position):
            return False
        if rebinds_alike(statement):
            return True
        touched = any(statement.binds & placed.statement.now for placed in self.placed[position + 1 :])
        return not touched and not self.calls.changed_by_any(statement.binds)

    def _outside_changed(self, statement: Statement, reads: Iterable[str], after: int) -> bool:
        """Whether a module that `statement` reads from was changed since: running it again takes the new attribute."""
        recent = {touch.top for p, touches in self.touches.items() if p > after for touch in touches}
        if not recent:
            return False
        if statement.alias is not None:
            return statement.alias.name is not None and statement.alias.module.partition(".")[0] in recent
        found = (self.alias(name, END) for name in reads)
        return any(alias.target.partition(".")[0] in recent for alias in found if alias is not None)

    @property
    def names(self) -> set[str]:
        return {name for name, positions in self._binders.items() if positions}

    def binders(self, name: str, at: int) -> list[int]:
        """Positions that may have given `name` its value as seen just before `at`: the last certain one and what follows."""
        positions = self._binders.get(name, [])
        found: list[int] = []
        for position in reversed(positions[: bisect_left(positions, at)]):
            statement = self.placed[position].statement
            if statement.kind == "delete" and found:  # before this, there was no such name
                break
            found.append(position)
            if name in statement.certain:
                break
        return found[::-1]

    def all_binders(self, name: str) -> list[int]:
        return self._binders.get(name, [])

    def mutators(self, name: str, after: int, before: int) -> list[int]:
        """Positions between two points that change the object `name` stands for, under this name or another."""
        key = (name, after, before)
        if key not in self._changes:
            found = sorted(self._mutators_of(name, after, before, before, set()))
            if self.alias(name, before) is not None:  # what is changed in modules is state of its own kind: `touches`
                found = []
            self._changes[key] = found
        return self._changes[key]

    def _mutators_of(self, name: str, after: int, end: int, before: int, seen: set[tuple[str, int]]) -> set[int]:
        """Changes of the object bound to `name` at `after`, made under that name until `end`, under others until `before`."""
        if (name, after) in seen:
            return set()
        seen.add((name, after))
        found = {position for position in self._mutators.get(name, []) if after < position < end}
        for position, bound, read in self._aliases:
            if position > end or position < after:
                continue
            if read == name and position > after:  # also by the statement that binds `name` anew, which reads it first
                other, start = bound, position
            elif bound == name and position < end:
                other, start = read, self._bound_at(read, position)
            else:
                continue
            stop = min(before, self._bound_at(other, position, following=True))
            found |= {p for p in self._mutators_of(other, start, stop, before, seen) if p > position}
        return found

    def _bound_at(self, name: str, position: int, *, following: bool = False) -> int:
        """Where `name` was bound last before `position`, or is bound next after it."""
        positions = [p for p in self._binders.get(name, []) if name not in self.placed[p].statement.augments]
        if following:
            return next((p for p in positions if p > position), END)
        return next((p for p in reversed(positions) if p < position), -1)

    def _is_constant(self, name: str, before: int) -> bool:
        """Whether `name` stands for something no alias can change: an import, a definition, a number, a string."""
        positions = self._binders.get(name, [])
        chosen = bisect_left(positions, before)
        if not chosen:
            return name not in self._binders
        statement = self.placed[positions[chosen - 1]].statement
        if statement.alias is not None or (statement.kind in ("functiondef", "classdef") and not statement.aliases):
            return True
        value = getattr(statement.node, "value", None)
        return statement.kind in ("assign", "annassign") and isinstance(
            value, ast.Constant | ast.JoinedStr | ast.Lambda
        )

    def assigned_by_functions(self, name: str) -> list[int]:
        """Positions of functions that assign `name` through `global`."""
        return [p for p, placed in enumerate(self.placed) if name in placed.statement.assigned_later]

    def seeded(self, position: int) -> frozenset[str]:
        """The shared generators that were seeded before `position`: what they draw from then on is repeatable."""
        return frozenset(t.group for p, found in self.touches.items() if p < position for t in found if is_seed(t))

    def alias(self, name: str, at: int) -> Alias | None:
        """The import that gave `name` its value before `at`, also inside `try`/`if`."""
        positions = self._binders.get(name, [])
        chosen = bisect_left(positions, at)
        if not chosen:
            return None
        statement = self.placed[positions[chosen - 1]].statement
        if statement.alias is not None:
            return statement.alias
        if isinstance(statement.node, ast.Try | ast.If | ast.With):
            for node in ast.walk(statement.node):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for item in node.names:
                        bound = item.asname or item.name.partition(".")[0]
                        if bound == name:
                            if isinstance(node, ast.ImportFrom):
                                return Alias(node.module or "", item.name, bound, False)
                            return Alias(item.name, None, bound, item.asname is None)
        return None

    def resolve(self, parts: tuple[str, ...], at: int) -> str | None:
        """`numpy.random.seed` for `("np", "random", "seed")` when `np` was imported; None for anything else."""
        alias = self.alias(parts[0], at)
        return None if alias is None else ".".join([alias.target, *parts[1:]])

    def names_at(self, position: int) -> Names:
        """How names resolve just before a statement runs."""

        def bound_by(name: str) -> ast.stmt | None:
            positions = self.binders(name, position)
            return self.placed[positions[-1]].statement.node if positions else None

        return Names(lambda parts: self.resolve(parts, position), bound_by, self.seeded(position))

    def offence(self, position: int) -> Offence | None:
        """Why the statement at `position` cannot be repeated in a step, None when it can."""
        if position not in self._offences:
            self._offences[position] = self._offence(self.placed[position].statement, position)
        return self._offences[position]

    def _offence(self, statement: Statement, position: int) -> Offence | None:
        if stopped := self.placed[position].stopped:
            return Offence("interrupted", statement.node, f"a statement that stopped half-way with {stopped}")
        if statement.awaits and statement.kind not in ("functiondef", "asyncfunctiondef", "classdef"):
            return Offence("top-level-await", statement.node, "`await` outside a function")
        if is_main_guard(statement.node):
            return Offence("main-guard", statement.node, 'a block under `if __name__ == "__main__"`')
        return statement_offence(statement.node, self.names_at(position), text=statement.text)

    def submodules(self, name: str, at: int) -> list[int]:
        """The other `import a.b` statements that filled the same package `a` before `at`."""
        alias = self.alias(name, at)
        if alias is None or alias.name is not None:
            return []
        found: list[int] = []
        top = alias.target.partition(".")[0]
        for position in self._binders.get(top, []):
            other = self.placed[position].statement.alias
            if position < at and other is not None and other.as_written and "." in other.module:
                found.append(position)
        return found


@lru_cache(maxsize=16)
def index_of(cells: tuple[Cell, ...], package: str, module: str) -> Index:
    """The index of `cells`; twenty steps of one notebook share it."""
    return Index(cells, package, module)
