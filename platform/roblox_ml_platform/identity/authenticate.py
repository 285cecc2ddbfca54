"""From what a request brings to a proved principal: the home's token, a service token, or a signed token of a trusted issuer."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from roblox_ml_core.auth import Issuer, Limit, Principal, Scope, Verifier, digest_of, is_service_token, parse
from roblox_ml_core.auth.principal import LOCAL
from roblox_ml_core.errors import Throttled, Unauthorized
from roblox_ml_core.settings import IdentitySettings, IssuerSettings
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..database import Database
from . import tables as i
from .throttle import Throttle

__all__ = ["Authenticator", "add_principal", "issuers_of"]

_TOUCH_S = 60.0  # how exact "last used" is; a write per request would be the dearest part of it


class Authenticator:
    """Proves who sends a bearer token. Revocation and expiry are looked up every time: nothing that ended is believed again."""

    def __init__(self, home_token: str, database: Database, settings: IdentitySettings) -> None:
        self._home = home_token.encode()
        self._database = database
        self._verifier = Verifier([_issuer(one) for one in settings.trusted()], leeway_s=settings.leeway_s)
        self._throttle = Throttle(settings.failures_per_minute)
        self._touched: dict[str, float] = {}
        self._lock = threading.Lock()

    def local(self, token: bytes) -> Principal | None:
        """The administrator, when the token is the home's own. In constant time, and needs no database."""
        return LOCAL if secrets.compare_digest(token, self._home) else None

    def prove(self, token: bytes, address: str) -> Principal:
        """The principal behind any other token.

        Raises:
            Unauthorized: it proves nothing, and why.
            Throttled: too many failures from this address.
        """
        text = token.decode("latin-1")
        digest = digest_of(text)
        if wait := self._throttle.wait_s(address, digest):
            raise Throttled(
                "too many failed attempts from this address",
                hint=f"try again in {int(wait) + 1} seconds, with a token that is valid",
                details={"retry_after_s": int(wait) + 1},
            )
        try:
            principal = self._service(text) if is_service_token(text) else self._signed(text, digest)
        except Unauthorized:
            self._throttle.failed(address)
            raise
        self._throttle.succeeded(digest)
        return principal

    def _service(self, text: str) -> Principal:
        token = parse(text)
        with self._database.read() as connection:
            row = connection.execute(select(i.tokens).where(i.tokens.c.digest == token.digest)).mappings().first()
            if row is None:
                raise Unauthorized("this service token is not known here", hint="make one with: rml tokens create NAME")
            where = f"the service token {token.shown} ({row['name']})"
            if row["revoked_at"] is not None:
                raise Unauthorized(f"{where} was revoked", hint="make another with: rml tokens create NAME")
            if row["expires_at"] <= time.time():
                raise Unauthorized(f"{where} has expired", hint="make another with: rml tokens create NAME")
            _check_alive(connection, row["owner"], row["created_at"])
        if self._due(token.id):
            with self._database.write() as connection:
                touch = update(i.tokens).where(i.tokens.c.id == token.id).values(used_at=time.time())
                connection.execute(touch)
        return Principal(
            id=f"{row['owner']}#{token.shown}",
            kind="token",
            display=f"{row['owner']} with token {row['name']}",
            limit=Limit(row["role"], Scope.parse(row["scope"])),
            owner=row["owner"],
            token=token.id,
            issued_at=row["created_at"],
        )

    def _signed(self, text: str, digest: str) -> Principal:
        if text.count(".") != 2:
            raise Unauthorized(
                "this is not a token of this control plane",
                hint="rml login, or a service token in RML_TOKEN; the home's own is in $RML_HOME/token",
            )
        principal, _claims = self._verifier.verify(text)
        with self._database.read() as connection:
            if connection.execute(select(i.revoked.c.digest).where(i.revoked.c.digest == digest)).first():
                raise Unauthorized("the token was ended by a log-out", hint="log in again: rml login")
            _check_alive(connection, principal.id, principal.issued_at or 0.0)
        if self._due(principal.id):
            self._seen(principal)
        return principal

    def _seen(self, principal: Principal) -> None:
        values: dict[str, Any] = {
            "kind": principal.kind,
            "display": principal.display,
            "mapped": sorted(f"{grant.scope}={grant.role}" for grant in principal.grants),
            "seen_at": time.time(),
        }
        with self._database.write() as connection:
            known = connection.execute(update(i.principals).where(i.principals.c.id == principal.id).values(**values))
            if known.rowcount == 0:
                add_principal(connection, principal.id, **values)

    def _due(self, key: str) -> bool:
        with self._lock:
            now = time.monotonic()
            if now - self._touched.get(key, -_TOUCH_S) < _TOUCH_S:
                return False
            if len(self._touched) > 10_000:
                self._touched.clear()
            self._touched[key] = now
            return True


def add_principal(connection: Connection, principal: str, **values: Any) -> None:
    """Insert a row unless another request was first."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"kind": "user", "display": principal, "mapped": [], "seen_at": 0.0, "valid_after": 0.0, "disabled": False}
    connection.execute(dialect.insert(i.principals).values(id=principal, **{**row, **values}).on_conflict_do_nothing())


def issuers_of(settings: IdentitySettings) -> list[dict[str, str]]:
    """What somebody who wants to log in must know. Public: it has no secret, and asking for a token comes before having one."""
    return [
        {"name": one.name, "issuer": one.issuer, "client_id": one.client_id, "scopes": one.scopes}
        for one in settings.trusted()
        if one.client_id
    ]


def _check_alive(connection: Connection, principal: str, issued_at: float) -> None:
    query = select(i.principals.c.disabled, i.principals.c.valid_after).where(i.principals.c.id == principal)
    row = connection.execute(query).first()
    if row is None:
        return
    if row.disabled:
        raise Unauthorized(f"{principal} is disabled here", hint="ask an administrator of the platform")
    if issued_at < row.valid_after:
        raise Unauthorized(f"everything issued to {principal} before now was revoked", hint="log in again: rml login")


def _issuer(settings: IssuerSettings) -> Issuer:
    fields = settings.model_dump(exclude={"client_id", "scopes", "algorithms"})
    return Issuer(**fields, algorithms=frozenset(settings.algorithms))
