"""Where the kernel and the lock have come apart: what the notebook computes with is not what the step will get.

A package upgraded under a running kernel stays imported in its old version until a restart; a module of the same name may
have been imported from somewhere else. Neither shows in the notebook, and both show in a step's results.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from .._runtime.environments import normal, parse, site_folders
from .._runtime.system_packages import missing
from ._installed import Installed

__all__ = ["changes", "drift"]


def drift(
    imports: Iterable[str], pins: Mapping[str, str], now: Installed, system: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """One sentence for each thing that this kernel has imported otherwise than its packages (and so the lock) say."""
    notes: list[str] = []
    for module in sorted({name.partition(".")[0] for name in imports}):
        loaded = sys.modules.get(module)
        owners = [name for name in now.by_import.get(module, ()) if name in now.distributions]
        if loaded is None or not owners:
            continue
        owner = owners[0]
        origin = getattr(loaded, "__file__", None)
        elsewhere = len(owners) == 1 and isinstance(origin, str) and not _is_in(origin, _site_of(owner, now.key))
        if elsewhere and now.distributions[owner].origin != "local":
            notes.append(
                f"`{module}` is imported from {_short(str(origin))}, not from the package {owner} "
                f"{now.distributions[owner].version} that the step gets"
            )
            continue
        version = getattr(loaded, "__version__", None)
        have = now.distributions[owner].version
        if isinstance(version, str) and _differ(version, have) and _installed_since_start(owner, now.key):
            gets = pins.get(owner, have)
            notes.append(f"this kernel has imported {owner} {version}, the step gets {gets}: restart the kernel")
    notes += [
        f"system package {name} is not on this machine: the step would not start here" for name in _lacking(system)
    ]
    return tuple(notes)


def changes(before: str, after: str) -> tuple[str, ...]:
    """What changed from one lock's text to another's: `numpy 2.3.1 → 2.4.6`, `polars 1.2 is new`, `six 1.17 is gone`."""
    old, new = parse(before).pins, parse(after).pins
    notes = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            notes.append(f"{name} {new[name]} is new")
        elif name not in new:
            notes.append(f"{name} {old[name]} is gone")
        elif old[name] != new[name]:
            notes.append(f"{name} {old[name]} → {new[name]}")
    return tuple(notes)


def _differ(loaded: str, installed: str) -> bool:
    """Whether two spellings cannot be one version: `4.10.0` and `4.10.0.84` may be."""
    left, right = _release(loaded), _release(installed)
    common = min(len(left), len(right))
    return bool(common) and left[:common] != right[:common]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


@lru_cache(maxsize=8)
def _places(_key: str) -> Mapping[str, tuple[str, str]]:
    """Of each distribution: its site folder and its metadata folder, by their names alone. `_key` changes with any of them."""
    found: dict[str, tuple[str, str]] = {}
    for site in site_folders():
        for entry in os.listdir(site):  # noqa: PTH208 - every compile pays for this loop
            if entry.endswith(".dist-info"):
                found.setdefault(normal(entry.partition("-")[0]), (site, f"{site}/{entry}"))
    return found


def _site_of(name: str, key: str) -> str:
    return _places(key).get(name, ("", ""))[0]


def _installed_since_start(name: str, key: str) -> bool:
    try:
        return Path(_places(key)[name][1]).stat().st_mtime >= _started()
    except (KeyError, OSError):
        return False


@lru_cache(maxsize=1)
def _started() -> float:
    """When this process began, in seconds since the epoch."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # no /proc: only what is installed from now on counts
        return time.time()


@lru_cache(maxsize=64)
def _lacking(system: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(missing(system))


def _is_in(file: str, site: str) -> bool:
    if not site or file.startswith(site + os.sep):
        return True
    return os.path.realpath(file).startswith(os.path.realpath(site) + os.sep)


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
