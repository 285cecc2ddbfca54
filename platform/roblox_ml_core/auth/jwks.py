"""An issuer's public keys: fetched once, kept, and fetched again when a token names a key that is not known.

Issuers rotate keys without telling anybody: the new key id simply appears in a token. So an unknown id is a reason to look
again, but not more often than every few seconds, or anybody could make us ask the issuer by inventing ids. An issuer that is
away changes nothing for keys we hold, up to a limit: a key that was withdrawn must stop working some day.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt

from ..errors import Unauthorized, Unavailable

__all__ = ["KeySet", "read_json"]

_MAX_BYTES = 1 << 20
Fetch = Callable[[], Mapping[str, Any]]


class KeySet:
    """The keys of one issuer by id; safe to use from many threads."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        fresh_s: float = 600.0,
        retry_s: float = 10.0,
        stale_s: float = 24 * 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._clock = fetch, clock
        self._fresh_s, self._retry_s, self._stale_s = fresh_s, retry_s, stale_s
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._tried: float | None = None

    def key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """The key that a token's header names, if it may be used with that algorithm.

        Raises:
            Unauthorized: the issuer has no such key, or not for this algorithm.
            Unavailable: the issuer cannot be asked and nothing usable is held.
        """
        with self._lock:
            now = self._clock()
            age = None if self._fetched is None else now - self._fetched
            known = self._find(key_id) is not None
            if (not known or age is None or age > self._fresh_s) and self._may_try(now):
                self._refresh(now)
            found = self._find(key_id)
            if self._fetched is None or self._clock() - self._fetched > self._stale_s:
                raise Unavailable("the issuer's keys cannot be read", hint="see the control plane's log; try again")
        if found is None:
            raise Unauthorized("the token is signed with a key that its issuer does not have", hint="log in again")
        if found.algorithm_name != algorithm:
            raise Unauthorized(f"the token's key is not for {algorithm}", hint="log in again")
        return found

    def _may_try(self, now: float) -> bool:
        return self._tried is None or now - self._tried >= self._retry_s

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:  # allowed only where it cannot be a choice
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _refresh(self, now: float) -> None:
        self._tried = now
        try:
            document = self._fetch()
        except Exception:  # network, TLS, JSON: whatever it was, the keys we hold remain what they are
            return
        self._keys = _signing_keys(document)
        self._fetched = now


def _signing_keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The public signing keys of a JWKS; symmetric ones and those meant for encryption are left out."""
    found = {}
    listed = document.get("keys")
    for number, entry in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") == "enc":
            continue
        public = {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
        try:
            found[str(entry.get("kid", f"#{number}"))] = jwt.PyJWK(public)
        except jwt.PyJWTError:
            continue  # a key type we do not know must not hide the others
    return found


def read_json(where: str, *, ca_file: Path | None = None, bearer_file: Path | None = None) -> Any:
    """A JSON document from an https (or loopback http) address or a file. Redirects are not followed."""
    if where.startswith("file:") or where.startswith("/"):
        return json.loads(Path(where.removeprefix("file://")).read_text("utf-8"))
    import ssl

    import httpx

    context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else where.startswith("https:")
    headers = {"accept": "application/json"}
    if bearer_file is not None:  # a Kubernetes API server shows its keys to its own service accounts only
        headers["authorization"] = f"Bearer {bearer_file.read_text('utf-8').strip()}"
    answer = httpx.get(where, headers=headers, timeout=10.0, verify=context, follow_redirects=False)
    answer.raise_for_status()
    if len(answer.content) > _MAX_BYTES:
        raise ValueError(f"{where} answers with more than {_MAX_BYTES} bytes")
    return answer.json()
