"""What a real server was heard to say: 41 exchanges, and the finished workflow and pod they belong to."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "recorded"
ROOT = "/apis/v2beta1"


@cache
def _lines() -> tuple[str, ...]:
    return tuple((FOLDER / "api-2.17-exchanges.jsonl").read_text("utf-8").splitlines())


def exchanges() -> list[dict[str, Any]]:
    """The recorded request/response pairs, in order."""
    return [json.loads(line) for line in _lines()]


def recorded(method: str, path: str, status: int, containing: str = "") -> Any:
    """The response of the first recorded exchange like this (a copy: change it as you like)."""
    for exchange in exchanges():
        alike = (
            exchange["method"] == method and re.match(ROOT + path, exchange["path"]) and exchange["status"] == status
        )
        if alike and containing in json.dumps(exchange):
            return exchange["response"]
    raise LookupError(f"no recorded {method} {path} → {status}")
