"""Environment store: the one place where a step's packages are put on disk, once per lock.

A step runs in place when the interpreter already has every pin of its lock; otherwise it enters
`$RML_HOME/envs/<lock digest>`, built by whoever comes first (uv, else pip; hashes required). A file lock keeps the
others waiting, and a marker written last tells a whole environment from what a killed build left. Standard library
only: this runs in a step, on a machine with plain Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EnvironmentError_

# What only a build needs (`indexes`, subprocess, …) is imported by the build: a step that finds its environment ready
# starts a tenth of a second sooner.

__all__ = [
    "SCHEMA",
    "ParsedLock",
    "ensure",
    "in_place",
    "normal",
    "parse",
    "platform_tag",
    "python_minor",
    "site_folders",
    "warm",
]

SCHEMA = 1
MARKER = ".complete"  # holds the lock's digest; its time stamp is when the environment was last entered
_HEADER = re.compile(r"# (roblox-ml environment lock, schema|python|platform) (\S+)")
_WHEEL = re.compile(r"# wheel (\S+) ([0-9a-f]{64}) ([0-9a-f]{64})")
_INDEX = re.compile(r"# index (\S+) ([A-Za-z_][A-Za-z0-9_]*)")
_SYSTEM = re.compile(r"# system (\S+)")
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)")
_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ParsedLock:
    """What a lock's text says: for which Python and platform, and which version of what.

    `wheels` are kept in the store: (file name, digest, digest of what it installs) by distribution. `indexes` are private
    ones by name, each with the variable that holds its address. `system` are the image's packages.
    """

    python: str
    platform: str
    pins: Mapping[str, str]
    wheels: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)
    system: tuple[str, ...] = ()


def python_minor() -> str:
    """This interpreter's `major.minor`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def platform_tag() -> str:
    """This machine's platform as wheels spell it, without the C library's version: `linux_x86_64`."""
    return re.sub(r"[-.]", "_", sysconfig.get_platform())


