"""What a step names of the cluster it runs in: secrets by reference (`rml.secret`) and taints it puts up with (`rml.toleration`).

References only. A secret's value is in no file, record, log or IR of ours: in a cluster Kubernetes hands it to the pod, here it
comes from the environment or from `$RML_HOME/secrets/<name>/<key>`. Standard library only: these travel into steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["EFFECTS", "Secret", "Toleration", "secret", "toleration"]

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")
_KEY = re.compile(r"^[A-Za-z0-9._-]{1,253}$")
_ENV = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_QUALIFIED = re.compile(
    r"^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
)
# Mounting over these would hide what the pod needs to start the step at all.
_TAKEN = ("/", "/kfp-launcher", "/gcs", "/s3", "/minio", "/dev/shm", "/tmp", "/var/run/argo", "/rml-scratch")  # noqa: S108
# Set in every step; a secret under such a name would change what runs instead of what it may read.
_RESERVED_ENV = ("PATH", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "HOME", "TMPDIR")


@dataclass(frozen=True, slots=True, order=True)
class Secret:
    """A Kubernetes Secret: one key of it as an environment variable, or all of it as files under `mount`."""

    name: str
    key: str = ""
    env: str = ""
    mount: str = ""

    def problem(self) -> tuple[str, str] | None:
        """(what is wrong, what to type), or None."""
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            return (
                f"{self.name!r} is no name of a Kubernetes Secret",
                'write rml.secret("hub", key="token", env="HF_TOKEN")',
            )
        if bool(self.env) == bool(self.mount):
            how = "both" if self.env else "neither"
            return (
                f"secret {self.name!r} names {how} of env= and mount=",
                f'write rml.secret({self.name!r}, key="token", env="TOKEN") or rml.secret({self.name!r}, mount="/secrets/{self.name}")',
            )
        return self._env_problem() if self.env else self._mount_problem()

    def _env_problem(self) -> tuple[str, str] | None:
        if not isinstance(self.env, str) or not _ENV.match(self.env):
            return f"{self.env!r} is no environment variable", f'write env="{_as_env(self.key or self.name)}"'
        if self.env in _RESERVED_ENV or (self.env.startswith(("RML_", "KFP_")) and self.env != "RML_TOKEN"):
            return f"the environment variable {self.env} belongs to the platform", "choose a name of your own"
        if not isinstance(self.key, str) or not _KEY.match(self.key):
            return (
                f"secret {self.name!r} has no key to read for {self.env}",
                f'write rml.secret({self.name!r}, key="token", env={self.env!r})',
            )
        return None

    def _mount_problem(self) -> tuple[str, str] | None:
        path = self.mount
        fix = f'write mount="/secrets/{self.name}"'
        if self.key:
            return f"secret {self.name!r} is mounted whole; key= goes with env=", f"remove key={self.key!r}"
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or ":" in path:
            return f"mount {path!r} is no absolute path", fix
        if path.rstrip("/") in (p.rstrip("/") for p in _TAKEN):
            return f"mount {path!r} is used by the platform", fix
        if "." in self.name or len(self.name) > 63:
            # The volume gets the secret's name, and a volume's name is a DNS label.
            return (
                f"secret {self.name!r} cannot be mounted: Kubeflow names the volume after it",
                "rename the secret, or use env=",
            )
        return None


@dataclass(frozen=True, slots=True, order=True)
class Toleration:
    """A taint that does not keep a step away. Without `value` any value of the key, without `effect` every effect."""

    key: str
    value: str = ""
    effect: str = ""
    seconds: int = -1

    @property
    def spec(self) -> dict[str, Any]:
        """As kfp-kubernetes writes it."""
        spec: dict[str, Any] = {"key": self.key, "operator": "Equal" if self.value else "Exists"}
        if self.value:
            spec["value"] = self.value
        if self.effect:
            spec["effect"] = self.effect
        if self.seconds >= 0:
            spec["tolerationSeconds"] = str(self.seconds)
        return spec

    def problem(self) -> tuple[str, str] | None:
        """(what is wrong, what to type), or None."""
        fix = 'write rml.toleration("nvidia.com/gpu", effect="NoSchedule")'
        if not isinstance(self.key, str) or not _QUALIFIED.match(self.key):
            return f"{self.key!r} is no taint's key", fix
        if not isinstance(self.value, str) or (self.value and not _QUALIFIED.match(self.value)):
            return f"{self.value!r} is no taint's value", fix
        if self.effect and self.effect not in EFFECTS:
            return f"{self.effect!r} is no effect", f"write one of {', '.join(EFFECTS)}"
        if not isinstance(self.seconds, int) or (self.seconds >= 0 and self.effect != "NoExecute"):
            return f'seconds={self.seconds!r} goes with effect="NoExecute" only', "remove seconds="
        return None


def secret(name: str, *, key: str = "", env: str = "", mount: str = "") -> Secret:
    """A secret by reference, for `@rml.step(secrets=[…])`.

    `rml.secret("hub", key="token", env="HF_TOKEN")`: one key as an environment variable.
    `rml.secret("certificates", mount="/secrets/tls")`: every key as a file in that folder.
    Here the value comes from the environment variable of that name or from `$RML_HOME/secrets/<name>/<key>` (mode 0600).
    """
    return Secret(name, key, env, mount)


def toleration(key: str, value: str = "", effect: str = "", *, seconds: int = -1) -> Toleration:
    """A taint the step puts up with, for `@rml.step(tolerations=[…])`: `rml.toleration("gpu", effect="NoSchedule")`."""
    return Toleration(key, value, effect, seconds)


def qualified(text: object) -> bool:
    """Whether this is a label's key: `team`, `nvidia.com/gpu.product`."""
    return isinstance(text, str) and bool(_QUALIFIED.match(text))


def _as_env(text: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_") or "TOKEN"
