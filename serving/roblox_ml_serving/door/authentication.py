"""Who may ask: every request of both protocols passes here, and a token seen before costs a dictionary lookup.

The control plane feeds the door hashes of service tokens and what each may ask (`KeyFeed`); the door keeps them on disk, so that it
outlives the control plane, and never the tokens themselves. The home's own token is always known. A person's signed token is shown to
the control plane once a minute (`signed.py`); what is checked after that is what it said.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType

from .key import ANONYMOUS, Key
from .refusals import Reason, Refused
from .signed import SignedTokens, is_signed

__all__ = ["Authentication"]

_KEPT = 10_000
_HOW = 'send "authorization: Bearer <token>"; `rml tokens create` makes one that may only ask models'


@dataclass(slots=True)
class Authentication:
    """Proves bearer tokens.

    Args:
        home_token: the home's own token; None where there is none.
        anonymous: let requests without a token in (a loopback door's default). A token that is sent is checked even then.
    """

    home_token: str | None
    anonymous: bool = False
    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))
    signed: SignedTokens | None = None  # None: nobody is asked who a signed token is
    _seen: dict[str, Key] = field(default_factory=dict)

    def replace(self, keys: Mapping[str, Key]) -> None:
        """The control plane's current keys, by the sha256 of the token."""
        self.keys = keys
        self._seen.clear()

    def unproved(self, authorization: str | None) -> bool:
        """Whether `prove` must be awaited before any of the checks: a signed token that is new, or was proved a while ago."""
        if self.signed is None or authorization is None or authorization in self._seen:
            return False
        token = _bearer(authorization)
        return token is not None and is_signed(token) and self.signed.unproved(token)

    async def prove(self, authorization: str | None) -> None:
        """Ask who a signed token is, where that is not known.

        Raises:
            Refused: too many unknown ones came at once.
        """
        if self.signed is not None and self.unproved(authorization):
            await self.signed.prove(_bearer(authorization or "") or "")

    def check(self, authorization: str | None, model: str) -> str:
        """The principal that may ask the model.

        Raises:
            Refused: it proves nothing (401), or may not (403).
        """
        key = self._key(authorization)
        if key.models is not None and model not in key.models:
            who, _, token = key.principal.partition(" with token ")
            limits = "; the token may have narrower limits of its own: rml tokens list" if token else ""
            raise Refused(
                Reason.FORBIDDEN,
                f"{key.principal} may not ask model {model!r}; an administrator of it can give the role: "
                f"rml grants give {who} model:{model} infer" + limits,
            )
        return key.principal

    def check_client(self, authorization: str | None) -> str:
        """Somebody who may ask any model at all: for outcomes, which belong to no endpoint."""
        return self._key(authorization).principal

    def check_operator(self, authorization: str | None) -> str:
        """Somebody who may see how the door does."""
        key = self._key(authorization)
        if not key.operator:
            raise Refused(
                Reason.FORBIDDEN, f"{key.principal} may not read the door's metrics: that takes a role over everything"
            )
        return key.principal

    def _key(self, authorization: str | None) -> Key:
        if authorization is None:
            if self.anonymous:
                return ANONYMOUS
            raise Refused(Reason.UNAUTHENTICATED, f"the request has no token; {_HOW}")
        key = self._seen.get(authorization)
        if key is None:
            key = self._prove(authorization)
        if key.expires_at <= time.time():
            raise Refused(
                Reason.UNAUTHENTICATED, f"the token of {key.principal} has expired; make another: rml tokens create"
            )
        return key

    def _prove(self, authorization: str) -> Key:
        token = _bearer(authorization)
        if token is None:
            raise Refused(Reason.UNAUTHENTICATED, f"the authorization header is no bearer token; {_HOW}")
        raw = token.encode("utf-8", "replace")
        if self.home_token and hmac.compare_digest(raw, self.home_token.encode()):
            found: Key | None = Key("local", operator=True)
        elif is_signed(token):
            if self.signed is None:
                raise Refused(Reason.UNAUTHENTICATED, f"this door asks nobody who a signed token is; {_HOW}")
            return self.signed.key(token)  # not kept with the others, because it is asked about again
        else:
            found = self.keys.get(sha256(raw).hexdigest())
        if found is None:
            raise Refused(
                Reason.UNAUTHENTICATED, f"the token is not known here (mistyped, expired, or revoked?); {_HOW}"
            )
        if len(self._seen) >= _KEPT:
            self._seen.clear()
        self._seen[authorization] = found
        return found


def _bearer(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None
