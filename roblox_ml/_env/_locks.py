"""`lock_for`: the hashed, canonical lock of one step, from what it imports.

Three caches keep this out of the way of a fast compile: the request (what was asked of which installation), the resolution
of an override, and the hashes of each distribution. The text is a function of the pinned set and its hashes alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from .._runtime.environments import SCHEMA, normal, platform_tag, python_minor
from ..errors import Finding
from ._cache import folder, read_json, read_text, write_json, write_text
from ._closure import Closure, close, roots_of
from ._errors import WHERE, LockError
from ._index import hashes_of, resolve
from ._installed import Installed, installed
from ._names import COMPANIONS

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Lock", "lock_for", "render"]


@dataclass(frozen=True, slots=True)
class Lock:
    """One environment: exact versions with hashes, for one Python minor and platform.

    `text` is hashed requirements, readable by pip and uv; `digest` its sha256. `in_place`: this interpreter has every pin
    installed. `notes` say what a step's `packages` changed against this interpreter; `local` names what is source on this
    machine (editable installs, checkouts) and travels in the bundle instead.
    """

    digest: str
    text: str
    pins: Mapping[str, str]
    python: str
    platform: str
    in_place: bool
    notes: tuple[str, ...] = ()
    local: tuple[str, ...] = ()


def lock_for(imports: frozenset[str], packages: Sequence[str] = ()) -> Lock:
    """The lock of a step that imports these top-level names.

    `packages` are requirement strings (`"scikit-learn==1.8.0"`) that override or add to what is installed; the rest keeps
    its installed version wherever that fits. Raises `LockError` with every finding. Asks a package index only for what
    `$RML_HOME/locks` has not seen.
    """
    now = installed()
    request = _key(now.key, sorted(imports), list(packages), {name: list(rest) for name, rest in COMPANIONS.items()})
    return _answer(request, str(folder()), imports, tuple(packages))


@lru_cache(maxsize=1024)
def _answer(request: str, _: str, imports: frozenset[str], packages: tuple[str, ...]) -> Lock:
    file = folder("requests") / f"{request}.json"
    lock = _kept(read_json(file))
    if lock is None:
        lock = _make(imports, packages, installed())
        write_text(folder() / f"{lock.digest}.txt", lock.text)
        row = {"digest": lock.digest, "pins": dict(lock.pins), "notes": list(lock.notes), "local": list(lock.local)}
        write_json(file, row)
    have = installed().distributions
    fits = all(name in have and have[name].version == version for name, version in lock.pins.items())
    return replace(lock, in_place=fits)


def _make(imports: frozenset[str], packages: tuple[str, ...], now: Installed) -> Lock:
    asked, findings = _parsed(packages)
    roots = roots_of(imports, [requirement.name for requirement in asked], now)
    changing = [requirement for requirement in asked if not _met(requirement, now)]
    names = {*roots.names, *(normal(requirement.name) for requirement in asked)}
    closure = close(names, now)
    overridden = {normal(requirement.name) for requirement in changing}
    findings += [*roots.findings, *(finding for name, finding in closure.direct.items() if name not in overridden)]
    if findings:
        raise LockError(findings)
    if changing:
        pins, notes = _override(names, asked, closure, now)
    else:
        pins, notes = dict(closure.pins), ()
    local = tuple(sorted({*roots.local, *(name for name in closure.local if name not in overridden)}))
    text = render(hashes_of(pins), pins)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Lock(digest, text, pins, python_minor(), platform_tag(), False, notes, local)


def render(hashes: Mapping[str, Sequence[str]], pins: Mapping[str, str]) -> str:
    """The canonical text: header, then one sorted block of sorted hashes per distribution. No index, no path."""
    lines = [
        f"# roblox-ml environment lock, schema {SCHEMA}",
        f"# python {python_minor()}",
        f"# platform {platform_tag()}",
    ]
    blocks = (
        [f"{name}=={version}", *(f"--hash={value}" for value in sorted(hashes[name]))]
        for name, version in sorted(pins.items())
    )
    return "\n".join([*lines, *(" \\\n    ".join(block) for block in blocks)]) + "\n"


def _override(
    names: set[str], asked: Sequence[Requirement], closure: Closure, now: Installed
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Resolve with the asked-for requirements; everything else prefers its installed version. Also: what changed."""
    requested = {normal(requirement.name) for requirement in asked}
    lines = [_with_local_label(requirement, now) for requirement in asked]
    lines += [f"{name}" for name in names - requested if name in closure.pins]
    # A build label ("+cpu") is a choice that a resolver would undo: PyPI's torch for Linux is the CUDA build.
    lines += [f"{name}=={pin}" for name, pin in closure.pins.items() if "+" in pin and name not in requested]
    lines += closure.local_requires
    have = {name: found.version for name, found in now.distributions.items() if found.origin == "index"}
    file = folder("resolved") / f"{_key(sorted(set(lines)), dict(closure.pins), python_minor(), platform_tag())}.json"
    pins = _still_true(read_json(file), have)
    if pins is None:
        pins = {name: found.version for name, found in resolve(lines, have).items()}
        write_json(file, {name: [version, have.get(name)] for name, version in pins.items()})
    notes = []
    for name, version in sorted(pins.items()):
        if name not in now.distributions:
            notes.append(
                f"{name} {version} is added ({'asked for' if name in requested else 'needed by what was asked for'})"
            )
        elif now.distributions[name].version != version:
            reason = "asked for" if name in requested else "so that the set fits"
            notes.append(f"{name} {now.distributions[name].version} → {version} ({reason})")
    return dict(sorted(pins.items())), tuple(notes)


