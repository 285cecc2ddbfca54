"""The small words of reports: shares, spans, tables. Texts are escaped here, numbers shown with as many digits as they deserve."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._cards.page import framed, page
from .._cards.text import escaped, number

__all__ = ["Document", "boxed", "day", "day_of", "milliseconds", "quantity", "section", "share", "span", "table"]


class Document:
    """A report's JSON, and its page."""

    title = ""

    def __init__(self, document: Mapping[str, Any]) -> None:
        #: The whole report as the control plane made it.
        self.document = dict(document)

    def html(self) -> str:
        """A page of its own: no script, nothing to load."""
        return page(self.title, self._body(), about=self._about())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; the path written."""
        target = Path(path)
        target.write_text(self.html(), encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        return framed(self.html(), height="48em")

    def _body(self) -> str:
        raise NotImplementedError

    def _about(self) -> str:
        raise NotImplementedError

    def lines(self) -> list[str]:
        """The report in sentences."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title}>"


def section(title: str, body: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


def boxed(sentences: Iterable[str], *, alarm: bool) -> str:
    """What to know before the rest; in red where something is wrong."""
    said = "".join(f"<p>{escaped(one)}</p>" for one in sentences)
    if not said:
        return ""
    return f'<div class="failed">{said}</div>' if alarm else f"<blockquote>{said}</blockquote>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def span(interval: Mapping[str, Any], *, percent: bool) -> str:
    """An estimate and what it may be."""

    def shown(value: Any) -> str:
        return "?" if value is None else signed_share(value) if percent else f"{value:+.4g}"

    if interval["low"] is None:
        return f"{shown(interval['estimate'])} (too early for an interval)"
    return f"{shown(interval['estimate'])} ({shown(interval['low'])} to {shown(interval['high'])})"


def signed_share(value: float) -> str:
    """A relative difference: three digits, and whole percents where it is large (never `+1.38e+03 %`)."""
    scaled = 100 * value
    return f"{scaled:+,.0f} %" if abs(scaled) >= 999.5 else f"{scaled:+.3g} %"


def quantity(value: Any, *, percent: bool = False) -> str:
    return "–" if value is None else share(value) if percent else number(value)


def share(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.4g} %"


def milliseconds(micros: float) -> str:
    return f"{micros / 1000:.3g} ms"


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def day_of(text: str) -> str:
    """A time of the control plane's, as people read it."""
    when = datetime.fromisoformat(text)
    return day((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
