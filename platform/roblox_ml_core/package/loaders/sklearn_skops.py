"""scikit-learn through skops: types are loaded from a trusted list and nothing else is.

A package may come from outside and its own list of trusted types is part of it, so that list alone proves nothing: a type
is accepted when the package lists it *and* it is an estimator or data type of scikit-learn, SciPy or NumPy, or when the
operator of this process named it in ``RML_TRUSTED_TYPES`` (comma-separated, exact names).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ...errors import PackageError
from ..layout import ModelPackage
from . import Predict

__all__ = ["open_model", "refused_types"]

# Classes (CamelCase) of scikit-learn and plain data types; functions of these packages can run code and are not among them.
_KNOWN = re.compile(
    r"(sklearn(\.\w+)*\.[A-Z]\w*|numpy\.(dtype|ndarray|random\.\w+)|scipy\.sparse(\.\w+)*\.[a-z]+_(matrix|array))\Z"
)


def refused_types(found: list[str], listed: list[str]) -> list[str]:
    """Of the types in a file that skops itself does not trust: those that this process does not trust either."""
    operator = {name.strip() for name in os.environ.get("RML_TRUSTED_TYPES", "").split(",") if name.strip()}
    return [name for name in found if name not in operator and not (name in listed and _KNOWN.match(name))]


def open_model(package: ModelPackage) -> Predict:
    import numpy as np
    import skops.io

    path = package.root / "model/model.skops"
    found = list(skops.io.get_untrusted_types(file=path))
    if refused := refused_types(found, [str(name) for name in package.options.get("trusted", [])]):
        raise PackageError(
            f"the model holds types that are not trusted: {', '.join(refused)}",
            hint=f"if you know them and their code, set RML_TRUSTED_TYPES={','.join(refused)} and load it again",
        )
    model = skops.io.load(path, trusted=found)
    name = package.signature.inputs[0].name
    gives = {spec.name: spec for spec in package.signature.outputs}

    def predict(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        rows = inputs[name]
        if "scores" not in gives:
            only = next(iter(gives))
            return {only: _typed(np, gives[only].datatype, model.predict(rows))}
        scores = np.asarray(model.predict_proba(rows), dtype=np.float32)
        labels = np.array(package.labels or [str(label) for label in model.classes_], dtype=object)
        return {"label": labels[scores.argmax(axis=1)], "scores": scores}

    return predict


def _typed(np: Any, datatype: str, values: Any) -> Any:
    from ..signature import DATATYPES

    if datatype == "BYTES":
        return np.array([str(value) for value in values], dtype=object)
    return np.asarray(values).astype(DATATYPES[datatype])
