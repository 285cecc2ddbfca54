"""v2 over REST to one model server: connections that are kept, one deadline for all of an exchange, for many threads.

The standard library's HTTP/1.1: a general client such as httpx would cost more than the hop that is saved.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple
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
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()  # the newest on the right

    def post(self, path: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Reply:
        """One exchange; an idle connection that has ended in the meantime is replaced by a new one.

        Raises:
            Lost, Late.
        """
        try:
            while (connection := self._kept()) is not None:
                try:
                    return self._exchange(connection, path, headers, body, deadline)
                except _Stale:
                    continue
            return self._exchange(self._open(deadline), path, headers, body, deadline)
        except _Stale as error:
            raise Lost(str(error)) from error
        except TimeoutError as error:
            raise Late(f"{self._host}:{self._port} did not answer in time") from error

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            try:
                self._idle.pop()[1].close()
            except IndexError:  # another thread has it
                return

    def _kept(self) -> http.client.HTTPConnection | None:
        oldest = time.monotonic() - _IDLE_S
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if since > oldest:
                return connection
            connection.close()

    def _open(self, deadline: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=min(_CONNECT_S, _left(deadline)))
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise Lost(f"cannot connect to {self._host}:{self._port} ({error})") from error
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
    ) -> Reply:
        keep = False
        try:
            sock = connection.sock
            try:
                sock.settimeout(_left(deadline))
                connection.request("POST", path, body, dict(headers))
                sock.settimeout(_left(deadline))
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError) as error:  # nothing of an answer has come
                raise _Stale(f"{self._host}:{self._port} ended the connection ({type(error).__name__})") from error
            content = _read(response, sock, deadline)
            found = {name.lower(): value for name, value in response.getheaders()}
            keep = not response.will_close
            return Reply(response.status, found, content)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{self._host}:{self._port}: {type(error).__name__}: {error}") from error
        finally:
            if keep and len(self._idle) < _MOST_IDLE:
                self._idle.append((time.monotonic(), connection))
            else:
                connection.close()


class _Stale(Exception):
    """The connection ended before anything of an answer came."""


def _read(response: http.client.HTTPResponse, sock: socket.socket, deadline: float) -> bytes:
    """The whole body. What comes in drops is read up to the deadline, not for ever."""
    wanted = response.length  # None: in chunks, or up to the end of the connection
    parts: list[bytes] = []
    while True:
        sock.settimeout(_left(deadline))
        part = response.read1(_CHUNK)
        if not part:
            break
        parts.append(part)
    response.close()  # of the response, not of the connection, which is not free before it
    body = b"".join(parts)
    if wanted is not None and len(body) != wanted:
        raise http.client.IncompleteRead(body, wanted - len(body))
    return body


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
