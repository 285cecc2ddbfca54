"""`python -m benchmarks.router.load`: asks what a line of JSON on standard input says, and answers with a line of JSON.

A process of its own, so that it can be pinned. Each turn opens its own connections. Plans:

    {"address": "127.0.0.1:80", "path": "/…", "headers": {…}, "width": 16, "seconds": 2}        as fast as it goes
    {…, "rate": 1000}                                          evenly spaced; time counts from when a request was due
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from .http1 import end_of

UNITS = 4096
BODY = json.dumps(
    {
        "inputs": [
            {
                "name": "features",
                "datatype": "FP32",
                "shape": [1, 64],
                "data": [round(0.01 * at, 2) for at in range(64)],
            }
        ]
    }
).encode()


def requests_of(path: str, headers: Mapping[str, str], host: str, bodies: Sequence[str] = ()) -> list[bytes]:
    """The requests of `UNITS` different users: with the same body, or `bodies` in turn."""
    contents = [body.encode() for body in bodies] or [BODY]
    common = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return [
        (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{common}content-type: application/json\r\n"
            f"x-rml-unit: user-{unit * 7919 % 1_000_003}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for unit in range(UNITS)
        for body in [contents[unit % len(contents)]]
    ]


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Failed(Exception):
    """An answer was not 200, or a connection ended."""


def answer_of(connection: socket.socket, rest: bytes = b"") -> None:
    """Read one whole answer, which must be a 200."""
    data = rest
    while True:
        part = connection.recv(65536)
        if not part:
            raise Failed(f"the connection ended after {data[:200]!r}")
        data = data + part if data else part
        if end_of(data) >= 0:
            if data[9:12] != b"200":
                raise Failed(data[:300].decode("latin-1"))
            return


def alone(connection: socket.socket, requests: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
    """One connection, one request at a time: the times of answers."""
    clock = time.perf_counter
    times = []
    started = now = clock()
    turn = 0
    while now - started < seconds:
        sent = now
        connection.sendall(requests[turn % UNITS])
        answer_of(connection)
        now = clock()
        times.append(now - sent)
        turn += 1
    return times, now - started


def many(
    connections: Sequence[socket.socket], requests: Sequence[bytes], seconds: float, rate: float | None = None
) -> tuple[list[float], float]:
    """Several connections; as fast as answers come, or one request every 1/rate seconds on whichever is free."""
    clock = time.perf_counter
    by_number = {connection.fileno(): connection for connection in connections}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    times: list[float] = []
    sent: dict[int, float] = {}
    rest: dict[int, bytes] = {}
    free = deque(by_number)
    numbers = list(by_number)
    turn = 0
    started = now = clock()

    def send(number: int, due: float) -> None:
        nonlocal turn
        sent[number] = due
        by_number[number].sendall(requests[turn % UNITS])
        turn += 1

    if rate is None:
        while free:
            send(free.popleft(), clock())
    while now - started < seconds or sent:
        if rate is not None:
            while free and now - started < seconds and started + turn / rate <= now:
                send(free.popleft(), started + turn / rate)
            # epoll counts in milliseconds; select waits in microseconds.
            pause = started + turn / rate - clock() if free and now - started < seconds else 0.5
            select.select(numbers, (), (), max(0.0, pause))
        for number, _ in poll.poll(0 if rate is not None else -1):
            part = by_number[number].recv(65536)
            if not part:
                raise Failed("a connection ended")
            data = rest.pop(number) + part if number in rest else part
            if end_of(data) < 0:
                rest[number] = data
                continue
            if data[9:12] != b"200":
                raise Failed(data[:300].decode("latin-1"))
            now = clock()
            times.append(now - sent.pop(number))
            if rate is not None:
                free.append(number)
            elif now - started < seconds:
                send(number, now)
        now = clock()
    poll.close()
    return times, now - started


def run(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one plan."""
    requests = requests_of(plan["path"], plan["headers"], plan["address"], plan.get("bodies", ()))
    connections = [connect(plan["address"]) for _ in range(plan["width"])]
    try:
        for connection in connections:  # the hop opens its own connections now and not while it is measured
            connection.sendall(requests[0])
            answer_of(connection)
        cpu = time.process_time()
        if plan["width"] == 1 and plan.get("rate") is None:
            times, seconds = alone(connections[0], requests, plan["seconds"])
        else:
            times, seconds = many(connections, requests, plan["seconds"], plan.get("rate"))
    finally:
        for connection in connections:
            connection.close()
    times.sort()

    def at(share: float) -> float:
        return times[min(len(times) - 1, int(share * len(times)))] * 1e6

    return {
        "requests": len(times), "seconds": seconds, "p50_us": at(0.5), "p99_us": at(0.99),
        "cpu_us": (time.process_time() - cpu) / len(times) * 1e6,
    }  # fmt: skip


def main() -> None:
    """A plan a line, until standard input ends."""
    for line in sys.stdin:
        try:
            result = run(json.loads(line))
        except (Failed, OSError) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
