"""The guide's lines run as they stand, in their order: one control plane, one door that answers for whoever is champion."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.records import Records
from roblox_ml_core.settings import RecordsSettings

import roblox_ml as rml
from roblox_ml._predict import InputError

GUIDE = Path(__file__).resolve().parents[4] / "docs" / "guides" / "rollouts.md"


def test_every_python_block_of_the_guide_runs(
    plane: Any, upstream: Any, door: Any, rml_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark in "defghi":
        plane.register("feed", mark)
    plane.holds(*range(1, 10))
    door.models["feed"] = lambda: plane.client.endpoint("feed")["version"]
    records = Records(str(rml_home / "records"), door="d", settings=RecordsSettings(keep_free_bytes=0))
    records.start()
    compared = {
        "distance": 0.5,
        "tensors": {"scores": {"kind": "number", "values": 2, "rows": 2, "flips": 1, "nan": 0, "rel_max": 0.1}},
    }
    records.shadows.offer(
        (int(time.time() * 1e6), "i1", "feed", "feed/9", 9, 1, 900, 1100, "ok", json.dumps(compared), "u1")
    )
    asyncio.run(records.close())
    monkeypatch.chdir(tmp_path)

    scope: dict[str, Any] = {}
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.S | re.M), 1):
        exec(compile(code, f"the guide's block {number}", "exec"), scope)

    assert scope["prediction"].inference_id == "id-1" and door.asked_by == ["user-17", "user-17"]
    assert scope["answer"].version == 9 and [version for version, _, _ in upstream.asked] == [9]
    assert [row[4] for row in door.rows["/v1/track"]] == ["click", "revenue", "play", "play"]
    assert (tmp_path / "new-ranker.html").stat().st_size > 2000
    assert not scope["experiment"].running and plane.client.endpoint("feed")["version"] == 9
    assert set(scope["frame"]["version"]) == {9}
    assert plane.policy()["endpoints"]["feed"]["shadows"] == []


def test_who_asks_is_carried_whole_or_refused(plane: Any, door: Any) -> None:
    door.models["feed"] = lambda: 1
    endpoint = rml.endpoint("feed")
    for unit in ("spieler-ü", 17, "u" * 256):
        endpoint.predict({"X": [[1.0, 2.0]]}, unit=unit)
    carried = [text.encode("latin-1").decode() for text in door.asked_by]  # the fake door's headers are read as latin-1
    assert carried == ["spieler-ü", "17", "u" * 256]
    for unit in ("", " u", "a\r\nx-rml-arms: e=new", "u" * 257, 1.5):
        with pytest.raises(InputError, match="unit"):
            endpoint.predict({"X": [[1.0, 2.0]]}, unit=unit)
    with pytest.raises(InputError, match="over REST"):
        endpoint.grpc.predict({"X": [[1.0, 2.0]]}, unit="spieler-ü")
    with pytest.raises(InputError, match="not JSON"):
        endpoint.predict({"X": [[1.0, 2.0]]}, context={"age": float("nan")})
    assert len(door.asked_by) == 3


def test_a_forked_process_asks_the_door_over_its_own_connections(plane: Any, door: Any) -> None:
    door.models["feed"] = lambda: 1
    endpoint = rml.endpoint("feed")
    endpoint.predict({"X": [[1.0, 2.0]]})
    before = endpoint._http
    child = os.fork()
    if not child:  # pragma: no cover - another process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # one that waits for a lock for ever is a failure, not a hang
        code = 1
        try:
            code = 0 if endpoint.predict({"X": [[1.0, 2.0]]}).version == 1 and endpoint._http is not before else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert endpoint.predict({"X": [[1.0, 2.0]]}).version == 1 and endpoint._http is before
