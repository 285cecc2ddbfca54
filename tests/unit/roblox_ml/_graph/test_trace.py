"""Tracing: calls become tasks, arguments are checked, and every mistake of a pipeline is found in one go."""

from __future__ import annotations

from typing import NamedTuple

import pytest

import roblox_ml as rml
from roblox_ml._graph.model import Constant
from roblox_ml.errors import Finding, GraphError


class Prepared(NamedTuple):
    train: rml.Dataset
    test: rml.Dataset


@rml.step
def load(path: str = "x") -> rml.Dataset:
    return rml.Dataset(path)


@rml.step
def prepare(data: rml.Dataset) -> Prepared:
    return Prepared(data, data)


@rml.step
def train(data: rml.Dataset, epochs: int = 3, extra: rml.Metrics | None = None) -> rml.Model:
    return rml.Model(data.path)


@rml.step
def count(data: rml.Dataset) -> int:
    return 3


@rml.step
def score(model: rml.Model) -> rml.Metrics:
    return rml.Metrics(f1=1.0)


@rml.step
def double(x: int) -> int:
    return 2 * x


@rml.step
def total(xs: list[int]) -> int:
    return sum(xs)


@rml.step
def merge(parts: list[rml.Model]) -> rml.Model:
    return parts[0]


@rml.step
def notify(text: str) -> None:
    print(text)


def findings_of(function, **parameters) -> list[Finding]:  # type: ignore[no-untyped-def]
    """Trace a function as a pipeline."""
    _, findings = rml.pipeline(function).trace()
    return findings


def codes(function) -> list[str]:  # type: ignore[no-untyped-def]
    return [f.code for f in findings_of(function)]


def line_of(function, text: str) -> int:  # type: ignore[no-untyped-def]
    """The line number on which `text` stands in a function's source."""
    import inspect

    lines, start = inspect.getsourcelines(function)
    return next(start + n for n, line in enumerate(lines) if text in line)


def test_calls_become_tasks_with_unique_names() -> None:
    def chain(epochs: int = 1) -> None:
        p = prepare(load())
        train(p.train, epochs=epochs)
        train(p.test, 5)

    graph, findings = rml.pipeline(chain).trace()
    assert findings == []
    assert [t.name for t in graph.tasks] == ["load", "prepare", "train", "train-2"]
    assert list(graph.components) == ["load", "prepare", "train"]
    first, second = graph.tasks[2:]
    assert str(first.arguments["data"]) == "prepare.train"
    assert str(first.arguments["epochs"]) == "epochs"
    assert second.arguments["epochs"] == Constant(5)


def test_a_name_taken_by_numbering_is_not_given_twice() -> None:
    def step_2() -> int: ...  # type: ignore[empty-body]

    step_2.__name__ = "double_2"
    renamed = rml.step(step_2)

    def clash() -> None:
        double(1)
        renamed()
        double(2)

    graph, findings = rml.pipeline(clash).trace()
    assert findings == []
    assert [t.name for t in graph.tasks] == ["double", "double-2", "double-3"]


def test_two_steps_of_one_name_are_two_components() -> None:
    def make(n: int):  # type: ignore[no-untyped-def]
        @rml.step
        def work() -> int:
            return n

        return work

    first, second = make(1), make(2)

    def pipeline() -> None:
        first()
        second()
        first()

    graph, _ = rml.pipeline(pipeline).trace()
    assert [(t.name, t.component.name) for t in graph.tasks] == [
        ("work", "work"),
        ("work-2", "work-2"),
        ("work-3", "work"),
    ]


def test_outside_a_pipeline_a_step_is_its_function() -> None:
    assert double(4) == 8
    assert double.map([1, 2, 3]) == [2, 4, 6]
    assert double.__name__ == "double" and double.__wrapped__ is double.function  # type: ignore[attr-defined]
    assert train.map([1, 2], over="epochs", data=rml.Dataset("x"))[1].path == rml.Dataset("x").path
    both = prepare.map([rml.Dataset("a"), rml.Dataset("b")])
    assert isinstance(both, Prepared) and len(both.train) == 2  # type: ignore[arg-type]


def test_named_outputs_unpack_and_index() -> None:
    def pipeline() -> None:
        train_set, test_set = prepare(load())
        train(train_set)
        train(prepare(load())[1])
        train(test_set)

    assert codes(pipeline) == []


def test_a_pipeline_in_a_pipeline_is_part_of_it() -> None:
    @rml.pipeline(name="inner-one")
    def inner() -> None:
        load()

    def outer() -> None:
        inner()
        inner()

    graph, findings = rml.pipeline(outer).trace()
    assert findings == []
    assert [t.name for t in graph.tasks] == ["load", "load-2"]


