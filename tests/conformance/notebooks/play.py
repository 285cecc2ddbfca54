"""Play generated notebooks: in kernels (one subprocess that forks), then each slice in a fresh interpreter; compare.

The judgement of a refusal is the generator's: it must name a cell of a construct that the step uses, and where the notebook holds a
construct that may be refused, one of those.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from notebook_generator import Notebook, step_text

_FRESH = "import sys, json; sys.path.insert(0, sys.argv[1]); dumps = json.dumps; import rml_step; print(); print(dumps(rml_step.step()))"
_STEP_SOURCE = inspect.getsource(step_text) + "\nmade = step_text(PROBES)\n"


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook: "same", "refused" or what is wrong with it."""

    seed: int
    verdict: str
    owed: bool  # nothing in it may be refused
    detail: str = ""


def play(notebooks: list[Notebook], folder: Path) -> list[Outcome]:
    """The outcome of each notebook."""
    jobs = [json.dumps(_job(made)) for made in notebooks]
    lanes = [jobs[0::2], jobs[1::2]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda lane: _kernel(lane, folder), lanes))
        return list(pool.map(lambda made: _judge(made, folder), notebooks))


def _job(made: Notebook) -> dict[str, Any]:
    cells = [text for _, text in made.runs]
    return {"seed": made.seed, "files": made.files, "cells": cells, "probes": made.probes, "step": ["", _STEP_SOURCE]}


def _kernel(jobs: list[str], folder: Path) -> None:
    program = Path(__file__).with_name("kernel.py")
    environment = os.environ | {
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder),
        "PYTHONHASHSEED": "1",
    }
    subprocess.run(
        [sys.executable, str(program), str(folder)], input="\n".join(jobs), text=True, env=environment, check=True
    )


def _judge(made: Notebook, folder: Path) -> Outcome:
    path = folder / f"{made.seed}.json"
    owed = all(template.carried for template in made.templates)
    if not path.is_file():
        return Outcome(made.seed, "capture failed", owed, describe(made))
    result = json.loads(path.read_text())
    owed = all(made.templates[number].carried for number in result["used"])
    if "findings" in result:
        return _refusal(made, result, owed)
    value = _fresh(made, result["shipped"], folder)
    if value == result["value"]:
        return Outcome(made.seed, "same", owed)
    shipped = result["shipped"]["rml_step.py"]
    detail = f"kernel: {result['value']}\nfresh:  {value}\n--- shipped\n{shipped}"
    return Outcome(made.seed, "SILENT DIFFERENCE", owed, f"{describe(made, result)}\n{detail}")


def _refusal(made: Notebook, result: dict[str, Any], owed: bool) -> Outcome:
    constructs = {number: cell.construct for number, (cell, _) in zip(result["numbers"], made.runs, strict=True)}
    named = set()
    for _, where, _ in result["findings"]:
        match = re.match(r"cell (\d+), line \d+$", where)
        if match:
            named.add(constructs.get(int(match[1])))
    blamed = (
        {number for number in result["used"] if not made.templates[number].carried} if not owed else set(result["used"])
    )
    detail = f"{describe(made, result)}\n" + "\n".join(map(str, result["findings"]))
    return Outcome(made.seed, "refused" if named & blamed else "WRONG CELL", owed, detail)


def _fresh(made: Notebook, shipped: dict[str, str], folder: Path) -> Any:
    """The step's value in a process that has the shipped files and nothing else, in an empty working folder."""
    home, elsewhere = folder / f"{made.seed}-fresh", folder / f"{made.seed}-cwd"
    elsewhere.mkdir()
    for path, text in shipped.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    flags = ["-I"] if made.heavy else ["-I", "-S"]
    done = subprocess.run(
        [sys.executable, *flags, "-c", _FRESH, str(home)], capture_output=True, text=True, cwd=elsewhere
    )
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2]
    return json.loads(done.stdout.rpartition("\n\n")[2] or done.stdout.strip().rpartition("\n")[2])


def describe(made: Notebook, result: dict[str, Any] | None = None) -> str:
    """The notebook as it was run."""
    lines = [f"# seed {made.seed}: {', '.join(f'{i}={t.name}' for i, t in enumerate(made.templates))}"]
    for position, (cell, text) in enumerate(made.runs):
        number = result["numbers"][position] if result else position + 1
        failed = " (failed)" if result and number in result["failed"] else ""
        lines += [f"# -- cell {number}, construct {cell.construct}{failed}", text]
    return "\n".join([*lines, result["step"] if result else ""])
