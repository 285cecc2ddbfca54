"""What a model gets from the place it runs in: instances, cores, and for a plain-Python model its locked environment.

That environment is built by the SDK's environment store before the model is loaded, in a process of its own: the store belongs
to the SDK (this package does not import it), and building takes as long as an installation takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from roblox_ml_core.digests import sha256_bytes
from roblox_ml_core.errors import PackageError
from roblox_ml_core.package import ModelPackage

from ..repository import Options

__all__ = ["cores", "options_for", "parameters_for", "touch"]

LOCK = "model/lock.txt"
# The last line is the interpreter; progress goes before it.
_BUILD = (
    "import pathlib, sys; from roblox_ml._runtime.environments import ensure; "
    "print(ensure(pathlib.Path(sys.argv[1]).read_text(), sys.argv[2], pathlib.Path(sys.argv[3])))"
)


def cores() -> int:
    """Cores this process may use: a container's limit counts, not the machine."""
    return max(1, len(os.sched_getaffinity(0)))


def options_for(package: ModelPackage, instances: int, home: Path, *, pin: bool = True) -> Options:
    """How a package is served on this machine, where `instances` per model are usual."""
    # A plain-Python model brings its own process per instance and its own memory: one, unless the package asks for more.
    asked = package.options.get("instances")
    usual = 1 if package.format == "python" else instances
    count = asked if isinstance(asked, int) and asked > 0 else usual
    # With fewer instances than cores the kernel places them better; with more, two would share a core while one is idle.
    pinned = pin and package.format == "text-cpu" and count == cores()
    return Options(instances=count, pin=pinned, parameters=parameters_for(package, home))


def parameters_for(package: ModelPackage, home: Path) -> Mapping[str, str]:
    """What the model file must be told: for a plain-Python model the interpreter of its environment, built if need be."""
    if package.format != "python":
        return {}
    lock = package.root / LOCK
    if not lock.is_file():
        raise PackageError(
            f"a python package needs {LOCK}", hint="package the model again with this version of roblox_ml"
        )
    digest = sha256_bytes(lock.read_bytes())
    if package.options.get("lock") not in (None, digest):
        raise PackageError(f"{LOCK} has the digest {digest}, package.json says {package.options['lock']}")
    command = [sys.executable, "-c", _BUILD, str(lock), digest, str(home)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()
        raise PackageError(f"its environment could not be built: {' '.join(told[-6:]) or f'status {done.returncode}'}")
    return {"python": done.stdout.strip().splitlines()[-1]}


def touch(package: ModelPackage, home: Path) -> None:
    """Tell the garbage collector that the environment of a served model is in use."""
    lock = package.options.get("lock")
    marker = home / "envs" / str(lock) / ".complete"
    if package.format == "python" and marker.is_file():
        marker.touch()