def test_called_outside_a_pipeline_says_what_to_do() -> None:
    @rml.pipeline
    def alone() -> None:
        load()

    with pytest.raises(GraphError, match=r"alone\.run"):
        alone()


# --- one wrong thing, one finding --------------------------------------------------------------------------------


def wrong_artifact() -> None:
    score(load())  # here


def wrong_parameter() -> None:
    notify(count(load()))  # here


def wrong_constant() -> None:
    double("three")  # here


def value_into_artifact() -> None:
    train("data.csv")  # here


def local_artifact() -> None:
    train(rml.Dataset("x"))  # here


def missing() -> None:
    train()  # here


def unknown() -> None:
    train(load(), epocs=3)  # here


def twice() -> None:
    train(load(), data=load())  # here


def too_many() -> None:
    double(1, 2)  # here


def none_given() -> None:
    double(None)  # here


def whole_tuple() -> None:
    train(prepare(load()))  # here


def of_nothing() -> None:
    double(notify("x"))  # here


def the_step_itself() -> None:
    train(load)  # here


def list_of_outputs() -> None:
    merge([train(load()), train(load())])  # here


def unknown_output() -> None:
    train(prepare(load()).trian)  # here


def branching() -> None:
    if count(load()) > 10:  # here
        load()


def truth() -> None:
    n = count(load())
    if n:  # here
        load()


def conjunction() -> None:
    n = count(load())
    with rml.when(n > 1 and n < 5):  # here
        load()


def combination() -> None:
    n = count(load())
    with rml.when((n > 1) & (n < 5)):  # here
        load()


def looping() -> None:
    for _ in count(load()):  # here
        load()


def ranging() -> None:
    for _ in range(count(load())):  # here
        load()


def measuring() -> None:
    double(len(count(load())))  # here


def formatting() -> None:
    notify(f"{count(load())} rows")  # here


def texting() -> None:
    notify(str(count(load())))  # here


def adding() -> None:
    double(count(load()) + 1)  # here


def reading() -> None:
    notify(train(load()).name_)  # here


def indexing() -> None:
    double(count(load())[0])  # here


def calling() -> None:
    train(load())()  # here


def assigning() -> None:
    count(load())["a"] = 1  # here


def containing() -> None:
    double(int(3 in count(load())))  # here


def comparing() -> None:
    count(load()) > 3  # here


def comparing_into() -> None:
    double(count(load()) > 3)  # here


def comparing_artifacts() -> None:
    rml.when(load() == 3)  # here


def comparing_types() -> None:
    rml.when(count(load()) == "three")  # here


def otherwise_alone() -> None:
    with rml.otherwise():  # here
        load()


def constant_condition() -> None:
    with rml.when(True):  # here
        load()


def map_of_scalar() -> None:
    double.map(count(load()))  # here


def map_of_text() -> None:
    double.map("abc")  # here


def map_of_nothing() -> None:
    double.map([])  # here


def map_of_wrong_items() -> None:
    double.map([1, "two"])  # here


def map_over_artifacts() -> None:
    train.map([load()])  # here


def map_over_nowhere() -> None:
    double.map([1], over="y")  # here


def one_of_many() -> None:
    double(double.map([1, 2]))  # here


def order_of_nothing() -> None:
    load().after(3)  # here


def bad_model_name() -> None:
    rml.register(train(load()), name="My Model")  # here


def bad_gate() -> None:
    rml.register(train(load()), name="m", gate={"f1": 0.5})  # here


def register_data() -> None:
    rml.register(load(), name="m")  # here


def unknown_dataset() -> None:
    train(rml.dataset("nowhere"))  # here


CASES = {
    wrong_artifact: "wrong-type",
    wrong_parameter: "wrong-type",
    wrong_constant: "wrong-type",
    value_into_artifact: "wrong-type",
    local_artifact: "wrong-type",
    missing: "missing-argument",
    unknown: "unknown-argument",
    twice: "argument-given-twice",
    too_many: "too-many-arguments",
    none_given: "wrong-type",
    whole_tuple: "wrong-type",
    of_nothing: "wrong-type",
    the_step_itself: "wrong-type",
    list_of_outputs: "list-of-outputs",
    unknown_output: "unknown-output",
    branching: "condition-in-python",
    truth: "condition-in-python",
    conjunction: "condition-in-python",
    combination: "combined-condition",
    looping: "loop-in-python",
    ranging: "number-of-output",
    measuring: "length-of-output",
    formatting: "text-of-output",
    texting: "text-of-output",
    adding: "arithmetic-on-output",
    reading: "attribute-of-output",
    indexing: "index-of-output",
    calling: "call-of-output",
    assigning: "change-of-output",
    containing: "condition-in-python",
    comparing: "comparison-outside-when",
    comparing_into: "wrong-type",
    comparing_artifacts: "bad-comparison",
    comparing_types: "bad-comparison",
    otherwise_alone: "otherwise-without-when",
    constant_condition: "bad-condition",
    map_of_scalar: "wrong-type",
    map_of_text: "wrong-type",
    map_of_nothing: "empty-map",
    map_of_wrong_items: "wrong-type",
    map_over_artifacts: "map-over-artifacts",
    map_over_nowhere: "unknown-argument",
    one_of_many: "wrong-type",
    order_of_nothing: "order-without-task",
    bad_model_name: "bad-name",
    bad_gate: "bad-gate",
    register_data: "wrong-type",
    unknown_dataset: "unknown-dataset",
}


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_one_mistake_is_one_finding_at_its_line(function) -> None:  # type: ignore[no-untyped-def]
    findings = findings_of(function)
    assert [f.code for f in findings] == [CASES[function]]
    (finding,) = findings
    assert finding.where.endswith(f"test_trace.py:{line_of(function, '# here')}")
    assert finding.message and finding.why and finding.fix
    assert finding.source is not None and "^" in finding.source


