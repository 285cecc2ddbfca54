"""A year with clock changes in three zones, killed again and again: every due time ran exactly once or is listed as skipped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.database import Database
from roblox_ml_platform.scheduling import published, schedules, tables
from roblox_ml_platform.scheduling.schedule import Schedule, due_times, from_json
from sqlalchemy import select

BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
END = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
KILLS = int(os.environ.get("RML_TEST_KILLS") or 8)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
PLANS: dict[str, dict[str, Any]] = {
    f"{kind}-{zone.rpartition('/')[2].lower().replace('_', '-')}": {"tz": zone, **fields}
    for zone in ZONES
    for kind, fields in {
        "nightly": {"cron": "30 2 * * *", "catchup": "all", "overlap": "queue"},
        "early": {"cron": "45 1 * * 0,3", "jitter_s": 600, "catchup": "latest", "overlap": "skip"},
        "often": {"cron": "5 */6 * * 0,6", "catchup": "all", "overlap": "allow"},
        "weekly": {"cron": "15,45 2 * * 0", "catchup": "none", "overlap": "replace", "late_after_s": 3600},
        "sundays": {"cron": "*/20 1-3 * * 0", "catchup": "all", "overlap": "skip"},
    }.items()
}


@pytest.mark.slow
def test_a_year_and_many_deaths(rml_home: Path, database: dict[str, str], tmp_path: Path) -> None:
    url = database.get("RML_CONTROL_DATABASE_URL", f"sqlite:///{tmp_path}/year.db")
    store = Database(url)
    store.migrate()
    _publish(store)
    (tmp_path / "runs").mkdir()
    (tmp_path / "clock").write_text(str(BEGIN))
    seed = int(os.environ.get("RML_TEST_SEED") or time.time())
    print(f"RML_TEST_SEED={seed}")
    kills = _live(url, tmp_path, random.Random(seed))
    assert kills >= 3, "the year was over before it could be interrupted"
    with store.read() as connection:
        rows = list(connection.execute(select(tables.scheduled_runs)).mappings())
    store.close()
    assert {row["state"] for row in rows} <= {"SUCCEEDED", "CANCELLED", "SKIPPED"}
    for name, fields in PLANS.items():
        listed = Counter(row["due"] for row in rows if row["source"] == f"schedule:{name}" and row["due"] <= END)
        assert listed == Counter(due_times(Schedule(**fields), BEGIN, END)), name
    started = Counter((tmp_path / "starts").read_text().split())
    assert set(started.values()) == {1}
    # What ran is what is listed as run, and what was skipped says by which policy and never began.
    ran = {row["run"] for row in rows if row["started_at"] is not None}
    assert set(os.listdir(tmp_path / "runs")) == ran
    assert all(row["reason"] for row in rows if row["state"] == "SKIPPED")
    assert not {row["run"] for row in rows if row["state"] == "SUCCEEDED"} - set(os.listdir(tmp_path / "runs"))
    whole = [row for row in rows if row["source"].startswith(("schedule:nightly", "schedule:often"))]
    assert {row["state"] for row in whole} == {"SUCCEEDED"}, "their policies skip nothing"


def _publish(store: Database) -> None:
    blobs = BlobStore(HomeSettings().store_url)
    ir = blobs.put(b"ir")
    nothing: dict[str, Any] = {"arguments": {}, "newest": {}, "provenance": {}}
    with store.write() as connection:
        for name, fields in PLANS.items():
            published.publish(connection, blobs, name, ir=ir, blobs=[], notify=[], triggers=[], actor="ann", **nothing)
            schedules.put(connection, name, name, from_json(fields), {}, actor="ann", at=BEGIN)


def _live(url: str, place: Path, draw: random.Random) -> int:
    """Run the program until the year is over, killing it at random moments; returns how often it was killed."""
    kills = 0
    while True:
        command = [sys.executable, str(Path(__file__).with_name("year.py")), url, str(place), str(END)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        try:
            # Once it has died often enough it may live on, so that the test ends.
            out, _ = process.communicate(timeout=draw.uniform(0.2, 4.0) if kills < KILLS else None)
            assert process.returncode == 0 and out == b"done\n"
            return kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            # The machine may be off for a while: what was due meanwhile is missed, and the policies decide.
            if draw.random() < 0.5:
                clock = place / "clock"
                clock.write_text(str(min(END, float(clock.read_text()) + draw.choice([600, 7200, 2 * 86_400]))))
