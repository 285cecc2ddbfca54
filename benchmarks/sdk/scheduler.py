"""What 10,000 schedules cost: the control plane's scheduler over a simulated quarter of an hour, as a share of one core.

The clock is simulated, a tick a second, so the figure is CPU time per second of schedule time: no sleeping, no waiting.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["cpu_percent"]

BEGIN = 1_767_225_600.0  # 2026-01-01


def cpu_percent(count: int = 10_000, seconds: int = 900) -> float:
    """`count` schedules, each due once an hour in one of three zones, spread over the hour."""
    from prometheus_client import CollectorRegistry
    from roblox_ml_core.storage import BlobStore
    from roblox_ml_platform.database import Database
    from roblox_ml_platform.scheduling import published, schedules
    from roblox_ml_platform.scheduling.schedule import from_json
    from roblox_ml_platform.scheduling.service import Scheduler

    with tempfile.TemporaryDirectory(prefix="rml-bench-") as folder:
        os.environ["RML_HOME"] = folder
        store = BlobStore((Path(folder) / "store").as_uri())
        database = Database(f"sqlite:///{folder}/control.db")
        database.migrate()
        nothing: dict[str, Any] = {
            "blobs": [],
            "arguments": {},
            "newest": {},
            "notify": [],
            "provenance": {},
            "triggers": [],
        }
        with database.write() as connection:
            published.publish(connection, store, "pipeline", ir=store.put(b"ir"), actor="bench", **nothing)
            for n in range(count):
                zone = ("Europe/Berlin", "America/New_York", "UTC")[n % 3]
                plan = from_json({"cron": f"{n % 60} * * * *", "tz": zone, "jitter_s": 50, "overlap": "allow"})
                schedules.put(connection, f"schedule-{n}", "pipeline", plan, {}, actor="bench", at=BEGIN)
        clock = [BEGIN]
        context: Any = SimpleNamespace(database=database, metrics=CollectorRegistry())
        service = Scheduler(context, lambda: clock[0])
        decided, started = 0, time.process_time()
        for second in range(seconds):
            clock[0] = BEGIN + second
            decided += service.step().get("decided", 0)
        spent = time.process_time() - started
        database.close()
        expected = count * (seconds // 60) // 60
        if not 0.8 * expected <= decided <= 1.2 * expected:
            sys.exit(f"{decided} due times were decided, about {expected} were due")
        return 100 * spent / seconds


if __name__ == "__main__":
    print(cpu_percent())
