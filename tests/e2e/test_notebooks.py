"""Ten notebooks as people write them run unchanged in a real kernel, and their steps give what the kernel has.

A notebook says in its metadata which task's output equals which of its variables, and, where somebody worked out of order,
in which order its code cells were run. Steps run as processes of their own, from what capture shipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

CHECK = """
import math

def _same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float):
        return math.isclose(left, right, rel_tol=1e-9) or (math.isnan(left) and math.isnan(right))
    return left == right

for _task, _expression in {equals!r}.items():
    _got = run.outputs[_task]
    _got = dict(_got.metadata) if hasattr(_got, "metadata") else _got
    _wanted = eval(_expression)
    if isinstance(_wanted, dict) and isinstance(_got, dict):
        _got = {{key: value for key, value in _got.items() if not str(key).startswith("rml.")}}
    assert _same(_got, _wanted), f"{{_task}}: the step has {{_got!r}}, the kernel {{_wanted!r}}"
    assert "Traceback" not in run.logs(_task)

import roblox_ml as _rml
from roblox_ml._graph.step import Step as _Step
for _name, _value in list(globals().items()):
    if isinstance(_value, _Step):
        _told = _rml.explain(_value)
        assert _told.ships and _told.in_place, str(_told)
        assert "<script" not in _told._repr_html_()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy beside which nothing else lies, and a home that all of them share: an index is asked once."""
    copy = tmp_path_factory.mktemp("work") / "notebooks"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    yield copy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_step_has_what_the_kernel_has(
    path: Path, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_HOME", str(home))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(folder / path.name, as_version=4)
    about: dict[str, Any] = notebook.metadata["roblox_ml"]
    code = [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    order = [code[n] for n in about.get("order", range(len(code)))]
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel(env=dict(os.environ)):
        for number in order:
            client.execute_cell(notebook.cells[number], number)
        check = nbformat.v4.new_code_cell(CHECK.format(equals=dict(about["equals"])))
        notebook.cells.append(check)
        client.execute_cell(check, len(notebook.cells) - 1)


def test_there_are_ten_and_none_holds_what_an_execution_left() -> None:
    assert len(NOTEBOOKS) == 10
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert cell.cell_type != "code" or not (cell.outputs or cell.execution_count), path.name
