"""One JSON object a line, whatever is logged."""

from __future__ import annotations

import io
import json
import logging

import pytest
from roblox_ml_core.telemetry import configure_logging, exposition, log


@pytest.fixture
def lines() -> io.StringIO:
    stream, root = io.StringIO(), logging.getLogger()
    before = (list(root.handlers), root.level)
    configure_logging("door", level="info", stream=stream)
    yield stream
    root.handlers[:], root.level = before


def test_events_have_fields_and_exceptions_stay_one_line(lines: io.StringIO) -> None:
    logger = logging.getLogger("some.part")
    log(logger, logging.INFO, "loaded", model="scale/3", seconds=0.2, path=object())
    log(logger, logging.DEBUG, "not shown")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("broke %s", "here")
    first, second = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (first["service"], first["event"], first["model"], first["level"]) == ("door", "loaded", "scale/3", "info")
    assert second["event"] == "broke here"
    assert "ValueError: two\nlines" in second["exception"]


def test_the_exposition_is_prometheus_text() -> None:
    from prometheus_client import CollectorRegistry, Counter

    registry = CollectorRegistry()
    Counter("rml_things_total", "Things", registry=registry).inc(3)
    body, kind = exposition(registry)
    assert b"rml_things_total 3.0" in body
    assert kind.startswith("text/plain")
