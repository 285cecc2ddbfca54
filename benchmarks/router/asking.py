"""The generator's process, seen from the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from .hops import Hop

__all__ = ["Load"]


class Load:
    """One generator, asked one plan after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.router.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, hop: Hop, seconds: float, width: int, rate: float | None = None, bodies: Sequence[str] = ()
    ) -> dict[str, Any]:
        plan = {
            "address": hop.address, "path": hop.path, "headers": dict(hop.headers),
            "seconds": seconds, "width": width, "rate": rate, "bodies": list(bodies),
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        result = json.loads(self._process.stdout.readline())
        if "failed" in result:
            raise RuntimeError(f"{hop.name}: {result['failed']}")
        return dict(result)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
