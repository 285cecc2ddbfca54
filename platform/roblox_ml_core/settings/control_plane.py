"""The control plane, and the MLflow server that it projects the registry into."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from .home import LOOPBACK, HomeSettings

__all__ = ["ControlPlaneSettings", "MlflowSettings"]


class ControlPlaneSettings(BaseSettings):
    """The control plane: where it listens, its database, its limits; clients read only `base_url`."""

    model_config = SettingsConfigDict(env_prefix="RML_CONTROL_", extra="ignore")

    host: str = LOOPBACK
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


class MlflowSettings(BaseSettings):
    """The MLflow server that the registry is projected into."""

    model_config = SettingsConfigDict(env_prefix="RML_MLFLOW_", extra="ignore")

    host: str = LOOPBACK
    port: int = Field(default=18050, ge=0, le=65535)
    url: str = Field(default="", description="what clients use; empty: http://host:port")
    enabled: bool = Field(default=True, description="project registrations into MLflow")

    @property
    def base_url(self) -> str:
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"
