"""What a version will take of this machine's memory, before it is loaded. Afterwards its processes are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from roblox_ml_core.errors import RmlError
from roblox_ml_core.registry import DesiredModel

from ..backends.rml_text_plan import PlanError, allowed, cpu_flags, read_plan

__all__ = ["Expected"]

PLAN = "model/text.json"
ENGINES = "model/engines/"
_ASK_AGAIN_S = 30.0


class Expected:
    """At least what a version's files take in each instance. `fetch` gets a blob of the store by its digest.

    A text model carries several engines and an instance loads one of them: the first that this processor can run.
    """

    def __init__(
        self,
        instances: int,
        fetch: Callable[[str], bytes],
        flags: Callable[[], frozenset[str]] = cpu_flags,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instances, self._fetch, self._flags, self._clock = instances, fetch, flags, clock
        self._known: dict[str, int] = {}
        self._failed: dict[str, float] = {}

    def __call__(self, model: DesiredModel) -> int:
        loaded = {path: entry for path, entry in model.manifest.items() if is_loaded(path)}
        common = sum(entry["size"] for path, entry in loaded.items() if not path.startswith(ENGINES))
        return self._instances * (common + self._engine(model, loaded))

    def _engine(self, model: DesiredModel, files: Mapping[str, Any]) -> int:
        if PLAN not in files:
            return sum(entry["size"] for path, entry in files.items() if path.startswith(ENGINES))
        digest = str(files[PLAN]["sha256"])
        if digest not in self._known:
            folders: dict[str, int] = {}
            for path, entry in files.items():
                if path.startswith(ENGINES):
                    name = path.removeprefix(ENGINES).partition("/")[0]
                    folders[name] = folders.get(name, 0) + entry["size"]
            largest = max(folders.values(), default=0)
            if self._clock() - self._failed.get(digest, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
                return largest  # nobody could say which one it will be
            try:
                plan = read_plan(self._fetch(digest))
            except (RmlError, PlanError, OSError):
                self._failed[digest] = self._clock()
                return largest
            chosen = allowed(plan, self._flags())[0].folder.removeprefix("engines/").partition("/")[0]
            self._known[digest] = folders.get(chosen, largest)
        return self._known[digest]


def is_loaded(path: str) -> bool:
    """Whether an instance reads this file into memory. Triton serves the graph, not the checkpoint it was made from."""
    return path.startswith("model/") and not path.startswith("model/hf/")
