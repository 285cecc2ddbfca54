"""MLflow over its REST API, and autologging inside a step that brings MLflow along. Standard library only.

A step whose lock holds MLflow (it imports it, or says `packages=["mlflow"]`) gets a run of its own before its first line:
`mlflow.log_metric(…)` and MLflow's autologging of scikit-learn, torch, transformers and others write there. Every other
step is tracked from outside, by who executes it, and needs nothing installed. Tracking never fails a step, and waits for
a server only as long as it takes to notice that none answers.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Mlflow", "Refused", "begin", "finish"]

FILE = "mlflow.json"
"""Beside a step's executor output: the MLflow run that the step made for itself."""

_SECONDS = 3.0
_MOST_PARAMS, _MOST_METRICS = 100, 1000
_LONGEST = 6000
_NAME = re.compile(r"[^\w\-./ :]")
_PINNED = re.compile(r"^mlflow(?:-skinny)?\s*==", re.MULTILINE)
_active: Any = None


class Refused(Exception):
    """The server answered, and said no: asking again would not help."""


class Mlflow:
    """A tracking server. Raises OSError when it does not answer, Refused when it says no."""

    def __init__(self, url: str, seconds: float = _SECONDS) -> None:
        self.url = url.rstrip("/")
        self._seconds = seconds

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name, made when there is none."""
        try:
            found = self._call("GET", "experiments/get-by-name", experiment_name=name)
            return str(found["experiment"]["experiment_id"])
        except Refused:
            pass
        try:
            return str(self._call("POST", "experiments/create", name=name)["experiment_id"])
        except Refused:  # somebody made it between the two
            found = self._call("GET", "experiments/get-by-name", experiment_name=name)
            return str(found["experiment"]["experiment_id"])

    def create(self, experiment: str, name: str, tags: Mapping[str, str], start: float | None = None) -> dict[str, Any]:
        """A new run: its `run_id`, `artifact_uri`, …"""
        made = self._call(
            "POST",
            "runs/create",
            experiment_id=experiment,
            run_name=name,
            start_time=int((start or time.time()) * 1000),
            tags=_tags(tags),
        )
        info: dict[str, Any] = made["run"]["info"]
        return info

    def get(self, run: str) -> dict[str, Any]:
        """What is known of a run."""
        info: dict[str, Any] = self._call("GET", "runs/get", run_id=run)["run"]["info"]
        return info

    def find(self, experiment: str, **tags: str) -> dict[str, Any] | None:
        """The oldest run with these tags."""
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._call(
            "POST",
            "runs/search",
            experiment_ids=[experiment],
            filter=wanted,
            max_results=1,
            order_by=["attributes.start_time ASC"],
        ).get("runs")
        return dict(found[0]["info"]) if found else None

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Iterable[tuple[str, float, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Parameters, metrics (name, value, step) and tags, in batches as large as the server takes."""
        now = int(time.time() * 1000)
        listed = [{"key": _key(name), "value": _text(value)} for name, value in (params or {}).items()]
        measured = [
            {"key": _key(name), "value": float(value), "timestamp": now, "step": step}
            for name, value, step in metrics
            if math.isfinite(value)
        ]
        if tags:
            self._call("POST", "runs/log-batch", run_id=run, tags=_tags(tags))
        for at in range(0, len(listed), _MOST_PARAMS):
            self._call("POST", "runs/log-batch", run_id=run, params=listed[at : at + _MOST_PARAMS])
        for at in range(0, len(measured), _MOST_METRICS):
            self._call("POST", "runs/log-batch", run_id=run, metrics=measured[at : at + _MOST_METRICS])

    def end(self, run: str, status: str, at: float | None = None) -> None:
        """FINISHED, FAILED or KILLED."""
        self._call("POST", "runs/update", run_id=run, status=status, end_time=int((at or time.time()) * 1000))

    def upload(self, artifact_uri: str, name: str, data: bytes) -> None:
        """A file among a run's artifacts, where the server keeps them itself."""
        scheme, _, path = artifact_uri.partition(":")
        if scheme == "mlflow-artifacts":
            place = urllib.parse.quote(path.strip("/"))
            self._send("PUT", f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{place}/{name}", data)

    def _call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        url = f"{self.url}/api/2.0/mlflow/{path}"
        if method == "GET":
            return self._send(method, f"{url}?{urllib.parse.urlencode(fields)}", None)
        return self._send(method, url, json.dumps(fields).encode())

    def _send(self, method: str, url: str, data: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - the address the user set
        request.add_header("Content-Type", "application/json" if method != "PUT" else "application/octet-stream")
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:300]
            if error.code >= 500 or error.code == 429:
                raise OSError(f"HTTP {error.code}: {said}") from error
            raise Refused(f"HTTP {error.code}: {said}") from error
        except (urllib.error.URLError, ValueError) as error:
            raise OSError(str(getattr(error, "reason", error))) from error
        try:
            found: Any = json.loads(text or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{self.url} is no MLflow server: it answered {text[:60]!r}")
        return found


def begin(lock: str) -> None:
    """Before the step's first line: a run of its own, if it brings MLflow along."""
    url = os.environ.get("RML_MLFLOW_URL", "")
    try:
        if not url or not _PINNED.search(_lock_text(lock)):
            return
        server = Mlflow(url)
        task, run = os.environ.get("RML_TASK", "step"), os.environ.get("RML_RUN_ID", "")
        experiment = server.experiment(os.environ.get("RML_PIPELINE") or "roblox_ml")
        made = server.create(experiment, task, {"rml.run": run, "rml.task": task})
        folder = os.environ.get("RML_TASK_FOLDER")
        if folder:
            (Path(folder) / FILE).write_text(json.dumps({"run": made["run_id"]}), "utf-8")
        _autolog(url, experiment, made["run_id"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"roblox_ml: this step is not tracked by MLflow at {url}: {reason}", file=sys.stderr, flush=True)


def finish(error: BaseException | None) -> None:
    """The step is over: so is its run."""
    if _active is not None:
        try:
            _active.end_run("FAILED" if error is not None else "FINISHED")
        except Exception as problem:
            print(f"roblox_ml: MLflow was not told of the end: {problem}", file=sys.stderr, flush=True)


def _autolog(url: str, experiment: str, run: str) -> None:
    global _active
    # A server that goes away while the step runs must not hold it up: MLflow would try seven times, for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ["MLFLOW_TRACKING_URI"] = url
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment
    mlflow = import_module("mlflow")
    mlflow.start_run(run_id=run)
    _active = mlflow
    # Hooks on import: nothing is loaded that the step does not load. Models are kept as packages, not twice.
    mlflow.autolog(log_models=False, silent=True)


def _lock_text(lock: str) -> str:
    from . import bundles

    return bundles.fetch(lock).decode("utf-8", "replace") if lock not in ("", "none") else ""


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": str(value)[:_LONGEST]} for name, value in tags.items() if value]


def _key(name: str) -> str:
    """A name MLflow takes."""
    return _NAME.sub("_", name).strip("/.")[:250] or "unnamed"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
