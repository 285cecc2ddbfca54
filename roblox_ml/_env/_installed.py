"""What this interpreter has installed: distributions, what they require, and which import names they own.

Reading the metadata of two hundred distributions takes half a second, and it changes only when something is installed:
the answer is kept in `$RML_HOME/locks/installed`, under the time stamps of the site folders.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from .._runtime.environments import normal, platform_tag, python_minor, site_folders
from ._cache import folder, read_json, write_json

__all__ = ["Distribution", "Installed", "installed"]

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution. `origin` is "index", or "local" / "vcs" / "url" by PEP 610's direct_url.json."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    origin: str = "index"


@dataclass(frozen=True, slots=True)
class Installed:
    """A snapshot of the interpreter's packages. `key` changes when anything is installed, upgraded or removed."""

    key: str
    distributions: Mapping[str, Distribution]
    by_import: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, distributions: Iterable[Distribution], key: str = "") -> Installed:
        """The snapshot made of these distributions (the first of a name counts, as on sys.path)."""
        known: dict[str, Distribution] = {}
        for distribution in distributions:
            known.setdefault(distribution.name, distribution)
        owners: dict[str, list[str]] = {}
        for name in sorted(known):
            for module in known[name].imports:
                owners.setdefault(module, []).append(name)
        return cls(key, known, {module: tuple(names) for module, names in owners.items()})


def installed() -> Installed:
    """What is installed now. A few `stat` calls when nothing changed since the last look, in any process."""
    state = [(entry, Path(entry).stat().st_mtime_ns) for entry in site_folders()]
    text = json.dumps([_SCHEMA, python_minor(), platform_tag(), sys.prefix, state])
    return _read(hashlib.sha256(text.encode()).hexdigest())


@lru_cache(maxsize=4)
def _read(key: str) -> Installed:
    file = folder("installed") / f"{key}.json"
    kept = read_json(file)
    if isinstance(kept, list):
        rows = [_from_row(row) for row in kept]
    else:
        rows = sorted(_distributions(), key=lambda distribution: distribution.name)
        write_json(file, [asdict(row) for row in rows])
    return Installed.of(rows, key)


def _from_row(row: Mapping[str, object]) -> Distribution:
    requires, imports = row["requires"], row["imports"]
    assert isinstance(requires, list) and isinstance(imports, list)
    return Distribution(str(row["name"]), str(row["version"]), tuple(requires), tuple(imports), str(row["origin"]))


def _distributions() -> Iterable[Distribution]:
    seen: set[str] = set()
    for found in metadata.distributions(path=site_folders()):
        name = found.metadata["Name"] if found.metadata else None
        if not name or normal(name) in seen:  # a broken metadata folder, or one shadowed by an earlier folder
            continue
        seen.add(normal(name))
        yield Distribution(
            normal(name),
            found.version,
            tuple(found.requires or ()),
            tuple(sorted(_import_names(found))),
            _origin(found),
        )


def _import_names(found: metadata.Distribution) -> set[str]:
    names = set((found.read_text("top_level.txt") or "").split())
    for file in found.files or ():
        top = file.parts[0]
        if len(file.parts) > 1:
            names.add(top)
        elif module := inspect.getmodulename(top):
            names.add(module)
    # Namespaces of editable installs, metadata folders and `../../bin/tool` are no import names.
    return {name for name in names if name.isidentifier() and name != "__pycache__"}


def _origin(found: metadata.Distribution) -> str:
    try:
        direct = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return "index"
    for kind, origin in (("dir_info", "local"), ("vcs_info", "vcs"), ("archive_info", "url")):
        if kind in direct:
            return origin
    return "index"
