"""`rml records …`: what doors keep of their work."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ._console import Json, console, print_json, show, when

records_app = typer.Typer(
    help="What doors keep: requests, exposures, outcome events, shadow comparisons.", no_args_is_help=True
)
Url = Annotated[str, typer.Option(help="Folder or bucket of the records; empty: as RML_RECORDS says.")]
Endpoint = Annotated[str | None, typer.Option(help="Of this endpoint alone.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(records_app, name="records")


@records_app.command("status")
def records_status(url: Url = "", json: Json = False) -> None:
    """Show what became of every row, and what the files take."""
    from .. import _records

    found = _records.status(url)
    if json:
        print_json(found)
        return
    rows = [
        (
            name, one["offered"], one["written"], one["buffered"], one["sampled_out"], _reasons(one["dropped"]), one["lost"],
            one["files"], one["bytes"], " … ".join(dict.fromkeys(day for day in (one["first"], one["last"]) if day)),
        )
        for name, one in found["streams"].items()
    ]  # fmt: skip
    columns = ("stream", "offered", "written", "in memory", "sampled out", "dropped", "lost", "files", "bytes", "days")
    show(found["url"], columns, rows, empty="")
    if not found["doors"]:
        console.print("no door has kept anything here yet")


@records_app.command("show")
def records_show(
    stream: Annotated[str, typer.Argument(help="requests, exposures, events or shadows")],
    endpoint: Endpoint = None,
    url: Url = "",
    hours: Annotated[float, typer.Option(help="Not older than this.")] = 24.0,
    rows: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """Show the newest rows of a stream."""
    from .. import _records

    found = _records.show(stream, endpoint, url, hours=hours, rows=rows)
    if json:
        print_json(found)
        return
    columns = [name for name in (found[0] if found else ()) if name not in ("at_us", "request", "response")]
    cells = [(when(row["at_us"] / 1e6), *(row[name] for name in columns)) for row in found]
    show("", ("at", *columns), cells, empty=f"no {stream} in the last {hours:g} hours")


@records_app.command("erase")
def records_erase(
    unit: Annotated[str, typer.Argument(help="The unit id, as clients send it.")],
    endpoint: Endpoint = None,
    url: Url = "",
    settle: Annotated[
        float | None, typer.Option(help="Seconds until the second pass.", show_default="2 flushes")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove every row of a unit from all streams, for good."""
    from .. import _records

    if not yes:
        typer.confirm(f"Erase all records of {unit!r}{f' of {endpoint}' if endpoint else ''}?", abort=True, err=True)
    found = _records.erase(unit, endpoint, url, settle_s=settle, say=lambda text: None if json else console.print(text))
    if json:
        print_json(found)
        return
    console.print(f"{_reasons(found['rows']) or 'no rows'} erased; {found['files']} files changed")


@records_app.command("sweep")
def records_sweep(
    url: Url = "",
    delete: Annotated[bool, typer.Option("--delete", help="Really delete; without it only the plan is shown.")] = False,
    json: Json = False,
) -> None:
    """Show (or delete) the files that have been kept long enough. Doors do this by themselves, once an hour."""
    from .. import _records

    found = _records.sweep(url, dry_run=not delete)
    if json:
        print_json(found)
        return
    what = f"{found['files']} files, {found['bytes']} bytes ({_reasons(found['by_stream']) or 'nothing'})"
    console.print(f"{what} deleted" if delete else f"{what} would go; delete them: rml records sweep --delete")


def _reasons(counts: dict[str, Any]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items())
