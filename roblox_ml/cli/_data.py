"""`rml datasets … | gc`: named data, and what nobody refers to any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import Json, console, key_values, print_json, show, when

datasets_app = typer.Typer(help="Named, versioned, digested data sets.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(datasets_app, name="datasets")
    app.command()(gc)


@datasets_app.command("add")
def datasets_add(
    name: str,
    source: Annotated[Path, typer.Argument(help="A file or a folder.")],
    description: str = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE")] = None,
) -> None:
    """Store a file or folder as the next version of a named data set."""
    import roblox_ml as rml

    added = rml.datasets.add(name, source, description=description, tags=key_values(tag or [], "--tag"))
    console.print(
        f"{added.name} version {added.version}  {added.digest[:12]}  {len(added.files)} files, {added.size} bytes"
    )


@datasets_app.command("list")
def datasets_list(json: Json = False) -> None:
    """List the newest version of every data set."""
    import roblox_ml as rml

    found = rml.datasets.list()
    if json:
        print_json(
            [
                {"name": d.name, "version": d.version, "digest": d.digest, "files": len(d.files), "size": d.size}
                for d in found
            ]
        )
        return
    rows = [(d.name, d.version, d.digest[:12], len(d.files), d.size, when(d.created), d.description) for d in found]
    show(
        "",
        ("data set", "version", "digest", "files", "bytes", "added", "description"),
        rows,
        empty="no data sets yet; add one: rml datasets add NAME FOLDER",
    )


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Really delete; without it only the plan is shown.")] = False,
    keep_runs: Annotated[int, typer.Option(help="Runs to keep, whatever their age.")] = 20,
    older_than: Annotated[str, typer.Option(help="Only what is older, e.g. 7d or 12h.")] = "7d",
) -> None:
    """Show (or delete) runs, environments and bytes that nothing refers to."""
    import roblox_ml as rml

    console.print(rml.gc(dry_run=not delete, keep_runs=keep_runs, older_than=older_than))
