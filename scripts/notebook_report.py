"""An executed notebook as one HTML page: text, code, tables, plots and what the cells printed.

For reading, not for editing: no scripts, no network, everything inline.
"""

from __future__ import annotations

import html
import re
from typing import Any

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

__all__ = ["render"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
pre { font: 13px/1.4 ui-monospace, monospace; overflow-x: auto; }
.code { background: #f6f6f4; border-left: 3px solid #4c72b0; padding: .1rem .8rem; }
.error { background: #fdecec; padding: .5rem .8rem; }
table { border-collapse: collapse; font-size: 14px; } td, th { border: 1px solid #ddd; padding: .2rem .5rem; text-align: left; }
img { max-width: 100%; }
"""


def render(notebook: Any, title: str) -> str:
    """The page's HTML."""
    formatter = HtmlFormatter(nowrap=True)
    body = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            body.append(MarkdownIt("commonmark").enable("table").render(cell.source))
            continue
        body.append(f'<pre class="code">{highlight(cell.source, PythonLexer(), formatter)}</pre>')
        # What libraries mutter on stderr (a missing widget, a deprecation) is kept in the notebook, not in the report.
        body += [_output(output) for output in cell.outputs if output.get("name") != "stderr"]
    style = _STYLE + formatter.get_style_defs(".code")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style><body>{''.join(body)}</body></html>\n"
    )


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return f"<pre>{html.escape(_plain(output.text))}</pre>"
    if output.output_type == "error":
        return f'<pre class="error">{html.escape(_plain(chr(10).join(output.traceback)))}</pre>'
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="plot" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>"
    return f"<pre>{html.escape(_plain(''.join(data.get('text/plain', ''))))}</pre>"


def _plain(text: str) -> str:
    """Without colours, and of a line that was drawn over and over only what was left standing."""
    lines = _ANSI.sub("", text).split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
