"""Wrong programs, typed into a real IPython shell: one error each, naming cell and line, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from roblox_ml.errors import PipelineError

HEAD = "import roblox_ml as rml"
TAIL = "@rml.pipeline\ndef flow():\n    use()"
CALLS_USE = "flow.compile({path!r})"


def program(*cells: str) -> list[str]:
    return [HEAD, *cells, TAIL]


# name: (cells, code, cell, line, words of the why or fix). Cells are counted from 1; the first is the import.
PROGRAMS: dict[str, tuple[list[str], str, int, int | None, str]] = {
    "live client": (
        program("import sqlite3\nclient = sqlite3.connect(':memory:')", "@rml.step\ndef use() -> str:\n    return str(client)"),
        "live-object", 2, 2, "step",
    ),
    "computed global": (
        program("import csv, io\nrows = csv.reader(io.StringIO('a,b'))", "@rml.step\ndef use() -> int:\n    return len(list(rows))"),
        "", 2, 2, "input",
    ),
    "two million elements": (
        program("big = list(range(2_000_000))", "@rml.step\ndef use() -> int:\n    return len(big)"),
        "huge-value", 2, 1, "",
    ),
    "missing import": (
        program("@rml.step\ndef use() -> float:\n    return math.sqrt(2)"),
        "undefined-name", 2, 3, "import math",
    ),
    "typo": (
        program("threshold = 3", "@rml.step\ndef use() -> int:\n    return treshold"),
        "undefined-name", 3, 3, "threshold",
    ),
    "if on an output": (
        [HEAD, "@rml.step\ndef use() -> int:\n    return 1", "@rml.pipeline\ndef flow():\n    if use() > 0:\n        use()"],
        "condition-in-python", 3, 3, "rml.when",
    ),
    "loop over an output": (
        [HEAD, "@rml.step\ndef use() -> list[int]:\n    return [1]", "@rml.pipeline\ndef flow():\n    for item in use():\n        use()"],
        "loop-in-python", 3, 3, ".map",
    ),
    "arithmetic on an output": (
        [HEAD, "@rml.step\ndef use(x: int = 0) -> int:\n    return 1", "@rml.pipeline\ndef flow():\n    use(use() + 1)"],
        "arithmetic-on-output", 3, 3, "step",
    ),
    "output in an f-string": (
        [HEAD, "@rml.step\ndef use(x: str = '') -> str:\n    return x", "@rml.pipeline\ndef flow():\n    use(f'{use()}!')"],
        "text-of-output", 3, 3, "",
    ),
    "wrong type between steps": (
        [HEAD, "@rml.step\ndef use() -> rml.Dataset:\n    return rml.Dataset()",
         "@rml.step\ndef train(model: rml.Model) -> int:\n    return 1",
         "@rml.pipeline\ndef flow():\n    train(use())"],
        "wrong-type", 4, 3, "Model",
    ),
    "text for a number": (
        [HEAD, "@rml.step\ndef use(n: int) -> int:\n    return n", "@rml.pipeline\ndef flow():\n    use('three')"],
        "wrong-type", 3, 3, "int",
    ),
    "unknown argument": (
        [HEAD, "@rml.step\ndef use(epochs: int = 1) -> int:\n    return epochs", "@rml.pipeline\ndef flow():\n    use(epoch=2)"],
        "unknown-argument", 3, 3, "epochs",
    ),
    "missing argument": (
        [HEAD, "@rml.step\ndef use(epochs: int) -> int:\n    return epochs", "@rml.pipeline\ndef flow():\n    use()"],
        "missing-argument", 3, 3, "epochs",
    ),
    "lambda in a dict": (
        program("scores = {'double': lambda x: 2 * x}", "@rml.step\ndef use() -> int:\n    return scores['double'](2)"),
        "lambda-in-container", 2, 1, "def",
    ),
    "the notebook's own name": (
        program("where = __name__", "@rml.step\ndef use() -> str:\n    return where"),
        "kernel-module", 2, 1, "__name__",
    ),
    "shadowed by a loop": (
        program("rate = 1", "for rate in open('/etc/hostname'):\n    pass", "@rml.step\ndef use() -> str:\n    return str(rate)"),
        "", 3, 1, "rate",
    ),
    "mutated by a call in another cell": (
        program("import random\nitems = [1, 2]", "items.append(random.random())", "@rml.step\ndef use() -> int:\n    return len(items)"),
        "uncarried-mutation", 3, 1, "items",
    ),
    "nested step": (
        [HEAD, "def make(n):\n    @rml.step\n    def use() -> int:\n        return n\n    return use", "use = make(3)", TAIL],
        "nested-step", 2, None, "",
    ),
    "magic": (
        program("files = !ls", "@rml.step\ndef use() -> int:\n    return len(files)"),
        "", 2, 1, "files",
    ),
    "async step": (
        program("@rml.step\nasync def use() -> int:\n    return 1"),
        "", 2, None, "async",
    ),
    "exec in a step": (
        program("@rml.step\ndef use() -> int:\n    exec('x = 1')\n    return 1"),
        "dynamic-code", 2, 3, "",
    ),
    "a secret in the code": (
        program("@rml.step\ndef use() -> str:\n    return 'AKIAIOSFODNN7EXAMPLE'"),
        "secret", 2, 3, "",
    ),
}  # fmt: skip

# Refused where it is written, when the decorator runs.
AT_DEFINITION: dict[str, tuple[str, str, str]] = {
    "unknown resource": ("@rml.step(cpus=2)\ndef use() -> int:\n    return 1", "unknown-option", "cpu"),
    "bad memory": ("@rml.step(memory='4 gigs')\ndef use() -> int:\n    return 1", "", "4Gi"),
    "bad timeout": ("@rml.step(timeout='soon')\ndef use() -> int:\n    return 1", "", "timeout"),
    "no annotation": ("@rml.step\ndef use(n) -> int:\n    return n", "missing-annotation", "n"),
    "unsupported annotation": ("@rml.step\ndef use(n: object) -> int:\n    return 1", "", "object"),
    "mutable default": ("@rml.step\ndef use(n: list = []) -> int:\n    return 1", "mutable-default", "n"),
}


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    yield made
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cells: list[str]) -> PipelineError | None:
    for cell in cells:
        result = shell.run_cell(cell, store_history=True)
        error = result.error_in_exec or result.error_before_exec
        if isinstance(error, PipelineError):
            return error
        assert error is None, error
    return None


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_program_is_refused_with_cell_reason_and_remedy(name: str, shell: InteractiveShell, tmp_path) -> None:
    cells, code, cell, line, words = PROGRAMS[name]
    error = run(shell, [*cells, CALLS_USE.format(path=str(tmp_path / "flow.yaml"))])
    assert error is not None, "the program was accepted"
    assert len(error.findings) == 1, str(error)
    finding = error.findings[0]
    if code:
        assert code in finding.code, str(error)
    where = re.match(r"cell (\d+)(?:, line (\d+))?", finding.where)
    assert where is not None, finding.where
    assert int(where[1]) == cell, str(error)
    if line is not None:
        assert where[2] is not None and int(where[2]) == line, str(error)
    assert finding.why and finding.fix
    assert words.lower() in str(error).lower()
    assert not (tmp_path / "flow.yaml").exists(), "nothing may be written for a refused program"


@pytest.mark.parametrize("name", AT_DEFINITION)
def test_a_wrong_declaration_is_refused(name: str, shell: InteractiveShell, tmp_path) -> None:
    cell, code, words = AT_DEFINITION[name]
    error = run(shell, [*program(cell), CALLS_USE.format(path=str(tmp_path / "flow.yaml"))])
    assert error is not None, "the program was accepted"
    assert len(error.findings) == 1, str(error)
    finding = error.findings[0]
    assert code in finding.code, str(error)
    assert "cell 2" in finding.where, finding.where
    assert words in str(error)


def test_a_cycle_is_named(shell: InteractiveShell, tmp_path) -> None:
    cells = [HEAD, "@rml.step\ndef a() -> int:\n    return 1\n\n@rml.step\ndef b() -> int:\n    return 1",
             "@rml.pipeline\ndef flow():\n    one = a()\n    two = b()\n    one.after(two)\n    two.after(one)"]  # fmt: skip
    error = run(shell, [*cells, CALLS_USE.format(path=str(tmp_path / "flow.yaml"))])
    assert error is not None and len(error.findings) == 1
    assert "cycl" in error.findings[0].code and "a" in error.findings[0].message and "b" in error.findings[0].message


def test_all_findings_come_at_once(shell: InteractiveShell, tmp_path) -> None:
    cells = [
        HEAD,
        "where = __name__",
        "@rml.step\ndef one() -> str:\n    return where",
        "@rml.step\ndef two(n: int) -> int:\n    return nothing_like_it",
        "@rml.pipeline\ndef flow():\n    one()\n    two('three')\n    two(n=1, m=2)",
    ]
    error = run(shell, [*cells, CALLS_USE.format(path=str(tmp_path / "flow.yaml"))])
    assert error is not None
    assert len(error.findings) == 4, str(error)
    assert all(f"cell {number}" in str(error) for number in (2, 4, 5))
