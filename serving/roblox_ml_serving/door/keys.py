"""Which tokens may ask which models: followed from the control plane, kept on disk, so that it outlives the control plane.

Only hashes of tokens are told, held and stored. What is stored counts for as long as its tokens live: a control plane that is down takes
nobody's access, and what it would have revoked meanwhile is revoked when it is back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from roblox_ml_core.http import Pool, UpstreamError
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings
from roblox_ml_core.telemetry import log

from .authentication import Authentication
from .key import Key
from .refusals import Reason, Refused

__all__ = ["KeyFeed", "KeysInvalid", "read_keys"]

_SCHEMA = 1
_WAIT_S, _GRACE_S, _ASK_S = 20.0, 10.0, 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
logger = logging.getLogger(__name__)


class KeysInvalid(ValueError):
    """A document that is not the control plane's keys."""


def read_keys(document: Any) -> tuple[int, Mapping[str, Key]]:
    """The version and the keys, by the token's sha256, of the control plane's document.

    Raises:
        KeysInvalid: it has another shape. What is not understood must not let anybody in, or keep everybody out.
    """
    try:
        if document["schema"] != _SCHEMA:
            raise KeysInvalid(f"schema {document['schema']!r}; this door reads {_SCHEMA}")
        found = {str(digest): _key(entry) for digest, entry in document["keys"].items()}
        return int(document["version"]), MappingProxyType(found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise KeysInvalid(f"the keys lack or misuse a field: {error!r}") from error


def _key(entry: Mapping[str, Any]) -> Key:
    models, expires_at = entry["models"], float(entry["expires_at"])
    if not (models is None or isinstance(models, list)) or not math.isfinite(expires_at):
        raise KeysInvalid(f"the key of {entry['principal']!r}")
    allowed = None if models is None else frozenset(map(str, models))
    return Key(str(entry["principal"]), allowed, expires_at, entry["operator"] is True)


class KeyFeed:
    """Keeps `authentication.keys` the current ones."""

    def __init__(
        self,
        authentication: Authentication,
        *,
        control: ControlPlaneSettings,
        home: HomeSettings,
        wait_s: float = _WAIT_S,
    ) -> None:
        self._authentication, self._home, self._wait_s = authentication, home, wait_s
        self._path = home.root / "serving" / "keys.json"
        parts = urlsplit(control.base_url)
        self._pool = Pool(f"{parts.scheme}://{parts.netloc}", max_connections=4)
        self._target = f"{parts.path.rstrip('/')}/v1/door/keys"
        self._introspection = f"{parts.path.rstrip('/')}/v1/door/introspect".encode()
        self._silent = False

    def start_from_disk(self) -> bool:
        """Take what the door before knew; False where there is nothing that can be read."""
        try:
            _, keys = read_keys(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log(logger, logging.WARNING, "stored keys ignored", path=str(self._path), reason=str(error))
            return False
        self._authentication.replace(keys)
        return True

    async def run(self) -> None:
        """Follow for ever."""
        after: int | None = None
        pause = _FIRST_PAUSE_S
        while True:
            try:
                document = await self._poll(after)
                version, keys = read_keys(document)
                if version != after:
                    self._authentication.replace(keys)
                    await self._keep(document)
                after, pause = version, _FIRST_PAUSE_S
                if self._silent:
                    self._silent = False
                    log(logger, logging.INFO, "keys are followed again", keys=len(keys))
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever it is: the last keys go on counting
                if not self._silent:
                    self._silent = True
                    log(logger, logging.WARNING, "no news of keys, keeping the last ones", reason=repr(error)[:300])
                after = None
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads doors, hides nothing
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def introspect(self, token: str) -> Key:
        """Who a signed token is, by the control plane; good for as long as that says.

        Raises:
            Refused: it is nobody's, or cannot be asked now.
        """
        headers = [(b"content-type", b"application/json"), *self._authorized()]
        body = json.dumps({"token": token}).encode()
        try:
            response = await self._pool.request(b"POST", self._introspection, headers, body, timeout=_ASK_S)
        except UpstreamError as error:
            raise Refused(
                Reason.NOT_READY, f"the token cannot be verified now: the control plane does not answer ({error})"
            ) from None
        if response.status != 200:
            raise Refused(
                Reason.NOT_READY, f"the token cannot be verified now: the control plane says {response.status}"
            )
        try:
            document = json.loads(response.body)
            if document["active"] is True:
                return _key(document)
            said = str(document["message"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(Reason.NOT_READY, f"the token cannot be verified now: {error!r}") from None
        raise Refused(Reason.UNAUTHENTICATED, f"{said}; `rml login` renews a person's token")

    async def close(self) -> None:
        await self._pool.close()

    def _authorized(self) -> list[tuple[bytes, bytes]]:
        token = self._home.read_token()
        return [(b"authorization", b"Bearer " + token.encode("ascii"))] if token else []

    async def _keep(self, document: Any) -> None:
        try:
            await asyncio.to_thread(_store, self._path, document)
        except OSError as error:
            log(logger, logging.WARNING, "keys not stored", path=str(self._path), reason=str(error))

    async def _poll(self, after: int | None) -> Any:
        target = self._target if after is None else f"{self._target}?after={after}&wait={self._wait_s:g}"
        headers = [(b"accept", b"application/json"), *self._authorized()]
        timeout = _GRACE_S + (0 if after is None else self._wait_s)
        response = await self._pool.request(b"GET", target.encode(), headers, timeout=timeout)
        if response.status != 200:
            raise ConnectionError(f"HTTP {response.status}: {response.body[:200].decode(errors='replace')}")
        return json.loads(response.body)


def _store(path: Path, document: Any) -> None:
    """Readers see the old file or the new one; nobody else reads it at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
