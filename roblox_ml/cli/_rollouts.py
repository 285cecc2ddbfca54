"""`rml experiment | canary | shadow | layer | holdout | kill`: what answers beside the champion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ._console import Json, console, print_json, show


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    experiment = typer.Typer(help="A/B experiments: list, show, report, grow, stop.", no_args_is_help=True)
    _add(experiment, list=list_experiments, show=show_experiment, report=report, grow=grow, stop=stop)
    app.add_typer(experiment, name="experiment")
    canary = typer.Typer(help="Canaries: start, promote, end.", no_args_is_help=True)
    _add(canary, start=start_canary, promote=promote_canary, end=end_canary)
    app.add_typer(canary, name="canary")
    shadow = typer.Typer(help="Shadows: add, remove, report.", no_args_is_help=True)
    _add(shadow, add=add_shadow, remove=remove_shadow, report=shadow_report)
    app.add_typer(shadow, name="shadow")
    _add(app, layer=layer, holdout=holdout, kill=kill)


def _add(app: typer.Typer, **commands: Callable[..., None]) -> None:
    for name, command in commands.items():
        app.command(name)(command)


_Share = Annotated[float, typer.Option(help="A fraction: 0.05 is five percent.")]
_Save = Annotated[Path | None, typer.Option("--save", help="Write the page here as HTML.")]


def list_experiments(json: Json = False) -> None:
    """Every experiment, running or ended."""
    import roblox_ml as rml

    found = rml.experiments()
    if json:
        print_json([one._known for one in found])
        return
    rows = [
        (
            one.name,
            one.endpoint,
            one._known["layer"],
            f"{one.share:.2%}",
            "running" if one.running else one._known["reason"],
        )
        for one in found
    ]
    show("", ("experiment", "endpoint", "layer", "share", "state"), rows, empty="no experiments yet: rml.experiment(…)")


def show_experiment(name: str, json: Json = False) -> None:
    """One experiment: arms, share, targeting."""
    import roblox_ml as rml

    known = rml.get_experiment(name)._known
    if json:
        print_json(known)
        return
    rows = [
        (arm["name"], arm["ref"] or "same model", f"{arm['weight'] / 100:g} %", arm["params"] or "")
        for arm in known["arms"]
    ]
    show(
        f"{name}: {known['endpoint']}, layer {known['layer']}",
        ("arm", "answers with", "weight", "params"),
        rows,
        empty="",
    )


def report(name: str, save: _Save = None, json: Json = False) -> None:
    """What an experiment shows so far."""
    import roblox_ml as rml

    _print(rml.get_experiment(name).report(), save, json)


def grow(name: str, share: Annotated[float, typer.Argument(help="A fraction: 0.5 is half of the units.")]) -> None:
    """Take more units; who is in stays in."""
    import roblox_ml as rml

    console.print(repr(rml.get_experiment(name).grow(share)))


def stop(
    name: str,
    winner: Annotated[str | None, typer.Option(help="The arm whose version answers everybody from now on.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """End an experiment."""
    import roblox_ml as rml

    console.print(repr(rml.get_experiment(name).stop(winner, reason)))


def start_canary(endpoint: str, version: int, share: _Share = 0.05) -> None:
    """Let another version answer a share of the units, or change the running canary's share."""
    import roblox_ml as rml

    rml.endpoint(endpoint).canary(version, share)
    console.print(f"version {version} answers {share:.2%} of {endpoint}'s units")


def promote_canary(endpoint: str) -> None:
    """The canary's version answers everybody."""
    import roblox_ml as rml

    target = rml.endpoint(endpoint).promote()
    console.print(f"{endpoint} serves version {target.version}")


def end_canary(endpoint: str, reason: Annotated[str, typer.Option(help="Why, for the record.")] = "") -> None:
    """The champion answers everybody again."""
    from .._addresses import control

    with control() as plane:
        ended = plane.end_canary(endpoint, reason)
    console.print(f"{endpoint}: the canary of version {ended['version']} has ended")


