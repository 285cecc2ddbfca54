"""What a policy is made of, read once and never changed, and what a decision says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from .hashing import threshold
from .targeting import Condition

__all__ = [
    "Arm",
    "Canary",
    "Decision",
    "EndpointPolicy",
    "Experiment",
    "Exposure",
    "Holdout",
    "Layer",
    "LogPolicy",
    "Policy",
    "Ref",
    "Shadow",
    "UnknownEndpoint",
]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class UnknownEndpoint(KeyError):
    """The policy has no endpoint of that name."""

    def __str__(self) -> str:
        return f"no endpoint is called {self.args[0]!r}"


@dataclass(frozen=True, slots=True)
class Ref:
    """One version of one model, and the sha256 of its package."""

    model: str
    version: int
    digest: str = ""

    @property
    def key(self) -> str:
        """`model/version`, as servers report it."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: (experiment, arm), until which bucket it reaches, and what it changes. `ref` None: not the model.

    `below`: the first hash that it does not reach any more.
    """

    pair: tuple[str, str]
    until: int
    ref: Ref | None
    params: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    below: int = field(init=False)
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "below", threshold(self.until))
        object.__setattr__(self, "text", "=".join(self.pair))


@dataclass(frozen=True, slots=True)
class Experiment:
    """One running experiment on one endpoint."""

    name: str
    layer: str
    endpoint: str
    seed: int
    ranges: tuple[tuple[int, int], ...]
    arms: tuple[Arm, ...]
    targeting: tuple[Condition, ...] = ()

    @property
    def chooses_model(self) -> bool:
        return any(arm.ref is not None for arm in self.arms)


@dataclass(frozen=True, slots=True)
class Holdout:
    """Units that no experiment of the layers (none named: of any layer) may touch."""

    name: str
    unit: str
    seed: int
    share: int
    layers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as one endpoint sees it.

    `starts` are the first buckets of the stretches, `owners` whose stretch it is (None: nobody's, or of another endpoint); `firsts` the
    first hashes of those buckets.
    """

    name: str
    unit: str
    seed: int
    starts: tuple[int, ...]
    owners: tuple[Experiment | None, ...]
    firsts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "firsts", tuple(map(threshold, self.starts)))


@dataclass(frozen=True, slots=True)
class Canary:
    ref: Ref
    share: int
    seed: int


@dataclass(frozen=True, slots=True)
class Shadow:
    name: str
    ref: Ref
    share: int
    seed: int


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """What is kept of an endpoint's requests. `rate` in 10,000ths."""

    rate: int = 10_000
    data_class: str = "internal"
    retention_days: int = 30
    bodies: bool = False


class Exposure(NamedTuple):
    """A unit that an experiment's arm is about to reach."""

    experiment: str
    arm: str
    unit_kind: str
    unit: str


class Decision(NamedTuple):
    """Who answers one request. What not every request needs is made when it is asked for.

    Attributes:
        ref: what should answer.
        champion: what answers when `ref` is not ready or fails.
        role: why `ref`: "champion", "canary", or "arm" (an experiment chose it).
        reached: the arms, one for each layer in which the unit is, by the layer's name.
        subjects: for each of them what its layer calls the unit, and the unit.
        shadows: versions that are asked too, and whose answer nobody gets.
        log_rate: how many of 10,000 requests are logged.
        chosen: the (experiment, arm) that chose `ref`; two empty texts where none did.
    """

    endpoint: str
    ref: Ref
    champion: Ref
    role: str = "champion"
    reached: tuple[Arm, ...] = ()
    subjects: tuple[tuple[str, str], ...] = ()
    shadows: tuple[Ref, ...] = ()
    log_rate: int = 10_000
    chosen: tuple[str, str] = ("", "")

    @property
    def arms(self) -> tuple[tuple[str, str], ...]:
        """(experiment, arm) of each."""
        return tuple([arm.pair for arm in self.reached])

    @property
    def params(self) -> Mapping[str, Any]:
        """The arms' parameters, merged."""
        found: dict[str, Any] = {}
        for arm in self.reached:
            found.update(arm.params)
        return found

    @property
    def exposures(self) -> tuple[Exposure, ...]:
        """One for each arm."""
        return tuple([Exposure(*arm.pair, *subject) for arm, subject in zip(self.reached, self.subjects, strict=True)])


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """Everything that is decided for one endpoint.

    `plain`: there is nothing to decide, the champion answers whoever asks (`always`). `contextual`: a decision may read the context.
    """

    name: str
    ref: Ref
    unit: str = "user_id"
    layers: tuple[Layer, ...] = ()
    canary: Canary | None = None
    shadows: tuple[Shadow, ...] = ()
    log: LogPolicy = LogPolicy()
    concurrency: int = 0
    killed: bool = False
    holdouts: tuple[tuple[Holdout, frozenset[str]], ...] = ()  # with those of the layers above that each covers
    plain: bool = field(init=False)
    contextual: bool = field(init=False)
    always: Decision = field(init=False)

    def __post_init__(self) -> None:
        plain = self.killed or not (self.layers or self.canary or self.shadows)
        contextual = not self.killed and (
            any(holdout.unit != self.unit for holdout, _ in self.holdouts)
            or any(layer.unit != self.unit for layer in self.layers)
            or any(owner is not None and owner.targeting for layer in self.layers for owner in layer.owners)
        )
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "contextual", bool(contextual))
        object.__setattr__(self, "always", Decision(self.name, self.ref, self.ref, log_rate=self.log.rate))

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Every version that a decision for this endpoint can name, the champion first."""
        found = [self.ref]
        if self.canary is not None:
            found.append(self.canary.ref)
        found += [shadow.ref for shadow in self.shadows]
        for layer in self.layers:
            for owner in layer.owners:
                found += [arm.ref for arm in owner.arms if arm.ref is not None] if owner is not None else []
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Policy:
    """A snapshot's policy. `findings`: what of it could not be understood and is left out, a sentence each."""

    endpoints: Mapping[str, EndpointPolicy] = field(default_factory=lambda: MappingProxyType({}))
    experiments: Mapping[str, Experiment] = field(default_factory=lambda: MappingProxyType({}))
    digest: str = ""
    findings: tuple[str, ...] = ()
