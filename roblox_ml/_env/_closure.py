"""From the names a step imports to the distributions it needs: pure functions over a snapshot of what is installed.

A kernel has hundreds of packages that no step touches; a step's lock holds the owners of what it imports, what those
require (markers evaluated), and nothing else.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .._runtime.environments import normal
from ..errors import Finding
from ._errors import WHERE
from ._installed import Installed
from ._names import COMPANIONS, PIP_NAMES

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Closure", "Roots", "close", "roots_of"]


@dataclass(frozen=True, slots=True)
class Roots:
    """Distributions that own the imported names (and their companions), and what could not be found."""

    names: tuple[str, ...]
    local: tuple[str, ...]  # import names that are source on this machine, shipped in the bundle instead
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything the roots need, with the installed versions."""

    pins: Mapping[str, str]
    local: tuple[str, ...]  # distributions installed from a folder: shipped as source, not locked
    local_requires: tuple[str, ...]  # what those require, as requirement strings
    carried: tuple[str, ...]  # pinned, but from a file, a URL or a repository: no index has them, their wheels travel


def roots_of(imports: Iterable[str], packages: Sequence[str], installed: Installed) -> Roots:
    """Owners of the imported names. `packages` are names the user asked for: they may bring what is not installed."""
    asked = {normal(name) for name in packages}
    # A package that is not installed here may own any import name: it is believed to bring what is missing.
    new = {name for name in asked if name not in installed.distributions}
    names: set[str] = set()
    local: set[str] = set()
    findings: list[Finding] = []
    for full in sorted(imports):
        module = full.partition(".")[0]
        if module in sys.stdlib_module_names or module == "roblox_ml" or module.startswith("roblox_ml_"):
            continue
        companions = {name for name in COMPANIONS.get(module, ()) if name in installed.distributions}
        if module in installed.by_import:
            names |= set(installed.by_import[module]) | companions
        elif new:
            names |= companions
        elif _importable(module):
            local.add(module)
        else:
            findings.append(_missing(module, installed))
    return Roots(tuple(sorted(names)), tuple(sorted(local)), tuple(findings))


def close(roots: Iterable[str], installed: Installed) -> Closure:
    """The roots and, through `Requires-Dist` with markers evaluated here, all they need that is installed.

    What a marker asks for and is not installed is left out: the step gets what the notebook ran with.
    """
    pins: dict[str, str] = {}
    local: set[str] = set()
    local_requires: set[str] = set()
    carried: set[str] = set()
    seen: dict[str, frozenset[str]] = {}
    pending = [(name, frozenset[str]()) for name in sorted(roots)]
    while pending:
        name, extras = pending.pop()
        known = seen.get(name)
        if known is not None and extras <= known:
            continue
        distribution = installed.distributions.get(name)
        if distribution is None:
            continue
        extras |= known or frozenset()
        seen[name] = extras
        if distribution.origin == "local":
            local.add(name)
        else:
            pins[name] = distribution.version
        if distribution.origin in ("url", "vcs"):
            carried.add(name)
        for text in distribution.requires:
            requirement = _parsed(text)
            if requirement is None or not _applies(requirement, extras):
                continue
            if name in local:
                local_requires.add(_bare(requirement))
            pending.append((normal(requirement.name), frozenset(requirement.extras)))
    return Closure(
        dict(sorted(pins.items())), tuple(sorted(local)), tuple(sorted(local_requires)), tuple(sorted(carried))
    )


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:  # old metadata may hold what no tool accepts any more
        return None


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in sorted({"", *extras}))


def _bare(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _missing(module: str, installed: Installed) -> Finding:
    near = difflib.get_close_matches(module, sorted(installed.by_import), n=1, cutoff=0.8)
    name = PIP_NAMES.get(module, module.replace("_", "-"))
    hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
    return Finding(
        code="missing-import",
        message=f"the step imports {module!r}, which is not installed here",
        where=WHERE,
        why="a step gets the packages that this Python has; a name that nothing here provides would fail in the step",
        fix=f"{hint}run `pip install {name}`, or ask for it in the step alone: @rml.step(packages=[{name!r}])",
    )
