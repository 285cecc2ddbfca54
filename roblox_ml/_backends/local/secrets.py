"""Secrets of a step that runs here: by the names the cluster uses, from the environment or from `$RML_HOME/secrets`.

A value goes into the environment of the step that asks for it and nowhere else: not into the record, not into a log, and not
into a step that did not ask. What is missing is said before the step starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._store import home
from ...errors import RunError

__all__ = ["SecretRefs", "hidden_from_others", "references", "resolve"]

_NOT_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class SecretRefs:
    """A step's references: environment variable → (secret, key), folder → secret; `hidden` belongs to other steps."""

    env: tuple[tuple[str, str, str], ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    hidden: frozenset[str] = frozenset()


def references(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, SecretRefs]:
    """Of every executor of a platform document; the optional ones (a cluster's own settings) are no step's wish."""
    read = {name: _one(config) for name, config in configs.items()}
    everybody = {variable for refs in read.values() for variable, _, _ in refs.env}
    return {
        name: SecretRefs(refs.env, refs.mounts, frozenset(everybody - {variable for variable, _, _ in refs.env}))
        for name, refs in read.items()
    }


def hidden_from_others(known: Mapping[str, SecretRefs]) -> SecretRefs:
    """For an executor that asks for nothing: what it must not see."""
    return SecretRefs(hidden=frozenset(variable for refs in known.values() for variable, _, _ in refs.env))


def resolve(refs: SecretRefs) -> dict[str, str]:
    """The variables of one step; RunError when something is missing or readable by others, all of it at once."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for variable, name, key in refs.env:
        file = home() / "secrets" / name / key
        if variable in os.environ:
            values[variable] = os.environ[variable]
        elif not file.is_file():
            problems.append(f"{variable} (key {key} of secret {name}): it is neither set nor is there {file}")
        elif file.stat().st_mode & _NOT_OTHERS:
            problems.append(f"{variable}: {file} can be read by others; type chmod 600 {file}")
        else:
            # An editor ends a file with a line break, a token does not have one.
            values[variable] = file.read_text("utf-8").rstrip("\n")
    problems += [
        f"secret {name}: its files are expected in {mount}, and there is no such folder here; type "
        f"ln -s {home() / 'secrets' / name} {mount}, or take it by env="
        for mount, name in refs.mounts
        if not Path(mount).is_dir()
    ]
    if problems:
        raise RunError("the step's secrets are not here: " + "; ".join(problems))
    return values


def _one(config: Mapping[str, Any]) -> SecretRefs:
    env = [
        (str(pair["envVar"]), _name(entry), str(pair["secretKey"]))
        for entry in _asked(config.get("secretAsEnv"))
        for pair in entry.get("keyToEnv") or []
    ]
    mounts = [(str(entry["mountPath"]), _name(entry)) for entry in _asked(config.get("secretAsVolume"))]
    return SecretRefs(tuple(env), tuple(mounts))


def _asked(entries: Iterable[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    return [entry for entry in entries or [] if not entry.get("optional")]


def _name(entry: Mapping[str, Any]) -> str:
    parameter = ((entry.get("secretNameParameter") or {}).get("runtimeValue") or {}).get("constant")
    return str(parameter or entry.get("secretName") or "")
