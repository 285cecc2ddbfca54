"""A real IPython: executed cells, out of order, run again, with magics, failing and deleted."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from roblox_ml._capture import capture
from roblox_ml.errors import CaptureError


class Kernel:
    def __init__(self) -> None:
        self.shell = InteractiveShell()
        self.shell.run_cell("", store_history=True)

    def run(self, *cells: str, ok: bool = True) -> Kernel:
        for cell in cells:
            assert self.shell.run_cell(cell, store_history=True, silent=False).success is ok
        return self

    def capture(self, name: str = "step"):
        return capture(self.shell.user_ns[name])

    def text(self, name: str = "step") -> str:
        return self.capture(name).files["rml_step.py"].decode()

    def refusal(self, name: str = "step"):
        with pytest.raises(CaptureError) as caught:
            self.capture(name)
        assert len(caught.value.findings) == 1, str(caught.value)
        return caught.value.findings[0]


@pytest.fixture
def kernel(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return Kernel()


def result(text: str):
    scope: dict = {"__name__": "rml_step"}
    exec(text, scope)
    return scope["step"]()


def test_out_of_order_and_run_again(kernel):
    kernel.run("def step():\n    return helper() + [RATE]", "RATE = 1", "def helper():\n    return [RATE * 2]")
    before = kernel.text()
    kernel.run(
        "RATE = 1",
        "def helper():\n    return [RATE * 2]",
        "def step():\n    return helper() + [RATE]",
        "unrelated = object()",
    )
    assert kernel.text() == before
    kernel.run("RATE = 5")
    assert result(kernel.text()) == [10, 5] == kernel.shell.user_ns["step"]()


def test_cells_are_numbered_as_jupyter_shows_them(kernel):
    kernel.run("import io", "\nclient = io.StringIO()", "def step():\n    return client")
    number = kernel.shell.execution_count - 2
    finding = kernel.refusal()
    assert finding.where == f"cell {number}, line 2" and finding.code == "live-object"
    assert finding.source == "client = io.StringIO()\n         ^^^^^^^^^^^^^"


def test_cells_under_time_count_as_code(kernel):
    kernel.run("%%time\nA = 1\nB = open('/dev/null')", "def step():\n    return A")
    assert "A = 1" in kernel.text()
    kernel.run("def step():\n    return B")
    assert kernel.refusal().where.endswith("line 3")


def test_a_step_under_time(kernel):
    kernel.run("RATE = 2", "%%time\ndef helper():\n    return RATE\ndef step():\n    return helper()")
    assert result(kernel.text()) == 2
    kernel.run("exec('def step(): return 3')")
    assert kernel.refusal().code in ("no-source", "stale-step")


def test_magics_beside_are_ignored_and_magics_needed_are_refused(kernel):
    kernel.run("%config InlineBackend\nA = 1" if False else "A = 1\n%who\nfiles = !echo x", "def step():\n    return A")
    assert result(kernel.text()) == 1
    kernel.run("def step():\n    return files")
    finding = kernel.refusal()
    assert finding.code == "magic" and finding.source.startswith("files = !echo x")
    kernel.run("def step():\n    !echo hello\n    return 1")
    assert kernel.refusal().code == "magic"


def test_top_level_await(kernel):
    kernel.run("async def fetch():\n    return 3", "A = 1\nvalue = await fetch()", "def step():\n    return A")
    assert result(kernel.text()) == 1
    kernel.run("def step():\n    return value")
    assert kernel.refusal().code == "top-level-await"


def test_future_import_reaches_later_cells(kernel):
    kernel.run("from __future__ import annotations", "def step(x: NoSuchName = 1):\n    return x")
    assert result(kernel.text()) == 1


def test_output_history_and_display(kernel):
    kernel.run("3", "def step():\n    return _")
    assert kernel.refusal().code in ("kernel-output", "no-source")
    kernel.run("def step():\n    return Out")
    assert kernel.refusal().code == "kernel-output"
    kernel.run("def step():\n    display(1)")
    assert "IPython.display" in kernel.refusal().fix


def test_a_cell_that_stopped_half_way(kernel):
    kernel.run("LIMIT = 1").run("1 / 0\nLIMIT = 2", ok=False).run("def step():\n    return LIMIT")
    finding = kernel.refusal()
    assert finding.code == "changed-value" and finding.where.endswith("line 2")


def test_a_definition_whose_cell_was_edited_away(kernel):
    kernel.run("def helper():\n    return 1", "def step():\n    return helper()", "del helper")
    assert kernel.refusal().code == "deleted-name"


def test_names_from_run_and_exec(kernel, tmp_path):
    (tmp_path / "other.py").write_text("GHOST = [1]\n")
    kernel.run(f"%run {tmp_path / 'other.py'}", "def step():\n    return GHOST")
    assert kernel.refusal().code == "no-source"
    kernel.run("exec('PHANTOM = 2')", "def step():\n    return PHANTOM")
    assert kernel.refusal().code == "no-source"


def test_a_decorated_step(kernel):
    kernel.run("import roblox_ml as rml\nimport functools", "@rml.step(cpu=2)\ndef step() -> int:\n    return 1")
    assert "rml" not in kernel.text()


def test_a_step_imported_from_a_file(kernel, tmp_path, monkeypatch):
    (tmp_path / "my_steps_module.py").write_text("K = 2\ndef step():\n    return K\nprint_me = open\n")
    monkeypatch.syspath_prepend(tmp_path)
    kernel.run("from my_steps_module import step")
    slice_ = kernel.capture()
    assert list(slice_.files) == ["rml_step.py"] and result(slice_.files["rml_step.py"].decode()) == 2
