"""A v2beta1 API server of Kubeflow Pipelines 2.17 for tests: it answers as the recorded exchanges of a real one do, good and bad.

    with kfpserver.running(engine=engine, artifacts=folder) as server:
        kubeflow = rml.connect(server.url)

Without an engine runs stay PENDING until a test moves them (`server.state.runs[id].report("train", "RUNNING")`, `.end("FAILED")`).
An engine is an object with `start(run)`, `cancel(run)` and `retry(run)`; it gets an `EngineRun` and reports what becomes of it.
To use it elsewhere put the folder this package lies in on sys.path. `python -m kfpserver` serves until its input ends.
"""

from __future__ import annotations

from .lifecycle import EngineRun
from .recording import FOLDER, exchanges, recorded
from .web import KfpServer, running

__all__ = ["FOLDER", "EngineRun", "KfpServer", "exchanges", "recorded", "running"]
