"""From an order of the control plane to a run of the local executor: begun, resumed or found finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._backends.local import LocalExecutor
from .._backends.local.execution import RUNNING
from .._backends.local.record import RunFolder, runs_folder
from .._graph.schedule import fill
from .._runs import Run
from .._store import open_store

__all__ = ["ENDED", "LOST", "StoredPipeline", "begin", "load"]

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
LOST = "it was given to another runner"
"""Why a run was ended here that nobody asked to end: given back, it goes on."""


@dataclass(frozen=True, slots=True)
class StoredPipeline:
    """What the executor needs of a pipeline, read from the store instead of built from code."""

    name: str
    ir: bytes
    provenance: Mapping[str, Any]
    notify: tuple[Mapping[str, Any], ...] = ()
    schedule: None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def begin(order: Mapping[str, Any]) -> Run:
    """The order's run, at work: new; or that of a runner which was killed, going on where it stopped; or one that is over."""
    run_id = str(order["run"])
    if (runs_folder() / run_id / "run.json").is_file():
        if (ending := RUNNING.get(run_id)) is not None:
            ending.over.wait()  # it was another's for a moment, so it is being ended here
        run = Run(RunFolder.open(run_id))
        state = run.state
        # RUNNING: another process of this home attends to it.
        asked = order.get("retry") and state in ("FAILED", "CANCELLED")
        if state == "INTERRUPTED" or asked or (state == "CANCELLED" and run.error == LOST):
            return run.retry(wait=False)
        return run
    arguments = fill(order["arguments"], datetime.fromisoformat(order["due"]))
    started: Run = LocalExecutor().run(load(order), arguments, wait=False, progress=False, run_id=run_id)
    return started


def load(order: Mapping[str, Any]) -> StoredPipeline:
    """The pipeline of an order; data sets of which it named no version are the newest of this moment."""
    store = open_store()
    provenance = dict(order.get("provenance") or {})
    if lines := provenance.pop("lines_blob", None):
        provenance["lines"] = json.loads(store.get(lines))
    provenance["scheduled"] = {key: order[key] for key in ("source", "due", "version")}
    ir = _with_newest(store.get(order["ir"]), order.get("newest") or {})
    return StoredPipeline(str(order["pipeline"]), ir, provenance, tuple(order.get("notify") or ()))


def _with_newest(ir: bytes, tasks: Mapping[str, str]) -> bytes:
    """The IR with the newest version of a data set where the task of this name loads one."""
    if not tasks:
        return ir
    from .. import datasets
    from .._graph.dump import dump_ir, load_ir

    loaded = load_ir(ir)
    for task, name in tasks.items():
        ref = datasets.get(name)
        given = loaded["pipeline"]["root"]["dag"]["tasks"][task]["inputs"]["parameters"]
        given["version"]["runtimeValue"]["constant"] = ref.version
        given["digest"]["runtimeValue"]["constant"] = ref.digest
    return dump_ir(loaded)
