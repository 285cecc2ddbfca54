"""Run one recorded step in this process, so that breakpoints, `pdb` and an IDE's debugger work on it.

Same inputs, same shipped source, same protocol as in the step's own process; the outputs go to a temporary folder. The
step's modules are imported fresh and forgotten afterwards: a module of the same name here stays what it was.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..._runtime import bundles, executor
from ...errors import RunError
from .record import RunFolder
from .spec import Container, load

__all__ = ["run_here"]


def run_here(folder: RunFolder, task: str) -> Any:
    """What the step's function returns."""
    recorded = folder.task(task) / "executor_input.json"
    if not recorded.is_file():
        raise RunError(
            f"run {folder.id} has no recorded inputs of {task!r}",
            why="the step came from the cache, or what it waits for never finished",
            fix="debug the run that did the work, or run again with cache=False",
        )
    arguments = _arguments(_container(folder, task))
    executor_input = json.loads(recorded.read_text("utf-8"))
    _redirect(executor_input, Path(tempfile.mkdtemp(prefix="rml-debug-")))
    code = arguments.get("--code", "none")
    bundle = bundles.unpacked(code) if code != "none" else None
    with _imported_from(bundle), _environment(RML_RUN_ID=folder.id, RML_TASK=task):
        return executor.call(executor_input, arguments["--entry"], code, arguments.get("--lock", "none"))


def _container(folder: RunFolder, task: str) -> Container:
    """The container a task of this run is made of."""
    from .names import Names, base_name

    spec = load((folder.path / "ir.yaml").read_bytes())
    names = Names(spec)
    for path, component in names.leaves():
        if names.of(path) == base_name(task) and component.container is not None:
            return component.container
    raise RunError(f"the pipeline of run {folder.id} has no step {task!r}")


def _arguments(container: Container) -> dict[str, str]:
    if "--entry" not in container.args:
        raise RunError("only steps made by roblox_ml can be debugged here: this one is another container")
    return dict(zip(container.args[::2], container.args[1::2], strict=False))


def _redirect(executor_input: dict[str, Any], place: Path) -> None:
    """Outputs into `place`: the recorded ones must stay what they are."""
    outputs = executor_input["outputs"]
    outputs["outputFile"] = str(place / "executor_output.json")
    for name, output in (outputs.get("parameters") or {}).items():
        output["outputFile"] = str(place / "outputs" / name)
    for name, listed in (outputs.get("artifacts") or {}).items():
        listed["artifacts"][0]["uri"] = str(place / "artifacts" / name)


@contextmanager
def _imported_from(bundle: Path | None) -> Iterator[None]:
    if bundle is None:
        yield
        return
    shipped = {path.name.removesuffix(".py") for path in bundle.iterdir() if path.suffix == ".py" or path.is_dir()}
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in shipped}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        sys.path.remove(str(bundle))
        for name in [name for name in sys.modules if name.partition(".")[0] in shipped]:
            del sys.modules[name]
        sys.modules.update(hidden)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
