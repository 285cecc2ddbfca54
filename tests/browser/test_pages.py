"""Cards, sweeps and comparisons in a real browser: they show what they should, run nothing else and ask for nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from roblox_ml._cards import Card
from roblox_ml._cards.page import framed
from roblox_ml._compare.comparing import Comparison
from roblox_ml._compare.facts import Facts

CHROMIUM = Path("/usr/bin/chromium")
ATTACK = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'><svg onload=window.pwned=1>"


@dataclass
class Seen:
    """A page and all it said and asked for."""

    page: Any
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no browser at {CHROMIUM}: install the package chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def look(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Seen]]:
    opened = []

    def at(document: str, scheme: str = "light") -> Seen:
        file = tmp_path / f"page-{len(opened)}.html"
        file.write_text(document, "utf-8")
        page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
        opened.append(page)
        seen = Seen(page)
        page.on("console", lambda message: seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        return seen

    yield at
    for page in opened:
        page.close()


def quiet(seen: Seen) -> None:
    """Nothing said, nothing failed, nothing asked of any network."""
    assert seen.errors == [] and seen.console == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


@pytest.fixture
def card() -> Card:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    import pandas as pd
    import plotly.graph_objects as go

    figure, axes = plt.subplots()
    axes.plot([1, 3, 2])
    one = Card("Training")
    one.metric("f1", 0.8132, before=0.79).metric("rows", 12345, unit="rows").progress("epochs", 2, 3)
    one.markdown("# Findings\n\n**bold** and [a link](https://example.org)\n\n- one\n- two")
    one.table(pd.DataFrame({"name": ["a", "b"], "value": [1.5, 2.25]}), "scores").plot(axes, "loss by epoch")
    one.plot(
        go.Figure(go.Scatter(x=[1, 2, 3], y=[2, 1, 3]), layout={"title": {"text": "drawn by Plotly"}}), "interactive"
    )
    one.html("<h1 id='mine'>my own markup</h1>")
    plt.close(figure)
    return one


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_card_shows_everything_and_asks_for_nothing(look: Callable[..., Seen], card: Card, scheme: str) -> None:
    seen = look(card.to_html(), scheme)
    page = seen.page
    assert page.title() == "Training" and page.locator("h1").inner_text() == "Training"
    assert page.locator("dl.metrics > div").count() == 2 and "0.8132" in page.locator("dd").first.inner_text()
    assert page.get_by_label("epochs").get_attribute("value") == "0.6667"
    assert page.locator("table caption").inner_text() == "scores" and page.locator("tbody tr").count() == 2
    # The picture was decoded, Plotly drew, and the frame holds the user's markup.
    assert page.locator("figure > img").evaluate("image => image.naturalWidth") > 100
    page.wait_for_selector(".drawing svg.main-svg")
    assert "drawn by Plotly" in page.locator(".drawing").inner_html()
    assert page.frame_locator("iframe.user").locator("#mine").inner_text() == "my own markup"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    # Nothing is wider than the window: what is wide scrolls in its own box.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    quiet(seen)


def test_what_a_user_writes_stays_text(look: Callable[..., Seen]) -> None:
    card = (
        Card(ATTACK)
        .text(ATTACK)
        .markdown(f"# {ATTACK}\n\n{ATTACK}\n\n[x](javascript:window.pwned=1)\n\n|{ATTACK}|b|\n|-|-|\n|{ATTACK}|b|")
    )
    card.metric(ATTACK, ATTACK, unit="<b>").progress(ATTACK, 1, 2)
    card.table([{ATTACK: ATTACK}], ATTACK)
    seen = look(card.to_html())
    assert seen.page.evaluate("window.pwned") is None
    assert seen.page.locator("img, script, svg, [onerror], [onload], a[href^=javascript]").count() == 0
    quiet(seen)


def test_the_policy_holds_where_escaping_would_not(look: Callable[..., Seen]) -> None:
    """Markup of the user's own, in its frame: no script, no request, no way to the page around it."""
    hostile = (
        "<p id=here>shown</p><script>parent.pwned=1;fetch('http://127.0.0.1:9/x')</script><img src='http://127.0.0.1:9/i.png'>"
        "<link rel=stylesheet href='http://127.0.0.1:9/s.css'><iframe src='http://127.0.0.1:9/f'></iframe>"
        "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/m'>"
        "<style>p{background:url(http://127.0.0.1:9/b)}</style>"
    )
    import plotly.graph_objects as go

    drawn = go.Figure(go.Scatter(x=[1], y=[1]), layout={"title": {"text": "</script><script>window.pwned=1</script>"}})
    seen = look(Card("hostile").html(hostile).plot(drawn).to_html())
    seen.page.wait_for_selector(".drawing svg.main-svg")
    assert seen.page.frame_locator("iframe.user").locator("#here").inner_text() == "shown"
    seen.page.wait_for_timeout(300)
    assert seen.page.evaluate("window.pwned") is None
    reached = [url for url in seen.requests if url.startswith("http")]
    assert reached == [] or all(any(url in said for said in seen.console) for url in reached), reached


