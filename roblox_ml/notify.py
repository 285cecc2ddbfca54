"""Who hears of a run: `rml.slack("#ml-alerts", on="failure")`, `rml.email(…)`, `rml.webhook(…)`, `rml.apprise(…)`.

Records only, carried with the pipeline and its runs. Secrets are never part of one: what a Slack workspace, a mail server or
a paging service wants to see is configured on the control plane under a name (`rml channels add`), and `via=` says which.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

__all__ = ["STATES", "Notification", "apprise", "email", "slack", "webhook"]

# What one can be told of.
STATES = ("start", "success", "failure", "retry", "recovery", "late", "gate", "alias", "rollback")
_CHANNEL = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_SECRET_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com", "discord.com", "discordapp.com", "webhook.office.com")
_SECRET_PARAMETER = re.compile(r"(?i)(token|secret|password|passwd|api_?key|^key$|^sig$|signature)")


@dataclass(frozen=True, slots=True)
class Notification:
    """One address and what it is told of. `kind` is 'slack', 'email', 'webhook' or 'apprise'; `via` a channel's name."""

    kind: str
    target: str
    on: tuple[str, ...]
    via: str = ""

    def to_json(self) -> dict[str, object]:
        """The JSON form kept in a run's record and in its events."""
        form: dict[str, object] = {"kind": self.kind, "target": self.target, "on": list(self.on)}
        return {**form, "via": self.via} if self.via else form

    def __str__(self) -> str:
        through = f" via {self.via}" if self.via else ""
        return f"{self.kind} {self.target}{through} on {', '.join(self.on)}"


def slack(channel: str, *, on: str | Sequence[str] = "failure", via: str = "") -> Notification:
    """A Slack channel (`#ml-alerts`) or person (`@ada`, or a member's id `@U012AB3CD`).

    `via` names the configured channel that knows the workspace; without it the one called like the Slack channel, else the
    one called `slack`.
    """
    if not isinstance(channel, str) or channel[:1] not in ("#", "@") or not channel[1:].strip() or _odd(channel):
        raise ValueError(f'{channel!r} is no Slack channel; write rml.slack("#ml-alerts")')
    return Notification("slack", channel, _states(on), _via(via))


def email(address: str, *, on: str | Sequence[str] = "failure", via: str = "") -> Notification:
    """A mail address. `via` names the configured mail server; without it the one called `email`."""
    local, at, domain = address.partition("@") if isinstance(address, str) else ("", "", "")
    if not (local and at and "." in domain) or "@" in domain or any(c.isspace() or c in "<>,;" for c in address):
        raise ValueError(f'{address!r} is no mail address; write rml.email("ml-team@example.com")')
    if _odd(address):
        raise ValueError(f"{address!r} holds a character that cannot be printed")
    return Notification("email", address, _states(on), _via(via))


def webhook(url: str, *, on: str | Sequence[str] = "failure", via: str = "") -> Notification:
    """An HTTP address that gets the event as JSON, with its id in a header and, `via` a channel with a secret, a signature.

    A secret in the URL would be stored with every run: it is refused.
    """
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or _odd(url):
        raise ValueError(f'{url!r} is no http(s) address; write rml.webhook("https://example.com/hook")')
    if parts.username or parts.password:
        raise ValueError("a webhook's URL is kept with every run and must not hold a password")
    host = parts.hostname
    secret = next((key for key, _ in parse_qsl(parts.query) if _SECRET_PARAMETER.search(key)), None)
    if secret or any(host == known or host.endswith("." + known) for known in _SECRET_HOSTS):
        what = f"its parameter {secret!r}" if secret else f"the path of a {host} address"
        raise ValueError(
            f"a webhook's URL is kept with every run, and {what} is a secret. Give it to the control plane instead: "
            'rml channels add my-hook --kind webhook --url-env RML_CHANNEL_MY_HOOK, and write rml.apprise("my-hook")'
        )
    return Notification("webhook", url, _states(on), _via(via))


def apprise(name: str, *, on: str | Sequence[str] = "failure") -> Notification:
    """A channel that is configured on the control plane under this name, of whatever kind.

    `rml channels add ops-pager --kind apprise --url-env RML_CHANNEL_PAGER` makes one for any of the hundred-odd services that
    the library apprise speaks; its URL, which holds the secret, stays there.
    """
    if isinstance(name, str) and "://" in name:
        raise ValueError(
            "an apprise URL holds secrets, and this is kept with every run; configure it under a name "
            '(rml channels add ops-pager --kind apprise --url-env RML_CHANNEL_PAGER) and write rml.apprise("ops-pager")'
        )
    if not isinstance(name, str) or not _CHANNEL.match(name):
        raise ValueError(f'{name!r} is no channel\'s name (a-z, 0-9, -); write rml.apprise("ops-pager")')
    return Notification("apprise", name, _states(on), name)


def _states(on: str | Sequence[str]) -> tuple[str, ...]:
    states = (on,) if isinstance(on, str) else tuple(on)
    wrong = [s for s in states if s not in STATES]
    if wrong or not states:
        shown = ", ".join(repr(s) for s in wrong) or "nothing"
        raise ValueError(f"on= got {shown}; one can be told on {', '.join(STATES)}")
    return tuple(dict.fromkeys(states))


def _via(name: str) -> str:
    if name and (not isinstance(name, str) or not _CHANNEL.match(name)):
        raise ValueError(f"via={name!r} is no channel's name (a-z, 0-9, -); `rml channels` lists them")
    return name


def _odd(text: str) -> bool:
    return not text.isprintable() or len(text) > 400
