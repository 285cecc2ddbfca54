"""Verification of signed tokens (JWT): whose they are, that nobody changed them, that they are for us and for now.

Everything a token says of how it is to be verified is a claim of whoever sent it. So the issuer is looked up in what was
configured, the algorithm must be on our list (never ``none``, never a symmetric one, for which the public key would be the
secret), the key comes from the issuer's own key set, and headers that point at keys elsewhere are refused.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from ..errors import Unauthorized
from .grants import Grant, parse_grant
from .jwks import KeySet, read_json
from .principal import Principal

__all__ = ["ALGORITHMS", "Issuer", "Verifier", "looks_signed"]

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_MAX_BYTES = 16 << 10
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
# Each of these lets the sender say which key to trust, or asks for an extension that we do not know.
_REFUSED_HEADERS = ("jwk", "jku", "x5u", "x5c", "crit", "b64")
_AGAIN = "log in again: rml login"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may sign tokens for us, and what their tokens are worth.

    `subjects` and `groups` map a subject (a trailing ``*`` stands for any rest) or a value of the groups claim to grants such as
    ``team:safety=register``; a Kubernetes cluster's service accounts are ``system:serviceaccount:<namespace>:<name>``.
    """

    name: str
    issuer: str
    audience: str
    kind: str = "user"
    subject_claim: str = "sub"
    display_claim: str = "email"
    groups_claim: str = "groups"
    algorithms: frozenset[str] = field(default=frozenset({"RS256", "PS256", "ES256", "EdDSA"}))
    jwks_uri: str = ""
    ca_file: Path | None = None
    bearer_file: Path | None = None
    subjects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def key_set(self) -> KeySet:
        """Its keys, found by discovery unless their address is configured."""

        def fetch() -> Mapping[str, Any]:
            where = self.jwks_uri or self._discovered()
            document: Mapping[str, Any] = read_json(where, ca_file=self.ca_file, bearer_file=self.bearer_file)
            return document

        return KeySet(fetch)

    def _discovered(self) -> str:
        base = self.issuer.rstrip("/")
        found = read_json(
            f"{base}/.well-known/openid-configuration", ca_file=self.ca_file, bearer_file=self.bearer_file
        )
        if str(found["issuer"]).rstrip("/") != base:
            raise ValueError(f"{base} describes itself as {found['issuer']}")
        return str(found["jwks_uri"])

    def grants_of(self, subject: str, claims: Mapping[str, Any]) -> frozenset[Grant]:
        """The grants that this issuer's mapping gives to a verified token."""
        texts: list[str] = []
        for pattern, given in self.subjects.items():
            if pattern == subject or (pattern.endswith("*") and subject.startswith(pattern[:-1])):
                texts += given
        claimed = claims.get(self.groups_claim)
        for group in claimed if isinstance(claimed, list) else ():
            if isinstance(group, str):
                texts += self.groups.get(group, ())
        return frozenset(map(parse_grant, texts))


class Verifier:
    """Verifies tokens of a fixed set of issuers; `leeway_s` is how far clocks may differ."""

    def __init__(
        self, issuers: Sequence[Issuer], *, leeway_s: float = 30.0, key_sets: Mapping[str, KeySet] | None = None
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: (key_sets or {}).get(issuer.name) or issuer.key_set() for issuer in issuers}
        self._leeway_s = leeway_s

    def verify(self, token: str) -> tuple[Principal, dict[str, Any]]:
        """The principal a token proves, and its claims.

        Raises:
            Unauthorized: it proves nothing; the message says why, and never contains the token.
            Unavailable: the issuer's keys cannot be had at the moment.
        """
        issuer, header = self._claimed(token)
        algorithm = str(header.get("alg"))
        if algorithm not in ALGORITHMS or algorithm not in issuer.algorithms:
            allowed = ", ".join(sorted(issuer.algorithms & ALGORITHMS))
            raise Unauthorized(f"the token's algorithm {algorithm[:20]!r} is not accepted", hint=f"accepted: {allowed}")
        key_id = header.get("kid")
        key = self._keys[issuer.issuer].key(key_id if isinstance(key_id, str) else None, algorithm)
        claims = self._decode(token, key, algorithm, issuer)
        subject = claims.get(issuer.subject_claim)
        if not isinstance(subject, str) or not subject or len(subject) > 200 or not subject.isprintable():
            raise Unauthorized(f"the token's {issuer.subject_claim!r} names nobody", hint=_AGAIN)
        if issuer.subject_claim == "email" and claims.get("email_verified") is not True:
            raise Unauthorized("the token's e-mail address is not verified by its issuer", hint=_AGAIN)
        display = claims.get(issuer.display_claim)
        principal = Principal(
            id=f"{issuer.name}:{subject}",
            kind=issuer.kind,
            display=display[:200] if isinstance(display, str) and display.isprintable() else subject,
            grants=issuer.grants_of(subject, claims),
            issued_at=float(claims["iat"]),
        )
        return principal, claims

    def _claimed(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        """The configured issuer that the token names, and its header; nothing of it is believed yet."""
        if len(token) > _MAX_BYTES:
            raise Unauthorized(f"the token is longer than {_MAX_BYTES} bytes", hint=_AGAIN)
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("the token cannot be read", hint=_AGAIN) from None
        if refused := [name for name in _REFUSED_HEADERS if name in header]:
            raise Unauthorized(f"the token's header has {', '.join(refused)}, which is not accepted", hint=_AGAIN)
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            known = ", ".join(sorted(one.name for one in self._issuers.values())) or "none is configured"
            raise Unauthorized("the token is from an issuer that is not trusted here", hint=f"trusted: {known}")
        return issuer, header

    def _decode(self, token: str, key: jwt.PyJWK, algorithm: str, issuer: Issuer) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=self._leeway_s,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired", hint=_AGAIN) from None
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
            raise Unauthorized("the token is not valid yet", hint="compare the clocks of the two machines") from None
        except jwt.InvalidAudienceError:
            raise Unauthorized(
                f"the token is for another service, not for {issuer.audience!r}", hint="ask for a token for this one"
            ) from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"the token has no {error.claim!r}", hint=_AGAIN) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise Unauthorized("the token's signature is not its issuer's", hint=_AGAIN) from None
        return claims


def looks_signed(text: str) -> bool:
    """Whether the text has the shape of a signed token."""
    return fnmatch.fnmatchcase(text, "?*.?*.*")
