"""Where the control plane and the door are: the environment's word, else the running local stack, else the settings.

An address that somebody set is somebody else's server: it is used, never started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from . import _siblings
from .errors import Conflict, NotFound, NotRunning, RemoteError, RmlSdkError

__all__ = ["control", "control_url", "door_url", "ensure_stack", "grpc_address", "translated"]


def door_url() -> str:
    """The door's REST address, without a slash at the end."""
    if not os.environ.get("RML_DOOR_URL"):
        from . import _stack

        if found := _stack.address("door"):
            return found.rstrip("/")
    return str(_siblings.load("roblox_ml_core.settings").DoorSettings().base_url)


def grpc_address() -> str:
    """The door's gRPC address, host:port."""
    if not os.environ.get("RML_DOOR_GRPC"):
        from . import _stack

        part = _stack.status().get("door")
        if part and len(part.get("ports", ())) > 1:
            return f"{urlsplit(part['url']).hostname}:{part['ports'][1]}"
    return str(_siblings.load("roblox_ml_core.settings").DoorSettings().grpc_address)


def ensure_stack(say: Callable[[str], None]) -> None:
    """Make the local serving stack run, unless the environment names servers that run elsewhere."""
    if os.environ.get("RML_CONTROL_URL") and os.environ.get("RML_DOOR_URL"):
        return
    from . import _stack

    # MLflow is for people who look; no answer waits for it.
    _stack.ensure("agent", "door", also=("mlflow",), say=say)


def control_url(*, start: bool = False) -> str:
    """The control plane's address. `start`: when none answers and none was named, the local stack's is started first.

    Raises:
        NotRunning: it could not be started.
    """
    if named := os.environ.get("RML_CONTROL_URL"):
        return named.rstrip("/")
    from . import _stack

    if found := _stack.address("control-plane"):
        return found
    url = str(_siblings.load("roblox_ml_core.settings").ControlPlaneSettings().base_url)
    if start:
        with translated(), _siblings.load("roblox_ml_core.registry").RegistryClient(url) as client:
            answers = client.ready()
        if not answers:
            _stack.ensure("control-plane")
    return url


@contextmanager
def control() -> Iterator[Any]:
    """A client of the control plane whose errors are the SDK's."""
    from ._credentials import token_for

    url = control_url()
    with translated(), _siblings.load("roblox_ml_core.registry").RegistryClient(url, token_for(url)) as client:
        yield client


@contextmanager
def translated() -> Iterator[None]:
    """Turn the platform's errors into the SDK's, with their hints."""
    try:
        yield
    except RmlSdkError:
        raise
    except Exception as error:
        code, status = getattr(error, "code", None), getattr(error, "status", None)
        if not isinstance(code, str) or not isinstance(status, int):
            raise  # not one of the platform's
        message, hint = str(getattr(error, "message", error)), str(getattr(error, "hint", ""))
        if code == "unavailable":
            raise NotRunning(message, fix=hint) from error
        kind = {404: NotFound, 409: Conflict}.get(status, RemoteError)
        raise kind(message, fix=hint, status=status, code=code) from error
