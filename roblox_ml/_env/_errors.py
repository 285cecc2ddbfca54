"""The error of a lock that cannot be made: an environment problem that carries findings like any error of a program."""

from __future__ import annotations

from ..errors import EnvironmentError_, PipelineError

__all__ = ["WHERE", "LockError"]

WHERE = "environment of the step"


class LockError(PipelineError, EnvironmentError_):
    """A step's environment cannot be locked; `findings` holds every reason found."""
