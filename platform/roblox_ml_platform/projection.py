"""One model's copy in MLflow: what it should be, how it is written, how it differs.

Every step looks before it writes, so that it can be repeated after a crash at any point: a version is recognised by its source
``rml:/name/3@<digest>``, a run by its tag. MLflow numbers versions itself; ours is in the tag `rml.version`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.names import Reference
from sqlalchemy import Connection, select

from . import tables as t
from .gates import number

__all__ = ["WantedModel", "WantedVersion", "compare", "mlflow_key", "project", "read_wanted", "source_of"]

_LONGEST_TAG = 5000
_REF = "rml.ref"


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """What MLflow should hold for one version."""

    version: int
    source: str
    experiment: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class WantedModel:
    """What MLflow should hold for one model."""

    name: str
    versions: tuple[WantedVersion, ...]
    aliases: Mapping[str, int]


def source_of(name: str, version: int, digest: str) -> str:
    """The source of an MLflow model version: our artifact scheme and the full reference."""
    return f"rml:/{Reference(name, version=version, digest=digest)}"


def read_wanted(connection: Connection, model: str) -> WantedModel:
    """The registry's own state of a model, in the terms of MLflow."""
    rows = connection.execute(
        select(t.versions).where(t.versions.c.model == model).order_by(t.versions.c.version)
    ).mappings()
    pointing: Any = connection.execute(select(t.aliases.c.alias, t.aliases.c.version).where(t.aliases.c.model == model))
    return WantedModel(model, tuple(_wanted(row) for row in rows), dict(pointing.tuples().all()))


def project(client: Any, wanted: WantedModel, written: dict[str, Any]) -> None:
    """Make MLflow hold `wanted`. `written` is what we wrote before; it is kept true while we go, also when a call fails."""
    _ensure_model(client, wanted.name)
    theirs = {v.source: v for v in _their_versions(client, wanted.name)}
    for version in wanted.versions:
        _project_version(client, wanted.name, version, theirs.get(version.source), written)
    living = {str(version.version) for version in wanted.versions}
    for ours in [key for key in written["versions"] if key not in living]:
        _quietly(client.delete_model_version, wanted.name, written["versions"][ours]["mlflow_version"])
        del written["versions"][ours]
    for alias, ours in wanted.aliases.items():
        if written["aliases"].get(alias) != ours:
            client.set_registered_model_alias(wanted.name, alias, written["versions"][str(ours)]["mlflow_version"])
            written["aliases"][alias] = ours
    for alias in [alias for alias in written["aliases"] if alias not in wanted.aliases]:
        _quietly(client.delete_registered_model_alias, wanted.name, alias)
        del written["aliases"][alias]


