"""`rml.card("title")`: what a step wants to show, collected while it runs and written where the run keeps it.

The page is written again while the step goes on (at most once a second), so that a step that fails, is killed or takes
hours shows what it has so far. Outside a step a card is an object to look at: its HTML in a notebook, `.save(path)`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from . import figures, markdown, tables
from .page import framed, page
from .text import clean, escaped, number, shortened, slug

__all__ = ["FILE", "LIMIT", "Card", "card", "finish", "render"]

FILE = "card.html"
LIMIT = 16 * 1024 * 1024
"""Bytes of content a step's page may have; what goes beyond is named instead of shown."""

_TITLE = 200
_TEXT = 200_000
_ROWS = 200
_FOLDER = "RML_TASK_FOLDER"  # set by the executor in a step's process


@dataclass(frozen=True, slots=True)
class _Block:
    """One thing on a card. A block with a key takes the place of an earlier one with the same key."""

    kind: str
    html: str
    key: str = ""


class Card:
    """A titled part of a step's page. Every method adds something and returns the card."""

    def __init__(self, title: str) -> None:
        self.title = shortened(title, _TITLE) or "Card"
        self._blocks: list[_Block] = []
        self._plotly = ""

    def text(self, *lines: Any) -> Card:
        """Plain text, line breaks as they are."""
        return self._add(_Block("text", f'<p class="text">{escaped(chr(10).join(map(clean, lines)), _TEXT)}</p>'))

    def markdown(self, text: str) -> Card:
        """Markdown: headings, emphasis, code, lists, quotes, tables, links. HTML in it is shown as text."""
        return self._add(_Block("markdown", markdown.to_html(shortened(text, _TEXT))))

    def metric(self, name: str, value: Any, *, unit: str = "", before: float | None = None) -> Card:
        """A number to be seen first. `before` shows the change; the same name again replaces the value."""
        change = ""
        if before is not None and isinstance(value, int | float):
            delta = value - before
            sign, way = ("▲", "up") if delta > 0 else ("▼", "down") if delta < 0 else ("=", "")
            change = f' <small class="{way}">{sign} {escaped(number(abs(delta)))}</small>'
        of = f" <small>{escaped(unit, 20)}</small>" if unit else ""
        shown = f"<div><dt>{escaped(name, 80)}</dt><dd>{escaped(number(value))}{of}{change}</dd></div>"
        return self._add(_Block("metric", shown, f"metric {name}"))

    def progress(self, label: str, value: float, total: float = 1.0) -> Card:
        """How far something is; the same label again moves it."""
        share = min(1.0, max(0.0, value / total)) if total and total == total and value == value else 0.0
        id_ = f"progress-{slug(self.title)}-{slug(clean(label))}"
        words = f"{number(value)} of {number(total)}" if total != 1.0 else f"{share:.0%}"
        shown = (
            f'<div class="progress"><label for="{id_}"><span>{escaped(label, 120)}</span><span>{escaped(words)}</span></label>'
            f'<progress id="{id_}" value="{share:.4f}" max="1">{share:.0%}</progress></div>'
        )
        return self._add(_Block("progress", shown, f"progress {label}"))

    def table(self, data: Any, caption: str = "", *, columns: Sequence[Any] | None = None, limit: int = _ROWS) -> Card:
        """A data frame, a list of dicts or rows, or a dict of columns; at most `limit` rows are shown."""
        return self._add(_Block("table", tables.to_html(tables.rows_of(data, columns, limit), clean(caption))))

    def plot(self, figure: Any, caption: str = "", *, alt: str = "") -> Card:
        """A matplotlib figure or axes, a Plotly figure (stays interactive), or SVG text."""
        described = escaped(alt or caption or "plot", 400)
        data = figures.plotly_json(figure)
        if data is None:
            shown = f'<img src="{figures.plot_uri(figure)}" alt="{described}">'
        else:
            self._plotly = self._plotly or _plotly_library()
            shown = (
                f'<div class="drawing" role="img" aria-label="{described}"></div>'
                f'<script type="application/json">{data}</script>'
            )
        return self._add(_Block("plot", f"<figure>{shown}{_caption(caption)}</figure>"))

    def image(self, image: Any, caption: str = "", *, alt: str = "") -> Card:
        """A file, the bytes of a PNG, JPEG, GIF, WebP or SVG, or a Pillow image."""
        shown = f'<img src="{figures.image_uri(image)}" alt="{escaped(alt or caption or "image", 400)}">'
        return self._add(_Block("image", f"<figure>{shown}{_caption(caption)}</figure>"))

    def html(self, markup: str, *, height: int = 320) -> Card:
        """Markup of your own, in a frame without scripts and without network."""
        shown = f'<iframe class="user" sandbox="" title="{escaped(self.title)}" srcdoc="{escaped(markup)}"'
        return self._add(_Block("html", f'{shown} style="height:{min(4000, max(40, int(height)))}px"></iframe>'))

    def save(self, path: str | Path) -> Path:
        """Write the card as a page of its own."""
        target = Path(path)
        _write(target, render([self]))
        return target

    def to_html(self) -> str:
        """The card as a page of its own."""
        return render([self])

    def __repr__(self) -> str:
        return f"<rml.card {self.title!r}, {len(self._blocks)} blocks>"

    def _repr_html_(self) -> str:
        return framed(self.to_html())

    @property
    def size(self) -> int:
        """Characters of HTML, Plotly's library included once."""
        return sum(len(block.html) for block in self._blocks) + len(self._plotly)

    def body(self, single: bool) -> str:
        """The card as a section of a page; metrics that follow one another stand in one row."""
        id_ = f"card-{slug(self.title)}"
        parts = []
        for kind, blocks in groupby(self._blocks, key=lambda block: block.kind):
            joined = "".join(block.html for block in blocks)
            parts.append(f'<dl class="metrics">{joined}</dl>' if kind == "metric" else joined)
        content = "".join(parts) or '<p class="note">nothing was added</p>'
        head = "" if single else f'<h2 id="{id_}">{escaped(self.title)}</h2>'
        label = f'aria-label="{escaped(self.title)}"' if single else f'aria-labelledby="{id_}"'
        return f"<section {label}>{head}{content}</section>"

    def _add(self, block: _Block) -> Card:
        with _STEP.lock:
            taken = _STEP.size() if self in _STEP.cards else self.size
            if taken + len(block.html) > LIMIT:
                what = f"{len(block.html) / 1e6:.1f} MB of {block.kind} left out: a card holds {LIMIT / 1e6:.0f} MB"
                block = _Block("text", f'<p class="note">{escaped(what)}</p>', f"left out {block.kind}")
            for index, known in enumerate(self._blocks if block.key else ()):
                if known.key == block.key:
                    self._blocks[index] = block
                    break
            else:
                self._blocks.append(block)
        if self in _STEP.cards:
            _STEP.changed()
        return self


