"""What both protocols say of who asks, and read of who answered."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from ._predict import InputError, Prediction, Tensor

__all__ = ["ID_HEADER", "about", "answered", "unit_of"]

VERSION_HEADER = "x-rml-model-version"
ID_HEADER = "x-rml-inference-id"
_MAX_UNIT = 256


def unit_of(user: str | int | None) -> str | int | None:
    """A user's key as the unit, where it can be one: keys may be longer and odder than units."""
    if isinstance(user, str) and not (user.isprintable() and user == user.strip() and 0 < len(user) <= _MAX_UNIT):
        return None
    return user


def answered(tensors: list[Tensor], headers: dict[str, Any], parameters: Mapping[str, Any] | None = None) -> Prediction:
    """The answer with what its headers or trailing metadata say."""
    version = headers.get(VERSION_HEADER)
    arms = dict(pair.split("=", 1) for pair in str(headers.get("x-rml-arms") or "").split(",") if "=" in pair)
    return Prediction(
        tensors, version=int(version) if version else None, inference_id=headers.get(ID_HEADER), arms=arms,
        fallback="x-rml-fallback" in headers, parameters=parameters,
    )  # fmt: skip


def about(unit: str | int | None, context: Mapping[str, Any] | None) -> dict[str, str]:
    """Who asks, as headers or metadata carry it.

    Raises:
        InputError: it is no id that a header could carry, or a context that is no JSON.
    """
    from ._rollouts.wishes import as_unit

    found = {}
    if unit is not None:
        text = as_unit(unit)
        if (
            not isinstance(text, str)
            or not text.isprintable()
            or not 0 < len(text) <= _MAX_UNIT
            or text != text.strip()
        ):
            raise InputError(
                f"unit is {reprlib.repr(text)}",
                why=f"a unit is an id of at most {_MAX_UNIT} printable characters",
                fix='unit="user-17"',
            )
        found["x-rml-unit"] = text
    if context and not isinstance(context, Mapping):
        raise InputError(
            f"context is {reprlib.repr(context)}",
            why="a context is a mapping of attributes",
            fix='context={"country": "DE", "age": 14}',
        )
    if context:
        try:
            found["x-rml-context"] = json.dumps(dict(context), separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"context is not JSON: {error}", fix='context={"country": "DE", "age": 14}') from None
    return found
