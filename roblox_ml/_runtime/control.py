"""The control plane as a step reaches it: HTTP with urllib, a token, and errors that say what to do.

The SDK in a notebook has a client of its own; this one is for steps, which have the standard library only.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._credentials import token_for
from .._store import open_store
from ..errors import Conflict, NotFound, NotRunning, RemoteError

__all__ = ["DEFAULT_URL", "ControlPlane"]

DEFAULT_URL = "http://127.0.0.1:18070"
_SECONDS = 120.0


class ControlPlane:
    """`RML_CONTROL_URL` (default: this machine) with `RML_TOKEN`, or the token in `$RML_HOME/token`."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = (url or os.environ.get("RML_CONTROL_URL") or DEFAULT_URL).rstrip("/")
        self.token = token or token_for(self.url)

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One JSON request; the JSON answer."""
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        text = self._send(method, path, data, "application/json")
        answer: dict[str, Any] = json.loads(text) if text else {}
        return answer

    def upload(self, files: Mapping[str, Path]) -> None:
        """Give the control plane's store the blobs it lacks: {digest: file}."""
        store = open_store()
        for digest, path in files.items():
            # The stack shares one folder or bucket: then storing the file there is all there is to do.
            if store.written_directly:
                store.put_file(path)
            blob = f"/v1/store/sha256/{digest[:2]}/{digest}"
            if not self._has(blob):
                self._send("PUT", blob, path.read_bytes(), "application/octet-stream")

    def has(self, digest: str) -> bool:
        """Whether the control plane's store has the blob."""
        return self._has(f"/v1/store/sha256/{digest[:2]}/{digest}")

    def put(self, digest: str, data: bytes) -> None:
        """Give the control plane's store a blob, unless it has it: a local stack shares one folder with us."""
        if not self.has(digest):
            self._send("PUT", f"/v1/store/sha256/{digest[:2]}/{digest}", data, "application/octet-stream")

    def _has(self, path: str) -> bool:
        try:
            self._send("HEAD", path, None, "")
        except NotFound:
            return False
        return True

    def _send(self, method: str, path: str, data: bytes | None, content_type: str) -> bytes:
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310 - set by the operator
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        request.add_header("x-rml-actor", quote(_actor()))
        if data is not None:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            raise _refusal(error, method, path) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise NotRunning(
                f"the control plane at {self.url} does not answer: {reason}",
                why="models are registered there",
                fix="start it with `rml up`, or set RML_CONTROL_URL to where it runs",
            ) from None


def _actor() -> str:
    """Who the histories name: `RML_ACTOR`, else the user on this machine (in a container often only a number)."""
    if named := os.environ.get("RML_ACTOR"):
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _refusal(error: urllib.error.HTTPError, method: str, path: str) -> RemoteError:
    try:
        said: Mapping[str, Any] = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        said = {}
    kind = {404: NotFound, 409: Conflict}.get(error.code, RemoteError)
    hint = "set RML_TOKEN, or RML_HOME to the folder that holds the token" if error.code in (401, 403) else ""
    return kind(
        str(said.get("message") or f"{method} {path}: HTTP {error.code} {error.reason}"),
        status=error.code,
        code=str(said.get("code") or ""),
        fix=str(said.get("hint") or hint),
    )
