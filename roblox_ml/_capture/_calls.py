"""What a call reaches: the globals, parameters and outside state that functions of the notebook change, through one another.

By name and over all definitions of a name, so it errs on the side of "changes". What left no trace is dropped by comparison later.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from roblox_ml._capture._binding import callee
from roblox_ml._capture._marks import Mark
from roblox_ml._capture._scopes import FunctionNode, dotted_name
from roblox_ml._capture._statements import Statement
from roblox_ml._capture._summary import CLOSURE, Summary


class Calls:
    """The functions and classes of a notebook by name, and what calling them changes."""

    def __init__(self) -> None:
        self._direct: dict[str, set[str]] = defaultdict(set)
        self._marks: dict[str, set[Mark]] = defaultdict(set)
        self._edges: dict[str, set[str]] = defaultdict(set)
        self._summaries: dict[str, list[Summary]] = defaultdict(list)
        self._methods: dict[str, set[str]] = defaultdict(set)
        self._changing: set[str] = set()
        self._watched: dict[str, set[str]] = defaultdict(set)
        self._reached: dict[str, frozenset[str]] = {}
        self.steps: set[str] = set()

    def add(self, statement: Statement, *, step: bool = False) -> None:
        """Note the functions that `statement` defines."""
        summary = statement.summary
        if isinstance(statement.node, ast.ClassDef):
            self._watch(statement.node, summary)
        if summary is None:
            return
        self._reached.clear()
        for name in statement.binds:
            self._direct[name] |= statement.mutates_later | statement.assigned_later
            self._marks[name] |= summary.marks
            self._edges[name] |= statement.later
            self._summaries[name].append(summary)
            if summary.own_state:
                self._direct[name].add(name)
            if step:
                self.steps.add(name)
        if isinstance(statement.node, (*FunctionNode, ast.ClassDef)):
            self._decorated(statement.node)
            for method in summary.methods:
                self._methods[method].add(statement.node.name)
            self._changing |= summary.changing
        for name in statement.binds:
            for _, method in summary.methods_called:
                self._edges[name].add(f".{method}")

    def _decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Calling a decorated function runs the decorator's inner function."""
        for decorator in node.decorator_list:
            name = dotted_name(callee(decorator))
            depth = 3 if isinstance(decorator, ast.Call) else 2
            for summary in self._summaries.get(name[0], []) if name else []:
                for level, changed in summary.deep.items():
                    if level >= depth:
                        self._direct[node.name] |= {
                            node.name if c == CLOSURE else c for c in changed if c not in summary.params
                        }

    def _watch(self, node: ast.ClassDef, summary: Summary | None) -> None:
        above = [path[0] for base in [*node.bases, *(k.value for k in node.keywords)] if (path := dotted_name(base))]
        watched = set().union(*(self._watched.get(name, ()) for name in above))
        if summary is not None and summary.watches:
            watched |= {node.name}
        if watched:
            self._watched[node.name] |= watched

    def extended(self, node: ast.stmt) -> set[str]:
        """The classes whose own code runs when the class of `node` is made: they may keep it."""
        if not isinstance(node, ast.ClassDef):
            return set()
        above = [path[0] for base in [*node.bases, *(k.value for k in node.keywords)] if (path := dotted_name(base))]
        return set().union(*(self._watched.get(name, ()) for name in above)) - {node.name}

    def reach(self, name: str) -> frozenset[str]:
        """Names of all functions and classes that a call of `name` may run, itself included."""
        if name not in self._reached:
            seen: set[str] = set()
            waiting = [name]
            while waiting:
                current = waiting.pop()
                if current in seen:
                    continue
                seen.add(current)
                if current.startswith("."):
                    waiting += self._methods.get(current[1:], ())
                else:
                    waiting += [n for n in self._edges.get(current, ()) if n in self._summaries or n[:1] == "."]
            self._reached[name] = frozenset(n for n in seen if n[:1] != ".")
        return self._reached[name]

    def _called(self, statement: Statement) -> Iterator[str]:
        for name in statement.calls:
            if name in self._summaries or name in self._direct:
                yield from self.reach(name)
        for _, method in statement.methods_called:
            for owner in self._methods.get(method, ()):
                yield from self.reach(owner)
        for name in self.extended(statement.node):
            yield from self.reach(name)

    def changes(self, statement: Statement) -> set[str]:
        """Names whose objects `statement` changes by calling functions, through globals, parameters or methods."""
        found: set[str] = set()
        for function in self._called(statement):
            found |= self._direct.get(function, set())
        found |= self._through_parameters(statement.passes)
        found |= {name for name, method in statement.methods_called if name and method in self._changing}
        return found | self.extended(statement.node)

    def changed_globals(self, name: str) -> frozenset[str]:
        """Globals whose objects a call of `name` changes or which it assigns."""
        return frozenset().union(*(self._direct.get(function, ()) for function in self.reach(name)))

    def changed_by_any(self, names: Iterable[str]) -> bool:
        """Whether some function of the notebook changes one of `names`."""
        return any(name in changed for name in names for changed in self._direct.values())

    def marks(self, statement: Statement) -> Iterator[tuple[Mark, str]]:
        """What `statement` touches outside the notebook's names by calling functions, with the function's name."""
        for function in set(self._called(statement)):
            if function not in self.steps:  # trying a step in the notebook is no part of the state it starts from
                for mark in self._marks.get(function, ()):
                    yield mark, function

    def _through_parameters(self, passes: Iterable[tuple[str, int | str, str]]) -> set[str]:
        return {name for function, slot, name in passes if self._changes_slot(function, slot, set())}

    def _changes_slot(self, function: str, slot: int | str, seen: set[tuple[str, int | str]]) -> bool:
        """Whether a call of `function` changes the object given for parameter `slot`."""
        if (function, slot) in seen:
            return False
        seen.add((function, slot))
        for summary in self._summaries.get(function, ()):
            if isinstance(slot, int):
                param = summary.params[slot] if slot < len(summary.params) else None
            else:
                param = slot
            if param is None:
                continue
            if param in summary.changed:
                return True
            if any(name == param and self._changes_slot(f, s, seen) for f, s, name in summary.passes):
                return True
        return False
