"""What a snapshot says about an endpoint's preprocessing: its kind, its files, and the policy of cache and queue. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DEFAULT", "Policy", "Spec", "SpecInvalid"]

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")


class SpecInvalid(ValueError):
    """The snapshot's description of the preprocessing cannot be used."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A kind and the files it needs: (path in the package, sha256), sorted."""

    kind: str
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, document: Any) -> Spec | None:
        """From a snapshot's `preprocess`; None where bytes pass through.

        Raises:
            SpecInvalid: it is neither.
        """
        if document is None:
            return None
        if not isinstance(document, Mapping) or not isinstance(document.get("files", {}), Mapping):
            raise SpecInvalid(f"preprocess is {str(document)[:80]!r}, not an object with kind and files")
        kind = document.get("kind")
        if not isinstance(kind, str) or not _KIND.match(kind):
            raise SpecInvalid(f"preprocess.kind is {str(kind)[:80]!r}")
        files = sorted((str(path), str(digest)) for path, digest in document.get("files", {}).items())
        for path, digest in files:
            if not _DIGEST.match(digest):
                raise SpecInvalid(f"preprocess.files[{path[:80]!r}] is no sha256")
        return cls(kind, tuple(files))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "files": dict(self.files)}


@dataclass(frozen=True, slots=True)
class Policy:
    """How an endpoint is answered: what may be kept, and how long its line may be."""

    cache_entries: int = 0
    cache_bytes: int = 0
    max_wait_ms: float = 200.0
    max_rows: int = 10_000

    @classmethod
    def read(cls, document: Any) -> Policy:
        """From a snapshot's `policy`; what it does not say has the default.

        Raises:
            SpecInvalid: a value is no number, or below zero.
        """
        if document is None:
            return DEFAULT
        try:
            cache, queue = document.get("cache") or {}, document.get("queue") or {}
            read = cls(
                int(cache.get("entries", DEFAULT.cache_entries)),
                int(cache.get("bytes", DEFAULT.cache_bytes)),
                float(queue.get("max_wait_ms", DEFAULT.max_wait_ms)),
                int(queue.get("max_rows", DEFAULT.max_rows)),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise SpecInvalid(f"the policy {str(document)[:120]!r} cannot be read: {error}") from None
        if min(read.cache_entries, read.cache_bytes) < 0 or read.max_rows < 1 or not 0 < read.max_wait_ms < 1e9:
            raise SpecInvalid(f"the policy {str(document)[:120]!r} has a value out of its range")
        return read

    @property
    def caches(self) -> bool:
        return self.cache_entries > 0 and self.cache_bytes > 0


DEFAULT = Policy()
