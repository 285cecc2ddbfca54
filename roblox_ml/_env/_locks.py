"""`lock_for`: the hashed, canonical lock of one step, from what it imports.

Three caches keep this out of the way of a fast compile: the request (what was asked of which installation), the resolution
of an override, and the hashes of each distribution. The text is a function of the pinned set and its hashes alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from .._runtime.environments import SCHEMA, normal, platform_tag, python_minor, site_folders
from .._runtime.wheels import is_installed
from ._asked import Asked, in_folders, read_packages, state_of
from ._cache import folder, read_json, read_text, write_json, write_text
from ._carried import Wheel, bytes_of, from_installed, link_folder
from ._closure import Closure, close, roots_of
from ._drift import drift
from ._errors import LockError
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
    installed. `notes` say what a step's `packages` changed against this interpreter, and what has drifted in it; `local`
    names what is source on this machine (editable installs, checkouts) and travels in the bundle instead; `wheels` are those
    that no index has.
    """

    digest: str
    text: str
    pins: Mapping[str, str]
    python: str
    platform: str
    in_place: bool
    notes: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    wheels: tuple[Wheel, ...] = ()

    def blobs(self) -> dict[str, bytes]:
        """What the store needs besides the text, by digest."""
        return {wheel.digest: bytes_of(wheel) for wheel in self.wheels}


def lock_for(imports: frozenset[str], packages: Sequence[str] = (), system: Sequence[str] = ()) -> Lock:
    """The lock of a step that imports these top-level names.

    `packages` override or add to what is installed: requirements (`"scikit-learn==1.8.0"`), wheels and folders of wheels
    (`"./dist/mine-1.0-py3-none-any.whl"`, `"./dist"`), pinned repositories (`"mine @ git+https://…@<commit>"`), packages of a
    named index (`"team::secretlib"`). The rest keeps its installed version wherever that fits. `system` are packages of the
    image. Raises `LockError` with every finding. Asks a package index only for what `$RML_HOME/locks` has not seen.
    """
    now = installed()
    companions = {name: list(rest) for name, rest in COMPANIONS.items()}
    request = _key(now.key, sorted(imports), list(packages), sorted(system), companions, state_of(packages))
    lock = _answer(request, str(folder()), imports, tuple(packages), tuple(sorted(set(system))))
    drifted = drift(imports, lock.pins, now, tuple(system))
    return replace(lock, notes=lock.notes + drifted) if drifted else lock


@lru_cache(maxsize=1024)
def _answer(request: str, _: str, imports: frozenset[str], packages: tuple[str, ...], system: tuple[str, ...]) -> Lock:
    file = folder("requests") / f"{request}.json"
    lock = _kept(read_json(file))
    if lock is None:
        lock = _make(imports, packages, system, installed())
        write_text(folder() / f"{lock.digest}.txt", lock.text)
        row = {"digest": lock.digest, "pins": dict(lock.pins), "notes": list(lock.notes), "local": list(lock.local)}
        write_json(file, row | {"wheels": [asdict(wheel) for wheel in lock.wheels]})
    have = installed().distributions
    fits = all(name in have and have[name].version == version for name, version in lock.pins.items())
    fits = fits and all(is_installed(wheel.name, wheel.content, site_folders()) for wheel in lock.wheels)
    return replace(lock, in_place=fits)


