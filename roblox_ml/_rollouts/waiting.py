"""Wait until a model server has a version ready: the one thing between a wish and its effect that takes time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import NotRunning, RemoteError

__all__ = ["resolved", "wait_for"]

_POLL_S = 0.1


def resolved(plane: Any, ref: str) -> tuple[str, int]:
    """(model, version) that `model@alias` or `model/3` means now."""
    model, at, alias = ref.partition("@")
    if at:
        return model, int(plane.alias(model, alias)["version"])
    model, _, version = ref.partition("/")
    return model, int(version)


def wait_for(plane: Any, refs: Iterable[str], timeout: float, say: Callable[[str], None]) -> None:
    """Return when some model server has each of `refs` ready.

    Raises:
        RemoteError: every server that spoke of a version refused it.
        NotRunning: one was not ready within `timeout` seconds. The wish stays: the champion answers until it is.
    """
    started = time.monotonic()
    for model, version in dict.fromkeys(resolved(plane, ref) for ref in refs):
        while True:
            states = _states(plane.call("GET", "/v1/servers")["servers"], model, version)
            if any(state == "ready" for state, _ in states):
                break
            if states and all(state == "failed" for state, _ in states):
                why = "; ".join(reason for _, reason in states if reason)
                raise RemoteError(
                    f"no model server takes {model}/{version}; the champion answers in its place", why=why
                )
            if time.monotonic() - started > timeout:
                raise NotRunning(
                    f"{model}/{version} was not ready within {timeout:g} s; the champion answers until it is",
                    fix="look at `rml status` and `rml logs agent`",
                )
            time.sleep(_POLL_S)
        say(f"  {model}/{version} is ready")


def _states(servers: Any, model: str, version: int) -> list[tuple[str, str]]:
    return [
        (entry["state"], str(entry.get("reason") or ""))
        for server in servers
        if server.get("alive")
        for entry in server["models"]
        if (entry["model"], entry["version"]) == (model, version)
    ]
