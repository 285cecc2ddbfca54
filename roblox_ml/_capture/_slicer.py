"""The def/use slice: from a step's function to every statement a fresh process must run before it.

A name read at once (a default value, a base class, a constant's expression) means the value it had at that point of the
execution; a name read inside a function means the value it has now. Both are followed to the statements that bound the name,
and to those that changed its object since. Nothing is dropped silently: what cannot be repeated becomes a finding.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Mapping

from roblox_ml._capture import _findings, _live
from roblox_ml._capture._index import END, Index, Placed, is_main_guard
from roblox_ml._capture._policy import Names, Offence, effect_path, statement_offence
from roblox_ml._capture._scopes import dotted_name
from roblox_ml._capture._statements import Statement, hard_names
from roblox_ml._capture._tables import BUILTIN_NAMES, EFFECT_IMPORTS
from roblox_ml._capture._types import Cell, Source
from roblox_ml.errors import Finding

_KERNEL_NAMES = frozenset({"display", "get_ipython", "__IPYTHON__"})
_DYNAMIC = frozenset({"exec", "eval", "globals"})


class Slicer:
    """One slice. `chosen` maps positions to the reason they are in, `reads_at` to what they read when they run."""

    def __init__(self, index: Index, source: Source, step: str) -> None:
        self.index = index
        self.source = source
        self.step = f"step `{step}`"
        self.chosen: dict[int, str] = {}
        self.reads_at: dict[int, set[str]] = defaultdict(set)
        self.writes: dict[int, set[str]] = defaultdict(set)
        self.effects: list[int] = []
        self.findings: list[Finding] = []
        self._needed: set[tuple[str, int, bool]] = set()
        self._taken: set[tuple[int, int]] = set()
        self._judged: dict[tuple[int, str], bool] = {}
        self._globals: list[tuple[str, int, Placed]] = []

    def run(self, entry: int) -> None:
        """Choose everything the statement at `entry` needs."""
        self._include(entry, "the step itself", END)
        self._carry_effects()
        for name, _, user in self._globals:
            self._report_global(name, user)

    # names

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
                self._missing(name, at, user)
            return
        last = self.index.placed[positions[-1]]
        if last.statement.kind == "delete":
            if hard:
                where = self._at(positions[-1])
                self._add(_findings.deleted(name, self._user(user), *where, last.statement.node))
            return
        changes = self._changes(name, min(positions), at)
        if at == END and hard:
            changes, agrees = self._agrees(name, positions, changes, user)
            if not agrees:
                return
        for position in [*positions, *changes, *self.index.submodules(name, at)]:
            reason = f"`{name}` for {self._user(user)}"
            if position in changes:
                reason = f"changes `{name}` for {self._user(user)}"
                self.writes[position].add(name)
            if self._judge(position, name, user, at, hard=hard):
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

    def _missing(self, name: str, at: int, user: int) -> None:
        placed = self.index.placed[user]
        node = _findings.find_name(placed.statement.node, name)
        where = self._at(user)
        if name == "__file__":
            self._add(_findings.own_file(self._user(user), *where, node))
        elif name in _DYNAMIC:
            self._add(_findings.dynamic_code(name, self._user(user), *where, node))
        elif name in BUILTIN_NAMES:
            return
        elif name in _KERNEL_NAMES:
            self._add(_findings.kernel_only(name, self._user(user), *where, node))
        elif self.index.assigned_by_functions(name):
            self._globals.append((name, at, placed))
        elif (star := self._star_with(name)) is not None:
            origin = self.index.placed[star]
            uses = placed.cell.where(getattr(node, "lineno", placed.statement.lines[0]))
            module = origin.statement.alias.module if origin.statement.alias else ""
            self._add(
                _findings.star_import(name, self._user(user), *self._at(star), origin.statement.node, module, uses)
            )
        elif self.source.namespace is not None and name in self.source.namespace:
            value = self.source.namespace[name]
            kernel = "In" in self.source.namespace
            self._add(_findings.not_in_history(name, self._user(user), *where, node, value, kernel))
        elif at == END or not self.index.all_binders(name):
            broken = self.index.broken[-1].label if self.index.broken else None
            known = self.index.names | BUILTIN_NAMES
            self._add(_findings.undefined(name, self._user(user), *where, node, known, broken))

    def _star_with(self, name: str) -> int | None:
        """The star import that may have brought `name`: the one whose loaded module has it, or the only unknown one."""
        for position in reversed(self.index.stars):
            alias = self.index.placed[position].statement.alias
            module = sys.modules.get(alias.module) if alias else None
            if module is None or hasattr(module, name):
                return position
        return None

    def _report_global(self, name: str, user: Placed) -> None:
        positions = self.index.assigned_by_functions(name)
        if any(position in self.chosen for position in positions):
            return
        placed = self.index.placed[positions[-1]]
        function = next(iter(sorted(placed.statement.binds)), "?")
        where = (placed.cell, placed.statement.lines)
        self._add(_findings.assigned_in_function(name, self._label(user), *where, placed.statement.node, function))

    # judgement

    def _judge(self, position: int, name: str, user: int, at: int, *, hard: bool) -> bool:
        """Whether the statement may be repeated; a refusal is reported once for each name it binds."""
        known = self._judged.get((position, name))
        if known is not None and (known or not hard):
            return known
        placed = self.index.placed[position]
        statement = placed.statement
        finding: Finding | None = None
        offence = self._offence(placed, position)
        where = (placed.cell, statement.lines)
        label = self._user(user)
        if name in statement.fragile and name in statement.binds:
            earlier = [p for p in self.index.all_binders(name) if p < position]
            before = self._where(earlier[-1]) if earlier else None
            node = _binding_node(statement.node, name)
            finding = _findings.shadowed(name, label, *where, node, statement.fragile[name], before)
        elif offence is not None and name not in statement.binds:
            finding = _findings.uncarried_change(name, label, *where, offence)
        elif offence is not None:
            live, is_known = self._live_value(name, position, at)
            finding = _findings.offending(name, label, *where, offence, live, is_known)
        else:
            live, is_known = self._live_value(name, position, at)
            if is_known and statement.alias is None and _live.too_big(live):
                big = Offence("huge-value", statement.node, _live.describe(live))
                finding = _findings.offending(name, label, *where, big, live, is_known)
        self._judged[(position, name)] = finding is None
        if finding is not None and hard:
            self._add(finding)
        elif finding is not None:
            del self._judged[(position, name)]
        return finding is None

    def _offence(self, placed: Placed, position: int) -> Offence | None:
        statement = placed.statement
        if statement.awaits and statement.kind not in ("functiondef", "asyncfunctiondef", "classdef"):
            return Offence("top-level-await", statement.node, "`await` outside a function")
        if is_main_guard(statement.node):
            return Offence("main-guard", statement.node, 'a block under `if __name__ == "__main__"`')
        return statement_offence(statement.node, self._names(position), text=statement.text)

    def _names(self, position: int) -> Names:
        def class_of(name: str) -> ast.ClassDef | None:
            positions = self.index.binders(name, position)
            node = self.index.placed[positions[-1]].statement.node if positions else None
            return node if isinstance(node, ast.ClassDef) else None

        return Names(lambda parts: self.index.resolve(parts, position), class_of)

    def _live_value(self, name: str, position: int, at: int) -> tuple[object, bool]:
        namespace: Mapping[str, object] = self.source.namespace or {}
        current = self.index.binders(name, END)
        if position in current and name in namespace:
            return namespace[name], True
        return None, False

    def _changes(self, name: str, after: int, before: int) -> list[int]:
        """Statements that change the object of `name`, but for process-wide settings, which have a rule of their own."""
        found: dict[str, int] = {}
        module = self.index.alias(name, before) is not None
        for position in self.index.mutators(name, after, before):
            statement = self.index.placed[position].statement
            if effect_path(statement, self._names(position)) is not None or _is_search_path(statement.node):
                continue
            found[statement.text if module else str(position)] = position  # setting an option twice is setting it once
        return sorted(found.values())

    def _agrees(self, name: str, positions: list[int], changes: list[int], user: int) -> tuple[list[int], bool]:
        """The changes to carry, and whether the live value of `name` is what the source makes, as far as can be told cheaply."""
        namespace = self.source.namespace
        if namespace is None or len(positions) != 1:
            return changes, True
        position = positions[0]
        placed = self.index.placed[position]
        statement = placed.statement
        where = (placed.cell, statement.lines)
        if name in statement.fragile or self._offence(placed, position) is not None:
            return changes, True
        if name not in namespace:
            if self.source.is_file or self.index.assigned_by_functions(name):
                return changes, True
            self._add(_findings.vanished(name, self._user(user), *where, statement.node))
            return changes, False
        value = namespace[name]
        verdict = _live.verify(statement, name, value, placed.future)
        if statement.kind in ("assign", "annassign"):
            good = [p for p in changes if self._offence(self.index.placed[p], p) is None]
            chain = [statement, *(self.index.placed[p].statement for p in good)]
            verdict = _live.verify_literal(chain, name, value)
            if verdict == "same":
                return good, True  # what the others did left no trace
            if len(good) < len(changes):
                return changes, True  # they are refused by name
            call = getattr(statement.node, "value", None)
            if verdict == "unknown" and not changes and isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                node = self._names(position).class_of(call.func.id)
                verdict = _live.verify_record(statement, node, value)
        if verdict == "different" and not self._file_function(statement):
            earlier = [self._where(p) for p in self.index.all_binders(name) if p < position]
            others = f" (also bound in {', '.join(dict.fromkeys(earlier))})" if earlier else ""
            self._add(_findings.changed(name, self._user(user), *where, statement.node, value, others))
            return changes, False
        return changes, True

    def _file_function(self, statement: Statement) -> bool:
        """Functions of files are not compared: test runners and tracers rewrite their bytecode."""
        return self.source.is_file and statement.kind in ("functiondef", "asyncfunctiondef", "classdef")

    # effects

    def _carry_effects(self) -> None:
        """Add known process-wide settings of modules the slice uses, until nothing is added."""
        found: dict[str, int] = {}
        for position, placed in enumerate(self.index.placed):
            path = effect_path(placed.statement, self._names(position))
            alias = placed.statement.alias
            if path is None and alias is not None and alias.target.startswith(EFFECT_IMPORTS):
                path = alias.target
            if path is not None:
                found[placed.statement.text] = position
        waiting = sorted(found.values())
        changed = True
        while changed:
            changed = False
            used = self.imported()
            for position in list(waiting):
                placed = self.index.placed[position]
                alias = placed.statement.alias
                path = alias.target if alias else effect_path(placed.statement, self._names(position)) or ""
                if not self._concerns(path, used):
                    continue
                waiting.remove(position)
                if position in self.chosen:
                    self.effects.append(position)
                    continue
                offence = self._offence(placed, position)
                if offence is None:
                    self.effects.append(position)
                    self._include(position, f"sets `{path}`", END)
                    changed = True
                elif path != "os.environ" or "os" in used:
                    label = self.step
                    self._add(_findings.uncarried_effect(path, label, placed.cell, placed.statement.lines, offence))

    def _concerns(self, path: str, used: set[str]) -> bool:
        if path.startswith("os."):
            return bool(used - {"os", "roblox_ml"}) or "os" in used
        return path.partition(".")[0] in used

    def imported(self) -> set[str]:
        """Top-level names of the modules that chosen statements import, anywhere in them."""
        found: set[str] = set()
        for position in self.chosen:
            statement = self.index.placed[position].statement
            if statement.alias is not None:
                found.add(statement.alias.module.partition(".")[0])
                continue
            for node in ast.walk(statement.node):
                if isinstance(node, ast.Import):
                    found |= {item.name.partition(".")[0] for item in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
        return found

    # words

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def _at(self, position: int) -> tuple[Cell, tuple[int, ...]]:
        placed = self.index.placed[position]
        return placed.cell, placed.statement.lines

    def _where(self, position: int) -> str:
        placed = self.index.placed[position]
        return placed.cell.where(placed.statement.lines[0])

    def _user(self, position: int) -> str:
        return self._label(self.index.placed[position])

    def _label(self, placed: Placed) -> str:
        names = sorted(placed.statement.binds)
        if names and f"step `{names[0]}`" == self.step:
            return self.step
        place = placed.cell.where(placed.statement.lines[0])
        return f"`{names[0]}` ({place})" if names else place


def _binding_node(tree: ast.AST, name: str) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return node
        if isinstance(node, ast.ExceptHandler) and node.name == name:
            return node
    return tree


def _is_search_path(node: ast.stmt) -> bool:
    """Changes of `sys.path` are not carried: the local modules they lead to are shipped instead."""
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [getattr(node, "target", None)]
    for target in targets:
        while isinstance(target, ast.Subscript):
            target = target.value
        if target is not None and dotted_name(target) == ("sys", "path"):
            return True
    return False
