"""v2 over REST to one model server: connections that are kept, one deadline for all of an exchange, for many threads.

Sockets that block, and the parser that core's client for services has too: general clients cost more than the hop that is saved.
"""

from __future__ import annotations

import functools
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

__all__ = ["Connections", "Late", "Lost", "Reply"]

_IDLE_S = 30.0
_MOST_IDLE = 64
_CHUNK = 1 << 18
_CONNECT_S = 1.0


class Lost(Exception):
    """A server did not answer for the version: its connection ended, or it does not hold it (any more)."""


class Late(Exception):
    """The deadline came before the answer."""


class Reply(NamedTuple):
    """What a server answered. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """To one server. `host:port`, `http://host:port` or `https://host`."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"{address!r} is no server's address: host:port")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._name = f"{self._host}:{self._port}"
        self._host_line = f"host: {parts.netloc.rpartition('@')[2]}\r\n"
        self._http = _parsers()
        self._idle: deque[tuple[float, socket.socket]] = deque()  # the newest on the right

    def post(self, path: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Reply:
        """One exchange; an idle connection that has ended in the meantime is replaced by a new one.

        Args:
            headers: without line breaks in them: they are sent as they are.

        Raises:
            Lost, Late.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"POST {path} HTTP/1.1\r\n{self._host_line}{lines}content-length: {len(body)}\r\n\r\n".encode("latin-1")
        try:
            while (connection := self._kept()) is not None:
                try:
                    return self._exchange(connection, head, body, deadline)
                except _Stale:
                    continue
            return self._exchange(self._open(deadline), head, body, deadline)
        except _Stale as error:
            raise Lost(f"{self._name} ended the connection before it answered") from error
        except TimeoutError as error:
            raise Late(f"{self._name} did not answer in time") from error

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            try:
                self._idle.pop()[1].close()
            except IndexError:  # another thread has it
                return

    def _kept(self) -> socket.socket | None:
        oldest = time.monotonic() - _IDLE_S
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if since > oldest:
                return connection
            connection.close()

    def _open(self, deadline: float) -> socket.socket:
        seconds = min(_CONNECT_S, _left(deadline))
        try:
            connection = socket.create_connection((self._host, self._port), seconds)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection if self._tls is None else self._tls.wrap_socket(connection, server_hostname=self._host)
        except OSError as error:
            raise Lost(f"cannot connect to {self._name} ({error})") from error

    def _exchange(self, connection: socket.socket, head: bytes, body: bytes, deadline: float) -> Reply:
        answer = _Answer()
        parser = answer.parser = self._http.HttpResponseParser(answer)
        keep = False
        try:
            connection.settimeout(_left(deadline))
            if len(body) < _CHUNK:
                connection.sendall(head + body)
            else:
                connection.sendall(head)
                connection.sendall(body)
            while not answer.complete:
                connection.settimeout(_left(deadline))  # what comes in drops is read up to the deadline, not for ever
                data = connection.recv(_CHUNK)
                if not data:
                    if answer.open_ended:
                        break
                    raise ConnectionError("ended in the middle of its answer") if answer.begun else _Stale
                answer.begun = True
                parser.feed_data(data)
            keep = answer.keep and not answer.more
            return Reply(answer.status, answer.headers, b"".join(answer.parts))
        except TimeoutError:
            raise
        except ConnectionError as error:
            if answer.begun:
                raise Lost(f"{self._name}: {error}") from error
            raise _Stale from error
        except OSError as error:
            raise Lost(f"{self._name}: {error}") from error
        except (self._http.HttpParserError, self._http.HttpParserUpgrade) as error:
            raise Lost(f"{self._name} sent what is no HTTP/1.1 answer: {error}") from error
        finally:
            if keep and len(self._idle) < _MOST_IDLE:
                self._idle.append((time.monotonic(), connection))
            else:
                connection.close()


class _Stale(Exception):
    """The connection ended before anything of an answer came."""


class _Answer:
    """What the parser finds."""

    __slots__ = ("_framed", "_headed", "begun", "complete", "headers", "keep", "more", "parser", "parts", "status")
    parser: Any

    def __init__(self) -> None:
        self.begun = self.complete = self.keep = self.more = False
        self._clear()

    def _clear(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.status = 0
        self._headed = self._framed = False

    @property
    def open_ended(self) -> bool:
        """Neither length nor chunks: the end of the connection is the end of the body (RFC 9112, 6.3)."""
        return self._headed and not self._framed

    def on_message_begin(self) -> None:
        self.more = self.complete  # something behind the answer: nobody asked for it

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.more:
            return
        key = name.decode("latin-1").lower()
        self.headers[key] = value.decode("latin-1")
        if key in ("content-length", "transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if not self.more:
            self._headed, self.status = True, self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.more:
            self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.more:
            return
        if 100 <= self.status < 200:  # what comes before the answer
            self._clear()
            return
        self.complete, self.keep = True, self.parser.should_keep_alive()


@functools.cache
def _parsers() -> ModuleType:
    import httptools

    found: Any = httptools
    return found  # type: ignore[no-any-return]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
