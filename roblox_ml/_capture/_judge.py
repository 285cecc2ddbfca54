"""May a statement be repeated in a step, and is its value what the kernel holds? Every "no" becomes a finding."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence

from roblox_ml._capture import _findings, _live
from roblox_ml._capture._handout import keeps_nothing
from roblox_ml._capture._index import END, Index, Placed
from roblox_ml._capture._policy import Offence
from roblox_ml._capture._rebuild import differences, rebuild, verify_literal
from roblox_ml._capture._statements import Statement
from roblox_ml._capture._tables import BUILTIN_NAMES
from roblox_ml._capture._types import Cell, Source
from roblox_ml.errors import Finding

_KERNEL_NAMES = frozenset({"display", "get_ipython", "__IPYTHON__"})
_DYNAMIC = frozenset({"exec", "eval", "globals"})


class Judge:
    """Judges the statements of one step's slice; `findings` holds all refusals, each once."""

    def __init__(self, index: Index, source: Source, step: str) -> None:
        self.index = index
        self.source = source
        self.step = f"step `{step}`"
        self.findings: list[Finding] = []
        self._judged: dict[tuple[int, str], bool] = {}
        self._globals: list[tuple[str, Placed]] = []

    def judge(self, position: int, name: str, user: int, at: int, *, hard: bool) -> bool:
        """Whether the statement may be repeated; a refusal is reported once for each name it binds."""
        known = self._judged.get((position, name))
        if known is not None and (known or not hard):
            return known
        placed = self.index.placed[position]
        statement = placed.statement
        finding: Finding | None = None
        offence = self.index.offence(position)
        where = (placed.cell, statement.lines)
        label = self.user_of(user)
        if name in statement.fragile and name in statement.binds:
            earlier = [p for p in self.index.all_binders(name) if p < position]
            before = self._where(earlier[-1]) if earlier else None
            node = _binding_node(statement.node, name)
            finding = _findings.shadowed(name, label, *where, node, statement.fragile[name], before)
        elif offence is not None and statement.kind in ("functiondef", "asyncfunctiondef"):
            finding = _findings.computed_default(name, *where, offence)
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
            self.add(finding)
        elif finding is not None:
            del self._judged[(position, name)]
        return finding is None

    def judge_default(self, entry: int) -> None:
        """The step's own definition: its default values run again in the step."""
        offence = self.index.offence(entry)
        if offence is not None:
            name = self.step.removeprefix("step ").strip("`")
            self.add(_findings.computed_default(name, *self.at(entry), offence))

    def _live_value(self, name: str, position: int, at: int) -> tuple[object, bool]:
        namespace: Mapping[str, object] = self.source.namespace or {}
        current = self.index.binders(name, END)
        if position in current and name in namespace:
            return namespace[name], True
        return None, False

    def _names_it(self, position: int, name: str) -> bool:
        """Whether the statement itself sets something on `name`, or calls a method of it."""
        statement = self.index.placed[position].statement
        return name in statement.stores or any(owner == name for owner, _ in statement.methods_called)

    def agrees(self, name: str, positions: list[int], changes: list[int], user: int) -> tuple[list[int], bool]:
        """The changes to carry, and whether the live value of `name` is what the source makes, as far as can be told cheaply."""
        namespace = self.source.namespace
        if namespace is None or len(positions) != 1:
            return changes, True
        position = positions[0]
        placed = self.index.placed[position]
        statement = placed.statement
        where = (placed.cell, statement.lines)
        if name in statement.fragile or self.index.offence(position) is not None:
            return changes, True
        if name not in namespace:
            if self.source.is_file or self.index.assigned_by_functions(name):
                return changes, True
            self.add(_findings.vanished(name, self.user_of(user), *where, statement.node))
            return changes, False
        value = namespace[name]
        verdict = _live.verify(statement, name, value, placed.future)
        if changes and verdict != "different" and isinstance(statement.node, ast.FunctionDef | ast.ClassDef):
            doubted = [p for p in changes if self.index.offence(p) is not None and not self._names_it(p, name)]
            if doubted and keeps_nothing(value, statement.node):
                # Only what its calls returned was changed there, and it keeps none of that.
                changes = [p for p in changes if p not in doubted]
        if not changes and verdict != "different":
            verdict = _live.verify_state(statement, value)
        if statement.kind in ("assign", "annassign"):
            own = [p for p in changes if name in self.index.placed[p].statement.mutates]
            chain = [statement, *(self.index.placed[p].statement for p in own)]
            if verify_literal(chain, name, value) == "same":
                return own, True  # what was done under other names left no trace
            good = [p for p in changes if self.index.offence(p) is None]
            chain = [statement, *(self.index.placed[p].statement for p in good)]
            verdict = verify_literal(chain, name, value)
            if verdict == "same":
                return good, True  # what the others did left no trace
            if len(good) < len(changes):
                return changes, True  # they are refused by name
            call = getattr(statement.node, "value", None)
            if verdict == "unknown" and isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                node = self.index.names_at(position).class_of(call.func.id)
                verdict = _live.verify_record(statement, chain[1:], node, value)
        if verdict == "different" and not self._file_function(statement):
            earlier = [self._where(p) for p in self.index.all_binders(name) if p < position]
            others = f" (also bound in {', '.join(dict.fromkeys(earlier))})" if earlier else ""
            self.add(_findings.changed(name, self.user_of(user), *where, statement.node, value, others))
            return changes, False
        return changes, True

    def compare(self, order: Sequence[int], writes: Mapping[int, set[str]], wanted: set[str]) -> None:
        """Compare the plain values of `wanted` names with the live ones: changes made under another name show here."""
        namespace = self.source.namespace
        if namespace is None or self.findings:
            return
        statements = [self.index.placed[position].statement for position in order]
        changes = (s.mutates | writes.get(p, set()) for p, s in zip(order, statements, strict=True))
        scope, _ = rebuild(zip(statements, changes, strict=True))
        for name in differences(scope, namespace):
            positions = [p for p in self.index.binders(name, END) if p in order]
            if name in wanted and positions and positions == self.index.binders(name, END):
                placed = self.index.placed[positions[-1]]
                where = (placed.cell, placed.statement.lines)
                self.add(_findings.changed(name, self.step, *where, placed.statement.node, namespace[name], ""))

    def _file_function(self, statement: Statement) -> bool:
        """Functions of files are not compared: test runners and tracers rewrite their bytecode."""
        return self.source.is_file and statement.kind in ("functiondef", "asyncfunctiondef", "classdef")

    def missing(self, name: str, user: int, at: int) -> None:
        """A name no statement binds: a builtin, or a finding that says where it might have come from."""
        if name in BUILTIN_NAMES and name not in _DYNAMIC:
            return
        placed = self.index.placed[user]
        node = _findings.find_name(placed.statement.node, name)
        where = self.at(user)
        if name == "__file__":
            self.add(_findings.own_file(self.user_of(user), *where, node))
        elif name in _DYNAMIC:
            self.add(_findings.dynamic_code(name, self.user_of(user), *where, node))
        elif name in _KERNEL_NAMES:
            self.add(_findings.kernel_only(name, self.user_of(user), *where, node))
        elif self.index.assigned_by_functions(name):
            self._globals.append((name, placed))
        elif (star := self._star_with(name)) is not None:
            origin = self.index.placed[star]
            uses = placed.cell.where(getattr(node, "lineno", placed.statement.lines[0]))
            module = origin.statement.alias.module if origin.statement.alias else ""
            self.add(
                _findings.star_import(name, self.user_of(user), *self.at(star), origin.statement.node, module, uses)
            )
        elif self.source.namespace is not None and name in self.source.namespace and not self.index.all_binders(name):
            value = self.source.namespace[name]
            kernel = "In" in self.source.namespace
            self.add(_findings.not_in_history(name, self.user_of(user), *where, node, value, kernel))
        elif at == END or not self.index.all_binders(name):  # else: bound later, so this part never ran
            broken = self.index.broken[-1].label if self.index.broken else None
            known = self.index.names | BUILTIN_NAMES
            self.add(_findings.undefined(name, self.user_of(user), *where, node, known, broken))

    def _star_with(self, name: str) -> int | None:
        """The star import that may have brought `name`: the one whose loaded module has it, or the only unknown one."""
        for position in reversed(self.index.stars):
            alias = self.index.placed[position].statement.alias
            module = sys.modules.get(alias.module) if alias else None
            if module is None or hasattr(module, name):
                return position
        return None

    def report_globals(self, chosen: Mapping[int, str]) -> None:
        """Names that only functions assign are fine when such a function is in the slice, and refused otherwise."""
        for name, user in self._globals:
            positions = self.index.assigned_by_functions(name)
            if not any(position in chosen for position in positions):
                self._report_global(name, user, positions)

    def _report_global(self, name: str, user: Placed, positions: list[int]) -> None:
        placed = self.index.placed[positions[-1]]
        function = next(iter(sorted(placed.statement.binds)), "?")
        where = (placed.cell, placed.statement.lines)
        self.add(_findings.assigned_in_function(name, self._label(user), *where, placed.statement.node, function))

    def add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def at(self, position: int) -> tuple[Cell, tuple[int, ...]]:
        placed = self.index.placed[position]
        return placed.cell, placed.statement.lines

    def _where(self, position: int) -> str:
        placed = self.index.placed[position]
        return placed.cell.where(placed.statement.lines[0])

    def user_of(self, position: int) -> str:
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
