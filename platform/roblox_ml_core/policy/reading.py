"""From a snapshot's `policy` object to a `Policy`: checked, resolved, laid out for quick decisions.

One experiment that cannot be understood must not take the others down, so it is left out and named in the findings; its units
get the champion, which is what they got before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from .hashing import SCALE, seed_of
from .model import Arm, Canary, EndpointPolicy, Experiment, Holdout, Layer, LogPolicy, Policy, Ref, Shadow
from .targeting import read_targeting

__all__ = ["PolicyInvalid", "digest_of", "read_policy"]


class PolicyInvalid(ValueError):
    """The document is no policy at all; who holds an older one keeps it."""


def digest_of(document: Mapping[str, Any]) -> str:
    """The sha256 of a policy's canonical JSON: what names it, and what a batch job writes down."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_policy(document: Mapping[str, Any]) -> Policy:
    """The policy of a snapshot's `policy` object.

    Raises:
        PolicyInvalid: it has another shape: no endpoints, or one without a version.
    """
    try:
        return _Reader(document).policy()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, PolicyInvalid):
            raise
        raise PolicyInvalid(f"the policy lacks or misuses a field: {error!r}") from error


class _Reader:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._digests = {key: str(entry["digest"]) for key, entry in document.get("versions", {}).items()}
        self._findings: list[str] = []
        kill = document.get("kill") or {}
        self._killed = frozenset(map(str, kill.get("endpoints") or ()))
        self._off = {what for what in ("experiments", "canaries", "shadows") if kill.get(what)}

    def policy(self) -> Policy:
        layers: Mapping[str, Any] = self._document.get("layers") or {}
        experiments = self._experiments(layers)
        holdouts = self._holdouts()
        endpoints = {
            str(name): self._endpoint(str(name), entry, layers, experiments, holdouts)
            for name, entry in self._document["endpoints"].items()
        }
        return Policy(
            MappingProxyType(endpoints), MappingProxyType({e.name: e for e in experiments}),
            digest_of(self._document), tuple(self._findings),
        )  # fmt: skip

    def _endpoint(
        self,
        name: str,
        entry: Mapping[str, Any],
        layers: Mapping[str, Any],
        experiments: Iterable[Experiment],
        holdouts: Iterable[Holdout],
    ) -> EndpointPolicy:
        canary, log = entry.get("canary"), entry.get("log") or {}
        mine = [] if "experiments" in self._off else [e for e in experiments if e.endpoint == name]
        seen, known = tuple(self._layers(layers, mine)), LogPolicy()
        over = ((h, frozenset(x.name for x in seen if not h.layers or x.name in h.layers)) for h in holdouts if h.share)
        return EndpointPolicy(
            name,
            Ref(str(entry["model"]), int(entry["version"]), str(entry["digest"])),
            str(entry.get("unit") or "user_id"),
            seen,
            None if canary is None or "canaries" in self._off else self._optional(f"canary of {name}", self._canary, canary),
            () if "shadows" in self._off else self._shadows(name, entry.get("shadows") or ()),
            LogPolicy(
                _share(log.get("rate", known.rate)), str(log.get("data_class", known.data_class)),
                int(log.get("retention_days", known.retention_days)), bool(log.get("bodies", known.bodies)),
            ),
            int((entry.get("limits") or {}).get("concurrency") or 0),
            name in self._killed,
            tuple((holdout, covered) for holdout, covered in over if covered),
        )  # fmt: skip

    def _canary(self, entry: Mapping[str, Any]) -> Canary:
        return Canary(self._ref(entry["ref"]), _share(entry["share"]), seed_of(str(entry["salt"])))

    def _shadows(self, endpoint: str, entries: Iterable[Mapping[str, Any]]) -> tuple[Shadow, ...]:
        def read(entry: Mapping[str, Any]) -> Shadow:
            seed = seed_of(str(entry["salt"]))
            return Shadow(str(entry["name"]), self._ref(entry["ref"]), _share(entry["share"]), seed)

        found = [self._optional(f"a shadow of {endpoint}", read, entry) for entry in entries]
        return tuple(shadow for shadow in found if shadow is not None)

    def _layers(self, layers: Mapping[str, Any], mine: Iterable[Experiment]) -> Iterable[Layer]:
        for name in sorted({experiment.layer for experiment in mine}):
            starts: list[int] = []
            owners: list[Experiment | None] = []
            held = [(low, high, e) for e in mine if e.layer == name for low, high in e.ranges]
            stretches = sorted(held, key=lambda stretch: stretch[0])
            at = 0
            for low, high, experiment in stretches:
                if low > at:
                    starts.append(at)
                    owners.append(None)
                starts.append(low)
                owners.append(experiment)
                at = high
            if at < SCALE:
                starts.append(at)
                owners.append(None)
            entry = layers[name]
            yield Layer(name, str(entry["unit"]), seed_of(str(entry["salt"])), tuple(starts), tuple(owners))

    def _holdouts(self) -> list[Holdout]:
        def read(item: tuple[str, Mapping[str, Any]]) -> Holdout:
            name, entry = item
            over = frozenset(map(str, entry.get("layers") or ()))
            return Holdout(str(name), str(entry["unit"]), seed_of(str(entry["salt"])), _share(entry["share"]), over)

        listed = sorted((self._document.get("holdouts") or {}).items())
        found = [self._optional(f"holdout {item[0]}", read, item) for item in listed]
        return [holdout for holdout in found if holdout is not None]

    def _experiments(self, layers: Mapping[str, Any]) -> list[Experiment]:
        accepted: list[Experiment] = []
        owner: dict[str, str] = {}  # endpoint → the layer that chooses its model
        for name, entry in sorted((self._document.get("experiments") or {}).items()):
            found = self._optional(
                f"experiment {name}", lambda e, name=name: self._experiment(str(name), e, layers), entry
            )
            if found is None:
                continue
            others = [range_ for other in accepted if other.layer == found.layer for range_ in other.ranges]
            if _overlap([*others, *found.ranges]):
                self._findings.append(
                    f"experiment {name} is left out: its buckets overlap others' in layer {found.layer}"
                )
                continue
            if found.chooses_model and owner.setdefault(found.endpoint, found.layer) != found.layer:
                self._findings.append(
                    f"experiment {name} is left out: the model of {found.endpoint} is chosen in layer {owner[found.endpoint]}"
                )
                continue
            accepted.append(found)
        return accepted

    def _experiment(self, name: str, entry: Mapping[str, Any], layers: Mapping[str, Any]) -> Experiment:
        layer, endpoint = str(entry["layer"]), str(entry["endpoint"])
        if layer not in layers:
            raise ValueError(f"there is no layer {layer}")
        layers[layer]["unit"], layers[layer]["salt"]
        if endpoint not in self._document["endpoints"]:
            raise ValueError(f"there is no endpoint {endpoint}")
        ranges = tuple((int(low), int(high)) for low, high in entry["ranges"])
        if any(not 0 <= low < high <= SCALE for low, high in ranges):
            raise ValueError(f"ranges {ranges} are not within 0 to {SCALE}")
        arms, until = [], 0
        for arm in entry["arms"]:
            weight = int(arm["weight"])
            if weight < 0 or not isinstance(arm.get("params") or {}, Mapping):
                raise ValueError(f"arm {arm['name']} has the weight {weight}, or parameters that are no object")
            until += weight
            ref = None if arm.get("ref") is None else self._ref(arm["ref"])
            arms.append(Arm((name, str(arm["name"])), until, ref, MappingProxyType(dict(arm.get("params") or {}))))
        if until != SCALE or not arms:
            raise ValueError(f"the arms' weights sum to {until}, not to {SCALE}")
        targeting = read_targeting(entry.get("targeting") or {})
        return Experiment(name, layer, endpoint, seed_of(str(entry["salt"])), ranges, tuple(arms), targeting)

    def _ref(self, key: Any) -> Ref:
        model, slash, version = str(key).rpartition("/")
        if not slash or not version.isascii() or not version.isdigit():
            raise ValueError(f"{str(key)[:80]!r} is no model/version")
        if key not in self._digests:
            raise ValueError(f"{key} is not among the snapshot's versions")
        return Ref(model, int(version), self._digests[key])

    def _optional(self, what: str, read: Any, entry: Any) -> Any:
        try:
            return read(entry)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            self._findings.append(f"{what} is left out: {why}")
            return None


def _share(value: Any) -> int:
    share = int(value)
    if not 0 <= share <= SCALE:
        raise ValueError(f"{value!r} is no share of {SCALE}")
    return share


def _overlap(ranges: Iterable[tuple[int, int]]) -> bool:
    at = 0
    for low, high in sorted(ranges):
        if low < at:
            return True
        at = high
    return False
