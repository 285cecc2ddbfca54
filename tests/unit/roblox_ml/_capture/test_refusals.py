"""What a slice refuses: each names cell and line, says why, and what to type instead; all at once."""

from __future__ import annotations

import pytest

from roblox_ml._capture import capture, capture_name, cells_source
from roblox_ml.errors import CaptureError

STEP = "def step(n: int = 1):\n    return {}\n"

# code, cells before the step, expression the step returns, where, a word of the fix
CASES = [
    ("live-object", ["import io", "client = io.StringIO('x')"], "client", "cell 2, line 1", "inside the step"),
    ("live-object", ["import threading\n\nlock = threading.Lock()"], "lock", "cell 1, line 3", "inside the step"),
    ("live-object", ["f = open('/dev/null')"], "f", "cell 1, line 1", "input"),
    ("computed-value", ["def load(): return 3", "\nrows = load()"], "rows", "cell 2, line 2", "parameter"),
    ("computed-value", ["import time", "NOW = time.time()"], "NOW", "cell 2, line 1", "parameter"),
    ("huge-value", ["DATA = [i for i in range(2_000_000)]"], "DATA[0]", "cell 1, line 1", "rml.datasets.add"),
    ("huge-value", ["X = 2_000_000", "DATA = list(range(X))"], "DATA[0]", "cell 2, line 1", "rml.datasets.add"),
    ("huge-literal", ["DATA = [" + "1," * 40_000 + "]"], "DATA[0]", "cell 1, line 1", "rml.datasets.add"),
    ("undefined-name", ["import json"], "jsn.dumps(n)", "cell 2, line 2", "`json`"),
    ("undefined-name", ["x = 1"], "np.zeros(n)", "cell 2, line 2", "import numpy as np"),
    ("undefined-name", ["x = 1"], "os.getcwd()", "cell 2, line 2", "import os"),
    ("undefined-name", ["x = 1"], "zzz", "cell 2, line 2", "parameter of the step"),
    ("lambda-in-container", ["OPS = {\n    'a': lambda x: x,\n}"], "OPS['a'](n)", "cell 1, line 2", "def"),
    ("lambda-in-container", ["OPS = [lambda x: x for _ in range(3)]"], "OPS", "cell 1, line 1", "def"),
    ("shadowed-name", ["rate = 0.1", "for rate in (1, 2):\n    pass"], "rate", "cell 2, line 1", "rename"),
    ("shadowed-name", ["import io\nwith io.StringIO('x') as handle:\n    pass"], "handle", "cell 1, line 2", "rename"),
    ("shadowed-name", ["e = 1", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    pass"], "e", "cell 2, line 3", "rename"),
    ("one-shot-value", ["pairs = zip([1], [2])"], "list(pairs)", "cell 1, line 1", "list("),
    ("one-shot-value", ["items = (i for i in [1])"], "list(items)", "cell 1, line 1", "list("),
    ("deleted-name", ["x = 1", "del x"], "x", "cell 2, line 1", "del"),
    ("dynamic-code", ["x = 1"], "eval('x')", "cell 2, line 2", "dict"),
    ("dynamic-code", ["x = 1"], "globals()['x']", "cell 2, line 2", "dict"),
    ("file-path", ["__file__ = 'x'; x = 1"][:0] or ["x = 1"], "__file__", "cell 2, line 2", "rml.datasets"),
    ("changed-value", ["D = {}", "exec('D[1] = 2')"], "D", "cell 1, line 1", "run this cell again"),
    ("uncarried-mutation", ["D = {}\ndef poke(t): t['a'] = 1", "poke(D)"], "D", "cell 2, line 1", "literals"),
    ("uncarried-mutation", ["L = []\nimport random", "L.append(random.random())"], "L", "cell 2, line 1", "literals"),
    ("uncarried-mutation", ["L = []\nimport time", "for i in [1]:\n    L.append(time.time())"], "L", "cell 2, line 2", "literals"),
    ("uncarried-mutation", ["def load():\n    global model\n    model = 3", "load()"], "model", "cell 1, line 1", "return"),
    ("uncarried-effect", ["import json", "json.limit = object().__hash__()"], "json.limit", "cell 2, line 1", "inside the step"),
    ("uncarried-effect", ["import random, time", "random.seed(time.time())"], "random.random()", "cell 2, line 1", "literal"),
    ("kernel-output", ["x = 1"], "_3", "cell 2, line 2", "name of your own"),
    ("secret", ["API = 'sk-proj-abcdefghijklmnop1234'"], "API", "cell 1, line 1", "os.environ"),
    ("secret", ["x = 1"], "'AKIAIOSFODNN7EXAMPLE'", "cell 2, line 2", "os.environ"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "cells", "expression", "where", "word"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_refused(notebook, code, cells, expression, where, word):
    if code == "kernel-output":
        notebook.namespace |= {"In": [], "_3": 1}
    finding = notebook.run(*cells, STEP.format(expression)).refusal()
    assert (finding.code, finding.where) == (code, where)
    assert word in finding.fix and finding.why
    line, caret = finding.source.split("\n")
    assert set(caret.strip()) == {"^"} and len(caret) <= len(line)


def test_all_findings_of_a_step_at_once(notebook):
    notebook.run("import io\na = io.StringIO()", "b = open('/dev/null')", "c = zip([1])")
    notebook.run("def step():\n    return a, b, list(c), missing_name")
    found = notebook.refusals()
    assert [f.code for f in found] == ["live-object", "live-object", "one-shot-value", "undefined-name"]
    assert [f.where for f in found] == ["cell 1, line 2", "cell 2, line 1", "cell 3, line 1", "cell 4, line 2"]


def test_a_refused_value_does_not_drag_its_own_needs_along(notebook):
    notebook.run(
        "import io\nbase = io.StringIO()",
        "derived = io.TextIOWrapper.__new__(io.TextIOWrapper) if base is None else open('/dev/null')",
    )
    notebook.run(STEP.format("derived"))
    assert notebook.refusal().where == "cell 2, line 1"


def test_message_names_the_type_and_size(notebook):
    class DataFrame:
        shape = (1000, 1)

    notebook.namespace["read"] = DataFrame
    notebook.cells.append("def read(): ...")
    notebook.run("df = read()", STEP.format("df"))
    finding = notebook.refusal()
    assert "DataFrame of shape 1,000 x 1" in finding.message and "df: rml.Dataset" in finding.fix


def test_default_values_are_judged_too(notebook):
    notebook.run("import time", "def helper(x=time.time(), *, y=(1, 2)):\n    return x", STEP.format("helper()"))
    finding = notebook.refusal()
    assert finding.where == "cell 2, line 1" and "time.time()" in finding.message and "default" in finding.message
    notebook.run("def step(x=time.time()):\n    return x")
    assert notebook.refusal().where == "cell 4, line 1"


def test_the_chain_of_use_is_named(notebook):
    notebook.run("import io\nout = io.StringIO()", "def helper():\n    return out", STEP.format("helper()"))
    assert "used by `helper` (cell 2, line 1)" in notebook.refusal().message


def test_name_without_a_statement(notebook):
    notebook.namespace["ghost"] = 3
    finding = notebook.run(STEP.format("ghost")).refusal()
    assert finding.code == "no-source" and finding.where == "cell 1, line 2"


def test_function_redefined_behind_the_cells_back(notebook):
    notebook.run("def helper(): return 1", STEP.format("helper()"))
    exec("def helper(): return 2", notebook.namespace)
    finding = notebook.refusal()
    assert (finding.code, finding.where) == ("changed-value", "cell 1, line 1")


def test_class_and_import_changed_behind_the_cells_back(notebook):
    notebook.run("import json\nclass A:\n    def m(self): return 1", STEP.format("json.dumps(A().m())"))
    exec("class A:\n    def m(self): return 2\nimport math as json", notebook.namespace)
    assert sorted(f.where for f in notebook.refusals()) == ["cell 1, line 1", "cell 1, line 2"]


def test_dataclass_instance_changed_by_a_call(notebook):
    notebook.run(
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    lr: float = 0.1", "cfg = C(lr=0.2)\ncfg.lr = 0.3"
    )
    notebook.run("def tweak(c): c.lr = 9.0", "tweak(cfg)", STEP.format("cfg.lr"))
    assert notebook.refusal().where == "cell 4, line 1"


@pytest.mark.parametrize(
    ("made", "change", "expression"),
    [
        ("import numpy as np\nA = np.zeros(3)", "A.fill(7)", "A.tolist()"),
        ("import numpy as np\nA = np.zeros(3)", "np.copyto(A, 5)", "A.tolist()"),
        ("from numpy import ones\nA = ones(3)", "poke(A, 0)", "A.tolist()"),
        ("from collections import Counter\nA = Counter()", "poke(A, 'a')", "dict(A)"),
        ("import collections\nA = collections.defaultdict(list)", "A['seen']", "dict(A)"),
        ("from collections import deque\nA = deque([1])", "poke(A, 0)", "list(A)"),
        ("from types import SimpleNamespace\nA = SimpleNamespace(lr=1)", "put(A)", "A.lr"),
        ("class A:\n    lr = 1", "put(A)", "A.lr"),
        ("def A(x=[]):\n    x.append(1)\n    return x", "A()", "A()"),
        ("def A(*, x={}):\n    x[1] = 1\n    return len(x)", "A()", "A()"),
        (
            "from dataclasses import dataclass, field\n@dataclass\nclass C:\n    seen: list = field(default_factory=list)\nA = C()",
            "put(A.seen.append(1) or A)",
            "A.seen",
        ),
    ],
)
def test_a_change_no_statement_shows(notebook, made, change, expression):
    notebook.run("def poke(a, key): a[key] = 5\ndef put(a): a.lr = 2", made, STEP.format(expression))
    notebook.capture()
    notebook.run(change)
    assert notebook.refusal().code in ("changed-value", "uncarried-mutation")


@pytest.mark.parametrize(
    ("cells", "expression"),
    [
        (["import numpy as np", "A = np.array([1.0, np.nan])\nB = A[:1]\nB[0] = 4\nA *= 2"], "A.tolist()"),
        (["import numpy as np", "A = np.array(['x', None], dtype=object)"], "A.tolist()"),
        (["import collections as c", "A = c.Counter('hello')\nA.update('x')\nA['y'] += 1"], "dict(A)"),
        (["class A:\n    lr = 1\n    names = ['a']\n    lr = 2", "A.names.append('b')"], "(A.lr, A.names)"),
        (["def A(x=[], *, y=(), z): return x, y, z"], "A(z=1)"),
        (["import enum", "class A(enum.IntEnum):\n    one = 1"], "A.one.value"),
        (["class Base:\n    def __init_subclass__(cls): cls.tag = 'set'", "class A(Base):\n    tag = 'x'"], "A.tag"),
    ],
)
def test_what_statements_show_is_carried(notebook, fresh, cells, expression):
    notebook.run(*cells, STEP.format(expression))
    made = fresh(notebook.capture())["step"]()
    assert repr(made) == repr(notebook.namespace["step"]())


@pytest.mark.parametrize(
    "cell",
    [
        "V = list({'neg', 'pos'})",
        "W = ['a', 'b', 'a']\nV = tuple(set(W))",
        "S = {'a', 'b'}\nV = {w: i for i, w in enumerate(S)}",
        "S = {'a'} | {'b'}\nV = [w for w in S]",
    ],
)
def test_the_order_of_a_set_is_another_in_every_process(notebook, cell):
    finding = notebook.run(cell, STEP.format("V")).refusal()
    assert finding.code == "unordered-value" and "sorted" in finding.fix


@pytest.mark.parametrize(
    "cell",
    [
        "V = sorted({'a', 'b'})",
        "V = {'a', 'b'}",
        "V = list({3, 1})",
        "V = sorted(list(set('ab')))",
        "V = list(set(range(9)))",
    ],
)
def test_sets_without_an_order_are_carried(notebook, fresh, cell):
    slice_ = notebook.run(cell, STEP.format("V")).capture()
    assert fresh(slice_)["step"]() == notebook.namespace["V"]


@pytest.mark.parametrize(
    "cell", ["import os\nP = os.path.abspath('x')", "from pathlib import Path\nP = Path.cwd() / 'x'"]
)
def test_the_working_directory_is_the_kernels(notebook, cell):
    finding = notebook.run(cell, STEP.format("P")).refusal()
    assert finding.code in ("computed-value", "live-object") and finding.where == "cell 1, line 2"


def test_a_cell_that_stopped_half_way(notebook):
    notebook.run("x = 1")
    notebook.cells.append("1 / 0\nTHRESHOLD = 3")
    notebook.run(STEP.format("THRESHOLD"))
    finding = notebook.refusal()
    assert (
        finding.code == "changed-value" and finding.where == "cell 2, line 2" and "stopped with an error" in finding.why
    )


def test_a_cell_that_is_not_python_is_named(notebook):
    notebook.cells.append("def broken(:")
    assert "cell 1 is not valid Python" in notebook.run(STEP.format("broken()")).refusal().why


def test_stale_step(notebook):
    notebook.run(STEP.format("1"))
    old = notebook.namespace["step"]
    notebook.cells[0] = STEP.format("2")
    with pytest.raises(CaptureError) as caught:
        capture(old, notebook.source)
    assert caught.value.findings[0].code == "stale-step"


def test_an_older_definition_is_found_by_its_code(notebook, fresh):
    notebook.run(STEP.format("1"))
    old = notebook.namespace["step"]
    notebook.run(STEP.format("2"))
    assert fresh(capture(old, notebook.source))["step"]() == 1


def test_own_name_bound_to_something_else(notebook):
    notebook.run("def step(n=1):\n    return step if n else 0")
    fn = notebook.namespace["step"]
    notebook.run("step = 3")
    with pytest.raises(CaptureError) as caught:
        capture(fn, notebook.source)
    assert [(f.code, f.where) for f in caught.value.findings] == [("shadowed-name", "cell 2, line 1")]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("async def step():\n    return 1", "async-step"),
        ("def step():\n    yield 1", "generator-step"),
        ("step = lambda: 1", "lambda-step"),
        ("step = 3", "not-a-function"),
        ("def outer():\n    k = 1\n    def step():\n        return k\n    return step\nstep = outer()", "nested-step"),
    ],
)
def test_forms_no_step_can_have(notebook, cell, code):
    finding = notebook.run(cell).refusal()
    assert finding.code == code and finding.fix
    if code == "nested-step":
        assert finding.where == "cell 1, line 3" and "`k`" in finding.message


def test_exec_without_source():
    scope: dict = {"__name__": "__main__"}
    exec("def step(): return 1", scope)
    with pytest.raises(CaptureError) as caught:
        capture(scope["step"])
    assert caught.value.findings[0].code == "no-source"


def test_no_such_function():
    with pytest.raises(CaptureError):
        capture_name("nope", cells_source(["x = 1"]))


def test_a_secret_is_not_repeated_in_the_error(notebook):
    finding = notebook.run("KEY = 'ghp_abcdefghijklmnopqrstuvwxyz0123'", STEP.format("KEY")).refusal()
    assert "ghp_" not in str(finding)


@pytest.mark.parametrize(
    "text",
    [
        "PAD = '[PAD]'", "api_key = 'OPENAI_API_KEY'", "password = 'changeme-now'", "url = 'https://example.com/a:b@c'",
        "token = 'abcdefgh12345'", "hf_model = 'sentence-transformers/all-MiniLM-L6-v2'", "PASSWORD = ''",
    ],
)  # fmt: skip
def test_harmless_literals_are_no_secrets(only_text, text):
    name = text.partition(" ")[0]
    assert text in only_text(text, STEP.format(name))


@pytest.mark.parametrize(
    "text",
    [
        "KEY = '''-----BEGIN RSA PRIVATE KEY-----\\nabc'''", "DB = 'postgresql://me:hunter22@db/x'", "db_password = 'hunter22-x'",
        "C = dict(api_key='0123abcd4567')", "D = {'secret': 'A1b2C3d4E5'}", "H = 'hf_" + "aB3" * 10 + "'",
    ],
)  # fmt: skip
def test_credentials(text):
    name = text.partition(" ")[0]
    with pytest.raises(CaptureError) as caught:
        capture_name("step", cells_source([text, STEP.format(name)]))
    assert [f.code for f in caught.value.findings] == ["secret"]
