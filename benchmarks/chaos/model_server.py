"""`python -m benchmarks.chaos.model_server PORT [SLOTS MILLISECONDS]`: a model server with scripted answers.

With slots and a time it can do so much at once and no more, as a real one; without, it answers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import uvloop


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slots: asyncio.Semaphore | None, seconds: float
) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
            await reader.readexactly(sum(lengths))
            _, _, _, model, _, version, *_ = head.split(b" ")[1].split(b"/")
            if slots is not None:
                async with slots:
                    await asyncio.sleep(seconds)
            body = b'{"model_name":"%s","model_version":"%s","outputs":[]}' % (model, version)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
    writer.close()


async def main() -> None:
    """Serve until killed."""
    port, *limits = sys.argv[1:]
    slots = asyncio.Semaphore(int(limits[0])) if limits else None
    seconds = float(limits[1]) / 1000 if limits else 0.0
    server = await asyncio.start_server(lambda r, w: _serve(r, w, slots, seconds), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
