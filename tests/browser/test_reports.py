"""Reports of experiments and shadows in a real browser: readable, inside their drawings, running nothing, asking for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from roblox_ml_core.records.shadow_report import shadow_report
from roblox_ml_platform.analysis.report import Neighbour, build
from roblox_ml_serving.shadow.compare import Comparison, compare_tensors
from roblox_ml_serving.shadow.tensors import Tensor

from roblox_ml._rollouts.reports import Report
from roblox_ml._rollouts.shadow_reports import ShadowReport

CHROMIUM = Path("/usr/bin/chromium")
ATTACK = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'><svg onload=window.pwned=1>"
DAY_US = 86_400_000_000
SINCE_US = 1_795_000_000_000_000
OUTSIDE = """all => all.flatMap(svg => [...svg.querySelectorAll('text')].filter(text => {
  const a = text.getBoundingClientRect(), b = svg.getBoundingClientRect();
  return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2
}).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent))"""
OVERLAPPING = """all => all.flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')], boxes = texts.map(text => text.getBoundingClientRect());
  return texts.flatMap((text, i) => texts.slice(i + 1).filter((_, k) => {
    const a = boxes[i], b = boxes[i + 1 + k];
    return a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2
  }).map(other => text.textContent + ' over ' + other.textContent))
})"""


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
def look(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a report's saved page; at the end it must have said nothing and asked for nothing."""
    pages, said, asked = [], [], []

    def at(report: Any, scheme: str = "light", width: int = 1100) -> Any:
        file = report.save(tmp_path / f"report-{len(pages)}.html")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        return page

    yield at
    for page in pages:
        page.close()
    assert said == [] and [url for url in asked if not url.startswith("file:")] == []


def metric(name: str, kind: str = "mean", **more: Any) -> dict[str, Any]:
    plain = {"event": name, "per": None, "direction": "up", "cuped_days": 0, "primary": True}
    return {"name": name, "kind": kind, **plain, **more}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Three arms over a week: `new` earns more and crashes more, `blue` does nothing; another experiment beside it."""
    rng = np.random.default_rng(7)
    n, arms = 12_000, ["control", "new", "blue-background"]
    arm, at = rng.integers(0, 3, n), np.sort(rng.integers(SINCE_US, SINCE_US + 6 * DAY_US, n))
    names = np.array([f"u{number}" for number in range(n)])
    parts, count = [], 0

    def happen(event: str, rate: Any, value: Callable[[int], Any] = np.ones) -> None:
        nonlocal count
        who = np.repeat(np.arange(n), rng.poisson(rate))
        count += len(who)
        parts.append(
            pa.table({"at_us": at[who] + rng.integers(1, DAY_US, len(who)), "unit": names[who], "value": value(len(who)),
                      "event_id": [f"{event}{k}" for k in range(len(who))], "event": [event] * len(who)})
        )  # fmt: skip

    happen("view", np.full(n, 4.0))
    happen("click", np.where(arm == 1, 1.25, 1.0))
    happen("revenue", np.where(arm == 1, 0.7, 0.5), lambda size: rng.exponential(4.99, size))
    happen("crash", np.where(arm == 1, 0.2, 0.05))
    exposed = pa.table({"at_us": at, "arm": np.array(arms)[arm], "unit": names})
    beside = pa.table({"at_us": at, "arm": np.array(["off", "on"])[rng.integers(0, 2, n)], "unit": names})
    weights = (3334, 3333, 3333)
    experiment = {
        "name": "new-ranker", "endpoint": "feed", "layer": "ranking", "running": True,
        "arms": [{"name": name, "weight": weight} for name, weight in zip(arms, weights, strict=True)],
        "metrics": [
            metric("revenue"), metric("ctr", "ratio", event="click", per="view"),
            metric("plays", "conversion", event="click", primary=False),
        ],
        "guardrails": [metric("crash", "conversion", direction="down", margin=0.1)],
    }  # fmt: skip
    return build(
        experiment, exposed, pa.concat_tables(parts), since_us=SINCE_US, until_us=SINCE_US + 7 * DAY_US,
        planned_units=10_000, neighbours=[Neighbour("fast-start", "startup", ["off", "on"], beside)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def shadowed() -> dict[str, Any]:
    """Answers of a classifier: labels flip now and then, scores differ a little; one in a hundred fails."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(400):
        scores = rng.dirichlet(np.ones(12), 2).astype(np.float32)
        theirs = np.abs(scores + rng.normal(0, 0.003 * (1 + number % 40), scores.shape)).astype(np.float32)
        labels = [np.array([[f"class-{k}" for k in one.argmax(1)]], dtype=object).T for one in (scores, theirs)]
        found = compare_tensors(
            {"scores": Tensor("FP32", scores), "label": Tensor("BYTES", labels[0])},
            {"scores": Tensor("FP32", theirs), "label": Tensor("BYTES", labels[1])},
        )
        failed = number % 100 == 99
        text = (
            Comparison.failed("DEADLINE_EXCEEDED: the model server did not answer in time").to_text()
            if failed
            else found.to_text()
        )
        rows.append(
            {"at_us": SINCE_US + number * 1_000_000, "inference_id": f"0f3a-{number:04}", "endpoint": "feed", "shadow": "feed/9",
             "version": 9, "primary_version": 7, "primary_us": int(rng.gamma(4, 900)), "shadow_us": int(rng.gamma(4, 1400)),
             "code": "timeout" if failed else "ok", "tensors_json": text}
        )  # fmt: skip
    return {"endpoint": "feed", "shadow": "feed-9", "ref": "feed/9", "version": "feed/9", **shadow_report(rows)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 420])
