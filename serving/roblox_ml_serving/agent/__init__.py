"""The model agent: makes one Triton hold exactly the versions the control plane wants, checked, and keeps it so."""

from __future__ import annotations

from .plan import Check, Failure, Key, Limits, Load, Observed, Refuse, Reload, Resident, Unload, Wanted, plan

__all__ = [
    "Check",
    "Failure",
    "Key",
    "Limits",
    "Load",
    "Observed",
    "Refuse",
    "Reload",
    "Resident",
    "Unload",
    "Wanted",
    "plan",
]
