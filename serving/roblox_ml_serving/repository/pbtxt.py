"""Protobuf text format, as much of it as a Triton configuration needs: deterministic, escaped, readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Enum", "Value", "render"]


@dataclass(frozen=True, slots=True)
class Enum:
    """A bare word: enum values are not quoted."""

    word: str


# A message is a mapping; a repeated field is a sequence.
Value: TypeAlias = "str | int | bool | Enum | Mapping[str, Value] | Sequence[Value]"


def render(message: Mapping[str, Value], indent: str = "") -> str:
    """The message's fields in the order given, one a line; nested messages in braces."""
    lines: list[str] = []
    for name, value in message.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name} {{", render(value, indent + "  ").rstrip("\n"), f"{indent}}}"]
            if not value:
                lines[-3:] = [f"{indent}{name} {{ }}"]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(item, Mapping) for item in value):
                lines += [render({name: item}, indent).rstrip("\n") for item in value]
            else:
                lines.append(f"{indent}{name}: [{', '.join(scalar(item) for item in value)}]")
        else:
            lines.append(f"{indent}{name}: {scalar(value)}")
    return "\n".join(lines) + "\n"


def scalar(value: Value) -> str:
    """One value as text. A string is UTF-8 bytes; all but printable ASCII is escaped in octal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Enum):
        return value.word
    if isinstance(value, str):
        body = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in value.encode())
        return f'"{body}"'
    raise TypeError(f"{type(value).__name__} has no place in a scalar field")
