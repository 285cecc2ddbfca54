"""Channels: named ways to reach people, whose secrets are references until the moment of sending.

A channel comes from the database (`rml channels add`, references only) or from `channels.toml` in the home (mode 0600, where a
value may be written out). What may be referred to over the API is narrow, because a channel's secret is sent to an address that
its maker chooses: variables named `RML_CHANNEL_*`, files below `$RML_HOME/secrets`.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from roblox_ml_core.errors import Invalid
from roblox_ml_core.settings import HomeSettings, NotifySettings
from sqlalchemy import Connection, select

from . import tables as t
from .events import TYPES

__all__ = ["KINDS", "WORDS", "Channel", "Channels", "Unready", "check", "read"]

WORDS = tuple(dict.fromkeys(word for word in TYPES.values() if word != "test"))
# What each kind may say, and which of it is secret.
KINDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "slack": (frozenset({"target", "api"}), frozenset({"url", "token"})),
    "email": (frozenset({"target", "host", "port", "security", "user", "sender", "ca_file"}), frozenset({"password"})),
    "webhook": (frozenset({"target", "ca_file"}), frozenset({"url", "secret"})),
    "apprise": (frozenset(), frozenset({"url"})),
}
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_LONGEST_SECRET = 8192


class Unready(Exception):
    """A channel cannot be used as it is configured; somebody has to do something, and then it can."""


@dataclass(frozen=True, slots=True)
class Channel:
    """`options` are values, `secrets` are references (`{"env": …}`, `{"file": …}`, from the file also `{"value": …}`)."""

    name: str
    kind: str
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    on: tuple[str, ...] = ()
    match: str = "*"
    trusted: bool = False

    def hears(self, word: str, names: tuple[str, ...]) -> bool:
        """Whether the channel itself asked for events of this word about one of these names."""
        return word in self.on and any(fnmatchcase(name, self.match) for name in names or ("",))

    def shown(self) -> dict[str, Any]:
        """What may be seen of it: where the secrets come from, never what they are."""
        references = {
            name: "in channels.toml" if "value" in ref else "".join(f"{how} {what}" for how, what in ref.items())
            for name, ref in self.secrets.items()
        }
        return {
            "name": self.name, "kind": self.kind, "options": dict(self.options), "secrets": references,
            "on": list(self.on), "match": self.match, "source": "file" if self.trusted else "database",
        }  # fmt: skip

    def secret(self, name: str, settings: NotifySettings, home: HomeSettings) -> str:
        """The secret's value now, empty where the channel has none of this name; `Unready` says why it cannot be had."""
        reference = self.secrets.get(name)
        if reference is None:
            return ""
        if "value" in reference:
            return reference["value"]
        if variable := reference.get("env"):
            if not self.trusted and not _allowed(variable, settings):
                raise Unready(f"channel {self.name}: {variable} is not among {settings.secret_env}")
            if not (value := os.environ.get(variable, "").strip()):
                raise Unready(f"channel {self.name}: {variable} is not set where the control plane runs")
            return value
        return _from_file(self.name, reference.get("file", ""), home, trusted=self.trusted)


@dataclass(frozen=True, slots=True)
class Channels:
    """Every channel there is, by name, and the one that a notification means."""

    known: Mapping[str, Channel]

    def meant(self, kind: str, target: str, via: str) -> Channel:
        """The channel for a delivery; `Unready` with what to type where there is none."""
        if via:
            found = self.known.get(via)
            if found is None:
                raise Unready(f"there is no channel {via!r}; make it: rml channels add {via} --kind …")
            if kind not in ("apprise", found.kind):
                raise Unready(f"channel {via!r} is of kind {found.kind}, and rml.{kind}(…) names it")
            return found
        for name in (target[1:].lower() if kind == "slack" else "", kind):
            found = self.known.get(name)
            if found is not None and found.kind == kind:
                return found
        if kind == "webhook":
            return Channel("webhook", "webhook")  # the address is all it takes
        raise Unready(f"no channel of kind {kind} is configured; make one: rml channels add {kind} --kind {kind} …")


def read(connection: Connection, settings: NotifySettings, home: HomeSettings, *, file: bool = True) -> Channels:
    """The database's channels and the file's; the file wins, because whoever writes it owns the machine."""
    found = {
        row["name"]: check(row["name"], row["kind"], row["options"], row["on"], row["match"], settings=None)
        for row in connection.execute(select(t.channels)).mappings()
    }
    path = settings.channels_file or home.root / "channels.toml"
    return Channels({**found, **(_file(path) if file else {})})


