"""What every command prints with: one console, one table style, one way to fail and one to print JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console()
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table, or the sentence that says what to do when it would be empty."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    # Names are typed again in the next command: they stay in one piece as long as other columns can give way.
    for position, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=position == 0)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(table if table.row_count else empty)


def print_json(value: Any) -> None:
    """Machine-readable output: exactly one JSON document."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def fail(message: str) -> None:
    """An error in the SDK's own words, on stderr."""
    # Lines are left as they are: carets must stay under their words, and a command to type must be one line.
    errors.print(f"[bold red]error[/] {escape(message)}", highlight=False, soft_wrap=True)


def key_values(pairs: Sequence[str], option: str) -> dict[str, str]:
    """`k=v` strings as a dict; a clear refusal for anything else."""
    parsed = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not of the form name=value", param_hint=option)
        parsed[key] = value
    return parsed


def numbers(values: Mapping[str, Any] | None) -> str:
    """Metrics in one cell: `f1 0.812  accuracy 0.9`."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in (values or {}).items()
    )


def when(value: Any) -> str:
    """A moment as people read it; the text itself when it is none."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S")
    return str(value or "").replace("T", " ")[:19]