def test_a_card_in_a_notebook_reaches_nothing_around_it(look: Callable[..., Seen], card: Card) -> None:
    around = f"<!doctype html><title>notebook</title><script>window.secret=1</script>{framed(card.to_html())}"
    seen = look(around)
    inside = seen.page.frame_locator("iframe[title=card]")
    assert inside.locator("h1").inner_text() == "Training"
    inside.locator(".drawing svg.main-svg").first.wait_for()
    frame = next(f for f in seen.page.frames if f.parent_frame == seen.page.main_frame)
    assert (
        frame.evaluate("(() => { try { return parent.secret } catch (error) { return error.name } })()")
        == "SecurityError"
    )
    plain = look(f"<!doctype html><title>notebook</title>{framed(Card('plain').text('x').to_html())}")
    assert plain.page.locator("iframe").get_attribute("sandbox") == ""
    quiet(plain)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_draws_its_plots(look: Callable[..., Seen], scheme: str) -> None:
    runs = [
        Facts(
            f"run-{n}",
            ATTACK,
            "SUCCEEDED",
            1.5 * n,
            {"lr": 10.0**-n, "kind": "ab"[n % 2] + ATTACK},
            {"e.f1": 0.5 + n / 20},
            label=f"run {n} {ATTACK}",
        )
        for n in range(1, 7)
    ]
    from roblox_ml._compare.pages import page_of

    seen = look(page_of(Comparison(runs)), scheme)
    page = seen.page
    assert page.locator("tbody tr").count() == 6
    kinds = [
        label or ""
        for label in page.locator("svg").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    ]
    assert "parallel coordinates" in kinds and "e.f1 by run" in kinds and "e.f1 against lr" in kinds
    assert page.evaluate("window.pwned") is None
    # Every text of a plot is inside its drawing.
    outside = page.locator("svg").evaluate_all(
        "all => all.flatMap(svg => [...svg.querySelectorAll('text')].filter(text => { const a = text.getBoundingClientRect(),"
        " b = svg.getBoundingClientRect();"
        " return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2 })"
        ".map(text => svg.getAttribute('aria-label') + ': ' + text.textContent))"
    )
    assert outside == []
    quiet(seen)


def test_a_sweep_s_page(look: Callable[..., Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import roblox_ml as rml

    (tmp_path / "paged.py").write_text(
        "import roblox_ml as rml\n\n@rml.step\ndef f(x: float, n: int) -> float:\n    for i in range(n):\n"
        "        rml.report(i, x * i)\n    return x * n\n\n@rml.pipeline\ndef paged(x: float, n: int = 3):\n    f(x, n)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("paged", None)
    from importlib import import_module

    axes = {"x": rml.choice([0.5, 1.0, 2.0]), "n": rml.integers(2, 3)}
    sweep = rml.sweep(
        import_module("paged").paged, axes, metric="f", sampler="grid", parallel=3, pruner="none", progress=False
    )
    seen = look(sweep.save(tmp_path / "sweep.html").read_text())
    assert "6 of 6 trials" in seen.page.locator("main").inner_text()
    assert seen.page.locator("tbody tr").first.locator("td").nth(2).inner_text() == "6.0"
    labels = seen.page.locator("svg").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert labels == ["f by trial, best so far", "f as reported", "parallel coordinates", "f against n"]
    assert seen.page.locator("svg[aria-label^='f by trial'] circle").count() == 6
    quiet(seen)
