"""`rml deploy | undeploy | endpoints | predict | rollback`: live models."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated, Any

import typer

from ._console import Json, console, print_json, show


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (deploy, undeploy, predict, rollback):
        app.command()(command)


def deploy(
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS | NAME/VERSION")],
    name: Annotated[str | None, typer.Option(help="Endpoint name; the model's when not given.")] = None,
    unit: Annotated[str | None, typer.Option(help="What experiments and canaries keep to; user_id at first.")] = None,
    canary: Annotated[
        float | None,
        typer.Option(help="Not all: so many percent (5), or such a share (0.05), of the endpoint that is there."),
    ] = None,
) -> None:
    """Put a model behind the door; starts what is not running."""
    import roblox_ml as rml

    if canary is not None:
        rml.deploy(reference, name, unit=unit, canary=int(canary) if canary.is_integer() else canary)
        return
    endpoint = rml.deploy(reference, name, unit=unit)
    console.print(f"{endpoint.name} serves version {endpoint.version} at {endpoint.url}")
    endpoint.curl()


def undeploy(name: str) -> None:
    """Take an endpoint away."""
    import roblox_ml as rml

    rml.undeploy(name)
    console.print(f"{name} is no longer served")


def predict(
    name: str,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; from standard input, one a line, when none is given.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Named inputs as JSON, e.g. '{\"X\": [[1, 2]]}'.")] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask over gRPC.")] = False,
    json: Json = False,
) -> None:
    """Ask an endpoint."""
    import roblox_ml as rml

    inputs = _inputs(data, texts)
    target = rml.endpoint(name)
    answer = target.grpc.predict(inputs) if grpc else target.predict(inputs)
    if json:
        print_json(list(answer))
    else:
        rows = list(answer)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        show(
            "",
            columns,
            (
                [
                    jsonlib.dumps(row.get(key), ensure_ascii=False) if not isinstance(row.get(key), str) else row[key]
                    for key in columns
                ]
                for row in rows
            ),
            empty="no rows",
        )


def _inputs(data: str | None, texts: list[str] | None) -> Any:
    if data is None:
        return texts or [line.rstrip("\n") for line in sys.stdin]
    try:
        return jsonlib.loads(data)
    except ValueError as error:
        raise typer.BadParameter(f"{data!r} is no JSON: {error}", param_hint="--data") from None


def rollback(name: str) -> None:
    """Send an endpoint back to the version before, for every client at once."""
    import roblox_ml as rml

    target = rml.endpoint(name)
    target.rollback()
    console.print(f"{name} serves version {target.version}")
