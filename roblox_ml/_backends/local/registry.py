"""The control plane of a run that registers a model: the one the environment names, else the local one, started if need be.

Started before the first step, not by the register step: a run of hours must not end with "connection refused", and a step
never starts servers.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from ..._runtime.system import register
from .spec import PipelineSpec

__all__ = ["control_plane_url", "ensure_control_plane"]

_ENTRY = f"{register.__module__}:{register.__name__}"


def ensure_control_plane(spec: PipelineSpec) -> None:
    """Start the local control plane when the pipeline registers and nobody said that another is to be used."""
    registers = any(c.container is not None and _ENTRY in c.container.args for c in spec.components.values())
    # Without the server's package there is nothing to start; the register step then says what is missing.
    if registers and find_spec("roblox_ml_platform") is not None:
        from ..._addresses import control_url

        control_url(start=True)


def control_plane_url() -> str | None:
    """Where the steps of a run find it; None leaves them to their default."""
    if url := os.environ.get("RML_CONTROL_URL"):
        return url
    from ..._stack import address

    return address("control-plane")
