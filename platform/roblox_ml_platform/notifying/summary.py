"""What an event says to a person: a title, a few facts, the error line, the end of the log, where to look. Pure.

Every way of telling (Slack's blocks, a mail, plain text) is made from this one summary, so they all say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from .text import clean, line, tail

__all__ = ["Links", "Summary", "summarise"]

_TITLE, _VALUE, _ERROR, _TAIL, _LINK = 140, 200, 600, 2400, 2000


@dataclass(frozen=True, slots=True)
class Links:
    """Patterns of addresses that people can open, and `page`: from an event's id to its own. Without any there is no link."""

    run: str = ""
    model: str = ""
    page: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """`tone` is good, bad, warn or plain; `command` is what to type, `link` what to open (either may be empty)."""

    id: str
    type: str
    title: str
    tone: str
    at: float
    facts: tuple[tuple[str, str], ...]
    error: str
    tail: str
    link: str
    command: str

    @property
    def when(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    def plain(self) -> str:
        """The whole message as text."""
        parts = [self.title, "", *(f"{name}: {value}" for name, value in self.facts), f"at: {self.when}"]
        if self.error:
            parts += ["", self.error]
        if self.tail:
            parts += ["", "log:", *(f"    {one}" for one in self.tail.split("\n"))]
        if self.link or self.command:
            parts += ["", *(one for one in (self.link, self.command) if one)]
        return "\n".join([*parts, "", f"event {self.id}"])


def summarise(event: Mapping[str, Any], links: Links | None = None) -> Summary:
    """The summary of any event, also of one with facts missing or of a shape nobody expected."""
    links = links or Links()
    subject, facts = _mapping(event.get("subject")), _mapping(event.get("facts"))
    kind = str(event.get("type") or "")
    pipeline = line(event.get("pipeline") or subject.get("pipeline") or "", 120)
    run = line(subject.get("run") or facts.get("run") or "", 160)
    title, tone = _title(kind, pipeline, subject, facts)
    link, command = _where(kind, pipeline, run, subject, facts, links)
    if not link and links.page is not None:
        link = links.page(line(event.get("id") or "", 64))
    return Summary(
        id=line(event.get("id") or "", 64),
        type=line(kind, 64),
        title=line(title, _TITLE),
        tone=tone,
        at=_seconds(event.get("at")),
        facts=tuple((name, text) for name, value in _facts(pipeline, run, subject, facts) if (text := _short(value))),
        error=clean(facts.get("error") or "", _ERROR),
        tail=tail(facts.get("log"), _TAIL),
        link=link,
        command=command,
    )


def _title(kind: str, pipeline: str, subject: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, str]:
    name = pipeline or "a pipeline"
    model = line(subject.get("model") or facts.get("model") or "a model", 80)
    step = line(facts.get("step") or "", 80)
    if kind == "run.failed":
        return f"{name} failed" + (f" in {step}" if step else ""), "bad"
    if kind == "alias.moved":
        to = facts.get("to")
        return f"{model}@{line(subject.get('alias') or '?', 40)} " + (
            f"is now version {_short(to)}" if to is not None else "was removed"
        ), "plain"
    if kind == "gate.refused":
        return f"{model} version {_short(subject.get('version'))} did not pass its gate", "warn"
    if kind == "rollout.guarded":
        did = {"rolled_back": "was taken back", "warned": "is worse than it should be"}.get(
            str(facts.get("action")), "is worse and could not be taken back"
        )
        return (
            f"{_short(facts.get('from')) or model} at endpoint {line(subject.get('endpoint') or '?', 64)} {did}",
            "bad",
        )
    if kind == "channel.test":
        return f"Test message of channel {line(subject.get('channel') or '?', 80)}", "plain"
    known = {
        "run.started": (f"{name} started", "plain"),
        "run.succeeded": (f"{name} succeeded", "good"),
        "run.recovered": (f"{name} works again", "good"),
        "run.retry": (f"{name}: {step or 'a step'} is tried again", "warn"),
        "run.late": (f"{name} is late", "warn"),
        "schedule.paused": (f"the schedule of {name} was paused", "warn"),
    }
    return known.get(kind, (f"{name}: {kind or 'an event'}", "plain"))


def _facts(pipeline: str, run: str, subject: Mapping[str, Any], facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    findings = facts.get("findings")
    gate = "; ".join(
        line(_mapping(one).get("message") or one, 120) for one in (findings if isinstance(findings, list) else [])[:5]
    )
    attempts = facts.get("attempt") or subject.get("attempt")
    version = subject.get("version") if subject.get("version") is not None else facts.get("to")
    return [
        ("pipeline", pipeline),
        ("run", run),
        ("step", facts.get("step") or subject.get("task")),
        ("attempt", attempts if facts.get("step") or subject.get("task") else None),
        ("took", _span(facts.get("seconds"))),
        ("schedule", subject.get("schedule")),
        ("due", _moment(subject.get("due"))),
        ("late by", _span(facts.get("late_by_s"))),
        ("model", subject.get("model") or facts.get("model")),
        ("version", version),
        ("before", facts.get("from")),
        ("gate", gate),
        ("failed before", facts.get("failed_run")),
        ("reason", facts.get("reason")),
        ("by", facts.get("by")),
        ("host", facts.get("host")),
    ]  # fmt: skip


def _where(
    kind: str, pipeline: str, run: str, subject: Mapping[str, Any], facts: Mapping[str, Any], links: Links
) -> tuple[str, str]:
    """An address to open and a command to type."""
    model = line(subject.get("model") or "", 80)
    if model:
        version = subject.get("version") if subject.get("version") is not None else facts.get("to")
        named = f"{model}/{_short(version)}" if version is not None else model
        command = f"rml models show {named}" if version is not None else f"rml models versions {model}"
        return _fill(links.model, model=model, version=_short(version)), command
    if run:
        step = line(facts.get("step") or "", 120)
        command = f"rml runs logs {run} {step}" if kind == "run.failed" and step else f"rml runs show {run}"
        return _fill(links.run, run=run, pipeline=pipeline), command
    return "", "rml schedules" if kind in ("run.late", "schedule.paused") else ""


def _fill(pattern: str, **values: str) -> str:
    """The pattern with its `{names}` filled in; a value cannot leave its place in the address."""
    for name, value in values.items():
        pattern = pattern.replace("{" + name + "}", quote(value, safe=""))
    return pattern if len(pattern) <= _LINK else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    return "" if value is None or value == "" else line(value, _VALUE)


def _seconds(value: Any) -> float:
    """A time that a calendar can show."""
    return float(value) if _number(value) and 0 <= value < 32_503_680_000 else 0.0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _moment(value: Any) -> str | None:
    if not _number(value):
        return None if value is None else line(value, 60)
    return datetime.fromtimestamp(_seconds(value), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(value: Any) -> str | None:
    """Seconds as people say them."""
    if not _number(value) or not 0 <= value < 1e9:
        return None
    if value < 120:
        return f"{value:.1f} s"
    minutes = int(value) // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
