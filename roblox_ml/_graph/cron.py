"""Cron expressions, as people write them (five fields) and as Kubeflow Pipelines reads them (seconds first).

KFP accepts five fields but reads them as seconds first: "0 3 * * *" would fire at minute 3 of every hour instead of at
three o'clock. So schedules are checked here and always sent with six fields.
"""

from __future__ import annotations

import re

__all__ = ["problem", "six_fields"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_PART = re.compile(r"^(\*|\?|\w+(?:-\w+)?)(?:/(\d+))?$")


def problem(expression: object) -> str | None:
    """What is wrong with a five-field cron expression, or None."""
    if not isinstance(expression, str):
        return f"{expression!r} is no text"
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        return f"{expression!r} has {len(fields)} field{'' if len(fields) == 1 else 's'}, a schedule has five"
    for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            wrong = _part_problem(part, low, high, names)
            if wrong:
                return f"{name} {text!r}: {wrong}"
    return _never(fields)


def _part_problem(part: str, low: int, high: int, names: tuple[str, ...]) -> str | None:
    match = _PART.match(part)
    if not match:
        return f"{part!r} is not a number, range, list or step"
    span, step = match.groups()
    if step is not None and int(step) < 1:
        return f"a step of {step} never advances"
    if span in ("*", "?"):
        return None
    numbers = []
    for end in span.split("-"):
        if end.lower() in names:
            numbers.append(names.index(end.lower()) + low)
        elif end.isascii() and end.isdigit():
            numbers.append(int(end))
        else:
            return f"{end!r} is not a number from {low} to {high}"
    if any(not low <= n <= high for n in numbers):
        return f"{span} is outside {low}–{high}"
    if numbers != sorted(numbers):
        return f"{span} runs backwards"
    if step is not None and len(numbers) == 2 and numbers[0] == numbers[1]:
        return f"{part} is one number (and read differently by different programs): write {numbers[0]}"
    return None


def _never(fields: list[str]) -> str | None:
    """A day no month of the expression has. (With a day of week as well, cron takes either, so it does fire.)"""
    _, _, days, months, weekdays = fields
    if weekdays not in ("*", "?"):
        return None
    first = min(_numbers(days, 1, 31, ()))
    longest = max(31 - (m in (4, 6, 9, 11)) - 2 * (m == 2) for m in _numbers(months, 1, 12, _MONTHS))
    return f"day {first} does not exist in month {months}: it would never run" if first > longest else None


def _numbers(text: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    """The numbers a sound field stands for."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        ends = [names.index(e.lower()) + low if e.lower() in names else e for e in span.split("-")]
        first, last = (low, high) if span in ("*", "?") else (int(ends[0]), int(ends[-1]))
        # "5/10" is "from 5 on, every 10".
        found.update(range(first, (high if step and len(ends) == 1 else last) + 1, int(step or 1)))
    return found


def six_fields(expression: str) -> str:
    """The schedule as KFP must get it: second 0, then the five fields."""
    return f"0 {' '.join(expression.split())}"
