"""The command line and environment of one tritonserver.

Explicit model control: the server starts empty and only the agent loads models, over gRPC. (Over HTTP a load keeps one of
the server's threads for seconds, and every inference connection that shares the thread waits.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from roblox_ml_core.settings import TritonSettings

from .installation import Installation

__all__ = ["command", "environment", "shm_prefix"]

EXIT_TIMEOUT_S = 5


def shm_prefix(repository: Path) -> str:
    """The name all shared-memory regions of this server's stubs begin with, so that what a killed server left is found."""
    return f"rml-triton-{hashlib.sha256(str(repository).encode()).hexdigest()[:12]}-"


def command(installation: Installation, settings: TritonSettings, repository: Path) -> list[str]:
    """The argument vector. Response cache off: whether answers may be cached is decided per endpoint, not here."""
    return [
        str(installation.binary),
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        f"--backend-directory={installation.backends}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(repository)}",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        # Without these, a port somebody else holds would be shared with him silently.
        "--reuse-http-port=false",
        "--reuse-grpc-port=false",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",  # there is no GPU: the pool's failure would be a warning in every log
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        # A model that fails to load is the agent's to report; it must not make the whole server unready.
        "--strict-readiness=false",
        "--disable-auto-complete-config",  # configurations are generated and complete; completing starts a stub per model
    ]


def environment(
    installation: Installation, base: Mapping[str, str] | None = None, preload: Path | None = None
) -> dict[str, str]:
    """The process environment: the stub finds its packages through PATH, and each instance computes on one thread.

    `preload`: a library loaded before all others; an allocator, usually.
    """
    result = dict(os.environ if base is None else base)
    result["PATH"] = f"{installation.python.parent}{os.pathsep}{result.get('PATH', os.defpath)}"
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        result[variable] = "1"
    # The stub would take these for its own interpreter's; they belong to whoever started us.
    for variable in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "LD_PRELOAD"):
        result.pop(variable, None)
    # Models need no secret of ours, and a model's code could print its environment.
    result.pop("RML_TOKEN", None)
    if preload is not None:
        result["LD_PRELOAD"] = str(preload)
    return result
