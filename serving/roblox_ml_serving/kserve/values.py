"""What a team says about an endpoint in a cluster, and whether a cluster would take it.

Every class has `findings()`: a sentence per value that the schema, the admission webhook or the scheduler would refuse, or
that would be taken and then never work. `check` puts all of them into one `ManifestInvalid`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Protocol
from urllib.parse import urlsplit

from roblox_ml_core.digests import is_digest
from roblox_ml_core.errors import Invalid
from roblox_ml_core.names import triton_name

__all__ = ["Door", "Installation", "ManifestInvalid", "Model", "Resources", "Scaling", "check", "quantity"]

# KServe names the Service "<name>-predictor", and a Service's name is a DNS label.
MAX_NAME = 63 - len("-predictor")
# Our own storage container's, and those of KServe's.
SCHEMES = ("rml", "s3", "gs", "pvc", "oci", "hf", "https", "http", "hdfs", "webhdfs")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?\Z")
_FACTORS = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip
_LATEST = re.compile(r"(:latest|/[^:@]+|^[^:@/]+)\Z")


class ManifestInvalid(Invalid):
    """A cluster would refuse these values. All of them are named."""

    code = "manifest_invalid"


class _Checked(Protocol):
    def findings(self) -> Iterable[str]: ...


def check(*parts: _Checked) -> None:
    """Raise with everything that is wrong with any of `parts`."""
    found = [sentence for part in parts for sentence in part.findings()]
    if found:
        raise ManifestInvalid(
            f"{len(found)} value(s) that a cluster would refuse:\n"
            + "\n".join(f"  - {sentence}" for sentence in found),
            hint="give others: RML_CONTROL_URL=…, RML_STORE=… or the options of `rml manifests --help`; nothing was written or sent",
            details={"findings": found},
        )


def quantity(text: str) -> Decimal | None:
    """A Kubernetes quantity (`500m`, `2Gi`) as a number; None when it is none."""
    match = _QUANTITY.match(text)
    if match is None:
        return None
    try:
        return Decimal(match[1]) * _FACTORS[match[2] or ""]
    except InvalidOperation:
        return None


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for. Memory is request and limit alike: what is over-committed is killed under load.

    The CPU has no limit unless one is given: a quota stalls every request for the rest of its period.
    """

    cpu: str = "1"
    memory: str = "2Gi"
    cpu_limit: str | None = None

    def findings(self) -> Iterable[str]:
        cpu, memory = quantity(self.cpu), quantity(self.memory)
        limit = None if self.cpu_limit is None else quantity(self.cpu_limit)
        if cpu is None or cpu <= 0:
            yield f"cpu {self.cpu!r} is no amount of processors; write for example 2 or 500m"
        if memory is None or memory <= 0:
            yield f"memory {self.memory!r} is no amount of memory; write for example 2Gi"
        elif memory < 64 * 2**20:
            yield f"memory {self.memory!r} is less than any server needs; did you mean {self.memory.rstrip('m')}Mi?"
        if self.cpu_limit is not None and (limit is None or (cpu is not None and limit < cpu)):
            yield f"cpu_limit {self.cpu_limit!r} must be an amount of at least cpu {self.cpu!r}"

    def to_json(self) -> dict[str, dict[str, str]]:
        limits = {"memory": self.memory} | ({"cpu": self.cpu_limit} if self.cpu_limit is not None else {})
        return {"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": limits}


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many replicas. `by`: "cpu" (the cluster's own autoscaler) or "queue" (KEDA asks Prometheus how long requests wait).

    `target` is percent of the requested CPU, or milliseconds of waiting.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    by: str = "cpu"
    target: int = 70
    prometheus: str | None = None

    def findings(self) -> Iterable[str]:
        if self.by not in ("cpu", "queue"):
            yield f"scaling by {self.by!r} is unknown; it is cpu or queue"
        if self.min_replicas < 0:
            yield f"min_replicas {self.min_replicas} must not be negative"
        elif self.min_replicas == 0:
            yield "min_replicas 0: a service that nobody runs answers nobody while it starts; 1 is the least"
        if self.max_replicas < max(1, self.min_replicas):
            yield f"max_replicas {self.max_replicas} must be at least min_replicas {self.min_replicas}"
        if self.by == "cpu" and not 1 <= self.target <= 100:
            yield f"target {self.target} must be 1 to 100 percent of the requested CPU"
        if self.by == "queue" and self.target < 1:
            yield f"target {self.target} must be at least 1 millisecond of waiting"
        if self.by == "queue" and not _is_http(self.prometheus):
            yield f"scaling by queue needs prometheus, an http address; got {self.prometheus!r}"

    @property
    def fixed(self) -> bool:
        return self.min_replicas == self.max_replicas


@dataclass(frozen=True, slots=True)
class Model:
    """An endpoint and the version that its pods bring with them. Other versions come over the agent."""

    endpoint: str
    name: str
    version: int
    digest: str
    storage_uri: str = ""  # where the package lies as a folder; empty: our own storage container fetches it by digest

    def findings(self) -> Iterable[str]:
        if not _NAME.match(self.endpoint) or len(self.endpoint) > MAX_NAME:
            yield (
                f"endpoint {self.endpoint!r} cannot name an InferenceService: a lower-case letter, then letters, digits and "
                f"hyphens, at most {MAX_NAME}"
            )
        if self.version < 1:
            yield f"version {self.version} of {self.name} is none; versions count from 1"
        if not is_digest(self.digest):
            yield f"digest {self.digest!r} is no sha256 (64 hex digits); without it nobody can check what was fetched"
        if self.storage_uri and "://" not in self.storage_uri:
            yield f"storage_uri {self.storage_uri!r} needs a scheme, for example s3://bucket/packages/{self.digest[:12]}…"
        elif self.storage_uri and self.storage_uri.partition("://")[0] not in SCHEMES:
            yield f"storage_uri {self.storage_uri!r}: no storage initializer knows this scheme; {', '.join(SCHEMES)} are known"

    @property
    def reference(self) -> str:
        return f"{self.name}/{self.version}@{self.digest}"

    @property
    def uri(self) -> str:
        return self.storage_uri or f"rml://{self.reference}"

    @property
    def triton(self) -> str:
        return triton_name(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Door:
    """The doors in front of an endpoint's pods: one Deployment for all endpoints of a namespace."""

    name: str = "rml-door"
    scaling: Scaling = field(default_factory=lambda: Scaling(2, 6))
    resources: Resources = field(default_factory=lambda: Resources("1", "512Mi"))

    def findings(self) -> Iterable[str]:
        if not _NAME.match(self.name) or len(self.name) > MAX_NAME:
            yield f"door {self.name!r} cannot name a Deployment and a Service"
        if self.scaling.by != "cpu":
            yield "doors scale by cpu: they queue nothing"
        yield from (f"door: {sentence}" for sentence in (*self.scaling.findings(), *self.resources.findings()))


@dataclass(frozen=True, slots=True)
class Installation:
    """What of the platform is already in the cluster, and how its pods reach it.

    Attributes:
        secret: a Secret of the namespace with the key `token` (of a service that may serve), and what the store needs
            (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`), if anything.
        environment: settings for every pod, for example `AWS_ENDPOINT_URL`.
    """

    control_url: str
    namespace: str = "default"
    store: str | None = None
    image: str = "registry.example.com/rml-serving:1"
    door_image: str = "registry.example.com/rml-door:1"
    secret: str = "rml-serving"  # noqa: S105 - a Secret's name
    service_account: str | None = None
    pull_policy: str = "IfNotPresent"
    environment: tuple[tuple[str, str], ...] = ()

    def findings(self) -> Iterable[str]:
        if not _is_http(self.control_url):
            yield f"control_url {self.control_url!r} must be an http address that pods reach"
        elif urlsplit(self.control_url).hostname in ("127.0.0.1", "localhost", "::1"):
            yield f"control_url {self.control_url} is this machine's loopback; inside a pod that is the pod itself"
        if self.store is not None and urlsplit(self.store).scheme not in ("s3", "http", "https"):
            yield f"store {self.store!r} must be s3, http or https: pods see no files of this machine"
        if not _LABEL.match(self.namespace):
            yield f"namespace {self.namespace!r} is no DNS label"
        for what, name in (("secret", self.secret), ("service_account", self.service_account)):
            if name is not None and (not _SUBDOMAIN.match(name) or len(name) > 253):
                yield f"{what} {name!r} is no name that Kubernetes takes"
        for what, image in (("image", self.image), ("door_image", self.door_image)):
            if not image or image != image.strip() or _LATEST.search(image):
                yield f"{what} {image!r} needs a tag other than latest, or a digest: two replicas must run the same bytes"
        if self.pull_policy not in ("Always", "IfNotPresent", "Never"):
            yield f"pull_policy {self.pull_policy!r} must be Always, IfNotPresent or Never"


def _is_http(address: str | None) -> bool:
    parts = urlsplit(address or "")
    return parts.scheme in ("http", "https") and bool(parts.hostname)
