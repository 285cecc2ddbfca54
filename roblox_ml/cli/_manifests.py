"""`rml manifests`: an endpoint as Kubernetes objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import console, key_values


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command()(manifests)


def manifests(
    endpoint: Annotated[str, typer.Argument(help="An endpoint; its present version is what new pods start with.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    target: Annotated[str, typer.Option(help="What runs there.")] = "kserve",
    namespace: Annotated[str, typer.Option(help="Namespace of the objects.")] = "default",
    control_url: Annotated[str | None, typer.Option(help="The control plane's address as pods reach it.")] = None,
    store: Annotated[str | None, typer.Option(help="The blob store as pods reach it.")] = None,
    image: Annotated[str | None, typer.Option(help="Image of Triton and agent.")] = None,
    door_image: Annotated[str | None, typer.Option(help="Image of the door.")] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with the pods' token.")] = None,
    service_account: Annotated[str | None, typer.Option(help="Service account of the pods.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="A setting of every pod: NAME=VALUE; repeatable.")] = None,
    storage_uri: Annotated[
        str, typer.Option(help="Where the package lies as a folder; else it comes out of the store.")
    ] = "",
    min_replicas: Annotated[int, typer.Option(help="Fewest model servers.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Most model servers.")] = 1,
    scale_by: Annotated[str, typer.Option(help="cpu, or queue: waiting time, by KEDA and Prometheus.")] = "cpu",
    scale_target: Annotated[int | None, typer.Option(help="Percent of CPU, or milliseconds of waiting.")] = None,
    prometheus: Annotated[str | None, typer.Option(help="Prometheus' address, for scaling by queue.")] = None,
    cpu: Annotated[str, typer.Option(help="Processors of a model server.")] = "1",
    memory: Annotated[str, typer.Option(help="Memory of a model server.")] = "2Gi",
    cpu_limit: Annotated[str | None, typer.Option(help="Most processors; none by default.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Also write an HTTPRoute for this Gateway.")] = None,
    hostname: Annotated[str | None, typer.Option(help="Host name of that route.")] = None,
    mesh: Annotated[bool, typer.Option("--mesh", help="Also write Envoy's configuration of the split.")] = False,
) -> None:
    """Write an endpoint's Kubernetes objects: runtime, InferenceService, doors, routes."""
    from .. import _manifests, _siblings

    found, left_out = _manifests.objects(
        endpoint, target, namespace=namespace, control_url=control_url, store=store, image=image, door_image=door_image,
        secret=secret, service_account=service_account, environment=key_values(env or [], "--env"),
        storage_uri=storage_uri, min_replicas=min_replicas, max_replicas=max_replicas, scale_by=scale_by,
        scale_target=scale_target, prometheus=prometheus, cpu=cpu, memory=memory, cpu_limit=cpu_limit, gateway=gateway,
        hostname=hostname, mesh=mesh,
    )  # fmt: skip
    for path in _siblings.load("roblox_ml_serving.kserve").write(found, out, left_out):
        console.print(str(path), soft_wrap=True, highlight=False)
    for sentence in left_out:
        console.print(f"a mesh cannot do this: {sentence}", soft_wrap=True, highlight=False)
