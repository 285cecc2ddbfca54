"""kill -9 in the middle of writing, many times over: every row is in a file, or counted as lost by the next start."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from roblox_ml_core.records import Records, read, read_accounts
from roblox_ml_core.settings import RecordsSettings

DOOR = """
import sys, time
from roblox_ml_core.records import Records
from roblox_ml_core.settings import RecordsSettings
first = int(sys.argv[2])
records = Records(sys.argv[1], door="d", settings=RecordsSettings(flush_s=0.01, flush_rows=300, buffer_rows=2000, keep_free_bytes=0))
records.start()
print("started", flush=True)
number = first
while True:
    for _ in range(50):
        number += 1
        if records.requests.sample(f"i{number}", 9000):
            records.requests.offer((time.time_ns() // 1000, f"i{number}", f"feed-{number % 3}", "feed", 7, "champion", "", "u",
                                    "rest", 200, 1, False, None, None))
    time.sleep(0.002)
"""


def test_every_row_is_accounted_for_after_kills(tmp_path: Path) -> None:
    url = str(tmp_path / "records")
    chance = random.Random(7)
    before = 0
    for round in range(4):
        door = subprocess.Popen(
            [sys.executable, "-c", DOOR, url, str(round * 1_000_000)], stdout=subprocess.PIPE, text=True
        )
        assert door.stdout is not None and door.stdout.readline() == "started\n"
        time.sleep(0.15 + 0.3 * chance.random())
        door.send_signal(signal.SIGKILL)
        door.wait()
        left = read_accounts(url)["d"]["requests"]
        rows = read(url, "requests", columns=["inference_id"])["inference_id"].to_pylist()
        assert left.offered > before and len(set(rows)) == len(rows)
        assert left.written <= len(rows) <= left.written + left.buffered  # a file may be there that is not counted yet
        before = left.offered
        records = Records(url, door="d", settings=RecordsSettings(keep_free_bytes=0))
        records.prepare()
        account = records.accounts()["requests"]
        assert account.balanced and account.buffered == 0
        assert account.offered == left.offered and account.written == len(rows)
        assert account.lost - left.lost == left.buffered - (len(rows) - left.written) <= 2000
        records._counters.release()
    assert account.lost > 0  # the kills did find rows in memory, or this test shows nothing
