"""The only part of the SDK that asks a package index: hashes for pins, and a resolution when a step overrides one.

uv does the work, in an empty folder, with pip's index settings. Hashes are kept per distribution under
`$RML_HOME/locks/hashes`, so that adding one package asks for that one, and an unchanged set asks for nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .._runtime.environments import normal, platform_tag
from .._runtime.indexes import (
    TORCH_CPU_INDEX,
    find_uv,
    index_flags,
    named_credentials,
    named_url,
    pip_settings,
    redact,
    uv_environment,
)
from ..errors import EnvironmentError_, Finding
from ._cache import folder, read_json, write_json
from ._errors import WHERE, LockError
from ._private import Index, project
from ._wheels import hashes_in

__all__ = ["Named", "Resolved", "hashes_of", "resolve"]

Named = Mapping[str, Index]
"""Distributions that are taken from an index with a name, and from no other."""

_NOTHING: Mapping[str, Index] = MappingProxyType({})
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


def hashes_of(pins: Mapping[str, str], named: Named = _NOTHING) -> dict[str, tuple[str, ...]]:
    """sha256 hashes for every pin; only those never seen before are asked for."""
    known = {name: kept for name, version in pins.items() if (kept := _kept(name, version, named))}
    unknown = {name: version for name, version in pins.items() if name not in known}
    if unknown:
        lines = [f"{name}=={version}" for name, version in sorted(unknown.items())]
        cpu = any(version.endswith("+cpu") for version in unknown.values())
        found = _asked(lines, _Question(("--no-deps",), {}, named), cpu=cpu)
        bare = [name for name in sorted(unknown) if name not in found or not found[name].hashes]
        if bare:
            raise LockError(_no_hashes(name, unknown[name]) for name in bare)
        for name, resolved in found.items():
            _keep(name, resolved, named)
            known[name] = resolved.hashes
    return {name: known[name] for name in sorted(pins)}


def resolve(
    requirements: Iterable[str], preferences: Mapping[str, str], named: Named = _NOTHING, links: Sequence[Path] = ()
) -> dict[str, Resolved]:
    """A set that satisfies the requirements, with the preferred versions wherever they fit, and every hash.

    `links` are folders of wheels to choose from besides the indexes.
    """
    lines = sorted(set(requirements))
    flags = tuple(part for link in links for part in ("--find-links", str(link)))
    found = _asked(lines, _Question(flags, preferences, named), cpu=any("+cpu" in line for line in lines))
    for name, resolved in found.items():
        if resolved.hashes:
            _keep(name, resolved, named)
    return found


@dataclass(frozen=True, slots=True)
class _Question:
    """What uv is told besides the requirements."""

    flags: tuple[str, ...]
    preferences: Mapping[str, str]
    named: Named


def _asked(lines: list[str], question: _Question, *, cpu: bool) -> dict[str, Resolved]:
    """Ask uv; on failure take the hopeless requirements out and ask again, so that all of them are reported at once."""
    findings: list[Finding] = []
    wanted = lines
    extra: list[str] = []
    while True:
        done = _uv(wanted, question, extra)
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
            failure = _failure(done)
            # uv's own cache may know enough while the index does not answer.
            again = _uv(wanted, question, ["--offline"]) if failure.code == "index-unreachable" else done
            if isinstance(again, dict) and not findings:
                return again
            raise LockError([*findings, failure])
        findings += [finding for _, finding in hopeless]
        gone = {line for line, _ in hopeless}
        wanted = [line for line in wanted if line not in gone]
        if not wanted:
            raise LockError(findings)


def _uv(lines: list[str], question: _Question, extra: list[str]) -> dict[str, Resolved] | str:
    """One `uv pip compile`; the pins, or uv's words on why not."""
    uv = find_uv()
    if uv is None:
        raise EnvironmentError_(
            "uv was not found", why="it resolves and hashes the packages of a step", fix="run `pip install uv`"
        )
    settings = pip_settings()
    environment = uv_environment(settings)
    if extra:  # an index that this machine may not reach at all must fail in seconds
        environment |= {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1"}
    asked, plain = _by_index(lines, question.named)
    urls = {index.name: named_url(index.name, index.url_env) or "" for index, _ in asked.values()}
    environment |= named_credentials(urls)
    with tempfile.TemporaryDirectory(prefix="rml-lock-") as name:
        work = Path(name)
        (work / "requirements.in").write_text("\n".join(plain) + "\n")
        sources = ["requirements.in"]
        if asked:
            (work / "pyproject.toml").write_text(project(asked, urls))
            sources.append("pyproject.toml")
        # An existing output is what uv prefers: a version changes only where it must.
        kept = "".join(f"{name}=={version}\n" for name, version in sorted(question.preferences.items()))
        (work / "lock.txt").write_text(kept)
        command = [
            uv, "pip", "compile", "--quiet", "--color", "never", "--generate-hashes", "--no-header", "--no-annotate",
            "--python", sys.executable, *index_flags(settings), *question.flags, *extra, *sources, "-o", "lock.txt",
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


def _by_index(lines: list[str], named: Named) -> tuple[dict[str, tuple[Index, str]], list[str]]:
    """The requirements that have an index of their own, by distribution, and the others."""
    asked: dict[str, tuple[Index, str]] = {}
    plain: list[str] = []
    for line in lines:
        match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        name = normal(match[0]) if match else ""
        if name in named:
            asked[name] = (named[name], line)
        else:
            plain.append(line)
    return asked, plain


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


def _file(name: str, version: str, named: Named) -> Path:
    """The same version may be another file on an index of one's own."""
    own = f"{named[name].name}::" if name in named else ""
    return folder("hashes") / platform_tag() / f"{own}{name}=={version}.json"


def _kept(name: str, version: str, named: Named) -> tuple[str, ...]:
    kept = read_json(_file(name, version, named))
    return tuple(kept) if isinstance(kept, list) else ()


def _keep(name: str, resolved: Resolved, named: Named) -> None:
    if resolved.hashes:
        write_json(_file(name, resolved.version, named), list(resolved.hashes))