def compare(client: Any, wanted: WantedModel, written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How MLflow differs from the registry: each an object with kind and message."""
    found: list[dict[str, Any]] = []
    try:
        model = client.get_registered_model(wanted.name)
    except Exception as error:
        if not _absent(error):
            raise
        return [_difference("model_missing", f"{wanted.name} is not in MLflow")]
    theirs = {v.source: v for v in _their_versions(client, wanted.name)}
    numbers = {str(v.version): source for source, v in theirs.items()}
    sources = {version.version: version.source for version in wanted.versions}
    for version in wanted.versions:
        if version.source not in theirs:
            message = f"version {version.version} is not in MLflow"
            found.append(_difference("version_missing", message, version=version.version))
            continue
        tags = theirs[version.source].tags
        for key, value in version.tags.items():
            if tags.get(key) != value:
                message = f"version {version.version}: tag {key} is {tags.get(key)!r} in MLflow, {value!r} here"
                found.append(_difference("tag", message, version=version.version, tag=key))
    for source in sorted(set(theirs) - set(sources.values())):
        message = f"MLflow's version {theirs[source].version} ({source}) was not registered here"
        found.append(_difference("version_unknown", message, mlflow_version=str(theirs[source].version)))
    there = {alias: str(version) for alias, version in dict(model.aliases).items()}
    for alias in sorted({*there, *wanted.aliases}):
        ours, source = wanted.aliases.get(alias), numbers.get(there.get(alias, ""))
        meant = next((version for version, text in sources.items() if text == source), None)
        if ours is None or ours != meant:
            shown = f"version {meant}" if meant else f"MLflow's version {there[alias]}" if alias in there else "nothing"
            here = f"version {ours}" if ours else "nothing"
            message = f"alias {alias} points at {shown} in MLflow and at {here} here: it was edited in MLflow"
            found.append(_difference("alias", message, alias=alias, mlflow=there.get(alias), registry=ours))
    return found


def _wanted(row: Any) -> WantedVersion:
    lineage = row["lineage"]
    facts = {
        "rml.version": row["version"],
        "rml.digest": row["digest"],
        "rml.format": row["package"].get("format"),
        **{f"rml.lineage.{key}": value for key, value in lineage.items() if isinstance(value, str | int)},
    }
    git = lineage.get("git")
    if isinstance(git, Mapping):
        facts |= {f"rml.git.{key}": git[key] for key in ("commit", "branch", "dirty") if key in git}
    tags = {**row["tags"], **{key: str(value) for key, value in facts.items() if value is not None}}
    numbers = {key: number(value) for key, value in row["metrics"].items()}
    return WantedVersion(
        version=row["version"],
        source=source_of(row["model"], row["version"], row["digest"]),
        experiment=str(lineage.get("pipeline") or lineage.get("kind") or "external")[:200],
        tags={mlflow_key(key): str(value)[:_LONGEST_TAG] for key, value in tags.items()},
        params={mlflow_key(key): str(value)[:_LONGEST_TAG] for key, value in row["params"].items()},
        metrics={mlflow_key(key): value for key, value in numbers.items() if value is not None and value - value == 0},
    )


def _project_version(client: Any, name: str, version: WantedVersion, theirs: Any, written: dict[str, Any]) -> None:
    known = written["versions"].get(str(version.version), {})
    run = known.get("run") or _ensure_run(client, f"{name}/{version.version}", version)
    if dict(version.metrics) != known.get("metrics", {}) or dict(version.params) != known.get("params", {}):
        _log_values(client, run, version, known)
    if theirs is None:
        # await_creation_for=0: nothing is uploaded, so there is nothing to wait for.
        theirs = client.create_model_version(
            name, version.source, run_id=run, tags=dict(version.tags), await_creation_for=0
        )
    else:
        for key, value in version.tags.items():
            if theirs.tags.get(key) != value:
                client.set_model_version_tag(name, theirs.version, key, value)
        for key in set(known.get("tags", {})) - set(version.tags):
            _quietly(client.delete_model_version_tag, name, theirs.version, key)
    written["versions"][str(version.version)] = {
        "mlflow_version": str(theirs.version),
        "run": run,
        "tags": dict(version.tags),
        "params": dict(version.params),
        "metrics": dict(version.metrics),
    }


def _ensure_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name, tags={"rml.managed": "true"})
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


def _ensure_run(client: Any, reference: str, version: WantedVersion) -> str:
    """The run that carries the version's metrics: found by its tag, else made."""
    experiment = client.get_experiment_by_name(version.experiment)
    identity = experiment.experiment_id if experiment is not None else client.create_experiment(version.experiment)
    tag = f"{reference}@{version.tags['rml.digest']}"
    found = client.search_runs([identity], f"tags.`{_REF}` = '{tag}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {_REF: tag, "mlflow.runName": reference, **version.tags}
    return str(client.create_run(identity, tags=tags).info.run_id)


def _log_values(client: Any, run: str, version: WantedVersion, known: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param
    from mlflow.utils.time import get_current_time_millis

    at = get_current_time_millis()
    fresh = {key: value for key, value in version.metrics.items() if known.get("metrics", {}).get(key) != value}
    # MLflow never lets a parameter of a run change; a later value of ours stays in our registry only.
    there = client.get_run(run).data.params
    params = [Param(key, value) for key, value in version.params.items() if key not in there]
    metrics = [Metric(key, value, at, 0) for key, value in fresh.items()]
    for start in range(0, max(len(metrics), len(params), 1), 100):
        client.log_batch(run, metrics=metrics[start : start + 100], params=params[start : start + 100])
    client.set_terminated(run)


def mlflow_key(key: str) -> str:
    """A key that MLflow accepts: letters, digits and ``_-. :/`` only, and nothing that another name would be as a path."""
    text = "".join(char if char.isalnum() or char in "_-. :/" else "_" for char in str(key))[:250]
    if posixpath.normpath(text) == text and text != "." and not text.startswith(("..", "/")):
        return text
    return "_" + text.replace("/", "_")[:249]


def _their_versions(client: Any, name: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def _quietly(call: Any, *arguments: Any) -> None:
    """Remove something that may be gone already."""
    try:
        call(*arguments)
    except Exception as error:
        if not _absent(error):
            raise


def _absent(error: Exception) -> bool:
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _difference(kind: str, message: str, **facts: Any) -> dict[str, Any]:
    return {"kind": kind, "message": message, **facts}
