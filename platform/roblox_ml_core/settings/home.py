"""Where a process keeps its state, and the token that its services share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["LOOPBACK", "HomeSettings"]

LOOPBACK = "127.0.0.1"


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
