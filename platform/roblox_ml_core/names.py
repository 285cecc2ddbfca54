"""Names of models, aliases and endpoints, and references as text: ``name/3``, ``name@champion``, ``name/3@<digest>``.

One grammar for everybody: a name is safe in a URL path, in a file name, as a Triton model name and as an MLflow name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .digests import is_digest
from .errors import Invalid

__all__ = ["MAX_VERSION", "Reference", "check_alias", "check_name", "parse_reference", "triton_name"]

MAX_VERSION = 2**31 - 1  # what a PostgreSQL integer and a Triton version folder both take

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,9}\Z")
# MLflow keeps these words for itself, and the aliases are projected into it.
_RESERVED_ALIAS = re.compile(r"(latest|v[0-9]+)\Z")
_HOW = "write name/3, name@alias or name/3@<digest>, for example comment-sentiment@champion"


def check_name(name: str, what: str = "model name") -> str:
    """`name` itself, or `Invalid` with a name that would do."""
    if not _NAME.match(name):
        better = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63] or "my-model"
        raise Invalid(
            f"{name[:80]!r} is not a {what}",
            hint=f"lower-case letters, digits and hyphens, at most 63, not starting with a hyphen: try {better!r}",
        )
    return name


def check_alias(alias: str) -> str:
    """`alias` itself, or `Invalid`: a letter, then letters, digits, `-`, `_`; `latest` and `v3` belong to MLflow."""
    if not _ALIAS.match(alias) or _RESERVED_ALIAS.match(alias):
        raise Invalid(
            f"{alias[:80]!r} is not an alias",
            hint="a lower-case letter, then letters, digits, '-', '_' (not 'latest', not 'v<number>'): try 'champion'",
        )
    return alias


@dataclass(frozen=True, slots=True)
class Reference:
    """A model and which of its versions: by number, by alias, or by number and the digest it must have."""

    name: str
    version: int | None = None
    alias: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.alias is not None:
            check_alias(self.alias)
        if (self.version is None) == (self.alias is None):
            raise Invalid(f"a reference to {self.name} needs a version or an alias, not both", hint=_HOW)
        if self.version is not None and not 1 <= self.version <= MAX_VERSION:
            raise Invalid(f"{self.version} is not a version of {self.name}", hint="versions count from 1")
        if self.digest is not None and (self.version is None or not is_digest(self.digest)):
            raise Invalid(f"{self.digest[:80]!r} cannot pin {self.name}", hint="write name/3@<64 hex digits>")

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return f"{self.name}/{self.version}" + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str, *, default_alias: str | None = None) -> Reference:
    """Read ``name/3``, ``name@champion`` or ``name/3@<digest>``; a bare ``name`` means `default_alias` if one is given."""
    head, at, tail = text.partition("@")
    name, slash, number = head.partition("/")
    if slash:
        if not _VERSION.match(number) or int(number) > MAX_VERSION:
            raise Invalid(f"{text[:200]!r} is not a model reference: {number[:40]!r} is not a version", hint=_HOW)
        return Reference(name, version=int(number), digest=tail if at else None)
    if at:
        return Reference(name, alias=tail)
    if default_alias is not None:
        return Reference(name, alias=default_alias)
    raise Invalid(f"{text[:200]!r} names no version of the model", hint=_HOW)


def triton_name(name: str, version: int) -> str:
    """The model name inside Triton: one Triton model per version, so that a load never touches its neighbours."""
    return f"{name}.{version}"
