"""What the server holds, and what it was sent."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import rules
from .lifecycle import EngineRun, now
from .recording import recorded

_NEVER = "1970-01-01T00:00:00Z"


@dataclass
class State:
    """Things by id, in the order they were made."""

    engine: Any = None
    artifacts: Path | None = None
    lock: Any = field(default_factory=threading.RLock)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, EngineRun] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[tuple[str, bytes]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    wanted_token: str | None = None
    watchers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A fresh server has one experiment."""
        said = "All runs created without specifying an experiment will be grouped here."
        self.add_experiment({"display_name": "Default", "description": said})

    def add_pipeline(self, name: str, description: str | None, data: bytes, spec: dict[str, Any]) -> dict[str, Any]:
        answer = dict(recorded("POST", "/pipelines/upload", 200))
        answer.update(display_name=name, name=name, pipeline_id=str(uuid.uuid4()), created_at=now())
        answer.pop("description", None)
        if description:
            answer["description"] = description
        self.uploads.append((name, data))
        self.pipelines[answer["pipeline_id"]] = answer
        self._version(answer["pipeline_id"], name, description, spec)
        return answer

    def add_version(self, pipeline: str, name: str, description: str | None, data: bytes, spec: dict[str, Any]) -> Any:
        self.uploads.append((name, data))
        return self._version(pipeline, name, description, spec)

    def _version(self, pipeline: str, name: str, description: str | None, spec: dict[str, Any]) -> dict[str, Any]:
        version = dict(recorded("POST", "/pipelines/upload_version", 200))
        identifier = str(uuid.uuid4())
        version.update(
            display_name=name,
            name=name,
            pipeline_id=pipeline,
            pipeline_version_id=identifier,
            pipeline_spec=spec,
            created_at=now(),
        )
        version.pop("description", None)
        if description:
            version["description"] = description
        self.versions[identifier] = version
        return version

    def add_experiment(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "created_at": now(),
            "display_name": asked["display_name"],
            "experiment_id": str(uuid.uuid4()),
            "last_run_created_at": _NEVER,
            "storage_state": "AVAILABLE",
        }
        if asked.get("description"):
            answer["description"] = asked["description"]
        self.experiments[answer["experiment_id"]] = answer
        return answer

    def add_run(self, asked: dict[str, Any]) -> tuple[int, Any]:
        """A run, or why not."""
        given = (asked.get("runtime_config") or {}).get("parameters") or {}
        reference = asked.get("pipeline_version_reference")
        if reference:
            version = self.versions.get(reference["pipeline_version_id"])
            if version is None:
                return rules.not_found("pipeline version", reference["pipeline_version_id"])
            spec = version["pipeline_spec"]
        else:
            spec = asked["pipeline_spec"]
        inner = rules.inner(spec)
        refusal = rules.dangling(inner) or rules.parameters(inner, given)
        if refusal:
            return refusal
        made = dict(recorded("POST", "/runs", 200, '"r2"'))
        made.pop("pipeline_version_reference")
        kept = (
            "display_name",
            "description",
            "experiment_id",
            "pipeline_version_reference",
            "pipeline_spec",
            "recurring_run_id",
        )
        made.update({k: v for k, v in asked.items() if k in kept})
        runtime = {k: v for k, v in (asked.get("runtime_config") or {}).items() if v}
        stamp = now()
        made.update(
            run_id=str(uuid.uuid4()),
            runtime_config={**runtime, "parameters": given},
            created_at=stamp,
            scheduled_at=stamp,
            finished_at=_NEVER,
            service_account=asked.get("service_account") or "pipeline-runner",
            state="PENDING",
            state_history=[{"state": "PENDING", "update_time": stamp}],
        )
        workflow = f"{inner['pipelineInfo']['name'][:40]}-{made['run_id'][:5]}"
        run = EngineRun(made, spec, workflow, self.artifacts)
        self.runs[run.run_id] = run
        if made.get("experiment_id") in self.experiments:
            self.experiments[made["experiment_id"]]["last_run_created_at"] = stamp
        if self.engine is not None:
            self.engine.start(run)
        return 200, run.as_json()

    def add_recurring(self, asked: dict[str, Any]) -> tuple[int, Any]:
        """A recurring run, or why not. Its parameters are checked when it fires, not here."""
        cron = (asked.get("trigger") or {}).get("cron_schedule")
        refusal = rules.at_once(asked.get("max_concurrency")) or (rules.cron(cron["cron"]) if cron else None)
        if refusal:
            return refusal
        answer = dict(recorded("POST", "/recurringruns", 200))
        for key in ("no_catchup", "trigger", "runtime_config"):
            answer.pop(key, None)
        asked = json.loads(json.dumps(asked))
        for schedule in (asked.get("trigger") or {}).values():
            if isinstance(schedule, dict) and "interval_second" in schedule:
                schedule["interval_second"] = str(schedule["interval_second"])
        answer.update({k: v for k, v in asked.items() if v is not None and v is not False})
        stamp = now()
        answer.update(
            recurring_run_id=str(uuid.uuid4()),
            max_concurrency=str(asked["max_concurrency"]),
            mode=asked.get("mode", "ENABLE"),
            status="ENABLED" if asked.get("mode", "ENABLE") == "ENABLE" else "DISABLED",
            created_at=stamp,
            updated_at=stamp,
        )
        self.recurring[answer["recurring_run_id"]] = answer
        return 200, answer

    def fire(self, recurring: str) -> tuple[int, Any]:
        """Its time has come: a run, unless it is off or as many as it may have go on."""
        one = self.recurring[recurring]
        active = [
            r
            for r in self.runs.values()
            if r.raw.get("recurring_run_id") == recurring and r.state in ("PENDING", "RUNNING", "CANCELING")
        ]
        if one["status"] != "ENABLED" or len(active) >= int(one["max_concurrency"]):
            return 0, None
        kept = ("experiment_id", "pipeline_version_reference", "runtime_config", "service_account")
        return self.add_run(
            {
                **{k: v for k, v in one.items() if k in kept},
                "display_name": one["display_name"],
                "recurring_run_id": recurring,
            }
        )
