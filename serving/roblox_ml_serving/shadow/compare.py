"""Two answers to one question, compared tensor by tensor.

* Numbers: absolute and relative difference; per row of scores whether another label wins; per list of scores how alike the
  orders are.
* Texts and whole numbers (labels, item ids): how many places differ, and for lists how much of them they share.
* What cannot be compared (another name, type, shape; a NaN in one alone) is counted as such, not skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from .ranks import overlap, spearman
from .tensors import Tensor, Unreadable, read_answer

__all__ = ["TOP", "Comparison", "TensorDifference", "compare_answers", "compare_tensors"]

#: How many of a list's first count as its top.
TOP = 10
_MIN_LIST = 3  # the order of two says no more than which is larger
_MOST_ROWS = 256  # of lists whose orders are compared; more say the same
_SHOWN = 8
Answer = tuple[bytes, int | None]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor.

    Attributes:
        kind: "number", "text" or "whole"; "mismatch" where `mismatch` says what does not fit.
        flips: rows with another label (the largest score, or the text itself).
        nan: places where one is a number and the other is not.
        overlap, rank: of lists, mean over rows: share of the top in common; rank correlation.
    """

    kind: str
    values: int = 0
    rows: int = 0
    flips: int = 0
    nan: int = 0
    abs_max: float | None = None
    abs_mean: float | None = None
    rel_max: float | None = None
    rel_mean: float | None = None
    overlap: float | None = None
    rank: float | None = None
    mismatch: str = ""

    @property
    def distance(self) -> float:
        """Between 0 (the same) and 1: to find what differs most, not to be proud of."""
        if self.mismatch or self.nan:
            return 1.0
        flipped = self.flips / self.rows if self.rows else 0.0
        relative = (self.rel_mean or 0.0) / 2.0  # a relative difference is at most 2
        return max(flipped, relative, 1.0 - (1.0 if self.overlap is None else self.overlap))

    def to_json(self) -> dict[str, Any]:
        """Without what does not apply."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in found.items() if value not in (None, "")}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole answer. `values` are a few of both, kept only where the endpoint's log keeps bodies."""

    tensors: Mapping[str, TensorDifference] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def failed(cls, reason: str) -> Comparison:
        return cls(error=reason[:300])

    @property
    def distance(self) -> float:
        return max((one.distance for one in self.tensors.values()), default=0.0)

    @property
    def rows(self) -> int:
        return max((one.rows for one in self.tensors.values()), default=0)

    @property
    def flips(self) -> int:
        return max((one.flips for one in self.tensors.values()), default=0)

    @property
    def mismatches(self) -> int:
        return sum(1 for one in self.tensors.values() if one.mismatch)

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        found: dict[str, Any] = {
            "distance": self.distance,
            "tensors": {name: one.to_json() for name, one in self.tensors.items()},
        }
        return found | ({"values": dict(self.values)} if self.values else {})

    def to_text(self) -> str:
        """As the stream `shadows` has it."""
        return json.dumps(self.to_json(), separators=(",", ":"))


def compare_answers(protocol: str, primary: Answer, shadow: Answer, show_values: bool = False) -> Comparison:
    """Read and compare two answers in the same protocol. Never raises: an answer that cannot be read is the finding."""
    try:
        theirs = read_answer(protocol, *primary)
    except Unreadable as error:
        return Comparison.failed(f"the primary's answer: {error}")
    try:
        ours = read_answer(protocol, *shadow)
    except Unreadable as error:
        return Comparison.failed(f"the shadow's answer: {error}")
    return compare_tensors(theirs, ours, show_values=show_values)


def compare_tensors(
    primary: Mapping[str, Tensor], shadow: Mapping[str, Tensor], *, show_values: bool = False
) -> Comparison:
    """Compare outputs by name."""
    found = {}
    values = {}
    for name in sorted(primary.keys() | shadow.keys()):
        one, other = primary.get(name), shadow.get(name)
        if one is None or other is None:
            found[name] = _mismatch(f"only the {'shadow' if one is None else 'primary'} has it")
            continue
        found[name] = _compare(one, other)
        if show_values:
            values[name] = {"primary": _shown(one), "shadow": _shown(other)}
    return Comparison(found, "", values)


