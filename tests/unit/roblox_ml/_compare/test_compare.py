"""Comparisons: what differs is found whatever the runs hold, plots are well-formed and bounded for any numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._compare.comparing import Comparison
from roblox_ml._compare.facts import Facts, Step, metrics_of
from roblox_ml._compare.pages import body_of, text_of
from roblox_ml._compare.plots import HEIGHT, Axis, Point, bars, history, lines, parallel, scatter
from roblox_ml._compare.source import source_diff
from roblox_ml._store import open_store
from roblox_ml.errors import RunError

numbers = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.integers(-(10**12), 10**12).map(float)
    | st.sampled_from([0.0, 1e-300, 1e300, 5e-324])
)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
names = st.text(max_size=12) | st.sampled_from(["<script>", "a&b", '"', "\x00", "\ud800"])
parameters = st.none() | st.booleans() | st.integers(-99, 99) | finite | names | st.lists(st.integers(), max_size=2)


def facts(name: str = "a", **more: Any) -> Facts:
    return Facts(
        **{
            "id": name,
            "pipeline": "p",
            "state": "SUCCEEDED",
            "seconds": 1.0,
            "parameters": {},
            "metrics": {},
            "label": name,
            **more,
        }
    )


def drawn(svg: str) -> ElementTree.Element:
    """A drawing any reader takes: well-formed, and no mark outside of it."""
    root = ElementTree.fromstring(svg)
    width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
    for mark in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(mark.attrib["cx"]) <= width and 0 <= float(mark.attrib["cy"]) <= height
    assert "nan" not in svg.split("<title>")[0] and root.attrib["role"] == "img"
    return root


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, names), max_size=12), st.booleans(), names)
def test_plots_are_drawn_for_any_numbers(given_points: list[tuple[float, float, str]], flag: bool, name: str) -> None:
    points = [Point(x, y, label) for x, y, label in given_points]
    kept = sum(math.isfinite(p.x) and math.isfinite(p.y) for p in points)
    assert len(list(drawn(scatter(points, name, name, log_x=flag)).iter("{http://www.w3.org/2000/svg}circle"))) == kept
    drawn(history([Point(float(n), p.y, p.label) for n, p in enumerate(points)], name, maximize=flag))
    drawn(lines([(p.label, [(0.0, p.y), (1.0, p.x)], flag) for p in points], name))
    root = drawn(bars([p.label for p in points], [p.y for p in points], name))
    assert float(root.attrib["viewBox"].split()[3]) >= 26 * len(points)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 5), st.integers(1, 8), st.data())
def test_parallel_coordinates_have_a_line_for_every_run(axes: int, rows: int, data: st.DataObject) -> None:
    values = data.draw(
        st.lists(st.lists(finite | names | st.none(), min_size=rows, max_size=rows), min_size=axes, max_size=axes)
    )
    colour = data.draw(st.lists(st.none() | numbers, min_size=rows, max_size=rows))
    root = drawn(
        parallel([Axis(f"axis {n}", tuple(v)) for n, v in enumerate(values)], colour, [f"run {n}" for n in range(rows)])
    )
    assert (
        len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == rows
        and float(root.attrib["viewBox"].split()[3]) == HEIGHT
    )
    assert parallel([Axis("one", (1,))], [1.0], ["r"]) == ""


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.dictionaries(names, parameters, max_size=3), st.dictionaries(names, numbers, max_size=3)),
        min_size=2,
        max_size=5,
    )
)
def test_every_comparison_can_be_shown(given_runs: list[tuple[dict[str, Any], dict[str, float]]]) -> None:
    runs = [facts(f"run-{n}", parameters=p, metrics=m) for n, (p, m) in enumerate(given_runs)]
    compared = Comparison(runs)
    shown = body_of(compared)
    assert "<script" not in shown and text_of(compared)
    shown.encode("utf-8")
    for name in {name for p, _ in given_runs for name in p}:
        held = [p.get(name) for p, _ in given_runs]
        assert (name in compared.parameters) == any(v != held[0] or type(v) is not type(held[0]) for v in held)
    assert len(compared.table()) == len(runs)


def test_what_made_the_difference_is_named() -> None:
    one = facts(
        "one",
        steps={"train": Step("a" * 64, "c" * 64, "m:train"), "old": Step("d", "e", "m:old")},
        data=("d/1@x",),
        git={"commit": "1" * 40},
    )
    two = facts(
        "two",
        steps={"train": Step("b" * 64, "f" * 64, "m:train")},
        data=("d/2@y",),
        git={"commit": "2" * 40},
        pipeline="q",
    )
    said = "\n".join(Comparison([one, two]).differences)
    for part in ("one ran p, two ran q", "code of train", "packages of train", "step old: only one has it", "only one used d/1@x",
                 "only two used d/2@y", "two at 222222222222"):  # fmt: skip
        assert part in said, said
    assert Comparison([one, one, facts("three", steps=one.steps, data=one.data, git=one.git)]).differences == []


def test_a_diff_is_read_from_the_store() -> None:
    from roblox_ml._capture._bundle import pack

    store = open_store()
    old = store.put(
        pack(
            {
                "step.py": b"def f():\n    return 1\n",
                "same.py": b"x = 1\n",
                "MANIFEST.json": b"{}",
                "data.bin": b"\xff\x00",
            }
        )
    )
    new = store.put(
        pack(
            {
                "step.py": b"def f():\n    return 2\n",
                "same.py": b"x = 1\n",
                "MANIFEST.json": b"[]",
                "data.bin": b"\xff\x00\x01",
            }
        )
    )
    lock = store.put(b"numpy==2.0\n")
    before, after = facts("a", steps={"f": Step(old, "none", "m:f")}), facts("b", steps={"f": Step(new, lock, "m:f")})
    diff = source_diff("f", before, after)
    for line in ("-    return 1", "+    return 2", "-(2 bytes, no text)", "+(3 bytes, no text)", "+numpy==2.0"):
        assert line in diff.splitlines(), diff
    assert "same.py" not in diff and "MANIFEST" not in diff and source_diff("f", before, before) == ""
    with pytest.raises(RunError, match="no run has a step"):
        Comparison([before, after]).diff("g")


def test_numbers_are_found_where_steps_return_them(tmp_path: Path) -> None:
    outputs = {
        "e": rml.Metrics(f1=0.5, **{"rml.run": 3}),
        "n": 2,
        "s": {"x": 1.5, "m": rml.Metrics(a=1)},
        "t": "text",
        "b": True,
    }
    assert metrics_of(outputs) == {"e.f1": 0.5, "n": 2.0, "s.x": 1.5, "s.m.a": 1.0}


@pytest.mark.parametrize("wrong", [(), ([],), ("no-such-run",), (3, 4)])
def test_what_cannot_be_compared_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(RunError):
        rml.compare(*wrong)
