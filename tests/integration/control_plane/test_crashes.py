"""kill -9 in the middle of a registration, on either side: nothing half done is ever visible."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.errors import IntegrityError, NotFound, Unavailable
from roblox_ml_core.package import materialise
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore, blob_key

_CLIENT = """
import sys, time
from pathlib import Path
from roblox_ml_core.package import manifest, read
from roblox_ml_core.storage import BlobStore
from roblox_ml_core.registry import RegistryClient
root, url, token, stop_after = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
store = BlobStore(url + "/v1/store", token=token)
for number, (path, entry) in enumerate(manifest(root).items()):
    if number == stop_after:
        print("here", flush=True)
        time.sleep(60)
    store.put_file(root / path)
print("here", flush=True)
time.sleep(60)
"""


def test_a_client_killed_while_uploading_leaves_no_version(
    planes: Callable[..., Any], package: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    plane = planes()
    body = package(1.0, stored=False)
    root = str(tmp_path / "package-1.0")
    for stop_after in (0, 2, len(body["manifest"])):
        url, token = f"http://127.0.0.1:{plane.port}", HomeSettings().read_token() or ""
        command = [sys.executable, "-c", _CLIENT, root, url, token, str(stop_after)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert client.stdout.readline().strip() == b"here"
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        client.stdout.close()
        with pytest.raises(NotFound):
            plane.client().versions("scale")
    # The blobs are there now; a second client finishes what the first began.
    assert plane.client().register("scale", body)["version"] == 1


def test_half_a_request_registers_nothing(planes: Callable[..., Any], package: Callable[..., dict[str, Any]]) -> None:
    import json

    plane = planes()
    payload = json.dumps(package(1.0)).encode()
    head = (
        "POST /v1/models/scale/versions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {HomeSettings().read_token()}\r\nContent-Length: {len(payload)}\r\n\r\n"
    ).encode()
    for cut in (0, len(payload) // 2, len(payload) - 1):
        with socket.create_connection(("127.0.0.1", plane.port)) as connection:
            connection.sendall(head + payload[:cut])
    with pytest.raises(NotFound):
        plane.client().versions("scale")


def test_a_server_killed_while_registering_shows_whole_versions_only(
    planes: Callable[..., Any], database: dict[str, str], package: Callable[..., dict[str, Any]]
) -> None:
    plane = planes(**database)
    bodies = [package(float(number), tags={"number": str(number)}) for number in range(1, 25)]
    confirmed: dict[int, str] = {}
    rng = random.Random(3)
    for _ in range(3):
        half_way = threading.Event()
        goal = len(confirmed) + 3

        def write(part: list[dict[str, Any]]) -> None:
            client = plane.client()
            for body in part:
                try:
                    answer = client.register("scale", body)
                except Unavailable:
                    half_way.set()
                    return
                confirmed[answer["version"]] = answer["digest"]
                if len(confirmed) >= goal:
                    half_way.set()

        rng.shuffle(bodies)
        threads = [threading.Thread(target=write, args=(bodies[part::4],)) for part in range(4)]
        for thread in threads:
            thread.start()
        half_way.wait(60)
        plane.kill()
        for thread in threads:
            thread.join()
        plane.start()
        _check_whole(plane, confirmed)
    digests = {plane.client().register("scale", body)["digest"] for body in bodies}
    assert len(digests) == len(plane.client().versions("scale")) == len(bodies)
    _check_whole(plane, confirmed)


def _check_whole(plane: Any, confirmed: dict[int, str]) -> None:
    client, store = plane.client(), BlobStore(HomeSettings().store_url)
    listed = client.versions("scale")
    assert [row["version"] for row in listed] == list(range(len(listed), 0, -1))
    found = {row["version"]: row["digest"] for row in listed}
    assert confirmed.items() <= found.items(), "an answered registration was lost"
    for row in listed:
        detail = client.version("scale", row["version"])
        assert detail["registrations"][0]["created"] is True
        assert all(store.verify(entry["sha256"]) for entry in detail["manifest"].values())
        tagged = client.models(f"tag.number={detail['tags']['number']}")
        assert [match["version"] for match in tagged[0]["matching"]] == [row["version"]]
    newest = client.alias_history("scale", "champion")[0]
    assert client.alias("scale", "champion")["version"] == newest["to"]


def test_a_tampered_blob_is_refused(
    planes: Callable[..., Any], package: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    plane = planes()
    answer = plane.client().register("scale", package(1.0))
    detail = plane.client().version("scale", 1)
    store = BlobStore(HomeSettings().store_url)
    target = tmp_path / "copy"
    assert materialise(detail["manifest"], store, target, answer["digest"]).digest == answer["digest"]
    entry = detail["manifest"]["model/code/scale.py"]
    assert store.local_root is not None
    blob = store.local_root / blob_key(entry["sha256"])
    data = bytearray(blob.read_bytes())
    data[-2] ^= 1
    blob.write_bytes(data)
    remote = BlobStore(f"http://127.0.0.1:{plane.port}/v1/store", token=HomeSettings().read_token())
    for source in (store, remote):
        with pytest.raises(IntegrityError, match=entry["sha256"]):
            materialise(detail["manifest"], source, tmp_path / "again", answer["digest"])
        assert not (tmp_path / "again").exists()
    assert [path.name for path in tmp_path.glob(".*")] == [], "a draft was left behind"
