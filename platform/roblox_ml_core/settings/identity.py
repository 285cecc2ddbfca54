"""Who may come in: issuers of signed tokens, service tokens, failed logins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, TypeAdapter, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["IdentitySettings", "IssuerSettings"]


class IssuerSettings(BaseModel):
    """One issuer of signed tokens that is trusted: an OpenID provider, or a Kubernetes cluster's service accounts."""

    model_config = {"extra": "forbid"}

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,30}$", description="short name; principals are <name>:<subject>")
    issuer: str = Field(min_length=1, description="the tokens' iss, exactly")
    audience: str = Field(min_length=1, description="the tokens' aud; for people usually the client id")
    kind: Literal["user", "pod"] = Field(default="user", description="people, or a cluster's service accounts")
    client_id: str = Field(default="", description="the public client that `rml login` uses; empty: no login here")
    scopes: str = Field(default="openid profile email offline_access", description="what `rml login` asks for")
    subject_claim: str = Field(default="sub", description="the claim that names the principal")
    display_claim: str = Field(default="email", description="the claim shown to people")
    groups_claim: str = Field(default="groups", description="the claim that lists groups")
    algorithms: list[str] = Field(default=["RS256", "PS256", "ES256", "EdDSA"], description="accepted signatures")
    jwks_uri: str = Field(default="", description="where the public keys are (https:, file:); empty: discovered")
    ca_file: Path | None = Field(default=None, description="certificate authority of the issuer's own https")
    bearer_file: Path | None = Field(default=None, description="token to send when asking for the keys")
    subjects: dict[str, list[str]] = Field(
        default={}, description="subject (a trailing * allowed) to SCOPE=ROLE grants"
    )
    groups: dict[str, list[str]] = Field(default={}, description="group to SCOPE=ROLE grants")

    @model_validator(mode="after")
    def _safe(self) -> IssuerSettings:
        host = urlsplit(self.issuer)
        if host.scheme != "https" and host.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"issuer {self.issuer} must be https: its keys decide who may come in")
        if unsafe := [name for name in self.algorithms if name.lower() == "none" or name.startswith("HS")]:
            raise ValueError(f"algorithms {unsafe} can be forged by anybody who has the public key")
        return self


class IdentitySettings(BaseSettings):
    """Who may come in besides the home's own token, and how hard they may knock."""

    model_config = SettingsConfigDict(env_prefix="RML_IDENTITY_", extra="ignore")

    issuers: list[IssuerSettings] = Field(default=[], description="trusted issuers, as JSON")
    issuers_file: Path | None = Field(default=None, description="file that holds the same JSON (a mounted secret)")
    leeway_s: float = Field(default=30.0, ge=0, le=300, description="how far clocks may differ")
    token_days: int = Field(default=90, ge=1, description="how long a service token lives unless said otherwise")
    max_token_days: int = Field(default=366, ge=1, description="how long a service token may live")
    failures_per_minute: int = Field(default=30, ge=1, description="failed logins per address before it must wait")
    mapped_days: float = Field(default=30.0, gt=0, description="how long groups seen at a login count for tokens")

    def trusted(self) -> list[IssuerSettings]:
        """All issuers; a name or an issuer that is there twice is refused."""
        found = list(self.issuers)
        if self.issuers_file is not None:
            found += TypeAdapter(list[IssuerSettings]).validate_json(self.issuers_file.read_bytes())
        for field in ("name", "issuer"):
            values = [getattr(issuer, field) for issuer in found]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"RML_IDENTITY_ISSUERS: {field} {', '.join(twice)} is there twice")
        if taken := [issuer.name for issuer in found if issuer.name in ("local", "service", "team", "model")]:
            raise ValueError(f"RML_IDENTITY_ISSUERS: the name {taken[0]!r} is taken; call the issuer something else")
        return found
