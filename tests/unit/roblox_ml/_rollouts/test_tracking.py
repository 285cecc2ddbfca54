"""Outcomes arrive once each, whatever the door does; what is wrong is said to the one who said it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._rollouts import sending, tracking
from roblox_ml._rollouts.wishes import WishError
from roblox_ml.errors import NotRunning, RemoteError

EVENTS = "/v1/track"
AT, ID, KIND, UNIT, EVENT, VALUE = range(6)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread in the background sleeps through the test: what is sent, and when, is the test's."""
    monkeypatch.setattr(sending, "_EVERY_S", 3600.0)


def test_what_is_tracked_arrives_with_an_id_and_a_time(door: Any) -> None:
    when = datetime.now(UTC)
    assert rml.track("click", unit="user-1") and rml.track("buy", unit=17, value=4.99, at=when, id="order-1")
    counts = rml.track_flush()
    assert counts == {"offered": 2, "sent": 2, "dropped": 0, "waiting": 0}
    first, second = door.rows[EVENTS]
    assert (first[KIND], first[UNIT], first[EVENT], first[VALUE]) == ("user_id", "user-1", "click", 1.0)
    assert (second[UNIT], second[VALUE], second[ID], second[AT]) == ("17", 4.99, "order-1", int(when.timestamp() * 1e6))
    assert len(first[ID]) == 32


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"unit": ""}, "unit"),
        ({"unit": None}, "unit"),
        ({"unit": "a\nb"}, "printable"),
        ({"unit": "u" * 300}, "256"),
        ({"value": math.nan}, "not JSON"),
        ({"value": math.inf}, "not JSON"),
        ({"value": "4"}, "number"),
        ({"event": "two words"}, "event"),
        ({"at": datetime(2026, 1, 1)}, "time zone"),
        ({"at": 1e9}, "35 days"),
        ({"attributes": {"note": "x" * 3000}}, "2048"),
        ({"attributes": {"note": object()}}, "not JSON"),
    ],
)
def test_what_is_wrong_is_said_at_once_and_spoils_nothing(door: Any, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(WishError, match=said):
        rml.track(**{"event": "click", "unit": "u", **wrong})
    rml.track("click", unit="u")
    assert rml.track_flush()["sent"] == 1 == len(door.rows[EVENTS])


def test_a_frame_is_tracked_whole_or_not_at_all(door: Any) -> None:
    frame = pd.DataFrame(
        {"event": ["a", "b"], "unit": np.array([1, 2]), "value": [1.5, 2], "inference_id": ["i1", None]}
    )
    assert rml.track_many(frame) == 2
    assert rml.track_flush()["sent"] == 2
    assert [(row[UNIT], row[EVENT], row[VALUE], row[6]) for row in door.rows[EVENTS]] == [
        ("1", "a", 1.5, "i1"), ("2", "b", 2.0, ""),
    ]  # fmt: skip
    holes = pd.DataFrame(
        {"event": ["a"], "unit": pd.array([7], dtype="Int64"), "value": pd.array([None], dtype="Int64"), "at": [pd.NaT]}
    )
    assert rml.track_many(holes) == 1 and rml.track_flush()["offered"] == 3
    with pytest.raises(WishError, match="row 1"):
        rml.track_many([{"event": "a", "unit": "u"}, {"event": "a", "unit": "u", "value": math.inf}])
    with pytest.raises(WishError, match="row 0 has user"):
        rml.track_many([{"event": "a", "user": "u"}])
    assert rml.track_flush()["offered"] == 3


def test_a_door_that_comes_back_gets_everything_once(door: Any) -> None:
    for number in range(5):
        rml.track("click", unit=f"u{number}")
    door.answers[:] = [503, 503, 503]
    with pytest.raises(NotRunning, match="5 outcomes go on waiting"):
        rml.track_flush()
    door.answers[:] = [503, 429]  # refused twice, taken the third time: that is no failure
    assert rml.track_flush() == {"offered": 5, "sent": 5, "dropped": 0, "waiting": 0}
    assert [row[UNIT] for row in door.rows[EVENTS]] == [f"u{number}" for number in range(5)]
    assert len({row[ID] for row in door.rows[EVENTS]}) == 5


def test_a_batch_that_is_refused_is_dropped_and_counted(door: Any) -> None:
    rml.track("click", unit="u")
    door.answers[:] = [403]
    with pytest.raises(RemoteError, match="lost"):
        rml.track_flush()
    rml.track("click", unit="u")
    assert rml.track_flush() == {"offered": 2, "sent": 1, "dropped": 1, "waiting": 0}


def test_the_line_is_bounded_and_sent_in_batches(door: Any) -> None:
    tracker = sending.Sender(lambda: door.url, most=4500)
    line = tracking._line("click", "u", 1.0, "user_id", None, None, None, {"note": "x" * 1000})
    took = sum(tracker.offer(line) for _ in range(5000))
    assert took == 4500 and tracker.counts["dropped"] == 500
    assert tracker.flush() == {"offered": 5000, "sent": 4500, "dropped": 500, "waiting": 0}
    assert sum(door.posts) == 4500 and max(door.posts) * len(line) <= 1_000_000 and len(door.posts) > 3


def in_a_fork(work: Callable[[], bool]) -> None:
    child = os.fork()
    if not child:  # pragma: no cover - another process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # one that waits for a lock for ever is a failure, not a hang
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_process_sends_its_own(door: Any) -> None:
    rml.track("before", unit="u")

    def work() -> bool:
        rml.track("after", unit="u")
        return rml.track_flush() == {"offered": 1, "sent": 1, "dropped": 0, "waiting": 0}

    in_a_fork(work)
    assert rml.track_flush()["sent"] == 1
    assert [row[EVENT] for row in door.rows[EVENTS]] == ["after", "before"], "each by the process that said it, once"


def test_a_process_forked_while_another_thread_sends_waits_for_nobody(door: Any) -> None:
    sender = tracking._tracker()
    with sender._lock, sender._sending:  # as held by the thread that sends, which a child does not have
        in_a_fork(lambda: rml.track("click", unit="u") and rml.track_flush()["sent"] == 1)
    assert len(door.rows[EVENTS]) == 1


def _say_one() -> None:
    rml.track("click", unit="u")


def test_a_worker_of_multiprocessing_sends_before_it_ends(door: Any) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_say_one)
    worker.start()
    worker.join(20)
    assert worker.exitcode == 0 and len(door.rows[EVENTS]) == 1


