"""The load generator against servers whose behaviour is known exactly."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.trial import Traffic, closed_loop, open_loop, rest_json, rest_texts
from roblox_ml_serving.trial.generator import Recorder, arrivals, opened, quantile
from roblox_ml_serving.trial.load import LoadFailed


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what it was sent; a body that holds "busy" is refused, one that holds "gone" closes the connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(body)  # type: ignore[attr-defined]
        if b"gone" in body:
            self.close_connection = True
            return
        self.send_response(429 if b"busy" in body else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_closed_loop_asks_as_often_as_told_and_counts_what_came(server) -> None:
    bodies = [b'"a"', b'"busy"', b'"gone"', b'"d"']
    readings = iter([{"server": 1.0}, {"server": 3.5}])
    found = closed_loop(
        rest_json(url(server), "/x", bodies), workers=3, requests=40, warmup=5, keep=4, cpu=lambda: next(readings)
    )
    assert found.requests == 40 and len(server.seen) == 45
    assert (found.answered, found.refused, found.failed) == (20, 10, 10)
    assert found.answers == (b'"a"', b'"busy"', b"", b'"d"')
    assert found.cpu == {"server": 2.5} and found.cpu_ms_per_inference == pytest.approx(125)
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms and found.refused_p99_ms > 0
    json.dumps(found.to_json())


def test_an_open_loop_sends_what_is_due_whatever_the_server_does(server) -> None:
    found = open_loop(rest_json(url(server), "/x", [b"1", b"busy"]), rate=300, seconds=0.5, seed=3)
    due = len(arrivals(300, 0.5, 3))
    assert found.requests == due == len(server.seen)
    assert found.answered == (due + 1) // 2 and found.refused == due // 2
    assert found.offered_per_second == 300


def test_a_latency_counts_from_the_moment_the_request_was_due() -> None:
    async def at_once(_: bytes) -> tuple[str, bytes]:
        return "200", b""

    recorder = Recorder(0)
    plan = {"rate": 20, "seconds": 2.0, "seed": 1}
    asyncio.run(opened(at_once, [b"1"], plan, recorder))
    # From the start of the load the last one would have taken its whole moment, about two seconds.
    assert len(recorder.answered) == len(arrivals(20, 2.0, 1)) and recorder.answered[-1] < 1000


def test_nobody_listening_is_counted_not_raised(free_port) -> None:
    found = closed_loop(rest_json(f"127.0.0.1:{free_port()}", "/x", [b"1"]), workers=2, requests=4, timeout_s=2)
    assert found.failed == 4 and found.statuses == {"ConnectFailed": 4}


def test_a_generator_that_cannot_start_says_why() -> None:
    with pytest.raises(LoadFailed, match="no upstream address"):
        closed_loop(Traffic("rest", "ftp://x", "/", [b"1"]), workers=1, requests=1)


def test_texts_fill_whole_requests() -> None:
    traffic = rest_texts("http://h:1", "m", ["a", "ü", "c"], rows=2)
    (body,) = traffic.bodies
    assert traffic.address == "h:1" and traffic.path == "/v2/models/m/infer"
    assert json.loads(body)["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["a", "ü"]}]
    with pytest.raises(ValueError, match="do not fill"):
        rest_texts("http://h:1", "m", ["a"], rows=2)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_is_the_least_value_that_covers_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    covered = sum(value <= found for value in ordered)
    below = sum(value < found for value in ordered)
    assert covered >= share * len(ordered) - 1e-9 and below < share * len(ordered) + 1e-9


@given(st.floats(10, 2000), st.integers(0, 5))
def test_arrivals_are_ordered_within_the_time_and_repeat(rate: float, seed: int) -> None:
    found = arrivals(rate, 1.0, seed)
    assert found == sorted(found) == arrivals(rate, 1.0, seed)
    assert found[0] >= 0 and found[-1] < 1.0
    assert abs(len(found) - rate) < 6 * rate**0.5 + 3  # six standard deviations of a Poisson count
