"""`rml.explain(step)`: what a step will ship and why, before anything is sent anywhere.

Capture decides silently when all is well; this shows its decisions: each line with the cell it came from and the reason it
is in, the files and packages that go along, what stays behind, and what has drifted since the kernel started. A step that
capture refuses is explained too: the findings stand beside the lines they are about.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import Finding, PipelineError, RmlSdkError

if TYPE_CHECKING:
    from ._capture import Cell, Slice
    from ._env import Lock

__all__ = ["Carried", "Explanation", "LeftOut", "Line", "Package", "explain"]

_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One line: where it was written, its text, why it ships (empty for a line of a refused step), what is wrong with it."""

    where: str
    text: str
    why: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A statement that stays behind: where it is, its first line, and why nothing in the step needs it."""

    where: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Carried:
    """A file or wheel that travels with the step. `size` is in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Package:
    """An import of the step and the distribution that answers it. `version` is empty for one that is not locked, `module`
    for one that `packages=` asks for and nothing imports by name."""

    module: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a step ships. `str()` is the text, a notebook shows the page; the fields are there for programs.

    `bundle` and `lock` are digests, empty when `findings` kept them from being made. `pins` counts the whole environment,
    `packages` names what the step imports itself.
    """

    step: str
    lines: tuple[Line, ...]
    files: tuple[Carried, ...] = ()
    packages: tuple[Package, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    drift: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    system: tuple[str, ...] = ()
    bundle: str = ""
    bundle_size: int = 0
    lock: str = ""
    lock_size: int = 0
    pins: int = 0
    in_place: bool = False

    @property
    def ships(self) -> bool:
        """Whether the step can be sent as it stands."""
        return not self.findings

    def __str__(self) -> str:
        from ._explain_text import text

        return text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ._explain_page import page

        return page(self)


def explain(step: Callable[..., Any]) -> Explanation:
    """Show what `step` (a step, or a function that could be one) will ship and why each line is in it.

    Never raises for what is wrong with the step: findings are part of the answer (`.findings`, `.ships`).
    """
    from ._graph.step import Step

    if hasattr(step, "build") and hasattr(step, "trace"):
        raise RmlSdkError(
            f"{step!r} is a pipeline",
            why="what is shipped is decided step by step",
            fix="explain one of its steps: rml.explain(train)",
        )
    function = step.function if isinstance(step, Step) else step
    name = str(getattr(step, "__name__", type(step).__name__))
    packages, system, findings = _asked(step)
    try:
        found = _captured(function)
    except PipelineError as error:
        everything = (*findings, *error.findings)
        return Explanation(name, tuple(_refused(function, everything)), findings=everything, system=system)
    return _explained(name, function, found, packages, system, findings)


def _asked(step: Any) -> tuple[tuple[str, ...], tuple[str, ...], list[Finding]]:
    """Packages and system packages that the decorator asks for, and what is wrong with its options."""
    from ._graph.step import Step

    if not isinstance(step, Step):
        return (), (), []
    read, findings = step.read()
    return read.options.packages, tuple(getattr(read.options, "system_packages", ())), findings


def _captured(function: Any) -> Slice:
    from ._capture import capture

    return capture(function)


def _explained(
    name: str, function: Any, found: Slice, packages: tuple[str, ...], system: tuple[str, ...], findings: list[Finding]
) -> Explanation:
    from ._capture import STEP_MODULE, build_bundle
    from ._env import lock_for
    from ._packaging._needs import implied_imports

    imports = found.imports | implied_imports(found.files)
    lock: Lock | None = None
    try:
        lock = lock_for(imports, packages, system)
    except PipelineError as error:
        findings = [*findings, *error.findings]
    except RmlSdkError as error:  # no uv, no network at all
        findings = [*findings, Finding("environment", error.message, "environment of the step", error.why, error.fix)]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    bundle = build_bundle(found, python=python, lock=lock.digest if lock else "")
    main = f"{STEP_MODULE}.py"
    files = [Carried(path, len(data)) for path, data in sorted(found.files.items()) if path != main]
    return Explanation(
        step=name,
        lines=tuple(_lines(found)),
        files=tuple(files) + tuple(Carried(wheel.filename, wheel.size) for wheel in (lock.wheels if lock else ())),
        packages=tuple(_packages(imports, lock, packages)),
        left_out=tuple(_left_out(function, found)),
        drift=(*lock.notes, *_since_last_run(name, lock)) if lock else (),
        findings=tuple(findings),
        system=system,
        bundle=bundle.digest if lock else "",
        bundle_size=len(bundle.data),
        lock=lock.digest if lock else "",
        lock_size=len(lock.text.encode()) if lock else 0,
        pins=len(lock.pins) if lock else 0,
        in_place=bool(lock and lock.in_place),
    )


def _since_last_run(name: str, lock: Lock) -> tuple[str, ...]:
    from ._lock_history import last_run, since

    last = last_run(step=name)
    return since(last, {name.replace("_", "-").lower(): lock.text})


def _lines(found: Slice) -> Iterator[Line]:
    """The shipped module's lines; the reason is said once for each statement."""
    from ._capture import STEP_MODULE

    for number, text in enumerate(found.files[f"{STEP_MODULE}.py"].decode().splitlines(), start=1):
        origin = found.lines.get(number)
        if origin is not None:
            yield Line(origin.where, text, origin.why)
        elif text.startswith("from __future__"):
            yield Line("", text, "holds for the whole notebook or file")