def test_if_on_an_output_shows_the_line_to_write() -> None:
    (finding,) = findings_of(branching)
    assert "with rml.when(count(load()) > 10):" in finding.fix
    assert "rml.otherwise" in finding.fix


def test_typos_are_recognised() -> None:
    assert "epochs" in findings_of(unknown)[0].fix
    assert ".train" in findings_of(unknown_output)[0].fix


def test_everything_wrong_is_found_at_once() -> None:
    def many() -> None:
        data = load()
        if count(data) > 3:
            notify(3)
        score(data)
        for _ in data:
            pass
        train(data, epoch=1)

    assert codes(many) == [
        "condition-in-python",
        "wrong-type",
        "wrong-type",
        "loop-in-python",
        "unknown-argument",
    ]


def test_a_loop_that_would_never_end_is_cut() -> None:
    def endless() -> None:
        n = count(load())
        while n > 3:
            load()

    assert codes(endless) == ["condition-in-python"]


def test_the_users_own_exception_is_not_hidden() -> None:
    def broken() -> None:
        load()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rml.pipeline(broken).trace()


def test_an_output_of_another_trace_is_foreign() -> None:
    kept: list[object] = []

    def first() -> None:
        kept.append(load())

    def second() -> None:
        train(kept[0])  # type: ignore[arg-type]

    assert codes(first) == []
    assert codes(second) == ["foreign-output"]


def test_a_stand_in_used_later_says_so() -> None:
    kept: list[object] = []

    def pipeline() -> None:
        kept.append(count(load()))

    assert codes(pipeline) == []
    assert "count" in repr(kept[0]) and str(kept[0]) == repr(kept[0])
    assert kept[0] == kept[0] and kept[0] in {kept[0]}
    with pytest.raises(GraphError, match="no value yet"):
        bool(kept[0])


def test_a_step_with_a_faulty_signature_is_reported_once() -> None:
    @rml.step
    def bad(x, y: int) -> bytes:  # type: ignore[no-untyped-def]
        return b""

    def pipeline() -> None:
        a = bad(1, 2)
        train(a)  # type: ignore[arg-type]
        bad(x=1, y=2)

    assert codes(pipeline) == ["missing-annotation", "unsupported-annotation"]


def test_an_int_fits_a_float() -> None:
    @rml.step
    def scale(x: float) -> float:
        return x

    def pipeline(n: int = 1) -> None:
        scale(count(load()))
        scale(n)
        scale(3)

    graph, findings = rml.pipeline(pipeline).trace()
    assert findings == []
    assert graph.tasks[-1].arguments["x"] == Constant(3.0)


def test_optional_inputs_may_be_left_out_or_none() -> None:
    def pipeline() -> None:
        train(load())
        train(load(), extra=None)

    graph, findings = rml.pipeline(pipeline).trace()
    assert findings == []
    assert all("extra" not in t.arguments for t in graph.tasks)


def test_a_cycle_is_named_in_running_order() -> None:
    def pipeline() -> None:
        a = load()
        b = train(a)
        c = score(b)
        a.after(c)

    (finding,) = findings_of(pipeline)
    assert finding.code == "cycle"
    assert "load → train → score → load" in finding.message


def test_a_value_does_not_leave_its_branch() -> None:
    def pipeline() -> None:
        with rml.when(count(load()) > 3):
            model = train(load())
        score(model)

    (finding,) = findings_of(pipeline)
    assert finding.code == "output-leaves-branch"
    assert "score" in finding.message and "train" in finding.message


def test_an_empty_pipeline() -> None:
    def nothing() -> None:
        return None

    assert codes(nothing) == ["empty-pipeline"]
