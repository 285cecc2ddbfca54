"""What doors do in front of a model, as its package says: the kind, the files they need for it, and the tensors clients see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["clients_signature", "preprocess_of"]

#: By the package's format, or by its option `preprocess` for what may stand in front of a model of any format.
_BY_FORMAT = {"text-cpu": ("text", ("model/tokenizer.json", "model/text.json"))}
_BY_OPTION = {"ranking": ("ranking", ("model/ranking.json",))}


def preprocess_of(package: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a door does with requests before they reach the model server; None: nothing."""
    found = _BY_FORMAT.get(str(package.get("format"))) or _BY_OPTION.get(str(_options(package).get("preprocess")))
    if found is None:
        return None
    kind, paths = found
    return {"kind": kind, "files": {path: manifest[path]["sha256"] for path in paths if path in manifest}}


def clients_signature(package: Mapping[str, Any], signature: dict[str, Any]) -> dict[str, Any]:
    """The tensors that clients send and get: the model's, unless the package's option `clients` names others."""
    said = _options(package).get("clients")
    sides = [said.get(side) for side in ("inputs", "outputs")] if isinstance(said, Mapping) else []
    if len(sides) == 2 and all(isinstance(side, list) and side and all(map(_is_tensor, side)) for side in sides):
        return {"inputs": sides[0], "outputs": sides[1]}
    return signature


def _options(package: Mapping[str, Any]) -> Mapping[str, Any]:
    options = package.get("options")
    return options if isinstance(options, Mapping) else {}


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("datatype"), str)
        and isinstance(value.get("shape"), list)
    )
