"""Format sklearn-skops: a scikit-learn estimator from a skops file. Never a pickle: loading one runs its author's code.

A package may come from outside and its own list of trusted types is part of it, so that list alone proves nothing: a type
beyond those that skops trusts is loaded when the package lists it *and* it is a class of scikit-learn or a data type of NumPy
or SciPy, or when the operator of this server named it in `RML_TRUSTED_TYPES` (comma-separated, exact names).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rml_backend import Model

# Classes (CamelCase) of scikit-learn and plain data types; functions of these packages can run code and are not among them.
KNOWN = re.compile(
    r"(sklearn(\.\w+)*\.[A-Z]\w*|numpy\.(dtype|ndarray|random\.\w+)|scipy\.sparse(\.\w+)*\.[a-z]+_(matrix|array))\Z"
)


class TritonPythonModel(Model):
    def load(self, folder: Path, package: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        import skops.io  # seconds, with all of scikit-learn behind it

        path = folder / "model" / "model.skops"
        found = list(skops.io.get_untrusted_types(file=path))
        refused = refused_types(found, package.get("options", {}).get("trusted", []))
        if refused:
            raise ValueError(
                f"model.skops holds types this server does not load: {', '.join(refused)}. If you know their code, set "
                f"RML_TRUSTED_TYPES={','.join(refused)} for Triton, or use the python format"
            )
        self.estimator = skops.io.load(path, trusted=found)
        self.input = signature["inputs"][0]["name"]
        self.outputs = [spec["name"] for spec in signature["outputs"]]
        names = package.get("labels") or [str(name) for name in getattr(self.estimator, "classes_", [])]
        self.classes = np.array(names, dtype=np.object_)
        if "scores" in self.outputs and not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"{type(self.estimator).__name__} has no predict_proba: its signature must not promise scores"
            )

    def predict(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        rows = batch[self.input]
        if "scores" not in self.outputs:
            return {self.outputs[0]: self.estimator.predict(rows)}
        scores = self.estimator.predict_proba(rows)
        return {"label": self.classes[scores.argmax(axis=1)], "scores": scores}


def refused_types(found: Sequence[str], listed: Sequence[str]) -> list[str]:
    """Of the types in a file that skops itself does not trust: those that this server does not trust either."""
    operator = {name.strip() for name in os.environ.get("RML_TRUSTED_TYPES", "").split(",") if name.strip()}
    return [name for name in found if name not in operator and not (name in listed and KNOWN.match(name))]
