"""The process a plain-Python model runs in, with the interpreter of its own locked environment.

    python rml_worker.py <socket fd> <code folder> <module:function>

Answers one frame after the other until the stub closes the socket. The model's prints go to Triton's log. An exception of the
model is an answer; only a dying process ends the worker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
LONGEST_ERROR = 10_000  # some exceptions quote their whole input


def main(argv: Sequence[str]) -> int:
    descriptor, code, entry = int(argv[1]), argv[2], argv[3]
    # A stub that is killed must not leave a model's process behind, even one that is computing.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    stream = socket.socket(fileno=descriptor).makefile("rwb")
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != here]
    try:
        frames = load_frames(here)
    except ImportError as error:
        print(f"the model's environment has no numpy ({error}): add numpy to its lock", file=sys.stderr, flush=True)
        return 3
    try:
        predict = load_entry(code, entry)
    except BaseException:
        frames.send(stream, "error", text=f"{entry} cannot be loaded: {last_line()}")
        traceback.print_exc()
        return 1
    frames.send(stream, "ready")
    while True:
        try:
            _, batch, _ = frames.receive(stream)
        except ConnectionError:
            return 0
        try:
            answer = predict(batch)
            if not hasattr(answer, "items"):
                raise TypeError(
                    f"predict returned {type(answer).__name__}; a dict of arrays by output name is expected"
                )
            # A frame is made whole before its first byte leaves: what cannot become arrays is still an error, not half an answer.
            frames.send(stream, "answer", {str(name): value for name, value in answer.items()})
        except ConnectionError:
            return 0
        except Exception:
            traceback.print_exc()
            frames.send(stream, "error", text=last_line())


def load_frames(folder: Path) -> Any:
    """The protocol's module, by path: the model's own imports must not see this folder."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("rml_frames", folder / "rml_frames.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_entry(code: str, entry: str) -> Any:
    import importlib

    sys.path.insert(0, code)
    os.environ["PYTHONPATH"] = code  # processes that the model starts import the same code
    module, _, name = entry.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def last_line() -> str:
    """The exception being handled, in one line."""
    kind, value, _ = sys.exc_info()
    return f"{getattr(kind, '__name__', kind)}: {value}"[:LONGEST_ERROR]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
