"""Blobs: named by their bytes, written once, verified when read, over files and HTTP alike."""

from __future__ import annotations

import functools
import http.server
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roblox_ml._store import BlobCorrupt, BlobMissing, Store, StoreError, digest_of, open_store


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_what_is_put_comes_back_under_its_digest(tmp_path: Path, data: bytes) -> None:
    store = Store((tmp_path / "s").as_uri())
    digest = store.put(data)
    assert digest == digest_of(data) == store.put(data)
    assert store.get(digest) == data and store.has(digest) and store.verify(digest)


def test_files_and_bytes_are_the_same_blob(tmp_path: Path) -> None:
    store = open_store()
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    digest = store.put_file(tmp_path / "f")
    assert digest == store.put(b"x" * 3_000_000)
    assert [found for found, _ in store.digests()] == [digest]
    assert not stat.S_IMODE(store.path_of(digest).stat().st_mode) & 0o222
    assert [path.name for path in store.path_of(digest).parent.parent.rglob("*") if path.name.startswith(".")] == []


def test_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    store = open_store()
    digest = store.put(b"right")
    os.chmod(store.path_of(digest), 0o644)
    store.path_of(digest).write_bytes(b"wrong")
    assert not store.verify(digest)
    with pytest.raises(BlobCorrupt, match=digest):
        store.get(digest)
    with pytest.raises(BlobCorrupt):
        store.copy_to(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_blob_cut_short_is_written_again() -> None:
    store = open_store()
    digest = store.put(b"whole")
    os.chmod(store.path_of(digest), 0o644)
    store.path_of(digest).write_bytes(b"who")
    store.put(b"whole")
    assert store.get(digest) == b"whole"


def test_missing_and_malformed_digests_are_told_apart() -> None:
    store = open_store()
    with pytest.raises(BlobMissing, match="no blob"):
        store.get("0" * 64)
    assert not store.has("0" * 64) and not store.verify("0" * 64) and store.delete("0" * 64) == 0
    for bad in ("", "../../etc/passwd", "A" * 64, "0" * 63):
        with pytest.raises(StoreError, match="no digest"):
            store.get(bad)


def test_copies_are_verified_and_may_share_bytes(tmp_path: Path) -> None:
    store = open_store()
    digest = store.put(b"shared")
    store.copy_to(digest, tmp_path / "a" / "copy")
    store.copy_to(digest, tmp_path / "linked", link=True)
    assert (tmp_path / "a" / "copy").read_bytes() == (tmp_path / "linked").read_bytes() == b"shared"
    assert os.path.samefile(tmp_path / "linked", store.path_of(digest)) or os.stat(tmp_path / "linked").st_nlink == 1


def test_the_same_layout_is_read_over_http(tmp_path: Path) -> None:
    local = Store((tmp_path / "s").as_uri())
    digest = local.put(b"over the wire")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "s"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = Store(f"http://127.0.0.1:{server.server_port}")
        assert remote.get(digest) == b"over the wire" and remote.has(digest) and not remote.has("0" * 64)
        remote.copy_to(digest, tmp_path / "copy")
        with pytest.raises(StoreError, match="PUT"):
            remote.put(b"read-only server")
        with pytest.raises(StoreError, match="no path"):
            remote.path_of(digest)
        server.shutdown()
    assert (tmp_path / "copy").read_bytes() == b"over the wire"
    with pytest.raises(StoreError, match="RML_STORE"):
        remote.get(digest)
