"""The feature server over Parquet files: what it reads, what it answers, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from roblox_ml_serving.ranking.stub import FeatureView, main
from roblox_ml_serving.ranking.wire import Ask, Block, read_answer, write_request


def written(folder: Path, name: str, **columns: Any) -> Path:
    file = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def test_the_newest_row_of_a_key_is_the_one_that_counts(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    file = written(
        tmp_path, "v", key=["a", "a", "b"], event_time=[now, now - timedelta(days=1), now - timedelta(hours=1)],
        x=[1.0, 2.0, None], y=[1, 2, 3],
    )  # fmt: skip
    view = FeatureView.read(file)
    rows = view.rows([b"b", b"a", b"nobody"], ("y", "x"), now.timestamp())
    assert np.array_equal(rows.values, np.array([[3, 1, np.nan], [np.nan, 1, np.nan]], np.float32), equal_nan=True)
    assert rows.ages[0] == pytest.approx(3600, abs=1) and rows.ages[1] == pytest.approx(0, abs=1)
    assert np.isnan(rows.ages[2]) and len(view) == 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": [1, None], "x": [1.0, 2.0]}, "1 rows have no 'key'"),
        ({"key": [1.5], "x": [1.0]}, "neither a text nor an integer"),
        ({"key": [1], "event_time": ["now"], "x": [1.0]}, "no timestamps"),
        ({"id": [1]}, "no column 'key'"),
        ({"key": [1]}, "no features"),
        ({"key": [1], "x": ["much"]}, "no number"),
    ],
)
def test_a_file_that_is_no_view_is_refused(
    tmp_path: Path, columns: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(written(tmp_path, "v", **columns))]) == 2
    assert said in capsys.readouterr().err


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(written(tmp_path, "v", key=[1], x=[1.0])), "--host", "0.0.0.0"]) == 2
    assert "RML_FEATURES_TOKEN" in capsys.readouterr().err


def test_as_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_FEATURES_TOKEN", "secret")
    file = written(tmp_path, "item_stats", key=[7, 8], ctr=[0.25, None])
    command = [sys.executable, "-m", "roblox_ml_serving.ranking.stub", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("features: ").strip()
            asked = write_request([Block("item", [8, 7, 9])], [Ask("item_stats", 0, ("ctr",)), Ask("else", 0, ("x",))])
            with httpx.Client(base_url=url, headers={"authorization": "Bearer secret"}) as client:
                answer = client.post("/v1/features", content=asked)
                assert (answer.status_code, answer.headers["content-type"]) == (200, "application/vnd.rml.features")
                found, missing = read_answer(answer.content)
                assert np.isnan(found.values[0, [0, 2]]).all() and found.values[0, 1] == 0.25
                assert np.isnan(found.ages).tolist() == [False, False, True]
                assert missing.error == "there is no else"
                assert client.get("/healthz").json() == {"views": ["item_stats"]}
                refused = {
                    400: client.post("/v1/features", content=b"nonsense"),
                    401: client.post("/v1/features", content=asked, headers={"authorization": "Bearer no"}),
                    404: client.post("/v2/features"),
                    405: client.get("/v1/features"),
                    413: client.post("/v1/features", content=write_request([Block("i", list(range(100_001)))], [])),
                }
                for status, one in refused.items():
                    assert one.status_code == status and json.loads(one.content)["error"]["message"]
        finally:
            process.terminate()
        assert process.wait(10) == 0
