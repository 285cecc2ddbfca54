"""Follow the control plane's snapshot by long polling; outlive the control plane by what was stored last.

One task. A new generation is adopted as a whole and then written to disk, so that a door that starts while the control
plane is down answers as the last door did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from roblox_ml_core.http import Pool
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings
from roblox_ml_core.telemetry import log

from ..preprocess import Prepared, Spec
from .service import Door
from .snapshot import Snapshot, SnapshotInvalid, Version, build, specs

__all__ = ["Follower", "load_stored", "store"]

_FILE_SCHEMA = 1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_GRACE_S = 10.0  # beyond the long poll's own wait
logger = logging.getLogger(__name__)


class PollFailed(Exception):
    """The control plane answered with something that is not a snapshot."""


class Follower:
    """Keeps `door.snapshot` the current one."""

    def __init__(self, door: Door, *, control: ControlPlaneSettings, home: HomeSettings, prepared: Prepared) -> None:
        self._door = door
        self._home = home
        self._prepared = prepared
        self._preparing: asyncio.Task[None] | None = None
        self._path = home.root / "serving" / "snapshot.json"
        parts = urlsplit(control.base_url)
        self._pool = Pool(f"{parts.scheme}://{parts.netloc}", max_connections=2)
        self._target = f"{parts.path.rstrip('/')}/v1/snapshot"
        self._outage = False
        self._document: dict[str, Any] = {}

    def start_from_disk(self) -> bool:
        """Adopt the stored snapshot; False when there is none that can be read."""
        try:
            document, kept, saved_at = load_stored(self._path)
            self._prepared.load_from_disk(specs(document, kept))
            snapshot = build(document, kept, self._prepared)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log(logger, logging.WARNING, "stored snapshot ignored", path=str(self._path), reason=repr(error))
            return False
        self._door.adopt(snapshot)
        self._door.confirm(max(0.0, time.time() - saved_at))
        self._document = document
        log(logger, logging.INFO, "started from the stored snapshot", generation=snapshot.generation)
        return True

    async def run(self) -> None:
        """Poll for ever."""
        if self._document:  # of the disk, whose files may be elsewhere
            self._prepare(specs(self._document, self._door.snapshot.serving))
        after: int | None = None  # None: whatever is current, at once
        pause = _FIRST_PAUSE_S
        while True:
            try:
                document = await self._poll(after)
                if document is not None:
                    after = await self._accept(document)
                self._door.confirm()
                pause = _FIRST_PAUSE_S
                if self._outage:
                    self._outage = False
                    log(logger, logging.INFO, "control plane is back", generation=self._door.snapshot.generation)
            except Exception as error:  # whatever it is: the last snapshot goes on answering
                if not self._outage:
                    self._outage = True
                    log(
                        logger,
                        logging.WARNING,
                        "no news from the control plane, keeping the last snapshot",
                        reason=repr(error),
                    )
                # Afterwards ask for whatever is current: a restored database may count from a lower generation.
                after = None
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads doors, hides nothing
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def close(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
        await self._pool.close()

    async def _poll(self, after: int | None) -> dict[str, Any] | None:
        wait = self._door.settings.poll_wait_s
        target = self._target if after is None else f"{self._target}?after={after}&wait={wait:g}"
        headers = [(b"accept", b"application/json")]
        if token := self._home.read_token():
            headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
        timeout = _GRACE_S if after is None else wait + _GRACE_S
        response = await self._pool.request(b"GET", target.encode(), headers, timeout=timeout)
        if response.status in (204, 304):
            return None
        if response.status != 200:
            raise PollFailed(f"HTTP {response.status}: {response.body[:300].decode(errors='replace')}")
        try:
            document = json.loads(response.body)
        except ValueError as error:
            raise PollFailed(f"the snapshot is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise PollFailed("the snapshot is not an object")
        return document

    async def _accept(self, document: dict[str, Any]) -> int:
        current = self._door.snapshot
        wanted = specs(document, current.serving)
        snapshot = build(document, current.serving, self._prepared)
        self._document = document
        if snapshot != current:
            await self._adopt(snapshot, document)
        self._prepared.retain(wanted)
        self._prepare(wanted)
        return snapshot.generation

    async def _adopt(self, snapshot: Snapshot, document: dict[str, Any]) -> None:
        self._door.adopt(snapshot)
        kept = dict(snapshot.serving)
        try:
            await asyncio.to_thread(store, self._path, document, kept)
        except OSError as error:
            log(logger, logging.WARNING, "snapshot not stored", path=str(self._path), reason=str(error))

    def _prepare(self, wanted: Sequence[Spec]) -> None:
        """Fetch what endpoints lack beside the polling: a blob that comes slowly must not keep the others from their news."""
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        if self._prepared.missing(wanted):
            self._preparing = asyncio.create_task(self._prepare_until_ready(wanted))

    async def _prepare_until_ready(self, wanted: Sequence[Spec]) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            complete = await self._prepared.prepare(wanted)
            document = self._document
            snapshot = build(document, self._door.snapshot.serving, self._prepared)
            if snapshot != self._door.snapshot:
                await self._adopt(snapshot, document)
            if complete:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def store(path: Path, document: Mapping[str, Any], kept: Mapping[str, Version]) -> None:
    """Write the snapshot and what answered under it; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    serving = {
        name: [one.model, one.version, one.digest, one.preprocess and one.preprocess.to_json()]
        for name, one in kept.items()
    }
    text = json.dumps({"schema": _FILE_SCHEMA, "saved_at": time.time(), "snapshot": document, "serving": serving})
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def load_stored(path: Path) -> tuple[dict[str, Any], dict[str, Version], float]:
    """(document, what answered, when it was written) of a stored snapshot."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["schema"] != _FILE_SCHEMA:
        raise SnapshotInvalid(f"{path} has schema {stored['schema']!r}; this door reads {_FILE_SCHEMA}")
    kept = {
        name: Version(str(model), int(version), str(digest), Spec.read(rest[0]) if rest else None)
        for name, (model, version, digest, *rest) in stored["serving"].items()
    }
    return stored["snapshot"], kept, float(stored["saved_at"])
