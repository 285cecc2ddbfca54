"""Logs as one JSON object a line, and the Prometheus exposition: what every service does the same way."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, TextIO

__all__ = ["LATENCY_BUCKETS", "JsonFormatter", "configure_logging", "exposition", "log"]

# From half a millisecond to half a minute: the span between a cached tensor and a large model's load.
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_FIELDS = "rml_fields"


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "service", "event", …fields}``, one line a record, exceptions included."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(service: str, *, level: str | None = None, stream: TextIO | None = None) -> None:
    """Send every logger of this process to `stream` (stderr) as JSON lines. ``RML_LOG_LEVEL`` sets the level (info)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    name = (level or os.environ.get("RML_LOG_LEVEL", "info")).upper()
    logging.basicConfig(level=name, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "alembic.runtime.plugins", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def log(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """One event with fields, which the JSON formatter writes as keys of the line."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={_FIELDS: fields})


def exposition(registry: Any = None) -> tuple[bytes, str]:
    """The body and content type of a Prometheus scrape."""
    import prometheus_client

    body = prometheus_client.generate_latest(registry or prometheus_client.REGISTRY)
    return body, prometheus_client.CONTENT_TYPE_LATEST
