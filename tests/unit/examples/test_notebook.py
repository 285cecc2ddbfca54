"""The notebook as it lies in the repository: short cells, nothing executed, nothing of the machine it was written on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = sorted((Path(__file__).resolve().parents[3] / "examples").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    problems = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code":
            continue
        compile(
            TransformerManager().transform_cell(cell.source),
            path.name,
            "exec",
            ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )  # magics become calls; await may stand at the top
        if cell.outputs or cell.execution_count:
            problems.append(f"cell {number} was saved with its output")
        if len(cell.source.splitlines()) > 70:
            problems.append(f"cell {number} is too long to read")
        if found := re.search(r"(?<![\w.])/(?:home|tmp|work|Users|root)/\S*", cell.source):
            problems.append(f"cell {number} names a place on somebody's machine: {found.group()}")
    assert not problems


def test_the_demo_and_ten_notebooks_are_here() -> None:
    assert "comment_sentiment" in {path.stem for path in NOTEBOOKS}
    assert len([path for path in NOTEBOOKS if path.parent.name == "notebooks"]) == 10
