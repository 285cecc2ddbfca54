"""Blobs: streamed in and verified before they get their name, streamed out as they are."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from roblox_ml_core.auth.principal import Principal
from roblox_ml_core.errors import IntegrityError, Invalid, NotFound
from roblox_ml_core.storage import blob_key

from ..bodies import Digest
from ..context import Context, Plane, Who
from ..identity import blobs

__all__ = ["router"]

router = APIRouter(prefix="/v1/store", tags=["store"])
_BINARY = "application/octet-stream"
_CHUNK = 1 << 20
_Team = Annotated[str | None, Header(alias="x-rml-team", pattern="^[a-z0-9][a-z0-9-]{0,62}$")]


@router.put("/sha256/{prefix}/{digest}", status_code=201)
async def put_blob(
    prefix: str, digest: Digest, request: Request, plane: Plane, who: Who, team: _Team = None
) -> dict[str, Any]:
    """Store the body under its digest; refused when the bytes have another. It belongs to the sender's team (`x-rml-team`)."""
    _check(prefix, digest)
    owners = [] if who.is_local else await asyncio.to_thread(_owners, plane, who, team)
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
    if owners:  # only now: having sent the bytes is what proves that they had them
        await asyncio.to_thread(_claim, plane, digest, owners)
    return {"sha256": digest, "size": size}


@router.head("/sha256/{prefix}/{digest}")
def head_blob(prefix: str, digest: Digest, plane: Plane, who: Who) -> Response:
    """Whether the blob is there, and its length."""
    _check(prefix, digest)
    size = _size(plane, who, digest)
    if size is None:
        raise NotFound(f"blob {digest} is not in the store", hint="upload it with PUT")
    return Response(headers={"content-length": str(size)}, media_type=_BINARY)


@router.get("/sha256/{prefix}/{digest}", response_class=Response)
def get_blob(prefix: str, digest: Digest, plane: Plane, who: Who) -> Response:
    """The blob's bytes. The reader verifies them: they are named by their digest."""
    _check(prefix, digest)
    size = _size(plane, who, digest)
    if size is None:
        raise NotFound(f"blob {digest} is not in the store", hint="upload it with PUT")
    # Private: a shared cache would answer those who may not read it.
    headers = {"cache-control": "private, max-age=31536000, immutable"}
    if plane.store.local_root is not None:
        return FileResponse(plane.store.local_root / blob_key(digest), media_type=_BINARY, headers=headers)
    return StreamingResponse(_stream(plane, digest), media_type=_BINARY, headers=headers)


def _size(plane: Context, who: Principal, digest: str) -> int | None:
    """The blob's length, or None where it is not there for who asks."""
    if not who.is_local:
        with plane.database.read() as connection:
            if not blobs.readable(connection, who, [digest]):
                return None
    return plane.store.size(digest)


def _owners(plane: Context, who: Principal, team: str | None) -> list[str]:
    with plane.database.read() as connection:
        return blobs.uploaders(connection, who, team)


def _claim(plane: Context, digest: str, owners: list[str]) -> None:
    with plane.database.write() as connection:
        blobs.claim(connection, [digest], owners)


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
