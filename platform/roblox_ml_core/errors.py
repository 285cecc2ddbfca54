"""The tree of errors every service raises: a code for programs, a message and a hint for people.

A service turns any of these into ``{"error": {"code", "message", "hint"}}`` with the class's HTTP status, and the
registry client turns that JSON back into the same class, so a caller handles `Conflict` the same way near and far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "Conflict",
    "Forbidden",
    "IntegrityError",
    "Invalid",
    "NotFound",
    "PackageError",
    "RmlError",
    "Throttled",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "from_json",
]


class RmlError(Exception):
    """What failed (`message`), what to do next (`hint`), a stable word for programs (`code`) and facts (`details`)."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions, and process pools pickle them.
        return (_rebuild, (type(self), self.message, self.hint, self.details))

    def to_json(self) -> dict[str, Any]:
        """The body every service answers with."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.details:
            error["details"] = self.details
        return {"error": error}


class Invalid(RmlError):
    """The request or value itself is wrong; repeating it cannot help."""

    code = "invalid"
    status = 422


class PackageError(Invalid):
    """A directory is not a valid model package; the message lists every finding."""

    code = "package_invalid"


class Unauthorized(RmlError):
    """No token, or a wrong one."""

    code = "unauthorized"
    status = 401


class Forbidden(RmlError):
    """It is known who asks, and they may not do this; `details` says what would be needed."""

    code = "forbidden"
    status = 403


class Throttled(RmlError):
    """Too many attempts; `details` has `retry_after_s`."""

    code = "throttled"
    status = 429


class NotFound(RmlError):
    """The named thing does not exist."""

    code = "not_found"
    status = 404


class Conflict(RmlError):
    """Somebody else was first, or something still refers to what should go; `details` says who or what."""

    code = "conflict"
    status = 409


class TooLarge(RmlError):
    """The body is over the limit of its route."""

    code = "too_large"
    status = 413


class IntegrityError(RmlError):
    """Bytes do not have the digest they are stored or listed under."""

    code = "digest_mismatch"
    status = 422


class Unavailable(RmlError):
    """A service this one needs does not answer; repeating later may help."""

    code = "unavailable"
    status = 503


_ALL = (
    Invalid, PackageError, Unauthorized, Forbidden, NotFound, Conflict, TooLarge, IntegrityError, Throttled, Unavailable,
    RmlError,
)  # fmt: skip
_CLASSES: dict[str, type[RmlError]] = {cls.code: cls for cls in _ALL}
_BY_STATUS: dict[int, type[RmlError]] = {
    400: Invalid, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge, 422: Invalid,
    429: Throttled, 503: Unavailable,
}  # fmt: skip


def from_json(status: int, body: Any) -> RmlError:
    """The error a service's answer stands for; an answer of another shape becomes the status' plain class."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return _BY_STATUS.get(status, RmlError)(f"HTTP {status}: {str(body)[:300]}")
    cls = _CLASSES.get(str(error.get("code")), _BY_STATUS.get(status, RmlError))
    details = error.get("details")
    return cls(
        str(error.get("message", "")),
        hint=str(error.get("hint", "")),
        details=details if isinstance(details, dict) else None,
    )


def _rebuild(cls: type[RmlError], message: str, hint: str, details: Mapping[str, Any]) -> RmlError:
    return cls(message, hint=hint, details=details)
