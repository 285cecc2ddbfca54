"""The page around what was collected: one file, no address in it, scripts only those named by their digest.

The policy in its head is the second wall behind escaping: whatever got past the first could still load nothing, send
nothing and run nothing. See docs/formats/card.md.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

from .text import escaped

__all__ = ["STYLE", "framed", "page", "policy"]

STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#59636e;--line:#d1d9e0;--ground:#fff;--raised:#f6f8fa;--accent:#0969da;
--good:#1a7f37;--bad:#cf222e;--mark:#bf8700}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--ground:#0d1117;--raised:#151b23;
--accent:#4493f8;--good:#3fb950;--bad:#f85149;--mark:#d29922}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.5rem}header h1{font-size:1.5rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
header p,footer p,.note{color:var(--soft);font-size:.87rem;margin:.25rem 0 0}
footer{padding-top:2rem;padding-bottom:2rem}
section{margin-top:1.75rem}
h2{font-size:1.15rem;border-bottom:1px solid var(--line);padding-bottom:.3rem;margin:0 0 .9rem;overflow-wrap:anywhere}
h3,h4,h5,h6{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.6rem 0;overflow-wrap:anywhere}a{color:var(--accent)}
.text{white-space:pre-wrap}
code,pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--raised);padding:.1em .3em;border-radius:4px}
pre{background:var(--raised);border:1px solid var(--line);border-radius:6px;padding:.75rem;overflow:auto;max-height:40rem}
pre code{background:none;padding:0}
blockquote{margin:.6rem 0;padding-left:.9rem;border-left:3px solid var(--line);color:var(--soft)}
hr{border:0;border-top:1px solid var(--line);margin:1.2rem 0}
.wide{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:0 0 .35rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
th,td{max-width:34rem;overflow-wrap:anywhere}
th{font-weight:600;color:var(--soft);white-space:nowrap}
.number{text-align:right}tr.best td{font-weight:600}
.metrics{display:flex;flex-wrap:wrap;gap:.75rem;margin:.8rem 0}
.metrics>div{background:var(--raised);border:1px solid var(--line);border-radius:8px;padding:.55rem .9rem;min-width:8rem}
dl,dt,dd{margin:0}dt{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}
dd{font-size:1.4rem;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
dd small{font-size:.8rem;font-weight:500;color:var(--soft)}.up{color:var(--good)}.down{color:var(--bad)}
figure{margin:.9rem 0}figure>img{max-width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px;padding:.4rem}
figcaption{color:var(--soft);font-size:.87rem;margin-top:.25rem}
.drawing{height:26rem;background:#fff;border:1px solid var(--line);border-radius:6px;overflow:hidden}
.progress{margin:.7rem 0;max-width:34rem}.progress label{display:flex;justify-content:space-between;font-size:.9rem}
progress{width:100%;height:.6rem;accent-color:var(--accent)}
iframe.user{width:100%;border:1px solid var(--line);border-radius:6px;background:#fff}
.failed{border:1px solid var(--bad);border-left-width:4px;border-radius:6px;padding:.6rem .9rem;margin-top:1rem}
.failed pre{border:0;padding:0;margin:.3rem 0 0;background:none;white-space:pre-wrap}
svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .axis{stroke:var(--line)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}.plots svg{width:100%;height:auto}
"""

_PLOTLY = """for (const data of document.querySelectorAll('script[type="application/json"]')) {
  const figure = JSON.parse(data.textContent);
  figure.layout = Object.assign({}, figure.layout, {autosize: true, width: undefined, height: undefined});
  figure.layout.margin = figure.layout.margin || {l: 56, r: 24, b: 48, t: figure.layout.title ? 56 : 24};
  Plotly.newPlot(data.previousElementSibling, figure.data, figure.layout, {displaylogo: false, responsive: true});
}"""


def policy(scripts: Sequence[str] = ()) -> str:
    """The page's content security policy; scripts are allowed by the sha256 of their text, one by one."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii") for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def page(title: str, body: str, *, about: str = "", footer: str = "", plotly: str = "") -> str:
    """A whole document. `body` is HTML that was escaped by who made it, the rest is text; `plotly` is that library."""
    scripts = [plotly.replace("\r\n", "\n").replace("\r", "\n"), _PLOTLY] if plotly else []
    said = f"<p>{escaped(about)}</p>" if about else ""
    foot = f"<footer><p>{escaped(footer)}</p></footer>" if footer else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{escaped(title, 200)}</title><style>{STYLE}</style></head>\n"
        f"<body><header><h1>{escaped(title, 200)}</h1>{said}</header>\n<main>{body}</main>\n{foot}"
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def framed(document: str, *, height: str = "32em") -> str:
    """A document inside another page (a notebook): in a frame of its own origin, that reaches nothing around it."""
    # Escaped only: what is cleaned would no longer have the digest by which the policy knows a script.
    # Scripts are let in only where the page has any, and its policy says which.
    sandbox = "allow-scripts" if "</script></body>" in document else ""
    return (
        f'<iframe sandbox="{sandbox}" srcdoc="{html.escape(document)}" title="card" '
        f'style="width:100%;height:{height};border:0"></iframe>'
    )
