"""`rml run | compile | submit | runs …`: pipelines from a file, and the record of their runs."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from ._console import Json, console, key_values, print_json, show, when
from ._load import load_pipeline

Target = Annotated[
    str,
    typer.Argument(metavar="FILE[:PIPELINE]", help="A .py file or notebook; name the pipeline when it holds several."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="Pipeline parameter; JSON or plain text."),
]
runs_app = typer.Typer(help="Recorded runs.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(run)
    app.command(name="compile")(compile_)
    app.command()(submit)
    app.add_typer(runs_app, name="runs")


def run(target: Target, param: Parameters = None) -> None:
    """Run a pipeline here, step by step in processes of their own."""
    finished = load_pipeline(target).run(**_arguments(param))
    console.print(f"run {finished.id} {finished.state}")


def compile_(
    target: Target,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the IR goes.")] = Path("pipeline.yaml"),
) -> None:
    """Write a pipeline's Kubeflow IR."""
    load_pipeline(target).compile(output)
    console.print(f"wrote {output} ({output.stat().st_size} bytes)")


def submit(
    target: Target,
    host: Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines API.", envvar="RML_KFP_HOST")],
    experiment: Annotated[str | None, typer.Option(help="Kubeflow experiment.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label of the run.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until the run is over; show its steps.")] = False,
    param: Parameters = None,
) -> None:
    """Send a pipeline to Kubeflow Pipelines: the bundles to the store, exactly the compiled bytes to the server."""
    labels = key_values(label or [], "--label") or None
    remote = load_pipeline(target).submit(
        host=host, experiment=experiment, run_name=name, run_labels=labels, **_arguments(param)
    )
    console.print(f"submitted kfp:{remote.id}  {remote.url}", soft_wrap=True)
    if wait:
        remote.wait(progress=True)


@runs_app.callback()
def runs_list(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline's.")] = None,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    kubeflow: Annotated[bool, typer.Option("--kubeflow", "-k", help="Those on Kubeflow (RML_KFP_HOST).")] = False,
    json: Json = False,
) -> None:
    """List recorded runs, newest first. A run on Kubeflow is called kfp:<id>, in every command."""
    if context.invoked_subcommand:
        return
    import roblox_ml as rml

    found = rml.connect().runs(pipeline, limit=limit) if kubeflow else rml.runs(pipeline=pipeline, limit=limit)
    prefix = "kfp:" if kubeflow else ""
    if json:
        print_json(
            [
                {"id": f"{prefix}{run.id}", "pipeline": run.pipeline, "state": str(run.state), "duration": run.duration}
                for run in found
            ]
        )
        return
    rows = [
        (
            f"{prefix}{run.id}",
            run.pipeline,
            run.state,
            f"{run.duration:.1f} s" if run.duration is not None else "",
            when(run.created),
        )
        for run in found
    ]
    show("", ("run", "pipeline", "state", "took", "started"), rows, empty="no runs yet; start one with: rml run FILE")


@runs_app.command("show")
def runs_show(run_id: str, json: Json = False) -> None:
    """Show a run's steps, their states, times and outputs."""
    import roblox_ml as rml

    run = rml.get_run(run_id)
    rows = [
        (task.name, task.state, f"{task.duration:.1f} s" if task.duration is not None else "", task.reason)
        for task in run.tasks.values()
    ]
    if json:
        columns = ("task", "state", "took", "error")
        print_json(
            {
                "id": run.id,
                "pipeline": run.pipeline,
                "state": str(run.state),
                "tasks": [dict(zip(columns, row, strict=True)) for row in rows],
            }
        )
        return
    show(
        f"{run.pipeline}  {run_id}  {run.state}", ("step", "state", "took", "error"), rows, empty="no step has started"
    )


@runs_app.command("logs")
def runs_logs(
    run_id: str, task: str, follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the step ends.")] = False
) -> None:
    """Print a step's log."""
    import roblox_ml as rml

    text = rml.get_run(run_id).logs(task, follow=follow)
    if not follow:  # followed, it has been printed as it came
        typer.echo(text or "", nl=False)


@runs_app.command("cancel")
def runs_cancel(run_id: str) -> None:
    """Stop a run; its running steps are ended."""
    import roblox_ml as rml

    run = rml.get_run(run_id)
    run.cancel()
    console.print(f"run {run_id} {run.state}")


@runs_app.command("retry")
def runs_retry(run_id: str) -> None:
    """Finish a failed or killed run without repeating what succeeded."""
    import roblox_ml as rml

    finished = rml.get_run(run_id).retry()
    console.print(f"run {run_id} {finished.state}")


def _arguments(pairs: list[str] | None) -> dict[str, Any]:
    """Parameters from the command line: JSON where it parses (`3`, `0.5`, `true`, `[1,2]`), text where it does not."""
    values: dict[str, Any] = {}
    for name, text in key_values(pairs or [], "--param").items():
        try:
            values[name] = jsonlib.loads(text)
        except jsonlib.JSONDecodeError:
            values[name] = text
    return values
