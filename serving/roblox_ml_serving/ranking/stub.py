"""A feature server over Parquet files, for examples, tests and a first ranker: `python -m roblox_ml_serving.ranking.stub VIEW.parquet …`.

Each file is a view, named like the file. Its column `key` (texts or integers) names the entity, `event_time` (a timestamp, optional)
when the row became true; every other column is a feature, a number or null. It speaks docs/formats/feature-wire.md, as a feature
store does, and holds everything in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import ipaddress
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from roblox_ml_core.http.messages import Reply, Request, json_reply
from roblox_ml_core.http.server import Server
from roblox_ml_core.settings import FeaturesSettings

from .wire import CONTENT_TYPE, MAX_KEYS, MAX_VALUES, PATH, VERSION, Key, Rows, WireError, read_request, write_answer

__all__ = ["FeatureServer", "FeatureView", "main"]

_KEY, _TIME = "key", "event_time"


class FeatureView:
    """One view's rows by key: the newest of each."""

    def __init__(self, name: str, keys: Sequence[Any], columns: Mapping[str, Any], events: Any | None = None) -> None:
        self.name = name
        self._features = {feature: place for place, feature in enumerate(columns)}
        self._values = np.stack([np.asarray(column, np.float32) for column in columns.values()])
        self._events = np.full(len(keys), time()) if events is None else np.asarray(events, np.float64)
        order = np.argsort(self._events, kind="stable").tolist()
        self._places: dict[Key, int] = {_key(keys[place]): place for place in order}
        self._kinds = {_kind(key) for key in self._places}

    @classmethod
    def read(cls, file: Path) -> FeatureView:
        """Raises:
        ValueError: the file has no column `key` of texts or integers, or a feature that is no number.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        if _KEY not in table.column_names:
            raise ValueError(f"{file} has no column {_KEY!r}; it has {', '.join(table.column_names)}")
        for name in {_KEY, _TIME} & set(table.column_names):
            if table.column(name).null_count:
                raise ValueError(f"{file}: {table.column(name).null_count} rows have no {name!r}")
        keys = table.column(_KEY).to_pylist()
        if odd := [key for key in keys if type(key) not in (str, bytes, int)][:1]:
            raise ValueError(f"{file}: the key {odd[0]!r} is neither a text nor an integer")
        events = None
        if _TIME in table.column_names:
            try:
                stamps = table.column(_TIME).cast(pa.timestamp("us"), safe=False)
            except pa.ArrowException:
                raise ValueError(f"{file}: column {_TIME!r} holds no timestamps") from None
            events = stamps.cast(pa.int64()).to_numpy() / 1e6
        columns = {}
        for name in table.column_names:
            if name in (_KEY, _TIME):
                continue
            try:
                columns[name] = table.column(name).cast(pa.float32(), safe=False).to_numpy()
            except pa.ArrowException:
                raise ValueError(f"{file}: column {name!r} is no number; a feature is one, or null") from None
        if not columns:
            raise ValueError(f"{file} has no features beside {_KEY!r}")
        return cls(file.stem, keys, columns, events)

    def __len__(self) -> int:
        return len(self._places)

    def unknown(self, features: Sequence[str]) -> list[str]:
        return [f"{self.name}.{feature}" for feature in features if feature not in self._features]

    def misfit(self, keys: Sequence[Key]) -> str:
        """Why these keys cannot be this view's; empty where they can. A text "7" is not the integer 7, and silence would hide it."""
        asked = {_kind(key) for key in keys}
        if not self._kinds or asked <= self._kinds:
            return ""
        return f"the keys of {self.name} are {' and '.join(sorted(self._kinds))}, and it was asked with {' and '.join(sorted(asked))}"

    def rows(self, keys: Sequence[Key], features: Sequence[str], now: float) -> Rows:
        """What the view has for the keys, in their order."""
        places = np.array([self._places.get(key, -1) for key in keys], np.int64)
        known = places >= 0
        values: Any = np.full((len(features), len(keys)), np.nan, np.float32)
        ages: Any = np.full(len(keys), np.nan, np.float32)
        chosen = [self._features[feature] for feature in features]
        values[:, known] = self._values[np.ix_(chosen, places[known])]
        ages[known] = np.maximum(now - self._events[places[known]], 0)
        return Rows(self.name, ages, values)


