"""`rml sweeps …`, `rml compare`, `rml runs card`: experiments from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import Json, console, print_json, show, when
from ._pipelines import runs_app

sweeps_app = typer.Typer(help="Sweeps: a pipeline over a space of parameters.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(compare)
    app.add_typer(sweeps_app, name="sweeps")
    runs_app.command("card")(card)


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN… | SWEEP", help="Ids of runs, or a sweep's name.")],
    diff: Annotated[str | None, typer.Option(metavar="STEP", help="Show how this step's source differs.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Runs beside one another: parameters, metrics, times, and what differs in code, packages and data."""
    import roblox_ml as rml

    found = rml.compare(*runs)
    if html is not None:
        console.print(f"wrote {found.save(html)}")
    elif diff is not None:
        typer.echo(found.diff(diff) or f"{diff} is the same in both", nl=False)
    elif json:
        print_json({"runs": found.table(), "differences": found.differences})
    else:
        typer.echo(str(found))


@sweeps_app.callback()
def sweeps_list(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline's.")] = None,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    json: Json = False,
) -> None:
    """List sweeps, newest first."""
    if context.invoked_subcommand:
        return
    import roblox_ml as rml

    rows = []
    for one in rml.sweeps(pipeline=pipeline, limit=limit):
        best = one._best_of(one.trials)
        value = None if best is None else best.value
        created = when(one._about["created"])
        rows.append((one.name, one.definition.pipeline, one.state, one.counts(), one.definition.metric, value, created))
    columns = ("sweep", "pipeline", "state", "trials", "metric", "best", "begun")
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    shown = [(*row[:5], "" if row[5] is None else f"{row[5]:.4g}", row[6]) for row in rows]
    show("", columns, shown, empty="no sweeps yet; begin one with rml.sweep(pipeline, space, metric=…, trials=…)")


@sweeps_app.command("show")
def sweeps_show(
    name: str,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Show a sweep's trials, the best first."""
    import roblox_ml as rml

    from .._sweeps.progress import table

    found = rml.get_sweep(name)
    if html is not None:
        console.print(f"wrote {found.save(html)}")
    elif json:
        print_json({"name": found.name, "state": found.state, "notes": found.notes, "trials": found.table()})
    else:
        console.print(table(found, rows=1000))
        for note in found.notes:
            console.print(note, markup=False)


@sweeps_app.command("resume")
def sweeps_resume(
    name: str,
    trials: Annotated[int | None, typer.Option(help="Trials in all; as many as before when not said.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Trials at once.")] = None,
) -> None:
    """Go on with a sweep that was killed, stopped or is to be longer, with the code it was begun with."""
    import roblox_ml as rml

    done = rml.get_sweep(name).resume(trials=trials, parallel=parallel)
    console.print(repr(done), markup=False)


def card(
    run_id: str,
    step: Annotated[str | None, typer.Argument(help="A step; all that have a card when none is named.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Where the card of a step is, or show it."""
    import roblox_ml as rml

    from ..errors import RunNotFound

    cards = rml.get_run(run_id).cards
    names = list(cards) if step is None else [step]
    missing = [name for name in names if name not in cards]
    if missing or not names:
        there = ", ".join(cards) or "no step"
        raise RunNotFound(f"run {run_id} has no card of {step or 'any step'}", fix=f"there are cards of: {there}")
    for name in names:
        typer.echo(str(cards[name].open() if open_ else cards[name].path))
