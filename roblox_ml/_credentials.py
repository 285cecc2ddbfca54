"""The token to send to an address: of the environment, of a login, or of this home; never of another server.

A login lies in ``$RML_HOME/credentials.json`` (mode 0600) under the origin it is for. A login that is about to end is renewed
with its refresh token before it is used, by one process at a time: a provider that rotates refresh tokens takes each once.
Nothing here is ever printed; what is shown of an entry is `Login`, which has no secret in it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._store import home
from .errors import NotRunning, RemoteError, RmlSdkError

__all__ = ["Login", "LoginExpired", "expiry", "forget", "logins", "origin", "post_form", "remember", "token_for"]

SCHEMA = 1
_EARLY = 60.0  # a token with less left than this is renewed first: it must outlive the call it is for
_TIMEOUT = 30.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PORTS = {"http": 80, "https": 443}


class LoginExpired(RmlSdkError):
    """The login for a server has ended and cannot be renewed."""


@dataclass(frozen=True, slots=True)
class Login:
    """What may be shown of a stored login: for which origin, of what kind, as whom, until when."""

    origin: str
    kind: str
    principal: str
    expires_at: float | None


def token_for(url: str) -> str | None:
    """The bearer token for a server, or None when there is nothing to send.

    In this order: ``RML_TOKEN`` (or the file that ``RML_TOKEN_FILE`` names, which a pod's platform keeps fresh), a login
    for the address's origin, and for this machine's own servers the home's token. With ``RML_CONTROL_URL`` set, the
    environment's token goes to that origin (and this machine) only, so that it does not reach another service's log.

    Raises:
        LoginExpired: there is a login, it has ended, and the provider will not renew it.
    """
    where = origin(url)
    if token := _of_environment(where):
        return token
    entry = _read().get(where)
    if entry is not None:
        return _fresh(where, entry)
    return _of_home() if _is_loopback(where) else None


def origin(url: str) -> str:
    """Scheme, host and port of an address: what a login is for."""
    parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
    host = (parts.hostname or "").lower()
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def remember(url: str, entry: Mapping[str, Any]) -> None:
    """Keep a login. `entry`: kind ("oidc" or "token"), token, principal; for OIDC also refresh_token, token_endpoint, client_id."""
    with _locked():
        found = _read()
        found[origin(url)] = dict(entry)
        _write(found)


def forget(url: str) -> Mapping[str, Any] | None:
    """Drop the login for an origin; returns what was kept, so that the caller can have it revoked."""
    with _locked():
        found = _read()
        gone = found.pop(origin(url), None)
        if gone is not None:
            _write(found)
        return gone


def logins() -> list[Login]:
    """Every stored login, without its secrets."""
    return [
        Login(where, str(entry.get("kind", "")), str(entry.get("principal", "")), _expires(entry))
        for where, entry in sorted(_read().items())
    ]


def expiry(token: str) -> float | None:
    """When a JWT says it ends. Not verified: the server does that; this only decides when to renew."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None


def post_form(url: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """POST a form as OAuth wants it; status and JSON answer. Secrets go in the body, never in the address."""
    data = urllib.parse.urlencode(dict(fields)).encode()
    request = urllib.request.Request(url, data=data, headers={"Accept": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - the operator's identity provider
            return answer.status, _object(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _object(error.read())
    except OSError as error:
        raise NotRunning(
            f"the identity provider at {origin(url)} does not answer: {getattr(error, 'reason', error)}",
            fix="try again, or use a service token: RML_TOKEN",
        ) from None


def _fresh(where: str, entry: Mapping[str, Any]) -> str:
    """The entry's token, renewed when it is about to end."""
    if not _ending(entry):
        return str(entry["token"])
    with _locked():
        entry = _read().get(where, entry)  # another process may have renewed it while this one waited
        if not _ending(entry):
            return str(entry["token"])
        ended = (_expires(entry) or 0.0) <= time.time()
        try:
            renewed = _renew(where, entry)
        except RmlSdkError:
            if ended:
                raise
            return str(entry["token"])  # the provider is away, but what we have is good for this call
        found = _read()
        found[where] = renewed
        _write(found)
        return str(renewed["token"])


def _renew(where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    again = f"log in again: rml login --url {where}"
    if not entry.get("refresh_token") or not entry.get("token_endpoint"):
        raise LoginExpired(f"the login for {where} has ended", why="it cannot be renewed", fix=again)
    fields = {
        "grant_type": "refresh_token",
        "refresh_token": str(entry["refresh_token"]),
        "client_id": str(entry.get("client_id", "")),
    }
    status, answer = post_form(str(entry["token_endpoint"]), fields)
    if status >= 500:
        raise RemoteError(f"the identity provider cannot renew the login for {where}: HTTP {status}", status=status)
    token = answer.get("id_token")
    if status >= 400 or not isinstance(token, str):
        said = str(answer.get("error_description") or answer.get("error") or "it sent no identity token")[:200]
        raise LoginExpired(f"the login for {where} has ended", why=f"the identity provider says: {said}", fix=again)
    renewed = {**entry, "token": token, "expires_at": expiry(token)}
    if isinstance(answer.get("refresh_token"), str):  # rotated: the old one is worth nothing now
        renewed["refresh_token"] = answer["refresh_token"]
    return renewed


def _ending(entry: Mapping[str, Any]) -> bool:
    until = _expires(entry)
    return until is not None and until - time.time() < _EARLY


def _expires(entry: Mapping[str, Any]) -> float | None:
    value = entry.get("expires_at")
    return float(value) if isinstance(value, int | float) else None


def _of_environment(where: str) -> str | None:
    control = os.environ.get("RML_CONTROL_URL")
    if control and where != origin(control) and not _is_loopback(where):
        return None
    if token := os.environ.get("RML_TOKEN"):
        return token
    if name := os.environ.get("RML_TOKEN_FILE"):
        try:
            return Path(name).read_text("utf-8").strip() or None
        except OSError as error:
            raise RmlSdkError(f"RML_TOKEN_FILE names {name}, which cannot be read: {error.strerror}") from None
    return None


def _of_home() -> str | None:
    try:
        return (home() / "token").read_text("utf-8").strip() or None
    except OSError:
        return None


def _is_loopback(where: str) -> bool:
    return (urllib.parse.urlsplit(where).hostname or "") in _LOOPBACK


def _path() -> Path:
    return home() / "credentials.json"


def _read() -> dict[str, dict[str, Any]]:
    try:
        text = _path().read_bytes()
    except OSError:
        return {}
    found = _object(text).get("origins")
    if not isinstance(found, dict):
        raise RmlSdkError(f"{_path()} cannot be read", why="it is not what rml login writes", fix=f"rm {_path()}")
    return {str(where): entry for where, entry in found.items() if isinstance(entry, dict) and "token" in entry}


def _write(found: Mapping[str, Mapping[str, Any]]) -> None:
    draft = _path().with_name(f".credentials-{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump({"schema": SCHEMA, "origins": found}, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(_path())


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    home().mkdir(parents=True, exist_ok=True)
    handle = os.open(home() / "credentials.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
