"""The conditions of pipeline IR: the subset of CEL that compilers of KFP pipelines emit, parsed and evaluated.

    inputs.parameter_values['pipelinechannel--count-Output'] > 10
    !(int(inputs.parameter_values['n']) == 0) && inputs.parameter_values['s'] != 'x'

Literals, comparisons, `in`, arithmetic, `! && || ()`, lists, and the conversions int/double/string/bool/size. A small
parser instead of Python's `eval`: IR is data, and `true` or `&&` are not Python.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import RunError

__all__ = ["ConditionError", "evaluate"]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<symbol>&&|\|\||[=!<>]=|[-+*/%<>!()\[\],]))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda item, container: item in container,
}
_SUM: Mapping[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub}
_PRODUCT: Mapping[str, Callable[[Any, Any], Any]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}
_INPUTS = "inputs.parameter_values"


class ConditionError(RunError):
    """A condition that is not of the subset, or that does not fit its values."""


def evaluate(expression: str, parameters: Mapping[str, Any]) -> bool:
    """The condition's value, given the task's own input parameters."""
    reader = _Reader(expression, parameters)
    try:
        value = reader.either()
        reader.end()
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConditionError(f"the condition {expression} cannot be evaluated: {error}") from error
    if not isinstance(value, bool):
        raise ConditionError(f"the condition {expression} is {value!r}, not true or false")
    return value


class _Reader:
    """Recursive descent, one method per level of precedence. Values are computed while parsing."""

    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        self.text = text
        self.parameters = parameters
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise ConditionError(f"the condition {text} is not understood at {text[position:].strip()[:20]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match[kind]))
            position = match.end()

    def either(self) -> Any:
        value = self.both()
        while self._take("||"):
            other = self.both()
            value = bool(value) or bool(other)
        return value

    def both(self) -> Any:
        value = self.comparison()
        while self._take("&&"):
            other = self.comparison()
            value = bool(value) and bool(other)
        return value

    def comparison(self) -> Any:
        value = self.sum()
        symbol = self._take(*_COMPARE)
        return _COMPARE[symbol](value, self.sum()) if symbol else value

    def sum(self) -> Any:
        value = self.product()
        while symbol := self._take(*_SUM):
            value = _SUM[symbol](value, self.product())
        return value

    def product(self) -> Any:
        value = self.unary()
        while symbol := self._take(*_PRODUCT):
            value = _PRODUCT[symbol](value, self.unary())
        return value

    def unary(self) -> Any:
        if self._take("!"):
            return not self.unary()
        if self._take("-"):
            return -self.unary()
        return self.primary()

    def primary(self) -> Any:
        if self._take("("):
            value = self.either()
            self._expect(")")
            return value
        if self._take("["):
            return self._list("]")
        kind, text = self._next()
        if kind == "number":
            return int(text) if text.isdigit() else float(text)
        if kind == "string":
            return ast.literal_eval(text)
        if text in ("true", "false"):
            return text == "true"
        if text == "null":
            return None
        if text == _INPUTS:
            self._expect("[")
            name = self.primary()
            self._expect("]")
            if name not in self.parameters:
                raise ConditionError(f"the condition {self.text} reads {name}, which the task does not receive")
            return self.parameters[name]
        if kind == "name" and self._take("("):
            return self._call(text, self._list(")"))
        raise ConditionError(f"the condition {self.text} is not understood at {text!r}")

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise ConditionError(f"the condition {self.text} is not understood at {self.tokens[self.at][1]!r}")

    def _call(self, name: str, arguments: list[Any]) -> Any:
        conversions: Mapping[str, Callable[[Any], Any]] = {
            "int": int,
            "double": float,
            "string": _string,
            "bool": lambda v: v if isinstance(v, bool) else str(v).lower() == "true",
            "size": len,
        }
        if name not in conversions or len(arguments) != 1:
            raise ConditionError(f"the condition {self.text} calls {name}(), which is not supported")
        return conversions[name](arguments[0])

    def _list(self, closing: str) -> list[Any]:
        values: list[Any] = []
        while not self._take(closing):
            if values:
                self._expect(",")
            values.append(self.either())
        return values

    def _next(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise ConditionError(f"the condition {self.text} ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _take(self, *symbols: str) -> str:
        """The next token if it is one of these symbols (or the word `in`), else an empty string."""
        if self.at < len(self.tokens):
            kind, text = self.tokens[self.at]
            if kind in ("symbol", "name") and text in symbols:
                self.at += 1
                return text
        return ""

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
            raise ConditionError(f"the condition {self.text} needs {symbol!r} before {found!r}")


def _string(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
