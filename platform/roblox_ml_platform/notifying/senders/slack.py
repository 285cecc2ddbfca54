"""Slack as it documents itself: an incoming webhook (the answer is the word "ok"), or chat.postMessage with a bot's token.

Not through apprise: it answers True or False, so a 429 cannot be told from an unknown channel, its Retry-After is lost, and its
throttle sleeps in the caller. What Slack says decides here whether and when to try again.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ..outcome import Again, Delivered, Outcome, Refused, of_status
from ..rendering import slack
from ..summary import Summary
from .http import Answer, Unreachable, post

__all__ = ["send_api", "send_webhook"]

API = "https://slack.com/api"
# Errors of chat.postMessage that pass by themselves; all others are a matter for a person.
_PASSING = frozenset(
    {"ratelimited", "rate_limited", "message_limit_exceeded", "internal_error", "fatal_error", "service_unavailable",
     "request_timeout", "team_added_to_org", "org_login_required"}
)  # fmt: skip


def send_webhook(url: str, summary: Summary, timeout: float) -> Outcome:
    """POST to an incoming webhook. Which channel it goes to was decided when the webhook was made."""
    try:
        answer = post(url, _body(slack(summary)), {"content-type": "application/json; charset=utf-8"}, timeout)
    except Unreachable as error:
        return Again(str(error))
    return of_status(answer.status, answer.body, answer.retry_after, time.time())


def send_api(token: str, target: str, summary: Summary, event_type: str, timeout: float, api: str = API) -> Outcome:
    """chat.postMessage: 200 with {"ok": false, "error": …} is a refusal too."""
    payload = {
        **slack(summary),
        "channel": target,
        # Readable by apps that read the channel: whoever wants to know whether an event was told already can.
        "metadata": {"event_type": "rml_event", "event_payload": {"id": summary.id, "type": event_type}},
    }
    headers = {"content-type": "application/json; charset=utf-8", "authorization": f"Bearer {token}"}
    try:
        answer = post(f"{api.rstrip('/')}/chat.postMessage", _body(payload), headers, timeout)
    except Unreachable as error:
        return Again(str(error))
    return _judge(answer)


def _judge(answer: Answer) -> Outcome:
    by_status = of_status(answer.status, answer.body, answer.retry_after, time.time())
    if not isinstance(by_status, Delivered):
        return by_status
    try:
        said = json.loads(answer.body)
    except ValueError:
        # The beginning of a long answer that was a success; `ok` comes first in Slack's answers.
        said = {"ok": answer.body.lstrip().startswith('{"ok":true')}
    if isinstance(said, dict) and said.get("ok") is True:
        return Delivered()
    error = (
        str(said.get("error") or "no ok in its answer")[:100] if isinstance(said, dict) else "no object in its answer"
    )
    return Again(f"Slack: {error}") if error in _PASSING else Refused(f"Slack: {error}")


def _body(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload).encode()
