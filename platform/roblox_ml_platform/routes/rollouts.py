"""Canaries, shadows, layers, experiments, holdouts and kill switches over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from .. import endpoints
from ..bodies import Name
from ..context import Actor, Plane, Who
from ..identity import access
from ..identity.policy import declare
from ..rollout import canaries, experiments, layers, refs, shadows, switches
from ..rollout.bodies import (
    CanaryBody,
    ExperimentBody,
    HoldoutBody,
    KillBody,
    LayerBody,
    ReasonBody,
    ShadowBody,
    StopBody,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["rollouts"])
_CANARY, _SHADOW = "/endpoints/{name}/canary", "/endpoints/{name}/shadows/{shadow}"

for _path in (_CANARY, _CANARY + "/promote"):
    declare("POST", "/v1" + _path, "promote", "endpoint")
declare("DELETE", "/v1" + _CANARY, "promote", "endpoint")
declare("PUT", "/v1" + _SHADOW, "view", "route")  # promote on the endpoint's model, view on the shadow's
declare("DELETE", "/v1" + _SHADOW, "promote", "endpoint")
for _what in ("layers", "experiments"):
    declare("GET", f"/v1/{_what}", "view", "anywhere")
declare("GET", "/v1/layers/{layer}", "view", "anywhere")
declare("PUT", "/v1/layers/{layer}", "promote", "anywhere")
declare("DELETE", "/v1/layers/{layer}", "promote", "platform")
declare("GET", "/v1/experiments/{experiment}", "view", "route")
declare("PUT", "/v1/experiments/{experiment}", "promote", "route")
declare("POST", "/v1/experiments/{experiment}/stop", "promote", "route")
declare("GET", "/v1/holdouts", "view", "anywhere")
declare("PUT", "/v1/holdouts/{holdout}", "promote", "platform")
declare("DELETE", "/v1/holdouts/{holdout}", "promote", "platform")
declare("GET", "/v1/kill", "view", "anywhere")
declare("PUT", "/v1/kill", "promote", "platform")


@router.post(_CANARY)
def start_canary(name: Name, body: CanaryBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Let a share of the endpoint's units be answered by another version, or change the running canary's share."""
    with plane.database.write() as connection:
        return canaries.start(
            connection, name, body.version, body.share, actor, isolated=body.isolated, expect=body.expect
        )


@router.delete(_CANARY)
def end_canary(name: Name, plane: Plane, actor: Actor, body: ReasonBody | None = None) -> dict[str, Any]:
    """The champion answers everybody again."""
    with plane.database.write() as connection:
        return canaries.end(connection, name, actor, (body.reason if body else "") or "ended")


@router.post(_CANARY + "/promote")
def promote_canary(name: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    """The canary's version becomes the champion."""
    with plane.database.write() as connection:
        return canaries.promote(connection, name, actor)


@router.put(_SHADOW)
def put_shadow(name: Name, shadow: Name, body: ShadowBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Ask another version the same questions; nobody gets its answers."""
    with plane.database.write() as connection:
        _on_endpoint(connection, who, name, "promote")
        ref = refs.read(body.ref)
        access.require(connection, who, "view", model=ref.model)
        return shadows.put(connection, name, shadow, ref, body.share, actor, isolated=body.isolated)


@router.delete(_SHADOW)
def delete_shadow(name: Name, shadow: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        return shadows.delete_shadow(connection, name, shadow, actor)


@router.get("/layers")
def list_layers(plane: Plane) -> dict[str, Any]:
    with plane.database.read() as connection:
        return {"layers": layers.list_layers(connection)}


@router.get("/layers/{layer}")
def get_layer(layer: Name, plane: Plane) -> dict[str, Any]:
    """Who has which buckets of the layer, and how many are free."""
    with plane.database.read() as connection:
        return layers.describe(connection, layer)


@router.put("/layers/{layer}")
def put_layer(layer: Name, body: LayerBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        return layers.put(connection, layer, body.unit, actor)


@router.delete("/layers/{layer}")
def delete_layer(layer: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        return layers.delete_layer(connection, layer, actor)


@router.get("/experiments")
def list_experiments(plane: Plane, who: Who, running: bool | None = None) -> dict[str, Any]:
    with plane.database.read() as connection:
        may_see = access.viewer(connection, who)
        found = experiments.list_experiments(connection, running=running)
        models = {one["endpoint"]: endpoints.model_of(connection, one["endpoint"]) for one in found}
        return {"experiments": [one for one in found if may_see(models[one["endpoint"]] or one["endpoint"])]}


@router.get("/experiments/{experiment}")
def get_experiment(experiment: Name, plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        found = experiments.describe(connection, experiment)
        _on_endpoint(connection, who, found["endpoint"], "view")
        return found


@router.put("/experiments/{experiment}")
def put_experiment(experiment: Name, body: ExperimentBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Begin an experiment, or change the share of the one that runs: growing moves nobody who is in it."""
    wish = body.wish()
    with plane.database.write() as connection:
        _on_endpoint(connection, who, wish.endpoint, "promote")
        for arm in wish.arms:
            if arm.ref is not None:
                access.require(connection, who, "promote", model=arm.ref.model)
        return experiments.put(connection, experiment, wish, actor, expect=body.expect)


@router.post("/experiments/{experiment}/stop")
def stop_experiment(experiment: Name, plane: Plane, who: Who, actor: Actor, body: StopBody) -> dict[str, Any]:
    """End it; with a winner, the endpoint answers with that arm's version from now on."""
    with plane.database.write() as connection:
        _on_endpoint(connection, who, experiments.describe(connection, experiment)["endpoint"], "promote")
        # A winner's model becomes the endpoint's: as much a promotion as beginning the experiment was.
        model = None if body.winner is None else experiments.model_of_arm(connection, experiment, body.winner)
        if model is not None:
            access.require(connection, who, "promote", model=model)
        return experiments.stop(connection, experiment, actor, body.reason or "stopped", body.winner)


@router.get("/holdouts")
def list_holdouts(plane: Plane) -> dict[str, Any]:
    with plane.database.read() as connection:
        return {"holdouts": switches.list_holdouts(connection)}


@router.put("/holdouts/{holdout}")
def put_holdout(holdout: Name, body: HoldoutBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        return switches.put_holdout(connection, holdout, body.unit, body.share, body.layers, actor)


@router.delete("/holdouts/{holdout}")
def delete_holdout(holdout: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        switches.delete_holdout(connection, holdout, actor)
        return {"holdout": holdout}


@router.get("/kill")
def get_kill(plane: Plane) -> dict[str, Any]:
    """What is switched off."""
    with plane.database.read() as connection:
        return switches.switched_off(connection)


@router.put("/kill")
def put_kill(body: KillBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Switch experiments, canaries or shadows off everywhere, or everything but the champion at some endpoints."""
    wishes = {kind: getattr(body, kind) for kind in switches.KINDS}
    with plane.database.write() as connection:
        return switches.kill(connection, wishes, body.endpoints, actor)


def _on_endpoint(connection: Connection, who: Any, name: str, action: str) -> None:
    """An endpoint is its model's. One that does not exist is treated as a model nobody owns, so that absence tells nothing."""
    access.require(connection, who, action, model=endpoints.model_of(connection, name) or name)
