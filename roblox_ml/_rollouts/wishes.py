"""The small things that are said about rollouts, checked where they are said.

    rml.canary(version=8, share=0.05)       rml.metric("ctr", ratio=("click", "impression"))
    rml.log(rate=0.1, bodies=True)          rml.guardrail("crash", event="crash", direction="down", margin=0.01)

Shares are fractions here (0.05 is five percent) and 10,000ths on the wire, which is as fine as assignment gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RmlSdkError

__all__ = [
    "Canary",
    "Log",
    "Metric",
    "WishError",
    "as_contexts",
    "as_unit",
    "as_units",
    "as_version",
    "canary",
    "guardrail",
    "in_parts",
    "log",
    "metric",
    "percent_or_share",
    "shown_share",
]

SCALE = 10_000


class WishError(RmlSdkError):
    """A share, a metric or an arm that cannot be meant."""


def percent_or_share(wish: float) -> float:
    """What `canary=` says without a version: a whole number is percent, as in 5; a fraction is a share, as in 0.05.

    Raises:
        WishError: it is neither.
    """
    if isinstance(wish, int) and not isinstance(wish, bool) and 1 <= wish <= 100:
        return wish / 100
    if isinstance(wish, float) and 0 < wish < 1:
        in_parts(wish, "canary")
        return wish
    raise WishError(
        f"canary is {wish!r}",
        why="it is a percentage (5), a share (0.05), or another version with its share",
        fix='rml.deploy("feed/8", canary=5), or canary=rml.canary(version=8, share=0.05)',
    )


def as_version(wish: Any) -> int:
    """A version's number, as a number or as text.

    Raises:
        WishError: it is something else.
    """
    plain = _plain(wish)
    if isinstance(plain, int) and not isinstance(plain, bool) and plain > 0:
        return plain
    if isinstance(plain, str) and plain.isdecimal() and int(plain) > 0:
        return int(plain)
    raise WishError(
        f"version is {wish!r}",
        why="a version of the endpoint's model is meant, by its number",
        fix='8, or rml.models.get("feed@candidate").version',
    )


def in_parts(share: float, what: str = "share") -> int:
    """A fraction in 10,000ths.

    Raises:
        WishError: it is not above 0 and at most 1, or finer than a 10,000th.
    """
    ok = isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share) and 0 < share <= 1
    parts = round(share * SCALE) if ok else 0
    if not parts:
        raise WishError(
            f"{what} is {share!r}",
            why="a share is above 0 and at most 1, in steps of 0.0001",
            fix="0.05 is five percent",
        )
    return parts


def as_unit(unit: Any) -> Any:
    """A unit's id as it travels: whole numbers are ids too, as texts."""
    plain = _plain(unit)
    return str(plain) if isinstance(plain, int) and not isinstance(plain, bool) else plain


def as_units(units: Iterable[Any]) -> list[str]:
    """The ids of a frame's column, as the door would have them from each request.

    Raises:
        WishError: a row has none, or one that no request could carry. `17.0` is refused too: it is what a column of whole numbers with
            gaps in it turns `17` into, and it would be another unit.
    """
    found = []
    for row, unit in enumerate(units):
        text = as_unit(unit)
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= 256 or text != text.strip():
            floats = isinstance(text, float)
            raise WishError(
                f"row {row}: the unit is {unit!r}",
                why="a unit is an id of at most 256 printable characters, or a whole number",
                fix='drop rows without one, then frame["user_id"].astype("int64")'
                if floats
                else "drop such rows, or str(…) them",
            )
        found.append(text)
    return found


def as_contexts(contexts: Any) -> Mapping[str, Any] | list[Mapping[str, Any]] | None:
    """One context for all, or one for each row, of plain values: targeting knows no numpy.

    Raises:
        WishError: it is neither.
    """
    if contexts is None:
        return None
    if isinstance(contexts, Mapping):
        return {str(name): _plain(value) for name, value in contexts.items()}
    listed = list(contexts.to_dict("records") if hasattr(contexts, "to_dict") else contexts)
    for row, one in enumerate(listed):
        if not isinstance(one, Mapping):
            raise WishError(
                f"row {row}: the context is {one!r}",
                why="a context is a mapping of attributes",
                fix='context={"country": "DE"} for all, or a list or frame with one for each unit',
            )
    return [{str(name): _plain(value) for name, value in one.items()} for one in listed]


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def shown_share(parts: int) -> str:
    """10,000ths as people read them."""
    return f"{parts / 100:g} %"


