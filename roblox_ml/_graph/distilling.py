"""The step that `rml.distill` draws in a pipeline: ours, in an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Trace
    from .where import Site

__all__ = ["distill_task"]

_ENTRY = "roblox_ml._distill:step"
_PARAMETERS: Mapping[str, str] = {
    "layers": "NUMBER_INTEGER",
    "epochs": "NUMBER_DOUBLE",
    "temperature": "NUMBER_DOUBLE",
    "soft": "NUMBER_DOUBLE",
    "text": "STRING",
    "label": "STRING",
    "max_length": "NUMBER_INTEGER",
    "batch": "NUMBER_INTEGER",
    "rate": "NUMBER_DOUBLE",
    "seed": "NUMBER_INTEGER",
}


def distill_task(tracing: Trace, site: Site, teacher: Any, data: Any, settings: Mapping[str, Any]) -> Any:
    """A task whose one output is the student. `settings`: values or stand-ins for each of the parameters."""
    from .._distill import CARRIES, IMPORTS
    from .interface import OUTPUT, Input, Interface, Output
    from .options import Options
    from .types import ArtifactType, ParameterType

    inputs = (
        Input("teacher", ArtifactType("system.Model")),
        Input("data", ArtifactType("system.Dataset")),
        *(Input(name, ParameterType(kind)) for name, kind in _PARAMETERS.items()),
    )
    interface = Interface(inputs, (Output(OUTPUT, ArtifactType("system.Model")),), names=tuple(i.name for i in inputs))
    component = tracing.adopt(_ENTRY, "distill", interface, Options(), None, _ENTRY, IMPORTS, CARRIES)
    arguments = {"teacher": teacher, "data": data, **{name: settings[name] for name in _PARAMETERS}}
    return tracing.add(component, (), arguments, site, tracing.scope)
