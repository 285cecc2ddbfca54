"""An explanation as a piece of HTML for notebooks: everything escaped, nothing loaded from anywhere, light and dark.

Colours come from the page around it (Jupyter's own variables where there are any, else the text's colour thinned), so that
it can be read on a white and on a black page without asking which one it is on.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ._explain_text import headline
from ._preview import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._explain import Explanation
    from .errors import Finding

__all__ = ["page"]

_STYLE = """
.rml-explain{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;color:inherit;
max-width:100%}
.rml-explain table{border-collapse:collapse;font:inherit;margin:4px 0 8px;width:auto;color:inherit;background:none}
.rml-explain td,.rml-explain th{padding:0 12px 0 0;border:0;text-align:left;vertical-align:top;color:inherit;
background:none;white-space:nowrap}
.rml-explain td.why{white-space:normal;min-width:14em}
.rml-explain code,.rml-explain pre{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px;
background:none;color:inherit;padding:0;margin:0}
.rml-explain td code{white-space:pre}
.rml-explain .soft{opacity:.68}
.rml-explain .finding td{white-space:normal}
.rml-explain .finding td:last-child{border-left:3px solid #d1443c;padding-left:8px}
.rml-explain .finding b{color:#d1443c}
.rml-explain .drift{border-left:3px solid #c98a00;padding-left:8px;margin:4px 0}
.rml-explain summary{cursor:pointer;font-weight:600}
.rml-explain .scroll{overflow-x:auto}
"""


def page(told: Explanation) -> str:
    """The fragment a notebook shows."""
    parts = [f"<b>{escape(headline(told))}</b>", *_drift(told), _code(told)]
    shown = [finding for line in told.lines for finding in line.findings]
    elsewhere = [finding for finding in told.findings if finding not in shown]
    if elsewhere:
        parts.append(f"<table>{''.join(_finding(f, place=True) for f in elsewhere)}</table>")
    if told.files:
        rows = ((f"<code>{escape(file.path)}</code>", human_bytes(file.size)) for file in told.files)
        parts.append(_section(f"files that go along ({len(told.files)})", _table(rows)))
    if told.packages or told.lock:
        parts.append(_section(f"environment ({told.pins} packages)", _environment(told)))
    if told.left_out:
        rows3 = (
            (escape(item.where), f"<code>{escape(item.text)}</code>", f'<span class="soft">{escape(item.why)}</span>')
            for item in told.left_out
        )
        parts.append(_section(f"left out ({len(told.left_out)})", _table(rows3), closed=True))
    return f'<div class="rml-explain"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _code(told: Explanation) -> str:
    rows, last = [], ""
    for line in told.lines:
        why = "" if line.why == last else line.why
        last = line.why
        rows.append(
            f'<tr><td class="soft">{escape(line.where)}</td><td><code>{escape(line.text) or " "}</code></td>'
            f'<td class="why soft">{escape(why)}</td></tr>{"".join(_finding(f) for f in line.findings)}'
        )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>' if rows else ""


def _finding(finding: Finding, *, place: bool = False) -> str:
    """A row under the line it is about, or one that names its place itself."""
    where = f'<td class="soft">{escape(finding.where)}</td>' if place else "<td></td>"
    words = [f"<b>{escape(finding.message)}</b> <span class='soft'>[{escape(finding.code)}]</span>"]
    words += [f"{name}: {escape(text)}" for name, text in (("why", finding.why), ("fix", finding.fix)) if text]
    return f'<tr class="finding">{where}<td colspan="2">{"<br>".join(words)}</td></tr>'


def _environment(told: Explanation) -> str:
    rows = [
        (f"<code>import {escape(package.module)}</code>" if package.module else "asked for",
         escape(f"{package.distribution}=={package.version}" if package.version else package.distribution))
        for package in told.packages
    ]  # fmt: skip
    rows += [(f"system package <code>{escape(name)}</code>", "") for name in told.system]
    if told.lock:
        where = "this interpreter has all of it" if told.in_place else "built once, then kept"
        rows.append((f"lock <code>{told.lock[:12]}</code>", f"{human_bytes(told.lock_size)}; {where}"))
        rows.append((f"bundle <code>{told.bundle[:12]}</code>", human_bytes(told.bundle_size)))
    return _table(rows)


def _drift(told: Explanation) -> Iterator[str]:
    for note in told.drift:
        yield f'<div class="drift">{escape(note)}</div>'


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{body}</table></div>'


def _section(title: str, body: str, *, closed: bool = False) -> str:
    return f"<details{'' if closed else ' open'}><summary>{escape(title)}</summary>{body}</details>"
