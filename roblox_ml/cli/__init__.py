"""The `rml` command: the SDK's verbs, one file per noun. Errors are printed as the SDK words them, without a traceback."""

from __future__ import annotations

import sys

import typer

from . import (
    _bench,
    _data,
    _experiments,
    _explain,
    _identity,
    _manifests,
    _models,
    _notify,
    _pipelines,
    _records,
    _rollouts,
    _schedules,
    _serving,
    _stack,
)

app = typer.Typer(
    name="rml",
    help="Notebook code to Kubeflow pipelines, a versioned registry and Triton endpoints.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_stack.add_to(app)
_pipelines.add_to(app)
_explain.add_to(app)
_data.add_to(app)
_models.add_to(app)
_serving.add_to(app)
_experiments.add_to(app)
_notify.add_to(app)
_identity.add_to(app)
_schedules.add_to(app)
_records.add_to(app)
_bench.add_to(app)
_manifests.add_to(app)
_rollouts.add_to(app)


def main() -> None:
    """Entry point of the `rml` script."""
    from ..errors import RmlSdkError
    from ._console import fail

    try:
        app()
    except RmlSdkError as error:
        fail(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
