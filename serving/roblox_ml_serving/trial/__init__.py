"""A private Triton and door on this machine, and load for them: what packages are measured with before anybody deploys them.

    with TrialStack({"m": package_folder}) as stack:
        result = closed_loop(rest_texts(stack.rest, "m", texts), workers=8, seconds=5, cpu=stack.cpu_seconds)
        print(result.per_second, result.p99_ms, result.cpu)

No control plane, no user's stack: the door reads a snapshot that never changes, and everything is gone afterwards.
"""

from __future__ import annotations

from .load import LoadResult, closed_loop, open_loop
from .stack import TrialStack
from .traffic import Traffic, grpc_texts, rest_json, rest_texts

__all__ = ["LoadResult", "Traffic", "TrialStack", "closed_loop", "grpc_texts", "open_loop", "rest_json", "rest_texts"]
