"""Cards: whatever a user puts in stays text, pages are whole and bounded, and a step's card is written as it goes."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._cards import Card, collect
from roblox_ml._cards.figures import NotAFigure
from roblox_ml._cards.markdown import to_html as markdown
from roblox_ml._cards.page import page, policy
from roblox_ml._cards.tables import rows_of

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ATTACKS = [
    "<script>alert(1)</script>", "</style><script>alert(1)</script>", "\" onmouseover=\"alert(1)", "' onfocus='alert(1)",
    "<img src=x onerror=alert(1)>", "javascript:alert(1)", "</title><svg/onload=alert(1)>", "<!--", "]]>", "&lt;b&gt;", "\x00<b>",
    "</textarea></table></iframe><b>", "<iframe srcdoc='<script>1</script>'>", "{{7*7}}", "\ud800", "\u202eabc", "<base href=//evil>",
]  # fmt: skip
hostile = st.one_of(
    st.sampled_from(ATTACKS),
    st.text(max_size=60),
    st.tuples(st.sampled_from(ATTACKS), st.text(max_size=20)).map("".join),
)
# Elements and attributes that our own code makes; anything else came from outside.
ELEMENTS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "section",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "br",
        "hr",
        "strong",
        "em",
        "del",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
        "a",
        "div",
        "span",
        "dl",
        "dt",
        "dd",
        "small",
        "label",
        "progress",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "img",
        "iframe",
    ]
)
ATTRIBUTES = frozenset(
    [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "id",
        "aria-label",
        "aria-labelledby",
        "role",
        "tabindex",
        "for",
        "value",
        "max",
        "scope",
        "href",
        "target",
        "rel",
        "src",
        "alt",
        "sandbox",
        "title",
        "srcdoc",
        "style",
    ]
)


class Reader(html.parser.HTMLParser):
    """Elements and attributes as a browser's parser sees them, roughly."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def safe(document: str) -> Reader:
    reader = Reader(document)
    for tag, attributes in reader.found:
        assert tag in ELEMENTS, tag
        assert set(attributes) <= set(ATTRIBUTES), (tag, attributes)
        assert re.match(r"(https?://|mailto:)", attributes.get("href") or "https://")
        assert (attributes.get("src") or "data:").startswith("data:")
    document.encode("utf-8")
    return reader


@settings(max_examples=150, deadline=None)
@given(title=hostile, texts=st.lists(hostile, min_size=6, max_size=6), number=st.floats() | st.integers() | hostile)
def test_nothing_that_is_put_in_becomes_markup(title: str, texts: list[str], number: Any) -> None:
    one, two, three, four, five, six = texts
    card = Card(title).text(one, two).markdown(three).metric(four, number, unit=five).progress(six, 1, 3)
    card.table([{one: two, three: four}], five).table([[one, two], [three]], six, columns=[four]).table(
        {one: [two]}, three
    )
    card.image(PNG, four, alt=five).html(six)
    reader = safe(card.to_html())
    # The same number of elements, whatever the texts were (Markdown and tables aside, which make some of their own).
    assert [tag for tag, _ in reader.found].count("section") == 1
    assert [tag for tag, _ in reader.found].count("iframe") == 1 and "script" not in dict(reader.found)
    frame = next(attributes for tag, attributes in reader.found if tag == "iframe")
    assert frame["sandbox"] == ""


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        hostile
        | st.sampled_from(["# ", "- ", "> ", "```", "|a|b|\n|-|-|\n", "**", "_", "`", "[a](", ")", "1. ", "\n"]),
        max_size=12,
    ).map("".join)
)
def test_markdown_is_safe_and_comes_to_an_end(text: str) -> None:
    safe(markdown(text))


def test_markdown_knows_what_reports_use() -> None:
    first = "# One\n\na **b** _c_ `<d>` ~~e~~\nf\n\n- g\n- h\n\n3. i\n\n> j\n\n---\n"
    made = markdown(first + "\n|k|l|\n|-|-|\n|m|n|\n\n```py\no < p\n```\n[q](https://r.s)")
    for part in (
        "<h3>One</h3>", "<p>a <strong>b</strong> <em>c</em> <code>&lt;d&gt;</code> <del>e</del><br>f</p>", "<ul><li>g</li><li>h</li></ul>",
        "<ol><li>i</li></ol>", "<blockquote><p>j</p></blockquote>", "<hr>",
        '<th scope="col">k</th>', "<td>m</td>", "<pre><code>o &lt; p</code></pre>",
        '<a href="https://r.s" target="_blank" rel="noopener noreferrer">q</a>',
    ):  # fmt: skip
        assert part in made, part
    assert "<a" not in markdown("[x](javascript:alert(1)) [y](data:text/html,z) [z](//evil)")