class FeatureServer:
    """The application: `POST /v1/features` and `GET /healthz`. `delay_s` makes it slow on purpose."""

    def __init__(self, views: Sequence[FeatureView], token: str | None = None, delay_s: float = 0.0) -> None:
        self._views = {view.name: view for view in views}
        self._expected = None if token is None else b"Bearer " + token.encode("ascii")
        self.delay_s = delay_s
        self.requests = 0

    def admit(self, request: Request) -> Reply | None:
        return None

    async def answer(self, request: Request) -> Reply:
        if request.path == b"/healthz":
            return json_reply(200, {"views": sorted(self._views)})
        if request.path != PATH:
            return _error(404, "unknown_route", "there are POST /v1/features and GET /healthz")
        if request.method != b"POST":
            return _error(405, "wrong_method", "features are asked with POST")
        if self._expected is not None and not hmac.compare_digest(
            request.header(b"authorization") or b"", self._expected
        ):
            return _error(401, "unauthenticated", "send the feature server's token: Authorization: Bearer …")
        self.requests += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return self._features(request.body)

    def _features(self, body: bytes) -> Reply:
        try:
            blocks, asks = read_request(body)
        except WireError as error:
            hints = {
                "unsupported_version": f"this server speaks version {VERSION}",
                "too_many_keys": f"at most {MAX_KEYS}",
                "too_many_values": f"at most {MAX_VALUES}",
            }
            status = 413 if error.code.startswith("too_many") else 400
            return _error(status, error.code, str(error), hints.get(error.code, "see docs/formats/feature-wire.md"))
        now = time()
        rows = []
        for ask in asks:
            view = self._views.get(ask.view)
            lacks = [ask.view] if view is None else view.unknown(ask.features)
            keys = blocks[ask.block].keys
            trouble = f"there is no {', '.join(lacks)}" if view is None or lacks else view.misfit(keys)
            if view is None or trouble:  # this view's own: the others are answered
                rows.append(Rows(ask.view, np.zeros(0), np.zeros((0, 0)), trouble))
            else:
                rows.append(view.rows(keys, ask.features, now))
        return Reply(200, [(b"content-type", CONTENT_TYPE)], write_answer(rows))


def _error(status: int, code: str, message: str, hint: str = "") -> Reply:
    return json_reply(status, {"error": {"code": code, "message": message, "hint": hint}})


def _key(value: Any) -> Key:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else int(value)


def _kind(key: Key) -> str:
    return "string" if isinstance(key, bytes) else "int64"


async def _serve(application: FeatureServer, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    address = f"http://{host}:{listening.getsockname()[1]}"
    server = Server(application)
    await server.start(listening)
    print(f"features: {address}", flush=True)
    await stop.wait()
    await server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m roblox_ml_serving.ranking.stub", description="Features of Parquet files."
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="VIEW.parquet", help="a view each; column `key`, features"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=18090, help="0: any free one (default: 18090)")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait so long before every answer")
    chosen = parser.parse_args(arguments)
    token = FeaturesSettings().token
    try:
        views = [FeatureView.read(file) for file in chosen.files]
    except (OSError, ValueError) as error:
        print(f"features: {error}", file=sys.stderr)
        return 2
    if token is None and not ipaddress.ip_address(chosen.host).is_loopback:
        print(
            "features: set RML_FEATURES_TOKEN: whoever reaches this address could read every feature", file=sys.stderr
        )
        return 2
    secret = token.get_secret_value() if token is not None else None
    asyncio.run(_serve(FeatureServer(views, secret, chosen.delay_ms / 1000), chosen.host, chosen.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