def _still_true(kept: object, have: Mapping[str, str]) -> dict[str, str] | None:
    """The pins of a kept resolution, unless one of its packages has changed in this interpreter since."""
    if not isinstance(kept, dict) or any(have.get(name) != seen for name, (_, seen) in kept.items()):
        return None
    return {name: version for name, (version, _) in kept.items()}


def _with_local_label(requirement: Requirement, now: Installed) -> str:
    """`torch==2.12.0` where this interpreter has a CPU build means the CPU build of 2.12.0."""
    have = now.distributions.get(normal(requirement.name))
    _, plus, label = have.version.partition("+") if have else ("", "", "")
    exact = [part for part in requirement.specifier if part.operator == "==" and "*" not in part.version]
    if plus and len(exact) == 1 and len(requirement.specifier) == 1 and "+" not in exact[0].version:
        return f"{requirement.name}=={exact[0].version}+{label}"
    return str(requirement)


def _met(requirement: Requirement, now: Installed) -> bool:
    """Whether what is installed already is what was asked for, so that nothing needs resolving."""
    have = now.distributions.get(normal(requirement.name))
    if have is None or have.origin != "index" or requirement.extras:
        return False
    return requirement.specifier.contains(have.version, prereleases=True)


def _parsed(packages: Sequence[str]) -> tuple[list[Requirement], list[Finding]]:
    from packaging.requirements import InvalidRequirement, Requirement

    asked: list[Requirement] = []
    findings: list[Finding] = []
    for text in packages:
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, TypeError) as error:
            findings.append(
                _bad(text, str(error).splitlines()[0], 'write it as pip does: "scikit-learn==1.8.0", "pandas>=2,<3"')
            )
            continue
        if requirement.url:
            findings.append(
                _bad(
                    text, "a URL is no version that other machines can verify", f"name a version: {requirement.name}==…"
                )
            )
        elif normal(requirement.name).startswith("roblox-ml"):
            findings.append(_bad(text, "roblox_ml travels with the step already", "remove it from packages"))
        elif requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            asked.append(requirement)
    return asked, findings


def _bad(text: object, why: str, fix: str) -> Finding:
    return Finding("bad-requirement", f"packages: {text!r} cannot be used", WHERE, why, fix)


def _kept(row: object) -> Lock | None:
    """A lock from the request cache, if its text is still there and still has its digest."""
    if not isinstance(row, dict):
        return None
    text = read_text(folder() / f"{row['digest']}.txt")
    if text is None or hashlib.sha256(text.encode()).hexdigest() != row["digest"]:
        return None
    return Lock(
        row["digest"],
        text,
        row["pins"],
        python_minor(),
        platform_tag(),
        False,
        tuple(row["notes"]),
        tuple(row["local"]),
    )


def _key(*parts: object) -> str:
    text = json.dumps([SCHEMA, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