def test_tables_take_what_data_scientists_have() -> None:
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"a": np.arange(3), "b": ["x", None, "z"]})
    assert rows_of(frame, None, 2).rows == ((0, "x"), (1, None)) and rows_of(frame, None, 2).total == 3
    assert rows_of(frame.set_index("b"), None, 5).columns == ("b", "a")
    assert rows_of(frame["a"], None, 5).columns == ("a",)
    assert rows_of(frame.groupby("b").agg({"a": ["min", "max"]}), None, 5).columns == ("b", "a / min", "a / max")
    assert rows_of([{"a": 1}, {"b": 2}], None, 5).rows == ((1, ""), ("", 2))
    assert rows_of({"a": [1, 2], "b": [3]}, None, 5).rows == ((1, 3), (2, ""))
    assert rows_of({"a": 1, "b": 2}, None, 5).rows == (("a", 1), ("b", 2))
    assert rows_of(np.eye(2), None, 5).columns == ("1", "2")
    assert rows_of((n for n in range(9)), ["n"], 3).rows == ((0,), (1,), (2,))
    assert "7 more rows of 10" in Card("x").table(range(10), limit=3).to_html()
    assert rows_of([], None, 5).rows == () and "no rows" in Card("x").table([]).to_html()
    with pytest.raises(TypeError, match="pass a data frame"):
        Card("x").table("text")


def test_figures_become_pictures() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    axes[0].plot([1, 2])
    card = (
        Card("x")
        .plot(figure, "one")
        .plot(axes[0])
        .plot(axes)
        .plot("<svg xmlns='http://www.w3.org/2000/svg'/>")
        .image(PNG)
    )
    plt.close(figure)
    assert card.to_html().count("data:image/svg+xml;base64,") == 4 and "data:image/png;base64," in card.to_html()
    for wrong in (3, "no picture", [1, 2]):
        with pytest.raises(NotAFigure):
            card.plot(wrong)
    with pytest.raises(NotAFigure, match="no such file"):
        card.image("missing.png")
    with pytest.raises(NotAFigure):
        card.image(b"%PDF")


def test_scripts_are_those_that_the_policy_names() -> None:
    import plotly.graph_objects as go

    document = Card("x").plot(go.Figure(go.Scatter(x=["</script><b>"], y=[1]))).to_html()
    scripts = re.findall(r"<script>(.*?)</script>", document, re.S)
    allowed = re.findall(r"'sha256-([^']+)'", document)
    assert [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts] == allowed and len(
        allowed
    ) == 2
    # Two scripts and the figure's data end where we end them, and nowhere else.
    assert document.count("</script>") == 3
    assert "script-src 'none'" in policy() and "default-src 'none'" in policy()


def test_what_is_said_again_takes_its_place_and_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("x")
    for epoch in range(50):
        card.metric("loss", 1 / (epoch + 1)).progress("epochs", epoch + 1, 50)
    document = card.to_html()
    assert (
        document.count("<dt>") == 1
        and document.count("<progress") == 1
        and "50.0" not in document
        and "50 of 50" in document
    )
    monkeypatch.setattr(collect, "LIMIT", 10_000)
    big = Card("big").text("kept")
    for _ in range(20):
        big.table([{"a": "x" * 300} for _ in range(20)])
    assert big.size < 12_000 and "left out" in big.to_html() and "kept" in big.to_html()


def test_accessible_enough() -> None:
    document = Card("x").table([{"a": 1}], "numbers").image(PNG, alt="a dot").progress("p", 1, 2).to_html()
    assert '<html lang="en">' in document and "<caption>numbers</caption>" in document and 'alt="a dot"' in document
    assert re.search(r'<label for="([^"]+)">.*<progress id="\1"', document)
    assert page("t", "").count("<h1>") == 1


def test_outside_a_step_a_card_is_an_object_to_look_at(tmp_path: Path) -> None:
    first, second = rml.card("same"), rml.card("same")
    assert first is not second
    shown = first.metric("f1", 0.5)._repr_html_()
    assert (
        shown.startswith('<iframe sandbox="" srcdoc="')
        and first.save(tmp_path / "c.html").read_text() == first.to_html()
    )


def test_in_a_step_it_is_written_as_it_goes_also_when_the_process_dies(tmp_path: Path) -> None:
    code = "import os, roblox_ml as rml; c = rml.card('A').text('before the end'); assert rml.card('A') is c; os.kill(os.getpid(), 9)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"RML_TASK_FOLDER": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode == -9
    assert "before the end" in (tmp_path / "card.html").read_text()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["card.html"]


def test_a_failed_step_s_card_says_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_STEP", collect._Step())
    monkeypatch.setenv("RML_TASK_FOLDER", str(tmp_path))
    rml.card("One").text("first")
    rml.card("Two <b>").text("second")
    collect.finish(ValueError("<i>wrong</i>"))
    document = (tmp_path / "card.html").read_text()
    safe(document)
    assert "ValueError: &lt;i&gt;wrong" in document and "<h2" in document and "Two &lt;b&gt;" in document


def test_a_text_that_cannot_be_made_does_not_end_the_step() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "its text raised RuntimeError" in Card("x").text(Broken()).table([[Broken()]]).to_html()
