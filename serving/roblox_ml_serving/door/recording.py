"""What is kept of a request: a row for the log, one for each new exposure, and the question for the shadows."""

from __future__ import annotations

from collections.abc import Sequence

from roblox_ml_core.policy import Decision, Policy

from .snapshot import Target

__all__ = ["Recorder", "Served", "arms_text"]


def arms_text(decision: Decision) -> str:
    """`experiment=arm,…`, as answers carry it and logs have it."""
    return ",".join([arm.text for arm in decision.reached])


class Served:
    """One request as it went: who was to answer, who did.

    `arms` is the text of its experiments' arms; `forward` are the request's headers that a model server sees, `answer_headers` the
    answer's (REST; gRPC has none).
    """

    __slots__ = (
        "answer_headers",
        "arms",
        "decision",
        "fallback",
        "forward",
        "identity",
        "protocol",
        "status",
        "target",
        "unit",
    )

    def __init__(self, identity: str, protocol: str, unit: str | None, decision: Decision) -> None:
        self.identity = identity
        self.protocol = protocol
        self.unit = unit
        self.decision = decision
        self.arms = arms_text(decision) if decision.reached else ""
        self.target: Target | None = None
        self.status = 0
        self.fallback = False
        self.forward: Sequence[tuple[bytes, bytes]] = ()
        self.answer_headers: Sequence[tuple[bytes, bytes]] = ()

    def reached(self, target: Target, status: int, *, fallback: bool) -> None:
        self.target, self.status, self.fallback = target, status, fallback


class Recorder:
    """Keeps nothing: the door without a log."""

    def adopt(self, rules: Policy) -> None:
        """Another snapshot is in use."""

    def record(self, served: Served, seconds: float, request: bytes, answer: bytes) -> None:
        """One request has ended."""

    def track(self, body: bytes) -> tuple[int, int]:
        """Outcomes that a client reports: (accepted, dropped)."""
        return 0, 0

    def expose(self, body: bytes) -> tuple[int, int]:
        """Exposures of a client that decides itself: (accepted, dropped)."""
        return 0, 0

    async def close(self) -> None:
        """Everything offered is written."""
