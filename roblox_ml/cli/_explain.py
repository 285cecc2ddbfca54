"""`rml explain`: what a step would ship and why, from a module, a file or a notebook."""

from __future__ import annotations

import importlib
import json as jsonlib
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ._console import Json
from ._load import load_names


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command()(explain)


def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:STEP",
            help="A module, a .py file or a notebook, and the step in it; all its steps without one.",
        ),
    ],
    json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page here instead.")] = None,
) -> None:
    """Show the source a step ships, each line with its reason, its files, packages and lock, and what stays behind."""
    import roblox_ml as rml

    told = [rml.explain(step) for step in _steps(target)]
    if html is not None:
        pages = "<hr>".join(one._repr_html_() for one in told)
        meta = '<meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        html.write_text(f"<!doctype html>{meta}<title>{told[0].step}</title><body>{pages}</body>", "utf-8")
        typer.echo(f"wrote {html}")
    elif json:
        typer.echo(jsonlib.dumps([asdict(one) for one in told], indent=2))
    else:
        typer.echo("\n\n".join(str(one) for one in told))
    if not all(one.ships for one in told):
        raise typer.Exit(1)


def _steps(target: str) -> list[Any]:
    from .._graph.step import Step

    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    names = _names(place)
    found = {key: value for key, value in names.items() if isinstance(value, Step)}
    if name:
        if name not in found:
            raise typer.BadParameter(
                f"{place} has no step {name!r}; it has: {', '.join(found) or 'none'}", param_hint="MODULE:STEP"
            )
        return [found[name]]
    if not found:
        raise typer.BadParameter(f"{place} has no function decorated with @rml.step", param_hint="MODULE:STEP")
    return list({id(step): step for step in found.values()}.values())


def _names(place: str) -> Mapping[str, Any]:
    if Path(place).suffix in (".py", ".ipynb"):
        return load_names(Path(place))
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` has it
    try:
        return vars(importlib.import_module(place))
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{place}: {error}", param_hint="MODULE:STEP") from None
