"""The local executor: runs a pipeline's IR on this machine, in parallel, process per step, with a record of it all.

`LocalExecutor().run(built, arguments)` stores the bundles, writes the run's folder and starts an execution; what it
returns is a `Run` (`roblox_ml._runs`), which reads the record. Why not `kfp.local`: docs/design/runtime.md.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..._store import open_store
from ...errors import RunError
from .execution import Execution
from .record import RunFolder
from .registry import ensure_control_plane
from .spec import ParameterDef, PipelineSpec, load

if TYPE_CHECKING:
    from ..._runs import Run

__all__ = ["Built", "LocalExecutor", "checked_arguments", "resume"]

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list, tuple),
    "STRUCT": (dict,),
}
_SHOWN = {"NUMBER_INTEGER": "int", "NUMBER_DOUBLE": "float", "STRING": "str", "BOOLEAN": "bool", "LIST": "list"}


class Built(Protocol):
    """What is needed of a compiled pipeline: the IR's bytes and the blobs it refers to by digest."""

    @property
    def name(self) -> str: ...
    @property
    def ir(self) -> bytes: ...
    @property
    def blobs(self) -> Mapping[str, bytes]: ...
    @property
    def provenance(self) -> Any: ...
    @property
    def schedule(self) -> Any: ...
    @property
    def notify(self) -> Any: ...


class LocalExecutor:
    """Runs pipelines here. Settings: RML_LOCAL_SLOTS, RML_LOCAL_MEMORY, RML_LOCAL_GPUS, RML_LOCAL_GRACE."""

    def run(
        self,
        built: Built,
        arguments: Mapping[str, Any] | None = None,
        *,
        wait: bool = True,
        cache: bool = True,
        progress: bool = True,
        run_id: str | None = None,
        sweep: str | None = None,
    ) -> Run:
        """Start a run; with `wait` until it is over (raises RunFailed), else return while it goes on.

        `cache=False` runs every step anew; `progress=False` shows nothing. A `run_id` chosen beforehand makes a second
        start of the same run impossible (RunError); `sweep` is the sweep that the run is a trial of.
        """
        from ..._runs import Run

        spec = load(built.ir)
        given = checked_arguments(spec, arguments or {})
        store = open_store()
        for digest, data in built.blobs.items():
            if store.put(data) != digest:
                raise RunError(f"blob {digest} of {built.name} does not have this sha256: compile the pipeline again")
        provenance = dict(built.provenance or {})
        about = {
            "pipeline": built.name,
            "created": time.time(),
            "arguments": given,
            "provenance": {k: v for k, v in provenance.items() if k != "lines"},
            "schedule": built.schedule,
            "notify": built.notify,
            **({"sweep": sweep} if sweep else {}),
        }
        # Where each shipped line came from, by bundle: a step's traceback names the user's cells with it.
        lines = provenance.get("lines") or {}
        ensure_control_plane(spec)
        folder = RunFolder.create(run_id or _new_id(built.name), about, built.ir, lines)
        lock = folder.lock()
        assert lock is not None, "nobody else knows this run"
        Execution(folder, spec, lock, use_cache=cache).start()
        run = Run(folder)
        return run.wait(progress=progress) if wait else run


def resume(folder: RunFolder, *, cache: bool = True) -> None:
    """Start another execution of a run that failed, was cancelled, or lost its executor."""
    lock = folder.lock()
    if lock is None:
        raise RunError(f"run {folder.id} is still going on", fix=f"wait for it: rml.get_run({folder.id!r}).wait()")
    try:
        folder.cancel_path.unlink(missing_ok=True)
        spec = load((folder.path / "ir.yaml").read_bytes())
        ensure_control_plane(spec)
    except BaseException:
        os.close(lock)
        raise
    Execution(folder, spec, lock, use_cache=cache).start()


def checked_arguments(spec: PipelineSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's arguments, if names and types fit; every problem is said at once."""
    known = spec.root.parameters
    problems = [
        f"unknown parameter {name!r} (it has: {', '.join(known) or 'none'})" for name in arguments if name not in known
    ]
    for name, declared in known.items():
        value = arguments.get(name)
        if value is None and not declared.optional:
            problems.append(f"parameter {name!r} has no value and no default")
        elif value is not None and not _fits(value, declared):
            wanted = _SHOWN.get(declared.kind, "dict")
            problems.append(f"parameter {name!r} is {value!r:.60}, a {type(value).__name__}; {wanted} is expected")
    if problems:
        raise RunError(f"{spec.name} cannot run: {'; '.join(problems)}", fix=f"{spec.name}.run(name=value, …)")
    return dict(arguments)


def _fits(value: Any, declared: ParameterDef) -> bool:
    if isinstance(value, bool):
        return declared.kind == "BOOLEAN"
    return isinstance(value, _PYTHON_TYPES.get(declared.kind, (object,)))


def _new_id(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"
