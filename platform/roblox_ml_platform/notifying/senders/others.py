"""Every other service, in apprise's hands: one URL, which holds the secret, and one answer, yes or no.

apprise logs why a service said no and returns False, so the reason is collected from its logger; it may name the service's
status, never the URL.
"""

from __future__ import annotations

import logging
import threading

from ..outcome import Again, Delivered, Outcome, Refused
from ..summary import Summary

__all__ = ["send"]

_TYPES = {"good": "success", "bad": "failure", "warn": "warning", "plain": "info"}


def send(url: str, summary: Summary) -> Outcome:
    """Tell the service behind an apprise URL."""
    import apprise

    service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if service is None:
        return Refused("apprise does not understand this channel's URL")
    heard = _Heard(threading.get_ident())
    logger = logging.getLogger("apprise")
    logger.addHandler(heard)
    try:
        taken = service.notify(
            title=summary.title, body=summary.plain(), notify_type=apprise.NotifyType(_TYPES[summary.tone])
        )
    except Exception as error:  # a plug-in of a library: it may raise anything, and nothing of ours may end by it
        return Again(f"{service.service_name}: {type(error).__name__}")
    finally:
        logger.removeHandler(heard)
    if taken:
        return Delivered()
    return Again(f"{service.service_name}: {heard.last or 'it was not taken'}")


class _Heard(logging.Handler):
    """The last warning that this thread caused."""

    def __init__(self, thread: int) -> None:
        super().__init__(logging.WARNING)
        self._thread = thread
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.last = record.getMessage()[:200]
