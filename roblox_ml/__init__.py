"""roblox_ml: notebook code to Kubeflow pipelines, a versioned registry and Triton endpoints, without building an image.

    import roblox_ml as rml

Every public name is loaded on first use (PEP 562): `import roblox_ml` costs milliseconds, and a step, which runs with
nothing installed but Python, never pays for the parts it does not touch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → (module, attribute); attribute None = the module itself
_EXPORTS: dict[str, tuple[str, str | None]] = {
    "Artifact": ("._artifacts", "Artifact"),
    "Dataset": ("._artifacts", "Dataset"),
    "HTML": ("._artifacts", "HTML"),
    "Markdown": ("._artifacts", "Markdown"),
    "Metrics": ("._artifacts", "Metrics"),
    "Model": ("._artifacts", "Model"),
    "apprise": (".notify", "apprise"),
    "at_most": ("._graph.gates", "at_most"),
    "backfill": ("._schedules", "backfill"),
    "cache": ("._traffic", "cache"),
    "canary": ("._rollouts.wishes", "canary"),
    "card": ("._cards.collect", "card"),
    "choice": ("._sweeps.space", "choice"),
    "compare": ("._compare.comparing", "compare"),
    "connect": ("._backends.kfp", "connect"),
    "cron": ("._graph.schedule", "cron"),
    "dataset": ("._graph.system", "dataset"),
    "datasets": (".datasets", None),
    "decide": ("._rollouts.deciding", "decide"),
    "deploy": ("._deploy", "deploy"),
    "direct": ("._direct.client", "direct"),
    "distill": ("._distill", "distill"),
    "due_date": ("._graph.schedule", "due_date"),
    "email": (".notify", "email"),
    "endpoint": ("._deploy", "endpoint"),
    "errors": (".errors", None),
    "experiment": ("._rollouts.experiments", "experiment"),
    "experiments": ("._rollouts.experiments", "experiments"),
    "explain": ("._explain", "explain"),
    "gate": ("._graph.gates", "gate"),
    "gc": (".housekeeping", "gc"),
    "get_experiment": ("._rollouts.experiments", "get_experiment"),
    "get_run": ("._runs", "get_run"),
    "get_sweep": ("._sweeps.result", "get_sweep"),
    "guardrail": ("._rollouts.wishes", "guardrail"),
    "holdout": ("._rollouts.controls", "holdout"),
    "index": ("._env._private", "index"),
    "integers": ("._sweeps.space", "integers"),
    "kill": ("._rollouts.controls", "kill"),
    "layer": ("._rollouts.controls", "layer"),
    "log": ("._rollouts.wishes", "log"),
    "manifests": ("._manifests", "manifests"),
    "metric": ("._rollouts.wishes", "metric"),
    "models": (".models", None),
    "on_alias": ("._graph.schedule", "on_alias"),
    "on_dataset": ("._graph.schedule", "on_dataset"),
    "on_run": ("._graph.schedule", "on_run"),
    "optimize": ("._optimize", "optimize"),
    "otherwise": ("._graph.conditions", "otherwise"),
    "pipeline": ("._graph.pipeline", "pipeline"),
    "queue": ("._traffic", "queue"),
    "register": ("._graph.system", "register"),
    "report": ("._sweeps.reports", "report"),
    "runs": ("._runs", "runs"),
    "schedules": ("._schedules", "schedules"),
    "secret": ("._graph.cluster", "secret"),
    "shadow": ("._rollouts.controls", "shadow"),
    "slack": (".notify", "slack"),
    "step": ("._graph.step", "step"),
    "sweep": ("._sweeps.beginning", "sweep"),
    "sweeps": ("._sweeps.result", "sweeps"),
    "toleration": ("._graph.cluster", "toleration"),
    "track": ("._rollouts.tracking", "track"),
    "track_flush": ("._rollouts.tracking", "track_flush"),
    "track_many": ("._rollouts.tracking", "track_many"),
    "undeploy": ("._deploy", "undeploy"),
    "uniform": ("._sweeps.space", "uniform"),
    "unpublish": ("._schedules", "unpublish"),
    "webhook": (".notify", "webhook"),
    "when": ("._graph.conditions", "when"),
}

__all__ = [
    "HTML",
    "Artifact",
    "Dataset",
    "Markdown",
    "Metrics",
    "Model",
    "apprise",
    "at_most",
    "backfill",
    "cache",
    "canary",
    "card",
    "choice",
    "compare",
    "connect",
    "cron",
    "dataset",
    "datasets",
    "decide",
    "deploy",
    "direct",
    "distill",
    "due_date",
    "email",
    "endpoint",
    "errors",
    "experiment",
    "experiments",
    "explain",
    "gate",
    "gc",
    "get_experiment",
    "get_run",
    "get_sweep",
    "guardrail",
    "holdout",
    "index",
    "integers",
    "kill",
    "layer",
    "log",
    "manifests",
    "metric",
    "models",
    "on_alias",
    "on_dataset",
    "on_run",
    "optimize",
    "otherwise",
    "pipeline",
    "queue",
    "register",
    "report",
    "runs",
    "schedules",
    "secret",
    "shadow",
    "slack",
    "step",
    "sweep",
    "sweeps",
    "toleration",
    "track",
    "track_flush",
    "track_many",
    "undeploy",
    "uniform",
    "unpublish",
    "webhook",
    "when",
]


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        from difflib import get_close_matches

        near = get_close_matches(name, _EXPORTS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'roblox_ml' has no attribute {name!r}{hint}") from None
    loaded = import_module(module, __name__)
    value = loaded if attribute is None else getattr(loaded, attribute)
    # Written into the module, so the next access is an ordinary one. A function's module never bears its name (`_deploy`
    # has `deploy`): importing a submodule puts it here, and would hide the function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


if "IPython" in sys.modules:  # capture must know which cells ran, and how far
    import_module("._history", __name__).watch()


if TYPE_CHECKING:
    from . import datasets, errors, models
    from ._artifacts import HTML, Artifact, Dataset, Markdown, Metrics, Model
    from ._backends.kfp import connect
    from ._cards.collect import card
    from ._compare.comparing import compare
    from ._deploy import deploy, endpoint, undeploy
    from ._direct.client import direct
    from ._distill import distill
    from ._env._private import index
    from ._explain import explain
    from ._graph.cluster import secret, toleration
    from ._graph.conditions import otherwise, when
    from ._graph.gates import at_most, gate
    from ._graph.pipeline import pipeline
    from ._graph.schedule import cron, due_date, on_alias, on_dataset, on_run
    from ._graph.step import step
    from ._graph.system import dataset, register
    from ._manifests import manifests
    from ._optimize import optimize
    from ._rollouts.controls import holdout, kill, layer, shadow
    from ._rollouts.deciding import decide
    from ._rollouts.experiments import experiment, experiments, get_experiment
    from ._rollouts.tracking import track, track_flush, track_many
    from ._rollouts.wishes import canary, guardrail, log, metric
    from ._runs import get_run, runs
    from ._schedules import backfill, schedules, unpublish
    from ._sweeps.beginning import sweep
    from ._sweeps.reports import report
    from ._sweeps.result import get_sweep, sweeps
    from ._sweeps.space import choice, integers, uniform
    from ._traffic import cache, queue
    from .housekeeping import gc
    from .notify import apprise, email, slack, webhook
