"""A device that is really full, and is emptied again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from roblox_ml_core.records import Records, read, read_accounts
from roblox_ml_core.settings import RecordsSettings


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "device"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip() if mounted else 'no mount'}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def _offer(records: Records, count: int, start: int = 0) -> int:
    return sum(
        records.requests.offer(
            (1_790_000_000_000_000, f"i{n}", "feed", "feed", 7, "champion", "", "u", "rest", 200, 1, False, os.urandom(4096), None)
        )
        for n in range(start, start + count)
    )  # fmt: skip


def test_offers_go_on_while_a_device_is_full_and_writing_goes_on_when_it_is_not(device: Path) -> None:
    url = str(device / "records")
    settings = RecordsSettings(flush_s=0.02, flush_rows=50, buffer_rows=100, keep_free_bytes=0, sweep_s=0)
    records = Records(url, door="d", settings=settings)
    records.start()
    filler = device / "filler"
    filler.write_bytes(b"x" * 600_000)
    kept = _offer(records, 50)
    assert records.flush()
    while records.flush():
        kept += _offer(records, 20, kept)
    for _ in range(10):
        kept += _offer(records, 50, kept)
    assert not records.flush() and records.requests.failing
    dropped = dict(records.accounts()["requests"].dropped)
    assert dropped.get("disk", 0) > 0
    written = records.accounts()["requests"].written
    assert read(url, "requests").num_rows == written > 0  # nothing half, nothing twice
    filler.unlink()
    assert records.flush() and not records.requests.failing
    asyncio.run(records.close())
    account = read_accounts(url)["d"]["requests"]
    assert account.balanced and account.buffered == 0 and account.written == kept
    assert read(url, "requests").num_rows == kept


def test_a_door_starts_on_a_full_device(device: Path) -> None:
    (device / "filler").write_bytes(b"x" * (1 << 20))
    records = Records(str(device / "records"), door="d", settings=RecordsSettings(flush_s=0.02, keep_free_bytes=0))
    records.start()
    assert _offer(records, 10) == 10 and not records.flush()
    (device / "filler").unlink()
    assert records.flush()
    asyncio.run(records.close())
    assert read(records.url, "requests").num_rows == 10


def test_what_others_need_is_left_free(device: Path) -> None:
    records = Records(str(device / "r"), door="d", settings=RecordsSettings(flush_s=0.02, keep_free_bytes=2 << 20))
    records.start()
    assert _offer(records, 10) == 10 and not records.flush()
    asyncio.run(records.close())
    assert dict(records.accounts()["requests"].dropped) == {"disk": 10} and read(records.url, "requests").num_rows == 0
