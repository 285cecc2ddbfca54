"""Models, their versions and their aliases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from .. import aliases, mlflow_state, registration, versions
from ..bodies import Alias, AliasBody, Name, RegisterBody, RollbackBody, TagsBody, Version
from ..context import Actor, Plane, Who
from ..identity import access
from ..identity.registering import Registrant
from ..search import parse

__all__ = ["router"]

router = APIRouter(prefix="/v1/models", tags=["models"])
_SearchText = Annotated[str | None, Query(max_length=2000)]


@router.get("")
def list_models(plane: Plane, who: Who, q: _SearchText = None) -> dict[str, Any]:
    """Models with a version that satisfies `q`, for example `tag.team=safety metric.f1>0.7`; all without it."""
    with plane.database.read() as connection:
        may_see = access.viewer(connection, who)
        found = versions.list_models(connection, parse(_storable(q or "")))
        return {"models": [model for model in found if may_see(model["name"])]}


@router.get("/{name}")
def get_model(name: Name, plane: Plane) -> dict[str, Any]:
    """A model's aliases and newest version, and whether MLflow's copy agrees."""
    with plane.database.read() as connection:
        listed = versions.list_versions(connection, name)
        pointing = {alias: row["version"] for row in listed for alias in row["aliases"]}
        latest = listed[0]["version"] if listed else None
        state = mlflow_state.read(connection, name)
        team = access.resource_of(connection, name).team
    about = {"name": name, "latest": latest, "versions": len(listed), "aliases": pointing, "team": team}
    return {**about, "mlflow": state}


@router.post("/{name}/mlflow/sync", status_code=202)
def sync_mlflow(name: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Write the registry's aliases and tags over what was edited in MLflow."""
    with plane.database.write() as connection:
        versions.lock_model(connection, name)
        mlflow_state.forget(connection, name, actor)
    return {"name": name, "queued": True}


@router.post("/{name}/versions", status_code=201)
def register(
    name: Name, body: RegisterBody, plane: Plane, who: Who, actor: Actor, response: Response
) -> dict[str, Any]:
    """Register a package: 201 with a new version, 200 with the one that has the identical package."""
    by = Registrant(who, body.team)
    with plane.database.read() as connection:
        # Before anything is read for them: what they may not do must not depend on what is stored.
        by.owner(connection, name)
        by.check_blobs(connection, (file.sha256 for file in body.manifest.values()))
    request = registration.prepare(name, body.model_dump(exclude={"team"}), plane.store)
    answer = registration.register(plane.database, plane.store, request, actor, by)
    response.status_code = 201 if answer["created"] else 200
    return answer


@router.get("/{name}/versions")
def list_versions(name: Name, plane: Plane) -> dict[str, Any]:
    """All versions, newest first."""
    with plane.database.read() as connection:
        return {"versions": versions.list_versions(connection, name)}


@router.get("/{name}/versions/{version}")
def get_version(name: Name, version: Version, plane: Plane) -> dict[str, Any]:
    """One version with manifest, signature, lineage and every registration of it."""
    with plane.database.read() as connection:
        return versions.describe(connection, name, version)


@router.patch("/{name}/versions/{version}")
def tag_version(name: Name, version: Version, body: TagsBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Set tags; null removes one."""
    with plane.database.write() as connection:
        versions.tag(connection, name, version, body.tags, actor)
        return versions.describe(connection, name, version)


@router.delete("/{name}/versions/{version}")
def delete_version(name: Name, version: Version, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Forget a version that no alias and no endpoint refers to."""
    with plane.database.write() as connection:
        versions.delete_version(connection, name, version, actor)
    return {"name": name, "version": version, "deleted": True}


@router.get("/{name}/aliases/{alias}")
def get_alias(name: Name, alias: Alias, plane: Plane) -> dict[str, Any]:
    """Where an alias points, and the generation to give with the next move."""
    with plane.database.read() as connection:
        return aliases.get(connection, name, alias)


@router.get("/{name}/aliases/{alias}/history")
def alias_history(name: Name, alias: Alias, plane: Plane) -> dict[str, Any]:
    """Every move of the alias, newest first."""
    with plane.database.read() as connection:
        return {"history": aliases.history(connection, name, alias)}


@router.put("/{name}/aliases/{alias}")
def move_alias(name: Name, alias: Alias, body: AliasBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Point the alias at a version; 409 tells who moved it when the expected generation is past."""
    with plane.database.write() as connection:
        moved = aliases.move(
            connection, name, alias, body.version, actor=actor, reason=body.reason, expected=body.expected_generation
        )
        return {**moved, "digest": aliases.get(connection, name, alias)["digest"]}


@router.delete("/{name}/aliases/{alias}")
def delete_alias(name: Name, alias: Alias, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Remove an alias that no endpoint follows."""
    with plane.database.write() as connection:
        return aliases.delete_alias(connection, name, alias, actor=actor)


@router.post("/{name}/aliases/{alias}/rollback")
def roll_back(name: Name, alias: Alias, plane: Plane, actor: Actor, body: RollbackBody | None = None) -> dict[str, Any]:
    """Back to the version before the current one."""
    body = body or RollbackBody()
    with plane.database.write() as connection:
        return aliases.rollback(
            connection, name, alias, actor=actor, expected=body.expected_generation, reason=body.reason
        )


def _storable(text: str) -> str:
    """NUL cannot be asked of a database."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