def _packages(imports: Iterable[str], lock: Lock | None, packages: tuple[str, ...]) -> Iterator[Package]:
    """What the imports lead to, then what `packages=` adds without being imported by name."""
    from ._env import owners_of

    pins = lock.pins if lock else {}
    asked = {
        name
        for text in packages
        for name in pins
        if re.match(rf"(?:\S*::)?{name}(?![a-z0-9-])", re.sub(r"[-_.]+", "-", text).lower())
    }
    told: set[str] = set()
    for module in sorted(imports):
        same = re.sub(r"[-_.]+", "-", module).lower()  # not installed here: a distribution of the import's own name
        owners = [name for name in owners_of(module) or (same,) if name in pins]
        told.update(owners)
        for owner in owners:
            yield Package(module, owner, pins[owner])
        if not owners and lock is not None:
            yield Package(module, "from packages=" if module not in lock.local else "source in the bundle", "")
    for name in sorted(asked - told & pins.keys()):
        yield Package("", name, pins[name])


def _cells(function: Any) -> tuple[Cell, ...]:
    """The cells or the file that a function came from; nothing when its source is gone."""
    from ._capture._source import source_of

    try:
        source = source_of(function)
    except (AttributeError, OSError, SyntaxError, UnicodeDecodeError):
        return ()
    return source.cells if source is not None else ()


def _left_out(function: Any, found: Slice) -> Iterator[LeftOut]:
    """Statements of the notebook or file that did not ship, the last execution of each cell counting."""
    shipped = {origin.where for origin in found.lines.values()}
    seen: set[str] = set()
    for cell in reversed(_cells(function)):
        if cell.text in seen:
            continue  # run again unchanged: it was told of already
        seen.add(cell.text)
        for node in _statements(cell):
            places = {cell.where(line) for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
            if not places & shipped and not _is_repeated(node, cell, found):
                yield LeftOut(cell.where(node.lineno), cell.shown_line(node.lineno).strip()[:_SHOWN], _reason(node))


def _is_repeated(node: ast.stmt, cell: Cell, found: Slice) -> bool:
    """Whether the same statement shipped from an earlier execution of its cell."""
    text = (ast.get_source_segment(cell.text, node) or "").strip()
    return any(text and text in data.decode() for path, data in found.files.items() if path == "rml_step.py")


def _statements(cell: Cell) -> list[ast.stmt]:
    try:
        return ast.parse(cell.text).body
    except (SyntaxError, ValueError):
        return []


def _reason(node: ast.stmt) -> str:
    names = _bound(node)
    quoted = ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
    if any(isinstance(inner, ast.Name) and inner.id == "get_ipython" for inner in ast.walk(node)):
        return "a magic or shell command: it acts on the notebook"
    decorators = {ast.unparse(d) for d in getattr(node, "decorator_list", [])}
    if any(re.search(r"\bstep\b", d) for d in decorators):
        return "another step"
    if any(re.search(r"\bpipeline\b", d) for d in decorators):
        return "a pipeline: it says how steps hang together, and runs in none"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return f"the step does not use {quoted}"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return f"the step does not use {quoted}"
    if isinstance(node, ast.Expr):
        return (
            "a text that stands alone" if isinstance(node.value, ast.Constant) else "shows or does something here only"
        )
    if names:
        return f"nothing the step runs reads {quoted}"
    return "changes nothing that the step reads"


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    stores = [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)]
    return list(dict.fromkeys(stores))


def _refused(function: Any, findings: tuple[Finding, ...]) -> Iterator[Line]:
    """The cells a refusal is about, and the step's own, each finding at its line."""
    name = getattr(function, "__name__", "")
    about = {finding.where: [f for f in findings if f.where == finding.where] for finding in findings}
    for cell in _cells(function):
        places = [cell.where(line) for line in range(1, len(cell.text.splitlines()) + 1)]
        if cell.is_file:
            wanted = set(_around(cell, name, places, about))
        else:
            defines = any(name in _bound(node) for node in _statements(cell))
            wanted = set(places) if defines or any(place in about for place in places) else set()
        for line, place in enumerate(places, start=1):
            if place in wanted:
                yield Line(place, cell.shown_line(line), "", tuple(about.get(place, ())))


def _around(cell: Cell, name: str, places: list[str], about: dict[str, list[Finding]]) -> Iterator[str]:
    """Of a file: the statements that findings are about, and the step."""
    for node in _statements(cell):
        own = places[node.lineno - 1 : node.end_lineno]
        if name in _bound(node) or any(place in about for place in own):
            yield from own
