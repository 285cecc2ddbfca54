"""`python -m kfpserver`: serve, print the address, end with the standard input (so it ends with whoever started it)."""

from __future__ import annotations

import sys

from . import running

with running() as server:
    print(server.url, flush=True)
    sys.stdin.read()
