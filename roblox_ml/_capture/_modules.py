"""Local modules: what a step imports that no package index has, found without importing anything.

Local is a module whose file lies outside the standard library and site-packages: beside the notebook, on an added
`sys.path` entry, in an editable install, or installed from a local folder. A package is shipped whole, because its modules may
find one another by name at run time; but only modules that are reached through imports add to the step's environment.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from roblox_ml._capture._imports import ImportRef, imports_of_text
from roblox_ml.errors import Finding

PACKAGE_LIMIT = 32 * 1024 * 1024
"""Most bytes of one local package."""

_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist"})
_COMPILED = (".so", ".pyd", ".dylib")


@dataclass(slots=True)
class LocalModules:
    """Files by bundle path, outside imports by top-level name, and what stands in the way."""

    files: dict[str, bytes] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a top-level module lives: a file, a package folder, or the folders of a namespace package."""

    file: Path | None = None
    folders: tuple[Path, ...] = ()
    namespace: bool = False


def collect(refs: Iterable[ImportRef], own: Path | None = None) -> LocalModules:
    """Follow `refs` through local modules. `own` is the file being sliced: it travels only if something imports it."""
    found = LocalModules()
    waiting = list(refs)
    reached: set[str] = set()
    shipped: dict[str, Path] = {}
    while waiting:
        ref = waiting.pop()
        if ref.top in sys.stdlib_module_names or ref.top.startswith("roblox_ml") or ref.top in ("__main__", ""):
            continue
        place = _locate(ref.top)
        if place is None:
            if not (ref.optional and _absent(ref.top)):
                found.imports.add(ref.top)
            continue
        for name, path, package in _chain(ref, place):
            if name in reached:
                continue
            reached.add(name)
            if path.suffix in _COMPILED:
                found.findings.append(_compiled(name, path))
                continue
            text = read(path)
            waiting.extend(imports_of_text(text, package))
            _ship(name, path, place, shipped)
    for name, path in sorted(shipped.items()):
        found.names.add(name)
        _add_files(name, path, found, own, reached)
    return found


def _locate(top: str) -> _Place | None:
    """Where a local top-level module is; None for an installed or a missing one."""
    module = sys.modules.get(top)
    spec = getattr(module, "__spec__", None)
    if module is None or spec is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError, AttributeError):
            spec = None
    if spec is None:
        return None
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    if spec.origin and spec.origin not in ("built-in", "frozen", "namespace") and spec.has_location:
        file = Path(spec.origin)
        if not _is_local(file, top):
            return None
        return _Place(file, folders) if folders else _Place(file)
    local = tuple(folder for folder in folders if _is_local(folder, top))
    return _Place(None, local, namespace=True) if local else None


def _absent(top: str) -> bool:
    if top in sys.modules:
        return False
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError, AttributeError):
        return True


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(sorted({os.path.realpath(sysconfig.get_path(key)) + os.sep for key in keys}))


def _is_local(path: Path, top: str) -> bool:
    real, site = _real(path)
    if site is not None:
        return top in _installed_from_folder(site)
    return not real.startswith(_library_folders())


