"""Runs generated notebooks in real IPython shells, one forked process each: `kernel.py FOLDER`, jobs as JSON lines on stdin.

For each job it executes the cells, captures the step, calls the step, and writes what came of it to `FOLDER/<seed>.json`.
The value of the step is taken in the kernel itself, after capture: the oracle is Python.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from roblox_ml._capture import capture
from roblox_ml._history import watch
from roblox_ml.errors import CaptureError

_dumps = json.dumps  # notebooks patch modules


def main(folder: Path) -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                result = _run(job, folder / str(job["seed"]))
                (folder / f"{job['seed']}.json").write_text(_dumps(result))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.waitpid(child, 0)


def _run(job: dict[str, Any], home: Path) -> dict[str, Any]:
    home.mkdir()
    for path, text in job["files"].items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    os.chdir(home)
    sys.path.insert(0, "")
    shell = _shell()
    numbers: list[int] = []
    failed: list[int] = []
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for text in job["cells"]:
            result = shell.run_cell(text, store_history=True)
            numbers.append(result.execution_count)
            if not result.success:
                failed.append(result.execution_count)
        probes = [probe for probe in job["probes"] if all(name in shell.user_ns for name in probe[2])]
        shell.run_cell(job["step"][0], store_history=True)
        text = job["step"][1].replace("PROBES", repr([p[1] for p in probes]))
        scope: dict[str, Any] = {}
        exec(text, scope)
        shell.run_cell(scope["made"], store_history=True)
    made: dict[str, Any] = {
        "numbers": numbers,
        "failed": failed,
        "used": sorted({p[0] for p in probes}),
        "step": scope["made"],
    }
    try:
        slice_ = capture(shell.user_ns["step"])
    except CaptureError as refusal:
        made["findings"] = [[f.code, f.where, f.message] for f in refusal.findings]
        return made
    made["shipped"] = {path: data.decode() for path, data in slice_.files.items()}
    with contextlib.redirect_stdout(said):
        made["value"] = list(shell.user_ns["step"]())
    return made


def _shell() -> InteractiveShell:
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    shell.showtraceback = lambda *_, **__: None
    watch()  # what importing the SDK in a kernel does; here it was imported before there was one
    shell.run_cell("import roblox_ml as rml", store_history=True)
    return shell


if __name__ == "__main__":
    main(Path(sys.argv[1]))
