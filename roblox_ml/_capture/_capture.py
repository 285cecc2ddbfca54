"""`capture(fn)`: the slice of source one step needs, or every reason why there is none."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

from roblox_ml._capture import _findings, _findings_outside, _live
from roblox_ml._capture._findings import FRESH
from roblox_ml._capture._guards import guard
from roblox_ml._capture._imports import ImportRef
from roblox_ml._capture._index import Index, index_of
from roblox_ml._capture._local_state import module_differences
from roblox_ml._capture._modules import LocalModules, collect, is_local_module
from roblox_ml._capture._render import ordered, render
from roblox_ml._capture._secrets import secrets_in, secrets_in_text
from roblox_ml._capture._slicer import Slicer, imports_in
from roblox_ml._capture._source import source_of
from roblox_ml._capture._types import STEP_MODULE, Slice, Source
from roblox_ml.errors import CaptureError, Finding


def capture(fn: Callable[..., Any], source: Source | None = None) -> Slice:
    """The source slice of `fn`, a plain top-level function of a notebook cell or a `.py` file.

    `source` replaces the kernel's history or the file (tests, benchmarks). Raises `CaptureError` with all findings.
    """
    function = _plain(fn)
    source = source or source_of(function)
    if source is None:
        raise CaptureError([_no_source(function)])
    index = index_of(source.cells, source.package, source.module)
    entry = _entry(index, function, source)
    if isinstance(entry, Finding):
        raise CaptureError([entry])
    return _slice(index, source, function.__name__, entry)


def capture_name(name: str, source: Source) -> Slice:
    """Like `capture`, for the last definition of `name` in `source`, when there is text only and no function object."""
    index = index_of(source.cells, source.package, source.module)
    entries = [p for p in index.all_binders(name) if index.placed[p].statement.kind == "functiondef"]
    if not entries:
        raise CaptureError([_stale(name, source)])
    return _slice(index, source, name, entries[-1])


def _plain(fn: Callable[..., Any]) -> FunctionType:
    """Unwrap `functools.wraps` and refuse what is no ordinary function."""
    function = _live.function_of(fn)
    if function is None:
        raise CaptureError([_not_a_function(fn)])
    name, code = function.__name__, function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    if name == "<lambda>":
        raise CaptureError([_finding("lambda-step", "a lambda cannot be a step", where, "A step is addressed by its name.",
                                     "write it as a function: `def name(...): ...`")])  # fmt: skip
    return function


def _shape_problem(function: FunctionType, where: str, source: str) -> Finding | None:
    """Functions whose form no step can have."""
    name = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return _finding("async-step", f"step `{name}` is `async def`", where,
                        "A step is called in a process of its own; nothing there awaits it.",
                        f"write `def {name}(...)` and call `asyncio.run(...)` inside", source)  # fmt: skip
    if inspect.isgeneratorfunction(function):
        return _finding("generator-step", f"step `{name}` is a generator: it uses `yield`", where,
                        "A step's outputs are what it returns, once.",
                        "collect the items in a list and return it, or write them to an `rml.Dataset`", source)  # fmt: skip
    if "<locals>" in function.__qualname__:
        return _nested(function, where, source)
    return None


def _entry(index: Index, function: FunctionType, source: Source) -> int | Finding:
    """The position of the statement that made `function`."""
    name, code = function.__name__, function.__code__
    candidates = [p for p in index.all_binders(code.co_name) if "functiondef" in index.placed[p].statement.kind]
    matching = []
    for position in reversed(candidates):
        placed = index.placed[position]
        if source.is_file:
            first = placed.statement.node
            lines = {placed.statement.lines[0], getattr(first, "lineno", 0), *_decorator_lines(first)}
            # The step decorators are no longer in the statement, but the code's first line is theirs: its last line tells.
            last = max(line for _, _, line in code.co_lines() if line is not None)
            within = placed.statement.lines[0] <= last <= placed.statement.lines[-1]
            same = code.co_firstlineno in lines or within or (len(candidates) == 1 and source.namespace is None)
        else:
            same = _live.same_code(placed.statement, code, placed.future) == "same"
        if same:
            matching.append(position)
    if matching:
        placed = index.placed[matching[0]]
        where, text = _findings.at_node(placed.cell, placed.statement.lines, placed.statement.node)
        return _shape_problem(function, where, text.partition("\n")[0]) or matching[0]
    line = code.co_firstlineno
    where = f"{code.co_filename}:{line}"
    for cell in source.cells:
        if "<locals>" in function.__qualname__ and f"def {name}" in cell.text:
            number = next(i for i, text in enumerate(cell.text.splitlines(), 1) if f"def {name}" in text)
            return _nested(function, cell.where(number), _findings.excerpt(cell, number))
    if candidates:
        placed = index.placed[candidates[-1]]
        place, text = _findings.at_node(placed.cell, placed.statement.lines, placed.statement.node)
        return _finding("stale-step", f"step `{name}` was made from older code than this definition", place,
                        "The source at hand and the function that would be sent are not the same.",
                        "run this cell and the pipeline's cell again (for a file: restart, or reload the module)", text)  # fmt: skip
    return _finding("no-source", f"no executed cell or line at hand defines step `{name}`", where,
                    "A step is shipped as source; this function's definition is gone or never was text.",
                    "run the cell that defines it again", None)  # fmt: skip


def _decorator_lines(node: ast.stmt) -> set[int]:
    """A function's first line, as the compiler counts it, is that of its first decorator."""
    return {decorator.lineno for decorator in getattr(node, "decorator_list", [])}


