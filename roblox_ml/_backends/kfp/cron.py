"""A schedule of ours as Kubeflow can keep it: six cron fields in the server's time zone, one catch-up switch, one bound.

Pure. Kubeflow reads all schedules in one zone (its scheduler's, UTC by default) and takes no zone with an expression. A zone that is always
as far from the server's can be written in the server's hours, when the shifted hours are still a cron expression; a zone with
summer time cannot. What cannot be said is refused with what to write instead, never said approximately.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from ..._graph.schedule import Schedule
from ...errors import SubmitError

__all__ = ["Recurrence", "convert", "shifted", "translate"]

_NAMES = {name: str(n) for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LAST_DAY = 6
_MOST_AT_ONCE = 10  # the server refuses more
_WATCHED_DAYS = 800  # two summers


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What is sent: six fields, whether missed times are made up for, how many runs at once, and the bounds (RFC 3339)."""

    cron: str
    no_catchup: bool
    max_concurrency: int
    start: str | None = None
    end: str | None = None


def convert(schedule: Schedule, *, server: str = "UTC", name: str = "", now: datetime | None = None) -> Recurrence:
    """The recurring run of a schedule; SubmitError with everything that Kubeflow cannot do."""
    problems: list[str] = []
    expression = schedule.cron
    if schedule.tz != server:
        offset = _fixed_difference(schedule.tz, server, now or datetime.now(UTC))
        moved = None if offset is None else shifted(schedule.cron, -offset)
        if offset is None:
            problems.append(
                f"its times are in {schedule.tz}, Kubeflow reads all schedules in {server}, and the two are not always equally far "
                f'apart. Write it in {server}, or, if the server\'s CRON_SCHEDULE_TIMEZONE is another, rml.connect(…, timezone="…")'
            )
        elif moved is None:
            problems.append(
                f"{schedule.cron!r} in {schedule.tz} cannot be written as one expression in {server}; write it in {server}"
            )
        else:
            expression = moved
    no_catchup, at_once = _policy(schedule, problems)
    if problems:
        raise SubmitError(
            "Kubeflow cannot keep this schedule: " + "; ".join(problems), fix="change it, or publish it with on='local'"
        )
    second = _stable(name, schedule.jitter_s)
    # Always six: five would be read as seconds first, `0 3 * * *` as minute 3 of every hour.
    return Recurrence(
        f"{second} {expression}",
        no_catchup,
        at_once,
        _moment(schedule.start, schedule.tz),
        _moment(schedule.end, schedule.tz),
    )


def translate(arguments: Mapping[str, Any], *, same_zone: bool) -> dict[str, Any]:
    """Arguments with due-time templates as the server's macros: `{date}` is `[[ScheduledTime.2006-01-02]]`."""
    from ..._graph.schedule import due_date, is_template

    found, problems = {}, []
    for key, value in arguments.items():
        if not is_template(value):
            found[key] = value
        elif value == due_date and same_zone:
            found[key] = "[[ScheduledTime.2006-01-02]]"
        elif value == due_date:
            problems.append(f"{key}: the server's date is not the date in the schedule's zone")
        else:
            problems.append(f"{key}={value!r}: Kubeflow fills in rml.due_date alone")
    if problems:
        raise SubmitError(
            "Kubeflow cannot fill in " + "; ".join(problems), fix="publish it with on='local', or give fixed values"
        )
    return found


def shifted(expression: str, by: timedelta) -> str | None:
    """The same moments on a clock that is `by` ahead; None when one expression cannot say it.

    Minutes, hours and weekdays are moved one by one; what comes out must again be "these minutes of these hours of these days".
    """
    if not by:
        return expression
    minute, hour, day, month, weekday = expression.split()
    any_date = day in "*?" and month in "*?"
    week = set(range(7)) if weekday in "*?" else _values(weekday, 0, _LAST_DAY)
    moved = {
        _carry(m, h, d, by) for m, h, d in itertools.product(_values(minute, 0, 59), _values(hour, 0, 23), sorted(week))
    }
    minutes, hours, days = ({moment[n] for moment in moved} for n in range(3))
    if len(minutes) * len(hours) * len(days) != len(moved):
        return None
    crosses = any(_carry(m, h, 0, by)[2] for m, h in itertools.product(_values(minute, 0, 59), _values(hour, 0, 23)))
    if not any_date and crosses:
        return None  # the day before the first is in another month
    return " ".join([_text(minutes, 60), _text(hours, 24), day, month, weekday if not crosses else _text(days, 7)])


def _carry(minute: int, hour: int, weekday: int, by: timedelta) -> tuple[int, int, int]:
    total = (hour * 60 + minute) + int(by.total_seconds() // 60)
    days, rest = divmod(total, 24 * 60)
    return rest % 60, rest // 60, (weekday + days) % 7


def _values(field: str, low: int, high: int) -> set[int]:
    """The numbers a field stands for."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span in ("*", "?"):
            first, last = low, high
        else:
            ends = [int(_NAMES.get(end.lower(), end)) for end in span.split("-")]
            first, last = ends[0], ends[-1] if len(ends) > 1 or not step else high
        found.update(range(first, last + 1, int(step or 1)))
    return found


def _text(values: set[int], all_of: int) -> str:
    return "*" if len(values) == all_of else ",".join(map(str, sorted(values)))


def _fixed_difference(zone: str, server: str, now: datetime) -> timedelta | None:
    """How far `zone` is ahead of the server's, if that does not change in the coming two years."""
    a, b = _zone(zone), _zone(server)
    seen = set()
    for day in range(_WATCHED_DAYS):
        moment = now + timedelta(days=day)
        seen.add((moment.astimezone(a).utcoffset() or timedelta()) - (moment.astimezone(b).utcoffset() or timedelta()))
        if len(seen) > 1:
            return None
    return seen.pop()


def _policy(schedule: Schedule, problems: list[str]) -> tuple[bool, int]:
    """Kubeflow's one switch for what was missed, whoever was busy or away, and its bound on runs at once."""
    if schedule.catchup == "none":
        problems.append('catchup="none": Kubeflow always makes up for the latest; write catchup="latest"')
    if schedule.overlap == "replace":
        problems.append('overlap="replace": Kubeflow never stops the run before; write overlap="skip"')
    if schedule.overlap == "queue" and schedule.catchup != "all":
        problems.append(
            'overlap="queue" without catchup="all": Kubeflow keeps all that is due or only the latest; write both'
        )
    if schedule.overlap == "skip" and schedule.catchup == "all":
        problems.append(
            'catchup="all" with overlap="skip": Kubeflow runs what was due meanwhile, too; write overlap="queue"'
        )
    return schedule.catchup != "all", _MOST_AT_ONCE if schedule.overlap == "allow" else 1


def _stable(name: str, jitter: int) -> int:
    """Jitter as far as six fields can say it: a second of the minute, always the same one for a name."""
    if jitter <= 0:
        return 0
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % min(jitter + 1, 60)


def _moment(text: str | None, zone: str) -> str | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=_zone(zone))
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _zone(name: str) -> ZoneInfo | timezone:
    return UTC if name == "UTC" else ZoneInfo(name)
