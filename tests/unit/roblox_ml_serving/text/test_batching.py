"""The laws of the queue: nothing is lost or overtaken for ever, batches keep their limits, the sums are right."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from roblox_ml_serving.text.batching import SHARE, TARGET_US, Cost, Queue, Row

BUCKETS = (8, 16, 32)
BATCH_TOKENS = 128


def rows_of(*lengths: int) -> list[Row]:
    return [Row(b"%d" % index, length) for index, length in enumerate(lengths)]


def queue_of(lanes: int = 1, call_us: float = 900.0, token_us: float = 190.0) -> Queue:
    return Queue(BUCKETS, BATCH_TOKENS, Cost(call_us, token_us), lanes)


def bucket(length: int) -> int:
    return next(upper for upper in BUCKETS if length <= upper)


class TheQueue(RuleBasedStateMachine):
    """The queue beside a plain list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue_of(lanes=2)
        self.waiting: list[Row] = []
        self.taken: list[Row] = []
        self.now = 0.0

    @rule(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=40))
    def add(self, lengths: list[int]) -> None:
        rows = rows_of(*lengths)
        self.queue.add(rows, self.now)
        dues = [row.due for row in rows]
        assert dues[0] == self.now and dues == sorted(dues)
        self.waiting += rows

    @rule(seconds=st.sampled_from([0.0001, 0.01, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data) -> None:
        row = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(row)
        self.queue.drop(row)
        self.queue.drop(row)  # twice is once

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data) -> None:
        row = data.draw(st.sampled_from(self.taken))
        self.taken.remove(row)
        due = row.due
        self.queue.put_back([row], self.now)
        assert row.due == due
        self.waiting.append(row)

    @rule(idle=st.integers(1, 2))
    def take(self, idle: int) -> None:
        first = min((row.due for row in self.waiting), default=None)
        batch = self.queue.take(self.now, idle)
        if batch is None:
            assert first is None
            return
        assert min(row.due for row in batch.rows) == first  # the one that has waited longest is always among them
        assert len({bucket(row.length) for row in batch.rows}) == 1
        assert batch.width == max(row.length for row in batch.rows)
        assert len(batch.rows) == 1 or batch.width * len(batch.rows) <= BATCH_TOKENS
        assert 0 <= batch.padding < 1
        assert len(set(map(id, batch.rows))) == len(batch.rows)
        for row in batch.rows:
            self.waiting.remove(row)  # raises for what did not wait
        self.taken += batch.rows

    @invariant()
    def sums(self) -> None:
        assert self.queue.rows == len(self.waiting)
        work = sum(self.queue.cost.row_us(row.length) for row in self.waiting)
        due = sum(self.queue.cost.row_us(row.length) for row in self.waiting if row.due <= self.now)
        assert abs(self.queue.work_us - work) <= 1e-6 * (work + 1)
        assert abs(self.queue.due_us(self.now) - due) <= 1e-6 * (due + 1)


TestTheQueue = TheQueue.TestCase
TestTheQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(seed=st.integers(0, 1000), share=st.floats(0.5, 0.99))
@settings(max_examples=20, deadline=None)
def test_a_large_request_ends_although_small_ones_never_stop_coming(seed: int, share: float) -> None:
    """One lane; small requests use `share` of it for as long as the large one waits."""
    draw = random.Random(seed)
    queue = queue_of()
    cost = queue.cost
    large = rows_of(*(draw.randint(1, 32) for _ in range(200)))
    alone_s = sum(cost.row_us(row.length) for row in large) * 1e-6
    queue.add(large, 0.0)
    now = credit = 0.0
    left = len(large)
    while left:
        batch = queue.take(now, 1)
        assert batch is not None
        spent = cost.batch_us(len(batch.rows), batch.width) * 1e-6
        left -= sum(row.owner is None for row in batch.rows)
        now += spent
        credit += spent * share
        assert now < 20 * alone_s / (1 - share), "starved"
        while credit > 0:
            row = Row(b"s", draw.randint(1, 32), owner="small")
            credit -= cost.row_us(row.length) * 1e-6
            queue.add([row], now)


def test_small_requests_pass_a_large_one() -> None:
    queue = queue_of()
    queue.add(rows_of(*[16] * 1000), 0.0)
    now = 0.0
    for _ in range(5):
        batch = queue.take(now)
        assert batch is not None
        now += 0.025
    small = Row(b"small", 32)  # in a bucket of its own
    queue.add([small], now)
    turns = 0
    while small.is_waiting:
        assert turns < 3, "a thousand rows must not stand before one"
        assert queue.take(now) is not None
        now += 0.025
        turns += 1
    assert SHARE >= 1


def test_company_is_of_the_same_length_before_the_nearest_one_of_the_bucket() -> None:
    queue = queue_of(call_us=0, token_us=100)
    first, near, far, same, other = (Row(b"", length) for length in (12, 13, 14, 12, 8))
    for row in (first, other, far, near, same):
        queue.add([row], 0.0)
    batch = queue.take(1.0)
    assert batch is not None
    assert list(batch.rows) == [first, same, near, far]  # `other` lies in another bucket
    assert queue.rows == 1


def test_a_batch_takes_about_the_target_and_more_only_when_the_line_is_long() -> None:
    queue = queue_of(call_us=1000, token_us=500)  # 16 tokens: 8 ms
    queue.add(rows_of(*[16] * 4), 0.0)
    batch = queue.take(0.0)
    assert batch is not None
    assert queue.cost.batch_us(len(batch.rows), batch.width) <= TARGET_US < queue.cost.batch_us(len(batch.rows) + 1, 16)
    for _ in range(100):
        queue.add(rows_of(16), 0.0)
    batch = queue.take(0.0)
    assert batch is not None
    assert len(batch.rows) == BATCH_TOKENS // 16  # nearly a second of work waits: calls as large as the engine takes


def test_idle_lanes_share_what_there_is() -> None:
    queue = queue_of(lanes=4)
    queue.add(rows_of(*[16] * 8), 0.0)
    sizes = []
    for idle in (4, 3, 2, 1):
        batch = queue.take(0.0, idle)
        sizes.append(0 if batch is None else len(batch.rows))
    assert sizes == [2, 2, 2, 2]


def test_what_is_dropped_is_let_go_of() -> None:
    queue = queue_of()
    for _ in range(300):
        rows = rows_of(*[16] * 50)
        queue.add(rows, 0.0)
        for row in rows:
            queue.drop(row)
    assert queue.rows == 0 and queue.take(0.0) is None
    assert queue._entries < 400


@given(measured=st.lists(st.floats(1.0, 1e9), max_size=50))
def test_no_measurement_makes_the_expected_time_absurd(measured: list[float]) -> None:
    cost = Cost(900, 190)
    for one in measured:
        cost.learn(4, 16, one)
        assert 0.02 <= cost.correction <= 50


def test_the_expected_time_follows_what_is_measured() -> None:
    cost = Cost(900, 190)
    truth = 3 * cost.batch_us(4, 16)
    for _ in range(100):
        cost.learn(4, 16, truth)
    assert abs(cost.correction * cost.batch_us(4, 16) / truth - 1) < 0.01


def test_rows_that_the_engine_pads_to_one_width_travel_in_the_order_they_came() -> None:
    queue = Queue(BUCKETS, BATCH_TOKENS, Cost(0, 100), width=lambda length: -(-length // 4) * 4)
    rows = rows_of(16, 13, 12, 15)
    for index, row in enumerate(rows):
        queue.add([row], index / 1000)
    batch = queue.take(1.0)
    assert batch is not None
    assert (list(batch.rows), batch.width) == ([rows[0], rows[1], rows[3], rows[2]], 16)
    assert batch.padding == 1 - (16 + 13 + 12 + 15) / 64


def test_padding_never_costs_more_than_a_batch_of_its_own() -> None:
    queue = queue_of(call_us=1000, token_us=100)
    short, long = rows_of(*[9] * 8), Row(b"long", 16)
    for row in (*short, long):
        queue.add([row], 0.0)
    batch = queue.take(1.0)
    assert batch is not None and list(batch.rows) == short  # eight rows of seven more tokens each: 5.6 ms for nothing
    queue.add([short[0]], 0.0)
    batch = queue.take(1.0)
    assert batch is not None and set(batch.rows) == {short[0], long}  # one such row is cheaper than one more call
