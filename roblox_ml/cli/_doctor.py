"""The checks behind `rml doctor`: each returns one finding, none of them changes anything."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

MIN_FREE_GB = 10


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    state: Literal["ok", "warn", "fail"]
    check: str
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def findings() -> list[Check]:
    """Run every check; a check that breaks is itself a finding."""
    results = []
    for check in CHECKS:
        try:
            results.append(check())
        except Exception as error:  # a broken check must not hide the others
            results.append(Check("fail", check.__name__.strip("_"), f"{type(error).__name__}: {error}"))
    return results


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Check("ok", "Python", f"{version} ({sys.executable})")
    return Check("fail", "Python", version, "use Python 3.11: Triton's Python backend and the locks are built for it")


def _home() -> Check:
    from .._store import home

    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Check("fail", "RML_HOME", str(folder), "not writable; set RML_HOME to a folder that is")
    state: Literal["ok", "warn"] = "ok" if free >= MIN_FREE_GB else "warn"
    return Check(
        state,
        "RML_HOME",
        f"{folder}, {free:.0f} GB free",
        "" if state == "ok" else "rml gc frees what nobody refers to",
    )


def _token() -> Check:
    from .._store import home

    path = home() / "token"
    if not path.exists():
        return Check("ok", "token", "not made yet (rml up makes it)")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("fail", "token", f"{path} is readable by others ({mode:o})", f"chmod 600 {path}")
    return Check("ok", "token", f"{path} ({mode:o})")


def _store() -> Check:
    """The blob store as a step meets it: written to and read, since a store that can only be read fails at submit."""
    from .._store import StoreError, open_store

    store = open_store()
    if store.folder is not None:
        return Check("ok", "RML_STORE", f"{store.url} (a folder: steps on this machine reach it, pods do not)")
    try:
        store.get(store.put(b"rml doctor"))
    except StoreError as error:
        return Check("fail", "RML_STORE", str(error), "docs/guides/cluster.md has what a store needs")
    return Check("ok", "RML_STORE", f"{store.url} (written and read)")


def _image() -> Check:
    """Only looked at where there is a cluster to submit to."""
    image, kubeflow = os.environ.get("RML_STEP_IMAGE"), os.environ.get("RML_KFP_HOST")
    if image:
        settings = os.environ.get("RML_STEP_SETTINGS")
        return Check("ok", "step image", f"{image}{f', settings from {settings}' if settings else ''}")
    if not kubeflow:
        return Check("ok", "step image", "not needed: steps run on this machine")
    return Check(
        "warn",
        "step image",
        "RML_STEP_IMAGE is not set: python:3.11-slim runs as root, which Kubeflow's pods refuse",
        "build deploy/images/step, push it, and set RML_STEP_IMAGE to it",
    )


def _uv() -> Check:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    return (
        Check("ok", "uv", uv)
        if uv
        else Check("warn", "uv", "not found", "pip install uv (environments are built with pip until then)")
    )


def _triton() -> Check:
    from .._siblings import load

    unavailable = load("roblox_ml_core.errors").RmlError
    try:
        found = load("roblox_ml_serving.triton").find_installation()
    except unavailable as error:
        return Check("fail", "Triton", str(error), getattr(error, "hint", "") or "make setup")
    return Check("ok", "Triton", str(found.root))


def _libpython() -> Check:
    name = "libpython3.11.so.1.0"
    try:
        ctypes.CDLL(name)
    except OSError:
        return Check("fail", name, "not loadable", "Triton's Python stub links it: apt-get install libpython3.11")
    return Check("ok", name, "loadable")


def _torch() -> Check:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "warn", "torch", "not installed", 'pip install "roblox-ml[text]" when you train or package transformers'
        )
    return Check("ok", "torch", version)


def _cpu() -> Check:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    fast = [name for name in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16") if name in flags]
    return Check(
        "ok" if "avx2" in fast else "warn", "CPU", f"{os.cpu_count()} cores; {' '.join(fast) or 'no vector extensions'}"
    )


def _ports() -> Check:
    from .._stack import _parts, _state, status

    running = status()
    taken = [
        line for name, part in _parts.describe().items() if name not in running for line in _state.taken_ports(part)
    ]
    if taken:
        return Check("fail", "ports", "; ".join(taken), "stop what holds them, or move ours by the variable named")
    return Check("ok", "ports", "free, or held by this stack")


CHECKS: list[Callable[[], Check]] = [
    _python,
    _home,
    _token,
    _store,
    _image,
    _uv,
    _cpu,
    _torch,
    _libpython,
    _triton,
    _ports,
]
