"""The search of the registry: a small text language, parsed here and turned into one SQL condition.

``tag.team=safety metric.f1>0.7 sentiment``: terms separated by spaces, all of which must hold. A bare word is a part of the
model's name; `tag.KEY`, `param.KEY` and `metric.KEY` alone ask that the key is there; quotes keep spaces together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from roblox_ml_core.errors import Invalid
from sqlalchemy import ColumnElement, and_, exists, literal, not_, select

from .tables import aliases, facts, versions

__all__ = ["Term", "condition", "parse"]

_TOKEN = re.compile(r'\s*((?:[^\s"]|"[^"]*")+)')
_TERM = re.compile(
    r"(?P<field>(?:tag|param|metric)\.[^<>=!\s]+|alias|name)\s*(?P<op><=|>=|!=|=|<|>)?(?P<value>.*)\Z", re.S
)
_HELP = 'for example: tag.team=safety metric.f1>0.7 alias=champion sentiment (operators: = != < <= > >=; "quotes" for spaces)'


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: kind is name, alias, tag, param or metric; `op` is empty where only presence is asked."""

    kind: str
    key: str
    op: str
    value: str


def parse(query: str) -> tuple[Term, ...]:
    """The terms of a query; `Invalid` says which one is wrong and how it is written."""
    if query.count('"') % 2:
        raise Invalid(f"a quote in {query[:200]!r} is not closed", hint=_HELP)
    return tuple(_term(match.group(1)) for match in _TOKEN.finditer(query))


def _term(text: str) -> Term:
    match = _TERM.match(text)
    if match is None or (match["field"] in ("alias", "name") and not match["op"]):
        if re.search(r"[<>=]", text):
            raise Invalid(f"{text[:200]!r}: fields are name, alias, tag.KEY, param.KEY and metric.KEY", hint=_HELP)
        return Term("name", "", "~", text.replace('"', ""))
    kind, _, key = match["field"].partition(".")
    op, value = match["op"] or "", match["value"].replace('"', "")
    if op and not value:
        raise Invalid(f"{text[:200]!r} compares with nothing", hint=_HELP)
    if kind == "metric" and op:
        _number(text, value)
    elif op in ("<", "<=", ">", ">="):
        raise Invalid(f"{text[:200]!r}: only metrics are ordered; {kind} takes = or !=", hint=_HELP)
    return Term(kind, key, op, value)


def condition(terms: tuple[Term, ...]) -> ColumnElement[bool]:
    """The terms as a condition on the `versions` table."""
    return and_(literal(True), *(_sql(term) for term in terms))


def _sql(term: Term) -> ColumnElement[bool]:
    if term.kind == "name":
        column = versions.c.model
        if term.op == "~":
            return column.contains(term.value, autoescape=True)
        return column == term.value if term.op == "=" else column != term.value
    if term.kind == "alias":
        here = and_(aliases.c.model == versions.c.model, aliases.c.version == versions.c.version)
        found = exists(select(literal(1)).where(here, aliases.c.alias == term.value).correlate(versions))
        return found if term.op == "=" else not_(found)
    mine = and_(
        facts.c.model == versions.c.model,
        facts.c.version == versions.c.version,
        facts.c.kind == term.kind,
        facts.c.key == term.key,
    )
    if not term.op:
        return exists(select(literal(1)).where(mine).correlate(versions))
    if term.kind == "metric":
        bound = _number(term.key, term.value)
        column = facts.c.number
        compared = {
            "=": column == bound, "!=": column != bound, "<": column < bound,
            "<=": column <= bound, ">": column > bound, ">=": column >= bound,
        }[term.op]  # fmt: skip
        return exists(select(literal(1)).where(mine, compared).correlate(versions))
    equal = exists(select(literal(1)).where(mine, facts.c.text == term.value).correlate(versions))
    return equal if term.op == "=" else not_(equal)


def _number(text: str, value: str) -> float:
    try:
        bound = float(value)
    except ValueError:
        bound = float("nan")
    if bound != bound or bound in (float("inf"), float("-inf")):
        raise Invalid(f"{text[:200]!r}: {value[:80]!r} is not a number", hint=_HELP)
    return bound