def _slice(index: Index, source: Source, name: str, entry: int) -> Slice:
    slicer = Slicer(index, source, name)
    slicer.run(entry)
    findings = slicer.judge.findings
    own = index.placed[entry].statement
    hiding = [p for p in slicer.chosen if p > entry and own.node.name in index.placed[p].statement.binds]  # type: ignore[attr-defined]
    if hiding:
        findings.append(_hidden(index, name, min(hiding)))
    order = ordered(index, slicer.chosen, slicer.reads_at, slicer.writes, slicer.effects, entry)
    slicer.judge.compare(order, slicer.writes, slicer.wanted_now())
    findings += _secrets(index, slicer)
    modules = collect(_refs(index, slicer), source.path)
    findings += guard(index, slicer.chosen, source.namespace, slicer.judge.step)
    findings += _changed_modules(index, slicer, modules, source)
    findings += modules.findings + _secrets_in_files(modules)
    if findings:
        raise CaptureError(sorted(findings, key=lambda finding: _order(index, finding)))
    text, lines = render(index, order, slicer.chosen)
    files = {f"{STEP_MODULE}.py": text, **modules.files}
    return Slice(
        entry=f"{STEP_MODULE}:{name}",
        files=dict(sorted(files.items())),
        imports=frozenset(modules.imports),
        local_modules=tuple(sorted(modules.names)),
        lines=lines,
    )


def _order(index: Index, finding: Finding) -> tuple[int, str]:
    labels = list(dict.fromkeys(placed.cell.label for placed in index.placed))
    label = finding.where.rpartition(", line ")[0] or finding.where.rpartition(":")[0]
    return (labels.index(label) if label in labels else len(labels)), finding.where


def _refs(index: Index, slicer: Slicer) -> list[ImportRef]:
    found: list[ImportRef] = []
    for position in sorted(slicer.chosen):
        found += imports_in(index.placed[position].statement)
    return found


def _changed_modules(index: Index, slicer: Slicer, modules: LocalModules, source: Source) -> list[Finding]:
    """Shipped modules whose files are not what the kernel has loaded."""
    found: list[Finding] = []
    if source.namespace is None:
        return found
    again = {touch.path for position in slicer.chosen for touch in index.touches.get(position, ())}
    for path in modules.files:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = sys.modules.get(name)
        if module is None or not path.endswith(".py") or not is_local_module(module):
            continue
        different = module_differences(module, again)
        if different:
            top = name.partition(".")[0]
            users = [p for p in slicer.chosen if any(ref.top == top for ref in imports_in(index.placed[p].statement))]
            placed = index.placed[min(users)] if users else index.placed[max(slicer.chosen)]
            at = (placed.cell, placed.statement.lines, placed.statement.node)
            found.append(_findings_outside.changed_module(name, different, slicer.judge.step, *at))
    return found