def test_an_experiment_s_report(look: Callable[..., Any], document: dict[str, Any], scheme: str, width: int) -> None:
    page = look(Report(document), scheme, width)
    assert page.title() == "Experiment new-ranker"
    assert page.locator(".failed").inner_text().startswith("Guardrail crash is breached by new.")
    labels = page.locator("svg").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert labels[0].startswith("relative differences") and sum("as units came in" in label for label in labels) == 6
    # One line and one dot each; what is better is green, what is not known is blue.
    dots = page.locator("svg").first.locator("circle").evaluate_all("all => all.map(one => one.getAttribute('fill'))")
    told = [one["decision"] for metric in document["metrics"] for one in metric["comparisons"]]
    assert [fill == "#2da44e" for fill in dots] == [one == "better" for one in told] and len(dots) == 6
    revenue = page.locator("section", has=page.get_by_role("heading", name="revenue", exact=True))
    assert "new is better than control by" in revenue.inner_text()
    assert revenue.locator("table").first.locator("tbody tr").count() == 3
    assert page.locator("svg").evaluate_all(OUTSIDE) == [] and page.locator("svg").evaluate_all(OVERLAPPING) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "what is wide scrolls in its own box"
    )


def test_a_shadow_s_report(look: Callable[..., Any], shadowed: dict[str, Any]) -> None:
    page = look(ShadowReport(shadowed), "dark")
    assert "396 of 400 answers compared" in page.locator("main").inner_text()
    assert page.locator(".failed").inner_text().strip() == "1 % of the questions got no answer from the shadow"
    text = page.locator("main").inner_text()
    assert "rank correlation" in text and "relative, largest in an answer" in text and "shadow − champion" in text
    worst = page.locator("section", has=page.get_by_role("heading", name="Answers that differ most")).locator(
        "tbody tr"
    )
    assert worst.count() == 10 and "labels differ" in worst.first.inner_text() and "{" not in worst.first.inner_text()
    assert page.locator("svg").evaluate_all(OUTSIDE) == [] and page.locator("svg").evaluate_all(OVERLAPPING) == []


def test_reports_of_nothing_say_so(look: Callable[..., Any]) -> None:
    no_units = {"at_us": pa.array([], pa.int64()), "unit": pa.array([], pa.string())}
    exposed = pa.table({**no_units, "arm": pa.array([], pa.string())})
    events = pa.table(
        {
            **no_units,
            "event_id": pa.array([], pa.string()),
            "event": pa.array([], pa.string()),
            "value": pa.array([], pa.float64()),
        }
    )
    arms = [{"name": "control", "weight": 5000}, {"name": "new", "weight": 5000}]
    experiment = {
        "name": "e",
        "endpoint": "feed",
        "layer": "l",
        "arms": arms,
        "metrics": [metric("clicks")],
        "guardrails": [],
    }
    empty = build(experiment, exposed, events, since_us=SINCE_US, until_us=SINCE_US + DAY_US)
    page = look(Report(empty))
    assert "Nobody has been exposed yet." in page.locator("blockquote").inner_text()
    assert page.locator("svg, .failed").count() == 0
    page = look(ShadowReport({"endpoint": "feed", "shadow": "s", "ref": "feed/9", **shadow_report([])}))
    assert "No questions yet." in page.locator("main").inner_text() and page.locator("table").count() == 0


def test_names_and_values_stay_text(
    look: Callable[..., Any], document: dict[str, Any], shadowed: dict[str, Any]
) -> None:
    def hostile(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hostile(one) for key, one in value.items()}
        if isinstance(value, list):
            return [hostile(one) for one in value]
        kept = ("mean", "conversion", "ratio", "up", "down", "fine", "better", "undecided")
        return value + ATTACK if isinstance(value, str) and value not in kept else value

    shadow = hostile(shadowed)
    shadow["examples"][0]["values"] = {ATTACK: {"primary": [ATTACK], "shadow": [1.0]}}
    shadow["tensors"][ATTACK] = {**shadow["tensors"]["label"], "mismatches": {ATTACK: 3}}
    for report in (Report(hostile(document)), ShadowReport(shadow)):
        page = look(report)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, script, [onerror], [onload]").count() == 0
