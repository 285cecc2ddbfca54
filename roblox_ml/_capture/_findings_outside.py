"""The words of a refusal for what lies outside the notebook's names: files, modules, caches, state of the process."""

from __future__ import annotations

import ast

from roblox_ml._capture._findings import at_node
from roblox_ml._capture._marks import Touch
from roblox_ml._capture._policy import Offence
from roblox_ml._capture._types import Cell
from roblox_ml.errors import Finding


def uncarried_effect(touch: Touch, user: str, cell: Cell, lines: tuple[int, ...], offence: Offence) -> Finding:
    """A setting, a draw or a changed module attribute that the step would miss."""
    where, source = at_node(cell, lines, offence.node)
    through = f", inside `{touch.through}`," if touch.through else ""
    verb = "drawn from" if touch.kind == "draw" else "set" if touch.kind == "set" else "changed"
    return Finding(
        "uncarried-effect",
        f"`{touch.path}` is {verb} here{through} by {offence.what or 'a statement that cannot be repeated'}, and {user} uses `{touch.top}`",
        where,
        "This state of the process matters to the step, and it cannot be brought about there the same way.",
        "use literals at the top level of the cell, or do it inside the step",
        source,
    )


def relative_file(path: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    """A file beside the notebook."""
    where, source = at_node(cell, lines, node)
    return Finding(
        "file-path", f"{user} reads `{path}`, a file beside this notebook", where,
        "A step starts in an empty folder of its own, perhaps on another machine: a relative path leads nowhere there.",
        f'make it a data set, `rml.datasets.add("name", {path!r})`, and take it as an input: `rml.dataset("name")`', source,
    )  # fmt: skip


def own_name(user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    """`__name__`, which is another one in a step."""
    where, source = at_node(cell, lines, node)
    return Finding(
        "kernel-module", f"{user} uses `__name__`", where,
        "Here it is `__main__`; in a step's process it is the name of the shipped module.",
        "write the name you mean as a literal", source,
    )  # fmt: skip


def kernel_module(user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    """`__main__` as a module or by its name."""
    where, source = at_node(cell, lines, node)
    return Finding(
        "kernel-module", f"{user} uses the kernel as a module: `__main__`", where,
        "In a step's process `__main__` is the program that starts the step, and has none of the notebook's names.",
        "use the names directly: capture ships what the step needs", source,
    )  # fmt: skip


def subclasses(user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    """A look into the interpreter's memory."""
    where, source = at_node(cell, lines, node)
    return Finding(
        "dynamic-code", f"{user} uses `__subclasses__()`", where,
        "It lists the classes that live in this kernel's memory, old definitions included; no source says which.",
        "keep the classes in a dict of your own, filled by a decorator or by `__init_subclass__`", source,
    )  # fmt: skip


def warm_cache(
    name: str, read: str, changed: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST
) -> Finding:
    """A cached function that may answer from before a change."""
    where, source = at_node(cell, lines, node)
    return Finding(
        "changed-value", f"`{name}`, used by {user}, has cached answers from before `{read}` changed in {changed}", where,
        "The kernel's cache keeps old answers; a fresh process computes new ones.",
        f"run `{name}.cache_clear()`, or this cell again", source,
    )  # fmt: skip


def changed_module(
    module: str, names: list[str], user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST
) -> Finding:
    """A local module that is not what its file makes."""
    where, source = at_node(cell, lines, node)
    listed = ", ".join(f"`{name}`" for name in names[:5])
    return Finding(
        "changed-value", f"the local module `{module}`, used by {user}, is not what its file makes: {listed}", where,
        "The file is shipped. The kernel's module was changed since it was imported, or its file was edited without a reload.",
        f"run `importlib.reload({module})` and what needs it again, or set the values at the top level of a cell", source,
    )  # fmt: skip
