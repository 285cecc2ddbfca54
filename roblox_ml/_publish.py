"""`pipeline.publish()`: from now on it runs by itself, as its schedule and triggers say.

Everything a run needs goes into the store, and the control plane is told what belongs together: a version. The process that
published may end; the runner starts the version's IR without any of the user's code at hand.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._graph.schedule import Schedule, Trigger, is_template
from .errors import NotFound, RmlSdkError

if TYPE_CHECKING:
    from ._build import Built
    from ._graph.pipeline import Pipeline
    from ._runtime.control import ControlPlane

__all__ = ["Published", "publish"]

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Published:
    """What was published. `created` is False when the control plane had this very version already."""

    pipeline: str
    version: int
    created: bool
    schedule: Schedule | None
    triggers: tuple[Trigger, ...]
    next: tuple[str, ...]

    def __str__(self) -> str:
        what = f"{self.pipeline} version {self.version}" + ("" if self.created else " (as published before)")
        lines = [what]
        if self.schedule is not None:
            lines.append(f"  schedule {self.schedule}, next {self.next[0] if self.next else 'never'}")
        lines += [f"  on {trigger}" for trigger in self.triggers]
        if self.schedule is None and not self.triggers:
            lines.append("  no schedule and no trigger: it runs by `rml backfill` only")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<rml.Published {self}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def publish(pipeline: Pipeline, on: Any, arguments: Mapping[str, Any]) -> Any:
    """See `Pipeline.publish`."""
    built = pipeline.build(arguments)
    given = {**built.arguments, **_open(built, arguments)}
    if on != "local":
        return _elsewhere(pipeline, built, on, given)
    plane = _plane()
    blobs = _store(plane, built)
    digest, lines = _beside(plane, built)
    body = {
        "ir": digest,
        "blobs": sorted({*blobs, *([lines] if lines else [])}),
        "arguments": given,
        "newest": dict(built.graph.newest),
        "notify": [one.to_json() for one in built.notify],
        "provenance": {
            **{k: v for k, v in built.provenance.items() if k != "lines"},
            **({"lines_blob": lines} if lines else {}),
        },
        "triggers": [_trigger(one) for one in built.triggers],
        **({"team": os.environ["RML_TEAM"]} if os.environ.get("RML_TEAM") else {}),
    }
    answer = plane.call("POST", f"/v1/pipelines/{built.name}/versions", body)
    return Published(
        built.name,
        int(answer["version"]),
        bool(answer["created"]),
        built.schedule,
        built.triggers,
        _schedule(plane, built.name, built.schedule),
    )


def _open(built: Built, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose default says when a run was due: that is for each run to say, not for today."""
    inputs = built.graph.parameters.inputs
    return {i.name: i.default for i in inputs if i.name not in arguments and is_template(i.default)}


def _elsewhere(pipeline: Pipeline, built: Built, on: Any, arguments: Mapping[str, Any]) -> Any:
    recur = getattr(on, "recur", None)
    if recur is None:
        raise RmlSdkError(
            f"publish(on={on!r}): there is no such place",
            fix='on="local" is this machine\'s control plane; on=rml.connect(…) is Kubeflow',
        )
    if built.schedule is None or built.triggers:
        what = "has triggers, which Kubeflow does not know" if built.triggers else "has no schedule"
        raise RmlSdkError(
            f"pipeline {pipeline.name!r} {what}",
            where=str(pipeline.site),
            fix='give it schedule="0 3 * * *" and no triggers, or publish it to the control plane: .publish()',
        )
    return recur(built, built.schedule, arguments=arguments)


def _plane() -> ControlPlane:
    """The control plane, with a runner beside it when both are this machine's."""
    from ._addresses import control_url
    from ._runtime.control import ControlPlane

    if not os.environ.get("RML_CONTROL_URL"):
        from . import _stack

        _stack.ensure("control-plane", "runner")
    return ControlPlane(control_url(start=True))


def _store(plane: ControlPlane, built: Built) -> set[str]:
    """Put the pipeline's blobs where the control plane finds them; returns all it refers to that the store has."""
    from ._store import open_store

    store = open_store()
    for data in built.blobs.values():
        plane.put(store.put(data), data)
    named = {match.decode() for match in _DIGEST.findall(built.ir)}
    # A data set of a named version: its manifest and files are needed for as long as this version is.
    for digest in sorted(named - set(built.blobs)):
        if not store.has(digest):
            continue
        manifest = store.get(digest)
        plane.put(digest, manifest)
        if manifest.startswith(b'{"files"'):
            for file in {entry["sha256"] for entry in json.loads(manifest)["files"].values()}:
                named.add(file)
                if not plane.has(file):
                    plane.put(file, store.get(file))
    return {digest for digest in named if store.has(digest)}


def _beside(plane: ControlPlane, built: Built) -> tuple[str, str | None]:
    """The IR and the map from a bundle's lines to the user's cells, as blobs."""
    from ._store import open_store

    store, found = open_store(), []
    lines = built.provenance.get("lines") or {}
    for data in (built.ir, json.dumps(lines, sort_keys=True).encode() if lines else None):
        found.append(None if data is None else store.put(data))
        if data is not None:
            plane.put(str(found[-1]), data)
    return str(found[0]), found[1]


def _schedule(plane: ControlPlane, name: str, schedule: Schedule | None) -> tuple[str, ...]:
    """What the decorator says is what is so: a schedule that it no longer has is deleted."""
    path = f"/v1/schedules/{name}"
    if schedule is not None:
        told = plane.call("PUT", path, {"pipeline": name, "schedule": schedule.to_json()})
        return tuple(one["due"] for one in told["next"])
    try:
        if plane.call("GET", path)["pipeline"] == name:
            plane.call("DELETE", path)
    except NotFound:
        pass
    return ()


def _trigger(trigger: Trigger) -> dict[str, Any]:
    """With the data set's newest version as of now: what is there already is no news."""
    told = trigger.to_json()
    if trigger.kind == "dataset":
        from . import datasets
        from .errors import DatasetError

        try:
            told["seen"] = datasets.get(trigger.subject).version
        except DatasetError:
            told["seen"] = 0  # it does not exist yet: its first version is news
    return told
