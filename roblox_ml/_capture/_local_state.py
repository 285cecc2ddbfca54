"""Local modules as the kernel holds them, beside their files: the file is what travels, the module is what the kernel ran.

A module's plain globals are rebuilt from its file like a notebook's, its functions compared by code. So a setting made by a call, a
constant edited without a reload, or a table filled by use is found.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from roblox_ml._capture import _live
from roblox_ml._capture._calls import Calls
from roblox_ml._capture._modules import is_local_module, read
from roblox_ml._capture._rebuild import differences, rebuild
from roblox_ml._capture._statements import Statement, future_features, parse


def changed_by_call(path: str) -> Iterator[str]:
    """Dotted paths of the globals that a call of `path`, a function of a local module, changes in its module."""
    function = _function(path)
    module = sys.modules.get(function.__module__) if function is not None else None
    if function is None or module is None or not is_local_module(module):
        return
    text = read(Path(module.__file__ or ""))
    for name in sorted(_changes(text, function.__name__)):
        yield f"{module.__name__}.{name}"


def _function(path: str) -> FunctionType | None:
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None:
            value: Any = module
            for part in parts[end:]:
                value = vars(value).get(part) if hasattr(value, "__dict__") else None
            return _live.function_of(value)
    return None


@lru_cache(maxsize=1024)
def _changes(text: str, function: str) -> frozenset[str]:
    calls = Calls()
    for statement in parse(text):
        calls.add(statement)
    return calls.changed_globals(function)


def module_differences(module: ModuleType, touched: Collection[str]) -> list[str]:
    """Names of `module` that are not what its file makes; `touched` are dotted paths that the slice sets again itself."""
    text = read(Path(module.__file__ or ""))
    statements, scope = _made(text)
    again = {
        path.removeprefix(f"{module.__name__}.").partition(".")[0]
        for path in touched
        if path.startswith(f"{module.__name__}.")
    }
    found = [name for name in differences(scope, vars(module)) if name not in again]
    future = future_features(statements)
    for statement in statements:
        for name in statement.binds if statement.kind in ("functiondef", "asyncfunctiondef", "classdef") else ():
            if name in vars(module) and name not in again and sum(name in s.binds for s in statements) == 1:
                live = vars(module)[name]
                if (
                    getattr(live, "__module__", None) == module.__name__
                    and _live.verify(statement, name, live, future) == "different"
                ):
                    found.append(name)
    return sorted(set(found))


@lru_cache(maxsize=256)
def _made(text: str) -> tuple[tuple[Statement, ...], dict[str, Any]]:
    statements = parse(text)
    scope, _ = rebuild((statement, statement.mutates) for statement in statements)
    return statements, scope
