"""The Triton process: where its installation lies and how it is started."""

from __future__ import annotations

from .installation import Installation, find_installation
from .launch import command, environment, shm_prefix

__all__ = ["Installation", "command", "environment", "find_installation", "shm_prefix"]
