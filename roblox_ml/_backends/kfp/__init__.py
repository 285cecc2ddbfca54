"""Kubeflow Pipelines as a backend: the only part of the SDK that imports kfp, and only when something is submitted."""

from __future__ import annotations

from ._submit import submit
from .connection import Experiment, Kubeflow, connect, current
from .recurring import RecurringRun
from .run import RemoteRun

__all__ = ["Experiment", "Kubeflow", "RecurringRun", "RemoteRun", "connect", "current", "submit"]
