"""From a pipeline to something that can run: trace, capture, lock, bundle, check, emit.

`prepare` is the one place where the parts meet. It asks each of them for everything it has to say and raises all of it
as one error, so that a user repairs a pipeline in one round and not in twenty.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._graph.arguments import check_arguments
from ._graph.dump import dump_ir
from ._graph.ir import CodeRef, to_ir
from ._graph.links import link
from ._graph.model import Component, Graph
from ._graph.schedule import fill, is_template
from ._graph.trace import trace
from ._graph.validate import validate
from ._graph.where import of_function
from .errors import CaptureError, Finding, GraphError, PipelineError
from .notify import Notification

if TYPE_CHECKING:
    from ._capture import Bundle
    from ._graph.pipeline import Pipeline
    from ._graph.schedule import Schedule, Trigger

__all__ = ["Built", "prepare", "write_file"]

NO_CODE = "none"


@dataclass(frozen=True, slots=True)
class Built:
    """A pipeline ready to run.

    `ir` is what every backend reads; `blobs` are the bytes it refers to by digest (SDK, bundles, locks). `steps` maps
    component names to the digests of their code, `arguments` are the checked values of a run's parameters.
    """

    name: str
    ir: bytes
    blobs: Mapping[str, bytes]
    graph: Graph
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    triggers: tuple[Trigger, ...] = ()
    notify: tuple[Notification, ...] = ()
    steps: Mapping[str, CodeRef] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Parts:
    """What capturing the steps of one pipeline gave."""

    code: dict[str, CodeRef] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lines: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare(pipeline: Pipeline, arguments: Mapping[str, Any] | None = None) -> Built:
    """Build a pipeline for a run with these arguments (None: for no particular run, as `compile` does)."""
    graph, found = trace(pipeline.name, pipeline.function)
    in_graph = [*pipeline._own_findings(), *found]
    given: dict[str, Any] = {}
    if arguments is not None:
        given, wrong = check_arguments(graph, {**_due_today(graph, arguments), **arguments})
        in_graph += wrong
    links = link(graph)
    # Tracing's findings leave holes in the graph; its shape is judged when they are mended.
    in_graph = in_graph or validate(graph, links)
    parts = _capture_steps(graph)
    if in_graph or parts.findings:
        raise _error(pipeline.name, in_graph, parts.findings)
    notes = list(dict.fromkeys(parts.notes))
    if arguments is not None:
        notes += _since_last_run(pipeline.name, parts)
        if notes:
            _say(notes)
    ir = dump_ir(to_ir(graph, parts.code, links=links))
    return Built(
        name=pipeline.name,
        ir=ir,
        blobs=parts.blobs,
        graph=graph,
        provenance={**_provenance(pipeline), "lines": parts.lines, **({"environment": notes} if notes else {})},
        schedule=pipeline.schedule,
        triggers=pipeline.triggers,
        notify=pipeline.notify,
        steps=parts.code,
        arguments=given,
    )


def _since_last_run(name: str, parts: _Parts) -> tuple[str, ...]:
    from ._lock_history import last_run, since

    locks = {step: parts.blobs[ref.lock].decode() for step, ref in parts.code.items() if ref.lock in parts.blobs}
    return since(last_run(pipeline=name), {step.removeprefix("comp-"): text for step, text in locks.items()})


def _say(notes: list[str]) -> None:
    """One line on what the steps' environments have that this kernel has not; `rml.explain(step)` has all of it."""
    more = f" (and {len(notes) - 1} more: rml.explain(step))" if len(notes) > 1 else ""
    print(f"environment: {notes[0]}{more}", file=sys.stderr)


def _due_today(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that say when a run was due, as of now: a run by hand is due when it starts."""
    defaults = {i.name: i.default for i in graph.parameters.inputs if i.name not in given and is_template(i.default)}
    return fill(defaults, datetime.now(UTC))


def _capture_steps(graph: Graph) -> _Parts:
    """Slice, lock and bundle each distinct step."""
    from ._capture import sdk_zip

    sdk = sdk_zip()
    parts = _Parts(blobs={sdk.digest: sdk.data})
    for name, component in graph.components.items():
        if component.entry is not None and component.imports:
            _capture_built_in(name, component, component.entry, sdk, parts)
        elif component.entry is not None:
            parts.code[name] = CodeRef(sdk.digest, NO_CODE, NO_CODE, component.entry)
        else:
            _capture_step(name, component, sdk, parts)
    return parts


def _capture_step(name: str, component: Component, sdk: Bundle, parts: _Parts) -> None:
    from ._capture import STEP_MODULE, build_bundle, capture
    from ._env import lock_for
    from ._packaging._needs import implied_imports

    try:
        found = capture(component.function)
        imports = found.imports | implied_imports(found.files)
        lock = lock_for(imports, component.options.packages, component.options.system_packages)
    except PipelineError as error:
        at = of_function(component.function)
        # A lock knows packages, not places: its findings are told at the step they concern.
        parts.findings += [f if _has_place(f) else replace(f, where=str(at)) for f in error.findings]
        return
    bundle = build_bundle(found, python=f"{sys.version_info.major}.{sys.version_info.minor}", lock=lock.digest)
    parts.blobs[bundle.digest] = bundle.data
    parts.blobs[lock.digest] = lock.text.encode()
    parts.blobs.update(lock.blobs())
    parts.notes += lock.notes
    # For tracebacks. Cell numbers change without the code changing, so they stay outside the bundle.
    parts.lines[bundle.digest] = {f"{STEP_MODULE}.py": {str(n): origin.where for n, origin in found.lines.items()}}
    parts.code[name] = CodeRef(sdk.digest, bundle.digest, lock.digest, found.entry)


def _capture_built_in(name: str, component: Component, entry: str, sdk: Bundle, parts: _Parts) -> None:
    """A step of ours that needs packages: its environment is locked from this kernel's, as a user's step is."""
    from ._capture import sibling_bundle
    from ._env import lock_for

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        lock = lock_for(component.imports, component.options.packages)
        bundle = sibling_bundle(component.carries, component.imports, entry, python=python, lock=lock.digest)
    except PipelineError as error:
        parts.findings += error.findings
        return
    parts.blobs[bundle.digest] = bundle.data
    parts.blobs[lock.digest] = lock.text.encode()
    parts.blobs.update(lock.blobs())
    parts.code[name] = CodeRef(sdk.digest, bundle.digest, lock.digest, entry)


def _has_place(finding: Finding) -> bool:
    return any(c.isdigit() for c in finding.where)


def _error(name: str, in_graph: list[Finding], in_code: list[Finding]) -> PipelineError:
    kind = PipelineError if in_graph and in_code else GraphError if in_graph else CaptureError
    # A name that is not defined is missing for both parts: the reader hears it once, from the graph.
    told = {finding.where for finding in in_graph if finding.code == "unknown-annotation"}
    fresh = [finding for finding in in_code if finding.where not in told]
    return kind(dict.fromkeys([*in_graph, *fresh]), subject=f"pipeline {name!r}")


def _provenance(pipeline: Pipeline) -> dict[str, Any]:
    """Where the pipeline came from: kept with the run, never in the IR (a commit elsewhere must not change a digest)."""
    from . import __version__
    from ._capture import git_state

    filename = pipeline.site.filename
    folder = Path(filename).resolve().parent if Path(filename).is_file() else Path.cwd()
    return {
        "git": asdict(git_state(folder)),
        "source": str(pipeline.site),
        "python": ".".join(map(str, sys.version_info[:3])),
        "sdk": __version__,
    }


def write_file(target: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp makes files private; a compiled pipeline is as readable as any file the user writes.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
