"""Registered models: `rml.models.get("comment-sentiment@champion")`, and everything that can be done with a version.

    rml.models.register(model, "comment-sentiment", gate=rml.gate(f1=0.75), origin="notebook of 3 May")
    rml.models.search("tag.team=safety metric.f1>0.7")
    m = rml.models.get("comment-sentiment/3")
    m.metrics, m.lineage, m.load().predict(["gg"]), m.promote()
    rml.models.rollback("comment-sentiment")

A reference is `name/3`, `name@alias` or `name/3@<digest>`; a bare `name` means its champion.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _siblings
from ._artifacts import HTML
from ._client import Connection, connect
from ._model_diff import Diff, code_diff, compare
from .errors import Conflict, PackageError

__all__ = [
    "Diff",
    "ModelVersion",
    "delete_version",
    "diff",
    "get",
    "history",
    "promote",
    "register",
    "rollback",
    "search",
    "versions",
]

_CHAMPION = "champion"


@dataclass(frozen=True, slots=True, repr=False)
class ModelVersion:
    """One registered version, as it was when it was read; `promote` and `tag` return it as it is afterwards."""

    name: str
    version: int
    digest: str
    format: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    lineage: Mapping[str, Any]
    created: str
    created_by: str
    # What the gate said and whether the alias moved; only on what `register` returns.
    gate: Mapping[str, Any] = field(default_factory=dict)
    _signature: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}@{self.digest}"

    @property
    def ref(self) -> str:
        """`name/3`, for wherever a reference is asked for."""
        return f"{self.name}/{self.version}"

    @property
    def signature(self) -> Mapping[str, Any]:
        """Inputs and outputs: name, Open Inference Protocol datatype, shape (-1 first: the batch)."""
        if self._signature is not None:
            return self._signature
        with connect() as plane:
            signature: Mapping[str, Any] = plane.registry.version(self.name, self.version)["signature"]
        return signature

    def download(self, directory: str | Path) -> Path:
        """The package's files in `directory`, which appears complete or not at all; every byte is checked.

        Raises:
            PackageError: stored bytes do not have their digest, or `directory` holds something else.
        """
        target = Path(directory).expanduser().absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        with connect() as plane:
            detail = plane.registry.version(self.name, self.version)
            return plane.download(detail["manifest"], target, self.digest)

    @property
    def report(self) -> HTML | None:
        """The optimiser's report, where `rml.optimize` made this version: every candidate, what it lost, how fast it is."""
        with connect() as plane:
            entry = plane.registry.version(self.name, self.version)["manifest"].get("report.html")
            data = plane.blob(entry["sha256"]) if entry else None
        return HTML(data.decode("utf-8", "replace"), name="report") if data is not None else None

    def load(self) -> Any:
        """The model in this process: an object with `.predict(inputs)`, inputs by name or the one input itself.

        The package is kept in the cache of `RML_HOME` and verified at every load.
        """
        settings = _siblings.load("roblox_ml_core.settings")
        root = self.download(settings.HomeSettings().root / "cache" / "models" / self.digest)
        # Downloading has just hashed every file.
        return _siblings.load("roblox_ml_core.package.loaders").load(root, verified=True)

    def promote(self, alias: str = _CHAMPION, expected: int | None = None, *, reason: str = "") -> ModelVersion:
        """Point `alias` here. With `expected`, only if it points at that version now (0: at none); else `Conflict`."""
        with connect() as plane:
            _promote(plane, self.name, self.version, alias, expected, reason)
            return _read(plane, self.name, self.version)

    def tag(self, tags: Mapping[str, str | None] | None = None, /, **more: str | None) -> ModelVersion:
        """Set tags: `m.tag(team="safety")`; None removes one."""
        wanted = {key: None if value is None else str(value) for key, value in {**(tags or {}), **more}.items()}
        with connect() as plane:
            return _from(plane.registry.tag(self.name, self.version, wanted))

    def __repr__(self) -> str:
        """One line, so that a list of versions can be read; a notebook shows the rest of a single one."""
        also = [f"aliases={', '.join(self.aliases)!r}"] if self.aliases else []
        also += [f"{name}={_short(value)}" for name, value in self.metrics.items()]
        return f"<{', '.join([f'ModelVersion {self.name}/{self.version}@{self.digest[:12]}', *also])}>"

    def _repr_html_(self) -> str:
        facts = {
            "digest": f"{self.digest[:12]}…",
            "aliases": ", ".join(self.aliases) or "none",
            "format": self.format,
            **{f"metric {key}": _short(value) for key, value in self.metrics.items()},
            **{f"tag {key}": value for key, value in self.tags.items()},
            "lineage": ", ".join(f"{key}={_short(value)}" for key, value in self.lineage.items() if value),
            "registered": f"{self.created.replace('T', ' ')[:19]} by {self.created_by}",
        }
        if self.gate and not self.gate.get("passed", True):
            facts["gate"] = "; ".join(finding["message"] for finding in self.gate["findings"])
        rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
        return f"<div><b>{html.escape(self.name)} version {self.version}</b><table>{rows}</table></div>"


