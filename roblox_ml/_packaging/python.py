"""A plain function `predict(batch)` as a package: its source as capture finds it, and the lock of what it imports.

The recorded answer comes from the packaged code in a process of its own with the packages of the lock, so a function that
leans on something in the notebook fails here, where its author sits, and not on a server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._package import TOLERANCE, model_folder, write_package
from ._tensors import Tensor, datatype_of, from_array, record, text_array

__all__ = ["from_python"]

_TIMEOUT_S = 600

# Runs in the function's own environment, which has numpy and not this SDK: request on stdin, answer in the file named.
_ASK = """
import importlib, json, sys
import numpy as np
request = json.load(sys.stdin)
def array(t):
    kind = {"BYTES": "object", "BOOL": "bool"}.get(t["datatype"]) or t["datatype"].lower().replace("fp", "float")
    value = np.empty(len(t["data"]), dtype=kind)
    value[:] = t["data"]
    return value.reshape(t["shape"])
module, _, name = request["entry"].partition(":")
function = importlib.import_module(module)
for part in name.split("."):
    function = getattr(function, part)
answer = function({t["name"]: array(t) for t in request["inputs"]})
if not isinstance(answer, dict):
    sys.exit("predict returned " + type(answer).__name__ + ", not a dict of arrays by output name")
out = {}
for key, value in answer.items():
    value = np.asarray(value)
    text = value.dtype.kind in "USO"
    data = [x.decode() if isinstance(x, bytes) else x for x in value.ravel().tolist()]
    if text and not all(isinstance(x, str) for x in data):
        sys.exit("output " + str(key) + " holds Python objects, not numbers or text")
    out[str(key)] = {"dtype": "object" if text else str(value.dtype), "shape": list(value.shape), "data": data}
with open(request["answer"], "w", encoding="utf-8") as stream:
    json.dump(out, stream)
"""


def from_python(
    predict: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    examples: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    path: str | Path | None = None,
) -> Path:
    """Package `predict(batch: dict[str, ndarray]) -> dict[str, ndarray]`, first dimension = batch, for every array.

    `examples`: arrays (or lists) by input name; text is an array of `str` objects.
    `packages`: pins that go before what is installed here, as in `@rml.step(packages=...)`.
    Returns the package's directory.
    """
    from .._capture import capture
    from .._env import lock_for

    arrays = _examples(examples)
    inputs = {from_array(name, array): array for name, array in arrays.items()}
    sliced = capture(predict)
    lock = lock_for(sliced.imports | {"numpy"}, packages)  # the batch itself is numpy
    from .._store import open_store

    for data in lock.blobs().values():  # wheels that no index has: whoever serves the model reads them from the store
        open_store().put(data)
    root, folder = model_folder(path)
    code = folder / "code"
    for name, data in sorted(sliced.files.items()):
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "lock.txt").write_text(lock.text, encoding="utf-8")

    answers = _ask(_python(lock.text, lock.digest), code, sliced.entry, inputs)
    rows = {len(array) for array in arrays.values()}
    outputs: dict[Tensor, Any] = {}
    for name, array in answers.items():
        tensor = from_array(name, array)
        if {len(array)} != rows:
            raise PackageError(
                f"output {name} has {len(array)} rows for a batch of {', '.join(map(str, sorted(rows)))}",
                where=f"output {name}",
                why="the answers of a batch are handed back to its callers row by row",
                fix="return one row per row of the input",
            )
        outputs[tensor] = array
    if not outputs:
        raise PackageError("predict returned no outputs", where="predict", fix='return {"y": array}')
    return write_package(
        root,
        format="python",
        inputs=inputs,
        outputs=outputs,
        labels=None if labels is None else [str(label) for label in labels],
        options={"entry": sliced.entry, "lock": lock.digest},
        metrics=metrics,
        tolerance=tolerance,
    )


def _examples(examples: Mapping[str, Any] | None) -> dict[str, Any]:
    import numpy as np

    if not isinstance(examples, Mapping) or not examples:
        raise PackageError(
            "a function needs recorded examples by input name",
            where="examples=",
            why="the signature is read from them, and every server checks the answers after loading",
            fix='examples={"TEXT": ["gg", "lag"]} or {"x": numpy.zeros((2, 4), "float32")}',
        )
    arrays = {}
    for name, value in examples.items():
        if not str(name).isidentifier():
            raise PackageError(
                f"input {name!r} is not a name callers can write", where="examples=", fix="letters, _ , digits"
            )
        texts = not hasattr(value, "dtype") and len(value) > 0 and all(isinstance(item, str) for item in value)
        array = text_array(value) if texts else np.asarray(value)
        datatype_of(array, str(name))  # refuses what the protocol cannot carry, by name
        arrays[str(name)] = array
    if len({array.shape[:1] for array in arrays.values()}) != 1 or not all(array.size for array in arrays.values()):
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise PackageError(
            f"the examples have different or no rows: {shapes}",
            where="examples=",
            why="the first dimension is the batch, the same for every input",
            fix="give every input one row per example",
        )
    return arrays


def _python(lock: str, digest: str) -> str:
    """The interpreter with the lock's packages: this one when it has them all, else one of the environment store."""
    from .._runtime import environments

    return sys.executable if environments.in_place(lock) else str(environments.ensure(lock, digest))


def _ask(python: str, code: Path, entry: str, inputs: Mapping[Tensor, Any]) -> dict[str, Any]:
    import os

    import numpy as np

    answer = code.parent / "answer.json"
    request = {
        "entry": entry,
        "inputs": [record(tensor, array) for tensor, array in inputs.items()],
        "answer": str(answer.resolve()),
    }
    environment = {**os.environ, "PYTHONPATH": str(code.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [python, "-c", _ASK],
            input=json.dumps(request),
            env=environment,
            cwd=code,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(
            f"predict did not answer its examples within {_TIMEOUT_S} s", where="predict", fix="give fewer examples"
        ) from None
    if done.returncode or not answer.is_file():
        said = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise PackageError(
            f"predict fails on its examples in a process of its own:\n{said}",
            where="predict",
            why="the server has only the captured code and the packages it imports, as this process had",
            fix="call it in the notebook on the same examples; import inside the code what it needs",
        )
    read = json.loads(answer.read_text("utf-8"))
    answer.unlink()
    arrays = {}
    for name, tensor in read.items():
        array = np.empty(len(tensor["data"]), dtype=tensor["dtype"])
        array[:] = tensor["data"]
        arrays[name] = array.reshape(tensor["shape"])
    return arrays
