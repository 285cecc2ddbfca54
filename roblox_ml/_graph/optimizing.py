"""The step that `rml.optimize` and `rml.register(optimize="cpu")` draw in a pipeline: ours, in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Trace
    from .where import Site

__all__ = ["optimize_task"]

_ENTRY = "roblox_ml._optimize:step"


def optimize_task(
    tracing: Trace,
    site: Site,
    model: Any,
    data: Any,
    budget: Any,
    text: Any,
    label: Any,
    engines: Sequence[str] | None,
    most_texts: int | None,
    seed: Any,
) -> Any:
    """A task whose one output is the optimised model."""
    from .._optimize import CARRIES, IMPORTS
    from ..errors import Finding
    from .interface import OUTPUT, Input, Interface, Output
    from .options import Options
    from .types import ArtifactType, ParameterType

    if data is None:
        tracing.find(
            Finding(
                "no-data", "the model cannot be optimised without held-out data", str(site),
                "what an engine loses is measured on labelled texts that it was not trained on",
                'write rml.register(model, name=…, data=split.test, optimize="cpu")', site.source(),
            )
        )  # fmt: skip
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not 0 <= budget <= 1:
        tracing.find(
            Finding(
                "bad-budget", f"budget={budget!r}", str(site), "it is the F1 an engine may lose, between 0 and 1",
                "write budget=0.005 (half a point)", site.source(),
            )
        )  # fmt: skip
        budget = 0.0
    inputs = (
        Input("model", ArtifactType("system.Model")),
        Input("data", ArtifactType("system.Dataset")),
        Input("budget", ParameterType("NUMBER_DOUBLE")),
        Input("text", ParameterType("STRING")),
        Input("label", ParameterType("STRING")),
        Input("engines", ParameterType("LIST")),
        Input("most_texts", ParameterType("NUMBER_INTEGER")),
        Input("seed", ParameterType("NUMBER_INTEGER")),
    )
    interface = Interface(inputs, (Output(OUTPUT, ArtifactType("system.Model")),), names=tuple(i.name for i in inputs))
    component = tracing.adopt(_ENTRY, "optimize", interface, Options(), None, _ENTRY, IMPORTS, CARRIES)
    arguments = {
        "model": model,
        "data": data,
        "budget": float(budget),
        "text": text,
        "label": label,
        "engines": list(engines or ()),
        "most_texts": most_texts or 0,
        "seed": seed,
    }
    return tracing.add(component, (), arguments, site, tracing.scope)
