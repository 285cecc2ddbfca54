"""What a step asks for: resources, where it may run, secrets, retries, timeout, cache, packages, image, labels.

`read` turns the decorator's keywords into one checked record, and every mistake into a finding with what to type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ..errors import Finding
from .cluster import Secret, Toleration, qualified
from .where import Site

__all__ = ["NAMES", "Options", "read"]

_UNITS = {
    "": 1,
    **{unit: 1000 ** (n + 1) for n, unit in enumerate(("K", "M", "G", "T", "P", "E"))},
    **{unit: 1024 ** (n + 1) for n, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_MEMORY = re.compile(r"^(\d+)([KMGTPE]i?)?$")
_CPU = re.compile(r"^(?:\d+(?:\.\d+)?|\d+m)$")
_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")
_GPU = re.compile(r"^([a-z0-9.-]+/[a-z0-9.-]+)(?::(\d+))?$")
_LABEL = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]+\])?\s*(?:[<>=!~].*|@.*)?$")
_IMAGE = re.compile(r"^[a-z0-9][A-Za-z0-9._/:-]*(?:@sha256:[0-9a-f]{64})?$")
_QUEUE = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
# A wheel's path, a folder of wheels, or a requirement from an index with a name: "team::secretlib==2.0".
_WHEELS = re.compile(r"^(?:\S.*\.whl|[~./].*|[A-Za-z0-9_-]+(?:@[A-Za-z_]\w*)?::\S.*)$")
_SYSTEM_PACKAGE = re.compile(r"^[a-z0-9][A-Za-z0-9+._:-]*$")
_DEFAULT_GPU = "nvidia.com/gpu"
# What people type who know other tools; difflib alone would not find these.
_KNOWN_AS = {
    "ram": "memory",
    "mem": "memory",
    "cpus": "cpu",
    "cores": "cpu",
    "gpus": "gpu",
    "accelerator": "gpu",
    "retry": "retries",
    "preemptible": "spot",
    "requirements": "packages",
    "packages_to_install": "packages",
    "pip": "packages",
    "deadline": "timeout",
    "memoize": "cache",
    "node_affinity": "node_selector",
    "nodeselector": "node_selector",
    "secret": "secrets",
    "priority_class": "priority",
    "priority_class_name": "priority",
    "local_queue": "queue",
    "queue_name": "queue",
    "shm_size": "shm",
    "shared_memory": "shm",
    "disk": "ephemeral_storage",
    "storage": "ephemeral_storage",
    "base_image": "image",
    "container_image": "image",
}


@dataclass(frozen=True, slots=True)
class Options:
    """A step's checked options. Units: cpu in cores; memory, shm and ephemeral_storage as Kubernetes quantities; timeout in
    seconds. `priority` is a Kueue priority class, `queue` a Kueue LocalQueue."""

    cpu: str | None = None
    memory: str | None = None
    gpu: tuple[str, int] | None = None
    priority: str | None = None
    spot: bool = False
    retries: int = 0
    timeout: int | None = None
    cache: bool = True
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    secrets: tuple[Secret, ...] = ()
    queue: str | None = None
    shm: str | None = None
    ephemeral_storage: str | None = None
    image: str | None = None

    @property
    def cores(self) -> float | None:
        """The cpu limit as a number."""
        if self.cpu is None:
            return None
        return int(self.cpu[:-1]) / 1000 if self.cpu.endswith("m") else float(self.cpu)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        match = _MEMORY.match(self.memory) if self.memory is not None else None
        return int(match.group(1)) * _UNITS[match.group(2) or ""] if match else None


class _Wrong(Exception):
    """A value that cannot be used: what is wrong, and what to type."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def read(given: Mapping[str, Any], step: str, site: Site) -> tuple[Options, list[Finding]]:
    """The options a step's decorator was given, and everything that is wrong with them."""
    findings: list[Finding] = []
    options = Options()
    for name, value in given.items():
        at = site.at(name)
        reader = _READERS.get(name)
        if reader is None:
            findings.append(_unknown(name, step, at))
            continue
        if value is None:
            continue
        try:
            options = replace(options, **{name: reader(value)})
        except _Wrong as wrong:
            findings.append(
                Finding(
                    f"bad-{name}",
                    f"{name}={value!r} of step {step!r}: {wrong}",
                    str(at),
                    "the scheduler would refuse or misread it after the run was submitted",
                    wrong.fix,
                    at.source(),
                )
            )
    return options, findings


def _unknown(name: str, step: str, at: Site) -> Finding:
    near = _KNOWN_AS.get(name) or next(iter(get_close_matches(name, NAMES, n=1)), None)
    return Finding(
        "unknown-option",
        f"rml.step has no option {name!r} (step {step!r})",
        str(at),
        f"the options are {', '.join(NAMES)}",
        f"did you mean {near}=…?" if near else "remove it, or use one of the options above",
        at.source(),
    )


