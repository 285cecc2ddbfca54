"""One settings class per service, read from the environment; every address is loopback unless somebody says otherwise.

Secrets are never a default here: the token comes from ``RML_TOKEN`` or the file ``$RML_HOME/token``, the database
password from a URL in the environment or in the file that ``RML_CONTROL_DATABASE_URL_FILE`` names.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, Field, SecretStr, TypeAdapter, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = [
    "AgentSettings",
    "AnalysisSettings",
    "ControlPlaneSettings",
    "DoorSettings",
    "FeaturesSettings",
    "GuardSettings",
    "HomeSettings",
    "IdentitySettings",
    "IssuerSettings",
    "MlflowSettings",
    "NotifySettings",
    "RecordsSettings",
    "TritonSettings",
]

_LOOPBACK = "127.0.0.1"


class HomeSettings(BaseSettings):
    """Where state lives (``RML_HOME``), where blobs live (``RML_STORE``) and the token (``RML_TOKEN`` or its file)."""

    model_config = SettingsConfigDict(env_prefix="RML_", extra="ignore")

    home: Path = Field(default=Path("~/.roblox_ml"), description="the folder that holds all local state")
    store: str = Field(default="", description="URL of the blob store; empty: the folder `store` in the home")
    token: SecretStr | None = Field(default=None, description="the control plane's bearer token; empty: the file")
    token_file: Path | None = Field(default=None, description="file that holds the token and may change (a pod's)")

    @property
    def root(self) -> Path:
        """The home as an absolute path (not created)."""
        return Path(os.path.abspath(self.home.expanduser()))  # noqa: PTH100 - resolve() would follow a linked home away

    @property
    def store_url(self) -> str:
        return self.store or (self.root / "store").as_uri()

    @property
    def token_path(self) -> Path:
        return self.root / "token"

    def read_token(self) -> str | None:
        """The token of the environment, else of the file, else None."""
        if self.token is not None and self.token.get_secret_value():
            return self.token.get_secret_value()
        if self.token_file is not None:
            return self.token_file.read_text(encoding="ascii").strip() or None
        return self._own_token()

    def _own_token(self) -> str | None:
        try:
            return self.token_path.read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None

    def ensure_token(self) -> str:
        """The administrator's token; made (mode 0600) when there is none. Safe when several processes start at once.

        Not the one of `token_file`: that is what a pod shows to others, and would let in whoever else is shown it.
        """
        given = self.token.get_secret_value() if self.token is not None else ""
        if found := given or self._own_token():
            return found
        self.root.mkdir(parents=True, exist_ok=True)
        draft = self.root / f".token-{os.getpid()}-{secrets.token_hex(4)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(draft, self.token_path)  # fails when another process was first; a rename would replace its token
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        token = self._own_token()
        if token is None:
            raise RuntimeError(f"{self.token_path} exists but is empty; remove it and start again")
        return token


class ControlPlaneSettings(BaseSettings):
    """The control plane: where it listens, its database, its limits; clients read only `base_url`."""

    model_config = SettingsConfigDict(env_prefix="RML_CONTROL_", extra="ignore")

    host: str = _LOOPBACK
    port: int = Field(default=18070, ge=0, le=65535)
    url: str = Field(default="", description="what clients use; empty: http://host:port")
    database_url: SecretStr = Field(default=SecretStr(""), description="SQLAlchemy URL; empty: SQLite in the home")
    database_url_file: Path | None = Field(default=None, description="file that holds the URL (a mounted secret)")
    max_body_bytes: int = Field(default=16 << 20, gt=0, description="largest JSON body")
    max_blob_bytes: int = Field(default=64 << 30, gt=0, description="largest blob")
    max_wait_s: float = Field(default=60.0, gt=0, description="longest long poll")
    server_silence_s: float = Field(default=15.0, gt=0, description="a model server silent for longer is not ready")
    mlflow_check_s: float = Field(default=15.0, gt=0, description="how often MLflow is compared with the registry")

    @property
    def base_url(self) -> str:
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"

    def resolve_database_url(self, home: HomeSettings) -> str:
        """The database's URL: of the environment, else of the file, else SQLite in the home."""
        if text := self.database_url.get_secret_value():
            return text
        if self.database_url_file is not None:
            return self.database_url_file.read_text(encoding="utf-8").strip()
        return f"sqlite:///{home.root / 'control.db'}"


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


