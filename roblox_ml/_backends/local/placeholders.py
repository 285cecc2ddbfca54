"""Placeholders of the IR replaced by a task's values: `{{$}}`, inputs and outputs by name, run and task names.

Pure text work: commands, arguments and string constants go in with `{{$.…}}` in them, and come out without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import RunError

__all__ = ["constant", "resolve"]

_FIELD = re.compile(
    r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\[(['\"])(.+?)\3\](?:\.(\w+)|\[(['\"])(\w+)\6\])?\}\}"
)
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\[(['\"])(.+?)\1\]\}\}")


def resolve(
    parts: Sequence[str], executor_input: Mapping[str, Any], names: Mapping[str, str], whole: str | None = None
) -> list[str]:
    """Command and arguments with every placeholder replaced. `names`: constants by placeholder; `whole`: for `{{$}}`."""
    text = json.dumps(executor_input) if whole is None else whole
    resolved = []
    for part in _flatten(parts, executor_input):
        value = part.replace("{{$}}", text)
        value = value.replace("{{$.outputs.output_file}}", executor_input["outputs"]["outputFile"])
        value = value.replace("{{$.outputMetadataUri}}", executor_input["outputs"]["outputFile"])
        for placeholder, replacement in names.items():
            value = value.replace(placeholder, replacement)
        resolved.append(_FIELD.sub(lambda m: _field(m, executor_input), value))
    return resolved


def constant(value: Any, parameters: Mapping[str, Any]) -> Any:
    """A constant of the IR; strings in it may quote the enclosing component's inputs."""
    if isinstance(value, str) and "{{$." in value:
        return _INPUT.sub(lambda m: _as_text(parameters.get(m[2])), value)
    if isinstance(value, list):
        return [constant(item, parameters) for item in value]
    if isinstance(value, dict):
        return {constant(key, parameters): constant(item, parameters) for key, item in value.items()}
    return value


def _field(match: re.Match[str], executor_input: Mapping[str, Any]) -> str:
    side, kind, _, name, attribute, _, key = match.groups()
    attribute = attribute or key
    if kind == "parameters":
        if side == "inputs":
            return _as_text((executor_input["inputs"].get("parameterValues") or {}).get(name))
        return str(executor_input["outputs"]["parameters"][name]["outputFile"])
    artifact = executor_input[side]["artifacts"][name]["artifacts"][0]
    # On this machine an artifact's URI is its path.
    return _as_text(artifact.get("uri" if attribute in ("uri", "path", None) else attribute))


def _flatten(parts: Sequence[str], executor_input: Mapping[str, Any]) -> list[str]:
    """Concat and IfPresent placeholders are JSON texts that become none, one or several arguments."""
    inputs = executor_input.get("inputs") or {}
    provided = {name for name, value in (inputs.get("parameterValues") or {}).items() if value is not None}
    provided |= set(inputs.get("artifacts") or {})
    flat: list[str] = []
    for part in parts:
        if part.startswith(('{"Concat": ', '{"IfPresent": ')):
            flat += _structure(json.loads(part), provided)
        else:
            flat.append(part)
    return flat


def _structure(node: Any, provided: set[str]) -> list[str]:
    if isinstance(node, str):
        return [node]
    if isinstance(node, list):
        return [text for item in node for text in _structure(item, provided)]
    if "Concat" in node:
        return ["".join(text for item in node["Concat"] for text in _structure(item, provided))]
    if "IfPresent" in node:
        choice = node["IfPresent"]
        branch = choice.get("Then") if choice["InputName"] in provided else choice.get("Else")
        return [] if branch is None else _structure(branch, provided)
    raise RunError(f"a placeholder of the IR is not understood: {json.dumps(node)[:80]}")


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
