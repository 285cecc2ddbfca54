"""The words of a refusal: one builder per kind, each naming cell and line, why, and what to type instead."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Iterable

from roblox_ml._capture import _live
from roblox_ml._capture._policy import Offence
from roblox_ml._capture._types import Cell
from roblox_ml.errors import Finding

FRESH = "A step runs in a fresh process that has the shipped source and nothing of this kernel's memory."

_CUSTOMARY = {
    "np": "import numpy as np", "pd": "import pandas as pd", "plt": "import matplotlib.pyplot as plt", "sns": "import seaborn as sns",
    "tf": "import tensorflow as tf", "nn": "import torch.nn as nn", "F": "import torch.nn.functional as F",
    "rml": "import roblox_ml as rml", "Path": "from pathlib import Path", "tqdm": "from tqdm.auto import tqdm",
    "defaultdict": "from collections import defaultdict", "Counter": "from collections import Counter",
    "dataclass": "from dataclasses import dataclass", "NamedTuple": "from typing import NamedTuple",
}  # fmt: skip

_THIRD_PARTY = frozenset(
    {"numpy", "pandas", "torch", "sklearn", "transformers", "scipy", "matplotlib", "seaborn", "tqdm"}
)


def excerpt(cell: Cell, line: int, column: int = 0, width: int = 1) -> str:
    """The user's line and a caret line under the place; long lines are cut around it."""
    text = cell.shown_line(line).rstrip()
    pad = len(text) - len(text.lstrip())
    column, width = max(column, pad), max(width, 1)
    start = 0
    if len(text) > 160:
        start = max(0, column - 40)
        text = text[start : start + 150]
    column -= start
    width = max(1, min(width, len(text) - column))
    return f"{text}\n{' ' * column}{'^' * width}"


def at_node(cell: Cell, lines: tuple[int, ...], node: ast.AST) -> tuple[str, str]:
    """`where` and `source` of a node whose position counts in its statement's text or in the cell."""
    line = getattr(node, "lineno", lines[0])
    column, end = columns(cell, node)
    return cell.where(line), excerpt(cell, line, column, end - column)


def columns(cell: Cell, node: ast.AST) -> tuple[int, int]:
    """First and last column of `node` on its first line, in characters (the parser counts UTF-8 bytes)."""
    line = getattr(node, "lineno", 1)
    text = cell.text.splitlines()[line - 1].encode() if line <= cell.text.count("\n") + 1 else b""
    start = getattr(node, "col_offset", 0)
    end = getattr(node, "end_col_offset", start + 1) if getattr(node, "end_lineno", line) == line else len(text)
    return len(text[:start].decode(errors="replace")), len(text[:end].decode(errors="replace"))


