"""The four streams of records: names and types of a row's fields, in the order in which a row is offered.

The types are the names of Arrow's; Arrow itself is loaded only by what writes and reads files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["DAY_US", "EVENTS", "EXPOSURES", "NO_ENDPOINT", "REQUESTS", "SCHEMA", "SHADOWS", "STREAMS", "StreamSchema"]

#: Version of the layout and of the fields, in every file's metadata.
SCHEMA = 1
DAY_US = 86_400_000_000
#: The partition of rows that belong to no endpoint. No endpoint can be called so.
NO_ENDPOINT = "_"
_ENDPOINT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class StreamSchema:
    """One stream.

    Attributes:
        fields: name and type of each, the first is the row's time in microseconds since 1970.
        endpoint_at: where the endpoint is, -1 for a stream that has none.
        sized: fields whose length counts towards the buffer's bytes; the others are short.
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    endpoint_at: int
    sized: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.fields)

    def at(self, name: str) -> int:
        """The position of a field."""
        return self.names.index(name)

    def partition(self, row: tuple[Any, ...]) -> tuple[str, int]:
        """Endpoint and day (since 1970) whose file holds the row.

        Raises:
            ValueError, TypeError, IndexError: the row has no usable time or endpoint.
        """
        endpoint = NO_ENDPOINT if self.endpoint_at < 0 else row[self.endpoint_at]
        if endpoint is not NO_ENDPOINT and not _ENDPOINT.match(endpoint):  # it becomes a folder's name
            raise ValueError(f"{endpoint!r} is no endpoint")
        day = row[0] // DAY_US
        if not 0 <= day < 100_000:
            raise ValueError(f"{row[0]!r} is no time in microseconds since 1970")
        return endpoint, day

    def arrow(self) -> Any:
        """The stream as an Arrow schema."""
        import pyarrow as pa

        return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in self.fields])


def _stream(name: str, fields: str, *sized: str) -> StreamSchema:
    pairs = tuple((field, kind) for field, _, kind in (item.partition(":") for item in fields.split()))
    names = [field for field, _ in pairs]
    return StreamSchema(
        name, pairs, names.index("endpoint") if "endpoint" in names else -1, tuple(names.index(s) for s in sized)
    )


REQUESTS = _stream(
    "requests",
    "at_us:int64 inference_id:string endpoint:string model:string version:int64 role:string arms:string unit:string "
    "protocol:string code:int64 latency_us:int64 fallback:bool request:binary response:binary",
    "request", "response",
)  # fmt: skip
EXPOSURES = _stream(
    "exposures",
    "at_us:int64 inference_id:string endpoint:string experiment:string arm:string unit_kind:string unit:string version:int64",
)
EVENTS = _stream(
    "events",
    "at_us:int64 event_id:string unit_kind:string unit:string event:string value:double inference_id:string "
    "attributes_json:string",
    "attributes_json",
)
SHADOWS = _stream(
    "shadows",
    "at_us:int64 inference_id:string endpoint:string shadow:string version:int64 primary_version:int64 primary_us:int64 "
    "shadow_us:int64 code:string tensors_json:string unit:string",
    "tensors_json",
)  # fmt: skip
STREAMS = MappingProxyType({stream.name: stream for stream in (REQUESTS, EXPOSURES, EVENTS, SHADOWS)})
