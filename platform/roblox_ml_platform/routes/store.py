"""Blobs: streamed in and verified before they get their name, streamed out as they are."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from roblox_ml_core.errors import IntegrityError, Invalid, NotFound
from roblox_ml_core.storage import blob_key

from ..bodies import Digest
from ..context import Plane

__all__ = ["router"]

router = APIRouter(prefix="/v1/store", tags=["store"])
_BINARY = "application/octet-stream"
_CHUNK = 1 << 20


@router.put("/sha256/{prefix}/{digest}", status_code=201)
async def put_blob(prefix: str, digest: Digest, request: Request, plane: Plane) -> dict[str, Any]:
    """Store the body under its digest; refused when the bytes have another."""
    _check(prefix, digest)
    folder = plane.store.local_root
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # a draft on the same disk
    with tempfile.TemporaryDirectory(dir=folder, prefix=".upload-") as scratch:
        draft, seen, size = Path(scratch) / "blob", hashlib.sha256(), 0
        with draft.open("wb") as out:
            pending: list[bytes] = []
            waiting = 0
            async for chunk in request.stream():
                pending.append(chunk)
                waiting += len(chunk)
                if waiting >= _CHUNK:
                    await asyncio.to_thread(_write, out, seen, pending)
                    size, waiting, pending = size + waiting, 0, []
            await asyncio.to_thread(_write, out, seen, pending)
            size += waiting
        if seen.hexdigest() != digest:
            raise IntegrityError(
                f"the body has sha256 {seen.hexdigest()}, not {digest}",
                hint="the upload was cut or changed: send it again",
            )
        await asyncio.to_thread(plane.store.put_file, draft, digest)
    return {"sha256": digest, "size": size}


@router.head("/sha256/{prefix}/{digest}")
def head_blob(prefix: str, digest: Digest, plane: Plane) -> Response:
    """Whether the blob is there, and its length."""
    _check(prefix, digest)
    size = plane.store.size(digest)
    if size is None:
        raise NotFound(f"blob {digest} is not in the store", hint="upload it with PUT")
    return Response(headers={"content-length": str(size)}, media_type=_BINARY)


@router.get("/sha256/{prefix}/{digest}", response_class=Response)
def get_blob(prefix: str, digest: Digest, plane: Plane) -> Response:
    """The blob's bytes. The reader verifies them: they are named by their digest."""
    _check(prefix, digest)
    size = plane.store.size(digest)
    if size is None:
        raise NotFound(f"blob {digest} is not in the store", hint="upload it with PUT")
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    if plane.store.local_root is not None:
        return FileResponse(plane.store.local_root / blob_key(digest), media_type=_BINARY, headers=headers)
    return StreamingResponse(_stream(plane, digest), media_type=_BINARY, headers=headers)


def _stream(plane: Plane, digest: str) -> Any:
    with plane.store.open(digest) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _write(out: Any, seen: Any, chunks: list[bytes]) -> None:
    for chunk in chunks:
        seen.update(chunk)
        out.write(chunk)


def _check(prefix: str, digest: str) -> None:
    if not digest.startswith(prefix) or len(prefix) != 2:
        raise Invalid(
            f"blob {digest} lies under {digest[:2]}, not {prefix[:40]!r}", hint=f"use /v1/store/{blob_key(digest)}"
        )
