"""Who the request being answered comes from, for what is far from the request: the audit trail.

A context variable: each request is a task of its own, and the threads that answer it are given a copy of its context.
"""

from __future__ import annotations

from contextvars import ContextVar

from roblox_ml_core.auth.principal import LOCAL, Principal

__all__ = ["CURRENT"]

CURRENT: ContextVar[Principal] = ContextVar("rml_principal", default=LOCAL)
