"""`rml publish`, `rml unpublish`, `rml schedules …`, `rml backfill`: pipelines that run by themselves, and ranges of the past."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import Json, console, print_json, show
from ._load import load_pipeline
from ._pipelines import Parameters, Target, _arguments

if TYPE_CHECKING:
    from .._schedules import Backfill

schedules_app = typer.Typer(help="What runs by itself.", invoke_without_command=True)
_LOOK_S = 1.0


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(publish)
    app.command()(unpublish)
    app.command()(backfill)
    app.add_typer(schedules_app, name="schedules")


def publish(
    target: Target,
    param: Parameters = None,
    on: Annotated[
        str, typer.Option(help='"local" (the control plane and its runner), or a Kubeflow address.')
    ] = "local",
) -> None:
    """Let a pipeline run by itself from now on, as its schedule and triggers say."""
    import roblox_ml as rml

    place = on if on == "local" else rml.connect(on)
    console.print(str(load_pipeline(target).publish(on=place, **_arguments(param))), markup=False, highlight=False)


def unpublish(name: str) -> None:
    """Take a published pipeline back: its schedules, triggers and waiting runs go, the record of its runs stays."""
    import roblox_ml as rml

    rml.unpublish(name)
    console.print(f"{name} no longer runs by itself; `rml publish` brings it back", highlight=False)


@schedules_app.callback()
def schedules_list(context: typer.Context, json: Json = False) -> None:
    """List the schedules: next due time, last runs, state."""
    if context.invoked_subcommand is None:
        schedules_all(json)


@schedules_app.command("list")
def schedules_all(json: Json = False) -> None:
    """List the schedules: next due time, last runs, state."""
    import roblox_ml as rml

    found = rml.schedules()
    if json:
        print_json([one._told for one in found])
    else:
        show("", found.COLUMNS, found.rows(), empty="nothing is scheduled: rml publish FILE[:PIPELINE]")


@schedules_app.command("show")
def schedules_show(name: str, limit: int = 20, json: Json = False) -> None:
    """One schedule: policies, next ten times, and what became of the last due times."""
    one = _named(name)
    runs = one.runs(limit)
    if json:
        print_json({**one._told, "next": one.next(), "runs": runs})
        return
    policy = one.schedule
    console.print(f"{one!r}", markup=False, highlight=False)
    console.print(
        f"catch-up {policy.catchup}, overlap {policy.overlap}, jitter {policy.jitter_s} s, late after {policy.late_after_s} s",
        highlight=False,
    )
    console.print(f"next: {', '.join(one.next()) or 'never'}", highlight=False)
    rows = [(r["due"], r["state"], "late" if r["late"] else "", r["run"], r["reason"]) for r in runs]
    show("", ("due", "state", "", "run", "reason"), rows, empty="nothing was due yet")


@schedules_app.command("next")
def schedules_next(name: str, count: int = 10) -> None:
    """Print the next due times."""
    for due in _named(name).next(count):
        console.print(due, highlight=False)


@schedules_app.command("pause")
def schedules_pause(name: str) -> None:
    """Start nothing more until it is resumed; what is due meanwhile is listed as skipped."""
    console.print(repr(_named(name).pause()), markup=False, highlight=False)


@schedules_app.command("resume")
def schedules_resume(name: str) -> None:
    """Go on; due times that passed while it was paused are not made up for."""
    console.print(repr(_named(name).resume()), markup=False, highlight=False)


@schedules_app.command("delete")
def schedules_delete(name: str) -> None:
    """Forget a schedule; its runs stay on record."""
    _named(name).delete()
    console.print(f"deleted {name}; `rml publish` brings it back")


def backfill(
    pipeline: Annotated[str | None, typer.Argument(metavar="NAME", help="A published pipeline.")] = None,
    from_: Annotated[str, typer.Option("--from", help="First day (or time), included.")] = "",
    to: Annotated[str, typer.Option("--to", help="Last day (or time), included.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="How many runs at once.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Parameter of every run; {date} is the day it was due."),
    ] = None,
    cron: Annotated[str | None, typer.Option(help='Which times, if not its schedule: "0 0 * * *".')] = None,
    tz: Annotated[str, typer.Option(help="Time zone of --cron.")] = "UTC",
    rerun: Annotated[bool, typer.Option("--rerun", help="Also what the schedule has run already.")] = False,
    again: Annotated[bool, typer.Option("--again", help="A new one, even if the same is going on.")] = False,
    retry: Annotated[int | None, typer.Option(help="Go on with the failed runs of this backfill.")] = None,
    cancel: Annotated[int | None, typer.Option(help="End this backfill.")] = None,
    wait: Annotated[bool, typer.Option(help="Watch until it is over.")] = True,
) -> None:
    """Run a pipeline for every due time of a range. The same command after a kill goes on with it."""
    import roblox_ml as rml

    from .. import _schedules

    if cancel is not None:
        console.print(str(_schedules.find_backfill(cancel).cancel()), highlight=False)
        return
    if retry is not None:
        made = _schedules.find_backfill(retry).retry()
    else:
        if not (pipeline and from_ and to):
            raise typer.BadParameter("write rml backfill NAME --from 2026-01-01 --to 2026-03-01")
        given: dict[str, Any] = _arguments(set_)
        times = None if cron is None else rml.cron(cron, tz=tz)
        made = _schedules.backfill(
            pipeline, from_, to, concurrency=concurrency, schedule=times, rerun=rerun, again=again, wait=False, **given
        )
    console.print(f"backfill {made.id}{'' if made.created or retry else ' (going on)'}: {made}", highlight=False)
    if wait:
        _watch(made)


def _watch(made: Backfill) -> None:
    """Say what changes; Ctrl-C ends the watching, not the backfill."""
    said = str(made)
    try:
        while not made.refresh().done:
            if (text := str(made)) != said:
                console.print(text, highlight=False)
                said = text
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        console.print(f"backfill {made.id} goes on; `rml backfill --cancel {made.id}` ends it")
        raise
    made.wait()
    console.print(f"backfill {made.id} is done: {made}", highlight=False)


def _named(name: str) -> Any:
    import roblox_ml as rml

    found = rml.schedules()
    try:
        return found[name]
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="NAME") from None
