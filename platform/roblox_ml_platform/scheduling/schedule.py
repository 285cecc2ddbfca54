"""A schedule as the control plane holds it: the JSON of docs/formats/schedule.md, checked, and its due times.

Clock changes follow Debian's cron: a fixed time that falls into the gap runs once, right after it; one that comes twice runs at
its first coming; expressions whose minute or hour begins with `*` follow the wall clock through both. cronsim reads the
expressions; the search is ours, because cronsim's loses hours where clocks change by half an hour, and costs more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from roblox_ml_core.errors import Invalid

__all__ = ["Schedule", "due_times", "from_json", "jitter", "moment", "text_of", "zone"]

_YEARS = 50  # a 29 February that is a certain day of the week comes within them, if at all


@dataclass(frozen=True, slots=True)
class Schedule:
    """See docs/formats/schedule.md. Made by `from_json`, which checks every field."""

    cron: str
    tz: str = "UTC"
    jitter_s: int = 0
    catchup: Literal["none", "latest", "all"] = "latest"
    overlap: Literal["skip", "queue", "allow", "replace"] = "skip"
    late_after_s: int = 900
    start: str | None = None
    end: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(value: Mapping[str, Any]) -> Schedule:
    """The schedule, or `Invalid` with everything that is wrong with it."""
    schedule, wrong = Schedule(**value), []
    try:
        here = zone(schedule.tz)
    except Invalid as error:
        wrong.append(error.message)
        here = UTC
    try:
        next(_days(_fields(schedule.cron), date(2024, 1, 1)))
    except StopIteration:
        wrong.append(f"{schedule.cron!r} never comes")
    except Invalid as error:
        wrong.append(error.message)
    bounds = []
    for name in ("start", "end"):
        text = getattr(schedule, name)
        try:
            bounds.append(None if text is None else moment(text, here))
        except ValueError:
            wrong.append(f"{name} {text!r} is no ISO date or time")
            bounds.append(None)
    if bounds[0] is not None and bounds[1] is not None and bounds[0] >= bounds[1]:
        wrong.append(f"start {schedule.start} is not before end {schedule.end}")
    if wrong:
        raise Invalid(
            f"schedule: {'; '.join(wrong)}", hint="five fields and a zone, such as '0 3 * * *' in Europe/Berlin"
        )
    return schedule


def due_times(schedule: Schedule, after: float, until: float | None = None) -> Iterator[float]:
    """The due times later than `after` (and not later than `until`), in order, each once. Seconds since the epoch."""
    here, fields = zone(schedule.tz), _fields(schedule.cron)
    first = None if schedule.start is None else moment(schedule.start, here)
    last = None if schedule.end is None else moment(schedule.end, here)
    if first is not None and first > after:
        after = first - 1.0  # `start` itself is inside
    bound = min(math.inf if last is None else last - 1e-6, math.inf if until is None else until)
    previous = after
    # The day before as well: clocks that skip a whole day move its times into the next.
    for day in _days(fields, datetime.fromtimestamp(after, here).date() - timedelta(days=1)):
        for at in _times(fields, day, here):
            if at > bound:
                return
            if at > previous:
                previous = at
                yield at


def jitter(schedule: Schedule, key: str, due: float) -> float:
    """The delay of this due time: fixed, so that a scheduler that starts again does not throw the dice again."""
    if not schedule.jitter_s:
        return 0.0
    draw = int.from_bytes(hashlib.sha256(f"{key}/{due:.0f}".encode()).digest()[:8])
    return float(draw % (schedule.jitter_s + 1))


def _days(fields: _Fields, day: date) -> Iterator[date]:
    """The days, from this one on, that the expression means."""
    final = day.year + _YEARS
    while day.year < final:
        if day.month not in fields.months:
            day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            continue
        if fields.is_day(day):
            yield day
        day += timedelta(days=1)


def _times(fields: _Fields, day: date, here: tzinfo) -> Iterable[float]:
    """The times of one local day, in order."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=here)
    following = midnight + timedelta(days=1)
    if midnight.utcoffset() == following.utcoffset():
        begin = midnight.timestamp()
        return (begin + hour * 3600 + minute * 60 for hour in fields.hours for minute in fields.minutes)
    walls = (midnight.replace(hour=hour, minute=minute) for hour in fields.hours for minute in fields.minutes)
    return sorted({at for wall in walls for at in _instants(wall, fields.fixed)})


def _instants(wall: datetime, fixed: bool) -> list[float]:
    """When the wall clock shows this, on a day on which clocks change: never, once or twice."""
    first, second = wall.timestamp(), wall.replace(fold=1).timestamp()
    if first < second:
        return [first] if fixed else [first, second]
    if first == second:
        return [first]
    if not fixed:
        return []
    # Inside the gap: the first minute there is again.
    while wall != wall.astimezone(UTC).astimezone(wall.tzinfo):
        wall += timedelta(minutes=1)
    return [wall.timestamp()]


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """The time zone of this name."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise Invalid(f"{name!r} is no time zone", hint="write one such as Europe/Berlin") from error


def moment(text: str, here: tzinfo) -> float:
    """An ISO date or time as seconds; without an offset of its own it is read in `here`."""
    value = datetime.fromisoformat(text)
    return (value if value.tzinfo else value.replace(tzinfo=here)).timestamp()


def text_of(due: float, tz: str) -> str:
    """A due time as people read it: ISO, in the schedule's zone, with its offset."""
    return datetime.fromtimestamp(due, zone(tz)).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class _Fields:
    """An expression, read. `fixed`: neither minute nor hour begins with `*`."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    is_day: Callable[[date], bool]
    fixed: bool


@lru_cache(maxsize=65_536)
def _fields(text: str) -> _Fields:
    fields = text.split()
    if len(fields) != 5:
        raise Invalid(f"{text!r} has {len(fields)} fields, a schedule has five")
    # `?` is Quartz's word for "any"; day and month names may come in either case.
    plain = " ".join("*" if field == "?" else field for field in fields)
    try:
        read = CronSim(plain, datetime(2024, 1, 1))
    except CronSimError as error:
        raise Invalid(f"{text!r} is no cron expression that ever comes: {error}") from error
    fixed = not any(field.startswith("*") for field in plain.split()[:2])
    months = frozenset(read.months)
    return _Fields(tuple(sorted(read.minutes)), tuple(sorted(read.hours)), months, read.match_day, fixed)
