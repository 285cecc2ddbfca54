"""The KFP executor protocol: executor input in, the user's function called, executor output and artifacts out.

KFP's own executor does the same and needs KFP installed; this one needs Python, so that a step's environment holds only
what the step imports. What it reads and writes is KFP's JSON, hence a step runs alike under our local executor, under
`kfp.local` and behind the launcher in a cluster. A failing step exits with 1 after a traceback that shows the user's
lines only.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._artifacts import Artifact, load_artifact
from ..errors import RmlSdkError
from . import outputs, values

if TYPE_CHECKING:
    from .bootstrap import Arguments

__all__ = ["StepError", "call", "lineage_of", "load_entry", "local_path", "read_inputs", "run", "whereabouts"]

# How the launcher in a cluster mounts remote artifacts; a plain path or file URL is itself.
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/", "file://": ""}
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OUTPUT_PLACE = re.compile(rf"/(?P<pipeline>[^/]+)/(?P<run>{_UUID})/(?P<task>[^/]+)/{_UUID}/[^/]+\.json$")


class StepError(RmlSdkError):
    """A step's inputs or outputs are not what its signature says."""


def run(arguments: Arguments, folder: Path | None) -> int:
    """Execute one step; the exit code. `folder` is the unpacked code bundle."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)  # a log that arrives after the crash explains nothing
    ended: BaseException | None = None
    try:
        executor_input = json.loads(arguments.executor_input)
        for name, value in whereabouts(executor_input).items():
            os.environ.setdefault(name, value)
        _begin(executor_input, arguments)
        call(executor_input, arguments.entry, arguments.code, arguments.lock)
    except SystemExit as stop:
        ended = stop
        return _exit_code(stop)
    except BaseException as error:
        from . import tracebacks

        ended = error
        sys.stdout.flush()
        print(tracebacks.render(error, folder), file=sys.stderr, flush=True)
        return 1
    finally:
        _finish(ended)
    return 0


def call(executor_input: Mapping[str, Any], entry: str, code: str, lock: str) -> Any:
    """Call `entry` with what `executor_input` says, write the outputs where it says; the function's return value."""
    function = load_entry(entry)
    inputs = read_inputs(function, executor_input)
    returned = function(**inputs)
    lineage = lineage_of(entry, code, lock, inputs)
    outputs.write(executor_input, function, inputs, returned, lineage)
    return returned


def load_entry(entry: str) -> Callable[..., Any]:
    """`module:function`; a decorated step gives the plain function it wraps."""
    module_name, _, qualified = entry.partition(":")
    found: Any = import_module(module_name)
    for part in qualified.split("."):
        found = getattr(found, part)
    # `@rml.step` may still be on the definition; what runs is the function itself.
    function = getattr(found, "function", None) or inspect.unwrap(found)
    return typing.cast("Callable[..., Any]", function)


def read_inputs(function: Callable[..., Any], executor_input: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments from the executor input; what is absent or null is left to the function's default."""
    given = executor_input.get("inputs") or {}
    hints = values.hints_of(function)
    parameters = inspect.signature(function).parameters
    arguments: dict[str, Any] = {}
    for name, value in (given.get("parameterValues") or {}).items():
        known = parameters.get(name)
        if value is None and known is not None and known.default is not inspect.Parameter.empty:
            continue
        arguments[name] = values.from_json(value, hints.get(name))
    for name, listed in (given.get("artifacts") or {}).items():
        loaded = [_input_artifact(artifact, name) for artifact in listed.get("artifacts") or []]
        if values.is_list(hints.get(name)):
            arguments[name] = loaded
        elif len(loaded) == 1:
            arguments[name] = loaded[0]
        elif loaded:
            raise StepError(
                f"the input {name!r} received {len(loaded)} artifacts, and is declared as one",
                fix=f"declare it as a list: `{name}: list[rml.{type(loaded[0]).__name__}]`",
            )
    missing = [
        name
        for name, known in parameters.items()
        if name not in arguments
        and known.default is inspect.Parameter.empty
        and known.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    for name in list(missing):
        if values.is_optional(hints.get(name)):
            arguments[name] = None
            missing.remove(name)
    if missing:
        raise StepError(f"no value arrived for {', '.join(missing)}", fix="compile the pipeline again")
    return arguments


def whereabouts(executor_input: Mapping[str, Any]) -> dict[str, str]:
    """Pipeline, run and task, as a cluster's driver writes them into the place of the outputs.

    `<root>/<pipeline>/<run id>/<task>/<execution id>/output_metadata.json`: nothing else in a pod says them, and they may
    not be in the IR, whose bytes are the same for every run. Empty where the path is another (the local executor's).
    """
    found = _OUTPUT_PLACE.search(str((executor_input.get("outputs") or {}).get("outputFile") or ""))
    if found is None:
        return {}
    return {"RML_PIPELINE": found["pipeline"], "RML_RUN_ID": found["run"], "RML_TASK": found["task"]}


def lineage_of(entry: str, code: str, lock: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the metadata of every output artifact: who made it, and from which data sets."""
    lineage: dict[str, Any] = {
        "rml.step": entry.partition(":")[2],
        "rml.code": code,
        "rml.lock": lock,
        "rml.run": os.environ.get("RML_RUN_ID") or os.environ.get("KFP_RUN_ID") or "",
        "rml.task": os.environ.get("RML_TASK") or "",
    }
    data: set[str] = set()
    for value in inputs.values():
        for artifact in value if isinstance(value, list) else [value]:
            if isinstance(artifact, Artifact):
                data.update(artifact.metadata.get("rml.data") or [])
    if data:
        lineage["rml.data"] = sorted(data)
    return lineage


def local_path(uri: str) -> str:
    """Where an artifact of this URI lies on this machine."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri[len(scheme) :]
    return uri


def _begin(executor_input: Mapping[str, Any], arguments: Arguments) -> None:
    """Where the step keeps what it reports and shows: beside its executor output, also in processes it starts."""
    output = (executor_input.get("outputs") or {}).get("outputFile")
    if output:
        os.environ["RML_TASK_FOLDER"] = str(Path(output).parent)
    if os.environ.get("RML_MLFLOW_URL"):
        from . import tracking

        tracking.begin(arguments.lock)


def _finish(error: BaseException | None) -> None:
    """Cards and tracking hear how the step ended, if it used them; neither may change how."""
    for name in ("roblox_ml._cards.collect", "roblox_ml._runtime.tracking"):
        used = sys.modules.get(name)
        if used is not None:
            try:
                used.finish(error)
            except Exception as problem:
                print(f"roblox_ml: {name} could not finish: {problem}", file=sys.stderr, flush=True)


def _input_artifact(artifact: Mapping[str, Any], name: str) -> Artifact:
    uri = artifact.get("uri") or ""
    path = Path(artifact.get("customPath") or local_path(uri))
    if not path.exists():
        # An object store keeps no empty folders: an artifact of metadata alone arrives without one.
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise StepError(f"the input {name!r} is not at {path}: {error}") from error
    title = (artifact.get("type") or {}).get("schemaTitle") or "system.Artifact"
    metadata = values.integral(artifact.get("metadata") or {})
    return load_artifact(title, path, name=artifact.get("name") or name, uri=uri, metadata=metadata)


def _exit_code(stop: SystemExit) -> int:
    """`sys.exit()` in a step: as Python has it, but leaving before the outputs are written is a failure."""
    if isinstance(stop.code, int) and stop.code:
        return stop.code
    reason = "" if stop.code in (None, 0) else f": {stop.code}"
    print(f"the step called sys.exit(){reason} before it returned, so it has no outputs", file=sys.stderr, flush=True)
    return 1
