"""`rml.dataset` and `rml.register`: in a pipeline, tasks that ship with the SDK; outside one, the thing itself.

Their code is in the SDK's own zip (`roblox_ml._runtime.system`), so they need neither a bundle nor a lock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .gates import AtMost, Gate

if TYPE_CHECKING:
    from .trace import Trace
    from .where import Site

__all__ = ["dataset", "register"]

_MODEL_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_LOAD = "roblox_ml._runtime.system:load_dataset"
_REGISTER = "roblox_ml._runtime.system:register"


def dataset(name: str, version: int | None = None) -> Any:
    """A named data set: in a pipeline a task that loads it, outside a local `rml.Dataset`.

    In a pipeline the newest version is looked up while the pipeline is built and written down with its digest, so the
    same pipeline file always reads the same bytes. A published pipeline looks it up anew for each of its runs; a version
    that you name stays that version.
    """
    from .trace import current

    tracing = current()
    if tracing is None:
        from .._artifacts import Dataset
        from ..datasets import resolve

        ref = resolve(name, version)
        about = {"name": ref.name, "version": ref.version, "digest": ref.digest}
        return Dataset(ref.path, name=ref.name, metadata=about)
    from .where import here

    site = here()
    return tracing.dataset(name, version, lambda: _load_task(tracing, name, version, site))


def register(
    model: Any,
    name: str,
    metrics: Any = None,
    gate: Mapping[str, Any] | None = None,
    alias: str = "champion",
    tags: Mapping[str, str] | None = None,
    optimize: str | None = None,
    data: Any = None,
    budget: float | None = None,
    **more: Any,
) -> Any:
    """Register a model package under a name: always stored as a new version, and the gate decides whether `alias` moves.

    `optimize="cpu"` registers what `rml.optimize(model, data, budget=…)` makes of a text model: the engine that is fastest on
    CPUs without losing more than `budget` of F1 on `data`, held-out texts with labels.

    In a pipeline this draws a task whose outputs are `version`, `digest` and `promoted`. Outside one, `model` is an
    `rml.Model` or a package's folder and the new version is returned (`more`, such as `origin=`, goes to
    `rml.models.register`).
    """
    from .trace import current

    tracing = current()
    if optimize is not None:
        model = _optimised(tracing, model, optimize, data, budget)
    if tracing is None:
        from .. import models

        return models.register(model, name=name, metrics=metrics, gate=gate, alias=alias, tags=tags, **more)
    from .where import here

    return _register_task(tracing, here(), model, name, metrics, gate, alias, tags, more)


def _optimised(tracing: Trace | None, model: Any, target: str, data: Any, budget: float | None) -> Any:
    from .._optimize import BUDGET
    from .._optimize import optimize as run
    from ..errors import Finding, PackageError
    from .where import here

    if target != "cpu":
        why, fix = "models are optimised for CPUs", 'write optimize="cpu", or leave it out'
        if tracing is None:
            raise PackageError(f"optimize={target!r}", where="optimize=", why=why, fix=fix)
        site = here()
        tracing.find(Finding("bad-target", f"rml.register(optimize={target!r})", str(site), why, fix, site.source()))
        return model
    return run(model, data, budget=BUDGET if budget is None else budget)


def _load_task(tracing: Trace, name: str, version: int | None, site: Site) -> Any:
    from ..datasets import resolve
    from ..errors import Finding, RmlSdkError
    from .handles import Unknown
    from .interface import OUTPUT, Input, Interface, Output
    from .model import task_name
    from .options import Options
    from .types import ArtifactType, ParameterType

    try:
        ref = resolve(name, version)
    except RmlSdkError as error:
        tracing.find(Finding("unknown-dataset", error.message, str(site), error.why, error.fix, site.at(name).source()))
        return Unknown(tracing)
    inputs = (
        Input("name", ParameterType("STRING")),
        Input("version", ParameterType("NUMBER_INTEGER")),
        Input("digest", ParameterType("STRING")),
    )
    result = Output(OUTPUT, ArtifactType("system.Dataset"))
    interface = Interface(inputs, (result,), names=tuple(i.name for i in inputs))
    component = tracing.adopt(_LOAD, "load-dataset", interface, Options(), None, _LOAD)
    arguments = {"name": ref.name, "version": ref.version, "digest": ref.digest}
    loaded = tracing.add(component, (), arguments, site, tracing.graph.root, f"dataset-{task_name(ref.name)}")
    if version is None:
        tracing.graph.newest[tracing.graph.tasks[-1].name] = ref.name
    return loaded


def _register_task(
    tracing: Trace,
    site: Site,
    model: Any,
    name: Any,
    metrics: Any,
    gate: Any,
    alias: Any,
    tags: Any,
    more: Mapping[str, Any],
) -> Any:
    from ..errors import Finding
    from .interface import Input, Interface, Output
    from .options import Options
    from .types import ArtifactType, ParameterType

    def wrong(code: str, message: str, why: str, fix: str) -> None:
        tracing.find(Finding(code, message, str(site), why, fix, site.source()))

    for label, value in (("name", name), ("alias", alias)):
        if not isinstance(value, str) or not _MODEL_NAME.match(value):
            fix = f'write rml.register(model, {label}="comment-sentiment")'
            wrong("bad-name", f"rml.register({label}={value!r})", "names are a-z, 0-9 and '-', at most 63", fix)
    gate_problem = _gate_problem(gate)
    if gate_problem:
        wrong("bad-gate", f"rml.register(gate=…): {gate_problem}", "a gate bounds metrics", "write rml.gate(f1=0.75)")
    if tags is not None and not (
        isinstance(tags, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in tags.items())
    ):
        wrong("bad-tags", f"rml.register(tags={tags!r})", "tags are text", 'write tags={"team": "safety"}')
        tags = None
    for key in more:
        wrong(
            "unknown-argument",
            f"rml.register has no parameter {key!r} in a pipeline",
            "its parameters are model, name, metrics, gate, alias, tags",
            "remove it (origin= and the like describe a model trained elsewhere; here the run is the origin)",
        )
    inputs = (
        Input("model", ArtifactType("system.Model")),
        Input("metrics", ArtifactType("system.Metrics"), optional=True),
        Input("name", ParameterType("STRING")),
        Input("gate", ParameterType("STRUCT")),
        Input("alias", ParameterType("STRING")),
        Input("tags", ParameterType("STRUCT")),
    )
    outputs = (
        Output("version", ParameterType("NUMBER_INTEGER")),
        Output("digest", ParameterType("STRING")),
        Output("promoted", ParameterType("BOOLEAN")),
    )
    # It acts on the registry, so an earlier run's answer does not stand for this run's.
    interface = Interface(inputs, outputs, named=True, names=tuple(i.name for i in inputs))
    component = tracing.adopt(_REGISTER, "register", interface, Options(cache=False), None, _REGISTER)
    arguments = {
        "model": model,
        "metrics": metrics,
        "name": name if isinstance(name, str) else "",
        "gate": dict(gate) if gate and not gate_problem else {},
        "alias": alias if isinstance(alias, str) else "",
        "tags": dict(tags or {}),
    }
    return tracing.add(component, (), arguments, site, tracing.scope)


def _gate_problem(gate: Any) -> str | None:
    if gate is None or isinstance(gate, Gate):
        return None
    if not isinstance(gate, Mapping):
        return f"{gate!r} is no gate"
    for metric, bound in gate.items():
        if isinstance(bound, AtMost) or not isinstance(bound, Mapping) or not set(bound) <= {"min", "max"}:
            return f"{metric}: {bound!r} is neither {{'min': …}} nor {{'max': …}}"
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in bound.values()):
            return f"{metric}: {bound!r} does not hold numbers"
    return None
