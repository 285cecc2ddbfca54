"""A bounded line of JSON entries and one thread that posts them to the door in batches, so that saying something costs the caller
nothing. Outcomes (`rml.track`) and the exposures of a client that decides itself (`rml.direct`) travel by it.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._credentials import token_for
from ..errors import NotRunning, RemoteError, RmlSdkError
from .forking import renewed_after_fork

__all__ = ["Sender", "post_batch"]

_MOST = 100_000
_BATCH, _BATCH_BYTES = 2_000, 900_000
_EVERY_S = 1.0
_TRIES = 3
_TIMEOUT_S = 30.0
_AT_EXIT_S = 5.0


class Sender:
    """Offered = sent + waiting + dropped, in every process by itself: one that was forked begins with an empty line, since what
    was in it is its parent's to send.

    Args:
        address: gives the door's URL; it is asked for every batch, since a local stack may come up later, elsewhere.
        path: where batches are posted.
        field: the name of the list in a batch.
        what: what entries are called in errors.
        most: how many may wait; what comes then is dropped and counted.
    """

    def __init__(
        self,
        address: Callable[[], str],
        path: str = "/v1/track",
        field: str = "events",
        what: str = "outcomes",
        *,
        most: int = _MOST,
    ) -> None:
        self._address, self._path, self._what = address, path, what
        self._head = b'{"%s":[' % field.encode()
        self._most = most
        self._begin()
        renewed_after_fork(self)
        atexit.register(self._at_exit)

    def _begin(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._http: Any = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        #: Why the last batch could not be sent; empty when it could.
        self.problem = ""
        self.counts = {"offered": 0, "sent": 0, "dropped": 0}

    def renew(self) -> None:
        """In a forked process: the line, the connection and the locks are the parent's."""
        closed = self._closed.is_set()
        self._begin()
        if closed:
            self._closed.set()

    def offer(self, line: bytes) -> bool:
        """Put an entry into the line; whether there was room."""
        with self._lock:
            self.counts["offered"] += 1
            if len(self._waiting) >= self._most or self._closed.is_set():
                self.counts["dropped"] += 1
                return False
            self._waiting.append(line)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"rml-{self._what}", daemon=True)
                self._thread.start()
                self._flush_in_workers()
        return True

    def drop(self) -> None:
        """Count an entry that cannot be sent."""
        with self._lock:
            self.counts["offered"] += 1
            self.counts["dropped"] += 1

    def accounts(self) -> dict[str, int]:
        """`offered`, `sent`, `dropped`, `waiting`, all of one moment."""
        with self._lock:
            return {**self.counts, "waiting": len(self._waiting)}

    def flush(self, timeout: float | None = None) -> dict[str, int]:
        """Send everything now.

        Raises:
            NotRunning: the door does not answer; what could not be sent goes on waiting.
            RemoteError: it refused a batch, which is dropped.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._send_one(until):
            pass
        accounts = self.accounts()
        if accounts["waiting"] and (problem := self.problem):
            raise NotRunning(
                f"{accounts['waiting']} {self._what} go on waiting: {problem}",
                fix="start the door with `rml up`, or set RML_DOOR_URL",
            )
        return accounts

    def close(self, timeout: float = _AT_EXIT_S) -> dict[str, int]:
        """Take no more, and send what waits; what the door does not take within `timeout` seconds is dropped and counted."""
        self._closed.set()
        atexit.unregister(self._at_exit)
        try:
            self.flush(timeout)
        except RmlSdkError as error:
            self.problem = str(error)
        with self._lock:
            self.counts["dropped"] += len(self._waiting)
            self._waiting.clear()
        return self.accounts()

    def end_soon(self) -> None:
        """Take no more; the thread sends what waits, without anybody waiting for it."""
        self._closed.set()
        if self._thread is None or not self._thread.is_alive():
            atexit.unregister(self._at_exit)

    def _flush_in_workers(self) -> None:
        """Processes of `multiprocessing` end without `atexit`."""
        util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(None, self._at_exit, exitpriority=10)

    def _run(self) -> None:
        closed = self._closed
        while True:
            ends = closed.wait(_EVERY_S)
            try:
                while self._send_one():
                    pass
            except (
                Exception
            ) as error:  # of credentials, or of a batch: the next one may pass, and the thread must be there
                self.problem = str(error)
            if ends:
                atexit.unregister(self._at_exit)
                return

    def _send_one(self, until: float | None = None) -> bool:
        """Send a batch; whether there may be more to send."""
        import httpx

        if not self._sending.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
            self.problem = "another thread is still sending"
            return False
        try:
            batch = self._next()
            if not batch:
                return False
            if self._http is None:
                self._http = httpx.Client()
            url = f"{self._address()}{self._path}"
            answer, self.problem = post_batch(self._http, url, self._head + b",".join(batch) + b"]}", until)
            if answer is None:
                return False  # they wait for the next time
            with self._lock:
                gone = min(len(batch), len(self._waiting))  # none, if the line was given up meanwhile: counted there
                for _ in range(gone):
                    self._waiting.popleft()
                accepted = min(gone, _accepted(answer, len(batch)))
                self.counts["sent"] += accepted
                self.counts["dropped"] += gone - accepted
                more = bool(self._waiting)
        finally:
            self._sending.release()
        if answer.status_code != 202:
            raise RemoteError(
                f"the door refused {len(batch)} {self._what}, which are lost: {answer.text[:500]}",
                status=answer.status_code,
            )
        return more

    def _next(self) -> list[bytes]:
        """What fits in one request; it stays in the line until it has arrived."""
        batch: list[bytes] = []
        size = 0
        with self._lock:
            for line in self._waiting:
                if batch and (len(batch) >= _BATCH or size + len(line) > _BATCH_BYTES):
                    break
                batch.append(line)
                size += len(line) + 1
        return batch

    def _at_exit(self) -> None:
        try:
            self.flush(_AT_EXIT_S)
        except RmlSdkError as error:
            print(f"{self._what} of this process were lost: {error}", file=sys.stderr)


def _accepted(answer: Any, most: int) -> int:
    if answer.status_code != 202:
        return 0
    try:
        return max(0, min(most, int(answer.json()["accepted"])))
    except (ValueError, KeyError, TypeError):  # taken, says the status; how many, nobody knows
        return most


def post_batch(http: Any, url: str, body: bytes, until: float | None = None) -> tuple[Any, str]:
    """(the door's answer, "") or, where it has none after some tries or at `until`, (None, why)."""
    import httpx

    headers = {"content-type": "application/json"}
    if token := token_for(url):
        headers["authorization"] = f"Bearer {token}"
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.1 * 2**attempt)
        left = _TIMEOUT_S if until is None else min(_TIMEOUT_S, until - time.monotonic())
        if left <= 0:
            return None, problem or f"{url} was not asked in time"
        try:
            answer = http.post(url, content=body, headers=headers, timeout=left)
        except httpx.HTTPError as error:
            problem = f"{url} does not answer ({type(error).__name__}: {error})"
        else:
            if answer.status_code < 500 and answer.status_code != 429:
                return answer, ""
            problem = f"{url} answered {answer.status_code}: {answer.text[:200]}"
    return None, problem