def normal(name: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(lock_text: str) -> ParsedLock:
    """Read a lock's text; a lock of a later schema, or no lock at all, is refused."""
    header = {match[1]: match[2] for match in map(_HEADER.fullmatch, lock_text.splitlines()) if match}
    schema = header.get("roblox-ml environment lock, schema")
    if schema != str(SCHEMA):
        raise EnvironmentError_(
            f"this is no environment lock of schema {SCHEMA} (found: {schema or 'no header'})",
            why="locks say in their first line which schema they follow",
            fix="compile the pipeline again with this version of roblox_ml",
        )
    pins = {normal(match[1]): match[2] for match in map(_PIN.match, lock_text.splitlines()) if match}
    comments = [line for line in lock_text.splitlines() if line.startswith("# ")]
    wheels = {normal(m[1].partition("-")[0]): (m[1], m[2], m[3]) for m in map(_WHEEL.fullmatch, comments) if m}
    indexes = {m[1]: m[2] for m in map(_INDEX.fullmatch, comments) if m}
    system = tuple(m[1] for m in map(_SYSTEM.fullmatch, comments) if m)
    return ParsedLock(header.get("python", ""), header.get("platform", ""), pins, wheels, indexes, system)


def in_place(lock_text: str) -> bool:
    """Whether this interpreter has every pin of the lock, so that a step may run in it.

    One look at the names in site-packages (a millisecond): no cache to go stale, no metadata read.
    """
    lock = parse(lock_text)
    if lock.python != python_minor() or lock.platform != platform_tag():
        return False
    if _installed(lock.pins) != lock.pins:
        return False
    if not lock.wheels:
        return True
    from .wheels import is_installed

    # Two builds of one version are told apart by what they put on disk: a wheel of one's own is rebuilt without a thought.
    return all(is_installed(name, wheel[2], site_folders()) for name, wheel in lock.wheels.items())


def ensure(lock_text: str, digest: str, home: Path | None = None) -> Path:
    """The python of the environment of this lock; built first if nobody has.

    `digest` is the lock's sha256 (checked). Safe to call from many processes at once: one builds, the others wait.
    """
    if hashlib.sha256(lock_text.encode()).hexdigest() != digest:
        raise EnvironmentError_(f"the lock's text does not have the digest {digest}", fix="compile the pipeline again")
    if home is None:
        from .._store import home as default_home

        home = default_home()
    envs = home / "envs"
    folder = envs / digest
    python = folder / "bin" / "python"
    if _is_complete(folder, digest):
        return python
    lock = parse(lock_text)
    _check_fits(lock)
    envs.mkdir(parents=True, exist_ok=True)
    with _exclusive(envs / f".{digest}.lock", digest) as handle:
        if _is_complete(folder, digest):
            return python
        import shutil

        # Whatever lies here without a marker was left by a build that was killed.
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        _say(digest, f"building it ({len(lock.pins)} packages)")
        try:
            _build(folder, lock_text, lock, handle)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        marker = folder / f"{MARKER}.new"
        marker.write_text(digest)
        marker.replace(folder / MARKER)
        _say(digest, f"ready after {time.monotonic() - started:.1f} s")
    return python


def warm(lock_text: str, home: Path | None = None) -> Path:
    """Build the environment of a lock ahead of time; the python to run with (this one when its packages fit)."""
    if in_place(lock_text):
        return Path(sys.executable)
    return ensure(lock_text, hashlib.sha256(lock_text.encode()).hexdigest(), home)


def _is_complete(folder: Path, digest: str) -> bool:
    marker = folder / MARKER
    try:
        if marker.read_text() != digest or not (folder / "bin" / "python").exists():
            return False
        os.utime(marker)  # the garbage collector spares what was entered lately
    except FileNotFoundError:
        return False
    except PermissionError:
        pass  # a shared, read-only store
    return True


def _check_fits(lock: ParsedLock) -> None:
    if lock.python != python_minor():
        raise EnvironmentError_(
            f"the lock is for Python {lock.python}, this step runs Python {python_minor()}",
            why="compiled packages fit one minor version of Python only",
            fix=f"use an image with Python {lock.python} (RML_STEP_IMAGE), or compile under Python {python_minor()}",
        )
    if lock.platform != platform_tag():
        raise EnvironmentError_(
            f"the lock is for {lock.platform}, this machine is {platform_tag()}",
            why="compiled packages fit one platform only",
            fix="compile the pipeline on a machine of the platform its steps run on",
        )


@contextmanager
def _exclusive(path: Path, digest: str) -> Iterator[int]:
    """An advisory lock that the kernel drops when its last holder dies, however it dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(digest, "another process is building it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _build(folder: Path, lock_text: str, lock: ParsedLock, handle: int) -> None:
    from .indexes import TORCH_CPU_INDEX, find_uv, index_flags, pip_settings, uv_environment

    uv = find_uv()
    settings = pip_settings()
    environment = {**uv_environment(settings), **_named_indexes(lock)}
    requirements = folder / "lock.txt"
    python = folder / "bin" / "python"
    if uv:
        _call([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)], environment, handle)
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *index_flags(settings)]
    else:
        _call([sys.executable, "-m", "venv", "--without-pip", str(folder)], environment, handle)
        install = [
            *_pip(python, environment, handle),
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
        ]
    requirements.write_text(lock_text)
    if not lock.pins:
        return
    source = requirements
    if lock.wheels:
        from .wheels import with_local_wheels

        source = with_local_wheels(lock_text, lock, folder / ".wheels")
    install += ["--require-hashes", "--no-deps", "-r", str(source)]
    try:
        _call(install, environment, handle)
    except EnvironmentError_:
        # CPU builds ("+cpu") lie in a find-links folder, or else on PyTorch's own index; nothing else is asked there.
        cpu = any(version.endswith("+cpu") for version in lock.pins.values()) and not settings.no_index
        if not _worked_with(install, {**environment, "UV_OFFLINE": "1"}, handle, uv):
            if not cpu:
                raise
            for name in ("UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
                environment[name] = f"{environment.get(name, '')} {TORCH_CPU_INDEX}".strip()
            _call(install, environment, handle)


def _worked_with(install: list[str], environment: Mapping[str, str], handle: int, uv: str | None) -> bool:
    """Whether uv's own cache has everything: an index that does not answer is not needed then."""
    if not uv:
        return False
    try:
        _call(install, environment, handle)
    except EnvironmentError_:
        return False
    return True


def _named_indexes(lock: ParsedLock) -> dict[str, str]:
    """Variables that tell uv and pip of the private indexes a lock names. Their addresses are this machine's business."""
    from .indexes import named_url

    urls = {name: named_url(name, variable) for name, variable in lock.indexes.items()}
    missing = sorted(name for name, url in urls.items() if not url)
    if missing:
        name = missing[0]
        raise EnvironmentError_(
            f"the package index {name!r} is not known on this machine",
            why="the lock names it, and never holds its address: that may contain a password",
            fix=f"set {lock.indexes[name]} to its address where the step runs "
            f'(on a cluster: rml.secret("…", env="{lock.indexes[name]}"))',
        )
    found: dict[str, str] = {}
    for variable in ("UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        listed = [*os.environ.get(variable, "").split(), *(url for _, url in sorted(urls.items()) if url)]
        if urls:
            found[variable] = " ".join(listed)
    return found


def _pip(python: Path, environment: Mapping[str, str], handle: int) -> list[str]:
    """A pip that installs into `python`: this interpreter's own, else a fresh one from the standard library."""
    import subprocess

    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    _call([str(python), "-m", "ensurepip", "--default-pip"], environment, handle)
    return [str(python), "-m", "pip"]


def _call(command: list[str], environment: Mapping[str, str], handle: int) -> None:
    """Run one build command.

    It inherits the file lock: if this process is killed, the lock stays taken until the orphan has ended, so that
    nobody clears the folder under it.
    """
    import subprocess

    from .indexes import redact

    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            pass_fds=(handle,),
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentError_(
            f"building the environment took more than {_SECONDS:.0f} s", where=Path(command[0]).name
        ) from None
    if done.returncode != 0:
        raise EnvironmentError_(
            "the step's environment could not be built",
            where=f"{Path(command[0]).name} {' '.join(part for part in command[1:3])}",
            why=redact((done.stderr or done.stdout).strip()[-3000:]),
            fix="check pip's index settings on this machine (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf): "
            "the lock names versions and hashes, this machine says where they come from",
        )


def _installed(wanted: Mapping[str, str]) -> dict[str, str]:
    """Versions of the wanted distributions as this interpreter would import them, by their metadata folders' names."""
    found: dict[str, str] = {}
    for site in site_folders():
        for entry in os.scandir(site):
            stem, dot, kind = entry.name.rpartition(".")
            if not dot or kind not in ("dist-info", "egg-info"):
                continue
            name, _, version = stem.partition("-")
            name = normal(name)
            if name in wanted and name not in found:  # the first on sys.path is the one imported
                same = version == wanted[name]
                found[name] = version if same else _exact_version(Path(entry.path)) or version
    return found


def _exact_version(info: Path) -> str | None:
    """The version as the metadata spells it: the folder's name may be normalised differently."""
    for file in (info / "METADATA", info / "PKG-INFO", info):
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith("Version:"):
                        return line[8:].strip()
                    if not line.strip():
                        break
        except OSError:
            continue
    return None


def site_folders() -> list[str]:
    """The folders of sys.path that hold installed distributions, in import order."""
    return [
        entry
        for entry in dict.fromkeys(sys.path)
        if entry.rstrip("/").endswith(("site-packages", "dist-packages")) and Path(entry).is_dir()
    ]


def _say(digest: str, text: str) -> None:
    print(f"environment {digest[:12]}: {text}", flush=True)