def add_shadow(
    endpoint: str, reference: str, name: Annotated[str | None, typer.Option()] = None, share: _Share = 1.0
) -> None:
    """Ask another version the same questions and compare."""
    import roblox_ml as rml

    console.print(repr(rml.shadow(endpoint, reference, name=name, share=share)))


def remove_shadow(endpoint: str, name: str) -> None:
    """Ask it no more."""
    from .._addresses import control

    with control() as plane:
        plane.delete_shadow(endpoint, name)
    console.print(f"{endpoint} has no shadow {name} any more")


def shadow_report(endpoint: str, name: str, save: _Save = None, json: Json = False) -> None:
    """How a shadow's answers differ."""
    import roblox_ml as rml

    _print(rml.endpoint(endpoint).shadow_report(name), save, json)


def layer(
    name: str, unit: Annotated[str, typer.Option(help="What is assigned: user_id, session_id …")] = "user_id"
) -> None:
    """Make a layer of experiments, or look at one."""
    import roblox_ml as rml

    known = rml.layer(name, unit=unit)
    rows = [(one["name"], one["endpoint"], f"{one['share'] / 100:g} %") for one in known["experiments"]]
    show(
        f"{name}: by {known['unit']}, {known['free'] / 100:g} % free",
        ("experiment", "endpoint", "share"),
        rows,
        empty="nothing runs in it",
    )


def holdout(
    name: Annotated[str | None, typer.Argument(help="Nothing: show those there are.")] = None,
    share: _Share = 0.01,
    unit: Annotated[str, typer.Option(help="What is kept out: user_id, session_id …")] = "user_id",
    layers: Annotated[list[str] | None, typer.Option("--layer", help="Of this layer only; may be repeated.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let them in again.")] = False,
) -> None:
    """Keep a share of the units out of every experiment."""
    import roblox_ml as rml

    from .._addresses import control

    if name is not None and remove:
        with control() as plane:
            plane.delete_holdout(name)
        console.print(f"nobody is kept out by {name} any more")
    elif name is not None:
        rml.holdout(name, share=share, unit=unit, layers=layers or ())
        console.print(f"{share:.2%} of {unit} see no experiment")
    else:
        with control() as plane:
            found = plane.holdouts()
        rows = [
            (one["name"], f"{one['share'] / 100:g} % of {one['unit']}", ", ".join(one["layers"]) or "all")
            for one in found
        ]
        show("", ("holdout", "share", "layers"), rows, empty="nobody is kept out")


def kill(
    what: Annotated[
        list[str] | None, typer.Argument(help="experiments, canaries, shadows; nothing: show what is off.")
    ] = None,
    endpoints: Annotated[
        list[str] | None, typer.Option("--endpoint", help="Only the champion answers here; may be repeated.")
    ] = None,
    on: Annotated[bool, typer.Option("--on", help="Switch on again.")] = False,
) -> None:
    """Switch rollouts off, everywhere and at once."""
    import roblox_ml as rml

    kinds = ("experiments", "canaries", "shadows")
    if unknown := [one for one in what or () if one not in kinds]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(kinds)}; an endpoint is --endpoint NAME")
    wishes: dict[str, Any] = dict.fromkeys(what or (), not on)
    if endpoints:
        before = set(rml.kill()["endpoints"])
        wishes["endpoints"] = sorted(before - set(endpoints) if on else before | set(endpoints))
    off = rml.kill(**wishes)
    rows = [(kind, "off" if off[kind] else "on") for kind in kinds]
    show("", ("what", "state"), [*rows, *((name, "champion only") for name in off["endpoints"])], empty="")


def _print(found: Any, save: Path | None, json: bool) -> None:
    if save is not None:
        console.print(f"written: {found.save(save)}")
    elif json:
        print_json(found.document)
    else:
        console.print(str(found), markup=False)
