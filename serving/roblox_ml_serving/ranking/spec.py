"""`model/ranking.json`: what a ranking package says about the features in front of its model. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["FILE", "MAX_CANDIDATES", "RankingSpec", "SpecInvalid", "View"]

FILE = "model/ranking.json"
SCHEMA = 1
#: More candidates than this are retrieval's work, not a ranker's.
MAX_CANDIDATES = 10_000
_DATATYPES = ("BYTES", "INT64")
_SIDES = ("user", "item")


class SpecInvalid(ValueError):
    """The file cannot be used; the message says where."""


@dataclass(frozen=True, slots=True)
class View:
    """Features that are computed, kept and asked together, of users or of items.

    Attributes:
        of: `user` or `item`: whose key it is asked by.
        ttl_s: how long a door may use what it fetched; 0: not beyond the request.
        max_age_s: a row whose event is older counts as missing; None: never too old.
        required: an answer without this view is worth nothing: refuse when no server gives it.
    """

    name: str
    of: str
    ttl_s: float
    features: tuple[str, ...]
    defaults: tuple[float, ...]
    max_age_s: float | None = None
    required: bool = False

    @property
    def table(self) -> tuple[str, str, tuple[str, ...]]:
        """What decides whether two views may share what was fetched: a user and an item may have the same key."""
        return self.of, self.name, self.features


@dataclass(frozen=True, slots=True)
class RankingSpec:
    """The whole file. `columns` are the model's, in order: (view's index, feature's index), view -1 being the context."""

    candidates: str
    k: int
    views: tuple[View, ...]
    context: tuple[tuple[str, float], ...]
    columns: tuple[tuple[int, int], ...]
    input: str
    output: str
    column: int | None  # of a two-dimensional output
    features_share: float  # of the time that is left, for fetching features
    is_plain: bool = field(init=False)  # columns are simply one view after the other

    def __post_init__(self) -> None:
        straight = [(v, f) for v, view in enumerate(self.views) for f in range(len(view.features))]
        straight += [(-1, f) for f in range(len(self.context))]
        object.__setattr__(self, "is_plain", list(self.columns) == straight)

    @classmethod
    def read(cls, data: bytes) -> RankingSpec:
        """Raises:
        SpecInvalid: the bytes are no such file.
        """
        try:
            tree = json.loads(data)
            if tree["schema"] != SCHEMA:
                raise SpecInvalid(f"{FILE} has schema {tree['schema']!r}; this door reads {SCHEMA}")
            views = tuple(_view(entry) for entry in tree["views"])
            context = tuple((str(one["name"]), _finite(one["default"])) for one in tree.get("context", ()))
            model = tree["model"]
            found = cls(
                str(tree["candidates"]), int(tree["k"]), views, context,
                _columns(tree["columns"], views, context), str(model["input"]), str(model["output"]),
                None if model.get("column") is None else int(model["column"]), float(tree.get("features_share", 0.5)),
            )  # fmt: skip
        except SpecInvalid:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SpecInvalid(f"{FILE} cannot be read: {what}") from None
        names = [view.name for view in views]
        if len(set(names)) != len(names):
            raise SpecInvalid(f"{FILE} names a view twice: {', '.join(names)}")
        if "context" in names:
            raise SpecInvalid(f"{FILE}: a view is called context, as what the client sends")
        if found.candidates not in _DATATYPES:
            raise SpecInvalid(f"{FILE}: candidates are {found.candidates[:40]!r}, not {' or '.join(_DATATYPES)}")
        if not 1 <= found.k <= MAX_CANDIDATES or not 0 < found.features_share < 1 or not found.columns:
            raise SpecInvalid(f"{FILE}: k, features_share or columns are out of range")
        return found

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """What clients send."""
        tensors = [_tensor("USER", "BYTES", 1), _tensor("CANDIDATES", self.candidates, -1)]
        return [*tensors, _tensor("CONTEXT", "BYTES", 1)] if self.context else tensors

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What clients get."""
        return [_tensor("ITEMS", self.candidates, -1), _tensor("SCORES", "FP32", -1)]

    @property
    def names(self) -> list[str]:
        """The features by column, `view.feature`."""
        return [
            f"context.{self.context[feature][0]}" if view < 0 else f"{self.views[view].name}.{self.views[view].features[feature]}"
            for view, feature in self.columns
        ]  # fmt: skip


def _tensor(name: str, datatype: str, size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [size]}


def _view(entry: Mapping[str, Any]) -> View:
    name, of = str(entry["name"]), str(entry["of"])
    features = tuple(str(one["name"]) for one in entry["features"])
    ttl, max_age = float(entry["ttl_s"]), entry.get("max_age_s")
    if of not in _SIDES:
        raise SpecInvalid(f"{FILE}: view {name!r} is of {of!r}, not of a user or an item")
    if not features or len(set(features)) != len(features):
        raise SpecInvalid(f"{FILE}: view {name!r} has no features, or one twice")
    if not 0 <= ttl < math.inf or (max_age is not None and not float(max_age) > 0):
        raise SpecInvalid(f"{FILE}: view {name!r} has a ttl_s or max_age_s out of range")
    defaults = tuple(_finite(one["default"]) for one in entry["features"])
    age = None if max_age is None else float(max_age)
    return View(name, of, ttl, features, defaults, age, bool(entry.get("required", False)))


def _columns(
    names: Any, views: tuple[View, ...], context: tuple[tuple[str, float], ...]
) -> tuple[tuple[int, int], ...]:
    known = {f"{view.name}.{name}": (v, f) for v, view in enumerate(views) for f, name in enumerate(view.features)}
    known |= {f"context.{name}": (-1, f) for f, (name, _) in enumerate(context)}
    unknown = [str(name)[:80] for name in names if name not in known]
    if unknown:
        raise SpecInvalid(f"{FILE}: columns {', '.join(unknown[:5])} are no view's feature")
    return tuple(known[name] for name in names)


def _finite(value: Any) -> float:
    number = float(np.float32(value))
    if isinstance(value, bool) or not math.isfinite(number):
        raise SpecInvalid(f"{FILE}: the default {value!r} is no finite number")
    return number
