"""What a ranking endpoint answers: the best of some candidates, best first."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from ._predict import InputError, Prediction

__all__ = ["Ranking", "inputs_of"]

_SHOWN = 50


class Ranking(Sequence[tuple[Any, float]]):
    """(candidate, score), best first.

    Attributes:
        items: the candidates' ids; `scores`: theirs, falling.
        defaulted: how many features' values were defaults, because they were missing, too old, or did not come in time.
        version, inference_id, arms, fallback: who answered, as of a `Prediction`.
    """

    def __init__(self, answer: Prediction) -> None:
        self.items: list[Any] = answer.outputs["ITEMS"]
        self.scores: list[float] = answer.outputs["SCORES"]
        self.defaulted = int(answer.parameters.get("features_defaulted", 0))
        self.version, self.inference_id = answer.version, answer.inference_id
        self.arms, self.fallback = answer.arms, answer.fallback

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, float]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Any, float] | list[tuple[Any, float]]:
        if isinstance(index, slice):
            return list(zip(self.items[index], self.scores[index], strict=True))
        return self.items[index], self.scores[index]

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        return iter(zip(self.items, self.scores, strict=True))

    def __repr__(self) -> str:
        pairs = ", ".join(f"{item!r}: {score:.4g}" for item, score in self[:_SHOWN])
        more = f", … {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        return f"<Ranking {{{pairs}{more}}}, {self.defaulted} defaults, version {self.version}>"

    def _repr_html_(self) -> str:
        highest = max((abs(score) for score in self.scores if math.isfinite(score)), default=0.0) or 1.0
        rows = "".join(
            f"<tr><td>{place}</td><td>{html.escape(str(item))}</td><td>{score:.4g}</td><td>"
            f'<div style="background:#4a7ebb;height:0.8em;width:{_width(score, highest):.0f}px"></div></td></tr>'
            for place, (item, score) in enumerate(self[:_SHOWN], 1)
        )
        more = f"<p>and {len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        defaults = f", {self.defaulted} features' values were defaults" if self.defaulted else ""
        head = "<thead><tr><th></th><th>item</th><th>score</th><th></th></tr></thead>"
        return f"<table>{head}<tbody>{rows}</tbody></table>{more}<p>version {self.version}{defaults}</p>"


def _width(score: float, highest: float) -> float:
    return 120 * max(0.0, min(1.0, score / highest)) if math.isfinite(score) else 0.0


def inputs_of(
    name: str, wanted: Sequence[Mapping[str, Any]], user: Any, candidates: Any, features: Mapping[str, float] | None
) -> dict[str, list[Any]]:
    """The tensors' values of one question.

    Raises:
        InputError: the endpoint ranks nothing, or these are no ids and numbers.
    """
    known = {str(one["name"]): str(one["datatype"]) for one in wanted}
    if not {"USER", "CANDIDATES"} <= set(known):
        takes = ", ".join(f"{key} {kind}" for key, kind in known.items())
        raise InputError(
            f"endpoint {name!r} ranks nothing: its model takes {takes}", why="a ranker is made with Model.ranking",
            fix="endpoint.predict(…)",
        )  # fmt: skip
    if isinstance(candidates, str | bytes | Mapping) or not (
        hasattr(candidates, "tolist") or isinstance(candidates, Iterable)
    ):
        raise InputError(
            f"candidates is {candidates!r:.60}", why="a list of ids is ranked", fix='rank("u1", [11, 12, 13])'
        )
    listed = [_plain(one) for one in (candidates.tolist() if hasattr(candidates, "tolist") else candidates)]
    texts = known["CANDIDATES"] == "BYTES"
    for one in listed:
        fits = isinstance(one, str | bytes) if texts else isinstance(one, int) and not isinstance(one, bool)
        if not fits:
            kind = "texts" if texts else "integers"
            raise InputError(
                f"candidate {one!r:.60} is a {type(one).__name__}", why=f"this endpoint's ids are {kind}", fix=kind
            )
    return {
        "USER": [_user(user)],
        "CANDIDATES": listed,
        **_context(name, "CONTEXT" in known, features),
    }


def _user(user: Any) -> str | bytes:
    plain = _plain(user)
    if plain is None:
        return ""
    if isinstance(plain, str | bytes):
        return plain
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    raise InputError(
        f"user is {user!r:.60}", why="the key of a user's features is a text or an integer", fix='rank("u1", …)'
    )


def _context(name: str, wanted: bool, features: Any) -> dict[str, list[str]]:
    if features is not None and not isinstance(features, Mapping):
        raise InputError(f"features is a {type(features).__name__}", why="they are named", fix='{"hour": 17}')
    given = {str(key): _plain(value) for key, value in (features or {}).items()}
    if given and not wanted:
        raise InputError(
            f"endpoint {name!r} takes no features of the caller's, and was given {', '.join(given)}",
            why="its model was made without context=", fix="leave them out, or name them in Model.ranking(context=…)",
        )  # fmt: skip
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(
                f"feature {key!r} is {value!r:.60}",
                why="features of a request are finite numbers",
                fix=f'{{"{key}": 17}}',
            )
    return {"CONTEXT": [json.dumps(given)]} if wanted else {}


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's own."""
    return value.item() if hasattr(value, "item") and not isinstance(value, str | bytes) else value
