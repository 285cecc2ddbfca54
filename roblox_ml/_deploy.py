"""Put a registered model behind an endpoint, ask it, take it back.

    endpoint = rml.deploy("comment-sentiment@champion")
    endpoint.predict(["gg, well played!"])
    endpoint.rollback()

`deploy` states a wish at the control plane and waits until the door answers with that version; a version that the model
server refuses is an error with the server's reason: the endpoint points again where it did, and goes on answering. Who is killed
while it waits leaves the wish behind; the door answers with the version before until the new one is ready.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _siblings
from ._addresses import control, control_url, ensure_stack, translated
from ._endpoint import Endpoint
from ._endpoint_grpc import GrpcEndpoint
from ._predict import InputError, Prediction
from ._rollouts.wishes import Canary, Log, WishError, percent_or_share
from ._traffic import Cache, Queue
from .errors import Conflict, RemoteError, RmlSdkError

__all__ = ["Endpoint", "GrpcEndpoint", "InputError", "Prediction", "deploy", "endpoint", "undeploy"]


def deploy(
    ref: str,
    name: str | None = None,
    *,
    wait: bool = True,
    timeout: float = 120.0,
    cache: Cache | None = None,
    queue: Queue | None = None,
    canary: Canary | float | None = None,
    unit: str | None = None,
    log: Log | None = None,
    target: str | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Endpoint:
    """Make `ref` answer at an endpoint.

    Args:
        ref: `"name@alias"` (the endpoint follows the alias), `"name/3"` (it stays at version 3), or `"name"`: the champion.
        name: the endpoint's name; the model's if left out.
        wait: return when the door answers with that version; otherwise at once.
        timeout: seconds to wait for it.
        cache: what doors may keep of a text model's answers (`rml.cache(...)`); left out, it stays as it is: off at first.
        queue: how long a text model's line may be (`rml.queue(...)`); left out, it stays as it is: 200 ms at first.
        canary: a number: `ref` answers so many percent of the units (5) or such a share (0.05) of the endpoint that is there, and the
            rest stays as it is. `rml.canary(version=8, share=0.05)`: `ref` is deployed, and version 8 is its canary.
        unit: what `predict(unit=…)` is the id of: experiments and canaries keep to it; `user_id` at first.
        log: what doors keep of the requests (`rml.log(...)`); left out, it stays as it is: everything but the bodies, at first.
        target: "kserve": serve on a Kubernetes cluster with KServe; `settings` are those of `rml.manifests`.
        say: where progress lines go; print if left out.

    Raises:
        NotFound: no such model, version or alias.
        RemoteError: the model server refused the version (its reason is in the message).
        NotRunning: a service could not be started or reached, or the version was not ready in time.
    """
    speak = say or (lambda line: print(line, flush=True))
    share = None if canary is None or isinstance(canary, Canary) else percent_or_share(canary)
    with translated():
        reference = _siblings.load("roblox_ml_core.names").parse_reference(ref, default_alias="champion")
    if settings and target is None:
        raise TypeError(f'deploy() has no {", ".join(settings)}; settings of a cluster need target="kserve"')
    _check(reference)
    if target is None:
        ensure_stack(speak)
    named = name or reference.name
    if share is not None:
        others = {"cache": cache, "queue": queue, "unit": unit, "log": log, "target": target}
        if said := [part for part, wish in others.items() if wish is not None]:
            raise WishError(
                f"canary={canary!r} with {', '.join(said)}",
                why="a canary changes nothing else at its endpoint",
                fix=f'rml.deploy("{reference.name}@champion", {said[0]}=…) first, then the canary alone',
            )
        return _start_canary(Endpoint(named), reference, share, wait, timeout, speak)
    with control() as plane:
        wishes = {"cache": cache, "queue": queue}
        policy = {part: wish.to_json() for part, wish in wishes.items() if wish is not None}
        answer = plane.put_endpoint(
            named, reference.name, alias=reference.alias, version=reference.version, policy=policy or None,
            unit=unit, log=None if log is None else log.to_json(),
        )  # fmt: skip
    deployed = Endpoint(named)
    if target is not None:
        from ._manifests import apply, manifests

        apply(manifests(named, target, **settings), say=speak, timeout=timeout, wait=wait)
        return deployed
    version = int(answer["version"])
    if wait:
        speak(f"deploying {reference.name} version {version} as endpoint {deployed.name!r} …")
        try:
            deployed.wait_for(version, timeout, speak)
        except RemoteError as refused:
            if refused.code == "refused" and answer.get("moved"):
                _withdraw(refused, named, reference)
            raise
    if isinstance(canary, Canary):
        deployed.canary(canary.version, canary.share, wait=wait, timeout=timeout)
        speak(f"  version {canary.version} answers {canary.share:.2%} of units as a canary")
    return deployed


def _start_canary(
    endpoint: Endpoint, reference: Any, share: float, wait: bool, timeout: float, speak: Callable[[str], None]
) -> Endpoint:
    """Let the reference's present version answer a share of an endpoint that is there, and serves the same model."""
    with control() as plane:
        serves = plane.endpoint(endpoint.name)["model"]
        version = reference.version or plane.alias(reference.name, reference.alias)["version"]
    if serves != reference.name:
        raise Conflict(
            f"endpoint {endpoint.name} serves {serves}: {reference.name} cannot be its canary",
            fix="a canary is another version of the same model; compare models with rml.experiment",
        )
    endpoint.canary(int(version), share, wait=wait, timeout=timeout)
    speak(f"version {version} answers {share:.2%} of the units of endpoint {endpoint.name!r} as a canary")
    return endpoint


def _withdraw(refused: RemoteError, name: str, reference: Any) -> None:
    """Point the endpoint where it pointed before: a door that starts now would not know what answered until now."""
    try:
        with control() as plane:
            plane.withdraw_endpoint(name, reference.name, alias=reference.alias, version=reference.version)
    except RmlSdkError as error:  # the refusal is what the caller must hear
        refused.add_note(f"endpoint {name!r} still points at the refused version: {error}")


def _check(reference: Any) -> None:
    """The registry knows this version (or alias), under the digest if one was given: asked before servers are started."""
    control_url(start=True)
    with control() as plane:
        if reference.alias is not None:
            plane.alias(reference.name, reference.alias)
            return
        found = plane.version(reference.name, reference.version)
    if reference.digest is not None and found["digest"] != reference.digest:
        raise Conflict(
            f"{reference.name}/{reference.version} has the digest {found['digest']}, not the one asked for",
            fix="check where the reference came from: a version's bytes never change",
        )


def undeploy(name: str) -> None:
    """Remove an endpoint. Its model's versions stay registered.

    Raises:
        NotFound: there is no such endpoint.
    """
    with control() as plane:
        plane.delete_endpoint(name)


def endpoint(name: str) -> Endpoint:
    """An endpoint that exists.

    Raises:
        NotFound: there is none of that name; the message says which there are.
    """
    with control() as plane:
        plane.endpoint(name)
    return Endpoint(name)
