"""A scoring model as a ranker: the package with `model/ranking.json`, which tells a door what to do in front of it.

The model stays what it is, rows of numbers in and scores out, and is tested as such on every server. What the file adds is where
its columns come from: features of the user, of each candidate, and of the request itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._package import extended

__all__ = ["as_ranking"]

_FILE = "ranking.json"
_SIDES = ("user", "item")
_MAX_K = 10_000
_VIEW_KEYS = frozenset(("of", "features", "ttl_s", "max_age_s", "required"))
_VIEW = '{"user_profile": {"of": "user", "ttl_s": 60, "features": {"age": 0.0}}}'


def as_ranking(
    package: str | Path,
    *,
    views: Mapping[str, Mapping[str, Any]],
    context: Mapping[str, float] | None = None,
    columns: Sequence[str] | None = None,
    candidates: str = "BYTES",
    k: int = 10,
    features_share: float = 0.5,
    score: str | None = None,
    path: str | Path | None = None,
) -> Path:
    """A copy of `package` that ranks.

    `views`: by name `{"of": "user" | "item", "features": {name: default}, "ttl_s": seconds that a door may keep them, "max_age_s":
    older rows count as missing, "required": True where an answer without them is worth nothing}`.
    `context`: features that the client sends, name → default. `columns`: the model's columns as `view.feature` and `context.feature`;
    left out: view after view in the order given, then the context.
    `candidates`: datatype of items' ids, `BYTES` or `INT64`. `k`: how many are answered, unless an experiment's arm says so.
    `features_share`: part of the time left that fetching features may take.
    `score`: the class whose probability is the score (a classifier's last label unless given).
    """
    source = Path(package)
    info, signature = _json(source, "package.json"), _json(source, "signature.json")
    findings: list[str] = []
    listed = [_view(name, view, findings) for name, view in views.items()]
    said = [
        {"name": name, "default": _number(value, f"context {name}", findings)}
        for name, value in (context or {}).items()
    ]
    known = [f"{view['name']}.{one['name']}" for view in listed for one in view["features"]]
    known += [f"context.{one['name']}" for one in said]
    wanted = list(known if columns is None else columns)
    if unknown := sorted(set(wanted) - set(known)):
        findings.append(f"columns {', '.join(unknown)} are in no view")
    if unused := sorted(set(known) - set(wanted)):
        findings.append(f"features {', '.join(unused)} are in no column: nobody would read them")
    if not listed:
        findings.append(f"there are no views; write views={_VIEW}")
    if candidates not in ("BYTES", "INT64"):
        findings.append(f"candidates={candidates!r} is neither BYTES nor INT64")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= _MAX_K:
        findings.append(f"k={k!r} is no number from 1 to {_MAX_K}")
    if not 0 < _number(features_share, "features_share", findings) < 1:
        findings.append(f"features_share={features_share!r} is not between 0 and 1")
    model = _model(info, signature, len(wanted), score, findings)
    if findings:
        raise PackageError(
            "this does not make a ranker: " + "; ".join(findings),
            where="ranking",
            why="a door makes the model's rows of it, and would have to refuse every request",
            fix=f"views={_VIEW}, and a model with one input of as many float columns as there are features",
        )
    spec = {
        "schema": 1, "candidates": candidates, "k": k, "views": listed, "context": said, "columns": wanted, "model": model,
        "features_share": features_share,
    }  # fmt: skip
    clients = {
        "inputs": [
            _tensor("USER", "BYTES", 1), _tensor("CANDIDATES", candidates, -1),
            *([_tensor("CONTEXT", "BYTES", 1)] if said else []),
        ],
        "outputs": [_tensor("ITEMS", candidates, -1), _tensor("SCORES", "FP32", -1)],
    }  # fmt: skip

    def add(folder: Path) -> dict[str, Any]:
        text = json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")
        return {"preprocess": "ranking", "clients": clients}

    return extended(source, add, path)


def _view(name: str, view: Mapping[str, Any], findings: list[str]) -> dict[str, Any]:
    where = f"view {name}"
    if not isinstance(view, Mapping):
        findings.append(f"{where} is {view!r}, not {_VIEW}")
        view = {"of": "user", "features": ["?"]}
    if extra := sorted(set(view) - _VIEW_KEYS):
        findings.append(f"{where} has {', '.join(extra)}; there are {', '.join(sorted(_VIEW_KEYS))}")
    if view.get("of") not in _SIDES:
        findings.append(f'{where} is of {view.get("of")!r}; write "of": "user" or "of": "item"')
    if name == "context":
        findings.append("context is what the client sends: give the view another name")
    if not name.replace("_", "").replace("-", "").isalnum():
        findings.append(f"{where}: a name has letters, digits, _ and -")
    given = view.get("features")
    features = given if isinstance(given, Mapping) else dict.fromkeys(given or (), 0.0)
    if len(features) < len(given or ()):
        findings.append(f"{where} has a feature twice")
    if not features:
        findings.append(f"{where} has no features")
    ttl, oldest = _number(view.get("ttl_s", 60.0), f"ttl_s of {where}", findings), view.get("max_age_s")
    if ttl < 0 or (oldest is not None and _number(oldest, f"max_age_s of {where}", findings) <= 0):
        findings.append(f"{where}: ttl_s and max_age_s are seconds")
    return {
        "name": name, "of": view.get("of"), "ttl_s": ttl, "max_age_s": oldest, "required": bool(view.get("required", False)),
        "features": [
            {"name": str(one), "default": _number(value, f"{name}.{one}", findings)} for one, value in features.items()
        ],
    }  # fmt: skip


def _model(
    info: Mapping[str, Any], signature: Mapping[str, Any], columns: int, score: str | None, findings: list[str]
) -> dict[str, Any]:
    """Which input takes the rows and which output has the scores."""
    inputs, outputs = signature["inputs"], signature["outputs"]
    takes = ", ".join(f"{one['name']} {one['datatype']} {one['shape']}" for one in inputs)
    if len(inputs) != 1 or inputs[0]["datatype"] != "FP32" or len(inputs[0]["shape"]) != 2:
        findings.append(f"the model takes {takes}, not one table of FP32")
    elif inputs[0]["shape"][1] not in (-1, columns):
        findings.append(f"the model takes {inputs[0]['shape'][1]} columns and there are {columns} features")
    floats = [one for one in outputs if one["datatype"] in ("FP32", "FP64")]
    if len(floats) != 1:
        findings.append(f"the model has {len(floats)} outputs of floats: one must be the score")
        return {}
    output, labels = floats[0], info.get("labels") or []
    column = None
    if len(output["shape"]) == 2:
        width = output["shape"][1]
        column = (width if width > 0 else len(labels) or 1) - 1
        if score is not None:
            if score in labels:
                column = labels.index(score)
            else:
                findings.append(f"score={score!r} is none of the model's labels {labels}")
    elif score is not None:
        findings.append(f"score={score!r} was given, and the model has one score a row")
    return {"input": inputs[0]["name"], "output": output["name"], "column": column}


def _number(value: Any, where: str, findings: list[str]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        findings.append(f"{where} is {value!r}, no finite number")
        return 0.0
    return number


def _tensor(name: str, datatype: str, size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [size]}


def _json(root: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((root / name).read_bytes())
        return found
    except (OSError, ValueError) as error:
        raise PackageError(
            f"{root} is no model package: {error}", where="ranking", fix="rml.Model.from_onnx(…).ranking(views=…)"
        ) from error
