"""What is in the files, who may read them, what is deleted when, and what is erased."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from roblox_ml_core.errors import Invalid, Unavailable
from roblox_ml_core.policy import LogPolicy
from roblox_ml_core.records import NullRecords, Records, erase, read, read_accounts, sweep
from roblox_ml_core.records.layout import Layout
from roblox_ml_core.records.retention import DAY_US
from roblox_ml_core.settings import RecordsSettings

FAST = RecordsSettings(flush_s=0.02, keep_free_bytes=0)


def test_rows_come_back_as_they_were_offered_by_endpoint_and_time(bench, kit) -> None:
    rows = [
        kit.request(n, endpoint=("feed", "chat")[n % 2], at_us=kit.NOW_US + n * DAY_US // 4, request=b"\x00\xff", response=None)
        for n in range(12)
    ]  # fmt: skip
    for row in rows:
        assert bench.records.requests.offer(row)
    bench.flush()
    url = str(bench.folder)
    found = sorted(tuple(row.values()) for row in read(url, "requests").to_pylist())
    assert found == sorted(rows)
    assert sorted(read(url, "requests", endpoint="chat")["inference_id"].to_pylist()) == [
        "i1",
        "i11",
        "i3",
        "i5",
        "i7",
        "i9",
    ]
    since, until = (
        (kit.NOW_US + 2 * DAY_US // 4) / 1e6,
        datetime.fromtimestamp((kit.NOW_US + 5 * DAY_US // 4) / 1e6, UTC),
    )
    chosen = read(url, "requests", since=since, until=until, columns=["inference_id"])
    assert sorted(chosen["inference_id"].to_pylist()) == ["i2", "i3", "i4"]
    assert read(url, "shadows").num_rows == 0 and read(url, "shadows").column_names[0] == "at_us"


def test_every_file_says_what_it_is_and_is_for_its_owner_alone(bench, kit) -> None:
    bench.policies = {"feed": LogPolicy(data_class="confidential", retention_days=7)}
    bench.records.requests.offer(kit.request())
    bench.flush()
    (path,) = bench.folder.glob("requests/endpoint=feed/date=*/*.parquet")
    metadata = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    assert metadata["rml.data_class"] == "confidential" and metadata["rml.retention_days"] == "7"
    assert metadata["rml.schema"] == "1" and metadata["rml.written"] == "1"
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def test_readers_pass_over_what_is_being_written_and_name_what_is_damaged(bench, kit) -> None:
    bench.records.requests.offer(kit.request())
    bench.flush()
    (path,) = bench.folder.glob("requests/endpoint=feed/date=*/*.parquet")
    (path.parent / f".{path.name}.0000").write_bytes(b"half")
    assert read(str(bench.folder), "requests").num_rows == 1
    bench.kill()
    bench.begin()
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # the draft of a killed door is gone
    path.with_name("d-999999999999.parquet").write_bytes(b"half")
    with pytest.raises(Unavailable, match="999999999999"):
        read(str(bench.folder), "requests")


def test_wrong_questions_are_told(bench) -> None:
    with pytest.raises(Invalid, match="requests, exposures, events, shadows"):
        read(str(bench.folder), "reqests")
    with pytest.raises(Invalid, match="no column latency"):
        read(str(bench.folder), "requests", columns=["latency"])
    with pytest.raises(Invalid, match="cannot be at"):
        Layout("https://example.org/records")
    with pytest.raises(Invalid, match="cannot name a door"):
        Records(str(bench.folder), door="../d")
    with pytest.raises(Invalid, match="no unit"):
        erase(str(bench.folder), "")


def test_a_sweep_deletes_by_what_files_say_and_by_what_is_set_now(bench, kit) -> None:
    bench.policies = {"feed": LogPolicy(retention_days=2), "chat": LogPolicy(retention_days=30)}
    for days in range(5):
        for endpoint in ("feed", "chat"):
            bench.records.requests.offer(kit.request(days, endpoint=endpoint, at_us=kit.NOW_US + days * DAY_US))
    bench.flush()
    url, now = str(bench.folder), kit.NOW_US / 1e6 + 4 * 86400
    assert sweep(url, now=now, dry_run=True).files == 2 and read(url, "requests").num_rows == 10
    swept = sweep(url, now=now)
    assert swept.files == 2 and swept.bytes > 0 and dict(swept.by_stream) == {"requests": 2}
    assert sorted(read(url, "requests", endpoint="feed")["inference_id"].to_pylist()) == ["i2", "i3", "i4"]
    assert sweep(url, now=now, retention={"chat": 0, "feed": 365}).files == 4
    assert read(url, "requests", endpoint="chat")["inference_id"].to_pylist() == ["i4"]


def test_a_unit_is_erased_from_every_stream_and_nobody_else_is(bench, kit) -> None:
    records, now = bench.records, kit.NOW_US
    for unit in ("u1", "u2"):
        for number, endpoint in enumerate(("feed", "chat")):
            records.requests.offer(kit.request(f"{unit}{number}", endpoint=endpoint, unit=unit))
        records.exposures.offer((now, f"i{unit}0", "feed", "e", "new", "user_id", unit, 7))
        records.events.offer((now, f"e{unit}", "user_id", unit, "click", 1.0, "", ""))
        records.shadows.offer((now, f"i{unit}0", "feed", "feed/9", 9, 7, 1, 2, "ok", "{}", ""))
        records.shadows.offer((now, "elsewhere", "chat", "feed/9", 9, 7, 1, 2, "ok", "{}", unit))
    bench.flush()
    url = str(bench.folder)
    only_feed = erase(url, "u1", "feed")
    assert dict(only_feed.rows) == {"requests": 1, "exposures": 1, "shadows": 1}
    assert dict(erase(url, "u1").rows) == {"requests": 1, "events": 1, "shadows": 1}
    assert erase(url, "u1").files == 0
    for stream, left in (("requests", 2), ("exposures", 1), ("events", 1), ("shadows", 2)):
        assert read(url, stream).num_rows == left
    assert set(read(url, "requests")["unit"].to_pylist()) == {"u2"}
    notes = [json.loads(path.read_text()) for path in (bench.folder / "erasures").iterdir()]
    assert len(notes) == 3 and all("u1" not in json.dumps(note) for note in notes)
    # A rewritten file still tells a killed door's next start what it had written.
    bench.kill()
    bench.begin()
    assert bench.records.accounts()["requests"].written == 4


def test_an_erased_file_is_never_seen_half(bench, kit, monkeypatch) -> None:
    for number in range(3):
        bench.records.requests.offer(kit.request(number, unit=f"u{number}"))
    bench.flush()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "io")))
    with pytest.raises(OSError, match="io"):
        erase(str(bench.folder), "u1")
    monkeypatch.undo()
    assert read(str(bench.folder), "requests").num_rows == 3
    assert list(bench.folder.glob("**/.d-*")) == []


def test_the_thread_writes_by_itself_and_closing_writes_the_rest(tmp_path: Path, kit) -> None:
    records = Records(str(tmp_path / "r"), door="d", settings=FAST)
    records.start()
    for number in range(10):
        records.requests.offer(kit.request(number))
    assert records.flush()
    assert read(records.url, "requests").num_rows == 10
    registry = CollectorRegistry()
    registry.register(records)
    text = generate_latest(registry).decode()
    assert 'rml_records_written_total{stream="requests"} 10.0' in text and "rml_records_failing" in text
    records.exposures.offer((kit.NOW_US, "i", "feed", "e", "a", "user_id", "u", 1))
    asyncio.run(records.close())
    assert read(records.url, "exposures").num_rows == 1
    assert not records.requests.offer(kit.request())
    account = read_accounts(records.url)["d"]["requests"]
    assert account.balanced and dict(account.dropped) == {"closed": 1}


def test_a_disk_that_never_answers_holds_up_neither_offers_nor_the_end(tmp_path: Path, kit) -> None:
    from roblox_ml_core.records.writer import Disk

    stuck, entered = threading.Event(), threading.Event()

    class Stuck(Disk):
        def put(self, path: str, data: bytes) -> None:
            entered.set()
            stuck.wait(30)
            super().put(path, data)

    layout = Layout(str(tmp_path / "r"))
    records = Records(
        layout.url, door="d", settings=FAST.model_copy(update={"buffer_rows": 5}), disk=Stuck(layout)
    )  # fmt: skip
    records.start()
    records.requests.offer(kit.request(0))
    assert entered.wait(10)
    assert [records.requests.offer(kit.request(n)) for n in range(1, 7)] == [True] * 4 + [False] * 2
    asyncio.run(records.close(timeout=0.05))
    account = records.accounts()["requests"]
    assert account.balanced and account.buffered == 5 and dict(account.dropped) == {"full": 2}
    stuck.set()


def test_a_bucket_gets_what_is_safe_here_first(tmp_path: Path, kit) -> None:
    url = f"memory://records-{tmp_path.name}"
    records = Records(url, door="d", settings=FAST, spool=str(tmp_path / "spool"))
    records.start()
    records.requests.offer(kit.request())
    asyncio.run(records.close())
    assert records.shipper is not None and records.shipper.pending() == 0
    assert read(url, "requests")["inference_id"].to_pylist() == ["i0"]
    assert read_accounts(url)["d"]["requests"].written == 1
    assert erase(url, "u1").rows == {"requests": 1} and read(url, "requests").num_rows == 0


def test_a_bucket_that_is_away_loses_nothing(tmp_path: Path, kit, monkeypatch) -> None:
    url = f"memory://away-{tmp_path.name}"
    records = Records(url, door="d", settings=FAST, spool=str(tmp_path / "spool"))
    put = Layout.put
    monkeypatch.setattr(
        Layout, "put", lambda self, path, data: (_ for _ in ()).throw(OSError("away")) if self.local is None else put(self, path, data)
    )  # fmt: skip
    records.start()
    records.requests.offer(kit.request())
    asyncio.run(records.close())
    assert records.shipper is not None and records.shipper.pending() == 1 and records.shipper.failing
    monkeypatch.undo()
    records = Records(url, door="d", settings=FAST, spool=str(tmp_path / "spool"))
    records.start()
    asyncio.run(records.close())
    assert read(url, "requests").num_rows == 1


def test_the_null_records_have_the_same_names() -> None:
    null, names = NullRecords(), {"requests", "exposures", "events", "shadows"}
    assert names <= set(vars(null)) and set(null.accounts()) == names
    assert not null.requests.offer((1,)) and not null.requests.sample("i", 10_000) and null.policy("x").rate == 0
    asyncio.run(null.close())
