"""Find the pipeline in a .py file or a notebook, so that `rml run file` needs no import path."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from .._graph.pipeline import Pipeline


def load_pipeline(target: str) -> Pipeline:
    """The pipeline `FILE[:NAME]` names; the file's only one when no name is given."""
    file, _, name = target.partition(":")
    path = Path(file)
    return _choose(load_names(path), name, path)


def load_names(path: Path) -> Mapping[str, Any]:
    """What a file or notebook defines, after running it."""
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {str(path)!r}", param_hint="FILE")
    return _run_notebook(path) if path.suffix == ".ipynb" else _import_file(path)


def _import_file(path: Path) -> Mapping[str, Any]:
    """Import under the file's own name, with its folder importable as `python file.py` would have it."""
    _importable(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"{path} is not a Python file or a notebook", param_hint="FILE")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return vars(module)


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _run_notebook(path: Path) -> Mapping[str, Any]:
    """Execute the notebook's cells in this process, as a kernel would (in the notebook's folder), and return its names."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    folder = path.resolve().parent
    _importable(folder)
    for number, cell in enumerate(json.loads(path.read_text())["cells"], start=1):
        if cell["cell_type"] != "code":
            continue
        with contextlib.chdir(folder):
            result = shell.run_cell("".join(cell["source"]), store_history=True)
        if not result.success:
            raise typer.BadParameter(
                f"cell {number} of {path} failed: {result.error_in_exec or result.error_before_exec}", param_hint="FILE"
            )
    names: Mapping[str, Any] = shell.user_ns
    return names


def _choose(names: Mapping[str, Any], name: str, path: Path) -> Pipeline:
    from .._graph.pipeline import Pipeline

    found = {key: value for key, value in names.items() if isinstance(value, Pipeline)}
    if name:
        if name not in found:
            raise typer.BadParameter(
                f"{path} has no pipeline {name!r}; it has: {', '.join(found) or 'none'}", param_hint="FILE:PIPELINE"
            )
        return found[name]
    distinct = {id(value): key for key, value in found.items()}
    if len(distinct) != 1:
        what = (
            f"several pipelines ({', '.join(sorted(distinct.values()))}): say which, {path}:NAME"
            if distinct
            else "no function decorated with @rml.pipeline"
        )
        raise typer.BadParameter(f"{path} has {what}", param_hint="FILE")
    return found[next(iter(distinct.values()))]
