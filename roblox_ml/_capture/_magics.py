"""Line magics that stand for plain statements: `%time x = f()` runs `x = f()`, `%env A=b` sets a variable, `%timeit` runs often.

IPython has already rewritten them to `get_ipython().run_line_magic("time", "x = f()")`. Everything else magic stays what it is.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Magic:
    """A magic by name, and the code or text it was given."""

    name: str
    text: str


_ENVIRON = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:=|\s)\s*([^${}]*?)\s*$")
_OPTIONS = re.compile(r"(?:\s*-\w+(?:\s+\d+)?)+")


def magic_of(node: ast.stmt) -> Magic | None:
    """The magic a statement consists of, with literal arguments."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return None
    func = node.value.func
    if not isinstance(func, ast.Attribute) or func.attr not in ("run_line_magic", "run_cell_magic"):
        return None
    try:
        name, *texts = (str(ast.literal_eval(argument)) for argument in node.value.args)
    except ValueError:
        return None
    if func.attr == "run_cell_magic":
        name, texts = f"%{name}", texts[1:]
    return Magic(name, "\n".join(texts))


def code_of(magic: Magic) -> str | None:
    """The plain Python a line magic runs once, or None."""
    if magic.name == "time":
        return magic.text.strip() or None
    if magic.name in ("env", "set_env") and (match := _ENVIRON.match(magic.text)):
        return f'__import__("os").environ[{match[1]!r}] = {match[2]!r}'
    return None


def repeated_code_of(magic: Magic) -> str | None:
    """The code that `%timeit` ran in names of its own, nobody knows how often."""
    if magic.name not in ("timeit", "%timeit", "prun"):
        return None
    return _OPTIONS.sub("", magic.text, count=1).strip() if magic.text.lstrip().startswith("-") else magic.text.strip()
