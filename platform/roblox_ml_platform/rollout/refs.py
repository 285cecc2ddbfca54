"""A version that is to answer beside the champion: read, resolved, and checked to take and give what the endpoint does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.errors import Invalid
from roblox_ml_core.names import parse_reference
from sqlalchemy import Connection, select

from .. import aliases
from .. import tables as t
from ..preprocess import clients_signature
from ..versions import require
from .fit import differences

__all__ = ["Challenger", "check_fit", "read", "resolve"]


@dataclass(frozen=True, slots=True)
class Challenger:
    """A model's version, or the alias whose version it is."""

    model: str
    alias: str | None
    version: int | None

    def __str__(self) -> str:
        return f"{self.model}@{self.alias}" if self.alias is not None else f"{self.model}/{self.version}"


def read(text: str) -> Challenger:
    """From `model@alias` or `model/3`. A digest cannot be given: a version's bytes never change."""
    found = parse_reference(text)
    return Challenger(found.name, found.alias, found.version)


def resolve(connection: Connection, challenger: Challenger) -> int:
    """The version it means now.

    Raises:
        NotFound: there is none.
    """
    if challenger.version is not None:
        require(connection, challenger.model, challenger.version)
        return challenger.version
    return int(aliases.get(connection, challenger.model, challenger.alias or "")["version"])


def check_fit(connection: Connection, endpoint: Mapping[str, Any], challenger: Challenger) -> int:
    """The challenger's version, if clients of the endpoint could not tell it from the champion by its tensors.

    Raises:
        Invalid: an input or output is missing, new, of another type or rank; the message names each difference.
        NotFound: there is no such version.
    """
    version = resolve(connection, challenger)
    query = select(t.versions.c.package, t.versions.c.signature).where(
        t.versions.c.model == challenger.model, t.versions.c.version == version
    )
    theirs = connection.execute(query).one()
    if found := differences(endpoint["signature"], clients_signature(theirs.package, theirs.signature)):
        raise Invalid(
            f"{challenger.model}/{version} does not fit endpoint {endpoint['name']}: {'; '.join(found)}",
            hint="an arm, a canary or a shadow must take and give the same tensors; deploy it under an endpoint of its own",
            details={"differences": found},
        )
    return version
