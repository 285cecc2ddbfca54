"""All objects of an endpoint as files: the same values give the same bytes, so that a repository of manifests shows real changes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .door import door_objects
from .mesh import Split, envoy_route, http_route
from .pods import Json
from .runtime import runtime_objects
from .service import service_objects
from .values import Door, Installation, Model, Resources, Scaling, check

__all__ = ["as_yaml", "manifests", "write"]

KINDS = "runtime.yaml", "endpoint.yaml", "door.yaml", "route.yaml", "envoy.yaml"
_NOTE = "# Written by `rml manifests`; change the endpoint's settings and write it again."


class _Dumper(yaml.SafeDumper):
    """Without anchors: two places that happen to say the same are still two places."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifests(
    model: Model,
    installation: Installation,
    *,
    scaling: Scaling | None = None,
    resources: Resources | None = None,
    door: Door | None = None,
    split: Split | None = None,
    gateway: str | None = None,
    hostname: str | None = None,
) -> dict[str, list[Json]]:
    """File name to objects. `split` with a `gateway`: an HTTPRoute; `split` alone: Envoy's configuration, no Kubernetes object.

    Raises:
        ManifestInvalid: naming every value that a cluster would refuse.
    """
    scaling, resources, door = scaling or Scaling(), resources or Resources(), door or Door()
    check(model, installation, scaling, resources, door)
    found = {
        "runtime.yaml": runtime_objects(installation),
        "endpoint.yaml": service_objects(model, installation, scaling, resources),
        "door.yaml": door_objects(installation, door),
    }
    if split is not None:
        if gateway is not None:
            found["route.yaml"] = [http_route(split, installation, gateway, hostname)]
        host = f"{model.endpoint}-predictor.{installation.namespace}.svc.cluster.local"
        found["envoy.yaml"] = [envoy_route(split, (host, 80))]
    return found


def as_yaml(objects: Sequence[Json], notes: Sequence[str] = ()) -> str:
    """One YAML stream; `notes` become comments at its head."""
    text = io.StringIO()
    text.write("\n".join([_NOTE, *(f"# Not in here: {note}" for note in notes)]) + "\n")
    yaml.dump_all(objects, text, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=120, allow_unicode=True)
    return text.getvalue()


def write(files: Mapping[str, Sequence[Json]], folder: Path, notes: Sequence[str] = ()) -> list[Path]:
    """Write every file; what else lies in the folder stays. `notes` belong to what the mesh is told."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, objects in files.items():
        path = folder / name
        path.write_text(as_yaml(objects, notes if name in ("route.yaml", "envoy.yaml") else ()), encoding="utf-8")
        written.append(path)
    return written
