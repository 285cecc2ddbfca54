"""What a remote step returned. KFP 2.17's API does not say: our executor reports it as the last line of the step's log.

A report is one line of JSON (`::rml outputs {…}`, docs/formats/pipeline-ir.md) with values and artifacts' addresses; artifacts
themselves come from the object store, when somebody looks at them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..._artifacts import Artifact, load_artifact
from ..._backends.local.names import base_name
from ..._runs import Fields
from ...errors import RunError
from . import logs, objects
from .tasks import Node, nodes

if TYPE_CHECKING:
    from .run import RemoteRun

__all__ = ["RemoteOutputs", "read", "report_in"]

# Their content is their metadata; there is nothing to copy.
_METADATA_ONLY = ("system.Metrics",)


def read(run: RemoteRun) -> RemoteOutputs:
    """Outputs of the steps that have succeeded."""
    done = [node for node in nodes(run._look(), run.spec) if node.state == "SUCCEEDED"]
    return RemoteOutputs(run, done)


def report_in(log: str) -> Mapping[str, Any] | None:
    """The last report in a log; None when there is none that can be read."""
    for line in reversed(log.splitlines()):
        # Not only at the start of a line: what the step printed last may have had no line break.
        if logs.REPORT in line:
            try:
                found = json.loads(line.rpartition(logs.REPORT)[2])
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None


class RemoteOutputs(Mapping[str, Any]):
    """Outputs of a run's finished steps, by step; a step's log and artifacts are read when it is asked for."""

    def __init__(self, run: RemoteRun, done: list[Node]) -> None:
        self._run = run
        self._done = {node.name: node for node in done if self._declared(run, node)}

    def __getitem__(self, task: str) -> Any:
        if task in self._done:
            return self._of(self._done[task])
        several = [name for name in self._done if base_name(name) == task]
        if several:
            return [self._of(self._done[name]) for name in several]
        raise KeyError(f"no outputs of {task!r}; there are outputs of: {', '.join(self._done) or 'no step'}")

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(base_name(name) for name in self._done))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Outputs({', '.join(self)})"

    def _of(self, node: Node) -> Any:
        declared = self._declared(self._run, node)
        report = report_in(logs.raw(self._run, node)) or {}
        named: dict[str, Any] = dict(report.get("parameterValues") or {})
        artifacts = declared.get("artifacts") or {}
        for name, listed in (report.get("artifacts") or {}).items():
            title = str(((artifacts.get(name) or {}).get("artifactType") or {}).get("schemaTitle") or "system.Artifact")
            loaded = [_artifact(title, one) for one in listed.get("artifacts") or []]
            named[name] = loaded[0] if len(loaded) == 1 else loaded
        missing = [
            name for kind in ("parameters", "artifacts") for name in declared.get(kind) or {} if name not in named
        ]
        if missing:
            raise RunError(
                f"step {node.name} of run {self._run.id} did not report {', '.join(missing)}",
                why="KFP 2.17 shows outputs in its pages only; steps of this SDK report them in their log",
                fix=f"look at {self._run.url}; a step taken from Kubeflow's cache reported to the run that computed it",
            )
        return named["Output"] if list(named) == ["Output"] else Fields(named)

    @staticmethod
    def _declared(run: RemoteRun, node: Node) -> Mapping[str, Any]:
        component = (run.spec.get("components") or {}).get(node.leaf.component) or {}
        found: Mapping[str, Any] = component.get("outputDefinitions") or {}
        return found


def _artifact(title: str, reported: Mapping[str, Any]) -> Artifact:
    uri, name = str(reported["uri"]), str(reported.get("name") or "")
    metadata = reported.get("metadata") or {}
    path = None if title in _METADATA_ONLY else objects.fetch(uri)
    return load_artifact(title, path, name=name, uri=uri, metadata=metadata)
