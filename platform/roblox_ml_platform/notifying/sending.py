"""One attempt of one delivery: find the channel, fetch its secrets, say it in the channel's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from roblox_ml_core.settings import HomeSettings, MlflowSettings, NotifySettings

from . import rendering
from .channels import Channel, Channels, Unready
from .outcome import Outcome, Refused
from .page import linker
from .senders import http, mail, others, slack, webhook
from .summary import Links, summarise

__all__ = ["Sending", "links", "send"]


@dataclass(frozen=True, slots=True)
class Sending:
    """A claimed delivery with its event."""

    id: int
    address: str
    kind: str
    channel: str
    target: str
    attempts: int
    created_at: float
    event: Mapping[str, Any]


def send(one: Sending, channels: Channels, settings: NotifySettings, home: HomeSettings, urls: Links) -> Outcome:
    """Tell one address of one event. Whatever is wrong with the configuration is a refusal, so that it shows and is tried again."""
    try:
        channel = channels.meant(one.kind, one.target, one.channel)
        return _send(one, channel, settings, home, urls)
    except Unready as error:
        return Refused(str(error))


def _send(one: Sending, channel: Channel, settings: NotifySettings, home: HomeSettings, urls: Links) -> Outcome:
    def secret(name: str) -> str:
        return channel.secret(name, settings, home)

    summary, options = summarise(one.event, urls), channel.options
    target = one.target or options.get("target", "")
    if channel.kind == "apprise":
        return others.send(secret("url"), summary)
    if channel.kind == "email":
        if not target:
            raise Unready(f"channel {channel.name} has no target: give it one (--target), or use rml.email(address)")
        server = mail.Server(
            options["host"],
            options["sender"],
            int(options.get("port") or 0),
            options.get("security", "starttls"),
            options.get("user", ""),
            secret("password"),
            options.get("ca_file", ""),
        )
        return mail.send(server, target, summary, settings.timeout_s)
    if channel.kind == "slack":
        if token := secret("token"):
            if not target:
                raise Unready(f"channel {channel.name} has no target: give it one (--target '#ml-alerts')")
            api = options.get("api") or slack.API
            return slack.send_api(token, target, summary, str(one.event["type"]), settings.timeout_s, api)
        return slack.send_webhook(secret("url"), summary, settings.timeout_s)
    url = secret("url") or target
    if url == target:
        _check_host(url, settings)  # a pipeline said where; the channel's own URL is its maker's word
    return webhook.send(
        url,
        rendering.webhook(one.event, summary),
        event=summary.id,
        type=summary.type,
        attempt=one.attempts + 1,
        secret=secret("secret"),
        timeout=settings.timeout_s,
        ca_file=options.get("ca_file", ""),
    )


def links(settings: NotifySettings, mlflow: MlflowSettings, base: str, home: HomeSettings) -> Links:
    """Where people open things: what the settings say, else MLflow's page of a version and our own page of an event."""
    pattern = settings.model_url
    if not pattern and mlflow.enabled:
        pattern = f"{mlflow.base_url}/#/models/{{model}}/versions/{{version}}"
    return Links(settings.run_url, pattern, linker(settings.public_url or base, home))


def _check_host(url: str, settings: NotifySettings) -> None:
    host = urlsplit(url).hostname or ""
    if not any(fnmatchcase(host, pattern.strip()) for pattern in settings.webhook_hosts.split(",")):
        raise Unready(
            f"{host} is not among the hosts for webhooks ({settings.webhook_hosts}; RML_NOTIFY_WEBHOOK_HOSTS)"
        )
    if why := http.forbidden(host):
        raise Unready(why)
