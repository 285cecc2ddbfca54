"""`offered = written + buffered + dropped + sampled_out + lost`, whatever happens, and files hold what counts as written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roblox_ml_core.records import is_sampled, read, read_accounts

STEP = st.one_of(
    st.tuples(st.just("offer"), st.integers(1, 9), st.sampled_from(["feed", "other", "../evil", 7])),
    st.tuples(st.just("bad"), st.sampled_from(["version", "unit", "at_us", "short"])),
    st.tuples(st.just("body"), st.integers(0, 60)),
    st.tuples(st.just("sample"), st.integers(0, 10_000)),
    st.tuples(st.just("disk"), st.sampled_from(["fine", "full", "killed"])),
    st.just(("flush",)),
    st.just(("kill",)),
    st.just(("end",)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_any_sequence_of_offers_flushes_failures_and_kills(kit, steps) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        _run(kit, folder, steps)
    finally:
        shutil.rmtree(folder)


def _run(kit, folder: Path, steps) -> None:
    bench = kit.Bench(folder, buffer_rows=12, buffer_bytes=100, flush_rows=5)
    offered = sampled = number = 0
    accepted: set[str] = set()

    def offer(**fields) -> None:
        nonlocal number, offered
        number += 1
        offered += 1
        if bench.records.requests.offer(kit.request(number, **fields)):
            accepted.add(f"i{number}")

    def restart() -> None:
        bench.kill()
        if bench.disk.mood == "killed":
            bench.disk.mood = "fine"
        bench.begin()

    for step in steps:
        match step:
            case ("offer", count, endpoint):
                for _ in range(count):
                    offer(endpoint=endpoint)
            case ("bad", "short"):
                offered += 1
                assert not bench.records.requests.offer((1, 2))
            case ("bad", field):
                offer(**{field: {"version": "seven", "unit": "\ud800", "at_us": "now"}[field]})
            case ("body", size):
                offer(request=b"x" * size, response=b"")
            case ("sample", rate):
                number += 1
                if not bench.records.requests.sample(f"s{number}", rate):
                    offered += 1
                    sampled += 1
            case ("disk", mood):
                bench.disk.mood = mood
            case ("flush",):
                try:
                    bench.flush()
                except kit.Killed:
                    restart()
            case ("kill",):
                restart()
            case ("end",):
                try:
                    bench.flush()
                except kit.Killed:
                    restart()
                for writer in bench.records.writers.values():
                    writer.give_up()
        account = bench.records.accounts()["requests"]
        assert account.balanced
        assert (account.offered, account.sampled_out) == (offered, sampled)
        assert account.buffered <= 12 and bench.records.requests.buffered_bytes <= 100
    found = read(str(folder), "requests", columns=["inference_id"])["inference_id"].to_pylist()
    assert len(found) == bench.records.accounts()["requests"].written
    assert len(set(found)) == len(found) and set(found) <= accepted
    bench.kill()


def test_a_kill_costs_what_was_in_memory_and_the_next_start_says_how_much(bench, kit) -> None:
    for number in range(5):
        bench.records.requests.offer(kit.request(number))
    bench.flush()
    for number in range(5, 8):
        bench.records.requests.offer(kit.request(number))
    bench.kill()
    assert read_accounts(str(bench.folder))["d"]["requests"].buffered == 3  # nobody has them any more, nobody knows yet
    bench.begin()
    account = bench.records.accounts()["requests"]
    assert (account.offered, account.written, account.lost, account.buffered) == (8, 5, 3, 0)
    bench.kill()
    bench.begin()  # nothing is counted twice
    assert bench.records.accounts()["requests"] == account


def test_a_file_written_just_before_the_kill_counts_as_written(bench, kit) -> None:
    for number in range(4):
        bench.records.requests.offer(kit.request(number))
    bench.disk.mood = "killed"
    with pytest.raises(kit.Killed):
        bench.flush()
    bench.kill()
    bench.disk.mood = "fine"
    bench.begin()
    account = bench.records.accounts()["requests"]
    assert (account.offered, account.written, account.lost) == (4, 4, 0)
    assert read(str(bench.folder), "requests").num_rows == 4


def test_a_full_disk_costs_nothing_until_memory_is_full_and_is_named_then(tmp_path, kit) -> None:
    bench = kit.Bench(tmp_path / "records", buffer_rows=10)
    bench.disk.mood = "full"
    for number in range(6):
        assert bench.records.requests.offer(kit.request(number))
    bench.flush()
    kept = [bench.records.requests.offer(kit.request(number)) for number in range(6, 16)]
    assert kept == [True] * 4 + [False] * 6
    bench.flush()
    assert dict(bench.records.accounts()["requests"].dropped) == {"disk": 6}
    bench.disk.mood = "fine"
    bench.flush()
    assert bench.records.requests.offer(kit.request(99)) and not bench.records.requests.failing
    bench.flush()
    account = bench.records.accounts()["requests"]
    assert (account.offered, account.written, account.buffered) == (17, 11, 0)


def test_a_slow_disk_is_called_full(tmp_path, kit) -> None:
    bench = kit.Bench(tmp_path / "records", buffer_rows=3, buffer_bytes=50)
    for number in range(5):
        bench.records.requests.offer(kit.request(number))
    bench.records.events.offer((kit.NOW_US, "e", "user_id", "u", "click", 1.0, "", "x" * 51))
    assert dict(bench.records.accounts()["requests"].dropped) == {"full": 2}
    assert dict(bench.records.accounts()["events"].dropped) == {"bytes": 1}


def test_one_bad_row_costs_one_row(bench, kit) -> None:
    for number in range(100):
        bench.records.requests.offer(kit.request(number, version="x" if number == 41 else 1))
    bench.flush()
    account = bench.records.accounts()["requests"]
    assert (account.written, dict(account.dropped)) == (99, {"invalid": 1})


def test_a_second_door_of_the_same_name_gets_another_and_both_are_counted(bench, kit) -> None:
    other = kit.Bench(bench.folder)
    assert (bench.records.door, other.records.door) == ("d", "d~2")
    for one in (bench, other):
        one.records.requests.offer(kit.request())
        one.flush()
    assert read(str(bench.folder), "requests").num_rows == 2
    assert {door: streams["requests"].written for door, streams in read_accounts(str(bench.folder)).items()} == {
        "d": 1, "d~2": 1,
    }  # fmt: skip


def test_lost_counters_never_replace_a_file(bench, kit) -> None:
    bench.records.requests.offer(kit.request(1))
    bench.flush()
    bench.kill()
    (bench.folder / "accounts" / "d.counters").unlink()
    bench.begin()
    bench.records.requests.offer(kit.request(2))
    bench.flush()
    assert sorted(read(str(bench.folder), "requests")["inference_id"].to_pylist()) == ["i1", "i2"]
    assert bench.records.accounts()["requests"].balanced


def test_sampling_is_by_inference_id_and_keeps_its_share() -> None:
    kept = [is_sampled(f"id-{number}", 2500) for number in range(20_000)]
    assert kept == [is_sampled(f"id-{number}", 2500) for number in range(20_000)]
    assert abs(sum(kept) / 20_000 - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    assert all(is_sampled(f"id-{n}", 10_000) for n in range(99)) and not any(
        is_sampled(f"id-{n}", 0) for n in range(99)
    )
