"""Who is asking, once it is proved."""

from __future__ import annotations

from dataclasses import dataclass

from .grants import Grant, Limit

__all__ = ["LOCAL", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A proved identity.

    `id` is what grants and the audit trail name: ``corp:ann`` is the subject ``ann`` of the issuer configured as ``corp``; two
    issuers that both say "ann" are two principals. `grants` are those the credential itself brings (an issuer's mapping of
    groups or service accounts); those given in the control plane are looked up there, at every request.
    """

    id: str
    kind: str  # local, user, pod or token
    display: str = ""
    grants: frozenset[Grant] = frozenset()
    limit: Limit | None = None
    owner: str | None = None  # whose permissions bound it: of a service token, who made it
    token: str | None = None  # the public id of the service token it came with
    issued_at: float | None = None

    @property
    def is_local(self) -> bool:
        """Whether this is who holds the home's own token: the administrator of the machine the control plane runs on."""
        return self.kind == "local"

    @property
    def subject(self) -> str:
        """Whose grants count."""
        return self.owner or self.id


LOCAL = Principal(id="local", kind="local", display="the home's administrator")
