"""Taking secrets out of text that leaves the machine: values that are known to be secret, and what looks like one.

A log tail is sent to people and services. Known values are those of variables that are named like secrets or that steps ask
for, and of the files in `$RML_HOME`; what they look like elsewhere is recognised by the patterns of the issuers. Standard
library only. It errs on the side of stars: a line too well masked can still be read in the run's log.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

__all__ = ["STARS", "Mask", "known_secrets"]

STARS = "********"
_SHORTEST = 6
_LARGEST_FILE = 16 * 1024
_MOST_FILES = 500
_NAMED = re.compile(
    r"(?i)(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASS|PWD|API_?KEY|ACCESS_?KEY(_ID)?|PRIVATE_?KEY|CREDENTIALS?|DSN|DATABASE_URL|"
    r"CONNECTION_STRING|WEBHOOK(_URL)?)$"
)
_LOOKS = (
    re.compile(r"(?i)\b(?:bearer|basic|token)\s+(?P<secret>[A-Za-z0-9._~+/=-]{8,})"),
    re.compile(
        r"(?i)(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|signature|credential)s?[\"']?\s*"
        r"(?:=|:|=>)\s*(?P<secret>\"[^\"\n]{3,}\"|'[^'\n]{3,}'|[^\s,;&\"'})\]]{4,})"
    ),
    re.compile(r"\b(?P<secret>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"),
    re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@'\"]*:(?P<secret>[^\s/@'\"]+)@"),
    re.compile(r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))", re.S),
    re.compile(r"(?P<secret>\brml(?:_[a-z]+)?_[A-Za-z0-9_-]{20,})"),
)


class Mask:
    """Replaces secrets by stars. Made once for a run; calling it never fails."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for form in _forms(value)}
        # The longest first: a secret that holds another must not leave its rest.
        known = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._known = re.compile(known) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(STARS, text)
        for pattern in (*_LOOKS, *_issuers()):
            text = pattern.sub(_starred, text)
        return text


def known_secrets(
    variables: Iterable[str] = (), *, environment: Mapping[str, str] | None = None, home: Path | None = None
) -> set[str]:
    """Values that must not be shown: of variables named like secrets, of `variables`, of the secrets and tokens in the home."""
    from ._store import home as default_home

    environment = os.environ if environment is None else environment
    asked = set(variables)
    found = {value for name, value in environment.items() if name in asked or _NAMED.search(name)}
    return found | set(_files(home or default_home()))


def _files(home: Path) -> Iterator[str]:
    """What lies in the home as a secret: the token, logins, and every file below `secrets`."""
    try:
        places = [home / "token", home / "credentials.json"]
        places += [path for path in (home / "secrets").rglob("*") if path.is_file()][:_MOST_FILES]
    except OSError:
        return
    for path in places:
        try:
            if path.stat().st_size > _LARGEST_FILE:
                continue
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if path.name == "credentials.json":
            yield from re.findall(r'"([A-Za-z0-9._~+/=-]{16,})"', text)
        else:
            yield text


def _forms(value: str) -> Iterator[str]:
    """A secret as it may stand in a log: itself, each of its lines, quoted for a URL or for JSON, in base64."""
    value = value.strip()
    if len(value) < _SHORTEST or value.lower() in ("true", "false", "none", "null", "default"):
        return
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    yield base64.b64encode(value.encode("utf-8", "replace")).decode()
    if "\n" in value:
        yield from (line.strip() for line in value.split("\n") if len(line.strip()) >= 8)


def _starred(match: re.Match[str]) -> str:
    """The match with its secret replaced: the group of that name, or all of it."""
    if "secret" not in match.re.groupindex:
        return STARS
    start, end = match.span("secret")
    whole = match.group(0)
    return whole[: start - match.start()] + STARS + whole[end - match.start() :]


def _issuers() -> Iterator[re.Pattern[str]]:
    """The patterns that capture refuses in code."""
    from ._capture._secrets import _PATTERNS

    return (pattern for _, pattern in _PATTERNS)
