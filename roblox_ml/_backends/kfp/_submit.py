"""`.submit()`: blobs into the store, exactly the compiled bytes to the API server, a run of that version.

A pipeline version is named by the digest of its bytes, so submitting an unchanged pipeline uploads nothing and an
edited one makes a version. Everything the server would only notice when the run is created is checked before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._graph.check import check_ir, check_parameters
from ..._graph.dump import load_ir
from ..._graph.schedule import fill, is_template
from ..._store import StoreError, open_store
from ...errors import SubmitError
from .api import silent, told
from .platform_check import check_platform
from .run import RemoteRun

if TYPE_CHECKING:
    from ..._build import Built
    from .connection import Kubeflow

__all__ = ["LABELS", "check", "send", "start", "submit", "version_of"]

_CONFLICT = 409
# A run of 2.17 has no labels of its own; they are the last line of its description, which lists and the UI show.
LABELS = "labels: "


def submit(
    built: Built,
    *,
    on: Kubeflow | None = None,
    host: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    labels: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> RemoteRun:
    """Store the blobs, upload the IR's bytes unless the server has them, start a run.

    `on` is a connection (`rml.connect`); without it `host`, else the last connection made, else RML_KFP_HOST. Raises
    SubmitError when the pipeline or the run is refused, NotRunning when nobody answers.
    """
    from .connection import current

    given = _filled(built, dict(built.arguments if arguments is None else arguments))
    _check(built.ir, given)
    connection = on or current(host)
    return start(connection, built, given, experiment=experiment, run_name=run_name, labels=labels)


def start(
    connection: Kubeflow,
    built: Built,
    arguments: Mapping[str, Any],
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> RemoteRun:
    """A run of a checked pipeline."""
    client = connection.client
    pipeline_id, version_id = send(connection, built)
    name = run_name or f"{built.name} {datetime.now(UTC):%Y-%m-%d %H-%M-%S}"
    with told(connection.host), silent():
        group = client.create_experiment(experiment or connection.experiment or built.name)
        import kfp_server_api as api

        run = client._run_api.run_service_create_run(
            api.V2beta1Run(
                experiment_id=group.experiment_id,
                display_name=name,
                description=description(built, labels),
                pipeline_version_reference=api.V2beta1PipelineVersionReference(
                    pipeline_id=pipeline_id, pipeline_version_id=version_id
                ),
                runtime_config=api.V2beta1RuntimeConfig(
                    parameters=dict(arguments), pipeline_root=connection.pipeline_root or None
                ),
                service_account=connection.service_account or None,
            )
        )
    return RemoteRun(connection, str(run.run_id), spec=load_ir(built.ir)["pipeline"])


def send(connection: Kubeflow, built: Built) -> tuple[str, str]:
    """(pipeline, version) on the server whose bytes are the IR's, its code stored before. The caller has checked it."""
    _store(built.blobs)
    with told(connection.host), silent():
        return version_of(connection.client, built)


def _filled(built: Built, given: dict[str, Any]) -> dict[str, Any]:
    """Due-time templates, given or by default: a run that is submitted is due now."""
    declared = ((load_ir(built.ir)["pipeline"].get("root") or {}).get("inputDefinitions") or {}).get("parameters") or {}
    defaults = {name: about.get("defaultValue") for name, about in declared.items()}
    dated = {name: value for name, value in {**defaults, **given}.items() if is_template(value)}
    return {**given, **fill(dated, datetime.now(UTC))}


def _check(ir: bytes, arguments: Mapping[str, Any]) -> None:
    document = load_ir(ir)
    _refuse([*check_ir(document), *check_platform(document), *check_parameters(document, arguments)])


def check(ir: bytes) -> None:
    document = load_ir(ir)
    _refuse([*check_ir(document), *check_platform(document)])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SubmitError(
            "the pipeline was not sent: " + "; ".join(problems),
            why="the server accepts such a pipeline at upload and fails when its run is created",
            fix="correct the pipeline or the parameters and submit again",
        )


