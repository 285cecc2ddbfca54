"""What doors keep of their work: requests, exposures, outcome events, shadow comparisons; as Parquet, with exact accounts.

Written by `Records`, one per door; read with `read`. The layout is specified in docs/formats/request-log.md.
"""

from __future__ import annotations

from .accounts import REASONS, Accounts
from .erase import Erased, erase
from .intake import MAX_BODY_BYTES, MAX_EVENTS, parse_events, parse_exposures
from .merging import merge
from .reader import Moment, read, read_accounts
from .retention import Swept, sweep
from .schema import EVENTS, EXPOSURES, REQUESTS, SHADOWS, STREAMS, StreamSchema
from .seen import Seen
from .service import NullRecords, NullStream, Records
from .stream import Row, Stream, is_sampled

__all__ = [
    "EVENTS",
    "EXPOSURES",
    "MAX_BODY_BYTES",
    "MAX_EVENTS",
    "REASONS",
    "REQUESTS",
    "SHADOWS",
    "STREAMS",
    "Accounts",
    "Erased",
    "Moment",
    "NullRecords",
    "NullStream",
    "Records",
    "Row",
    "Seen",
    "Stream",
    "StreamSchema",
    "Swept",
    "erase",
    "is_sampled",
    "merge",
    "parse_events",
    "parse_exposures",
    "read",
    "read_accounts",
    "sweep",
]
