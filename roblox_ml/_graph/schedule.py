"""When a pipeline runs by itself: a schedule (`rml.cron`) and what else may start it (`rml.on_dataset`, `on_alias`, `on_run`).

Records only, standard library only: the control plane decides with them, Kubeflow Pipelines gets them as a recurring run, and a
step that imports the module they stand in pays next to nothing. docs/formats/schedule.md is the contract.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from typing import Any

from . import cron as _expressions

__all__ = ["Schedule", "Trigger", "cron", "due_date", "fill", "on_alias", "on_dataset", "on_run", "zone_problem"]

CATCHUP = ("none", "latest", "all")
OVERLAP = ("skip", "queue", "allow", "replace")
RUN_STATES = ("SUCCEEDED", "FAILED", "CANCELLED")
_DAY_S = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S}
_DURATION = re.compile(r"^(\d+)\s*([smhd])$")
_PIPELINE = re.compile(r"^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$")
_DATASET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_ALIAS = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}@[a-z][a-z0-9_-]{0,62}$")
_TEMPLATE = re.compile(r"\{(?:(date)|due(?::([^{}]+))?)\}")

due_date = "{date}"
"""The day a run was due, as `YYYY-MM-DD`: `def nightly(day: str = rml.due_date)`. Run by hand, it is today."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression in a time zone, and what to do when a run is missed, overlapped or late.

    `jitter_s` spreads the starts (each due time has its own fixed delay below it). `catchup` says what happens to due times that
    passed while nobody decided: "none" of them run, only the "latest", or "all". `overlap` says what happens when the one before
    still runs: "skip" this one, "queue" it, "allow" both, or "replace" the older. A run that has not started `late_after_s` after
    it should have is reported. `start` and `end` (ISO, in `tz` unless they say otherwise) bound the due times; `end` is outside.
    """

    cron: str
    tz: str = "UTC"
    jitter_s: int = 0
    catchup: str = "latest"
    overlap: str = "skip"
    late_after_s: int = 900
    start: str | None = None
    end: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schedule:
        """From `to_json`; what a later version added is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in value.items() if k in known})

    def problems(self) -> list[str]:
        """Everything wrong with it, one line each."""
        found = [_expressions.problem(self.cron), zone_problem(self.tz)]
        found.append(_word_problem("catchup", self.catchup, CATCHUP))
        found.append(_word_problem("overlap", self.overlap, OVERLAP))
        if not _is_count(self.jitter_s) or not 0 <= self.jitter_s <= _DAY_S:
            found.append(f"jitter of {self.jitter_s!r} s is outside 0–{_DAY_S}")
        if not _is_count(self.late_after_s) or self.late_after_s < 1:
            found.append(f"late_after of {self.late_after_s!r} s is not positive")
        bounds = [self._bound(name, found) for name in ("start", "end")]
        if bounds[0] and bounds[1] and bounds[0] >= bounds[1]:
            found.append(f"start {self.start} is not before end {self.end}")
        return [problem for problem in found if problem]

    def _bound(self, name: str, found: list[str | None]) -> datetime | None:
        text = getattr(self, name)
        if text is None:
            return None
        try:
            return in_zone(text, UTC)
        except (TypeError, ValueError):
            found.append(f"{name} {text!r} is no ISO date or time, such as '2026-12-01' or '2026-12-01T03:00'")
            return None

    def __str__(self) -> str:
        """`0 3 * * * Europe/Berlin`: the expression, and the zone unless it is UTC."""
        return self.cron if self.tz == "UTC" else f"{self.cron} {self.tz}"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What else starts a pipeline. `kind` is "dataset" (a new version of it), "alias" (it moved) or "run" (one of that pipeline
    ended in `state`)."""

    kind: str
    subject: str
    state: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}" + (f" {self.state}" if self.state else "")


def cron(
    expression: str,
    *,
    tz: str = "UTC",
    jitter: str | int = 0,
    catchup: str = "latest",
    overlap: str = "skip",
    late_after: str | int = "15m",
    start: str | None = None,
    end: str | None = None,
) -> Schedule:
    """A schedule: `rml.cron("0 3 * * *", tz="Europe/Berlin", jitter="5m", catchup="all", overlap="queue")`.

    Five fields: minute, hour, day of month, month, day of week. Lengths of time are seconds or text such as "90s", "5m", "2h".
    When clocks change, a fixed time that does not exist runs right after the gap and one that exists twice runs once.
    """
    schedule = Schedule(
        cron=" ".join(expression.split()) if isinstance(expression, str) else expression,
        tz=tz,
        jitter_s=_seconds("jitter", jitter),
        catchup=catchup,
        overlap=overlap,
        late_after_s=_seconds("late_after", late_after),
        start=start,
        end=end,
    )
    if problems := schedule.problems():
        raise ValueError(
            f'rml.cron: {"; ".join(problems)}. Three o\'clock in Berlin is rml.cron("0 3 * * *", tz="Europe/Berlin")'
        )
    return schedule


def on_dataset(name: str) -> Trigger:
    """Run when the data set gets a new version: `triggers=[rml.on_dataset("comments")]`."""
    if not isinstance(name, str) or not _DATASET.match(name):
        raise ValueError(f'{name!r} is no data set\'s name; write rml.on_dataset("comments")')
    return Trigger("dataset", name)


def on_alias(reference: str) -> Trigger:
    """Run when a model's alias moves: `rml.on_alias("comment-sentiment@champion")`."""
    if not isinstance(reference, str) or not _ALIAS.match(reference):
        raise ValueError(f'{reference!r} is no alias; write rml.on_alias("comment-sentiment@champion")')
    return Trigger("alias", reference)


