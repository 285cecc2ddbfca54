"""Everything the door answers itself instead of a model: one reason, one HTTP status, one gRPC code, one sentence."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Reason", "Refusal", "Refused"]


class Reason(enum.Enum):
    """Why the door refuses: (HTTP status, gRPC status code); a third word keeps equal pairs apart, as an enum demands."""

    BAD_REQUEST = (400, "INVALID_ARGUMENT")
    VERSION_NAMED = (400, "INVALID_ARGUMENT", "version")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    FORBIDDEN = (403, "PERMISSION_DENIED")
    UNKNOWN_ENDPOINT = (404, "NOT_FOUND")
    UNKNOWN_ROUTE = (404, "UNIMPLEMENTED")
    WRONG_METHOD = (405, "UNIMPLEMENTED")
    SLOW_BODY = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    UNSUPPORTED_CODING = (415, "INVALID_ARGUMENT")
    BAD_UPSTREAM = (502, "INTERNAL")
    NOT_READY = (503, "UNAVAILABLE")
    UPSTREAM_LOST = (503, "UNAVAILABLE", "lost")
    OVERLOADED = (503, "UNAVAILABLE", "overloaded")
    DEADLINE = (504, "DEADLINE_EXCEEDED")
    BUSY = (429, "RESOURCE_EXHAUSTED", "busy")

    @property
    def http_status(self) -> int:
        return int(self.value[0])

    @property
    def grpc_code(self) -> str:
        """The name of the `grpc.StatusCode`."""
        return str(self.value[1])

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which asking again may help; None where it cannot."""
        return 1 if self.http_status == 503 else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The door's own answer: a reason for programs and a sentence for people."""

    reason: Reason
    message: str
    retry_after_s: float | None = None  # where it is known better than by the reason alone

    @property
    def retry_after(self) -> float | None:
        """Seconds after which asking again may help; None where it cannot."""
        return self.reason.retry_after_s if self.retry_after_s is None else self.retry_after_s


class Refused(Exception):
    """Carries a refusal from where it is found to where it is answered."""

    def __init__(self, reason: Reason, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message, retry_after_s)

    @classmethod
    def of(cls, refusal: Refusal) -> Refused:
        return cls(refusal.reason, refusal.message, refusal.retry_after_s)
