"""The pure parts of the router's benchmark: where a message ends, medians, ratios, the policy that it decides by."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.policy import decide, read_policy

from benchmarks.router import load
from benchmarks.router.chain import chain_table
from benchmarks.router.hops import envoy_config
from benchmarks.router.http1 import end_of
from benchmarks.router.policy import ENDPOINT, LAYERS, PER_LAYER, snapshot
from benchmarks.router.results import Row, Turn, figures, judged, last_line, row_of, table
from benchmarks.router.stub import RAW


def response(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@given(st.binary(max_size=60), st.binary(max_size=60), st.data())
def test_a_message_ends_where_its_length_says(body: bytes, behind: bytes, data: st.DataObject) -> None:
    whole = response(body)
    assert end_of(whole + behind) == len(whole)
    assert end_of(whole[: data.draw(st.integers(0, len(whole) - 1))]) == -1


def test_chunked_and_empty_messages_end_too() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert end_of(chunked) == len(chunked)
    assert end_of(chunked[:-1]) == -1
    assert end_of(b"HTTP/1.1 204 No Content\r\n\r\nrest") == 27


def turn(cpu: float, p50: float = 100.0, rps: float = 1000.0) -> Turn:
    return Turn(p50, cpu, rps, cpu, 0.5, p50, p50, 500.0)


def test_rows_are_medians_figure_by_figure() -> None:
    found = row_of("door", [turn(30, 90), turn(50, 100), turn(40, 400)]).turn
    assert found is not None
    assert (found.cpu, found.p50_alone) == (40, 100)


def test_figures_compare_with_what_was_there() -> None:
    rows = {
        "direct": row_of("direct", [turn(0, 25)] * 3),
        # The second round was slow for everybody: each comparison is of one round.
        "envoy": row_of("envoy", [turn(20), turn(80), turn(20)]),
        "door": row_of("door", [turn(40, 70, 12_000), turn(160, 270, 3_000), turn(40, 70, 12_000)]),
        "nginx": Row("nginx", None, "no nginx"),
        "kserve-transformer": row_of("kserve-transformer", [turn(4000), turn(4000), turn(4000)]),
    }
    found = figures(rows)
    assert found == {
        "router_cpu_us": 40, "router_added_p50_us": 45, "router_rps_core": 25_000,
        "ratio_cpu_vs_kserve_transformer": 100, "ratio_cpu_vs_envoy": 2, "ratio_cpu_vs_nginx": None,
    }  # fmt: skip
    assert judged(found) == ["ratio_cpu_vs_envoy is 2.0, wanted at most 1.5"]
    line = last_line(found, rows, {})
    assert "ratio_cpu_vs_nginx" not in line  # absent, never zero
    assert line["kserve_transformer_cpu_us"] == 4000
    assert any("absent: no nginx" in text for text in table(rows))


def test_a_chain_that_could_not_be_measured_says_why() -> None:
    assert chain_table({"absent": "no Triton"}) == ["The whole chain: absent: no Triton"]


def test_every_user_is_in_every_layer_and_both_versions_answer() -> None:
    policy = read_policy(snapshot("127.0.0.1:1")["policy"])
    assert policy.findings == ()
    assert len(policy.experiments) == LAYERS * PER_LAYER == 32
    decisions = [decide(policy, ENDPOINT, f"user-{unit}") for unit in range(200)]
    assert all(len(decision.arms) == LAYERS for decision in decisions)
    assert {decision.ref.key for decision in decisions} == {"feed/1", "feed/2"}


def test_requests_differ_in_their_user_and_have_some_500_bytes() -> None:
    asked = load.requests_of("/v2/models/feed/infer", {"authorization": "Bearer x"}, "host")
    assert len(set(asked)) == load.UNITS
    assert all(end_of(request) == len(request) for request in asked)
    assert 300 < len(load.BODY) < 700
    assert end_of(RAW) == len(RAW)


@pytest.mark.parametrize(("width", "rate"), [(1, None), (4, None), (4, 200.0)])
def test_the_generator_counts_every_answer(width: int, rate: float | None) -> None:
    """Against a server of threads that answers in two parts."""
    served = []

    def serve(connection: socket.socket) -> None:
        with connection:
            data = b""
            while part := connection.recv(65536):
                data += part
                while (end := end_of(data)) >= 0:
                    data = data[end:]
                    served.append(1)
                    connection.sendall(RAW[:50])
                    connection.sendall(RAW[50:])

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    plan = {"address": f"127.0.0.1:{listening.getsockname()[1]}", "path": "/", "headers": {}, "seconds": 0.2}
    result = load.run({**plan, "width": width, "rate": rate})
    listening.close()
    assert result["requests"] + width == len(served)
    assert 0 < result["p50_us"] <= result["p99_us"]


def test_a_refusal_is_an_error_and_no_measurement() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(response(b"no", b"HTTP/1.1 401 Unauthorized\r\n"))

    threading.Thread(target=serve, daemon=True).start()
    plan = {"address": f"127.0.0.1:{listening.getsockname()[1]}", "path": "/", "headers": {}, "seconds": 1, "width": 1}
    with pytest.raises(load.Failed, match="401 Unauthorized"):
        load.run(plan)
    listening.close()


def test_envoy_splits_by_the_user_as_nginx_does() -> None:
    config = envoy_config(1, 2)
    text = str(config)
    assert "'use_hash_policy': True" in text
    assert "x-rml-unit" in text
