"""`rml.connect(host)`: a Kubeflow Pipelines server as an object; what is submitted after that goes there.

kubeflow = rml.connect("https://kubeflow.example.com/pipeline", namespace="team-safety", token="file:/var/run/secrets/kf/token")
run = kubeflow.submit(comment_sentiment, epochs=3); kubeflow.runs(); kubeflow.run(id); kubeflow.recurring_runs()
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import NotRunning, RunNotFound, SubmitError
from .api import client, silent, token_source, told

if TYPE_CHECKING:
    from ..._build import Built
    from ..._graph.pipeline import Pipeline
    from ..._graph.schedule import Schedule
    from .recurring import RecurringRun
    from .run import RemoteRun

__all__ = ["Experiment", "Kubeflow", "connect", "current"]

_NOT_FOUND = 404
_PAGE = 100
# The connection that `.submit()` and "kfp:<id>" use when none is named: the last one that `rml.connect` made.
_last: list[Kubeflow] = []


@dataclass(frozen=True, slots=True)
class Experiment:
    """A group of runs on the server."""

    id: str
    name: str
    description: str
    archived: bool


class Kubeflow:
    """A connection. Made by `rml.connect()`."""

    def __init__(
        self,
        host: str,
        *,
        client: Any,
        namespace: str = "",
        experiment: str = "",
        public_url: str = "",
        pipeline_root: str = "",
        service_account: str = "",
        timezone: str = "UTC",
        kube_context: str | None = None,
    ) -> None:
        self.host = host
        self.client = client
        self.namespace = namespace
        self.experiment = experiment
        self.public_url = (public_url or host).rstrip("/")
        self.pipeline_root = pipeline_root
        self.service_account = service_account
        self.timezone = timezone
        self.kube_context = kube_context

    def health(self) -> Mapping[str, Any]:
        """What the server says of itself: `multi_user`, `tag_name`, `commit_sha`, …"""
        with told(self.host):
            return self._json(self.client._healthz_api.healthz_service_get_healthz())

    def submit(
        self,
        pipeline: Pipeline,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        run_labels: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> RemoteRun:
        """Store the bundles and start a run with exactly the compiled bytes."""
        from ._submit import submit

        built = pipeline.build(parameters)
        return submit(built, on=self, experiment=experiment, run_name=run_name, labels=run_labels)

    def run(self, id: str) -> RemoteRun:
        """The run of this id; RunNotFound when the server has none."""
        from .run import RemoteRun

        return RemoteRun(self, id, seen=self.raw_run(id))

    def runs(
        self,
        pipeline: str | None = None,
        *,
        experiment: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 20,
    ) -> list[RemoteRun]:
        """Runs, newest first; only those of a pipeline, an experiment, or with these labels."""
        from ..._runs import RunList
        from .run import RemoteRun

        wanted = self._experiment_id(experiment) if experiment else None
        if experiment and wanted is None:
            return RunList()
        pipeline_id = None
        if pipeline:
            with told(self.host):
                pipeline_id = self.client.get_pipeline_id(pipeline)
            if pipeline_id is None:
                return RunList()
        found = RunList()
        for raw in self._pages(self.client.list_runs, "runs", experiment_id=wanted, sort_by="created_at desc"):
            one = RemoteRun(self, str(raw["run_id"]), seen=raw)
            labelled = not labels or dict(labels).items() <= dict(one.labels).items()
            if labelled and (pipeline_id is None or one.pipeline_id == pipeline_id):
                found.append(one)
            if len(found) >= limit:
                break
        return found

    def experiments(self) -> list[Experiment]:
        """Every experiment, oldest first."""
        return [
            Experiment(
                str(raw["experiment_id"]),
                str(raw.get("display_name") or ""),
                str(raw.get("description") or ""),
                raw.get("storage_state") == "ARCHIVED",
            )
            for raw in self._pages(self.client.list_experiments, "experiments", sort_by="created_at asc")
        ]

    def recur(
        self, built: Built, schedule: Schedule, *, arguments: Mapping[str, Any] | None = None, name: str | None = None
    ) -> RecurringRun:
        """Run a pipeline on a schedule: made, or changed when it differs, or left alone. See `docs/guides/kubeflow.md`."""
        from .recurring import publish

        given = dict(built.arguments if arguments is None else arguments)
        return publish(self, built, schedule, arguments=given, name=name or built.name)

    def recurring_runs(self, name: str | None = None) -> list[RecurringRun]:
        """What runs on a schedule."""
        from .recurring import RecurringRun

        raw = self._pages(self.client.list_recurring_runs, "recurringRuns", sort_by="created_at asc")
        found = [RecurringRun(self, one) for one in raw]
        return [one for one in found if name is None or one.name == name]

    def raw_run(self, id: str) -> Mapping[str, Any]:
        """A run as the server's JSON."""
        try:
            with told(self.host):
                return self._json(self.client.get_run(id))
        except SubmitError as error:
            if error.status == _NOT_FOUND:
                raise RunNotFound(
                    f"there is no run {id} on {self.host}", why=error.message, fix="list them: rml.connect(…).runs()"
                ) from error
            raise

    def spec_of(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """A run's pipeline spec: in the run itself, or that of its version; empty when the version is gone."""
        spec = run.get("pipeline_spec")
        reference = run.get("pipeline_version_reference") or {}
        if spec is None and reference.get("pipeline_version_id"):
            try:
                with told(self.host):
                    version = self.client.get_pipeline_version(
                        reference["pipeline_id"], reference["pipeline_version_id"]
                    )
            except SubmitError as error:
                if error.status != _NOT_FOUND:
                    raise
                return {}
            spec = self._json(version).get("pipeline_spec")
        # With a platform document both are wrapped in one object; without, the spec stands alone.
        inner: Mapping[str, Any] = (spec or {}).get("pipeline_spec") or spec or {}
        return inner

    def __repr__(self) -> str:
        where = f" namespace {self.namespace}" if self.namespace else ""
        return f"<rml.Kubeflow {self.host}{where}>"

    def _repr_html_(self) -> str:
        facts = [
            ("namespace", self.namespace),
            ("experiment", self.experiment or "the pipeline's name"),
            ("artifacts", self.pipeline_root),
        ]
        try:
            about = self.health()
            facts += [("version", str(about.get("tag_name") or "")), ("multi-user", str(bool(about.get("multi_user"))))]
        except (NotRunning, SubmitError) as error:
            facts.append(("health", error.message))
        rows = "".join(f"<tr><td>{k}</td><td>{html.escape(v)}</td></tr>" for k, v in facts if v)
        link = html.escape(self.public_url, quote=True)
        return (
            f'<div><b>Kubeflow Pipelines</b> · <a href="{link}" target="_blank">{link}</a><table>{rows}</table></div>'
        )

    def _experiment_id(self, name: str) -> str | None:
        return next((e.id for e in self.experiments() if e.name == name), None)

    def _pages(self, ask: Any, key: str, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        """Every element of a paged list; asks for the next page only when somebody wants it."""
        token = ""
        if arguments.get("experiment_id") is None:
            arguments.pop("experiment_id", None)
            arguments["namespace"] = self.namespace or None
        while True:
            with told(self.host), silent():
                answer = self._json(ask(page_token=token, page_size=_PAGE, **arguments))
            yield from answer.get(key) or []
            token = str(answer.get("next_page_token") or "")
            if not token:
                return

    def _json(self, answer: Any) -> dict[str, Any]:
        plain: dict[str, Any] = self.client._run_api.api_client.sanitize_for_serialization(answer)
        return plain


def connect(
    host: str | None = None,
    *,
    namespace: str | None = None,
    token: str | None = None,
    verify_ssl: bool | str = True,
    experiment: str | None = None,
    public_url: str | None = None,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    timezone: str | None = None,
    kube_context: str | None = None,
) -> Kubeflow:
    """Connect to a Kubeflow Pipelines API; `.submit()`, `rml.get_run("kfp:…")` and `rml runs` then use it.

    What is not given comes from RML_KFP_HOST, _NAMESPACE, _TOKEN, _EXPERIMENT, _PUBLIC_URL, _PIPELINE_ROOT, _TIMEZONE, _CA
    and _SERVICE_ACCOUNT (each with RML_KFP before it). `token` is a reference ("env:NAME", "file:PATH"). `verify_ssl` may be
    a file of certificates. `public_url` is where people's browsers find Kubeflow, `timezone` the one that the server's
    scheduler was set to (CRON_SCHEDULE_TIMEZONE; UTC unless somebody changed it). Raises NotRunning when nobody answers.
    """
    connection = _open(
        host,
        token=token,
        verify_ssl=verify_ssl,
        namespace=namespace,
        public_url=public_url,
        experiment=experiment,
        pipeline_root=pipeline_root,
        service_account=service_account,
        timezone=timezone,
        kube_context=kube_context,
    )
    _last[:] = [connection]
    return connection


def current(host: str | None = None) -> Kubeflow:
    """The connection to use: the one that `rml.connect` made, unless it is to another address; else a new one."""
    if _last and (host is None or host.rstrip("/") == _last[0].host):
        return _last[0]
    return _open(host)


def _open(
    host: str | None,
    *,
    token: str | None = None,
    verify_ssl: bool | str = True,
    kube_context: str | None = None,
    **given: str | None,
) -> Kubeflow:

    def setting(name: str, otherwise: str = "") -> str:
        said = given.get(name)
        return said if said is not None else os.environ.get(f"RML_KFP_{name.upper()}") or otherwise

    address = (host or os.environ.get("RML_KFP_HOST") or "").rstrip("/")
    if not address:
        raise NotRunning(
            "no Kubeflow Pipelines to submit to",
            why="neither host= nor RML_KFP_HOST is set",
            fix='write rml.connect("http://…") or .submit(host="http://…"), or use .run() to run here',
        )
    if "//" not in address:
        address = f"https://{address}"
    space, ui = setting("namespace"), setting("public_url", address)
    verify = verify_ssl if verify_ssl is not True else os.environ.get("RML_KFP_CA") or True
    made = client(address, namespace=space, token=token_source(token, address), verify_ssl=verify, ui=ui)
    return Kubeflow(
        address,
        client=made,
        namespace=space,
        public_url=ui,
        experiment=setting("experiment"),
        pipeline_root=setting("pipeline_root"),
        service_account=setting("service_account"),
        timezone=setting("timezone", "UTC"),
        kube_context=kube_context,
    )