def on_run(pipeline: str, *, state: str = "SUCCEEDED") -> Trigger:
    """Run when a run of that pipeline ended so: `rml.on_run("prepare-data")`, `rml.on_run("train", state="FAILED")`."""
    name = getattr(pipeline, "name", pipeline)
    if not isinstance(name, str) or not _PIPELINE.match(name):
        raise ValueError(f'{pipeline!r} is no pipeline\'s name; write rml.on_run("prepare-data")')
    if problem := _word_problem("state", state, RUN_STATES):
        raise ValueError(f"rml.on_run: {problem}")
    return Trigger("run", name, state)


def zone_problem(name: object) -> str | None:
    """What is wrong with a time zone's name, or None; also None where this machine has no list of zones to look in."""
    from zoneinfo import ZoneInfo, available_timezones

    if not isinstance(name, str) or not name:
        return f"tz {name!r} is no time zone, such as 'Europe/Berlin'"
    if name == "UTC":
        return None
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        known = available_timezones()
        if not known:
            return None
        near = get_close_matches(name, known, n=1) or [
            z for z in sorted(known) if z.lower().endswith(f"/{name.lower()}")
        ]
        return f"tz {name!r} is no time zone; " + (
            f"did you mean {near[0]!r}?" if near else "write one such as 'Europe/Berlin'"
        )
    return None


def in_zone(text: str, zone: tzinfo) -> datetime:
    """An ISO date or time as an aware moment; without an offset of its own it is read in `zone`."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def is_template(value: object) -> bool:
    """Whether a parameter's value depends on when the run was due."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def fill(arguments: Mapping[str, Any], due: datetime) -> dict[str, Any]:
    """Arguments with the due time in them: `{date}`, `{due}` (ISO) or `{due:%H}` (strftime) in texts, in the zone of `due`."""

    def put(match: re.Match[str]) -> str:
        if match[1]:
            return due.strftime("%Y-%m-%d")
        return due.strftime(match[2]) if match[2] else due.isoformat(timespec="seconds")

    return {k: _TEMPLATE.sub(put, v) if isinstance(v, str) else v for k, v in arguments.items()}


def _seconds(name: str, value: object) -> int:
    if _is_count(value):
        return int(value)  # type: ignore[call-overload, no-any-return]
    match = _DURATION.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"rml.cron: {name}={value!r} is no length of time; write seconds, or '90s', '5m', '2h', '1d'")
    return int(match[1]) * _UNITS[match[2]]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _word_problem(name: str, value: object, words: tuple[str, ...]) -> str | None:
    return None if value in words else f"{name} {value!r} is not one of {', '.join(words)}"
