"""From rows of the stream `shadows` to what a person wants to know before a launch: how other are the answers, how fast.

Pure. Rows are comparisons already (of the door); here they are only counted, sorted and put into quantiles.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["shadow_report"]

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_MEASURES = ("abs_max", "abs_mean", "rel_max", "rel_mean")
_ALIKE = ("overlap", "rank")


def shadow_report(
    rows: pa.Table | Iterable[Mapping[str, Any]], *, tolerance: float = 1e-3, examples: int = 10
) -> dict[str, Any]:
    """What the rows of one shadow say.

    `tolerance` is for the largest relative difference within one answer. Latencies are of the questions that both answered: the
    primary's includes its queue in the door, and the shadow's was asked while nobody waited.

    Returns:
        asked, compared, codes, error_rate, same, within_tolerance (shares of what was compared), since_us, until_us,
        latency {primary, shadow, difference: {p50, p90, p99, max}} in microseconds, tensors by name, versions, errors, examples.
    """
    listed: list[Mapping[str, Any]] = rows.to_pylist() if hasattr(rows, "to_pylist") else list(rows)
    codes: dict[str, int] = {}
    errors: dict[str, int] = {}
    compared = []
    for row in listed:
        codes[row["code"]] = codes.get(row["code"], 0) + 1
        found = _parsed(row.get("tensors_json"))
        if row["code"] == "ok" and "tensors" in found:
            compared.append((row, found))
        elif message := found.get("error"):
            errors[message] = errors.get(message, 0) + 1
    tensors: dict[str, list[Mapping[str, Any]]] = {}
    for _, found in compared:
        for name, one in found["tensors"].items():
            tensors.setdefault(name, []).append(one)
    primary = [int(row["primary_us"]) for row, _ in compared]
    shadow = [int(row["shadow_us"]) for row, _ in compared]
    failed = len(listed) - len(compared)
    return {
        "asked": len(listed),
        "compared": len(compared),
        "codes": codes,
        "error_rate": _share(failed, len(listed)),
        "same": _share(sum(1 for _, found in compared if found["distance"] == 0), len(compared)),
        "within_tolerance": _share(sum(1 for _, found in compared if _within(found, tolerance)), len(compared)),
        "tolerance": tolerance,
        "since_us": min((row["at_us"] for row in listed), default=None),
        "until_us": max((row["at_us"] for row in listed), default=None),
        "versions": _pairs(listed),
        "latency": {
            "primary": _spread(primary),
            "shadow": _spread(shadow),
            "difference": _spread([b - a for a, b in zip(primary, shadow, strict=True)]),
        },
        "tensors": {name: _tensor(several, tolerance) for name, several in sorted(tensors.items())},
        "errors": [{"message": text, "count": n} for text, n in sorted(errors.items(), key=lambda e: -e[1])[:examples]],
        "examples": _examples(compared, examples),
    }


def _parsed(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _tensor(several: Sequence[Mapping[str, Any]], tolerance: float) -> dict[str, Any]:
    """One output over all answers."""
    mismatches: dict[str, int] = {}
    for one in several:
        if what := one.get("mismatch"):
            mismatches[what] = mismatches.get(what, 0) + 1
    sound = [one for one in several if not one.get("mismatch")]
    rows = sum(int(one.get("rows", 0)) for one in sound)
    flips = sum(int(one.get("flips", 0)) for one in sound)
    found: dict[str, Any] = {
        "answers": len(several),
        "kinds": sorted({str(one["kind"]) for one in sound}),
        "rows": rows,
        "flips": flips,
        "flip_share": _share(flips, rows),
        "nan": sum(int(one.get("nan", 0)) for one in sound),
        "mismatches": mismatches,
        "within_tolerance": _share(sum(1 for one in several if _tensor_within(one, tolerance)), len(several)),
    }
    for name in _MEASURES:
        if values := [float(one[name]) for one in sound if one.get(name) is not None]:
            found[name] = {"mean": sum(values) / len(values), **_spread(values)}
    for name in _ALIKE:  # here the small ones are the bad ones
        if values := sorted(float(one[name]) for one in sound if one.get(name) is not None):
            found[name] = {"mean": sum(values) / len(values), "min": values[0], "p10": _quantile(values, 0.1)}
    return found


def _within(found: Mapping[str, Any], tolerance: float) -> bool:
    return all(_tensor_within(one, tolerance) for one in found["tensors"].values())


def _tensor_within(one: Mapping[str, Any], tolerance: float) -> bool:
    if one.get("mismatch") or one.get("nan"):
        return False
    if one.get("kind") == "number":  # another label within the tolerance is a tie
        return float(one.get("rel_max") or 0.0) <= tolerance
    return not one.get("flips")


def _examples(compared: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], most: int) -> list[dict[str, Any]]:
    different = [(row, found) for row, found in compared if found["distance"] > 0]
    different.sort(key=lambda pair: -pair[1]["distance"])
    return [
        {"inference_id": row["inference_id"], "at_us": row["at_us"], "primary_version": row["primary_version"], **found}
        for row, found in different[:most]
    ]


def _pairs(listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counted: dict[tuple[int, int], int] = {}
    for row in listed:
        key = (int(row["primary_version"]), int(row["version"]))
        counted[key] = counted.get(key, 0) + 1
    return [{"primary": one, "shadow": other, "asked": count} for (one, other), count in sorted(counted.items())]


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    return {"max" if q == 1.0 else f"p{q * 100:.0f}": _quantile(ordered, q) for q in _QUANTILES}


def _quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of all does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
