"""Every error the SDK raises, and the finding it is made of.

The tree (catch the branch you can act on)::

    RmlSdkError                 anything from roblox_ml
    ├── PipelineError           the program is wrong; carries every finding at once
    │   ├── CaptureError        a step's code cannot be shipped as it stands
    │   └── GraphError          the pipeline does not fit together
    ├── EnvironmentError_       a lock could not be made, or an environment could not be built from it
    ├── DatasetError            a named dataset is missing, changed or not readable
    ├── PackageError            a model cannot be packaged, or a package is not what it claims to be
    ├── RunError                something about a run
    │   ├── RunFailed           a run ended in failure (the run is attached)
    │   └── RunNotFound         no record of such a run
    ├── NotRunning              a service does not answer
    ├── RemoteError             a service answered, and said no
    │   ├── NotFound            no such model, version, alias or endpoint
    │   ├── Conflict            somebody else was faster (compare-and-swap)
    │   └── SubmitError         Kubeflow Pipelines refused
    └── MissingExtra            a part of the project that is not installed

Each one says what failed, where, why, and what to type next. Standard library only: this module travels into steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CaptureError",
    "Conflict",
    "DatasetError",
    "EnvironmentError_",
    "Finding",
    "GraphError",
    "MissingExtra",
    "NotFound",
    "NotRunning",
    "PackageError",
    "PipelineError",
    "RemoteError",
    "RmlSdkError",
    "RunError",
    "RunFailed",
    "RunNotFound",
    "SubmitError",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, said so that the reader can repair it without a search engine.

    `code` is a stable kebab-case name ("wrong-type"), `where` is "cell 3, line 2" or "train.py:12", `source` the
    offending line(s) with a caret under the place.
    """

    code: str
    message: str
    where: str
    why: str
    fix: str
    source: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message} [{self.code}]"]
        if self.source:
            lines += [f"    {line}" for line in self.source.rstrip("\n").splitlines()]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class RmlSdkError(Exception):
    """Base of all SDK errors: a sentence, and optionally where, why and what to do."""

    def __init__(self, message: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the user's own frames and the sentence, not the SDK's frames between them."""
        from ._graph.where import users_frames

        frames = [f"{site}, in {name}\n    {line}" for site, name, line in users_frames(self.__traceback__)]
        return [*frames, f"{type(self).__name__}: {self}"]


class PipelineError(RmlSdkError):
    """The program is wrong. `findings` holds everything that was found, not only the first."""

    findings: tuple[Finding, ...]

    def __init__(self, findings: Finding | Iterable[Finding], *, subject: str = "") -> None:
        found = (findings,) if isinstance(findings, Finding) else tuple(findings)
        self.findings = found
        self.subject = subject
        count = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
        super().__init__(f"{count} in {subject}" if subject else count)

    def __str__(self) -> str:
        if len(self.findings) == 1:
            return str(self.findings[0])
        body = "\n\n".join(f"{n}. {finding}" for n, finding in enumerate(self.findings, 1))
        return f"{self.message}\n\n{body}"

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the findings, not the frames of the SDK between the user and them."""
        return [f"{type(self).__name__}: {self}"]


class CaptureError(PipelineError):
    """A step's code cannot be shipped as it stands (a live client, a huge global, a missing import, …)."""


class GraphError(PipelineError):
    """The pipeline does not fit together (wrong types, a cycle, Python `if` on an output, …)."""


class EnvironmentError_(RmlSdkError):
    """A lock could not be made or an environment could not be built (the underscore: the builtin has the name)."""


class DatasetError(RmlSdkError):
    """A named dataset does not exist, changed under its digest, or cannot be read."""


class PackageError(RmlSdkError):
    """A model cannot be packaged, or a package is not what its manifest says."""


class RunError(RmlSdkError):
    """Something about a run."""


class RunFailed(RunError):
    """A run ended in failure; `run` is the run, so that logs, outputs and `retry()` are at hand."""

    def __init__(self, message: str, *, run: Any = None, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(message, where=where, why=why, fix=fix)
        self.run = run


class RunNotFound(RunError):
    """No record of such a run."""


class NotRunning(RmlSdkError):
    """A service (control plane, door, Triton, Kubeflow Pipelines) does not answer."""


class RemoteError(RmlSdkError):
    """A service answered, and said no. `status` is the HTTP status, `code` the service's own error code."""

    def __init__(
        self, message: str, *, status: int = 0, code: str = "", where: str = "", why: str = "", fix: str = ""
    ) -> None:
        super().__init__(message, where=where, why=why, fix=fix)
        self.status = status
        self.code = code


class NotFound(RemoteError):
    """No such model, version, alias or endpoint."""


class Conflict(RemoteError):
    """Somebody else was faster: the alias or version is no longer what the caller expected."""


class SubmitError(RemoteError):
    """Kubeflow Pipelines refused a pipeline or a run."""


class MissingExtra(RmlSdkError):
    """A part of the project that is not installed; `fix` names the extra to install."""
