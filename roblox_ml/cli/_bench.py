"""`rml bench text`: what a text model costs on this machine, in process and served, beside where everybody starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._console import Json, console, print_json

bench_app = typer.Typer(help="Measure models on this machine.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(bench_app, name="bench")


@bench_app.command("text")
def text(
    model: Annotated[str, typer.Argument(metavar="NAME@ALIAS | NAME/VERSION | FOLDER")],
    texts: Annotated[
        Path | None, typer.Option(help="Your texts, one a line; the package's examples when not given.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Everything takes its turn so often; medians are shown.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long a turn takes.")] = 2.0,
    article: Annotated[bool, typer.Option(help="Also the article's five steps from BERT padded to 128.")] = True,
    served: Annotated[bool, typer.Option(help="Also through a door and a Triton of their own.")] = True,
    machine: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VCPUS:USD_PER_HOUR", help="A machine whose price you know.")
    ] = None,
    gpu_machine: Annotated[
        str | None, typer.Option(metavar="NAME=VCPUS:USD_PER_HOUR", help="The price of a machine with this GPU.")
    ] = None,
    isa: Annotated[str | None, typer.Option(help="Pretend to have less: avx512-vnni (no AMX) or avx2.")] = None,
    json: Json = False,
) -> None:
    """The article's scenarios, your model and what is served: latency, texts per second, CPU time, cost per million."""
    import dataclasses

    from .. import _siblings

    measure = _siblings.load("roblox_ml_serving.trial.textbench")
    results = _siblings.load("roblox_ml_serving.trial.results")
    page = _siblings.load("roblox_ml_serving.trial.page")
    prices = [_machine(entry) for entry in machine or ()]
    env = _environment(isa)
    package = _package(model)
    chosen = _texts(texts, package)
    with console.status("") as status:
        bench = measure.run(
            package,
            chosen,
            name=model,
            rounds=rounds,
            seconds=seconds,
            article=article,
            served=served,
            env=env,
            progress=status.update,
        )
    if prices:
        bench = dataclasses.replace(bench, prices=prices)
    if gpu_machine:
        bench = dataclasses.replace(bench, gpu_price=_machine(gpu_machine))
    document = results.document(bench)
    kept = results.store(_home() / "benchmarks", f"text-{model}" + (f"-{isa}" if isa else ""), document)
    if html is not None:
        html.write_text(page.page(bench), encoding="utf-8")
    if json:
        print_json(document)
        return
    console.print(f"{bench.machine['cpu']}, {bench.machine['cores']} cores; {bench.lengths}", highlight=False)
    console.print(page.text(page.tables(bench)), markup=False, highlight=False, soft_wrap=True)
    for note in bench.notes:
        console.print(note, markup=False)
    console.print(f"kept in {kept}" + (f", page in {html}" if html else ""), highlight=False, soft_wrap=True)


def _home() -> Path:
    from .._store import home

    return home()


def _package(model: str) -> Path:
    """A local folder, or the registered version's files (kept in the cache)."""
    folder = Path(model).expanduser()
    if (folder / "package.json").is_file():
        return folder
    import roblox_ml as rml

    found = rml.models.get(model)
    return found.download(_home() / "cache" / "models" / found.digest)


def _texts(file: Path | None, package: Path) -> list[str]:
    if file is not None:
        found = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    else:
        found = _examples(package)
    if len(found) < 8:
        raise typer.BadParameter(
            f"{len(found)} texts are too few to measure with; give at least 8 of your own, one a line",
            param_hint="--texts",
        )
    return found


def _examples(package: Path) -> list[str]:
    import json

    file = package / "examples.json"
    if not file.is_file():
        return []
    inputs: list[dict[str, Any]] = json.loads(file.read_bytes())["inputs"]
    return [str(text) for tensor in inputs if tensor["name"] == "TEXT" for text in tensor["data"]]


def _environment(isa: str | None) -> dict[str, str]:
    from .. import _siblings

    known = _siblings.load("roblox_ml_serving.trial.scenarios").LESS_CPU
    if isa is None:
        return {}
    if isa not in known:
        raise typer.BadParameter(f"{isa!r} is none of {', '.join(known)}", param_hint="--isa")
    return dict(known[isa])


def _machine(entry: str) -> Any:
    from .. import _siblings

    name, _, rest = entry.partition("=")
    vcpus, _, usd = rest.partition(":")
    try:
        return _siblings.load("roblox_ml_serving.trial.costs").Machine(name, int(vcpus), float(usd), "given")
    except ValueError:
        raise typer.BadParameter(f"{entry!r} is not NAME=VCPUS:USD_PER_HOUR", param_hint="--machine") from None
