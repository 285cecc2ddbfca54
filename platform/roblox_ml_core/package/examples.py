"""Known answers: recorded inputs, the outputs the model gave for them, and how far another run may be off.

They travel inside the package, so that whoever loads a model (Triton, a batch job, a notebook on another processor) can tell
a model that works from one that merely answers: an empty tensor with status 200 is a failure here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PackageError
from .signature import DATATYPES, Signature, TensorSpec, as_tensor

__all__ = ["DEFAULT_TOLERANCE", "Examples", "compare", "tensor_json"]

DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Examples:
    """Input and expected output tensors in v2 JSON form; |got - expected| <= tolerance * max(1, |expected|)."""

    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    tolerance: float = DEFAULT_TOLERANCE

    @classmethod
    def from_json(cls, value: Any) -> Examples:
        try:
            examples = cls(
                tuple(dict(tensor) for tensor in value["inputs"]),
                tuple(dict(tensor) for tensor in value["outputs"]),
                float(value.get("tolerance", DEFAULT_TOLERANCE)),
            )
            if not all(isinstance(tensor["name"], str) for tensor in (*examples.inputs, *examples.outputs)):
                raise TypeError("a tensor's name is not a text")
            _arrays(examples.inputs)
            _arrays(examples.outputs)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PackageError(
                f"these are not examples ({type(error).__name__}: {error})",
                hint='write {"inputs": [{"name", "datatype", "shape", "data"}], "outputs": [...], "tolerance": 1e-4}',
            ) from error
        return examples

    @classmethod
    def record(
        cls,
        signature: Signature,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> Examples:
        """Examples from arrays: what went in and what came out."""
        ins = tuple(tensor_json(spec, inputs[spec.name]) for spec in signature.inputs)
        return cls(ins, tuple(tensor_json(spec, outputs[spec.name]) for spec in signature.outputs), tolerance)

    def to_json(self) -> dict[str, Any]:
        ins, outs = [dict(tensor) for tensor in self.inputs], [dict(tensor) for tensor in self.outputs]
        return {"inputs": ins, "outputs": outs, "tolerance": self.tolerance}

    def input_arrays(self) -> dict[str, Any]:
        """The inputs as numpy arrays by name."""
        return _arrays(self.inputs)

    def output_arrays(self) -> dict[str, Any]:
        """The expected outputs as numpy arrays by name."""
        return _arrays(self.outputs)

    def findings(self, signature: Signature) -> list[str]:
        """Where these are not examples of a model with that signature; empty when they are.

        A tensor's name becomes a file's name beside the model server, so only the signature's own names may pass.
        """
        found = []
        for what, tensors, specs in (
            ("input", self.inputs, signature.inputs),
            ("output", self.outputs, signature.outputs),
        ):
            types = {spec.name: spec.datatype for spec in specs}
            names = [tensor["name"] for tensor in tensors]
            found += [f"{what} {name!r} is recorded twice" for name in sorted({n for n in names if names.count(n) > 1})]
            for tensor in tensors:
                name = tensor["name"]
                if name not in types:
                    found.append(f"{what} {name!r} is not in the signature ({', '.join(types)})")
                elif tensor["datatype"] != types[name]:
                    found.append(f"{what} {name} is {tensor['datatype']}, the signature says {types[name]}")
            found += [f"{what} {name} is missing" for name in types if what == "input" and name not in names]
        return found

    def check(self, actual: Mapping[str, Any]) -> list[str]:
        """What differs between `actual` outputs and the known answer; empty when they agree."""
        return compare(self.output_arrays(), actual, self.tolerance)


def compare(expected: Mapping[str, Any], actual: Mapping[str, Any], tolerance: float) -> list[str]:
    """One finding per tensor that is missing, of another shape, not finite, or further off than `tolerance`."""
    import numpy as np

    found = []
    for name, want in expected.items():
        if name not in actual:
            found.append(f"output {name} is missing (got {sorted(actual) or 'no outputs'})")
            continue
        got = np.asarray(actual[name])
        if got.shape != want.shape:
            found.append(f"output {name} has shape {list(got.shape)}, expected {list(want.shape)}")
        elif want.dtype == object:
            pairs = enumerate(zip(_texts(got), _texts(want), strict=True))
            wrong = [i for i, (g, w) in pairs if g != w and not _same_json(g, w, tolerance)]
            if wrong:
                i = wrong[0]
                example = f"{_texts(got)[i]!r} instead of {_texts(want)[i]!r}"
                found.append(f"output {name} differs in {len(wrong)} of {want.size} values, first at {i}: {example}")
        else:
            found += _numeric(name, want.astype(float), got, tolerance)
    return found


def _same_json(got: str, want: str, tolerance: float) -> bool:
    """Whether two texts are JSON lists or objects that differ by no more than `tolerance` in their numbers with a fraction."""
    if got[:1] not in ("[", "{") or want[:1] != got[:1]:
        return False
    try:
        return _close(json.loads(got), json.loads(want), tolerance)
    except ValueError:
        return False


def _close(got: Any, want: Any, tolerance: float) -> bool:
    if isinstance(want, float):
        return isinstance(got, int | float) and abs(got - want) <= tolerance * max(1.0, abs(want))
    if isinstance(want, list) and isinstance(got, list):
        return len(got) == len(want) and all(_close(g, w, tolerance) for g, w in zip(got, want, strict=True))
    if isinstance(want, dict) and isinstance(got, dict):
        return got.keys() == want.keys() and all(_close(got[key], want[key], tolerance) for key in want)
    return bool(got == want) and type(got) is type(want)


def tensor_json(spec: TensorSpec, value: Any) -> dict[str, Any]:
    """A tensor in v2 JSON form, its data flat in row-major order."""
    array = as_tensor(spec, value)
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def _numeric(name: str, want: Any, got: Any, tolerance: float) -> list[str]:
    import numpy as np

    try:
        values = got.astype(float)
    except (TypeError, ValueError):
        return [f"output {name} is not numeric"]
    # An expected NaN would pass nothing and an actual NaN compares false, so both fail here, as they should.
    with np.errstate(invalid="ignore"):
        off = np.abs(values - want)
        good = off <= tolerance * np.maximum(1.0, np.abs(want))
    if bool(good.all()):
        return []
    worst = "not a finite number" if not bool(np.isfinite(off).all()) else f"off by up to {float(off.max()):.3g}"
    return [f"output {name}: {int((~good).sum())} of {want.size} values wrong, {worst} (tolerance {tolerance:g})"]


def _texts(array: Any) -> list[str]:
    return [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in array.ravel().tolist()]


def _arrays(tensors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import numpy as np

    arrays: dict[str, Any] = {}
    for tensor in tensors:
        array = np.array(tensor["data"], dtype=DATATYPES[tensor["datatype"]])
        arrays[tensor["name"]] = array.reshape(tuple(tensor["shape"]))
    return arrays
