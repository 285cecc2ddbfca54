"""Generated requests for every operation of the OpenAPI document: no answer may be a crash or an undocumented one."""

from __future__ import annotations

import tempfile

import pytest
import schemathesis
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, MlflowSettings
from roblox_ml_platform.app import create_app

_HOME = HomeSettings(home=tempfile.mkdtemp(prefix="rml-fuzz-"), store="")
_TOKEN = _HOME.ensure_token()


@pytest.fixture(scope="module")
def api() -> schemathesis.BaseSchema:
    # A poll that waits would only make the test slow.
    app = create_app(ControlPlaneSettings(max_wait_s=0.01), _HOME, MlflowSettings(enabled=False))
    app.router.lifespan_context = _no_lifespan
    return schemathesis.openapi.from_dict(app.openapi(), config=_config(app))


def _config(app: object) -> object:
    return None
