"""The property capture stands on: for any chain of cells, the slice makes what the cells made, or capture refuses."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from roblox_ml._capture import capture, capture_name, cells_source
from roblox_ml.errors import CaptureError

NAMES = ("a", "b", "c", "d")
name = st.sampled_from(NAMES)
number = st.integers(0, 3)
atom = st.one_of(number.map(str), name)


def _join(*parts):
    return st.tuples(*[p if isinstance(p, st.SearchStrategy) else st.just(p) for p in parts]).map("".join)


value = st.one_of(
    number.map(str), name, _join("[", atom, ", ", atom, "]"), _join("{'k': ", atom, "}"), _join("len(str(", name, "))"),
    _join("[", name, "]"), _join("(", name, ", ", name, ")"), _join(name, " if ", name, " else ", number.map(str)),
    _join("str(", name, ") + 'x'"), _join("[x for x in (", atom, ", 1)]"), _join("list(", name, ")"), _join(name, "[0]"),
)  # fmt: skip
statement = st.one_of(
    _join(name, " = ", value), _join(name, " = ", value), _join(name, " = ", value),
    _join(name, ".append(", atom, ")"), _join(name, "[0] = ", atom), _join(name, "['k'] = ", atom), _join(name, " += [", atom, "]"),
    _join(name, " += 1"), _join("del ", name), _join("if ", name, ":\n    ", name, " = ", value),
    _join("for q in (1, 2):\n    ", name, " = q"), _join("for q in [1, 2]:\n    ", name, ".append(q)"),
    _join("for q in ", name, "[:2]:\n    q.append(1)"), _join("def f(x=", name, "):\n    return (x, ", name, ")"),
    _join("def g():\n    return f()"), _join(name, " = f()"), _join("def h():\n    ", name, ".append(9)"), st.just("h()"),
    _join("def s():\n    global ", name, "\n    ", name, " = 7"), st.just("s()"), _join(name, ", ", name, " = ", name, ", 1"),
    _join("class K:\n    v = ", name, "\n    ", name, " = 5"), _join(name, " = K.v"), _join("K.v = ", atom),
    _join("try:\n    ", name, " = ", name, "[0]\nexcept Exception:\n    ", name, " = 0"), _join("(", name, " := ", value, ")"),
    _join("@deco\ndef f(x=1):\n    return ", name), _join("def deco(fn):\n    TABLE.append(", name, ")\n    return fn"),
    st.just("TABLE = []"),
)  # fmt: skip
cells = st.lists(
    st.one_of(st.lists(statement, min_size=1, max_size=2).map("\n".join), st.integers(0, 20)), min_size=1, max_size=14
)
START = ["a = [1, 2]\nTABLE = []", "b = [[3], a]", "c = {'k': 1}\nd = 0", "def f(x=b):\n    return (x, c)\ndef g():\n    return f(), d",
         "def deco(fn):\n    TABLE.append(fn.__name__)\n    return fn\nclass K:\n    v = a"]  # fmt: skip
result = st.lists(st.sampled_from((*NAMES, "f()", "g()", "TABLE", "K.v")), min_size=1, max_size=3, unique=True)


def run_notebook(chain):
    """Execute cells as a kernel does; a number re-runs a cell. Cells that would fail are left out."""
    executed = list(START)
    for item in chain:
        text = item if isinstance(item, str) else executed[item % len(executed)] if executed else "pass"
        if replay([*executed, text]) is not None:
            executed.append(text)
    return replay(executed), executed


def replay(texts):
    namespace: dict = {"__name__": "__main__"}
    try:
        for text in texts:
            exec(compile(text, "<cell>", "exec", dont_inherit=True), namespace)
    except Exception:
        return None
    return namespace


def outcome(function):
    try:
        return repr(copy.deepcopy(function()))
    except Exception as error:
        return type(error).__name__


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(cells, result)
@example(["b = [1]", "a = b", "a.append(2)"], ["b"])
@example(["b = [1]", "c = [b]", "a = c[0]", "a.append(2)"], ["c"])
@example(["a = [1]", "b = len(a)", "a.append(2)"], ["b"])
@example(["b = [[1]]", "for q in b:\n    q.append(1)"], ["b"])
@example(["a = [1, 2]", "def h():\n    a.append(9)", "h()"], ["a"])
@example(["a = a", "a.append(3)"], ["f()"])
@example(["a = [a]", "a[0].append(3)"], ["f()"])
@example(["c, a = a, 0", "c.append(3)"], ["f()"])
@example(["a = f()\ntry:\n    a = a[0]\nexcept Exception:\n    a = 0"], ["a"])
def test_slice_equals_notebook_or_refuses(chain, wanted):
    namespace, executed = run_notebook(chain)
    step = f"def step():\n    return ({', '.join(wanted)},)"
    exec(step, namespace)
    try:
        slice_ = capture(namespace["step"], cells_source([*executed, step], namespace))
    except CaptureError as error:
        assert error.findings
        return
    there: dict = {"__name__": "rml_step"}
    exec(compile(slice_.files["rml_step.py"], "rml_step.py", "exec", dont_inherit=True), there)
    assert outcome(there["step"]) == outcome(namespace["step"]), slice_.files["rml_step.py"].decode()


pure = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=2), number), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(pure, st.data())
def test_pure_constants_are_never_refused_and_reruns_change_nothing(plan, data):
    """Straight-line constants always slice; running cells again, or unrelated cells between, changes no byte."""
    bound: list[str] = []
    chain: list[str] = []
    for index, (target, reads, n) in enumerate(plan):
        fresh_name = f"{target}{index}"
        parts = [str(n), *(b for b in bound if b[0] in reads)]
        chain.append(f"{fresh_name} = ({', '.join(parts)},)")
        bound.append(fresh_name)
    step = f"def step():\n    return ({', '.join(bound[-2:])},)"

    def build(texts):
        namespace: dict = {"__name__": "__main__"}
        for text in texts:
            exec(text, namespace)
        return capture(namespace["step"], cells_source(texts, namespace)).files, namespace["step"]()

    files, expected = build([*chain, step])
    there: dict = {}
    exec(files["rml_step.py"], there)
    assert there["step"]() == expected
    position = data.draw(st.integers(0, len(chain)))
    noisy = [*chain[:position], "import json", "print", *chain[position:], "# unrelated", step]
    assert build(noisy)[0] == files


def test_rerunning_cells_changes_no_byte():
    texts = [
        "import json\nLR = 0.1",
        "NAMES = ['a']",
        "def helper():\n    return LR, NAMES, json",
        "def step():\n    return helper()",
    ]

    def build(order):
        namespace: dict = {"__name__": "__main__"}
        for text in order:
            exec(text, namespace)
        return capture(namespace["step"], cells_source(order, namespace)).files

    once = build(texts)
    assert build([*texts, *texts]) == once
    assert build([texts[0], texts[0], texts[2], texts[1], texts[3]]) == once
    assert build([texts[3], texts[2], texts[1], texts[0]]) == once


@pytest.mark.parametrize("reader", ["b", "a"])
def test_aliases_see_each_others_changes(reader):
    texts = ["b = [x for x in (1, 2)]", "a = b", "a.append(3)", "b.append(4)", f"def step():\n    return {reader}"]
    namespace: dict = {"__name__": "__main__"}
    for text in texts:
        exec(text, namespace)
    there: dict = {}
    exec(capture(namespace["step"], cells_source(texts, namespace)).files["rml_step.py"], there)
    assert there["step"]() == [1, 2, 3, 4]


def test_a_constant_run_again_after_its_reader_changes_no_byte():
    texts = ["import math\nLR = 0.1", "CFG = {'lr': LR, 'pi': math.pi}", "def step():\n    return CFG, LR"]
    once = capture_name("step", cells_source(texts)).files
    assert capture_name("step", cells_source([*texts[:2], texts[0], texts[2]])).files == once
    other = capture_name("step", cells_source([*texts[:2], "LR = 0.2", texts[2]])).files["rml_step.py"].decode()
    assert other.index("LR = 0.1") < other.index("CFG") and "LR = 0.2" in other


def test_a_decorator_sees_the_value_of_its_time():
    texts = [
        "K = 2",
        "def now():\n    return K",
        "def stamp(f):\n    v = now()\n    return lambda: (v, f())",
        "@stamp\ndef helper():\n    return K",
    ]
    texts += ["K = 5", "def step():\n    return helper()"]
    namespace = replay(texts)
    there: dict = {}
    exec(capture(namespace["step"], cells_source(texts, namespace)).files["rml_step.py"], there)
    assert there["step"]() == namespace["step"]() == (2, 5)
