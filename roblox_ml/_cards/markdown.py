"""Markdown to HTML, the part of it that reports use: headings, emphasis, code, lists, quotes, rules, tables, links.

Everything is escaped first and markup is made from the escaped text, so no input can add an element of its own; raw HTML
in Markdown is shown as text. A library would do more, and is not there in an environment with nothing installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .text import clean, escaped

__all__ = ["to_html"]

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"\s{0,3}(?:([-*+])|(\d{1,9})[.)])\s+(.*)$")
_RULE = re.compile(r"\s{0,3}([-*_])(?:\s*\1){2,}\s*$")
_FENCE = re.compile(r"\s{0,3}(```+|~~~+)\s*([\w.+-]*)\s*$")
_TABLE_LINE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
# One pass over the line, so that what one kind of markup made is never read as another's.
_INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|\[(?P<label>[^\]\n]+)\]\((?P<url>[^)\s]+)\)"
    r"|\*\*(?P<bold>[^*\n]+)\*\*"
    r"|(?<![\w*])\*(?P<italic>[^*\s][^*\n]*)\*"
    r"|(?<!\w)_(?P<under>[^_\s][^_\n]*)_(?!\w)"
    r"|~~(?P<struck>[^~\n]+)~~"
)
# Nothing else may be a link: a `javascript:` address runs what it says.
_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\s\"'<>]+$", re.IGNORECASE)


def to_html(text: str) -> str:
    """The text as HTML elements, none of them the input's own."""
    return "".join(_blocks(clean(text).split("\n")))


def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    paragraph: list[str] = []

    def flushed() -> Iterator[str]:
        if paragraph:
            yield f"<p>{'<br>'.join(_inline(line.strip()) for line in paragraph)}</p>"
            paragraph.clear()

    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            yield from flushed()
            code, at = _fenced(lines, at, fence[1][0] * 3)
            yield code
            continue
        if not line.strip():
            yield from flushed()
        elif heading := _HEADING.match(line):
            yield from flushed()
            # The page has the first two levels: its own title and the card's.
            level = min(6, len(heading[1]) + 2)
            yield f"<h{level}>{_inline(heading[2])}</h{level}>"
        elif _RULE.match(line):
            yield from flushed()
            yield "<hr>"
        elif line.lstrip().startswith(">"):
            yield from flushed()
            quoted, at = _while(lines, at, lambda one: one.lstrip().startswith(">"))
            inner = [one.lstrip()[1:].removeprefix(" ") for one in quoted]
            # Quotes in quotes are shown flat: depth is the input's to choose, and a stack is not endless.
            yield f"<blockquote><p>{'<br>'.join(_inline(one) for one in inner)}</p></blockquote>"
            continue
        elif _ITEM.match(line):
            yield from flushed()
            items, at = _while(lines, at, lambda one: _ITEM.match(one) is not None)
            yield _list(items)
            continue
        elif "|" in line and at + 1 < len(lines) and "-" in lines[at + 1] and _TABLE_LINE.match(lines[at + 1]):
            yield from flushed()
            rows, end = _while(lines, at + 2, lambda one: "|" in one)
            yield _table(line, rows)
            at = end
            continue
        else:
            paragraph.append(line)
        at += 1
    yield from flushed()


def _fenced(lines: list[str], start: int, fence: str) -> tuple[str, int]:
    at = start + 1
    while at < len(lines) and not lines[at].lstrip().startswith(fence):
        at += 1
    code = "\n".join(lines[start + 1 : at])
    return f"<pre><code>{escaped(code)}</code></pre>", at + 1


def _while(lines: list[str], start: int, belongs: object) -> tuple[list[str], int]:
    at = start
    while at < len(lines) and callable(belongs) and belongs(lines[at]):
        at += 1
    return lines[start:at], at


def _list(lines: list[str]) -> str:
    found = [match for line in lines if (match := _ITEM.match(line))]
    tag = "ul" if found[0][1] else "ol"
    return f"<{tag}>{''.join(f'<li>{_inline(match[3])}</li>' for match in found)}</{tag}>"


def _table(head: str, rows: list[str]) -> str:
    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip().strip("|").split("|")]

    header = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in cells(head))
    body = "".join(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in cells(row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _inline(text: str) -> str:
    out, at = [], 0
    for match in _INLINE.finditer(text):
        out.append(escaped(text[at : match.start()]))
        out.append(_marked(match))
        at = match.end()
    out.append(escaped(text[at:]))
    return "".join(out)


def _marked(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "url":
        label, url = match["label"], match["url"]
        if not _ADDRESS.match(url):
            return escaped(match[0])
        return f'<a href="{escaped(url)}" target="_blank" rel="noopener noreferrer">{escaped(label)}</a>'
    tag = {"code": "code", "bold": "strong", "italic": "em", "under": "em", "struck": "del"}[str(kind)]
    return f"<{tag}>{escaped(match[str(kind)])}</{tag}>"