class MlflowSettings(BaseSettings):
    """The MLflow server that the registry is projected into."""

    model_config = SettingsConfigDict(env_prefix="RML_MLFLOW_", extra="ignore")

    host: str = _LOOPBACK
    port: int = Field(default=18050, ge=0, le=65535)
    url: str = Field(default="", description="what clients use; empty: http://host:port")
    enabled: bool = Field(default=True, description="project registrations into MLflow")

    @property
    def base_url(self) -> str:
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"


class NotifySettings(BaseSettings):
    """Telling people: how often, how long, and which secrets channels may refer to."""

    model_config = SettingsConfigDict(env_prefix="RML_NOTIFY_", extra="ignore")

    enabled: bool = Field(default=True, description="deliver; without, events are only recorded")
    tick_s: float = Field(default=0.5, gt=0, description="how often new events and due deliveries are looked for")
    workers: int = Field(default=4, gt=0, description="deliveries in hand at once")
    timeout_s: float = Field(default=10.0, gt=0, description="longest one delivery may take")
    lease_s: float = Field(
        default=45.0, gt=0, description="a delivery whose sender is silent for so long is sent again"
    )
    base_s: float = Field(default=1.0, gt=0, description="pause after the first failure; doubled with each")
    cap_s: float = Field(default=300.0, gt=0, description="longest pause between two attempts")
    dead_after_s: float = Field(default=3 * 86400.0, gt=0, description="a delivery that fails for so long is given up")
    stale_after_s: float = Field(default=7 * 86400.0, gt=0, description="older events are recorded and told to nobody")
    keep_s: float = Field(default=30 * 86400.0, gt=0, description="how long delivered events are kept")
    channels_file: Path | None = Field(
        default=None, description="channels as TOML, mode 0600; empty: channels.toml in the home"
    )
    secret_env: str = Field(default="RML_CHANNEL_*", description="names of variables that channels may refer to")
    webhook_hosts: str = Field(default="*", description="hosts that pipelines may name in a webhook, by pattern")
    public_url: str = Field(
        default="", description="where people's browsers reach this control plane; empty: its own URL"
    )
    run_url: str = Field(
        default="", description="link to a run, with {run} and {pipeline}; empty: the event's own page"
    )
    model_url: str = Field(
        default="", description="link to a version, with {model} and {version}; empty: MLflow's page"
    )

    @model_validator(mode="after")
    def _ordered(self) -> NotifySettings:
        """A lease that ends while its holder still sends would let a second one send the same."""
        if self.lease_s < 2 * self.timeout_s:
            raise ValueError("RML_NOTIFY_LEASE_S must be at least twice RML_NOTIFY_TIMEOUT_S")
        if self.keep_s < 2 * self.stale_after_s:
            raise ValueError("RML_NOTIFY_KEEP_S must be at least twice RML_NOTIFY_STALE_AFTER_S")
        return self