def _compare(one: Tensor, other: Tensor) -> TensorDifference:
    if one.datatype != other.datatype:
        return _mismatch(f"datatype {other.datatype}, the primary's is {one.datatype}")
    if one.shape != other.shape:
        return _mismatch(f"shape {list(other.shape)}, the primary's is {list(one.shape)}")
    if one.datatype.startswith("FP"):
        return _numbers(one.array.astype(np.float64), other.array.astype(np.float64))
    return _places("text" if one.datatype == "BYTES" else "whole", one.array, other.array)


def _numbers(a: Any, b: Any) -> TensorDifference:
    size, rows = int(a.size), _rows(a)
    if size == 0:
        return TensorDifference("number", 0, rows)
    nan = np.isnan(a) != np.isnan(b)
    with np.errstate(invalid="ignore", over="ignore"):
        # The same infinity, or NaN in both, is no difference.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        absolute = np.where(same, 0.0, np.abs(a - b))
        larger = np.maximum(np.abs(a), np.abs(b))
        relative = np.where(same, 0.0, np.where(np.isinf(larger), 2.0, absolute / np.where(larger == 0, 1.0, larger)))
    absolute, relative = absolute[~nan], relative[~nan]
    finite = absolute[np.isfinite(absolute)]
    flips = 0
    top = rank = None
    if not nan.any() and a.shape[-1] > 1 and a.ndim <= 2:
        lists_a, lists_b = np.atleast_2d(np.nan_to_num(a)), np.atleast_2d(np.nan_to_num(b))
        if a.ndim == 2:
            flips = int(np.count_nonzero(lists_a.argmax(axis=1) != lists_b.argmax(axis=1)))
        top, rank = _orders(lists_a, lists_b)
    return TensorDifference(
        "number", size, rows, flips, int(nan.sum()),
        _float(finite.max() if finite.size else 0.0), _float(finite.mean() if finite.size else 0.0),
        _float(relative.max() if relative.size else 0.0), _float(relative.mean() if relative.size else 0.0), top, rank,
    )  # fmt: skip


def _orders(a: Any, b: Any) -> tuple[float | None, float | None]:
    """Mean overlap of the tops and mean rank correlation of the lists in the rows."""
    if a.shape[-1] < _MIN_LIST:
        return None, None
    a, b = a[:_MOST_ROWS], b[:_MOST_ROWS]
    # The top of a short list would be nearly all of it.
    k = min(TOP, max(1, a.shape[-1] // 2))
    tops = [overlap(x, y, k) for x, y in zip(a, b, strict=True)]
    ranks = [rank for x, y in zip(a, b, strict=True) if (rank := spearman(x, y)) is not None]
    return _float(np.mean(tops)) if tops else None, _float(np.mean(ranks)) if ranks else None


def _places(kind: str, a: Any, b: Any) -> TensorDifference:
    """Labels and ids: equal or not; as lists, what they share wherever it stands."""
    rows = _rows(a)
    if a.size == 0:
        return TensorDifference(kind, 0, rows)
    different = a != b
    flips = int(np.count_nonzero(different.reshape(rows, -1).any(axis=1)))
    shared = None
    if a.ndim == 2 and a.shape[1] >= _MIN_LIST:
        pairs = zip(a[:_MOST_ROWS, :TOP], b[:_MOST_ROWS, :TOP], strict=True)
        shared = _float(
            np.mean([len(set(x.tolist()) & set(y.tolist())) / max(1, len(set(x.tolist()))) for x, y in pairs])
        )
    if kind == "text":
        return TensorDifference(kind, int(a.size), rows, flips, overlap=shared)
    absolute = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return TensorDifference(
        kind, int(a.size), rows, flips, abs_max=_float(absolute.max()), abs_mean=_float(absolute.mean()), overlap=shared
    )


def _mismatch(what: str) -> TensorDifference:
    return TensorDifference("mismatch", mismatch=what)


def _rows(array: Any) -> int:
    return int(array.shape[0]) if array.ndim else 1


def _float(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _shown(tensor: Tensor) -> list[Any]:
    flat = tensor.array.ravel()[:_SHOWN].tolist()
    return [
        value[:80].decode("utf-8", "replace")
        if isinstance(value, bytes)
        else (str(value) if isinstance(value, float) and not np.isfinite(value) else value)
        for value in flat
    ]