def _store(blobs: Mapping[str, bytes]) -> None:
    store = open_store()
    for digest, data in blobs.items():
        try:
            stored = digest if store.has(digest) else store.put(data)
        except StoreError as error:
            raise SubmitError(
                f"the code could not be stored in {store.url}: {error}",
                why="steps fetch their code from there by digest (RML_STORE)",
                fix="start the store (`rml up`), or point RML_STORE at one that can be written",
            ) from error
        if stored != digest:
            raise SubmitError(f"blob {digest} has the bytes of {stored}", fix="build the pipeline again")


def version_of(client: Any, built: Built) -> tuple[str, str]:
    """(pipeline, version) on the server whose bytes are the IR's; uploaded unless it is there."""
    from kfp_server_api.exceptions import ApiException

    name = hashlib.sha256(built.ir).hexdigest()[:32]
    about = description(built, None)
    pipeline_id = client.get_pipeline_id(built.name)
    with _as_file(built) as path:
        if pipeline_id is None:
            try:
                made = client.upload_pipeline(path, pipeline_name=built.name, description=about)
                return made.pipeline_id, _only_version(client, made.pipeline_id)
            except ApiException as error:
                # Somebody made it between our question and our upload: then it gets a version.
                if error.status != _CONFLICT:
                    raise
                pipeline_id = client.get_pipeline_id(built.name)
                if pipeline_id is None:
                    raise
        known = _find_version(client, pipeline_id, built, name)
        if known is not None:
            return pipeline_id, known
        version = client.upload_pipeline_version(path, name, pipeline_id=pipeline_id, description=about)
        return pipeline_id, version.pipeline_version_id


def _only_version(client: Any, pipeline_id: str) -> str:
    """A fresh pipeline's first version (the upload's answer does not name it)."""
    listed = client.list_pipeline_versions(pipeline_id, sort_by="created_at asc").pipeline_versions or []
    if not listed:
        raise SubmitError(f"the server lists no version of the pipeline {pipeline_id} it has just accepted")
    return str(listed[0].pipeline_version_id)


def _find_version(client: Any, pipeline: str, built: Built, name: str) -> str | None:
    """The version with these bytes: named by their digest, or the one that came with the pipeline's own upload."""
    for called in (name, built.name):
        wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": called}]}
        for version in client.list_pipeline_versions(pipeline, filter=json.dumps(wanted)).pipeline_versions or []:
            if version.display_name == called and (called == name or _same(version.pipeline_spec, built)):
                return str(version.pipeline_version_id)
    return None


def _same(stored: Any, built: Built) -> bool:
    """Whether the server's copy says what the IR says (it keeps documents, not bytes)."""
    ours = load_ir(built.ir)
    theirs = stored or {}
    if ours["platform"] is None:
        return bool(theirs.get("pipeline_spec", theirs) == ours["pipeline"])
    return bool(theirs.get("pipeline_spec") == ours["pipeline"] and theirs.get("platform_spec") == ours["platform"])


def description(built: Built, labels: Mapping[str, str] | None) -> str:
    """What a person sees beside the version and the run; schedule and notifications are named for whoever looks there."""
    parts = []
    git = built.provenance.get("git") or {}
    if git.get("commit"):
        parts.append(f"commit {git['commit'][:12]}{' with uncommitted changes' if git.get('dirty') else ''}")
    if built.schedule:
        parts.append(f"schedule {built.schedule}")
    parts += [f"notify {n}" for n in built.notify]
    said = "; ".join(parts) or "submitted by roblox_ml"
    return f"{said}\n{LABELS}{json.dumps(dict(sorted(labels.items())))}" if labels else said


@contextlib.contextmanager
def _as_file(built: Built) -> Iterator[str]:
    """The client uploads files only."""
    with tempfile.TemporaryDirectory(prefix="rml-submit-") as folder:
        path = Path(folder) / f"{built.name}.yaml"
        path.write_bytes(built.ir)
        yield str(path)
