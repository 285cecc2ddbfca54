"""The only part of the SDK that asks a package index: hashes for pins, and a resolution when a step overrides one.

uv does the work, in an empty folder, with pip's index settings. Hashes are kept per distribution under
`$RML_HOME/locks/hashes`, so that adding one package asks for that one, and an unchanged set asks for nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .._runtime.environments import normal, platform_tag
from .._runtime.indexes import TORCH_CPU_INDEX, find_uv, index_flags, pip_settings, redact, uv_environment
from ..errors import EnvironmentError_, Finding
from ._cache import folder, read_json, write_json
from ._errors import WHERE, LockError
from ._wheels import hashes_in

__all__ = ["Resolved", "hashes_of", "resolve"]

_SECONDS = 300.0
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s\\;]+)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_NO_PACKAGE = re.compile(
    r"\b([A-Za-z0-9][A-Za-z0-9._-]*) was not found in the (?:package registry|provided package locations)"
)
_NO_VERSION = re.compile(
    r"there (?:is|are) no versions? of ([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?([=<>!~][^\s,]*)"
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """One distribution of a resolution."""

    version: str
    hashes: tuple[str, ...]


def hashes_of(pins: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """sha256 hashes for every pin; only those never seen before are asked for."""
    known = {name: kept for name, version in pins.items() if (kept := _kept(name, version))}
    unknown = {name: version for name, version in pins.items() if name not in known}
    if unknown:
        lines = [f"{name}=={version}" for name, version in sorted(unknown.items())]
        found = _asked(lines, "--no-deps", cpu=any(version.endswith("+cpu") for version in unknown.values()))
        bare = [name for name in sorted(unknown) if name not in found or not found[name].hashes]
        if bare:
            raise LockError(_no_hashes(name, unknown[name]) for name in bare)
        for name, resolved in found.items():
            _keep(name, resolved)
            known[name] = resolved.hashes
    return {name: known[name] for name in sorted(pins)}


def resolve(requirements: Iterable[str], preferences: Mapping[str, str]) -> dict[str, Resolved]:
    """A set that satisfies the requirements, with the preferred versions wherever they fit, and every hash."""
    lines = sorted(set(requirements))
    found = _asked(lines, preferences=preferences, cpu=any("+cpu" in line for line in lines))
    for name, resolved in found.items():
        _keep(name, resolved)
    return found


def _asked(
    lines: list[str], *flags: str, preferences: Mapping[str, str] | None = None, cpu: bool
) -> dict[str, Resolved]:
    """Ask uv; on failure take the hopeless requirements out and ask again, so that all of them are reported at once."""
    findings: list[Finding] = []
    wanted = lines
    extra: list[str] = []
    while True:
        done = _uv(wanted, [*flags, *extra], preferences or {}, short=bool(extra))
        if isinstance(done, dict):
            if findings:
                raise LockError(findings)
            return done
        if cpu and not extra and "+cpu" in done and not pip_settings().no_index:
            # CPU builds lie in a find-links folder, or else on PyTorch's own index; nothing else is asked there.
            extra = ["--index", TORCH_CPU_INDEX]
            continue
        hopeless = _hopeless(done, wanted)
        if not hopeless:
            raise LockError([*findings, _failure(done)])
        findings += [finding for _, finding in hopeless]
        gone = {line for line, _ in hopeless}
        wanted = [line for line in wanted if line not in gone]
        if not wanted:
            raise LockError(findings)


def _uv(
    lines: list[str], flags: list[str], preferences: Mapping[str, str], *, short: bool
) -> dict[str, Resolved] | str:
    """One `uv pip compile`; the pins, or uv's words on why not."""
    uv = find_uv()
    if uv is None:
        raise EnvironmentError_(
            "uv was not found", why="it resolves and hashes the packages of a step", fix="run `pip install uv`"
        )
    settings = pip_settings()
    environment = uv_environment(settings)
    if short:  # an index that this machine may not reach at all must fail in seconds
        environment |= {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1"}
    with tempfile.TemporaryDirectory(prefix="rml-lock-") as name:
        work = Path(name)
        (work / "requirements.in").write_text("\n".join(lines) + "\n")
        # An existing output is what uv prefers: a version changes only where it must.
        (work / "lock.txt").write_text("".join(f"{name}=={version}\n" for name, version in sorted(preferences.items())))
        command = [
            uv, "pip", "compile", "--quiet", "--color", "never", "--generate-hashes", "--no-header", "--no-annotate",
            "--python", sys.executable, *index_flags(settings), *flags, "requirements.in", "-o", "lock.txt",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=work, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"the package index did not answer within {_SECONDS:.0f} s"
        if done.returncode != 0:
            return redact(done.stderr.strip())
        found = _read((work / "lock.txt").read_text())
    return {name: _with_local_hashes(name, resolved, settings.find_links) for name, resolved in found.items()}


def _with_local_hashes(name: str, resolved: Resolved, find_links: tuple[str, ...]) -> Resolved:
    if resolved.hashes:
        return resolved
    return Resolved(resolved.version, hashes_in(find_links, name, resolved.version))


def _read(text: str) -> dict[str, Resolved]:
    found: dict[str, Resolved] = {}
    for block in re.split(r"\n(?=\S)", text):
        if match := _PIN.match(block):
            found[normal(match[1])] = Resolved(match[2], tuple(sorted(set(_HASH.findall(block)))))
    return found


def _hopeless(said: str, lines: list[str]) -> list[tuple[str, Finding]]:
    """Requirements that no index can meet by themselves, by uv's own words, each with its finding."""
    by_name = {normal(match[0]): line for line in lines if (match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line))}
    found: dict[str, Finding] = {}
    for match in _NO_PACKAGE.finditer(said):
        line = by_name.get(normal(match[1]))
        if line:
            found[line] = Finding(
                code="unknown-package",
                message=f"no package {match[1]!r} on any index this machine asks",
                where=WHERE,
                why="neither pip's index nor its find-links folders know the name",
                fix="check the spelling, or set the index that has it (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS)",
            )
    for match in _NO_VERSION.finditer(said):
        line = by_name.get(normal(match[1]))
        if line and match[2].strip() in line:
            found.setdefault(
                line,
                Finding(
                    code="unknown-version",
                    message=f"no version {match[2]} of {match[1]} on any index this machine asks",
                    where=WHERE,
                    why="it was never released, was removed, or lies on an index that is not configured here",
                    fix=f"name a version that exists: @rml.step(packages=[{match[1] + '==…'!r}]), or set the index that has it",
                ),
            )
    return list(found.items())


def _failure(said: str) -> Finding:
    unsatisfiable = "unsatisfiable" in said or "No solution" in said
    return Finding(
        code="packages-conflict" if unsatisfiable else "index-unreachable",
        message="no set of packages meets the step's requirements"
        if unsatisfiable
        else "the package index gave no answer",
        where=WHERE,
        why=said.removeprefix("error: "),
        fix="loosen one of the requirements named above"
        if unsatisfiable
        else "check the network and pip's index settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf); a set that was locked "
        "before needs no index",
    )


def _no_hashes(name: str, version: str) -> Finding:
    return Finding(
        code="no-hashes",
        message=f"the index offers no hash for {name} {version}",
        where=WHERE,
        why="a step installs only what its lock's hashes vouch for",
        fix=f"use another version of {name}, or an index that offers hashes",
    )


def _file(name: str, version: str) -> Path:
    return folder("hashes") / platform_tag() / f"{name}=={version}.json"


def _kept(name: str, version: str) -> tuple[str, ...]:
    kept = read_json(_file(name, version))
    return tuple(kept) if isinstance(kept, list) else ()


def _keep(name: str, resolved: Resolved) -> None:
    if resolved.hashes:
        write_json(_file(name, resolved.version), list(resolved.hashes))