def test_what_ends_sends_or_counts_what_waits(door: Any) -> None:
    line = tracking._line("click", "u", 1.0, "user_id", None, None, None, None)
    sender = sending.Sender(lambda: door.url)
    assert sender.offer(line) and sender.close() == {"offered": 1, "sent": 1, "dropped": 0, "waiting": 0}
    assert not sender.offer(line) and sender.accounts()["dropped"] == 1
    unheard = sending.Sender(lambda: "http://127.0.0.1:9")
    unheard.offer(line)
    assert unheard.close(0.2) == {"offered": 1, "sent": 0, "dropped": 1, "waiting": 0}


class Answers:
    """A door in this process: a status each, None for nobody there; what was taken, in order."""

    def __init__(self) -> None:
        self.next: list[int | None] = []
        self.taken: list[int] = []
        self.lost: list[int] = []

    def post(self, url: str, *, content: bytes, headers: Any, timeout: float) -> httpx.Response:
        status = self.next.pop(0) if self.next else 202
        if status is None:
            raise httpx.ConnectError("nobody there")
        rows = json.loads(content)["events"]
        if status == 202:
            self.taken += rows
        elif status < 500 and status != 429:
            self.lost += rows
        return httpx.Response(status, json={"accepted": len(rows)})


@given(
    most=st.integers(1, 8),
    steps=st.lists(
        st.tuples(st.integers(0, 6), st.lists(st.sampled_from([202, 403, 429, 503, None]), max_size=5)), max_size=8
    ),
)
def test_whatever_the_door_answers_the_counts_add_up_and_nothing_comes_twice(most: int, steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending.time, "sleep", lambda seconds: None)
        patch.setattr(sending, "_BATCH", 3)
        patch.setattr(sending.Sender, "_run", lambda self: None)
        door, sender = Answers(), sending.Sender(lambda: "http://127.0.0.1:9", most=most)
        sender._http = door
        said = took = 0
        for offered, statuses in steps:
            for _ in range(offered):
                took += sender.offer(b"%d" % said)
                said += 1
            door.next[:] = statuses
            try:
                assert sender.flush()["waiting"] == 0
            except (NotRunning, RemoteError):
                assert statuses
            counts = sender.accounts()
            assert counts["offered"] == said == counts["sent"] + counts["dropped"] + counts["waiting"]
            assert counts["sent"] == len(door.taken) and counts["waiting"] == took - len(door.taken) - len(door.lost)
            assert sorted(door.taken) == door.taken and not set(door.taken) & set(door.lost)
        door.next.clear()
        assert sender.close()["waiting"] == 0 and len(set(door.taken)) == len(door.taken)
