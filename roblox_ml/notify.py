"""Who hears of a run: `rml.slack("#ml-alerts", on="failure")`, `rml.email(…)`, `rml.webhook(…)`.

Records only, carried with the pipeline and its runs. Secrets are never part of one: a webhook's token is named by an
environment variable, not written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["STATES", "Notification", "email", "slack", "webhook"]

# The run states one can be told about.
STATES = ("start", "success", "failure", "retry")


@dataclass(frozen=True, slots=True)
class Notification:
    """One address and the run states it is told about. `kind` is 'slack', 'email' or 'webhook'."""

    kind: str
    target: str
    on: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The JSON form kept in a run's record."""
        return {"kind": self.kind, "target": self.target, "on": list(self.on)}

    def __str__(self) -> str:
        return f"{self.kind} {self.target} on {', '.join(self.on)}"


def slack(channel: str, *, on: str | Sequence[str] = "failure") -> Notification:
    """A Slack channel (`#ml-alerts`) or person (`@ada`)."""
    if not isinstance(channel, str) or channel[:1] not in ("#", "@") or len(channel) < 2:
        raise ValueError(f'{channel!r} is no Slack channel; write rml.slack("#ml-alerts")')
    return Notification("slack", channel, _states(on))


def email(address: str, *, on: str | Sequence[str] = "failure") -> Notification:
    """A mail address."""
    local, at, domain = address.partition("@") if isinstance(address, str) else ("", "", "")
    if not (local and at and "." in domain) or any(c.isspace() for c in address):
        raise ValueError(f'{address!r} is no mail address; write rml.email("ml-team@example.com")')
    return Notification("email", address, _states(on))


def webhook(url: str, *, on: str | Sequence[str] = "failure") -> Notification:
    """An HTTP address that gets the run as JSON. A secret in the URL would be stored with every run: it is refused."""
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'{url!r} is no http(s) address; write rml.webhook("https://example.com/hook")')
    if parts.username or parts.password:
        raise ValueError("a webhook's URL is kept with every run and must not hold a password")
    return Notification("webhook", url, _states(on))


def _states(on: str | Sequence[str]) -> tuple[str, ...]:
    states = (on,) if isinstance(on, str) else tuple(on)
    wrong = [s for s in states if s not in STATES]
    if wrong or not states:
        shown = ", ".join(repr(s) for s in wrong) or "nothing"
        raise ValueError(f"on= got {shown}; one can be told on {', '.join(STATES)}")
    return states
