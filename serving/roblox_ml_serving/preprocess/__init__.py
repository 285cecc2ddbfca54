"""What an endpoint does to a request between the door and the model server.

Most endpoints do nothing: bytes pass through. An endpoint of another kind has files (a tokenizer, a plan) that the door needs
before it can answer, and a handler that takes the request whole. `spec` is what the snapshot says about it, `files` brings
the files onto the disk and keeps them there, `kinds` knows which module handles which kind, `prepared` holds what is loaded.
"""

from __future__ import annotations

from .kinds import Call, Handler, Kind
from .prepared import Prepared
from .spec import Policy, Spec, SpecInvalid

__all__ = ["Call", "Handler", "Kind", "Policy", "Prepared", "Spec", "SpecInvalid"]
