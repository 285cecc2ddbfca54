"""Which model servers may answer for a version: those that have it ready under the very digest the policy names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["holders"]


def holders(ready: Mapping[str, Mapping[str, str]], key: str, digest: str) -> tuple[str, ...]:
    """The names of the servers, in the order given.

    Args:
        ready: by server, `model/version` → digest, as the snapshot's `servers.*.ready` has it.
        key: `model/version`.
        digest: of the registered package; empty: whichever the servers report under that number.
    """
    # Same number, other bytes: a server that holds something else under this version must not answer for it.
    return tuple(
        name
        for name, models in ready.items()
        if (found := models.get(key)) is not None and (not digest or found == digest)
    )