def _make(imports: frozenset[str], packages: tuple[str, ...], system: tuple[str, ...], now: Installed) -> Lock:
    asked = read_packages(packages)
    findings = list(asked.findings)
    requested = {normal(requirement.name) for requirement in asked.requirements}
    roots = roots_of(imports, [requirement.name for requirement in asked.requirements], now)
    changing = {normal(r.name) for r in asked.requirements if not _met(r, now, asked)}
    names = {*roots.names, *requested}
    closure = close(names, now)
    findings += roots.findings
    wheels = dict(asked.wheels)
    edited: list[str] = []
    for name in closure.carried:
        if name not in changing and name not in wheels:
            try:
                wheels[name], by_hand = from_installed(name)
                edited += [
                    f"{name}: {file} differs from what was installed; the step gets it as it is here"
                    for file in by_hand
                ]
            except LockError as error:
                findings += error.findings
    if findings:
        raise LockError(findings)
    pins, notes = dict(closure.pins), tuple(edited)
    if changing:
        pins, changed = _override(names, asked, wheels, closure, now)
        notes = (*changed, *edited)
    wheels |= in_folders(asked.folders, {name: v for name, v in pins.items() if name not in wheels})
    own = {name: wheel for name, wheel in sorted(wheels.items()) if pins.get(name) == wheel.version}
    hashes = hashes_of({name: version for name, version in pins.items() if name not in own}, asked.named)
    hashes |= {name: (f"sha256:{wheel.digest}",) for name, wheel in own.items()}
    local = tuple(sorted({*roots.local, *(name for name in closure.local if name not in changing)}))
    indexes = sorted({index for name, index in asked.named.items() if name in pins}, key=lambda index: index.name)
    about = [f"# index {index.name} {index.url_env}" for index in indexes]
    about += [f"# system {name}" for name in system]
    about += [f"# wheel {wheel.filename} {wheel.digest} {wheel.content}" for wheel in own.values()]
    text = render(hashes, pins, about)
    digest = hashlib.sha256(text.encode()).hexdigest()
    carried = tuple(own.values())
    return Lock(digest, text, pins, python_minor(), platform_tag(), False, notes, local, carried)


def render(hashes: Mapping[str, Sequence[str]], pins: Mapping[str, str], about: Sequence[str] = ()) -> str:
    """The canonical text: header, then one sorted block of sorted hashes per distribution. No index's address, no path."""
    lines = [
        f"# roblox-ml environment lock, schema {SCHEMA}",
        f"# python {python_minor()}",
        f"# platform {platform_tag()}",
        *about,
    ]
    blocks = (
        [f"{name}=={version}", *(f"--hash={value}" for value in sorted(hashes[name]))]
        for name, version in sorted(pins.items())
    )
    return "\n".join([*lines, *(" \\\n    ".join(block) for block in blocks)]) + "\n"


def _override(
    names: set[str], asked: Asked, wheels: Mapping[str, Wheel], closure: Closure, now: Installed
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Resolve with the asked-for requirements; everything else prefers its installed version. Also: what changed."""
    requested = {normal(requirement.name) for requirement in asked.requirements}
    lines = [_with_local_label(requirement, now) for requirement in asked.requirements]
    lines += [f"{name}" for name in names - requested if name in closure.pins and name not in wheels]
    # A build label ("+cpu") is a choice that a resolver would undo: PyPI's torch for Linux is the CUDA build.
    lines += [f"{name}=={pin}" for name, pin in closure.pins.items() if "+" in pin and name not in requested]
    lines += [f"{name}=={wheel.version}" for name, wheel in wheels.items() if name not in requested]
    lines += closure.local_requires
    links = [*(link_folder(wheel) for wheel in wheels.values()), *asked.folders]
    have = {name: found.version for name, found in now.distributions.items() if found.origin != "local"}
    about: list[object] = [sorted(set(lines)), dict(closure.pins), python_minor(), platform_tag()]
    if links or asked.named:
        about += [state_of(map(str, links)), {name: index.name for name, index in asked.named.items()}]
    file = folder("resolved") / f"{_key(*about)}.json"
    pins = _still_true(read_json(file), have)
    if pins is None:
        pins = {name: found.version for name, found in resolve(lines, have, asked.named, links).items()}
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
        elif name in asked.wheels:
            notes.append(f"{name} {version} is another build than the one installed here (asked for)")
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


def _met(requirement: Requirement, now: Installed, asked: Asked) -> bool:
    """Whether what is installed already is what was asked for, so that nothing needs resolving."""
    name = normal(requirement.name)
    if name in asked.wheels:
        return is_installed(name, asked.wheels[name].content, site_folders())
    have = now.distributions.get(name)
    if have is None or have.origin != "index" or requirement.extras:
        return False
    return requirement.specifier.contains(have.version, prereleases=True)


def _kept(row: object) -> Lock | None:
    """A lock from the request cache, if its text is still there and still has its digest."""
    if not isinstance(row, dict):
        return None
    text = read_text(folder() / f"{row['digest']}.txt")
    wheels = tuple(Wheel(**wheel) for wheel in row.get("wheels", ()))
    if any(not (link_folder(wheel) / wheel.filename).is_file() for wheel in wheels):
        return None
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
        wheels,
    )


def _key(*parts: object) -> str:
    text = json.dumps([SCHEMA, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
