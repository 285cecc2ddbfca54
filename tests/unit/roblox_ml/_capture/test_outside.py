"""State outside the notebook's names: modules, the process, caches, files, functions that change things for others."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from roblox_ml._capture import capture
from roblox_ml._history import watch
from roblox_ml.errors import CaptureError

STEP = "def step(n: int = 1):\n    return {}\n"


@pytest.mark.parametrize(
    ("cells", "expression", "code", "where"),
    [
        (["T = []\ndef a(): T.append(1)\ndef b(): a()", "b()"], "T", "uncarried-mutation", "cell 2"),
        (["T = {}\ndef a():\n    t = T\n    t['x'] = 1", "print(a())"], "T", "uncarried-mutation", "cell 2"),
        (["T = []\ndef a(rows): b(rows)\ndef b(rows): rows.append(1)", "a(T)"], "T", "uncarried-mutation", "cell 2"),
        (["class A:\n    rate = 1", "A.rate = 2", "def up(): A.rate += 1", "up()"], "A.rate", "uncarried-mutation", "cell 4"),
        (["def f():\n    f.n += 1\nf.n = 0", "f()"], "f.n", "uncarried-mutation", "cell 2"),
        (["import string\ndef patch(): string.digits = 'x'", "patch()"], "string.digits", "uncarried-effect", "cell 2"),
        (["import random\ndef seed(): random.seed(3)", "seed()"], "random.random()", "uncarried-effect", "cell 2"),
        (["import os\nimport time", "os.environ['Q'] = str(time.time())"], "os.getenv('Q')", "uncarried-effect", "cell 2"),
        (["import sys\nA = 1"], "sys.modules['__main__'].A", "kernel-module", "cell 2"),
        (["A = 1\ndef f():\n    import __main__\n    return __main__.A"], "f()", "kernel-module", "cell 1"),
        (["def f(): return __name__"], "f()", "kernel-module", "cell 1"),
        (["class A: pass\ndef f(): return A.__subclasses__()"], "f()", "dynamic-code", "cell 1"),
        (["import functools\nK = 1\n@functools.cache\ndef f(): return K", "f()", "K = 2"], "f()", "changed-value", "cell 1"),
    ],
)  # fmt: skip
def test_refused_where_it_happens(notebook, cells, expression, code, where):
    finding = notebook.run(*cells, STEP.format(expression)).refusal()
    assert finding.code == code and finding.where.startswith(where)


@pytest.mark.parametrize(
    ("cells", "expression"),
    [
        (["import random", "random.seed(5)", "noise = random.random()"], "(noise, random.random())"),
        (["import random\nD = [1, 2, 3, 4]", "random.seed(1)\nrandom.shuffle(D)", "random.seed(1)\nrandom.shuffle(D)"], "D"),
        (["from math import *", "pi = 3"], "(pi, floor(e))"),
        (["e = 'mine'", "from math import *"], "e"),
        (["R = {}\nclass A:\n    def __init_subclass__(cls): R[cls.__name__] = 1", "class B(A): pass"], "R"),
        (["class M(type):\n    made = []\n    def __init__(cls, *a): M.made.append(cls.__name__)", "class B(metaclass=M): pass"], "M.made"),
        (["import abc\nclass A(abc.ABC): pass\nclass B: pass", "A.register(B)"], "isinstance(B(), A)"),
        (["T = []\ndef see(x): T.append(x)", "list(map(see, [1]))"], "T"),
        (["P = Q = [1]", "P.append(2)"], "(P, Q)"),
        (["import functools\n@functools.cache\ndef f(n): return n * 2", "f(4)"], "f(4)"),
        (["import logging\nlog = logging.getLogger(__name__)"], "log is not None"),
    ],
)  # fmt: skip
def test_carried(notebook, fresh, cells, expression):
    import logging
    import random

    notebook.run(*cells, STEP.format(expression))
    slice_ = notebook.capture()
    there = fresh(slice_)["step"]()  # also sets the shared generators anew
    state = random.getstate()
    fresh(slice_)
    assert repr(notebook.namespace["step"]()) == repr(there)
    random.setstate(state)
    logging.getLogger().setLevel(logging.WARNING)


def test_values_no_statement_changes_are_compared(notebook):
    notebook.run(
        "from dataclasses import dataclass, field\n@dataclass\nclass C:\n    lr: float = 0.1\n    tags: list = field(default_factory=list)"
    )
    notebook.run("runs = [C(), C(lr=2)]", STEP.format("[r.lr for r in runs]"))
    notebook.capture()
    notebook.namespace["runs"][1].tags.append("behind its back")
    finding = notebook.refusal()
    assert (finding.code, finding.where) == ("changed-value", "cell 2, line 1")


def test_a_pydantic_model_changed_behind_its_back(notebook):
    notebook.run("from pydantic import BaseModel\nclass Conf(BaseModel):\n    lr: float = 1\n    names: list[str] = []")
    notebook.run("conf = Conf(lr=2)", STEP.format("conf.lr"))
    notebook.capture()
    notebook.namespace["conf"].lr = 3.5
    assert notebook.refusal().where == "cell 2, line 1"


def test_files_beside_the_notebook(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("1")
    notebook.run(
        "from pathlib import Path\nDATA = Path('rows.csv')",
        "def rows(): return DATA.read_text()",
        STEP.format("rows()"),
    )
    finding = notebook.refusal()
    assert (finding.code, finding.where) == ("file-path", "cell 2, line 1") and "rml.datasets.add" in finding.fix
    notebook.run("def rows():\n    open('rows.csv', 'w').write('2')\n    return open('rows.csv').read()")
    notebook.capture()


def test_a_local_module_is_compared_with_its_file(notebook, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shelf_of_a_test.py").write_text(
        "LEVEL = 1\ndef put(n):\n    global LEVEL\n    LEVEL = n\ndef get(): return LEVEL\n"
    )
    notebook.run("import shelf_of_a_test as shelf", STEP.format("shelf.get()"))
    notebook.capture()
    notebook.run("shelf.put(4)")
    assert {f.where for f in notebook.refusals()} >= {"cell 3, line 1"}
    notebook.run("shelf.put(1)")
    notebook.capture()  # as the file makes it again
    notebook.run("shelf.LEVEL = 7")
    assert b"shelf.LEVEL = 7" in notebook.capture().files["rml_step.py"]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    made = InteractiveShell.instance()
    watch()
    yield made
    InteractiveShell.clear_instance()


def test_a_watched_kernel_knows_how_far_a_cell_came(shell):
    for cell in (
        "A = 1\nB = [0]",
        "A = 2\nB.append(1)\n1 / 0\nA = 3\ndef helper(): return 9",
        "def step(): return A, B",
    ):
        shell.run_cell(cell, store_history=True)
    text = capture(shell.user_ns["step"]).files["rml_step.py"].decode()
    scope: dict = {}
    exec(text, scope)
    assert scope["step"]() == (2, [0, 1]) == shell.user_ns["step"]()
    shell.run_cell("for q in [1, 0]:\n    B.append(1 // q)", store_history=True)
    with pytest.raises(CaptureError) as caught:
        capture(shell.user_ns["step"])
    assert (
        caught.value.findings[0].code == "uncarried-mutation"
        and "ZeroDivisionError" in caught.value.findings[0].message
    )
