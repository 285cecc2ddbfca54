"""Package indexes with a name: `rml.index("team", url_env="TEAM_INDEX_URL")`, said as `"team::secretlib==2.0"`.

A private index's address often holds a token, so only its name and the variable that holds the address are ever written
down; a package asked for from it is taken from it and from nowhere else, whoever owns the same name on a public index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._runtime.indexes import bare, named_url, variable_of
from ..errors import Finding, RmlSdkError
from ._errors import WHERE

__all__ = ["Index", "index", "project", "split", "unknown"]

_ASKED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)(?:@([A-Za-z_]\w*))?::\s*(\S.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Index:
    """A named index. Calling it marks a requirement as its own: `team("secretlib==2.0")`."""

    name: str
    url_env: str

    def __call__(self, requirement: str) -> str:
        """The requirement as `packages=` takes it."""
        shown = self.name if self.url_env == variable_of(self.name) else f"{self.name}@{self.url_env}"
        return f"{shown}::{requirement}"


def index(name: str, *, url_env: str | None = None) -> Index:
    """A package index by name; its address is read from the variable `url_env` (default `RML_INDEX_<NAME>_URL`).

    `packages=[rml.index("team", url_env="TEAM_INDEX_URL")("secretlib==2.0")]`, or in short `packages=["team::secretlib"]`.
    """
    if not _NAME.fullmatch(name):
        raise RmlSdkError(
            f"{name!r} is no name for an index",
            why="letters, digits, - and _",
            fix='rml.index("team", url_env="TEAM_URL")',
        )
    if url_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", url_env):
        raise RmlSdkError(
            "url_env is the name of an environment variable, not an address",
            why="an address may hold a password, and would be stored with every step",
            fix=f'export {variable_of(name)}=https://…, then rml.index("{name}")',
        )
    return Index(name, url_env or variable_of(name))


def split(text: str) -> tuple[Index | None, str]:
    """`"team::secretlib==2.0"` → the index and the requirement; any other text stays as it is."""
    match = _ASKED.fullmatch(text.strip()) if "::" in text else None
    return (Index(match[1], match[2] or variable_of(match[1])), match[3]) if match else (None, text)


def unknown(asked: Index) -> Finding | None:
    """A finding when this machine does not know the index's address."""
    if named_url(asked.name, asked.url_env):
        return None
    return Finding(
        "unknown-index",
        f"the package index {asked.name!r} is not known on this machine",
        WHERE,
        f"its address is read from {asked.url_env} or from indexes.json in RML_HOME, and neither has it",
        f"export {asked.url_env}=https://…/simple (where the step runs as well)",
    )


def project(named: Mapping[str, tuple[Index, str]], urls: Mapping[str, str]) -> str:
    """A project file that makes uv take these requirements (by distribution) from their index alone. No password in it."""
    requirements: Sequence[str] = [line for _, (_, line) in sorted(named.items())]
    lines = [
        "[project]",
        'name = "step"',
        'version = "0"',
        f"dependencies = {_toml(requirements)}",
        "[tool.uv.sources]",
    ]
    lines += [f'{name} = {{ index = "{asked.name}" }}' for name, (asked, _) in sorted(named.items())]
    for name, url in sorted(urls.items()):
        lines += ["[[tool.uv.index]]", f'name = "{name}"', f"url = {_toml(bare(url))}", "explicit = true"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """JSON is TOML for texts and lists of them."""
    import json

    return json.dumps(value)
