"""Kubeflow Pipelines as a backend: the only part of the SDK that imports kfp, and only when something is submitted."""

from __future__ import annotations

from ._submit import RemoteRun, submit

__all__ = ["RemoteRun", "submit"]
