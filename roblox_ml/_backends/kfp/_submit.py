"""`.submit()`: blobs into the store, exactly the compiled bytes to the API server, a run of that version.

A pipeline version is named by the digest of its bytes, so submitting an unchanged pipeline uploads nothing and an
edited one makes a version. Everything the server would only notice when the run is created is checked before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._graph import cron
from ..._graph.check import check_ir, check_parameters
from ..._graph.dump import load_ir
from ..._store import StoreError, open_store
from ...errors import NotRunning, SubmitError

if TYPE_CHECKING:
    from ..._build import Built

__all__ = ["RemoteRun", "connect", "submit"]

_CONFLICT = 409
_FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A run on Kubeflow Pipelines. `state` asks the server each time."""

    id: str
    url: str
    pipeline_id: str
    version_id: str
    host: str
    _client: Any = field(repr=False, compare=False, default=None)

    @property
    def state(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED, CANCELING, CANCELED, …"""
        with _told(self.host):
            return str(self._client.get_run(self.id).state)

    def wait(self, timeout: float = 24 * 3600) -> str:
        """Block until the run has ended (or `timeout` seconds are over); the state."""
        with _told(self.host), _silent():
            return str(self._client.wait_for_run_completion(self.id, timeout).state)

    def retry(self) -> None:
        """Run what failed again. The server refuses while the run has not started."""
        with _told(self.host):
            self._client._run_api.run_service_retry_run(run_id=self.id)

    def terminate(self) -> None:
        """Stop the run."""
        with _told(self.host):
            self._client.terminate_run(self.id)

    def _repr_html_(self) -> str:
        import html

        link = html.escape(self.url, quote=True)
        return f'<a href="{link}" target="_blank">run {html.escape(self.id)}</a>'


def submit(
    built: Built,
    *,
    host: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> RemoteRun:
    """Store the blobs, upload the IR's bytes unless the server has them, start a run.

    `host` is the API's address (default: RML_KFP_HOST), the bearer token comes from RML_KFP_TOKEN. Raises SubmitError
    when the pipeline or the run is refused, NotRunning when nobody answers.
    """
    given = dict(built.arguments if arguments is None else arguments)
    _check(built.ir, given)
    address = host or os.environ.get("RML_KFP_HOST")
    if not address:
        raise NotRunning(
            "no Kubeflow Pipelines to submit to",
            why="neither host= nor RML_KFP_HOST is set",
            fix='write .submit(host="http://…"), or use .run() to run here',
        )
    client = connect(address)
    _store(built.blobs)
    with _told(address), _silent():
        pipeline_id, version_id = _version(client, built)
        group = client.create_experiment(experiment or built.name)
        name = run_name or f"{built.name} {datetime.now(UTC):%Y-%m-%d %H-%M-%S}"
        run = client.run_pipeline(
            group.experiment_id, name, pipeline_id=pipeline_id, version_id=version_id, params=given
        )
    url = f"{address.rstrip('/')}/#/runs/details/{run.run_id}"
    return RemoteRun(run.run_id, url, pipeline_id, version_id, address, client)


def connect(host: str) -> Any:
    """A `kfp.Client` for an address, or NotRunning."""
    try:
        import kfp
    except ModuleNotFoundError as error:
        from ...errors import MissingExtra

        raise MissingExtra(
            "kfp is not installed", why="submitting uses its client", fix='pip install "roblox-ml[kfp]"'
        ) from error
    with warnings.catch_warnings(), _told(host):
        warnings.simplefilter("ignore", FutureWarning)
        client = kfp.Client(host=host, existing_token=os.environ.get("RML_KFP_TOKEN"))
        client.get_kfp_healthz()
    return client


def _check(ir: bytes, arguments: Mapping[str, Any]) -> None:
    document = load_ir(ir)
    problems = [*check_ir(document), *check_parameters(document, arguments)]
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


def _version(client: Any, built: Built) -> tuple[str, str]:
    """(pipeline, version) on the server whose bytes are the IR's; uploaded unless it is there."""
    from kfp_server_api.exceptions import ApiException

    name = hashlib.sha256(built.ir).hexdigest()[:32]
    pipeline_id = client.get_pipeline_id(built.name)
    with _as_file(built) as path:
        if pipeline_id is None:
            try:
                made = client.upload_pipeline(path, pipeline_name=built.name, description=_description(built))
                return made.pipeline_id, _only_version(client, made.pipeline_id)
            except ApiException as error:
                # Somebody made it between our question and our upload: then it gets a version.
                if error.status != _CONFLICT:
                    raise
                pipeline_id = client.get_pipeline_id(built.name)
                if pipeline_id is None:
                    raise
        known = _find_version(client, pipeline_id, name)
        if known is not None:
            return pipeline_id, known
        version = client.upload_pipeline_version(path, name, pipeline_id=pipeline_id, description=_description(built))
        return pipeline_id, version.pipeline_version_id


def _only_version(client: Any, pipeline_id: str) -> str:
    """A fresh pipeline's first version (the upload's answer does not name it)."""
    listed = client.list_pipeline_versions(pipeline_id, sort_by="created_at asc").pipeline_versions or []
    if not listed:
        raise SubmitError(f"the server lists no version of the pipeline {pipeline_id} it has just accepted")
    return str(listed[0].pipeline_version_id)


def _find_version(client: Any, pipeline_id: str, name: str) -> str | None:
    wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    listed = client.list_pipeline_versions(pipeline_id, filter=json.dumps(wanted)).pipeline_versions or []
    return next((str(v.pipeline_version_id) for v in listed if v.display_name == name), None)


def _description(built: Built) -> str:
    """What a person sees beside the version; schedule and notifications are carried here until something acts on them."""
    parts = []
    commit = (built.provenance.get("git") or {}).get("commit")
    if commit:
        dirty = " with uncommitted changes" if built.provenance["git"].get("dirty") else ""
        parts.append(f"commit {commit[:12]}{dirty}")
    if built.schedule:
        zone = "" if built.schedule.tz == "UTC" else f" {built.schedule.tz}"
        parts.append(f"schedule {cron.six_fields(built.schedule.cron)}{zone}")
    parts += [f"notify {n}" for n in built.notify]
    return "; ".join(parts) or "submitted by roblox_ml"


@contextlib.contextmanager
def _as_file(built: Built) -> Iterator[str]:
    """The client uploads files only."""
    with tempfile.TemporaryDirectory(prefix="rml-submit-") as folder:
        path = Path(folder) / f"{built.name}.yaml"
        path.write_bytes(built.ir)
        yield str(path)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """kfp's client prints a link for each call; the run's own link is enough."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _told(host: str) -> Iterator[None]:
    """The client's exceptions as ours: what the server said, not a dump of its headers."""
    import urllib3
    from kfp_server_api.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        message, fix = _server_message(error)
        raise SubmitError(message, status=error.status or 0, where=host, fix=fix) from error
    except (urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise NotRunning(
            f"Kubeflow Pipelines at {host} does not answer",
            why=str(error),
            fix="is the address right, and is the port forwarded? (kubectl port-forward svc/ml-pipeline 8888)",
        ) from error


def _server_message(error: Any) -> tuple[str, str]:
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    details = [d["message"] for d in body.get("details") or () if isinstance(d, dict) and d.get("message")]
    message = body.get("message") or body.get("error_message") or text or error.reason or "no reason given"
    if details and details[0] not in message:
        message = f"{message} ({details[0]})"
    fixes = {401: "set RML_KFP_TOKEN", 403: "set RML_KFP_TOKEN to a token that may do this"}
    return f"Kubeflow Pipelines refused ({error.status}): {message}", fixes.get(error.status, "")