class GuardSettings(BaseSettings):
    """What watches rollouts: how much worse is too much, how sure it must be, and what it does then."""

    model_config = SettingsConfigDict(env_prefix="RML_GUARD_", extra="ignore")

    action: Literal["rollback", "warn", "off"] = Field(
        default="rollback", description="rollback: take back what is worse; warn: only write it down and tell people"
    )
    error_points: float = Field(
        default=0.01, ge=0, lt=1, description="how many more requests may fail, as a share: 0.01 is one point"
    )
    latency_ratio: float = Field(default=1.5, gt=1, le=16, description="how many times as long answers may take")
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="probability to take back, in its first day, a rollout that is exactly as bad as is allowed",
    )
    min_requests: int = Field(default=50, ge=10, description="requests of a challenger before it is judged")
    min_errors: int = Field(default=5, ge=2, description="failed requests before a challenger is judged by them")
    bake_s: float = Field(
        default=600.0, ge=0, le=900, description="how long a new champion is held against the one before; 0: not at all"
    )
    tick_s: float = Field(default=1.0, gt=0, description="how often counts are looked at")
    guardrail_s: float = Field(default=60.0, gt=0, description="how often the guardrails of experiments are looked at")


class AnalysisSettings(BaseSettings):
    """How experiments are analysed. Change it before an experiment begins, not while it runs."""

    model_config = SettingsConfigDict(env_prefix="RML_ANALYSIS_", extra="ignore")

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="error budget of all primary metrics together")
    planned_units: int = Field(
        default=100_000, ge=100, description="units at which the confidence sequences shall be narrowest"
    )
    peeks: int = Field(default=40, ge=2, le=500, description="points in time of a report's plots")
    max_rows: int = Field(
        default=50_000_000, ge=1000, description="largest number of exposures or events of one report"
    )


class DoorSettings(BaseSettings):
    """The door: clients read `base_url` (``RML_DOOR_URL``) and `grpc_address` (``RML_DOOR_GRPC``)."""

    model_config = SettingsConfigDict(env_prefix="RML_DOOR_", extra="ignore")

    host: str = _LOOPBACK
    port: int = Field(default=18080, ge=0, le=65535)
    grpc_port: int = Field(default=18081, ge=0, le=65535)
    url: str = Field(default="", description="what REST clients use; empty: http://host:port")
    grpc: str = Field(default="", description="what gRPC clients use; empty: host:grpc_port")
    poll_wait_s: float = Field(default=20.0, gt=0, description="how long one poll for a new snapshot waits")
    deadline_s: float = Field(default=30.0, gt=0, description="deadline of a request that names none")
    max_body_bytes: int = Field(default=64 << 20, gt=0, description="largest request body")
    require_token: bool = Field(
        default=False, description="ask for a token on loopback too; a door that listens elsewhere always does"
    )

    @property
    def base_url(self) -> str:
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def grpc_address(self) -> str:
        return self.grpc or f"{self.host}:{self.grpc_port}"


class FeaturesSettings(BaseSettings):
    """The feature server that ranking endpoints ask, and what a door keeps of its answers."""

    model_config = SettingsConfigDict(env_prefix="RML_FEATURES_", extra="ignore")

    url: str = Field(default=f"http://{_LOOPBACK}:18090", description="the feature server, http://host:port")
    token: SecretStr | None = Field(default=None, description="bearer token that the feature server asks for")
    cache_bytes: int = Field(default=256 << 20, ge=0, description="memory for features, over all views of a door")
    fetch_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="longest request to the feature server; a ranking waits less, by its own deadline",
    )