def register(
    model: Any,
    name: str,
    *,
    metrics: Mapping[str, Any] | Any | None = None,
    gate: Mapping[str, Any] | None = None,
    alias: str | None = _CHAMPION,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    origin: str | None = None,
) -> ModelVersion:
    """Register a model package; an identical package returns the version that exists.

    Registering stores always; `gate` decides from the metrics whether `alias` moves (None: no alias). In a pipeline use
    `rml.register`, which records where the model came from by itself.

    Args:
        model: an `rml.Model`, or the directory of a package.
        metrics: in place of those in the package; an `rml.Metrics` or a mapping.
        gate: `rml.gate(f1=0.75)`.
        origin: where the model was trained, in words; needed for lineage, since no pipeline knows.

    Raises:
        PackageError: this is not a package, or its files do not have the digests they are listed under.
    """
    root = Path(model.path if hasattr(model, "path") and not isinstance(model, os.PathLike) else model)
    if not (root / "package.json").is_file():
        raise PackageError(
            f"{root} is not a model package: it has no package.json",
            why="only a package says how to load, check and serve the model",
            fix="build it with rml.Model.from_transformers(…), from_sklearn(…), from_onnx(…) or from_python(…)",
        )
    layout = _siblings.load("roblox_ml_core.package")
    with connect() as plane:
        package = layout.verify(root)
        measured = getattr(metrics, "metadata", metrics)
        body = {
            "package": package.info,
            "manifest": plane.upload(root),
            "metrics": dict(package.metrics if measured is None else measured),
            "params": dict(params or {}),
            "tags": {key: str(value) for key, value in (tags or {}).items()},
            "lineage": {"kind": "external", "origin": origin or "not stated", "by": plane.registry.actor},
            "gate": dict(gate) if gate else None,
            "alias": alias,
        }
        answer = plane.registry.register(name, body)
        return _read(plane, name, int(answer["version"]), gate={**answer["gate"], "alias": answer["alias"]})


def get(ref: str) -> ModelVersion:
    """The version a reference means: `name/3`, `name@alias`, `name/3@<digest>`; a bare name means its champion.

    Raises:
        NotFound: no such model, version or alias; the message says which there are.
        Conflict: the version exists with another digest than the reference demands.
    """
    with connect() as plane:
        return _get(plane, ref)


def versions(name: str) -> list[ModelVersion]:
    """All versions of a model, newest first."""
    with connect() as plane:
        return [_from(row) for row in plane.registry.versions(name)]


def search(query: str = "") -> list[ModelVersion]:
    """Versions that satisfy every term: `tag.team=safety`, `metric.f1>0.7`, `param.lr=0.1`, `alias=champion`, part of a name.

    `tag.KEY` alone asks that the key is there; quotes keep spaces together. A term that cannot be read is an error that
    shows how terms are written.
    """
    with connect() as plane:
        return [_from(row) for model in plane.registry.models(query or None) for row in model["matching"]]


def history(name: str, alias: str = _CHAMPION) -> list[dict[str, Any]]:
    """Every move of an alias, newest first: generation, kind, from, to, by, reason, at."""
    with connect() as plane:
        moves: list[dict[str, Any]] = plane.registry.alias_history(name, alias)
        return moves


