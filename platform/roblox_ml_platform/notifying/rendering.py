"""A summary in each channel's own form: Slack's blocks, a mail with text and HTML, JSON for programs. Pure.

Limits are those the services document: Slack takes 150 characters in a header, 3,000 in a section, 2,000 in a field; a mail's
subject is one line. Everything is escaped for where it goes, so that a log can neither mention a channel nor add a header.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from roblox_ml_core.digests import canonical_json

from .summary import Summary
from .text import jsonable

__all__ = ["mail", "message_id", "page", "slack", "webhook"]

_MARKS = {"good": ":white_check_mark:", "bad": ":red_circle:", "warn": ":warning:", "plain": ":information_source:"}
_COLOURS = {"good": "#1a7f37", "bad": "#b42318", "warn": "#9a6700", "plain": "#3b5b92"}
_TICK = "\u02b9"  # a letter that looks like a backtick, and is none
_SECTION, _FIELD, _FIELDS, _FALLBACK = 2900, 1900, 10, 3000


def slack(summary: Summary) -> dict[str, Any]:
    """What chat.postMessage and an incoming webhook take: `text` for a phone's banner, `blocks` for the channel."""
    mark = _MARKS[summary.tone]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": summary.title or "an event", "emoji": False}}
    ]
    fields = [
        {"type": "mrkdwn", "text": f"*{name}*\n{_cut(_inline(value), _FIELD)}"}
        for name, value in summary.facts[:_FIELDS]
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if summary.error:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _code(summary.error)}})
    if summary.tail:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _code(summary.tail)}})
    where = [f"<{_slack_url(summary.link)}|Open>"] if summary.link else []
    where += [f"`{_inline(summary.command)}`"] if summary.command else []
    if where:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": "  ".join(where)[:_SECTION]}})
    footer = f"{summary.when} · event {summary.id}"
    blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": footer, "emoji": False}]})
    text = f"{mark} {_slack(summary.title)}" + (f": {_slack(summary.error)}" if summary.error else "")
    return {"text": _cut(text, _FALLBACK), "blocks": blocks, "unfurl_links": False}


def mail(summary: Summary, sender: str, recipient: str, *, domain: str) -> EmailMessage:
    """A mail whose Message-ID is the event's, so that a mailbox can tell a repetition from a second event."""
    message = EmailMessage(policy=SMTP.clone(utf8=False))
    message["Subject"] = summary.title or "an event"
    message["From"] = sender
    message["To"] = Address(addr_spec=recipient)
    message["Date"] = format_datetime(datetime.fromtimestamp(summary.at, UTC))
    message["Message-ID"] = message_id(summary.id, recipient, domain)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence note shall answer
    message["X-Rml-Event-Id"] = summary.id
    message["X-Rml-Event-Type"] = summary.type
    message.set_content(summary.plain() + "\n", cte="quoted-printable")
    message.add_alternative(page(summary), subtype="html", cte="quoted-printable")
    return message


def message_id(event: str, recipient: str, domain: str) -> str:
    """The same for the same event and recipient, whenever and by whomever it is sent."""
    who = hashlib.sha256(recipient.encode()).hexdigest()[:12]
    return f"<{event}.{who}@{domain}>"


def webhook(event: Mapping[str, Any], summary: Summary) -> bytes:
    """The event as it was recorded and how we would say it; bytes that are the same every time, so they can be signed."""
    body = {
        "schema": 1,
        "id": summary.id,
        "type": summary.type,
        "at": summary.at,
        "pipeline": jsonable(event.get("pipeline")),
        "subject": jsonable(event.get("subject") or {}),
        "facts": jsonable(event.get("facts") or {}),
        "title": summary.title,
        "text": summary.plain(),
        "link": summary.link or None,
        "command": summary.command or None,
    }
    return canonical_json(body)


def _slack(text: str) -> str:
    """Slack reads exactly these three as markup of its own; without them a log cannot mention @channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _inline(text: str) -> str:
    """Text between other text: it begins no code of its own."""
    return _slack(text).replace("`", _TICK)


def _slack_url(url: str) -> str:
    return _slack(url).replace("|", "%7C")


def _code(text: str) -> str:
    """A code block that the text in it cannot end."""
    inner = _slack(text).replace("```", _TICK * 3)
    # Backticks at its end would join ours.
    return f"```{_cut(inner, _SECTION).rstrip('`') + (_TICK if inner.endswith('`') else '')}```"


def _cut(text: str, longest: int) -> str:
    """At most `longest` characters, and no half of an entity at the end."""
    if len(text) <= longest:
        return text
    kept = text[: longest - 1]
    amp = kept.rfind("&", len(kept) - 5)
    return (kept[:amp] if amp >= 0 and ";" not in kept[amp:] else kept) + "…"


def page(summary: Summary) -> str:
    """The summary as an HTML page that loads nothing."""
    colour = _COLOURS[summary.tone]
    rows = "".join(
        f'<tr><td style="padding:2px 12px 2px 0;color:#666">{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in (*summary.facts, ("at", summary.when))
    )
    box = "background:#f4f4f4;padding:8px;overflow:auto;font-size:12px;white-space:pre-wrap"
    parts = [f'<h2 style="color:{colour};font-size:18px">{html.escape(summary.title)}</h2>', f"<table>{rows}</table>"]
    if summary.error:
        parts.append(f'<pre style="{box};border-left:3px solid {colour}">{html.escape(summary.error)}</pre>')
    if summary.tail:
        parts.append(f'<pre style="{box}">{html.escape(summary.tail)}</pre>')
    if summary.link:
        parts.append(f'<p><a href="{html.escape(summary.link, quote=True)}">Open</a></p>')
    if summary.command:
        parts.append(f"<p><code>{html.escape(summary.command)}</code></p>")
    parts.append(f'<p style="color:#888;font-size:11px">event {html.escape(summary.id)}</p>')
    return f'<!doctype html><html><body style="font-family:sans-serif">{"".join(parts)}</body></html>'
