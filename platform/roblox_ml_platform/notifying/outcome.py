"""What became of one attempt to tell somebody, and when to try again. Pure.

Three outcomes: it was taken; the other side is not there or is busy (`Again`: everything for that address waits); or it said no
to this one message or to us (`Refused`: tried again too, since a person may repair it, but holds up nothing else).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["Again", "Delivered", "Outcome", "Refused", "of_status", "pause", "retry_after"]

_LONGEST_REASON = 300
_LONGEST_RETRY_AFTER = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The other side took it."""


@dataclass(frozen=True, slots=True)
class Again:
    """Not now: nobody there, a time-out, 5xx, 429. `wait` is what the other side asked for, in seconds."""

    reason: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """No: unknown channel, wrong password, message not accepted, or the channel is not configured here."""

    reason: str


Outcome = Delivered | Again | Refused


def of_status(status: int, body: str, after: str | None, now: float) -> Outcome:
    """What an HTTP answer means for a delivery."""
    if 200 <= status < 300:
        return Delivered()
    said = f"HTTP {status}" + (f": {body.strip()[:_LONGEST_REASON]}" if body.strip() else "")
    if status in (408, 425, 429) or status >= 500:
        return Again(said, retry_after(after, now))
    return Refused(said)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date (RFC 9110, 10.2.3); None when it says neither."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text[:16])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)


def pause(attempts: int, outcome: Again | Refused, *, base: float, cap: float, draw: float) -> float:
    """Seconds until the next attempt after `attempts` failures: doubling, spread over its upper half by `draw` (0…1), never before asked.

    A refusal is not a matter of seconds: its first pause is thirty times as long.
    """
    first = base * (30 if isinstance(outcome, Refused) else 1)
    longest = min(cap, first * 2.0 ** min(attempts - 1, 40))
    spread = longest * (0.5 + 0.5 * draw)
    wanted = outcome.wait if isinstance(outcome, Again) else None
    # A little more than asked for: a clock that runs ahead would knock too early, and be told to wait again.
    return max(spread, wanted + min(1.0, base) * 0.1) if wanted else spread