class _Step:
    """The cards of the step this process runs, and the file they go to."""

    def __init__(self) -> None:
        self.cards: list[Card] = []
        self.lock = threading.RLock()
        self._due = 0.0

    @property
    def folder(self) -> Path | None:
        found = os.environ.get(_FOLDER)
        return Path(found) if found else None

    def named(self, title: str) -> Card:
        with self.lock:
            wanted = Card(title)
            for known in self.cards:
                if known.title == wanted.title:
                    return known
            self.cards.append(wanted)
            return wanted

    def size(self) -> int:
        return sum(card.size for card in self.cards)

    def changed(self) -> None:
        """Write the page unless it was written a moment ago; a page that takes long is written less often."""
        now = time.monotonic()
        if now < self._due:
            return
        self.write()
        self._due = time.monotonic() + max(1.0, 20 * (time.monotonic() - now))

    def write(self, error: str = "") -> None:
        folder = self.folder
        if folder is None or not self.cards:
            return
        with self.lock, contextlib.suppress(OSError):  # a full disk must not end the step: its outputs will say so
            _write(folder / FILE, render(self.cards, error=error))


_STEP = _Step()


def card(title: str = "Card") -> Card:
    """Show something of this step: `rml.card("Training").metric("f1", 0.8).plot(figure).table(frame)`.

    In a step the same title is the same card, and all cards of the step become one page, kept with the run
    (`run.cards["train"]`, `rml runs card RUN STEP`), also when the step fails. Elsewhere it is a new card to look at.
    """
    return _STEP.named(title) if _STEP.folder is not None else Card(title)


def finish(error: BaseException | None) -> None:
    """The step is over: write its page for the last time, with what ended it."""
    _STEP.write(shortened(f"{type(error).__name__}: {error}", 4000) if error is not None else "")


def render(cards: Sequence[Card], *, error: str = "") -> str:
    """The page of these cards. Who made it (run, step) is read from the environment of the step."""
    run, task = os.environ.get("RML_RUN_ID", ""), os.environ.get("RML_TASK", "")
    single = len(cards) == 1
    title = cards[0].title if single or not task else task
    failed = (
        f'<div class="failed" role="alert"><strong>The step failed.</strong> Below is what it had collected.'
        f"<pre>{escaped(error)}</pre></div>"
        if error
        else ""
    )
    body = failed + "".join(one.body(single) for one in cards)
    about = " · ".join(word for word in (task and f"step {task}", run and f"run {run}") if word)
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    library = next((one._plotly for one in cards if one._plotly), "")
    return page(title, body, about=about, footer=f"written {written} by roblox_ml", plotly=library)


def _caption(text: str) -> str:
    return f"<figcaption>{escaped(text, 400)}</figcaption>" if text else ""


def _plotly_library() -> str:
    from importlib import import_module

    return str(import_module("plotly.offline").get_plotlyjs())


def _write(path: Path, document: str) -> None:
    """Whole or not at all: somebody may look while it is written."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(document, encoding="utf-8")
    fresh.replace(path)