@lru_cache(maxsize=4096)
def _real(path: Path) -> tuple[str, Path | None]:
    """A file's real path, and the site-packages folder it is in."""
    real = os.path.realpath(path)
    parts = Path(real).parts
    inside = [i for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    return real, Path(*parts[: inside[-1] + 1]) if inside else None


def _installed_from_folder(site: Path) -> frozenset[str]:
    """Top-level names installed (not editable) from a local folder into the site-packages `site`: PEP 610."""
    try:
        return _folder_installs(site, site.stat().st_mtime_ns)
    except OSError:
        return frozenset()


@lru_cache(maxsize=8)
def _folder_installs(site: Path, _stamp: int) -> frozenset[str]:
    found: set[str] = set()
    for record in sorted(site.glob("*.dist-info/direct_url.json")):
        try:
            data = json.loads(record.read_text())
            if "dir_info" not in data or not str(data.get("url", "")).startswith("file:"):
                continue
            listed = (record.parent / "RECORD").read_text().splitlines()
        except (OSError, ValueError):
            continue
        tops = {line.split(",")[0].split("/")[0] for line in listed}
        found |= {
            top.removesuffix(".py")
            for top in tops
            if not top.endswith((".dist-info", ".pth", "..")) and top != "__pycache__"
        }
    return frozenset(found)


def _chain(ref: ImportRef, place: _Place) -> Iterator[tuple[str, Path, str]]:
    """Module files an import reaches: (dotted name, file, its package). A taken name may be a submodule."""
    if place.file is not None and not place.folders:
        yield ref.top, place.file, ""
        return
    if place.file is not None:
        yield ref.top, place.file, ref.top
    folders = place.folders
    parts = ref.module.split(".")
    name = parts[0]
    for part in parts[1:]:
        name = f"{name}.{part}"
        step = _submodule(folders, part)
        if step is None:
            return
        path, folders = step
        if path is not None:
            yield name, path, name if folders else name.rpartition(".")[0]
    for taken in ref.names if folders else ():
        step = _submodule(folders, taken) if taken != "*" else None
        if step is not None and step[0] is not None:
            inner = f"{name}.{taken}"
            yield inner, step[0], inner if step[1] else name


def _submodule(folders: tuple[Path, ...], part: str) -> tuple[Path | None, tuple[Path, ...]] | None:
    """The file and the search folders of submodule `part`, or None."""
    for folder in folders:
        package = folder / part / "__init__.py"
        if package.is_file():
            return package, (folder / part,)
        plain = folder / f"{part}.py"
        if plain.is_file():
            return plain, ()
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            if (folder / f"{part}{suffix}").is_file():
                return folder / f"{part}{suffix}", ()
    spaces = tuple(folder / part for folder in folders if (folder / part).is_dir())
    return (None, spaces) if spaces else None


def _ship(name: str, path: Path, place: _Place, shipped: dict[str, Path]) -> None:
    """Note what to ship for a reached module: its top-level package whole, or, in a namespace, its first real package."""
    top = name.partition(".")[0]
    if place.file is not None:
        shipped[top] = place.folders[0] if place.folders else place.file
        return
    parts = name.split(".")
    for depth in range(2, len(parts) + 1):
        for folder in place.folders:
            inner = folder.joinpath(*parts[1:depth])
            if (inner / "__init__.py").is_file():
                shipped[".".join(parts[:depth])] = inner
                return
    shipped[name] = path


def _add_files(name: str, path: Path, found: LocalModules, own: Path | None, reached: set[str]) -> None:
    base = name.replace(".", "/")
    if path.is_file():
        found.files[base + path.suffix] = path.read_bytes()
        return
    total = 0
    for file in _walk(path):
        inner = file.relative_to(path).as_posix()
        dotted = f"{name}.{inner.removesuffix('.py').replace('/', '.')}"
        if own is not None and file == own and dotted not in reached:
            continue
        if file.suffix in _COMPILED:
            found.findings.append(_compiled(dotted, file))
            continue
        total += file.stat().st_size
        if total > PACKAGE_LIMIT:
            found.findings.append(_too_large(name, path))
            return
        found.files[f"{base}/{inner}"] = file.read_bytes()


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f not in _SKIPPED and not f.endswith(".egg-info")
        )
        for file in sorted(files):
            if not file.startswith(".") and not file.endswith((".pyc", ".pyo", "~")):
                path = Path(root) / file
                if path.is_file():
                    yield path


def is_local_module(module: ModuleType) -> bool:
    """Whether a loaded module's source would travel with a step."""
    file = getattr(module, "__file__", None)
    name = module.__name__
    return bool(file and file.endswith(".py") and name != "__main__" and _is_local(Path(file), name.partition(".")[0]))


def read(path: Path) -> str:
    """A module's source, "" when there is none."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _compiled(name: str, path: Path) -> Finding:
    return Finding(
        "compiled-module", f"local module `{name}` is compiled ({path.name})", str(path),
        "Only source is shipped: a compiled file fits one Python and one kind of machine.",
        "build a wheel of it, publish it to your package index, and install that", None,
    )  # fmt: skip


def _too_large(name: str, path: Path) -> Finding:
    return Finding(
        "local-package-too-large", f"local package `{name}` holds more than {PACKAGE_LIMIT // 2**20} MiB", str(path),
        "The whole package travels with every step that imports it.",
        "move data and weights out of the package: `rml.datasets.add(\"name\", \"folder\")`", None,
    )  # fmt: skip