class RecordsSettings(BaseSettings):
    """What doors keep of their work: request log, exposures, outcome events, shadow comparisons (``RML_RECORDS``: where)."""

    model_config = SettingsConfigDict(env_prefix="RML_RECORDS_", extra="ignore", populate_by_name=True)

    url: str = Field(
        default="",
        validation_alias=AliasChoices("url", "RML_RECORDS", "RML_RECORDS_URL"),
        description="folder or bucket (s3:) of the records; empty: the folder `records` in the home",
    )
    enabled: bool = Field(default=True, description="keep records at all")
    flush_s: float = Field(default=5.0, gt=0, description="longest time a row waits in memory")
    flush_rows: int = Field(default=50_000, gt=0, description="rows of one stream that are written at once")
    buffer_rows: int = Field(default=200_000, gt=0, description="rows of one stream in memory; more are dropped")
    buffer_bytes: int = Field(default=64 << 20, gt=0, description="bodies of one stream in memory; more are dropped")
    body_bytes: int = Field(default=64 << 10, ge=0, description="longer bodies are left out of their row")
    keep_free_bytes: int = Field(default=256 << 20, ge=0, description="what a full disk keeps for others")
    sweep_s: float = Field(
        default=3600.0, ge=0, description="how often a door deletes what has been kept long enough; 0: never"
    )
    retention_days: int = Field(
        default=90, ge=1, description="how long outcome events are kept, which no endpoint owns"
    )
    data_class: str = Field(default="internal", description="data class of outcome events")
    shadow_pending: int = Field(default=256, ge=0, description="shadow questions that wait or run; more are dropped")
    shadow_bytes: int = Field(default=32 << 20, ge=0, description="bytes of these; more are dropped")
    shadow_concurrency: int = Field(default=8, gt=0, description="questions to one shadow at once")
    shadow_deadline_s: float = Field(default=10.0, gt=0, description="how long a shadow may take, waiting included")
    shadow_pressure: int = Field(
        default=64, gt=0, description="requests under way in the door above which shadows wait"
    )

    def resolve(self, home: HomeSettings) -> str:
        """Where the records are: a URL or a folder."""
        return self.url or str(home.root / "records")


class TritonSettings(BaseSettings):
    """One Triton server: its three ports, and where its installation lies."""

    model_config = SettingsConfigDict(env_prefix="RML_TRITON_", extra="ignore")

    host: str = _LOOPBACK
    http_port: int = Field(default=18000, ge=0, le=65535)
    grpc_port: int = Field(default=18001, ge=0, le=65535)
    metrics_port: int = Field(default=18002, ge=0, le=65535)
    dir: Path | None = Field(default=None, description="installation folder; empty: found by the serving package")
    preload: Path | None = Field(default=None, description="library loaded before all others, for example tcmalloc")

    @property
    def http_address(self) -> str:
        return f"{self.host}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.metrics_port}/metrics"


class AgentSettings(BaseSettings):
    """The model agent beside one Triton server."""

    model_config = SettingsConfigDict(env_prefix="RML_AGENT_", extra="ignore")

    server: str = Field(default="local", description="name of the Triton server this agent looks after")
    role: Literal["general", "challenger"] = Field(
        default="general", description="challenger: hold only versions that want a server of their own"
    )
    poll_wait_s: float = Field(default=10.0, gt=0, description="how long one poll for desired models waits")
    heartbeat_s: float = Field(default=4.0, gt=0, description="longest silence towards the control plane")
    load_timeout_s: float = Field(default=300.0, gt=0, description="longest load of one model")
    tick_s: float = Field(default=0.5, gt=0, description="how often Triton and its processes are looked at")
    probe_s: float = Field(default=10.0, gt=0, description="how often every resident version is asked its known answer")
    grace_s: float = Field(default=30.0, ge=0, description="how long a version stays after nobody wants it any more")
    max_attempts: int = Field(
        default=8, gt=0, description="failed loads of one version before the agent gives up on it"
    )
    memory_budget_mb: int = Field(default=0, ge=0, description="memory all resident versions may take; 0: no limit")
    instances: int = Field(default=0, ge=0, description="instances per version; 0: one per core this process may use")
    pin: bool = Field(
        default=True, description="text models: each instance on a core of its own, where there is one per core"
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus port of the agent; 0: none")
    metrics_host: str = Field(default=_LOOPBACK, description="address of that port; in a pod 0.0.0.0")
    package: Path | None = Field(default=None, description="a package that lies here already and is always wanted")
    package_ref: str = Field(default="", description="what that package must be: name/3@<digest>")
    leave: bool = Field(default=False, description="on SIGTERM, say that nothing is here: in a pod Triton ends too")
