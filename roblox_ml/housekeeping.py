"""`rml.gc`: show, or delete, runs, environments, unpacked copies and blobs that nothing refers to any more.

What refers to what is read from the records themselves: a run's files name the blobs it used, a data set's manifest its
files. The registry is asked which blobs no version of it needs; while it exists and does not answer, none is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import datasets
from ._gc import Node, Plan, mentions, plan, seconds_of
from ._gc_report import Report
from ._store import home, open_store
from .errors import RmlSdkError

__all__ = ["Report", "gc"]

_TEXT = (".json", ".jsonl", ".yaml", ".yml")
_TEXT_LIMIT = 32 << 20
_LOCK_START = b"# roblox-ml environment lock"
_DAY = 86400.0


def gc(dry_run: bool = True, keep_runs: int = 20, older_than: str | float = "7d") -> Report:
    """Find what nothing refers to; delete it with `dry_run=False`.

    Kept: the newest `keep_runs` runs, everything used within `older_than`, every data set, every registered version, every
    sweep's definition, and whatever those refer to.
    """
    try:
        span = seconds_of(older_than)
    except ValueError as error:
        raise RmlSdkError(str(error), fix="rml.gc(older_than='7d')") from None
    with _one_at_a_time(dry_run):
        nodes, closed = _collect()
        now = time.time()
        decided = plan(nodes, now=now, older_than=span, keep_runs=keep_runs, untouchable=closed)
        if not dry_run:
            gone = tuple(node for node in decided.delete if _delete(node, now - span))
            decided = Plan(gone, decided.keep, decided.why)
            _sweep_leftovers(now - _DAY)
    return Report(decided, dry_run)


@contextlib.contextmanager
def _one_at_a_time(dry_run: bool) -> Iterator[None]:
    if dry_run:
        yield
        return
    home().mkdir(parents=True, exist_ok=True)
    with (home() / ".gc.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _collect() -> tuple[list[Node], dict[str, str]]:
    """Every node with its references, and the kinds that must be left alone."""
    root = home()
    store = open_store()
    closed: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    places = {
        "run": _folders(root / "runs"),
        "result": sorted((root / "cache" / "tasks").glob("*/*.json")),
        "environment": [path for path in _folders(root / "envs") if len(path.name) == 64],
        "copy": [path for path in (root / "cache").glob("*/*") if len(path.stem) == 64],
    }
    blobs: list[tuple[str, int]] = []
    if store.folder is None or store.folder.resolve() != (root / "store").resolve():
        closed["blob"] = "RML_STORE may serve others too"
    else:
        blobs = list(store.digests())
    for kind, paths in places.items():
        for path in paths:
            names.setdefault(path.name if kind == "run" else path.stem, set()).add(f"{kind}:{path}")
    for digest, _ in blobs:
        names.setdefault(digest, set()).add(f"blob:{digest}")
    index = {name: frozenset(keys) for name, keys in names.items()}

    # A cached result lives as long as the run whose files it points at: the run refers to it, not the other way.
    results: dict[str, set[str]] = {}
    for path in places["result"]:
        for key in mentions(_text_of(path), index):
            results.setdefault(key, set()).add(f"result:{path}")

    nodes = []
    for kind, paths in places.items():
        for path in paths:
            key = f"{kind}:{path}"
            refers = mentions(_text_of(path), index) | results.get(key, set()) if kind == "run" else frozenset[str]()
            used = max((_stat(file).st_mtime for file in _files(path)), default=0.0)
            if kind == "environment":
                used = _stat(path / ".complete").st_mtime if (path / ".complete").exists() else 0.0
            nodes.append(Node(key, kind, _size(path), used, refers, kind == "run" and _is_held(path / "lock")))
    registry = _registry()
    for digest, size in blobs:
        path = store.path_of(digest)
        refers = mentions(_json_text(path, size), index)
        needed = registry.garbage is not None and digest not in registry.garbage
        nodes.append(Node(f"blob:{digest}", "blob", size, _stat(path).st_mtime, refers, needed))
    records = [blob for ref in _every_dataset() for blob in ref.blobs]
    records += [_text_of(root / folder) for folder in ("compiled", "submitted", "schedules")]
    # What a sweep needs to be resumed; the runs of its trials go when they are old, as all runs do.
    records += [_text_of(sweep / name) for sweep in _folders(root / "sweeps") for name in ("sweep.json", "ir.yaml")]
    known = "\n".join(records)
    nodes.append(Node("root:records", "root", refers=mentions(f"{known}\n{registry.text}", index), pinned=True))
    if registry.silent:
        closed |= {"blob": registry.silent, "run": registry.silent}
    return nodes, closed


def _every_dataset() -> Iterator[datasets.DatasetRef]:
    for newest in datasets.list():
        yield from datasets.versions(newest.name)


@dataclass(frozen=True, slots=True)
class _Registry:
    """What the registry says: every version as text, the blobs no version needs (None: it has no say), or why it is silent."""

    text: str = ""
    garbage: frozenset[str] | None = None
    silent: str = ""


def _registry() -> _Registry:
    from ._addresses import control_url
    from ._runtime.control import ControlPlane

    try:
        plane = ControlPlane(control_url())
        texts = []
        for model in plane.call("GET", "/v1/models")["models"]:
            base = f"/v1/models/{model['name']}/versions"
            numbers = [version["version"] for version in plane.call("GET", base)["versions"]]
            texts += [json.dumps(plane.call("GET", f"{base}/{number}")) for number in numbers]
        # Only asked, never told to delete: it may serve other homes than this one.
        said = plane.call("POST", "/v1/gc", {"dry_run": True, "scope": "all", "min_age_s": 0})
        return _Registry("\n".join(texts), frozenset(blob["sha256"] for blob in said["blobs"]))
    except (RmlSdkError, OSError, KeyError, TypeError):
        if not os.environ.get("RML_CONTROL_URL") and not (home() / "control.db").exists():
            return _Registry()  # there never was one
        return _Registry(silent="the registry does not answer (rml up) and may refer to any of them")


def _delete(node: Node, before: float) -> bool:
    """Delete one node unless it was used meanwhile; whether it went."""
    kind, _, place = node.key.partition(":")
    if kind == "blob":
        return _delete_blob(place, before)
    path = Path(place)
    if kind == "environment":
        return _delete_environment(path, before)
    # Out of sight first: nobody finds half a run.
    hidden = path.with_name(f".gc-{path.name}")
    try:
        path.rename(hidden)
    except FileNotFoundError:
        return False
    if hidden.is_dir():
        shutil.rmtree(hidden, ignore_errors=True)
    else:
        hidden.unlink(missing_ok=True)
    return True


def _delete_blob(digest: str, before: float) -> bool:
    path = open_store().path_of(digest)
    hidden = path.with_name(f".gc-{digest}")
    try:
        path.rename(hidden)
    except FileNotFoundError:
        return False
    # Whoever stores a blob that exists touches it, and writes it anew when it has just gone.
    if hidden.stat().st_mtime > before:
        hidden.replace(path)
        return False
    hidden.unlink()
    return True


def _delete_environment(folder: Path, before: float) -> bool:
    lock = folder.with_name(f".{folder.name}.lock")
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # being built
        marker = folder / ".complete"
        if marker.exists() and marker.stat().st_mtime > before:
            return False
        marker.unlink(missing_ok=True)  # from here on it is incomplete, and rebuilt by whoever needs it
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _is_held(lock: Path) -> bool:
    """Whether an executor holds this file, that is: the run goes on."""
    try:
        with lock.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _sweep_leftovers(before: float) -> None:
    """What killed processes left: hidden things half deleted, and copies never finished."""
    root = home()
    for pattern in ("runs/.*", "cache/*/.*", "cache/tasks/*/.*", "store/sha256/*/.*", "store/sha256/.*"):
        for path in root.glob(pattern):
            if path.name.startswith(".gc-") or (path.name.startswith(".incoming-") and _stat(path).st_mtime < before):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _folders(parent: Path) -> list[Path]:
    return (
        sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
        if parent.is_dir()
        else []
    )


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for directory, _, names in os.walk(path):
        yield Path(directory)
        yield from (Path(directory) / name for name in names)


def _text_of(folder: Path) -> str:
    """The text of every small record in a folder: what it refers to stands in there."""
    parts = []
    for path in _files(folder):
        if path.suffix in _TEXT and path.is_file() and _stat(path).st_size <= _TEXT_LIMIT:
            with contextlib.suppress(OSError):
                parts.append(path.read_text("utf-8", errors="replace"))
    return "\n".join(parts)


def _json_text(path: Path, size: int) -> str:
    """The blob's text if it is a JSON document or a lock (a manifest names other blobs, a lock its wheels); else ""."""
    if size > _TEXT_LIMIT:
        return ""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        start = stream.read(len(_LOCK_START))
        if start[:1] in (b"{", b"[") or start == _LOCK_START:
            return path.read_text("utf-8", errors="replace")
    return ""


def _size(path: Path) -> int:
    return sum(_stat(file).st_size for file in _files(path) if not file.is_dir())


def _stat(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError:  # gone between listing and looking
        return os.stat_result((0,) * 10)