def _cpu(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return f"{value:g}"
    if isinstance(value, str) and _CPU.match(value) and value.strip("0.m"):
        return value
    raise _Wrong("not a positive number of cores", 'write cpu=2, cpu=0.5 or cpu="500m"')


def _quantity(option: str) -> Callable[[Any], str]:
    """The reader of an amount of bytes."""

    def read_quantity(value: Any) -> str:
        match = _MEMORY.match(value) if isinstance(value, str) else None
        if match and int(match.group(1)) > 0:
            return str(value)
        hint = f'write {option}="4Gi" (4 × 1024³ bytes), "512Mi" or "4G" (4 × 1000³)'
        if isinstance(value, str) and re.match(r"^[1-9]\d*\s*[kmgt]i?b?$", value, re.IGNORECASE):
            unit = value.strip().lstrip("0123456789").strip()[0].upper()
            hint = f'write {option}="{re.match(r"[0-9]+", value).group()}{unit}i"'  # type: ignore[union-attr]
        raise _Wrong("not a Kubernetes quantity", hint)

    return read_quantity


def _gpu(value: Any) -> tuple[str, int] | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return (_DEFAULT_GPU, value) if value else None
    match = _GPU.match(value) if isinstance(value, str) else None
    if match:
        return match.group(1), int(match.group(2) or 1)
    raise _Wrong("not a number of GPUs", 'write gpu=1, or the cluster\'s resource name: gpu="amd.com/gpu:1"')


def _label(value: Any) -> str:
    if isinstance(value, str) and _LABEL.match(value):
        return value
    raise _Wrong("not a label value", 'write letters, digits, "-", "_" or ".", at most 63: priority="high"')


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _Wrong("not True or False", "write True or False")


def _retries(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _Wrong("not a number of further attempts, 0 or more", "write retries=2 (three attempts in all)")


def _timeout(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _DURATION.match(value.strip()) if isinstance(value, str) else None
    if match and match.group(0):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if total > 0:
            return total
    raise _Wrong("not a duration", 'write timeout="90s", "30m", "1h", "1h30m" or a number of seconds')


def _packages(value: Any) -> tuple[str, ...]:
    fix = 'write packages=["scikit-learn==1.8.0"]'
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _Wrong("not a list of requirements", fix)
    for item in value:
        if not isinstance(item, str) or not (_REQUIREMENT.match(item.strip()) or _WHEELS.match(item.strip())):
            raise _Wrong(f"{item!r} is no requirement", fix)
    return tuple(item.strip() for item in value)


def _system_packages(value: Any) -> tuple[str, ...]:
    fix = 'write system_packages=["libgomp1"] (Debian packages, or shared libraries: "libgomp.so.1")'
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _Wrong("not a list of system packages", fix)
    for item in value:
        if not isinstance(item, str) or not _SYSTEM_PACKAGE.match(item):
            raise _Wrong(f"{item!r} is no system package", fix)
    return tuple(sorted(set(value)))


def _pairs(example: str) -> Callable[[Any], tuple[tuple[str, str], ...]]:
    """The reader of labels: of the pod, or of the nodes it may run on."""

    def read_pairs(value: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise _Wrong("not a dict of text", f"write {example}")
        for key in value:
            if not qualified(key):
                raise _Wrong(f"{key!r} is no label's key", f"write {example}")
        return tuple(sorted((key, _label(text)) for key, text in value.items()))

    return read_pairs


def _tolerations(value: Any) -> tuple[Toleration, ...]:
    return _references(value, Toleration, 'write tolerations=[rml.toleration("gpu", effect="NoSchedule")]')


def _secrets(value: Any) -> tuple[Secret, ...]:
    found = _references(value, Secret, 'write secrets=[rml.secret("hub", key="token", env="HF_TOKEN")]')
    for name, taken in (("env", [s.env for s in found if s.env]), ("mount", [s.mount for s in found if s.mount])):
        twice = next((text for text in taken if taken.count(text) > 1), None)
        if twice:
            raise _Wrong(f"two secrets go to {name} {twice!r}", "give each its own")
    mounted = [s.name for s in found if s.mount]
    if len(set(mounted)) < len(mounted):
        raise _Wrong("a secret is mounted twice", "mount it once: Kubeflow names the volume after the secret")
    return found


def _references(value: Any, kind: type[Any], fix: str) -> tuple[Any, ...]:
    several = [value] if isinstance(value, kind) else value
    if not isinstance(several, list | tuple) or not all(isinstance(item, kind) for item in several):
        raise _Wrong(f"not a list of rml.{kind.__name__.lower()}(…)", fix)
    for item in several:
        if problem := item.problem():
            raise _Wrong(*problem)
    return tuple(sorted(set(several)))


def _queue(value: Any) -> str:
    if isinstance(value, str) and _QUEUE.match(value):
        return value
    raise _Wrong("not a Kueue LocalQueue's name", 'write queue="team-safety" (kubectl get localqueues)')


def _image(value: Any) -> str:
    if isinstance(value, str) and _IMAGE.match(value):
        return value
    raise _Wrong("not an image", 'write image="registry.example.com/team/step:1" (Python 3, a numeric USER)')


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "cpu": _cpu,
    "memory": _quantity("memory"),
    "gpu": _gpu,
    "priority": _label,
    "spot": _flag,
    "retries": _retries,
    "timeout": _timeout,
    "cache": _flag,
    "packages": _packages,
    "system_packages": _system_packages,
    "labels": _pairs('labels={"team": "safety"}'),
    "node_selector": _pairs('node_selector={"node.kubernetes.io/instance-type": "g5.xlarge"}'),
    "tolerations": _tolerations,
    "secrets": _secrets,
    "queue": _queue,
    "shm": _quantity("shm"),
    "ephemeral_storage": _quantity("ephemeral_storage"),
    "image": _image,
}
NAMES = tuple(_READERS)
