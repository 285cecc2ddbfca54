"""What `packages=` asks for, read: requirements, wheels, folders of wheels, pinned repositories, packages of a named index.

Everything that no index could give another machine becomes a wheel at once, and from then on is a version like any other.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .._runtime.environments import normal, platform_tag
from .._runtime.indexes import find_uv, index_flags, redact, uv_environment
from ..errors import Finding
from ._cache import folder, read_json, write_json
from ._carried import Wheel, from_file, from_installed, link_folder
from ._errors import WHERE, LockError
from ._private import Index, split, unknown
from ._wheels import wheels_in

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Asked", "in_folders", "read_packages", "state_of"]

_COMMIT = re.compile(r"@([0-9a-f]{40})(?:#|$)")
_SECONDS = 600.0


@dataclass(slots=True)
class Asked:
    """`packages=`, sorted out. `wheels` and `named` are by distribution; `folders` are looked into like an index."""

    requirements: list[Requirement] = field(default_factory=list)
    wheels: dict[str, Wheel] = field(default_factory=dict)
    named: dict[str, Index] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_packages(packages: Sequence[str]) -> Asked:
    """Read every entry; what cannot be used is a finding, and the others are read all the same."""
    asked = Asked()
    for text in packages:
        try:
            _read(text, asked)
        except LockError as error:
            asked.findings += error.findings
    return asked


def in_folders(folders: Sequence[Path], pins: Mapping[str, str]) -> dict[str, Wheel]:
    """The pins that one of the folders has a wheel for: they travel with the step, another machine has no such folder."""
    found: dict[str, Wheel] = {}
    for name, version in pins.items():
        for path in wheels_in(map(str, folders), name, version):
            found.setdefault(name, from_file(path))
    return found


def state_of(packages: Iterable[str]) -> list[object]:
    """What tells whether the files and folders among the entries have changed; a wheel is rebuilt under its old name."""
    found: list[object] = []
    for text in packages:
        if not isinstance(text, str) or not _is_path(text):
            continue
        path = Path(text).expanduser()
        for file in sorted(path.glob("*.whl")) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                found.append([str(file.absolute()), stat.st_mtime_ns, stat.st_size])
    return found


def _read(text: str, asked: Asked) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    if isinstance(text, str) and _is_path(text):
        _read_path(text, asked)
        return
    index, line = split(text) if isinstance(text, str) else (None, text)
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, TypeError) as error:
        raise LockError(
            _bad(text, str(error).splitlines()[0], 'write it as pip does: "scikit-learn==1.8.0", "pandas>=2,<3"')
        ) from None
    if normal(requirement.name).startswith("roblox-ml"):
        raise LockError(_bad(text, "roblox_ml travels with the step already", "remove it from packages"))
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    name = normal(requirement.name)
    if requirement.url:
        wheel = _from_url(text, requirement)
        asked.wheels[name] = wheel
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        requirement = Requirement(f"{requirement.name}{extras}=={wheel.version}")
    if index is not None:
        problem = unknown(index)
        if problem:
            raise LockError(problem)
        asked.named[name] = index
    asked.requirements.append(requirement)


def _is_path(text: str) -> bool:
    return "://" not in text and "::" not in text and (text.endswith(".whl") or text.startswith((".", "/", "~")))


def _read_path(text: str, asked: Asked) -> None:
    from packaging.requirements import Requirement

    path = Path(text).expanduser().absolute()
    if path.is_dir():
        if not any(path.glob("*.whl")):
            raise LockError(
                _bad(text, "there is no wheel in this folder", "build one into it: uv build --wheel --out-dir " + text)
            )
        asked.folders.append(path)
        return
    if not path.is_file():
        raise LockError(_bad(text, "there is no such file", "a path counts from the notebook's working folder"))
    wheel = from_file(path)
    asked.wheels[wheel.name] = wheel
    asked.requirements.append(Requirement(f"{wheel.name}=={wheel.version}"))


def _from_url(text: str, requirement: Requirement) -> Wheel:
    """The wheel of a repository's commit, or of a file on the web; made once, then kept."""
    url = str(requirement.url)
    if "@" in url.partition("://")[2].partition("/")[0] and not re.search(r"://git@", url):
        raise LockError(
            _bad(redact(text), "its address holds a password, and is stored with the step", "let git or netrc keep it")
        )
    if url.startswith("git+") and not _COMMIT.search(url):
        raise LockError(
            _bad(
                text,
                "a branch or tag moves, and the step's lock must not",
                "name the commit: git+https://…@<40 hex digits>",
            )
        )
    name = normal(requirement.name)
    file = folder("built") / platform_tag() / f"{re.sub(r'[^A-Za-z0-9.]+', '_', f'{name}_{url}')[-200:]}.json"
    kept = read_json(file)
    if isinstance(kept, dict):
        wheel = Wheel(**kept)
        if (link_folder(wheel) / wheel.filename).is_file():
            return wheel
    wheel = _built(text, name, f"{requirement.name} @ {url}")
    write_json(file, {key: getattr(wheel, key) for key in Wheel.__slots__})
    return wheel


def _built(text: str, name: str, line: str) -> Wheel:
    """Let uv fetch and build it into a folder, and pack what it installed there."""
    uv = find_uv()
    if uv is None:
        raise LockError(_bad(text, "uv, which fetches and builds it, was not found", "run `pip install uv`"))
    with tempfile.TemporaryDirectory(prefix="rml-build-") as work:
        command = [
            uv, "pip", "install", "--quiet", "--color", "never", "--no-deps", "--python", sys.executable,
            "--target", work, *index_flags(), line,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, env=uv_environment(), cwd=work, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise LockError(
                _bad(text, f"building it took more than {_SECONDS:.0f} s", "build a wheel yourself")
            ) from None
        if done.returncode != 0:
            why = redact(done.stderr.strip())[-2000:]
            raise LockError(_bad(text, why, "check the address, and that `pip install` of it works here"))
        return from_installed(name, [work])[0]


def _bad(text: object, why: str, fix: str) -> Finding:
    return Finding("bad-requirement", f"packages: {text!r} cannot be used", WHERE, why, fix)