@dataclass(frozen=True, slots=True)
class Canary:
    """Another version for a share of the units."""

    version: int
    share: float


@dataclass(frozen=True, slots=True)
class Log:
    """What doors keep of an endpoint's requests."""

    rate: float
    bodies: bool
    retention_days: int
    data_class: str

    def to_json(self) -> dict[str, Any]:
        return {
            "rate": in_parts(self.rate, "rate") if self.rate else 0,
            "bodies": self.bodies,
            "retention_days": self.retention_days,
            "data_class": self.data_class,
        }


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured of each unit from its outcomes (`rml.track`)."""

    name: str
    kind: str
    event: str
    per: str | None = None
    direction: str = "up"
    cuped_days: int = 0
    primary: bool = True
    margin: float | None = None

    def to_json(self) -> dict[str, Any]:
        fields = {
            "name": self.name, "kind": self.kind, "event": self.event, "per": self.per, "direction": self.direction,
            "cuped_days": self.cuped_days, "primary": self.primary,
        }  # fmt: skip
        return fields if self.margin is None else {**fields, "margin": self.margin}


def canary(version: int, share: float = 0.05) -> Canary:
    """A canary for `rml.deploy(..., canary=...)`: `version` answers a share of the units, always the same ones."""
    in_parts(share)
    return Canary(as_version(version), share)


def log(rate: float = 1.0, bodies: bool = False, retention_days: int = 30, data_class: str = "internal") -> Log:
    """What doors keep: a share of the requests, with or without what was sent and answered, for so many days."""
    wish = Log(rate, bodies, retention_days, data_class)
    wish.to_json()
    return wish


def metric(
    name: str,
    *,
    event: str | None = None,
    kind: str | None = None,
    ratio: tuple[str, str] | None = None,
    direction: str = "up",
    cuped_days: int = 0,
    primary: bool = True,
) -> Metric:
    """One thing to compare between arms.

    Args:
        name: what it is called in reports; also the event, where none is given.
        event: the outcome that is tracked (`rml.track("click", unit=…)`).
        kind: of each unit: "mean" (the sum of its events' values, 1 each unless tracked otherwise; what is left out means this),
            "count" (how many events, whatever their values), "conversion" (whether there was any). A unit without events has 0.
        ratio: (event above, event below the line): their sums per arm, with units as the unit of variance.
        direction: "up" when more is better.
        cuped_days: how many days before its first exposure a unit's own history may explain; less variance, sooner sure.
        primary: whether a decision hangs on it; several primary metrics share the error rate.

    Raises:
        WishError: kind, direction or ratio cannot be meant.
    """
    if ratio is not None:
        if kind not in (None, "ratio") or isinstance(ratio, str) or len(ratio) != 2:
            raise WishError(
                f"metric {name!r}: a ratio is of two events", fix='rml.metric("ctr", ratio=("click", "view"))'
            )
        return Metric(name, "ratio", ratio[0], ratio[1], _direction(name, direction), cuped_days, primary)
    kind = kind or "mean"
    if kind not in ("count", "mean", "conversion"):
        raise WishError(f"metric {name!r} has the kind {kind!r}", fix='"mean", "count", "conversion", or ratio=(…, …)')
    return Metric(name, kind, event or name, None, _direction(name, direction), cuped_days, primary)


def guardrail(name: str, *, margin: float = 0.0, direction: str = "down", **more: Any) -> Metric:
    """A metric that ends the experiment when an arm is surely worse than control by more than `margin` (relative: 0.01 is 1 %).

    `direction` is what is good, as in `rml.metric`: "down" for crashes and latency. The rest is as in `rml.metric`.
    """
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise WishError(f"guardrail {name!r} has the margin {margin!r}", fix="0.01 allows one percent, 0 none")
    made = metric(name, direction=direction, **more)
    return replace(made, margin=float(margin))


def read_metric(wish: Metric | str | Mapping[str, Any]) -> dict[str, Any]:
    """A metric as the control plane takes it; a text is the name of an event whose values are summed per unit."""
    if isinstance(wish, str):
        return metric(wish).to_json()
    return wish.to_json() if isinstance(wish, Metric) else dict(wish)


def _direction(name: str, direction: str) -> str:
    if direction not in ("up", "down"):
        raise WishError(f"metric {name!r} has the direction {direction!r}", fix='"up": more is better, or "down"')
    return direction
