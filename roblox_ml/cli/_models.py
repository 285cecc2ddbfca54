"""`rml models …`: versions, aliases, gates, comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from ._console import Json, console, key_values, numbers, print_json, show, when

models_app = typer.Typer(help="The model registry.", no_args_is_help=True)
Reference = Annotated[str, typer.Argument(metavar="NAME/VERSION | NAME@ALIAS")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(models_app, name="models")


@models_app.command("list")
def models_list(
    query: Annotated[str, typer.Argument(help='e.g. "tag.team=safety" or "metric.f1>0.7"')] = "", json: Json = False
) -> None:
    """List models, or those a query finds."""
    import roblox_ml as rml

    found = rml.models.search(query)
    if json:
        print_json(
            [
                {"name": m.name, "version": m.version, "digest": m.digest, "metrics": m.metrics, "tags": m.tags}
                for m in found
            ]
        )
        return
    rows = [
        (m.name, m.version, m.digest[:12], ", ".join(m.aliases), numbers(m.metrics), when(m.created)) for m in found
    ]
    show("", ("model", "version", "digest", "aliases", "metrics", "registered"), rows, empty="no model matches")


@models_app.command("show")
def models_show(reference: Reference, json: Json = False) -> None:
    """Show one version: digest, metrics, tags, signature, lineage."""
    import roblox_ml as rml

    m = rml.models.get(reference)
    facts = {
        "name": m.name, "version": m.version, "digest": m.digest, "aliases": list(m.aliases), "metrics": m.metrics,
        "params": m.params, "tags": m.tags, "signature": m.signature, "lineage": m.lineage, "created": m.created,
    }  # fmt: skip
    if json:
        print_json(facts)
    else:
        rows = [(key, numbers(m.metrics) if key == "metrics" else _plain(value)) for key, value in facts.items()]
        show("", ("", ""), rows, empty="")


def _plain(value: object) -> str:
    """A fact as people read it: one line per entry, tensors as `X FP32 [-1, 3]`, what is empty left out."""
    if isinstance(value, Mapping):
        if {"name", "datatype", "shape"} <= set(value):
            return f"{value['name']} {value['datatype']} {list(value['shape'])}"
        inner = {key: _plain(entry) for key, entry in value.items() if entry not in (None, [], {}, "")}
        return "\n".join(
            f"{key}: {text}" if "\n" not in text else f"{key}:\n{indent(text, '  ')}" for key, text in inner.items()
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)


@models_app.command("versions")
def models_versions(name: str) -> None:
    """List a model's versions, newest first."""
    import roblox_ml as rml

    rows = [
        (m.version, m.digest[:12], ", ".join(m.aliases), numbers(m.metrics), when(m.created))
        for m in rml.models.versions(name)
    ]
    show(name, ("version", "digest", "aliases", "metrics", "registered"), rows, empty=f"{name} has no versions")


@models_app.command("history")
def models_history(name: str, alias: str = "champion") -> None:
    """Who moved an alias, when, from where to where, and why."""
    import roblox_ml as rml

    entries = rml.models.history(name, alias)
    rows = [tuple(entry.values()) for entry in entries]
    columns = tuple(entries[0]) if entries else ("generation",)
    show(f"{name}@{alias}", columns, rows, empty=f"{name}@{alias} was never set")


@models_app.command("promote")
def models_promote(reference: Reference, alias: str = "champion") -> None:
    """Point an alias at a version."""
    import roblox_ml as rml

    version = rml.models.get(reference)
    version.promote(alias)
    console.print(f"{version.name}@{alias} is now version {version.version}")


@models_app.command("rollback")
def models_rollback(name: str, alias: str = "champion") -> None:
    """Point an alias back at the version before."""
    import roblox_ml as rml

    rml.models.rollback(name, alias)
    console.print(f"{name}@{alias} is back at version {rml.models.get(f'{name}@{alias}').version}")


@models_app.command("diff")
def models_diff(a: Reference, b: Reference) -> None:
    """Compare two versions: metrics, parameters, lineage, code."""
    import roblox_ml as rml

    console.print(str(rml.models.diff(a, b)), markup=False, highlight=False, soft_wrap=True)


@models_app.command("tag")
def models_tag(reference: Reference, tag: Annotated[list[str], typer.Argument(metavar="NAME=VALUE…")]) -> None:
    """Set tags on a version."""
    import roblox_ml as rml

    rml.models.get(reference).tag(**key_values(tag, "NAME=VALUE"))


@models_app.command("download")
def models_download(reference: Reference, folder: Path) -> None:
    """Fetch a version's package, every byte checked against its digest."""
    import roblox_ml as rml

    console.print(f"wrote {rml.models.get(reference).download(folder)}")


@models_app.command("register")
def models_register(
    package: Annotated[Path, typer.Argument(help="A package folder, as rml.Model.from_… writes it.")],
    name: str,
    origin: Annotated[str, typer.Option(help="Where the model was trained.")],
) -> None:
    """Register a package made elsewhere."""
    import roblox_ml as rml

    version = rml.models.register(package, name, origin=origin)
    console.print(f"{version.name}/{version.version}@{version.digest}")
