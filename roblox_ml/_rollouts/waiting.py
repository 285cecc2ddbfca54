"""Wait for a wish's effect: until a model server has its versions ready, and the door has heard of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from .._addresses import control, door_url
from ..errors import NotRunning, RemoteError, RmlSdkError

__all__ = ["resolved", "wait_for"]

_POLL_S, _DOOR_S = 0.1, 2.0


def resolved(plane: Any, ref: str) -> tuple[str, int]:
    """(model, version) that `model@alias` or `model/3` means now."""
    model, at, alias = ref.partition("@")
    if at:
        return model, int(plane.alias(model, alias)["version"])
    model, _, version = ref.partition("/")
    return model, int(version)


def wait_for(plane: Any, refs: Iterable[str], timeout: float, say: Callable[[str], None]) -> None:
    """Return when some model server has each of `refs` ready, and the door follows.

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
    _door_follows(started + timeout)


def _door_follows(deadline: float) -> None:
    """Return when the door that this process asks has the control plane's present snapshot: its next answer is by the wish.

    Where there is no such door, or the snapshot is not this caller's to read, there is nothing to wait for.
    """
    import httpx

    try:
        with control() as plane:
            wanted = int(plane.snapshot()["generation"])
        while time.monotonic() < deadline:
            answer = httpx.get(f"{door_url()}/v2/health/ready", timeout=_DOOR_S)
            followed = answer.json().get("generation") if answer.status_code == 200 else None
            if followed is None or int(followed) >= wanted:
                return
            time.sleep(_POLL_S / 5)
    except (RmlSdkError, httpx.HTTPError, ValueError):
        return


def _states(servers: Any, model: str, version: int) -> list[tuple[str, str]]:
    return [
        (entry["state"], str(entry.get("reason") or ""))
        for server in servers
        if server.get("alive")
        for entry in server["models"]
        if (entry["model"], entry["version"]) == (model, version)
    ]
