"""What a proved token may ask."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ANONYMOUS", "Key"]


@dataclass(frozen=True, slots=True)
class Key:
    """What one token may ask.

    Attributes:
        models: the models; None: every one.
        operator: whether it may read the door's metrics.
    """

    principal: str
    models: frozenset[str] | None = None
    expires_at: float = float("inf")
    operator: bool = False


ANONYMOUS = Key("anonymous", operator=True)
