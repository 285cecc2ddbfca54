"""One endpoint as a snapshot has it: its rules, and on which servers each version that may answer is ready. Pure.

The same rules as the door's: a version is used only where a server has it ready under the digest that the policy names; while a
new champion is not ready, the version that answered last goes on; a challenger that is not ready is answered by the champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import _siblings
from ..errors import NotFound, NotRunning, RmlSdkError

__all__ = ["Address", "NeedsDoor", "SnapshotUnreadable", "Target", "View", "look"]

_SCHEMA = 2


class SnapshotUnreadable(RmlSdkError):
    """What the control plane sent is no snapshot that this client understands; the last one stays in use."""


class NeedsDoor(RmlSdkError):
    """The endpoint's requests are prepared by the door, which a direct client goes around."""


class Address(NamedTuple):
    """Where one model server listens."""

    http: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Target:
    """A version, and the servers that have it ready."""

    model: str
    version: int
    digest: str
    servers: tuple[str, ...]
    key: str = field(init=False)
    triton_model: str = field(init=False)
    path: str = field(init=False)

    def __post_init__(self) -> None:
        name = f"{self.model}.{self.version}"
        object.__setattr__(self, "key", f"{self.model}/{self.version}")
        object.__setattr__(self, "triton_model", name)
        object.__setattr__(self, "path", f"/v2/models/{name}/versions/{self.version}/infer")


class Refusal(NamedTuple):
    """Why the endpoint cannot be answered; an error is made of it for each who asks."""

    kind: type[RmlSdkError]
    message: str
    why: str = ""
    fix: str = ""

    def error(self) -> RmlSdkError:
        if self.kind is NotFound:
            return NotFound(self.message, why=self.why, fix=self.fix, status=404)
        return self.kind(self.message, why=self.why, fix=self.fix)


@dataclass(frozen=True, slots=True)
class View:
    """Immutable. `champion` is None where `refusal` says why; `last` is what answered last, in this view or before it."""

    generation: int
    digest: str
    rules: Any
    champion: Target | None
    challengers: Mapping[str, Target]
    addresses: Mapping[str, Address]
    inputs: tuple[Mapping[str, Any], ...] = ()
    refusal: Refusal | None = None
    last: Target | None = None
    #: Versions that the rules name and that cannot be asked, with why: the champion answers for them.
    left_out: Mapping[str, str] = field(default_factory=dict)

    def ready(self) -> Target:
        """What the champion is answered by.

        Raises:
            NotFound, NeedsDoor, NotRunning: nothing can answer.
        """
        if self.champion is None:
            assert self.refusal is not None
            raise self.refusal.error()
        return self.champion

    def decide(self, unit: str | None, context: Mapping[str, Any], identity: str) -> tuple[Any, Target]:
        """Who should answer, and who will: the champion where the one that should is not ready.

        Raises:
            As `ready`.
        """
        champion = self.ready()
        decide_for = _siblings.load("roblox_ml_core.policy").decide_for
        if self.rules.plain:
            return decide_for(self.rules, unit), champion
        decision = decide_for(self.rules, unit, {**context, "inference_id": identity})
        if decision.ref is decision.champion:
            return decision, champion
        return decision, self.challengers.get(decision.ref.key, champion)


def look(document: Mapping[str, Any], endpoint: str, before: View | None = None) -> View:
    """The endpoint in the control plane's document; `before` is the view until now.

    Raises:
        SnapshotUnreadable: the document has another schema or shape.
    """
    policy = _siblings.load("roblox_ml_core.policy")
    try:
        if document["schema"] != _SCHEMA:
            raise SnapshotUnreadable(
                f"the snapshot has schema {document['schema']!r}; this client reads {_SCHEMA}",
                fix="use the roblox-ml of the control plane's version",
            )
        rules = policy.read_policy(document["policy"])
        servers = dict(sorted(document["servers"].items()))
        addresses = {name: Address(str(one["http"]), str(one["grpc"])) for name, one in servers.items()}
        ready = {name: dict(one["ready"]) for name, one in servers.items()}
        entry = document["policy"]["endpoints"].get(endpoint)
        return _view(document, rules, entry, endpoint, addresses, ready, before.last if before else None)
    except (policy.PolicyInvalid, KeyError, TypeError, AttributeError, ValueError) as error:
        raise SnapshotUnreadable(f"the snapshot cannot be read: {error!r}") from error


def _view(
    document: Mapping[str, Any],
    policy: Any,
    entry: Mapping[str, Any] | None,
    endpoint: str,
    addresses: Mapping[str, Address],
    ready: Mapping[str, Mapping[str, str]],
    last: Target | None,
) -> View:
    generation, digest = int(document["generation"]), str(document.get("digest") or policy.digest)

    def refused(kind: type[RmlSdkError], message: str, why: str = "", fix: str = "") -> View:
        refusal = Refusal(kind, message, why, fix)
        return View(generation, digest, None, None, {}, addresses, refusal=refusal, last=last)

    if entry is None or endpoint not in policy.endpoints:
        known = ", ".join(sorted(policy.endpoints)) or "none yet"
        return refused(NotFound, f"there is no endpoint {endpoint!r}", fix=f"endpoints: {known}")
    if spec := entry.get("preprocess"):
        return refused(
            NeedsDoor,
            f"endpoint {endpoint!r} cannot be asked directly: the door prepares its requests ({spec.get('kind')})",
            why="model servers hold a model that takes what the door makes of a request, not what clients send",
            fix=f"rml.endpoint({endpoint!r}).predict(…) asks the door",
        )
    holders = _siblings.load("roblox_ml_core.policy").holders

    def target(model: str, version: int, wanted: str) -> Target | None:
        found = holders(ready, f"{model}/{version}", wanted)
        return Target(model, version, wanted, found) if found else None

    champion = target(str(entry["model"]), int(entry["version"]), str(entry["digest"]))
    if champion is None and last is not None:
        champion = target(last.model, last.version, last.digest)
    if champion is None:
        return refused(
            NotRunning,
            f"endpoint {endpoint!r} is not ready: none of {len(ready)} model server(s) has {entry['model']}/{entry['version']} loaded",
            fix="ask again in a moment, or look at `rml status`",
        )
    own = policy.endpoints[endpoint]
    challengers: dict[str, Target] = {}
    left_out: dict[str, str] = {}
    shadows = {shadow.ref.key for shadow in own.shadows}
    for ref in own.refs[1:]:
        if (document["policy"]["versions"][ref.key]).get("preprocess"):
            left_out[ref.key] = "the door prepares its requests"
        elif (found := target(ref.model, ref.version, ref.digest)) is not None:
            challengers[ref.key] = found
        elif ref.key not in shadows:
            left_out[ref.key] = "no model server has it ready"
    inputs = tuple((entry.get("signature") or {}).get("inputs") or ())
    return View(
        generation, digest, own, champion, challengers, addresses, inputs, last=champion, left_out=left_out
    )  # fmt: skip