def _secrets(index: Index, slicer: Slicer) -> list[Finding]:
    found: list[Finding] = []
    for position in sorted(slicer.chosen):
        placed = index.placed[position]
        hits = _hits(placed.statement.node)
        lines = placed.cell.text.splitlines() if hits else []
        for _, node in hits:  # an excerpt must not show the neighbour's secret either
            start, end = _findings.columns(placed.cell, node)
            row = getattr(node, "lineno", placed.statement.lines[0]) - 1
            lines[row] = lines[row][:start] + "*" * (end - start) + lines[row][end:]
        for words, node in hits:
            line = getattr(node, "lineno", placed.statement.lines[0])
            start, end = _findings.columns(placed.cell, node)
            excerpt = f"{lines[line - 1][:200]}\n{' ' * start}{'^' * (end - start)}"
            found.append(_secret(words, placed.cell.where(line), excerpt))
    return found


@lru_cache(maxsize=8192)
def _hits(node: ast.stmt) -> tuple[tuple[str, ast.AST], ...]:
    return tuple(secrets_in(node))


def _secrets_in_files(modules: LocalModules) -> list[Finding]:
    found: list[Finding] = []
    for path, data in modules.files.items():
        if len(data) > 2**20 or b"\0" in data[:1024]:
            continue
        text = data.decode("utf-8", "replace")
        if path.endswith(".py"):
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError):
                continue
            found += [_secret(words, f"{path}:{getattr(node, 'lineno', 1)}", None) for words, node in secrets_in(tree)]
        else:
            found += [_secret(words, f"{path}:{line}", None) for words, line in secrets_in_text(text)]
    return found


def _secret(words: str, where: str, source: str | None) -> Finding:
    return _finding(
        "secret", f"this literal looks like {words}", where,
        "Bundles are stored and can be read by everyone who may read runs; a key in one is a leaked key.",
        'put it into the environment and read it inside the step: `os.environ["NAME"]`', source,
    )  # fmt: skip


def _hidden(index: Index, name: str, position: int) -> Finding:
    placed = index.placed[position]
    where, source = _findings.at_node(placed.cell, placed.statement.lines, placed.statement.node)
    return _finding("shadowed-name", f"step `{name}` uses its own name, which was bound to something else here", where,
                    "The step's function and the later value cannot both have this name in one module.",
                    "rename one of them", source)  # fmt: skip


def _nested(function: FunctionType, where: str, source: str | None) -> Finding:
    free = ", ".join(f"`{name}`" for name in function.__code__.co_freevars)
    outer = function.__qualname__.partition(".<locals>")[0]
    uses = f" and uses its local {free}" if free else ""
    return _finding("nested-step", f"step `{function.__name__}` is defined inside `{outer}`{uses}", where,
                    "Local variables of a function live only in this kernel, so the step would not find them.",
                    f"move the step to the top level{' and pass ' + free + ' as parameters' if free else ''}", source)  # fmt: skip


def _not_a_function(fn: object) -> Finding:
    return _finding("not-a-function", f"{_live.describe(fn)} is no plain function", "the step's decorator",
                    FRESH, "decorate a function written with `def`")  # fmt: skip


def _no_source(function: FunctionType) -> Finding:
    code = function.__code__
    return _finding("no-source", f"step `{function.__name__}` has no source at hand", f"{code.co_filename}:{code.co_firstlineno}",
                    "It was made by `exec`, in a bare interpreter, or its file is gone; a step is shipped as source.",
                    "write it in a notebook cell or a `.py` file")  # fmt: skip


def _stale(name: str, source: Source) -> Finding:
    where = source.cells[-1].label if source.cells else "no cell"
    return _finding("no-source", f"no cell defines a function `{name}`", where, FRESH, "check the name")


def _finding(code: str, message: str, where: str, why: str, fix: str, source: str | None = None) -> Finding:
    return Finding(code, message, where, why, fix, source)
