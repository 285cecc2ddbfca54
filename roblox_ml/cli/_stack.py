"""`rml up | down | status | logs | doctor`: the local stack."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated

import typer

from ._console import Json, console, fail, print_json, show


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (up, down, status, logs, doctor):
        app.command()(command)


def up(
    parts: Annotated[list[str] | None, typer.Argument(help="Parts to start; all when none is named.")] = None,
) -> None:
    """Start the local stack (or the named parts) and wait until it is ready."""
    from .. import _stack

    try:
        _stack.ensure(*(parts or ()), say=console.print)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0])) from None
    status(json=False)


def down() -> None:
    """Stop the local stack; the data stays."""
    from .. import _stack

    console.print("stopped" if _stack.down() else "nothing was running")


def status(json: Json = False) -> None:
    """Show the parts, their ports, health and restarts."""
    from .. import _stack

    parts = _stack.status()
    if json:
        print_json(parts)
        return
    rows = []
    for name, part in parts.items():
        health = "[green]ready[/]" if part["ready"] else "[red]refused[/]" if part["refused"] else "[yellow]starting[/]"
        rows.append((name, health, part["url"], " ".join(map(str, part["ports"])), part["pid"], part["restarts"]))
    show(
        "",
        ("part", "health", "address", "ports", "pid", "restarts"),
        rows,
        empty="nothing is running; start it with: rml up",
    )
    for name, part in parts.items():
        if part["refused"] and not part["ready"]:
            console.print(f"{name}: {part['refused']}", style="red", soft_wrap=True, highlight=False, markup=False)


def logs(
    part: Annotated[str, typer.Argument(help="mlflow, control-plane, triton, agent, door or supervisor.")],
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing as lines come.")] = False,
) -> None:
    """Print a part's log."""
    from .. import _stack

    path = _stack.log_path(part)
    if not path.exists():
        known = sorted(found.stem for found in path.parent.glob("*.log"))
        fail(f"there is no log of {part!r}; there are logs of: {', '.join(known) or 'nothing yet (rml up)'}")
        raise typer.Exit(1)
    with path.open(errors="replace") as handle:
        for line in deque(handle, maxlen=lines):
            typer.echo(line, nl=False)
        while follow:
            line = handle.readline()
            if line:
                typer.echo(line, nl=False)
            else:
                time.sleep(0.2)


def doctor(json: Json = False) -> None:
    """Check what the platform needs on this machine and say how to mend what is missing."""
    from ._doctor import findings

    found = findings()
    if json:
        print_json([finding.as_dict() for finding in found])
    else:
        marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        show(
            "",
            ("", "check", "found", "what to do"),
            [(marks[f.state], f.check, f.found, f.fix) for f in found],
            empty="",
        )
    if any(finding.state == "fail" for finding in found):
        raise typer.Exit(1)