def promote(ref: str, alias: str = _CHAMPION, expected: int | None = None, *, reason: str = "") -> ModelVersion:
    """Point `alias` at the version that `ref` means; `expected` as in `ModelVersion.promote`."""
    with connect() as plane:
        version = _get(plane, ref)
        _promote(plane, version.name, version.version, alias, expected, reason)
        return _read(plane, version.name, version.version)


def rollback(name: str, alias: str = _CHAMPION) -> ModelVersion:
    """Point `alias` back at the version before; a second rollback goes further back. Endpoints follow at once."""
    with connect() as plane:
        return _read(plane, name, int(plane.registry.rollback(name, alias)["version"]))


def diff(a: str, b: str) -> Diff:
    """What changed from version `a` to `b`: metrics, parameters, tags, lineage, signature, files and code."""
    with connect() as plane:
        sides = [_get(plane, ref) for ref in (a, b)]
        details = [plane.registry.version(side.name, side.version) for side in sides]
        bundles = [_bundle(plane, detail) for detail in details]
        return compare(details[0], details[1], code_diff(bundles[0], bundles[1]))


def delete_version(ref: str) -> None:
    """Forget a version. Its number is not given out again; its files go with the next garbage collection.

    Raises:
        Conflict: an alias or an endpoint uses it; the message says which.
    """
    with connect() as plane:
        version = _get(plane, ref)
        plane.registry.delete_version(version.name, version.version)


def _get(plane: Connection, ref: str) -> ModelVersion:
    reference = _siblings.load("roblox_ml_core.names").parse_reference(ref, default_alias=_CHAMPION)
    number = reference.version
    if number is None:
        number = int(plane.registry.alias(reference.name, reference.alias)["version"])
    version = _read(plane, reference.name, number)
    if reference.digest not in (None, version.digest):
        raise Conflict(
            f"{reference.name}/{number} is registered with the digest {version.digest}",
            why=f"the reference demands {reference.digest}",
            fix="check where the reference comes from: another registry, or a version registered elsewhere",
        )
    return version


def _promote(plane: Connection, name: str, version: int, alias: str, expected: int | None, reason: str) -> None:
    generation = None
    if expected is not None:
        missing = _siblings.load("roblox_ml_core.errors").NotFound
        try:
            now = plane.registry.alias(name, alias)
        except missing:
            now = {"version": 0, "generation": None}
        if now["version"] != expected:
            raise Conflict(
                f"{name}@{alias} points at {_which(now['version'])}, not at {_which(expected)}",
                why=_last_move(plane, name, alias),
                fix=f"look at it (rml.models.history({name!r}, {alias!r})), then promote with expected={now['version']}",
            )
        # An alias that was removed goes on counting, so "there is none" is only sure for one that never was.
        generation = now["generation"] if expected else 0
    plane.registry.promote(name, alias, version, expected_generation=generation, reason=reason)


def _last_move(plane: Connection, name: str, alias: str) -> str:
    try:
        last = plane.registry.alias_history(name, alias)[0]
    except Exception:  # the reason is a courtesy; the conflict itself is what matters
        return ""
    return f"{last['by']} moved it at {last['at']}"


def _which(version: int) -> str:
    return f"version {version}" if version else "no version"


def _read(plane: Connection, name: str, version: int, gate: Mapping[str, Any] | None = None) -> ModelVersion:
    return _from(plane.registry.version(name, version), gate)


def _from(row: Mapping[str, Any], gate: Mapping[str, Any] | None = None) -> ModelVersion:
    return ModelVersion(
        name=row["name"],
        version=int(row["version"]),
        digest=row["digest"],
        format=str(row.get("format") or ""),
        aliases=tuple(row["aliases"]),
        metrics=row["metrics"],
        params=row["params"],
        tags=row["tags"],
        lineage=row["lineage"],
        created=row["created_at"],
        created_by=row["created_by"],
        gate=dict(gate or {}),
        _signature=row.get("signature"),
    )


def _bundle(plane: Connection, detail: Mapping[str, Any]) -> bytes | None:
    code = detail["lineage"].get("code")
    is_digest = _siblings.load("roblox_ml_core.digests").is_digest
    return plane.blob(code) if is_digest(code) else None


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
