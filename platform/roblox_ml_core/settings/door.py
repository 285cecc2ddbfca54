"""The door, the features that it asks for, the records that it writes."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from .home import LOOPBACK, HomeSettings

__all__ = ["DoorSettings", "FeaturesSettings", "RecordsSettings"]


class DoorSettings(BaseSettings):
    """The door: clients read `base_url` (``RML_DOOR_URL``) and `grpc_address` (``RML_DOOR_GRPC``)."""

    model_config = SettingsConfigDict(env_prefix="RML_DOOR_", extra="ignore")

    host: str = LOOPBACK
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

    url: str = Field(default=f"http://{LOOPBACK}:18090", description="the feature server, http://host:port")
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
