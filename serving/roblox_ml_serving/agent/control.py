"""The agent's two conversations with the control plane: what is wanted, and what is there.

Neither may stop the agent. While the control plane is away the last wishes count, from memory or, after a restart, from disk:
a Triton that restarts meanwhile gets its models back.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from roblox_ml_core.errors import RmlError
from roblox_ml_core.registry import DesiredModel, DesiredModels, ModelState, RegistryClient
from roblox_ml_core.telemetry import log

from . import metrics

__all__ = ["Reporter", "Wishes"]

logger = logging.getLogger(__name__)

RETRY_S = (0.2, 0.5, 1.0, 2.0)


class Wishes(threading.Thread):
    """Long-polls the desired versions of one server and keeps the last answer on disk."""

    def __init__(
        self,
        client: RegistryClient,
        server: str,
        path: Path,
        wait_s: float,
        changed: Callable[[], None],
        role: str = "general",
    ) -> None:
        super().__init__(name="wishes", daemon=True)
        self._client, self._server, self._path, self._wait_s, self._changed = client, server, path, wait_s, changed
        self._role = role
        self._stop_asked = threading.Event()
        self._generation: int | None = None
        self._models = _read(path)
        self.confirmed = False  # the control plane itself said so, since this process started

    @property
    def models(self) -> tuple[DesiredModel, ...]:
        return self._models

    def run(self) -> None:
        failures = 0
        while not self._stop_asked.is_set():
            try:
                answer = self._client.desired(
                    self._server,
                    after=self._generation,
                    wait=self._wait_s if self.confirmed else 0.0,
                    role=self._role,
                )
            except (RmlError, KeyError, TypeError, ValueError) as error:
                metrics.POLLS.labels("desired", "failed").inc()
                if failures == 0:
                    log(logger, logging.WARNING, "wishes not read, keeping the last", reason=str(error))
                # The next control plane may have been restored from a backup and count anew.
                self._generation = None
                self._stop_asked.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            failures = 0
            metrics.POLLS.labels("desired", "answered").inc()
            self._take(answer)

    def stop(self) -> None:
        self._stop_asked.set()

    def _take(self, answer: DesiredModels) -> None:
        self._generation = answer.generation
        news = answer.models != self._models or not self.confirmed
        self.confirmed = True
        if news:
            self._models = answer.models
            _write(self._path, answer.models)
            log(logger, logging.INFO, "wishes", models=[f"{model.model}/{model.version}" for model in answer.models])
            self._changed()


class Reporter(threading.Thread):
    """Tells the control plane what is there: at once when something changed, else as a heartbeat."""

    def __init__(
        self,
        client: RegistryClient,
        server: str,
        http: str,
        grpc: str,
        heartbeat_s: float,
        states: Callable[[], Sequence[ModelState]],
    ) -> None:
        super().__init__(name="reporter", daemon=True)
        self._client, self._server, self._http, self._grpc = client, server, http, grpc
        self._heartbeat_s, self._states = heartbeat_s, states
        self._wake = threading.Event()
        self._stopping = False

    def changed(self) -> None:
        self._wake.set()

    def run(self) -> None:
        last: tuple[ModelState, ...] | None = None
        due = True
        while not self._stopping:
            self._wake.clear()
            states = tuple(self._states())
            if due or states != last:
                last = states if self._report(states) else None
            # Many things change in a burst; a report that follows at once would be stale at once.
            due = not self._wake.wait(self._heartbeat_s if last is not None else RETRY_S[2])

    def stop(self, *, leave: bool = False) -> None:
        """Stop. `leave`: say that nothing is here any more, so that doors stop asking before Triton ends."""
        self._stopping = True
        self._wake.set()
        if leave:
            if self.is_alive():
                self.join(2.0)  # a heartbeat after the farewell would bring us back
            self._report(())

    def _report(self, states: Sequence[ModelState]) -> bool:
        try:
            self._client.report(self._server, self._http, self._grpc, states)
        except RmlError as error:
            metrics.POLLS.labels("report", "failed").inc()
            log(logger, logging.DEBUG, "report not delivered", reason=str(error))
            return False
        metrics.POLLS.labels("report", "answered").inc()
        return True


def _read(path: Path) -> tuple[DesiredModel, ...]:
    """The last wishes on disk; none when there are none or they cannot be read."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(DesiredModel(e["model"], int(e["version"]), e["digest"], e["manifest"]) for e in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(logger, logging.WARNING, "the wishes on disk cannot be read", path=str(path), reason=str(error))
        return ()


def _write(path: Path, models: Sequence[DesiredModel]) -> None:
    entries = [
        {"model": m.model, "version": m.version, "digest": m.digest, "manifest": dict(m.manifest)} for m in models
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.new")
    draft.write_text(json.dumps(entries, sort_keys=True), encoding="utf-8")
    draft.replace(path)