def check(
    name: str,
    kind: str,
    options: Mapping[str, Any],
    on: Any = (),
    match: str = "*",
    *,
    settings: NotifySettings | None,
    trusted: bool = False,
) -> Channel:
    """A channel out of what somebody wrote; `Invalid` with every finding at once."""
    found: list[str] = []
    if not isinstance(name, str) or not _NAME.match(name):
        found.append(f"{name!r} is no channel's name (a-z, 0-9, -)")
    if kind not in KINDS:
        raise Invalid(f"channel {name}: there is no kind {kind!r}", hint=f"the kinds are {', '.join(KINDS)}")
    plain, secret = KINDS[kind]
    values: dict[str, str] = {}
    secrets: dict[str, dict[str, str]] = {}
    for key, value in options.items():
        if key in secret:
            reference = (
                {"value": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
            )
            if len(reference) != 1 or not all(isinstance(v, str) and v for v in reference.values()):
                found.append(f'{key} must be {{"env": "VARIABLE"}} or {{"file": "path"}}')
            elif not trusted and set(reference) - {"env", "file"}:
                found.append(f"{key} is a secret: name the variable or file it is in, not the value")
            elif settings is not None and (env := reference.get("env")) and not _allowed(env, settings):
                found.append(f"{env} is not among {settings.secret_env} (RML_NOTIFY_SECRET_ENV)")
            else:
                secrets[key] = reference
        elif key in plain:
            values[key] = str(value)
        else:
            found.append(f"{kind} has no option {key!r} (it has {', '.join(sorted(plain | secret))})")
    words = (on,) if isinstance(on, str) else tuple(on)
    found += [f"on: {word!r} is none of {', '.join(WORDS)}" for word in words if word not in WORDS]
    found += _missing(kind, values, secrets)
    if found:
        raise Invalid(f"channel {name}: {'; '.join(found)}", hint="see docs/guides/notifications.md")
    return Channel(name, kind, values, secrets, words, match or "*", trusted)


def _missing(kind: str, values: Mapping[str, str], secrets: Mapping[str, Any]) -> list[str]:
    if kind == "slack" and len(secrets) != 1:
        return ["slack needs either url (an incoming webhook) or token (a bot's)"]
    if kind == "apprise" and "url" not in secrets:
        return ["apprise needs url"]
    if kind == "email":
        found = [f"email needs {name}" for name in ("host", "sender") if not values.get(name)]
        if values.get("security", "starttls") not in ("starttls", "tls", "none"):
            found.append("security is starttls, tls or none")
        if not values.get("port", "0").isdigit():
            found.append(f"port {values['port']!r} is no number")
        if values.get("security") == "none" and "password" in secrets:
            found.append("a password is not sent over a connection without security")
        return found
    return []


def _file(path: Path) -> dict[str, Channel]:
    """The channels of `channels.toml`, one table each. Others must not be able to read it: it may hold secrets."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}
    if mode & 0o077:
        raise Unready(f"{path} can be read by others; chmod 600 {path}")
    try:
        parsed = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Unready(f"{path}: {error}") from error
    try:
        return {
            name: check(
                name,
                table.pop("kind", ""),
                {k: v for k, v in table.items() if k not in ("on", "match")},
                table.get("on", ()),
                table.get("match", "*"),
                settings=None,
                trusted=True,
            )
            for name, table in parsed.items()
        }
    except (Invalid, AttributeError) as error:
        raise Unready(f"{path}: {getattr(error, 'message', error)}") from error


def _from_file(channel: str, name: str, home: HomeSettings, *, trusted: bool) -> str:
    below = (home.root / "secrets").resolve()
    path = (below / Path(name).expanduser()).resolve()
    if not trusted and not path.is_relative_to(below):
        raise Unready(f"channel {channel}: secrets are read from {below} only")
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077 or facts.st_uid not in (os.getuid(), 0):
            raise Unready(f"channel {channel}: {path} must be a file that nobody else can read (chmod 600)")
        text = path.read_text("utf-8")[:_LONGEST_SECRET].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unready(f"channel {channel}: {path} cannot be read ({type(error).__name__})") from error
    if not text:
        raise Unready(f"channel {channel}: {path} is empty")
    return text


def _allowed(variable: str, settings: NotifySettings) -> bool:
    return any(fnmatchcase(variable, pattern.strip()) for pattern in settings.secret_env.split(","))
