"""Compare what the kernel holds with what the source would make, cheaply and without running the user's code.

A verdict of "different" means that a fresh process would not have what the kernel has: a hidden change, a cell that
stopped half-way, an object made by an older definition. "unknown" never refuses anything.
"""

from __future__ import annotations
import __future__

import ast
import dis
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Literal

from roblox_ml._capture._policy import COUNT_LIMIT, LITERAL_LIMIT
from roblox_ml._capture._scopes import FunctionNode, immediate_nodes
from roblox_ml._capture._standins import STAND_INS, same_shape
from roblox_ml._capture._statements import Statement

Verdict = Literal["same", "different", "unknown"]

_FACTORIES: tuple[Callable[[], object], ...] = (list, dict, set)
_PLAIN = (int, float, str, bytes, bool, complex, type(None), list, tuple, dict, set, frozenset)


def is_plain(value: object) -> bool:
    """A builtin scalar or container: data, not a live object."""
    return isinstance(value, _PLAIN)


def is_data(value: object) -> bool:
    """Plain, or something else that only holds data and can be compared: arrays, deques, simple namespaces."""
    return is_plain(value) or isinstance(value, deque | SimpleNamespace) or _is_array(value)


def _is_array(value: object) -> bool:
    return (type(value).__module__, type(value).__name__) == ("numpy", "ndarray")


def describe(value: object) -> str:
    """`DataFrame (1,000 x 3)`, `list of 2,000,000 elements`, `openai.OpenAI`: what a message calls a value."""
    kind = type(value)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    shape = getattr(value, "shape", None) if not isinstance(value, type) else None
    if isinstance(shape, tuple) and shape and all(isinstance(side, int) for side in shape):
        return f"{name} of shape {' x '.join(f'{side:,}' for side in shape)}"
    if isinstance(value, str | bytes):
        return f"{name} of length {len(value):,}"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{name} of {len(value):,} element{'' if len(value) == 1 else 's'}"
    return name


def too_big(value: object) -> bool:
    """Whether a carried value is so large that it is data, not configuration."""
    if isinstance(value, list | tuple | dict | set | frozenset):
        return len(value) > COUNT_LIMIT
    if isinstance(value, str | bytes | bytearray):
        return len(value) > 64 * LITERAL_LIMIT
    size = getattr(value, "nbytes", None)
    return isinstance(size, int) and not isinstance(value, type) and size > 64 * LITERAL_LIMIT


def function_of(value: object) -> FunctionType | None:
    """The plain function inside a step, a `functools.wraps` wrapper, a method or a partial."""
    for _ in range(20):
        if isinstance(value, FunctionType) and not hasattr(value, "__wrapped__"):
            return value
        for attribute in ("__wrapped__", "fn", "__func__", "func"):
            inner = getattr(value, "__dict__", {}).get(attribute) or (
                getattr(value, attribute, None) if attribute in ("__wrapped__", "__func__", "fn") else None
            )
            if callable(inner) and inner is not value:
                value = inner
                break
        else:
            return value if isinstance(value, FunctionType) else None
    return None


def verify(statement: Statement, name: str, value: object, future: Iterable[str]) -> Verdict:
    """Whether `value` is what `statement`, an import or a definition, binds to `name`."""
    if statement.alias is not None:
        return _verify_import(statement, value)
    if isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = function_of(value)
        if function is None or function.__code__.co_name != statement.node.name:
            return "unknown" if statement.node.decorator_list else "different"
        return same_code(statement, function.__code__, future)
    if isinstance(statement.node, ast.ClassDef):
        if not isinstance(value, type):
            return "unknown" if statement.node.decorator_list else "different"
        return _verify_class(statement, value, future)
    return "unknown"


def _verify_import(statement: Statement, value: object) -> Verdict:
    alias = statement.alias
    assert alias is not None
    if alias.name is not None:
        return "unknown"
    if not isinstance(value, ModuleType):
        return "different"
    expected = sys.modules.get(alias.target)
    return "same" if expected is value else "unknown" if expected is None else "different"


_code_cache: dict[tuple[str, int], dict[str, CodeType]] = {}


def _codes(statement: Statement, future: Iterable[str]) -> dict[str, CodeType]:
    """Code objects of the functions `statement` defines, by qualified name."""
    flags = 0
    for feature in future:
        flags |= getattr(__future__, feature).compiler_flag
    key = (statement.text, flags)
    if key not in _code_cache:
        if len(_code_cache) > 4096:
            _code_cache.clear()
        module = compile(statement.text, "<statement>", "exec", flags=flags, dont_inherit=True)
        found: dict[str, CodeType] = {}
        stack = [module]
        while stack:
            for constant in stack.pop().co_consts:
                if isinstance(constant, CodeType):
                    found.setdefault(constant.co_qualname, constant)
                    stack.append(constant)
        _code_cache[key] = found
    return _code_cache[key]


def same_code(statement: Statement, code: CodeType, future: Iterable[str]) -> Verdict:
    """Whether `code` is what `statement` compiles to, line numbers and file names aside."""
    expected = _codes(statement, future).get(code.co_name)
    if expected is None:
        return "unknown"
    return "same" if _equal_code(expected, code) else "different"


def _equal_code(left: CodeType, right: CodeType) -> bool:
    if (left.co_names, left.co_varnames, left.co_freevars, left.co_cellvars) != (
        right.co_names, right.co_varnames, right.co_freevars, right.co_cellvars,
    ):  # fmt: skip
        return False
    if left.co_code != right.co_code and _operations(left) != _operations(right):
        return False
    if len(left.co_consts) != len(right.co_consts):
        return False
    for a, b in zip(left.co_consts, right.co_consts, strict=True):
        if isinstance(a, CodeType) and isinstance(b, CodeType):
            if not _equal_code(a, b):
                return False
        elif type(a) is not type(b) or (repr(a) != repr(b) and a != b):
            return False
    return True