def find_name(tree: ast.AST, name: str) -> ast.AST:
    """The first place where `name` is read below `tree`, or `tree` itself."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
    return min(found, key=lambda n: (n.lineno, n.col_offset)) if found else tree


def offending(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], offence: Offence, live: object, known: bool
) -> Finding:
    """A statement that binds or changes `name` cannot be repeated in a step."""
    where, source = at_node(cell, lines, offence.node)
    code, what, why = offence.code, offence.what, FRESH
    if code == "computed-value" and known and not _live.is_plain(live):
        code = "live-object"
        message = f"`{name}`, used by {user}, is a live {_live.describe(live)} made by {what}"
        why += " A live object is not source: it would have to be made again there, and capture cannot know what that costs or touches."
        fix = (
            f"make it inside the step, or hand it over as an input: return it from a step of its own as an artifact and write "
            f"`def step({name}: rml.Dataset, ...)`"
        )
    elif code == "computed-value":
        now = f" (now {_short(live)})" if known else ""
        message = f"`{name}`, used by {user}, is computed by {what}{now}"
        why += " Repeating this there could be slow, or give another result."
        fix = f"compute it inside the step, make it a parameter (`def step({name}, ...)`), or write the value as a literal"
    elif code == "lambda-in-container":
        message = f"`{name}`, used by {user}, holds {what}"
        why = "A function without a name cannot be compared with what the kernel holds, and no error in the step could name it."
        fix = "define it with `def` in a cell of its own and put the function's name into the container"
    elif code == "one-shot-value":
        message = f"`{name}`, used by {user}, is {what}: it is used up by its first reader"
        fix = f"make it a list (`{name} = list(...)`), or make it inside the step"
    elif code == "unordered-value":
        message = f"`{name}`, used by {user}, has the order of a set: {what}"
        why = "Python shuffles sets of text anew in every process: each step would see another order than this kernel."
        fix = "sort it: `sorted(...)`, or write the elements down in their order"
    elif code == "huge-literal":
        message = f"`{name}`, used by {user}, is a literal of {what}"
        why = "Code is compared, hashed and sent for every step; data of this size belongs in a data set."
        fix = 'write it to a file, `rml.datasets.add("name", "file")`, and take it as an input: `rml.dataset("name")`'
    elif code == "huge-value":
        message = f"`{name}`, used by {user}, is too large to be made again in every step: {what}"
        why = "A global of this size is data, not configuration."
        fix = (
            "make it inside the step, or store it with `rml.datasets.add(...)` and take `rml.dataset(...)` as an input"
        )
    elif code == "magic":
        message = f"`{name}`, used by {user}, comes from {what}"
        why = "Magics and shell commands exist only in the notebook kernel."
        fix = "use plain Python (`subprocess.run`, `pathlib`) inside the step, or pass the value as a parameter"
    elif code == "top-level-await":
        message = f"`{name}`, used by {user}, is made with {what}"
        why = "A step's module is imported, and an import cannot wait."
        fix = "call `asyncio.run(...)` inside the step, or pass the value as a parameter"
    elif code == "interrupted":
        message = f"`{name}`, used by {user}, was left by {what}"
        why = "The cell ended with an exception here, so what it made is neither what its text says nor nothing."
        fix = "run the cell again until it ends without an error"
    elif code == "main-guard":
        message = f'`{name}`, used by {user}, is bound under `if __name__ == "__main__"`'
        why = "A step imports the code as a module, so this block does not run there."
        fix = f"move the line that binds `{name}` out of the block, to the top level of the file"
    else:
        message = f"`{name}`, used by {user}, cannot be rebuilt from {what}"
        fix = "make it inside the step, or pass it as an input"
    return Finding(code, message, where, why, fix, source)


def computed_default(function: str, cell: Cell, lines: tuple[int, ...], offence: Offence) -> Finding:
    """A default value is computed when the `def` runs, so in a step it is computed again."""
    where, source = at_node(cell, lines, offence.node)
    return Finding(
        "computed-value",
        f"a default value of `{function}` is {offence.what}",
        where,
        FRESH
        + " A default value would be computed again there, when the code is loaded, and could be slow or different.",
        "use `None` as the default and compute the value inside the function",
        source,
    )


def uncarried_change(name: str, user: str, cell: Cell, lines: tuple[int, ...], offence: Offence) -> Finding:
    where, source = at_node(cell, lines, offence.node)
    return Finding(
        "uncarried-mutation",
        f"`{name}`, used by {user}, is changed here by {offence.what or 'a statement that cannot be repeated'}",
        where,
        "The kernel's value includes this change. It cannot be repeated in a step, and leaving it out would change the result.",
        f"build `{name}` in one cell from literals, or make the change inside the step",
        source,
    )


def shadowed(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, construct: str, earlier: str | None
) -> Finding:
    where, source = at_node(cell, lines, node)
    words = {
        "for": "a loop variable",
        "with": "the target of a `with` block",
        "except": "the target of an `except` clause",
    }
    before = f"; {earlier} binds it before that" if earlier else ""
    return Finding(
        "shadowed-name",
        f"`{name}`, used by {user}, was last bound as {words[construct]}{before}",
        where,
        "The step would get whatever the loop or block left behind, which is rarely what was meant and may not exist at all.",
        f"rename the variable here, run both cells again, or assign `{name}` to a literal after it",
        source,
    )


def changed(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, live: object, others: str
) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "changed-value",
        f"the kernel's `{name}` ({_short(live)}), used by {user}, is not what this line makes{others}",
        where,
        "Something changed it without a statement capture can repeat: a function call, a cell that stopped half-way, or an "
        "object made by code that is gone.",
        f"run this cell again (and what needs it), or assign `{name}` where it gets its final value",
        source,
    )


def vanished(name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "changed-value",
        f"`{name}`, used by {user}, is bound here, but the kernel has no such name now",
        where,
        "The cell probably stopped with an error before this line, or the name was deleted.",
        "run this cell again until it ends without an error",
        source,
    )


def deleted(name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "deleted-name", f"`{name}`, used by {user}, was deleted here", where, "The name does not exist any more.",
        f"remove the `del`, or run the cell that binds `{name}` again", source,
    )  # fmt: skip


def not_in_history(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, live: object, kernel: bool
) -> Finding:
    where, source = at_node(cell, lines, node)
    if kernel and (name in ("In", "Out") or name.strip("_0123456789i") == ""):
        return Finding(
            "kernel-output", f"{user} uses `{name}`, which IPython fills with the results of cells", where, FRESH,
            "assign the value to a name of your own and pass it to the step as an input or parameter", source,
        )  # fmt: skip
    return Finding(
        "no-source",
        f"{user} uses `{name}`, which exists ({_live.describe(live)}) but no executed statement at hand binds it",
        where,
        "It came from `%run`, `exec`, another program's injection or a cleared history: there is no source to ship.",
        f"bind `{name}` in a cell, or import it: `from module import {name}`",
        source,
    )


def undefined(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, known: Iterable[str], broken: str | None
) -> Finding:
    where, source = at_node(cell, lines, node)
    import_line = _CUSTOMARY.get(name)
    if import_line is None and (name in sys.stdlib_module_names or name in _THIRD_PARTY):
        import_line = f"import {name}"
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    if import_line:
        fix = f"add `{import_line}` to a cell and run it"
    elif close:
        fix = f"did you mean `{close[0]}`?"
    else:
        fix = f"bind `{name}` in a cell and run it, or make it a parameter of the step"
    why = "The name is no builtin and no executed cell binds it, so the step would stop with a NameError."
    if broken:
        why += f" {broken} is not valid Python and was left out."
    return Finding("undefined-name", f"{user} uses `{name}`, which does not exist", where, why, fix, source)


def star_import(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, module: str, uses: str
) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "star-import",
        f"`{name}`, used by {user} ({uses}), comes from `from {module} import *`",
        where,
        "A star import hides which names a step needs, and what it brings may differ where the step runs.",
        f"write `from {module} import {name}`",
        source,
    )


def assigned_in_function(
    name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST, function: str
) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "uncarried-mutation",
        f"`{name}`, used by {user}, is only assigned inside `{function}` (through `global`)",
        where,
        "Which value it has depends on a call that happened in this kernel and does not happen in the step.",
        f"let `{function}` return the value and call it inside the step, or bind `{name}` to a literal in a cell",
        source,
    )


def dynamic_code(name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "dynamic-code", f"{user} uses `{name}(...)`", where,
        "Which names such code reads cannot be seen from its source, so what to ship cannot be known.",
        "write the code out, or keep the values in a dict of your own and look them up there", source,
    )  # fmt: skip


def own_file(user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    where, source = at_node(cell, lines, node)
    return Finding(
        "file-path", f"{user} uses `__file__`", where,
        "A step's source runs from another folder on another machine, so paths beside this file do not exist there.",
        "take the files as an input (`rml.datasets.add`), or keep them in a local package and read them with `importlib.resources`",
        source,
    )  # fmt: skip


def kernel_only(name: str, user: str, cell: Cell, lines: tuple[int, ...], node: ast.AST) -> Finding:
    where, source = at_node(cell, lines, node)
    if name == "get_ipython":
        return Finding(
            "magic", f"{user} uses a magic or shell command", where, "Magics and `!commands` exist only in the notebook kernel.",
            "use plain Python instead: `subprocess.run([...], check=True)` for a command, `time.perf_counter()` for a timing",
            source,
        )  # fmt: skip
    return Finding(
        "undefined-name", f"{user} uses `{name}`, which only the notebook kernel has", where, FRESH,
        f"use `print`, or `from IPython.display import {name}` inside the step", source,
    )  # fmt: skip


def _short(value: object) -> str:
    if _live.is_plain(value) and not (hasattr(value, "__len__") and len(value) > 50):
        text = repr(value)
        if len(text) <= 60:
            return text
    return _live.describe(value)
