"""From the control plane's snapshot to targets: which version can answer an endpoint, and on which servers.

Pure. All work happens when a snapshot arrives (`build`); a request costs a decision of the policy and one dictionary lookup. A
version is used only where a server reports it ready under the very digest the control plane names; while a new champion is not
ready, the version that answered last goes on answering, also when it was gone for a while in between. A challenger (an arm, a
canary, a shadow) that is not ready has no target: the champion answers for it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from roblox_ml_core.policy import Policy as Rules
from roblox_ml_core.policy import PolicyInvalid, Ref, holders, read_policy

from ..preprocess.spec import DEFAULT, Policy, Spec, SpecInvalid
from .refusals import Reason, Refusal

__all__ = ["ServerAddress", "Snapshot", "SnapshotInvalid", "Target", "Version", "build", "resolve", "specs"]

SCHEMA = 2


class SnapshotInvalid(ValueError):
    """A document that is not a snapshot this door understands; the last good one stays in use."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model. An empty digest means: whichever package the servers report under that number."""

    model: str
    version: int
    digest: str = ""
    preprocess: Spec | None = None

    @property
    def key(self) -> str:
        """How servers report it: `model/version`."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where one model server listens."""

    http: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Target:
    """What an endpoint is answered by: a version and the servers that have it ready, in a stable order."""

    endpoint: str
    serving: Version
    replicas: tuple[str, ...]
    is_desired: bool  # False: the version before answers because the desired one is not ready yet
    policy: Policy = DEFAULT
    concurrency: int = 0  # requests under way on one server; 0: no limit
    triton_model: str = field(init=False)
    http_base: bytes = field(init=False)
    infer_path: bytes = field(init=False)
    version_text: str = field(init=False)
    version_bytes: bytes = field(init=False)

    def __post_init__(self) -> None:
        name = f"{self.serving.model}.{self.serving.version}"
        object.__setattr__(self, "triton_model", name)
        object.__setattr__(self, "http_base", f"/v2/models/{name}/versions/{self.serving.version}".encode())
        object.__setattr__(self, "infer_path", self.http_base + b"/infer")
        object.__setattr__(self, "version_text", str(self.serving.version))
        object.__setattr__(self, "version_bytes", b"%d" % self.serving.version)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of the truth, immutable: every endpoint with its target, or with why it has none."""

    generation: int
    endpoints: Mapping[str, Target | Refusal]
    servers: Mapping[str, ServerAddress]
    waiting: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    rules: Rules = field(default_factory=Rules)
    challengers: Mapping[tuple[str, str], Target] = field(default_factory=lambda: MappingProxyType({}))

    def target_of(self, endpoint: str, ref: Ref) -> Target | None:
        """Where a version that the rules named is answered for an endpoint; None: nowhere at this moment."""
        entry = self.endpoints.get(endpoint)
        if isinstance(entry, Target) and entry.serving.key == ref.key:
            return entry
        return self.challengers.get((endpoint, ref.key))

    @property
    def serving(self) -> Mapping[str, Version]:
        """What answered last, by endpoint: what the next `build` keeps until its own target is ready.

        An endpoint that is refused has not forgotten it: a model server that is away for a moment while a deployment waits
        (or was refused) takes the version that answered with it, and must bring it back.
        """
        now = {name: entry.serving for name, entry in self.endpoints.items() if isinstance(entry, Target)}
        return {**self.waiting, **now}


EMPTY = Snapshot(-1, MappingProxyType({}), MappingProxyType({}))


def resolve(snapshot: Snapshot, endpoint: str) -> Target | Refusal:
    """Which version answers `endpoint`, or why none does."""
    entry = snapshot.endpoints.get(endpoint)
    if entry is not None:
        return entry
    if snapshot.generation < 0:
        return Refusal(Reason.NOT_READY, "the door has no snapshot from the control plane yet; ask again in a moment")
    return _unknown(snapshot, endpoint)


def specs(document: Mapping[str, Any], kept: Mapping[str, Version] = MappingProxyType({})) -> list[Spec]:
    """What must be prepared before every endpoint of the document, and what answered until now, can answer."""
    found: list[Spec | None] = [version.preprocess for version in kept.values()]
    policy = document["policy"]
    for entry in (*policy["endpoints"].values(), *(policy.get("versions") or {}).values()):
        with suppress(SpecInvalid):
            found.append(Spec.read(entry.get("preprocess")))
    return [spec for spec in dict.fromkeys(found) if spec is not None]


def build(
    document: Mapping[str, Any],
    kept: Mapping[str, Version] = MappingProxyType({}),
    prepared: Container[Spec] = (),
) -> Snapshot:
    """The snapshot of a control plane's document.

    `kept` is what answered until now (`Snapshot.serving`), `prepared` which preprocessing is loaded.

    Raises:
        SnapshotInvalid: the document has another schema or shape.
    """
    try:
        if document["schema"] != SCHEMA:
            raise SnapshotInvalid(f"the snapshot has schema {document['schema']!r}; this door reads {SCHEMA}")
        rules = read_policy(document["policy"])
        listed = sorted(document["servers"].items())
        servers = {name: ServerAddress(str(entry["http"]), str(entry["grpc"])) for name, entry in listed}
        ready = {name: dict(document["servers"][name]["ready"]) for name in servers}
        endpoints = {
            name: _decide(name, entry, kept.get(name), ready, prepared)
            for name, entry in document["policy"]["endpoints"].items()
        }
        refused = [name for name, entry in endpoints.items() if isinstance(entry, Refusal)]
        waiting = MappingProxyType({name: kept[name] for name in refused if name in kept})
        others = _challengers(rules, document["policy"], ready, prepared)
        return Snapshot(
            int(document["generation"]), MappingProxyType(endpoints), MappingProxyType(servers), waiting, rules, others
        )
    except PolicyInvalid as error:
        raise SnapshotInvalid(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise SnapshotInvalid(f"the snapshot lacks or misuses a field: {error!r}") from error
    except ValueError as error:
        raise error if isinstance(error, SnapshotInvalid) else SnapshotInvalid(str(error)) from error


def _decide(
    endpoint: str,
    entry: Mapping[str, Any],
    kept: Version | None,
    ready: Mapping[str, Mapping[str, str]],
    prepared: Container[Spec],
) -> Target | Refusal:
    try:
        spec, policy = Spec.read(entry.get("preprocess")), Policy.read(entry.get("policy"))
    except SpecInvalid as error:  # this endpoint's trouble, not that of every other one
        return Refusal(Reason.NOT_READY, f"endpoint {endpoint!r} cannot be served by this door: {error}")
    desired = Version(str(entry["model"]), int(entry["version"]), str(entry["digest"]), spec)
    # Only a move that is not finished yet lets another version answer: the one that answered until now. A desired
    # version that is lost is refused until it is back; the one before it may have been rolled back for a reason.
    # The same package is desired as it is described now, not as an older door remembered it.
    candidates = [desired]
    if kept is not None and (kept.key, kept.digest) != (desired.key, desired.digest):
        candidates.append(kept)
    for candidate in candidates:
        replicas = holders(ready, candidate.key, candidate.digest)
        if replicas and (candidate.preprocess is None or candidate.preprocess in prepared):
            limits = entry.get("limits") or {}
            return Target(
                endpoint, candidate, replicas, candidate == desired, policy, int(limits.get("concurrency") or 0)
            )
    if spec is not None and spec not in prepared:
        return Refusal(
            Reason.NOT_READY,
            f"endpoint {endpoint!r} is not ready: this door has not loaded the files of its preprocessing ({spec.kind}) yet; "
            "ask again in a moment, or look at the door's log",
        )
    before = "" if kept is None or kept == desired else f", nor {kept.key}, which answered before"
    return Refusal(
        Reason.NOT_READY,
        f"endpoint {endpoint!r} is not ready: none of {len(ready)} model server(s) has version {desired.version} of "
        f"{desired.model!r} loaded{before}; ask again in a moment, or look at `rml status`",
    )


def _challengers(
    rules: Rules, document: Mapping[str, Any], ready: Mapping[str, Mapping[str, str]], prepared: Container[Spec]
) -> Mapping[tuple[str, str], Target]:
    """The targets of everything that may answer beside the champions, where it is ready."""
    found: dict[tuple[str, str], Target] = {}
    for name, endpoint in rules.endpoints.items():
        for ref in endpoint.refs[1:]:
            try:
                spec = Spec.read(document["versions"][ref.key].get("preprocess"))
                policy = Policy.read(document["endpoints"][name].get("policy"))
            except SpecInvalid:  # of a kind or shape that this door does not know: the champion answers
                continue
            version = Version(ref.model, ref.version, ref.digest, spec)
            replicas = holders(ready, version.key, version.digest)
            if replicas and (spec is None or spec in prepared):
                found[name, ref.key] = Target(name, version, replicas, True, policy, endpoint.concurrency)
    return MappingProxyType(found)


def _unknown(snapshot: Snapshot, endpoint: str) -> Refusal:
    shown = endpoint[:80]
    near = get_close_matches(shown, snapshot.endpoints, n=3)
    if near:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?"
    elif snapshot.endpoints:
        names = sorted(snapshot.endpoints)
        hint = f"there are {', '.join(names[:10])}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    else:
        hint = 'nothing is deployed yet: rml.deploy("name@champion")'
    return Refusal(Reason.UNKNOWN_ENDPOINT, f"no endpoint is called {shown!r}; {hint}")
