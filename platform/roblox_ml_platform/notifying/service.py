"""The background part of notifying."""

from __future__ import annotations

from ..context import Context

__all__ = ["Notifier"]


class Notifier:
    """Runs in a thread from `start` to `stop`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and wait until it has."""
