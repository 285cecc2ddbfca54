"""`@rml.pipeline`: a function whose calls of steps are a graph; run it here, compile it, or send it to a cluster."""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, overload

from ..errors import Finding, GraphError
from ..notify import Notification
from .model import task_name

if TYPE_CHECKING:
    from .._backends.kfp import Kubeflow, RemoteRun
    from .._build import Built
    from .._runs import Run
    from .model import Graph
    from .schedule import Schedule, Trigger
    from .where import Site

__all__ = ["Pipeline", "pipeline"]

# Names that run() and submit() use themselves.
_RESERVED = ("cache", "experiment", "host", "on", "progress", "run_labels", "run_name", "wait")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$")
_OPTIONS = ("name", "schedule", "triggers", "notify")
# Pipelines alive in this process, by name: two with one name would overwrite each other in a cluster.
_known: weakref.WeakValueDictionary[str, Pipeline] = weakref.WeakValueDictionary()


class Pipeline:
    """A pipeline. Made by `@rml.pipeline`."""

    def __init__(self, function: Callable[..., Any], asked: Mapping[str, Any], site: Site) -> None:
        functools.update_wrapper(self, function)
        self.__name__: str = function.__name__
        self.function = function
        self.asked = dict(asked)
        self.site = site
        given = self.asked.get("name")
        self.name: str = given if isinstance(given, str) else task_name(function.__name__)
        self._shares_name_with = _known.get(self.name)
        _known[self.name] = self

    @property
    def schedule(self) -> Schedule | None:
        """When it runs by itself, if it does."""
        from .schedule import Schedule

        value = self.asked.get("schedule")
        if isinstance(value, str):
            return Schedule(" ".join(value.split()))
        return value if isinstance(value, Schedule) else None

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """What else starts it."""
        from .schedule import Trigger

        value = self.asked.get("triggers")
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(v for v in several if isinstance(v, Trigger))

    @property
    def notify(self) -> tuple[Notification, ...]:
        """Who hears of its runs."""
        value = self.asked.get("notify")
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(v for v in several if isinstance(v, Notification))

    @property
    def parameters(self) -> dict[str, Any]:
        """Names of the parameters, with their types (as text) and defaults where they have them."""
        from .interface import read

        inputs = read(self.function, pipeline=True)[0].inputs
        return {i.name: {"type": str(i.type), **({"default": i.default} if i.optional else {})} for i in inputs}

    def trace(self) -> tuple[Graph, list[Finding]]:
        """The graph and every finding about it (nothing is captured, nothing is asked of the network)."""
        from .trace import trace
        from .validate import validate

        graph, findings = trace(self.name, self.function)
        findings = [*self._own_findings(), *findings]
        # A graph with holes in it would only repeat what is known already.
        return graph, findings or validate(graph)

    @property
    def graph(self) -> str:
        """The tasks in an order in which they can run, as text."""
        from .show import text

        return text(self._sound_graph())

    def _sound_graph(self) -> Graph:
        graph, findings = self.trace()
        if findings:
            raise GraphError(findings, subject=f"pipeline {self.name!r}")
        return graph

    def build(self, arguments: Mapping[str, Any] | None = None) -> Built:
        """Everything a backend needs: the IR's bytes, the blobs they refer to, the provenance."""
        from .._build import prepare

        return prepare(self, arguments)

    def run(self, *, wait: bool = True, cache: bool = True, progress: bool = True, **parameters: Any) -> Run:
        """Run here, tasks in parallel. Blocks with a live table; `wait=False` returns at once.

        `cache=False` runs every step anew, `progress=False` shows nothing. Raises PipelineError before anything starts,
        RunFailed (with the run) when a task fails.
        """
        from .._backends.local import LocalExecutor

        built = self.build(parameters)
        run: Run = LocalExecutor().run(built, built.arguments, wait=wait, cache=cache, progress=progress)
        return run

    def compile(self, path: str | Path) -> Path:
        """Write the IR as YAML, whole or not at all. The same code and locks give the same bytes."""
        from .._build import write_file

        target = Path(path)
        write_file(target, self.build().ir)
        return target

    def submit(
        self,
        *,
        on: Kubeflow | None = None,
        host: str | None = None,
        experiment: str | None = None,
        run_name: str | None = None,
        run_labels: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> RemoteRun:
        """Store the bundles and start a run on Kubeflow Pipelines with exactly the compiled bytes.

        It goes to `on` (a connection), else to `host`, else to the last `rml.connect()`, else to RML_KFP_HOST.
        """
        from .._backends.kfp import submit

        built = self.build(parameters)
        return submit(built, on=on, host=host, experiment=experiment, run_name=run_name, labels=run_labels)

    def publish(self, on: Any = "local", **parameters: Any) -> Any:
        """From now on it runs by itself, as its schedule and triggers say; this process may end.

        `on="local"` is the control plane with its runner, `on=rml.connect(…)` Kubeflow (a recurring run). The parameters hold
        for every run; text may hold `{date}`, `{due}` or `{due:%H}`, which is when the run was due. Publishing again makes a
        new version, unless nothing changed.
        """
        from .._publish import publish

        return publish(self, on, parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inside another pipeline: its tasks become part of that one. Elsewhere a pipeline is not called."""
        from .trace import current
        from .where import here

        if current() is not None:
            return self.function(*args, **kwargs)
        site = here()
        name = self.function.__name__
        raise GraphError(
            Finding(
                "pipeline-called",
                f"the pipeline {self.name!r} was called like a function",
                str(site),
                "its body only describes the graph; calling it runs nothing",
                f"write {name}.run(…), {name}.compile(path) or {name}.submit(host=…)",
                site.source(),
            )
        )

    def __repr__(self) -> str:
        return f"<rml.pipeline {self.name}>"

    def _repr_html_(self) -> str:
        import html

        from .show import svg

        try:
            graph = self._sound_graph()
        except GraphError as error:
            return f"<pre>{html.escape(str(error))}</pre>"
        facts = [f"schedule {self.schedule}"] if self.schedule else []
        facts += [f"on {t}" for t in self.triggers]
        facts += [str(n) for n in self.notify]
        about = f"<br><small>{html.escape('; '.join(facts))}</small>" if facts else ""
        return f"<div><b>{html.escape(self.name)}</b>{about}<br>{svg(graph)}</div>"

    def _own_findings(self) -> list[Finding]:
        """What is wrong with the decorator's options and the name."""
        from difflib import get_close_matches

        from .schedule import Schedule, Trigger

        findings: list[Finding] = []

        def wrong(code: str, message: str, why: str, fix: str, token: str) -> None:
            at = self.site.at(token)
            findings.append(Finding(code, message, str(at), why, fix, at.source()))

        for option in self.asked:
            if option not in _OPTIONS:
                near = get_close_matches(option, _OPTIONS, n=1)
                wrong(
                    "unknown-option",
                    f"rml.pipeline has no option {option!r} (pipeline {self.name!r})",
                    f"the options are {', '.join(_OPTIONS)}",
                    f"did you mean {near[0]}=…?" if near else "remove it; resources belong to steps: @rml.step(cpu=2)",
                    option,
                )
        if not _NAME.match(self.name) or not isinstance(self.asked.get("name") or "", str):
            wrong(
                "bad-name",
                f"the pipeline's name {self.asked.get('name', self.name)!r}",
                "names are a-z, 0-9 and '-', at most 128",
                f"write name={task_name(self.function.__name__)!r}",
                "name",
            )
        schedule = self.asked.get("schedule")
        asked = schedule if isinstance(schedule, Schedule) or schedule is None else Schedule(schedule)
        if problems := asked.problems() if asked is not None else []:
            wrong(
                "bad-schedule",
                f"schedule of pipeline {self.name!r}: {'; '.join(problems)}",
                "a schedule is minute, hour, day of month, month, day of week",
                'write schedule="0 3 * * *" for three o\'clock every day, or rml.cron("0 3 * * *", tz="Europe/Berlin")',
                "schedule",
            )
        triggers = self.asked.get("triggers")
        for one in triggers if isinstance(triggers, list | tuple) else [triggers] if triggers is not None else []:
            if not isinstance(one, Trigger):
                wrong(
                    "bad-trigger",
                    f"triggers of pipeline {self.name!r} got {one!r}",
                    "a trigger says what starts the pipeline besides its schedule",
                    'write triggers=[rml.on_dataset("comments")], rml.on_alias("name@champion") or rml.on_run("pipeline")',
                    "triggers",
                )
            elif one.kind == "run" and one.subject == self.name:
                wrong(
                    "trigger-loop",
                    f"pipeline {self.name!r} is started by the end of its own runs",
                    "each run would start the next, without end",
                    'give it a schedule, or name another pipeline: rml.on_run("prepare-data")',
                    "triggers",
                )
        notify = self.asked.get("notify")
        for one in notify if isinstance(notify, list | tuple) else [notify] if notify is not None else []:
            if not isinstance(one, Notification):
                wrong(
                    "bad-notify",
                    f"notify of pipeline {self.name!r} got {one!r}",
                    "it says how and when to tell whom",
                    'write notify=rml.slack("#ml-alerts", on="failure"), rml.email(…) or rml.webhook(…)',
                    "notify",
                )
        findings.extend(self._name_findings())
        return findings

    def _name_findings(self) -> list[Finding]:
        import inspect

        findings: list[Finding] = []
        other = self._shares_name_with
        # Running a cell again replaces a pipeline by itself, and other modules have pipelines of their own to name; two
        # functions of one module (or notebook) under one name are a slip.
        if other is not None and other.__module__ == self.__module__ and other.__name__ != self.__name__:
            findings.append(
                Finding(
                    "duplicate-pipeline",
                    f"two pipelines are called {self.name!r}: {other.function.__name__} and {self.function.__name__}",
                    str(self.site),
                    f"the other one is at {other.site}; in a cluster one would become a version of the other",
                    f"rename one of them: @rml.pipeline(name={self.name + '-2'!r})",
                    self.site.source(),
                )
            )
        findings.extend(
            Finding(
                "reserved-parameter",
                f"pipeline {self.name!r} has a parameter {name!r}",
                str(self.site),
                f"run() and submit() use {', '.join(_RESERVED)} themselves",
                f"rename it, for example {name}_",
                self.site.source(),
            )
            for name in inspect.signature(self.function).parameters
            if name in _RESERVED
        )
        return findings


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...
@overload
def pipeline(
    *,
    name: str | None = None,
    schedule: str | Schedule | None = None,
    triggers: Trigger | Sequence[Trigger] | None = None,
    notify: Notification | Sequence[Notification] | None = None,
) -> Callable[[Callable[..., Any]], Pipeline]: ...
def pipeline(function: Any = None, /, **asked: Any) -> Any:
    """Make a function a pipeline: `@rml.pipeline` or `@rml.pipeline(schedule="0 3 * * *", notify=rml.slack("#ml"))`.

    The function runs once, when the pipeline is built; steps called in it become tasks. Its parameters (int, float, str,
    bool, list, dict) are the run's. `schedule` is five-field cron or rml.cron(…), `triggers` are rml.on_dataset, rml.on_alias,
    rml.on_run: `publish()` makes them work. `notify` is one or several of rml.slack, rml.email,
    rml.webhook.
    """
    from .where import here

    site = here()
    if function is not None:
        return _make(function, {}, site)
    return lambda decorated: _make(decorated, asked, site)


def _make(function: Any, asked: Mapping[str, Any], site: Site) -> Pipeline:
    from .where import of_function

    if not isinstance(function, FunctionType):
        raise TypeError(f"@rml.pipeline decorates a function, got {type(function).__name__}; write it above a `def`")
    return Pipeline(function, asked, site if asked else of_function(function))
