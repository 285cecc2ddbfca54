"""Small files become few, and nobody sees a row twice or not at all, wherever a merge is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from roblox_ml_core.policy import LogPolicy
from roblox_ml_core.records import erase, merge, read, sweep
from roblox_ml_core.records.layout import Layout
from roblox_ml_core.records.retention import DAY_US


def fill(bench, kit, files: int, start: int = 0) -> None:
    for number in range(start, start + files):
        bench.records.requests.offer(kit.request(number, unit=f"u{number % 3}"))
        bench.flush()


def ids(bench) -> list[str]:
    return sorted(read(str(bench.folder), "requests", columns=["inference_id"])["inference_id"].to_pylist())


def names(bench) -> list[str]:
    return sorted(path.name for path in bench.folder.glob("requests/*/*/*.parquet"))


def test_merging_keeps_every_row_and_the_newest_file_of_a_door(bench, kit) -> None:
    fill(bench, kit, 12)
    before, newest = ids(bench), names(bench)[-1]
    assert merge(str(bench.folder)) == 10
    assert ids(bench) == before and len(names(bench)) == 2 and newest in names(bench)
    assert merge(str(bench.folder)) == 0
    fill(bench, kit, 9, start=12)
    assert merge(str(bench.folder)) == 9 and len(ids(bench)) == 21
    bench.kill()
    bench.begin()
    assert bench.records.accounts()["requests"].written == 21


@pytest.mark.parametrize("deleted", [0, 1, 6])
def test_an_interrupted_merge_shows_every_row_once_and_is_finished_by_the_next(
    bench, kit, monkeypatch, deleted: int
) -> None:
    fill(bench, kit, 10)
    before, left, delete = ids(bench), deleted, Layout.delete

    def interrupted(self: Layout, path: str) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        delete(self, path)

    monkeypatch.setattr(Layout, "delete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(str(bench.folder))
    monkeypatch.undo()
    assert ids(bench) == before and len(names(bench)) == 11 - deleted
    assert merge(str(bench.folder)) == 9 - deleted and ids(bench) == before and len(names(bench)) == 2


def test_an_erasure_after_an_interrupted_merge_finds_the_unit_in_both(bench, kit, monkeypatch) -> None:
    fill(bench, kit, 10)
    monkeypatch.setattr(Layout, "delete", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        merge(str(bench.folder))
    monkeypatch.undo()
    erase(str(bench.folder), "u1")
    assert "u1" not in read(str(bench.folder), "requests")["unit"].to_pylist() and len(ids(bench)) == 7
    merge(str(bench.folder))
    assert "u1" not in read(str(bench.folder), "requests")["unit"].to_pylist() and len(ids(bench)) == 7


def test_files_of_another_retention_or_day_stay_apart_and_are_swept_as_they_said(bench, kit) -> None:
    for days in (3, 30):
        bench.policies = {"feed": LogPolicy(retention_days=days)}
        fill(bench, kit, 9, start=100 * days)
    assert merge(str(bench.folder)) == 8 + 7
    sweep(str(bench.folder), now=kit.NOW_US / 1e6 + 10 * DAY_US / 1e6)
    assert len(ids(bench)) == 9 and all(name >= "i3000" for name in ids(bench))


def test_reading_while_merging_sees_all_rows_every_time(bench, kit) -> None:
    ended, counts = threading.Event(), []

    def look() -> None:
        while not ended.is_set():
            counts.append(len(set(ids(bench))))
            counts.append(len(ids(bench)))

    fill(bench, kit, 30)
    looking = threading.Thread(target=look)
    looking.start()
    try:
        _repeat(
            lambda: merge(str(bench.folder), min_files=2, wait=True), lambda n: fill(bench, kit, 3, start=30 + 3 * n)
        )
    finally:
        ended.set()
        looking.join()
    assert counts and min(counts) >= 30 and counts == sorted(counts)  # rows are only added


def _repeat(step: Callable[[], object], fill_one: Callable[[int], None]) -> None:
    for number in range(8):
        step()
        fill_one(number)
