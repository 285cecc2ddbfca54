"""What the server refuses, in the words it was heard to use. Answers that were not recorded are marked so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from .recording import recorded

Refusal = tuple[int, Any]
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_DAYS, _MONTHS = "sun mon tue wed thu fri sat", "jan feb mar apr may jun jul aug sep oct nov dec"
_TYPES: Mapping[str, tuple[tuple[type, ...], str, str]] = {
    "NUMBER_INTEGER": ((int, float), "double or integer", "number"),
    "NUMBER_DOUBLE": ((int, float), "double or integer", "number"),
    "STRING": ((str,), "string", "string"),
    "BOOLEAN": ((bool,), "boolean", "bool"),
    "LIST": ((list,), "list", "list"),
    "STRUCT": ((dict,), "struct", "struct"),
}


def documents(data: bytes) -> dict[str, Any] | None:
    """The uploaded file as the server keeps it, or None: `unknown template format`. It does not look further at upload."""
    try:
        found = [d for d in yaml.load_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if d is not None]
    except yaml.YAMLError:
        return None
    specs = [d for d in found if isinstance(d, dict) and d.get("schemaVersion") == "2.1.0" and "root" in d]
    platforms = [d for d in found if isinstance(d, dict) and "platforms" in d]
    if len(specs) != 1 or len(specs) + len(platforms) != len(found):
        return None
    spec = json.loads(json.dumps(specs[0]))
    return {"pipeline_spec": spec, "platform_spec": platforms[0]} if platforms else spec


def inner(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline spec, whether or not a platform document came with it."""
    found: dict[str, Any] = spec.get("pipeline_spec", spec)
    return found


def dangling(spec: Mapping[str, Any]) -> Refusal | None:
    """A component that is not there: accepted at upload, refused here. The status was seen, the words are ours."""
    components = spec.get("components") or {}
    dags = [spec["root"]["dag"], *(c["dag"] for c in components.values() if "dag" in c)]
    for dag in dags:
        for task in (dag.get("tasks") or {}).values():
            name = task["componentRef"]["name"]
            if name not in components:
                return _refusal(
                    500,
                    13,
                    "Failed to create a new run: Failed to generate the ExecutionSpec",
                    f"component {name!r} not found",
                )
    return None


def parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> Refusal | None:
    """Missing, unknown or of the wrong type."""
    declared = ((spec["root"].get("inputDefinitions") or {}).get("parameters")) or {}
    for name, about in declared.items():
        if name not in given and "defaultValue" not in about and not about.get("isOptional"):
            return 400, _told("is not optional", "parameter a is", f"parameter {name} is")
    unknown = sorted(set(given) - set(declared))
    if unknown:
        return 400, _told("not required by pipeline", "pipeline: zz", f"pipeline: {', '.join(unknown)}")
    for name, value in given.items():
        accepted, wanted, shown = _TYPES.get(declared[name].get("parameterType", ""), ((object,), "", ""))
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted not in ("boolean", "")):
            old = "parameter a requires type double or integer, but the parameter value is not of number"
            return 400, _told(
                "not of number value type",
                old,
                f"parameter {name} requires type {wanted}, but the parameter value is not of {shown}",
            )
    return None


def cron(expression: str) -> Refusal | None:
    """5 or 6 fields, read as seconds first (`robfig/cron`): five are accepted, and mean something else than people think."""
    fields = expression.split()
    said = "Expected 5 to 6 fields, found 3: not a cron"
    if not 5 <= len(fields) <= 6:
        return 400, _recurring(said, f"Expected 5 to 6 fields, found {len(fields)}: {expression}")
    for text, (low, high) in zip(fields, _BOUNDS, strict=False):
        for part in re.split(r"[,/-]", text):
            if part in ("*", "?") or part.lower() in f"{_DAYS} {_MONTHS}".split(" "):
                continue
            if not part.isdigit():
                return 400, _recurring(
                    said, f"Failed to parse int from {part}: strconv.Atoi: parsing {part!r}: invalid syntax"
                )  # ours
            if "/" not in text and not low <= int(part) <= high:
                return 400, _recurring(said, f"Value ({part}) out of range [{low}, {high}]: {text}")  # ours
    return None


def at_once(value: Any) -> Refusal | None:
    """1 to 10 runs at once. The words are ours."""
    if 1 <= int(value or 0) <= 10:
        return None
    return _refusal(
        400, 3, "Failed to create a recurring run: Invalid input error", f"max_concurrency {value} is not in [1, 10]"
    )


def not_found(kind: str, identifier: str) -> Refusal:
    """404 for a thing of this kind; runs were recorded, the others follow them."""
    text = json.dumps(recorded("GET", "/runs/0000", 404)).replace("00000000-0000-0000-0000-000000000000", identifier)
    if kind != "run":
        text = text.replace("a run", f"a {kind}").replace("run ", f"{kind} ").replace("Run ", f"{kind.capitalize()} ")
    return 404, json.loads(text)


def not_retriable(run: str) -> Refusal:
    """A run that has no workflow yet."""
    text = json.dumps(recorded("POST", "/runs/.*:retry", 409))
    return 409, json.loads(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run, text))


def not_failed(run: str) -> Refusal:
    """A run that goes on or succeeded. Not recorded: the words are ours."""
    return _refusal(
        400, 3, "Failed to retry a run: Invalid input error", f"Workflow of run {run} must be Failed/Error to retry"
    )


def no_log(run: str, node: str) -> Refusal:
    """The archive has none. The real server says so with status 200, as if it were the log."""
    text = json.dumps(recorded_log())
    old = re.search(r"for run ([0-9a-f-]{36})", text)
    assert old is not None
    return 200, json.loads(
        text.replace(old.group(1), run)
        .replace("/x/main.log", f"/{node}/main.log")
        .replace("archive x ", f"archive {node} ")
    )


def recorded_log() -> Any:
    from .recording import exchanges

    return next(e["response"] for e in exchanges() if e["path"].endswith("/nodes/x/log"))


def _told(containing: str, old: str, new: str) -> Any:
    return json.loads(json.dumps(recorded("POST", "/runs", 400, containing)).replace(old, json.dumps(new)[1:-1]))


def _recurring(old: str, new: str) -> Any:
    return json.loads(json.dumps(recorded("POST", "/recurringruns", 400)).replace(old, json.dumps(new)[1:-1]))


def _refusal(status: int, code: int, context: str, message: str) -> Refusal:
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
    return status, {"code": code, "details": [detail], "message": f"{context}: {message}"}