_SAME_CALL = {"LOAD_METHOD": "LOAD_ATTR"}
_CALL_NOISE = frozenset({"PUSH_NULL", "PRECALL", "CACHE", "NOP", "EXTENDED_ARG"})


def _operations(code: CodeType) -> list[tuple[str, object]]:
    """What the code does, without what depends on the rest of the file: the compiler calls `np.sum` in another way when it has seen
    `import numpy as np` in the same piece of source."""
    jumps = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
    return [
        (
            _SAME_CALL.get(i.opname, i.opname),
            None if i.opcode in jumps or isinstance(i.argval, CodeType) else repr(i.argval),
        )
        for i in dis.get_instructions(code)
        if i.opname not in _CALL_NOISE
    ]


def _verify_class(statement: Statement, value: type, future: Iterable[str]) -> Verdict:
    node = statement.node
    assert isinstance(node, ast.ClassDef)
    codes = _codes(statement, future)
    for inner in node.body:
        if isinstance(inner, FunctionNode):
            function = function_of(vars(value).get(inner.name))
            if function is None or function.__code__.co_name != inner.name:
                continue
            expected = codes.get(f"{node.name}.{inner.name}")
            if expected is not None and not _equal_code(expected, function.__code__):
                return "different"
    return "unknown"


def verify_state(statement: Statement, value: object) -> Verdict:
    """Whether a class or function, changed by no statement, still holds the plain values written into it.

    `Config.lr = 2` done by a function, or a list as default value that a call has filled, shows here. Only where Python
    itself put the value: decorators, metaclasses and `__init_subclass__` of others may rightly have made something else.
    """
    if isinstance(statement.node, ast.ClassDef) and type(value) is type:
        inherits = any("__init_subclass__" in vars(base) for base in value.__mro__[1:-1])
        if statement.node.decorator_list or statement.node.keywords or inherits:
            return "unknown"
        pairs = [(node, vars(value).get(name, node)) for name, node in _attributes(statement.node)]
    elif isinstance(statement.node, ast.FunctionDef) and isinstance(value, FunctionType):
        if statement.node.decorator_list:
            return "unknown"
        given, by_name = statement.node.args, value.__kwdefaults__ or {}
        pairs = list(zip(given.defaults, value.__defaults__ or (), strict=False))
        pairs += [
            (d, by_name[a.arg])
            for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
            if d and a.arg in by_name
        ]
    else:
        return "unknown"
    for node, live in pairs:
        try:
            expected = ast.literal_eval(node)
        except (ValueError, TypeError):
            continue
        if type(live) in _PLAIN and not equal(expected, live):
            return "different"
    return "unknown"


def _attributes(node: ast.ClassDef) -> Iterable[tuple[str, ast.expr]]:
    """Attributes a class body assigns once, and does not go on with itself."""
    named = [inner.id for part in node.body for inner in immediate_nodes(part) if isinstance(inner, ast.Name)]
    for inner in node.body:
        targets = inner.targets if isinstance(inner, ast.Assign) else [getattr(inner, "target", None)]
        value = inner.value if isinstance(inner, ast.Assign | ast.AnnAssign) else None
        for target in targets:
            if value is not None and isinstance(target, ast.Name) and named.count(target.id) == 1:
                yield target.id, value


def equal(left: object, right: object) -> bool:
    """Equality of builtin data, NaN equal to itself and 1 unlike True; containers of other things compare by `==`."""
    if isinstance(left, STAND_INS):
        return same_shape(left, right, equal)
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (left != left and right != right)
    if isinstance(left, list | tuple):
        assert isinstance(right, list | tuple)
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        assert isinstance(right, dict)
        return len(left) == len(right) and all(key in right and equal(item, right[key]) for key, item in left.items())
    if isinstance(left, deque):
        assert isinstance(right, deque)
        return left.maxlen == right.maxlen and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, SimpleNamespace):
        return equal(vars(left), vars(right))
    if _is_array(left):
        return _equal_arrays(left, right)
    return bool(left == right)


def _equal_arrays(left: Any, right: Any) -> bool:
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    return bool(left.tobytes() == right.tobytes()) or equal(left.tolist(), right.tolist())


def verify_record(
    statement: Statement, changes: Iterable[Statement], node: ast.ClassDef | None, value: object
) -> Verdict:
    """Compare a dataclass instance with the literals it was made of: `cfg.lr = 1` done by a function shows here."""
    call = getattr(statement.node, "value", None)
    fields: Mapping[str, Any] = getattr(type(value), "__dataclass_fields__", {})
    if not isinstance(call, ast.Call) or node is None or not fields or type(value).__name__ != node.name:
        return "unknown"
    written = dict(zip(fields, call.args, strict=False)) | {k.arg: k.value for k in call.keywords if k.arg}
    for change in changes:
        target = change.node.targets[0] if isinstance(change.node, ast.Assign) else None
        if not isinstance(target, ast.Attribute) or not isinstance(target.value, ast.Name):
            return "unknown"
        assert isinstance(change.node, ast.Assign)
        written[target.attr] = change.node.value
    for name, expression in written.items():
        try:
            expected = ast.literal_eval(expression)
        except (ValueError, TypeError):
            continue
        if not equal(expected, getattr(value, name, None)):
            return "different"
    for name, spec in fields.items():
        default = spec.default_factory() if spec.default_factory in _FACTORIES else spec.default
        if name not in written and is_plain(default) and not equal(default, getattr(value, name, None)):
            return "different"
    return "same"
