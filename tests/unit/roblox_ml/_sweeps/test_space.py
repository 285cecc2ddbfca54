"""The space of a sweep: its algebra, what is refused, and that points depend on nothing but seed and number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._sweeps.definition import Definition, read_metric
from roblox_ml._sweeps.optimiser import Optimiser, point, quiet
from roblox_ml._sweeps.record import SweepFolder
from roblox_ml._sweeps.reports import FILE, Report, Reports, in_log
from roblox_ml._sweeps.space import Choice, Integers, Uniform, from_json, grid
from roblox_ml.errors import GraphError, RunError

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9, allow_nan=False) | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)
choices = st.lists(values, min_size=1, max_size=4, unique_by=lambda v: __import__("json").dumps(v, sort_keys=True)).map(
    rml.choice
)
bounds = st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda p: (p[0], p[0] + p[1]))
ranges = bounds.flatmap(lambda b: st.one_of(
    st.just(rml.integers(*b)), st.just(rml.integers(*b, log=True)), st.integers(1, 7).map(lambda s: rml.integers(*b, step=s)),
    st.just(rml.uniform(*b)), st.just(rml.uniform(*b, log=True)), st.sampled_from([0.1, 0.25, 3.0]).map(lambda s: rml.uniform(*b, step=s)),
))  # fmt: skip
spaces = st.dictionaries(st.sampled_from("abcd"), choices | ranges, min_size=1, max_size=3)


def inside(value: Any, known: Any) -> bool:
    if isinstance(known, Choice):
        return any(value == v and type(value) is type(v) for v in known.values)
    right = isinstance(value, int) if isinstance(known, Integers) else isinstance(value, float)
    step = known.step if isinstance(known, Integers) or known.step is not None else None
    on = step is None or math.isclose((value - known.low) / step, round((value - known.low) / step), abs_tol=1e-6)
    return right and known.low <= value <= known.high + 1e-9 and (on or known.log)


def definition(space: dict[str, Any], sampler: str = "random", seed: int = 0) -> Definition:
    return Definition("p", space, {}, "s.f1", "maximize", sampler, seed)


@settings(max_examples=200, deadline=None)
@given(spaces, st.integers(0, 99), st.integers(0, 5))
def test_points_are_inside_and_depend_on_seed_and_number_alone(space: dict[str, Any], number: int, seed: int) -> None:
    known = definition(space, seed=seed)
    drawn = point(known, number)
    assert set(drawn) == set(space) and all(inside(drawn[name], space[name]) for name in space)
    turned = definition(dict(reversed(space.items())), seed=seed)
    assert point(turned, number) == drawn and turned.digest == known.digest
    again = Definition.from_json(__import__("json").loads(__import__("json").dumps(known.to_json())))
    assert point(again, number) == drawn and list(known.differences(again)) == []


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abc"),
        choices | bounds.map(lambda b: rml.integers(b[0], min(b[1], b[0] + 4))),
        min_size=1,
        max_size=3,
    )
)
def test_a_grid_is_every_point_once(space: dict[str, Any]) -> None:
    points = list(grid(space))
    assert len(points) == math.prod(len(known.points()) for known in space.values())
    assert len({repr(p) for p in points}) == len(points)
    assert all(inside(p[name], space[name]) for p in points for name in space)


@settings(max_examples=15, deadline=None)
@given(space=spaces, sampler=st.sampled_from(["random", "tpe"]))
def test_what_the_study_is_asked_is_what_it_keeps(tmp_path_factory: Any, space: dict[str, Any], sampler: str) -> None:
    """Through Optuna's storage and back: the value of a parameter is the space's own, of its own type."""
    folder = SweepFolder(tmp_path_factory.mktemp("sweep"))
    known = definition(space, sampler)
    with quiet():
        study = Optimiser(folder, known, None, "none", 1)
        asked = [study.ask() for _ in range(3)]
        for one in asked[:2]:
            assert all(inside(one.params[name], space[name]) for name in space), one.params
            study.tell(one, "SUCCEEDED", 1.0 * one.number)
        reopened = Optimiser(folder, known, None, "none", 1)
        (left,) = reopened.unfinished()
    assert left.params == asked[2].params and left.number == 2
    kept = reopened.trials()
    assert [t.state for t in kept] == ["SUCCEEDED", "SUCCEEDED", "RUNNING"] and [t.params for t in kept] == [
        a.params for a in asked
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rml.choice([]), "nothing to choose"), (lambda: rml.choice("abc"), "takes a list"), (lambda: rml.choice([1, 1]), "twice"),
        (lambda: rml.choice([object()]), "no JSON value"), (lambda: rml.choice([math.nan]), "no JSON value"),
        (lambda: rml.uniform(2, 1), "smaller"), (lambda: rml.uniform(0, 1, log=True), "above 0"),
        (lambda: rml.uniform(0, math.inf), "not a number"),
        (lambda: rml.uniform(1, 2, log=True, step=1), "step"), (lambda: rml.integers(1, 2.5), "not an int"),
        (lambda: rml.integers(3, 1), "smaller"),
        (lambda: rml.integers(1, 9, step=0), "at least 1"), (lambda: list(grid({"a": rml.uniform(0, 1)})), "needs steps"),
        (lambda: list(grid({"a": rml.integers(1, 10**6)})), "points"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_where_it_is_written(make: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        make()


@rml.step
def scored(lr: float, n: int = 1, kind: str = "a") -> rml.Metrics:
    return rml.Metrics(f1=lr)


@rml.step
def numbered(m: rml.Metrics) -> float:
    return 1.0


@rml.step
def worded(m: rml.Metrics) -> str:
    return "x"


@rml.pipeline
def checked(lr: float, n: int = 1, kind: str = "a"):
    m = scored(lr, n, kind)
    numbered(m)
    worded(m)


def test_everything_that_is_wrong_is_said_at_once_before_anything_starts(rml_home: Path) -> None:
    space = {"n": rml.uniform(0, 1), "kind": rml.choice(["a", 3]), "epochs": rml.integers(1, 2), "lrr": 1.0}
    with pytest.raises(GraphError) as caught:
        rml.sweep(checked, space, metric="score.f1", direction="up", trials=3)
    codes = sorted(finding.code for finding in caught.value.findings)
    assert codes == [
        "bad-direction",
        "missing-parameter",
        "no-such-metric",
        "unknown-parameter",
        "unknown-parameter",
        "wrong-type",
        "wrong-type",
    ]
    text = str(caught.value)
    assert "did you mean 'lr'?" in text and "did you mean 'scored.f1'?" in text and "test_space.py" in text
    assert not (rml_home / "sweeps").exists() and not (rml_home / "runs").exists()


@pytest.mark.parametrize("metric", ["worded", "worded.x", "scored", "nobody.f1", "", "numbered.f1"])
def test_a_metric_that_no_step_returns_is_refused(metric: str) -> None:
    with pytest.raises(GraphError, match="no-such-metric"):
        rml.sweep(checked, {"lr": rml.uniform(0, 1)}, metric=metric, trials=1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [({}, "trials= is missing"), ({"trials": 0}, "from 1 up"), ({"trials": 1, "parallel": 0}, "parallel=0"),
     ({"trials": 1, "sampler": "best"}, "not one of"),
     ({"sampler": "grid"}, "needs steps"), ({"trials": 1, "name": "No Name"}, "no name of a sweep")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(asked: dict[str, Any], said: str, rml_home: Path) -> None:
    with pytest.raises(RunError, match=said):
        rml.sweep(checked, {"lr": rml.uniform(0, 1)}, metric="scored.f1", **asked)
    assert not (rml_home / "sweeps").exists()


def test_the_metric_is_found_where_a_step_may_return_it() -> None:
    metrics = rml.Metrics(f1=0.5, **{"a.b": 2}, flag=True)
    assert read_metric({"e": metrics}, "e.f1") == 0.5 and read_metric({"e": metrics}, "e.a.b") == 2.0
    assert read_metric({"count-rows": 3}, "count_rows") == 3.0
    assert read_metric({"s": {"m": metrics, "n": {"deep": 1.5}}}, "s.m.f1") == 0.5
    assert read_metric({"s": {"m": metrics, "n": {"deep": 1.5}}}, "s.n.deep") == 1.5
    for outputs, metric, said in [
        ({}, "e.f1", "did not run"), ({"e": metrics}, "e.f2", "returned f1, a.b, flag"), ({"e": metrics}, "e.flag", "not a number"),
        ({"e": math.nan}, "e", "NaN"), ({"e": [1, 2]}, "e.f1", "ran 2 times"), ({"e": 1.0}, "e.f1", "there is no"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=said):
            read_metric(outputs, metric)


def test_reports_are_read_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rml.report(0, 1.0)  # outside a step nothing happens
    monkeypatch.setenv("RML_TASK_FOLDER", str(tmp_path))
    rml.report(0, 0.5)
    rml.report(1, math.nan)
    printed = capsys.readouterr().out
    assert [r.step for r in in_log(f"other\n{printed}rml-report {{broken\n")] == [0, 1] and not (
        tmp_path / FILE
    ).exists()
    monkeypatch.setenv("RML_REPORTS", "file")
    reports = Reports(tmp_path / FILE)
    assert list(reports.new()) == []
    rml.report(0, 0.5)
    assert list(reports.new()) == [Report(0, 0.5)] and list(reports.new()) == []
    with (tmp_path / FILE).open("a") as stream:
        stream.write('not ours\n{"step": 2, "va')
    rml_torn = list(reports.new())
    assert rml_torn == []
    (tmp_path / FILE).write_text('{"step": 0, "value": 9}\n')  # another attempt began anew
    assert list(reports.new()) == [Report(0, 9.0)]
    for step, value in ((-1, 1.0), (0, "x"), (1.5, 1.0), (0, True)):
        with pytest.raises(ValueError, match=r"rml\.report"):
            rml.report(step, value)  # type: ignore[arg-type]


def test_distributions_come_back_from_json() -> None:
    for known in (
        rml.choice([1, "a", None]),
        rml.uniform(1, 2, log=True),
        rml.uniform(0, 1, step=0.5),
        rml.integers(1, 9, step=2),
    ):
        assert from_json(known.to_json()) == known
    assert str(Uniform(0.0, 1.0)) == "uniform(0, 1)" and str(rml.integers(1, 3)) == "integers(1, 3)"
