"""Signed tokens at the door: whose they are is the control plane's to say, once a minute each.

Whoever invents tokens must not make doors a way to burden the control plane. What cannot be good is refused here, and of those that nobody
has vouched for yet only so many are asked about. A token that was good is asked about again whatever strangers do.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .key import Key
from .refusals import Reason, Refused

__all__ = ["Allowance", "SignedTokens", "is_signed", "why_impossible"]

_KEPT = 10_000
_REFUSED_S, _UNANSWERED_S = 10.0, 1.0
_MOST_STRANGERS = 32  # asked about at once
_LEEWAY_S = 300.0  # the most by which the control plane lets clocks differ


@dataclass(slots=True)
class Allowance:
    """So many at once, and after that so many a second (a token bucket). Pure: the time is an argument, in seconds of any clock."""

    most: float = 50.0
    per_second: float = 20.0
    left: float = 50.0
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is allowed; it is counted if so."""
        self.left = min(self.most, self.left + max(0.0, now - self.at) * self.per_second)
        self.at = max(self.at, now)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class SignedTokens:
    """What is known of signed tokens.

    Args:
        ask: says who one is; raises `Refused` where it is nobody's, or cannot be asked now.
        turned_away: told of each that is not asked about, because too many unknown ones came.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Key]],
        turned_away: Callable[[], None] = lambda: None,
        allowance: Allowance | None = None,
    ) -> None:
        self._ask, self._turned_away = ask, turned_away
        self._allowance = allowance or Allowance(at=time.monotonic())
        self._proved: dict[str, Key] = {}
        self._refused: dict[str, tuple[float, Refused]] = {}  # until when the refusal stands
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._strangers = 0

    def unproved(self, token: str) -> bool:
        """Whether `prove` must be awaited before `key`: it is new, or was proved a while ago."""
        now = time.time()
        if self._standing(token, now) is not None:
            return False
        key = self._proved.get(token)
        return why_impossible(token, now) is None if key is None else key.expires_at <= now

    async def prove(self, token: str) -> None:
        """Ask who it is. Those who come with the same one wait for one answer.

        Raises:
            Refused: too many unknown ones came at once.
        """
        if not self.unproved(token):
            return
        task = self._asking.get(token)
        if task is None:
            stranger = token not in self._proved
            if stranger and (self._strangers >= _MOST_STRANGERS or not self._allowance.take(time.monotonic())):
                self._turned_away()
                raise Refused(
                    Reason.OVERLOADED,
                    "too many tokens that are not known here wait to be verified; try again in a second",
                )
            task = self._asking[token] = asyncio.ensure_future(self._ask_once(token, stranger))
            task.add_done_callback(lambda _: self._asking.pop(token, None))
        await asyncio.shield(task)

    def key(self, token: str) -> Key:
        """What the control plane said of it.

        Raises:
            Refused: it is nobody's, or could not be asked about.
        """
        now = time.time()
        if (refused := self._standing(token, now)) is not None:
            raise Refused.of(refused.refusal)
        if (key := self._proved.get(token)) is not None:
            return key
        why = why_impossible(token, now) or "nobody was asked whose it is"
        raise Refused(
            Reason.UNAUTHENTICATED, f"the signed token is not good: {why}; `rml login` renews a person's token"
        )

    async def _ask_once(self, token: str, stranger: bool) -> None:
        self._strangers += stranger
        try:
            key = await self._ask(token)
        except Refused as refused:
            nobody = refused.refusal.reason is Reason.UNAUTHENTICATED
            if nobody:
                self._proved.pop(token, None)
            # For a moment the answer stands: a broken client must not ask the control plane with each request.
            now = time.time()
            self._forget_refusals(now)
            self._refused[token] = (now + (_REFUSED_S if nobody else _UNANSWERED_S), refused)
        else:
            self._refused.pop(token, None)
            self._proved.pop(token, None)  # the youngest is last
            if len(self._proved) >= _KEPT:
                del self._proved[next(iter(self._proved))]
            self._proved[token] = key
        finally:
            self._strangers -= stranger

    def _standing(self, token: str, now: float) -> Refused | None:
        found = self._refused.get(token)
        return found[1] if found is not None and found[0] > now else None

    def _forget_refusals(self, now: float) -> None:
        """Those that no longer stand; their number is bounded by what may be asked."""
        for token in [token for token, (until, _) in self._refused.items() if until <= now]:
            del self._refused[token]


def is_signed(token: str) -> bool:
    """Whether it claims to be a JWT."""
    return token.count(".") == 2 and token.startswith("ey")


def why_impossible(token: str, now: float) -> str | None:
    """Why no issuer's key can make this token good now; None where one could. Nothing here proves anything."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return "it has not three parts"
    header, claims = (_part(part) for part in parts[:2])
    if header is None or claims is None:
        return "its header or its claims are no JSON objects"
    algorithm, expires = header.get("alg"), claims.get("exp")
    if not isinstance(algorithm, str) or algorithm.lower() == "none" or algorithm.startswith("HS"):
        return "it is not signed with a key pair"
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        return "it does not say when it expires"
    return "it has expired" if not expires > now - _LEEWAY_S else None


def _part(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
