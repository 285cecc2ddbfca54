"""Kubernetes objects of a served endpoint, written by small typed builders: plain dictionaries, then YAML.

A KServe cluster runs the same parts as a laptop does: Triton with the agent beside it (`runtime`), one InferenceService per
endpoint (`service`), doors (`door`), and for teams with a mesh what of the policy a mesh can do (`mesh`). Values that a
cluster would refuse are refused here first, all of them at once and in words (`values`).
"""

from __future__ import annotations

from .door import door_objects
from .mesh import Split, envoy_route, http_route, split_of
from .render import as_yaml, manifests, write
from .runtime import RUNTIME, STORAGE, runtime_objects, serving_runtime, storage_container
from .service import inference_service, service_objects
from .values import Door, Installation, ManifestInvalid, Model, Resources, Scaling

__all__ = [
    "RUNTIME",
    "STORAGE",
    "Door",
    "Installation",
    "ManifestInvalid",
    "Model",
    "Resources",
    "Scaling",
    "Split",
    "as_yaml",
    "door_objects",
    "envoy_route",
    "http_route",
    "inference_service",
    "manifests",
    "runtime_objects",
    "service_objects",
    "serving_runtime",
    "split_of",
    "storage_container",
    "write",
]
