"""A published pipeline on a database of its own, and a clock the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.database import Database
from roblox_ml_platform.scheduling import published, schedules
from roblox_ml_platform.scheduling.schedule import from_json


@pytest.fixture
def publish(rml_home: object, database: Database) -> Callable[..., dict[str, Any]]:
    """Publish a pipeline whose IR is its name."""
    store = BlobStore(HomeSettings().store_url)

    def make(name: str, *triggers: dict[str, Any], **fields: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"blobs": [], "arguments": {}, "newest": {}, "notify": [], "provenance": {}, **fields}
        ir = store.put(f"ir of {name}".encode())
        with database.write() as connection:
            return published.publish(connection, store, name, ir=ir, triggers=triggers, actor="ann", **values)

    return make


@pytest.fixture
def schedule(publish: Callable[..., Any], database: Database) -> Callable[..., dict[str, Any]]:
    """Publish a pipeline and give it a schedule as of `at`."""

    def make(name: str, at: float, cron: str, **fields: Any) -> dict[str, Any]:
        publish(name)
        with database.write() as connection:
            return schedules.put(connection, name, name, from_json({"cron": cron, **fields}), {}, actor="ann", at=at)

    return make
