"""Run the programs, alternately where two are compared, and keep the medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import programs

__all__ = ["Bench"]

Result = Mapping[str, float]
CONTRACT = Path(__file__).resolve().parents[2] / "tests" / "contract" / "kfp"
LOCKED = "numpy,pandas,sklearn,torch,transformers"


class Bench:
    """All measurements in one private home; `repeats` fresh processes for each figure."""

    def __init__(self, folder: Path, repeats: int) -> None:
        self.folder = folder
        self.repeats = repeats
        self.home = folder / "home"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RML_")}
        self.environment |= {"RML_HOME": str(self.home), "COLUMNS": "100", "PYTHONWARNINGS": "ignore"}

    def interpreter_start(self) -> float:
        """The floor of everything that starts a process: `python -c pass`."""
        return statistics.median(self._wall([sys.executable, "-c", "pass"]) for _ in range(2 * self.repeats))

    def imports(self) -> tuple[float, ...]:
        """Seconds until steps and pipelines can be declared, with ours and with kfp, in turns."""
        ours = "import roblox_ml as rml; rml.step, rml.pipeline, rml.Dataset"
        return self._in_turns(
            ("import", programs.IMPORT, (ours,)),
            ("import", programs.IMPORT, ("from kfp import dsl; dsl.component, dsl.pipeline, dsl.Dataset",)),
        )

    def first_line(self) -> Result:
        """From `.run()` to the first line of a step."""
        return self._median("first_line", programs.FIRST_LINE)

    def notebook(self) -> Result:
        """Capture and compile 20 steps from a kernel of 40 cells; locks cached by the first repeat, which is not counted."""
        self._run("notebook", programs.NOTEBOOK, (str(self.folder),))
        return self._median("notebook", programs.NOTEBOOK, (str(self.folder),))

    def lock_cold(self) -> Result:
        """A lock with nothing cached, neither ours nor uv's."""
        results = []
        for n in range(self.repeats):
            cold = {"RML_HOME": str(self.folder / f"cold-{n}"), "UV_CACHE_DIR": str(self.folder / f"uv-{n}")}
            results.append(self._run("lock", programs.LOCK, (LOCKED,), cold))
        return _medians(results)

    def chains(self, tasks: int) -> tuple[Result, Result]:
        """Compile a chain of equal tasks with ours and with kfp, in turns."""
        ours, kfp = [], []
        target = str(self.folder / "chain.yaml")
        self._run("chain_ours", programs.CHAIN_OURS, ("1", target))  # the lock
        for _ in range(self.repeats):
            ours.append(self._run("chain_ours", programs.CHAIN_OURS, (str(tasks), target)))
            kfp.append(self._run("chain_kfp", programs.CHAIN_KFP, (str(tasks), target)))
        if {result["tasks"] for result in [*ours, *kfp]} != {tasks}:
            sys.exit("benchmark chains: the two pipelines are not the same size")
        return _medians(ours), _medians(kfp)

    def six_steps(self) -> tuple[Result, Result]:
        """Six independent steps that wait two seconds each; kfp.local (no venv) once, it needs twelve seconds."""
        return self._median("six_ours", programs.SIX_OURS), self._run("six_kfp", programs.SIX_KFP)

    def submit(self, steps: int = 100) -> Result:
        """Submit a pipeline to the contract tests' server in a process of its own: unchanged, and with one step edited."""
        server = subprocess.Popen(
            [sys.executable, "-m", "kfpserver"],
            env={**self.environment, "PYTHONPATH": str(CONTRACT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            return self._median("submit", programs.SUBMIT, (str(steps), server.stdout.readline().strip()))
        finally:
            server.communicate(timeout=30)  # it ends with its input

    def enter_environment(self, start: float) -> Result:
        """What a ready environment adds to a step: all up to the first line of its python, less one interpreter start."""
        text = self._lock_of_another_version()
        file = self.folder / "lock.txt"
        file.write_text(text)
        command = [sys.executable, self._file("enter", programs.ENTER), str(file)]
        started = time.perf_counter()
        self._wall(command)
        built = time.perf_counter() - started
        return {
            "seconds": statistics.median(self._wall(command) for _ in range(2 * self.repeats)) - start,
            "built": built,
        }

    def _lock_of_another_version(self) -> str:
        program = "from roblox_ml._env import lock_for; print(lock_for(frozenset({'iniconfig'}), ['iniconfig<2']).text, end='')"
        done = subprocess.run(
            [sys.executable, "-c", program], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def _in_turns(self, *wanted: tuple[str, str, tuple[str, ...]]) -> tuple[float, ...]:
        results: list[list[float]] = [[] for _ in wanted]
        for _ in range(self.repeats):
            for kept, (name, source, arguments) in zip(results, wanted, strict=True):
                kept.append(self._run(name, source, arguments)["seconds"])
        return tuple(statistics.median(kept) for kept in results)

    def _median(self, name: str, source: str, arguments: tuple[str, ...] = ()) -> Result:
        return _medians([self._run(name, source, arguments) for _ in range(self.repeats)])

    def _run(
        self, name: str, source: str, arguments: tuple[str, ...] = (), extra: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, self._file(name, source), *arguments],
            env={**self.environment, **(extra or {})}, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"benchmark {name} failed:\n{done.stdout}\n{done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def _wall(self, command: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        return time.perf_counter() - started

    def _file(self, name: str, source: str) -> str:
        path = self.folder / f"{name}.py"
        if not path.exists():
            path.write_text(source)
        return str(path)


def _medians(results: list[dict[str, Any]]) -> Result:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}
