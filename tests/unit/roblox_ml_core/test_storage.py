"""The blob store: what is put is what is got, whatever the file system; a changed byte is never an answer."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_core.digests import sha256_bytes
from roblox_ml_core.errors import IntegrityError, Invalid, NotFound
from roblox_ml_core.storage import BlobStore, blob_key

ABSENT = "0" * 64


@pytest.fixture(params=["file", "path", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    urls = {
        "file": (tmp_path / "with space").as_uri(),
        "path": str(tmp_path / "plain"),
        "memory": f"memory://{uuid.uuid4().hex}",
    }
    return BlobStore(urls[request.param])


def test_bytes_come_back(store: BlobStore, tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(range(256)) * 20_000):
        digest = store.put(data)
        assert digest == sha256_bytes(data)
        assert (store.get(digest), store.size(digest), store.has(digest), store.verify(digest)) == (
            data,
            len(data),
            True,
            True,
        )
        store.get_file(digest, tmp_path / "deep" / digest)
        assert (tmp_path / "deep" / digest).read_bytes() == data
    assert {digest for digest, _, _ in store.digests()} >= {digest}


def test_what_is_absent_is_not_found(store: BlobStore, tmp_path: Path) -> None:
    assert (store.has(ABSENT), store.size(ABSENT), store.verify(ABSENT), store.delete(ABSENT)) == (
        False,
        None,
        False,
        False,
    )
    for read in (lambda: store.get(ABSENT), lambda: store.get_file(ABSENT, tmp_path / "never")):
        with pytest.raises(NotFound, match=ABSENT):
            read()
    assert not (tmp_path / "never").exists()


def test_deleting_forgets(store: BlobStore) -> None:
    digest = store.put(b"gone soon")
    assert store.delete(digest)
    assert not store.has(digest)
    assert digest not in {found for found, _, _ in store.digests()}


@pytest.mark.parametrize("text", ["../../etc/passwd", "a" * 63, "A" * 64, ""])
def test_only_digests_become_paths(store: BlobStore, text: str) -> None:
    for act in (store.get, store.has, store.delete, blob_key):
        with pytest.raises(Invalid):
            act(text)


def test_a_file_with_another_digest_is_refused(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    with pytest.raises(IntegrityError):
        store.put_file(tmp_path / "file", sha256_bytes(b"two"))
    assert not store.has(sha256_bytes(b"one"))


@settings(max_examples=25, deadline=None)
@given(data=st.binary(min_size=1, max_size=2000), place=st.integers(0), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed_and_the_next_writer_heals_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = BlobStore(str(folder))
    digest = store.put(data)
    blob = folder / blob_key(digest)
    changed = bytearray(data)
    changed[place % len(data)] ^= 1 << bit
    blob.write_bytes(changed)
    assert not store.verify(digest)
    with pytest.raises(IntegrityError):
        store.get(digest)
    with pytest.raises(IntegrityError):
        store.get_file(digest, folder / "out")
    assert not (folder / "out").exists()
    assert store.put(data) == digest
    assert store.get(digest) == data


def test_many_writers_of_one_blob_never_show_half_of_it(tmp_path: Path) -> None:
    store, data = BlobStore(str(tmp_path)), bytes(range(256)) * 8192
    digest, stop, wrong = sha256_bytes(data), threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            if store.has(digest) and not store.verify(digest):
                wrong.append(digest)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.put(data), range(16))) == {digest}
    stop.set()
    watcher.join()
    assert wrong == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [digest], "a draft was left"
