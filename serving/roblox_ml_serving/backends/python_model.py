"""Format python: `predict(batch)` of the package's code, in a process of its own with the environment of its own lock.

The stub's interpreter cannot offer a model the packages it was made with, and a model that crashes must not take Triton's
instance with it. So this file only passes arrays to a worker over a socket and starts a new one when it died; what was in
flight then fails and says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rml_frames
from rml_backend import Model, ModelError

READY_S = 120.0  # importing a model's libraries can take long on a cold disk


class WorkerDied(ModelError):
    """The model's process ended or hung while it worked on this request."""


class TritonPythonModel(Model):
    def load(self, folder: Path, package: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        options = package.get("options", {})
        self.timeout = float(options.get("timeout_s", 60.0))
        self.worker = Worker(self.parameters["python"], folder / "model" / "code", options["entry"])
        self.worker.start()

    def predict(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.worker.alive():
            self.worker.start()  # it died between requests: nobody has to know
        try:
            return self.worker.ask(batch, self.timeout)
        except WorkerDied:
            # Start the next one now, so that the next request does not wait; if that fails it will be told.
            try:
                self.worker.start()
            except RuntimeError as error:
                print(f"restarting the worker failed: {error}", file=sys.stderr, flush=True)
            raise

    def finalize(self) -> None:
        self.worker.stop()


class Worker:
    """One worker process and the socket to it."""

    def __init__(self, python: str, code: Path, entry: str) -> None:
        self.command = [python, "-B", str(Path(__file__).with_name("rml_worker.py"))]
        self.code, self.entry = str(code), entry
        self.process: subprocess.Popen[bytes] | None = None
        self.stream: Any = None
        self.socket: Any = None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start a fresh process and wait until the model is imported."""
        self.stop()
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*self.command, str(theirs.fileno()), self.code, self.entry],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=self.code,
                env={
                    **os.environ,
                    "PATH": os.pathsep.join([str(Path(self.command[0]).parent), os.environ.get("PATH", "")]),
                },
            )
        self.stream = self.socket.makefile("rwb")
        self.socket.settimeout(READY_S)
        kind, _, text = self.receive()
        if kind != "ready":
            raise RuntimeError(text)

    def ask(self, batch: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        self.socket.settimeout(timeout)
        try:
            rml_frames.send(self.stream, "predict", batch)
        except OSError:
            raise WorkerDied(f"the model's process {self.ending()} before this request; it was started again") from None
        kind, arrays, text = self.receive()
        if kind == "error":
            raise ModelError(text)
        return arrays

    def receive(self) -> tuple[str, dict[str, Any], str]:
        try:
            return rml_frames.receive(self.stream)
        except TimeoutError:
            self.stop()
            raise WorkerDied("the model did not answer in time; its process was killed and started again") from None
        except OSError:
            raise WorkerDied(f"the model's process {self.ending()} during this request; it was started again") from None

    def ending(self) -> str:
        """How the process ended, in words."""
        assert self.process is not None
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"

    def stop(self) -> None:
        if self.process is not None:
            for closing in (self.stream, self.socket):
                with contextlib.suppress(OSError):
                    closing.close()
            self.process.kill()
            self.process.wait()
        self.process = None
