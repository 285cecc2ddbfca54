"""Whether one version's tensors could stand for another's: the same names, datatypes and numbers of dimensions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["differences"]


def differences(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> list[str]:
    """What a client of `ours` would notice if `theirs` answered, in words; empty: nothing."""
    return list(_differences(ours or {}, theirs or {}))


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterable[str]:
    for side in ("inputs", "outputs"):
        mine = {tensor["name"]: tensor for tensor in ours.get(side) or ()}
        other = {tensor["name"]: tensor for tensor in theirs.get(side) or ()}
        for name in sorted(mine.keys() | other.keys()):
            what = f"{side[:-1]} {name}"
            if name not in other:
                yield f"it has no {what}"
            elif name not in mine:
                yield f"it has {what}, which the endpoint has not"
            elif mine[name]["datatype"] != other[name]["datatype"]:
                yield f"{what} is {other[name]['datatype']} instead of {mine[name]['datatype']}"
            elif len(mine[name]["shape"]) != len(other[name]["shape"]):
                yield f"{what} has {len(other[name]['shape'])} dimensions instead of {len(mine[name]['shape'])}"
