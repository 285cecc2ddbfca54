"""``python -m roblox_ml_platform``: serve the control plane until told to stop."""

from __future__ import annotations

import logging

import uvicorn
from roblox_ml_core.settings import ControlPlaneSettings
from roblox_ml_core.telemetry import configure_logging, log

from .app import create_app

_GRACE_S = 3  # a long poll is cut after this; its client asks again


def main() -> None:
    configure_logging("control-plane")
    settings = ControlPlaneSettings()
    app = create_app(settings)
    log(logging.getLogger(__name__), logging.INFO, "starting", url=settings.base_url)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
    )


if __name__ == "__main__":
    main()
