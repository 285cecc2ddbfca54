"""Wheels that travel with a step: given as files, or packed again from what this interpreter has installed.

What was installed from a file, a URL or a git repository is at no place that another machine could ask. Its files are here,
with the list of them that its installer wrote: packed again they are a wheel with exactly the bytes the notebook ran with,
made without a network, a repository or a compiler. The same files give the same wheel.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .._runtime.environments import normal, site_folders
from .._runtime.wheels import INSTALLERS_OWN, content_of
from .._store import digest_of_file
from ..errors import Finding
from ._cache import folder
from ._errors import WHERE, LockError

__all__ = ["Wheel", "bytes_of", "from_file", "from_installed", "link_folder"]

_STAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel kept under `$RML_HOME/locks/wheels`. `content` tells what it installs, whatever zip it is in."""

    name: str
    version: str
    filename: str
    digest: str
    content: str
    size: int


def link_folder(wheel: Wheel) -> Path:
    """The folder that holds this wheel and nothing else, for a resolver to look into."""
    return folder("wheels") / wheel.digest


def bytes_of(wheel: Wheel) -> bytes:
    """The wheel's bytes."""
    return (link_folder(wheel) / wheel.filename).read_bytes()


def from_file(path: Path) -> Wheel:
    """Keep a copy of a wheel file."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            record = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/RECORD"))
            content = content_of(archive.read(record).decode())
    except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration, OSError, UnicodeDecodeError) as error:
        raise LockError(_not_a_wheel(path, str(error) or type(error).__name__)) from None
    if not _fits(tags):
        raise LockError(_not_a_wheel(path, "it is built for another Python or machine than this one"))
    digest = digest_of_file(path)
    wheel = Wheel(normal(str(name)), str(version), path.name, digest, content, path.stat().st_size)
    target = link_folder(wheel) / path.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(path, temporary)
        temporary.replace(target)
    return wheel


def from_installed(name: str, sites: Iterable[str] | None = None) -> tuple[Wheel, tuple[str, ...]]:
    """Pack an installed distribution again; also: what was changed by hand since it was installed, in words."""
    found = next(
        (
            d
            for d in metadata.distributions(path=list(sites or site_folders()))
            if normal(d.metadata["Name"] or "") == name
        ),
        None,
    )
    if found is None or not found.files:
        raise LockError(_no_record(name))
    members: dict[str, bytes] = {}
    edited: list[str] = []
    stem = ""
    for file in found.files:
        path = file.as_posix()
        top = file.parts[0]
        if top.endswith(".dist-info"):
            stem = top
        if file.is_absolute() or ".." in file.parts or path.endswith(".pyc"):
            continue  # scripts are made anew from the entry points
        if top.endswith(".dist-info") and file.name in INSTALLERS_OWN:
            continue
        try:
            data = Path(str(found.locate_file(file))).read_bytes()
        except OSError:
            edited.append(f"{path} is gone")
            continue
        if file.hash and file.hash.value != _hash(data):
            edited.append(path)
        members[path] = data
    if not stem or f"{stem}/WHEEL" not in members:
        raise LockError(_no_record(name))
    filename = f"{stem.removesuffix('.dist-info')}-{_tag(members[f'{stem}/WHEEL'].decode())}.whl"
    lines = [f"{_field(path)},sha256={_hash(data)},{len(data)}" for path, data in sorted(members.items())]
    members[f"{stem}/RECORD"] = ("\n".join([*lines, f"{stem}/RECORD,,"]) + "\n").encode()
    data = _zip(members)
    digest = hashlib.sha256(data).hexdigest()
    record = members[f"{stem}/RECORD"].decode()
    wheel = Wheel(name, found.version, filename, digest, content_of(record), len(data))
    target = link_folder(wheel) / filename
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{filename}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(target)
    return wheel, tuple(edited)


def _zip(members: dict[str, bytes]) -> bytes:
    """Stored, sorted, stamped alike: a digest must not depend on a zlib build or a clock."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in sorted(members.items()):
            info = zipfile.ZipInfo(path, _STAMP)
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, data)
    return buffer.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _field(path: str) -> str:
    return f'"{path}"' if "," in path else path


def _tag(text: str) -> str:
    """The tag for the file's name: any of those the WHEEL file lists that this interpreter takes."""
    from packaging.tags import parse_tag

    tags = re.findall(r"^Tag: (\S+)$", text, re.MULTILINE) or ["py3-none-any"]
    fitting = [str(tag) for tag in sorted(tags, reverse=True) if _fits(parse_tag(tag))]
    return fitting[0] if fitting else str(tags[0])


def _fits(tags: Iterable[object]) -> bool:
    from packaging.tags import sys_tags

    return not set(sys_tags()).isdisjoint(tags)


def _not_a_wheel(path: Path, why: str) -> Finding:
    return Finding(
        "bad-wheel", f"packages: {str(path)!r} is no wheel that a step could install", WHERE, why,
        "name a file that `uv build --wheel` or `pip wheel` made: name-version-py3-none-any.whl",
    )  # fmt: skip


def _no_record(name: str) -> Finding:
    return Finding(
        "direct-url",
        f"{name} was installed from a file, a URL or a repository, and left no list of its files",
        WHERE,
        "it travels as a wheel made of these files; no index has it",
        f"install it again with pip or uv, or give its wheel: @rml.step(packages=['./{name}-….whl'])",
    )
