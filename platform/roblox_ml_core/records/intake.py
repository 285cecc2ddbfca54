"""What clients report: outcomes of what a model decided (`rml.track`), and exposures that they decided themselves.

Strict, and with every finding at once: an event that means something else than its sender thinks is worse than none.
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..errors import Invalid, TooLarge
from .stream import Row

__all__ = ["MAX_BODY_BYTES", "MAX_EVENTS", "parse_events", "parse_exposures"]

MAX_BODY_BYTES = 1 << 20
MAX_EVENTS = 10_000
_MOST_FINDINGS = 20
_MAX_ATTRIBUTES = 2048
_OLDEST_S, _NEWEST_S = 35 * 86_400.0, 3600.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")
_ENDPOINT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_EVENT = '{"events": [{"unit": "u1", "event": "click", "value": 1.0, "id": "made by the client, once"}]}'
_EXPOSURE = (
    '{"exposures": [{"endpoint": "feed", "experiment": "new-ranker", "arm": "new", "unit": "u1", "version": 8}]}'
)


class _Fields:
    """The fields of one entry; every one that is wrong is noted, and then the value does not matter."""

    def __init__(self, entry: Mapping[str, Any], where: str, findings: list[str]) -> None:
        self._entry, self._where, self._findings = entry, where, findings

    def wrong(self, name: str, what: str) -> None:
        self._findings.append(f"{self._where}.{name} {what}")

    def text(self, name: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        value = self._entry.get(name, default)
        if value is None:
            self.wrong(name, "is missing")
        elif not isinstance(value, str) or not pattern.match(value):
            self.wrong(name, f"is {_shown(value)}: it must match {pattern.pattern[:-2]}")
        else:
            return value
        return ""

    def unit(self) -> str:
        value = self._entry.get("unit")
        if value is None:
            self.wrong("unit", "is missing: whose outcome is it?")
        elif not isinstance(value, str) or not value or len(value) > 256 or not value.isprintable():
            self.wrong("unit", f"is {_shown(value)}: give the unit id as a text of at most 256 printable characters")
        else:
            return value
        return ""

    def at_us(self, now_s: float) -> int:
        value = self._entry.get("at")
        if value is None:
            return int(now_s * 1e6)
        seconds = _seconds(value)
        if seconds is None:
            self.wrong(
                "at", f'is {_shown(value)}: give seconds since 1970, or a time with zone: "2026-01-31T12:00:00Z"'
            )
        elif not now_s - _OLDEST_S <= seconds <= now_s + _NEWEST_S:
            self.wrong("at", f"is {_shown(value)}: at most 35 days ago and at most an hour ahead of this clock")
        else:
            return int(seconds * 1e6)
        return 0

    def number(self, name: str, default: float) -> float:
        value = self._entry.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong(name, f"is {_shown(value)}: it must be a finite number")
            return 0.0
        return float(value)

    def version(self) -> int:
        value = self._entry.get("version")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            self.wrong("version", f"is {_shown(value)}: it must be the version that answered, a whole number from 1")
            return 0
        return value

    def attributes(self) -> str:
        value = self._entry.get("attributes")
        if value is None:
            return ""
        if not isinstance(value, dict):
            self.wrong("attributes", f"is {_shown(value)}: it must be a JSON object")
            return ""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        if len(text) > _MAX_ATTRIBUTES:
            self.wrong("attributes", f"has {len(text)} bytes: at most {_MAX_ATTRIBUTES}")
        return text

    def only(self, *names: str) -> None:
        if unknown := sorted(set(self._entry) - set(names)):
            self.wrong(unknown[0], f"is not known here: there are {', '.join(names)}")


def parse_events(body: bytes, *, now_s: float | None = None) -> list[Row]:
    """Rows of the stream `events`. An event without an `id` gets one: sent twice, it then counts twice.

    Raises:
        TooLarge: the body is over the limit.
        Invalid: with every finding; nothing of the body is taken then.
    """
    now = time.time() if now_s is None else now_s

    def row(fields: _Fields) -> Row:
        fields.only("unit", "event", "value", "at", "unit_kind", "inference_id", "id", "attributes")
        identity = fields.text("id", _ID, uuid.uuid4().hex)
        kind = fields.text("unit_kind", _NAME, "user_id")
        unit, event = fields.unit(), fields.text("event", _NAME)
        value, inference = fields.number("value", 1.0), fields.text("inference_id", _OPTIONAL, "")
        return (fields.at_us(now), identity, kind, unit, event, value, inference, fields.attributes())

    return _parse(body, "events", _EVENT, row)


def parse_exposures(body: bytes, *, now_s: float | None = None) -> list[Row]:
    """Rows of the stream `exposures`, from a client that decides itself.

    Raises:
        As `parse_events`.
    """
    now = time.time() if now_s is None else now_s

    def row(fields: _Fields) -> Row:
        fields.only("endpoint", "experiment", "arm", "unit", "unit_kind", "version", "at", "inference_id")
        endpoint, experiment = fields.text("endpoint", _ENDPOINT), fields.text("experiment", _NAME)
        arm, kind = fields.text("arm", _NAME), fields.text("unit_kind", _NAME, "user_id")
        inference = fields.text("inference_id", _OPTIONAL, "")
        return (fields.at_us(now), inference, endpoint, experiment, arm, kind, fields.unit(), fields.version())

    return _parse(body, "exposures", _EXPOSURE, row)


_OPTIONAL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:-]{0,127})?\Z")


def _parse(body: bytes, what: str, example: str, row: Callable[[_Fields], Row]) -> list[Row]:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(
            f"{len(body)} bytes are more than one request may hold ({MAX_BODY_BYTES})", hint="send several requests"
        )
    try:
        tree = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is not JSON ({str(error)[:200]})", hint=f"send {example}") from None
    listed = tree.get(what) if isinstance(tree, dict) else None
    if not isinstance(listed, list) or set(tree) != {what}:
        raise Invalid(f"the body must be an object with one field, {what!r}, a list", hint=f"send {example}")
    if len(listed) > MAX_EVENTS:
        raise Invalid(f"{len(listed)} {what} are more than one request may hold ({MAX_EVENTS})", hint="send several")
    findings: list[str] = []
    rows = []
    for number, entry in enumerate(listed):
        where = f"{what}[{number}]"
        if isinstance(entry, dict):
            rows.append(row(_Fields(entry, where, findings)))
        else:
            findings.append(f"{where} is {_shown(entry)}: it must be an object")
    if findings:
        shown = findings[:_MOST_FINDINGS]
        more = f"; and {len(findings) - len(shown)} more" if len(findings) > len(shown) else ""
        raise Invalid(
            f"nothing was taken, {len(findings)} finding(s): {'; '.join(shown)}{more}",
            hint=f"send {example}",
            details={"findings": findings[:1000]},
        )
    return rows


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e12 else None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return moment.timestamp() if moment.tzinfo else None
    return None


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
