"""`rml records`: accounts, rows, erasure and retention from a terminal."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from roblox_ml_core.records import Records
from roblox_ml_core.settings import RecordsSettings
from typer.testing import CliRunner

from roblox_ml.cli import app
from roblox_ml.errors import RmlSdkError


@pytest.fixture
def kept(rml_home: Path) -> Path:
    """A home whose door has kept three requests and an event."""
    folder = rml_home / "records"
    records = Records(str(folder), door="d", settings=RecordsSettings(keep_free_bytes=0))
    records.start()
    now = int(time.time() * 1e6)
    for n, unit in enumerate(("u1", "u2", "u1")):
        records.requests.offer(
            (now + n, f"i{n}", "feed", "feed", 7, "arm", "e=new", unit, "rest", 200, 900, False, b"x", None)
        )
    records.events.offer((now, "e", "user_id", "u1", "click", 1.0, "", ""))
    records.requests.sample("i9", 0)
    asyncio.run(records.close())
    return folder


def call(*arguments: str, **options):
    return CliRunner().invoke(app, ["records", *arguments], **options)


def test_status_accounts_for_every_row(kept: Path) -> None:
    found = json.loads(call("status", "--json").stdout)
    assert found["url"] == str(kept) and found["doors"] == ["d"]
    requests = found["streams"]["requests"]
    assert (requests["offered"], requests["written"], requests["sampled_out"], requests["files"]) == (4, 3, 1, 1)
    assert requests["balanced"] and requests["endpoints"] == ["feed"]
    text = call("status", env={"COLUMNS": "300"}).stdout
    assert "sampled" in text and "exposures" in text


def test_show_gives_the_newest_first_and_no_bodies_in_the_table(kept: Path) -> None:
    assert [row["inference_id"] for row in json.loads(call("show", "requests", "--rows", "2", "--json").stdout)] == [
        "i2",
        "i1",
    ]
    assert "e=new" in call("show", "requests", env={"COLUMNS": "300"}).stdout
    assert "no shadows in the last 24 hours" in call("show", "shadows").stdout


def test_erase_asks_first_and_then_erases_for_good(kept: Path) -> None:
    assert call("erase", "u1", input="n\n").exit_code == 1
    assert "requests 2  events 1 erased" in call("erase", "u1", "--settle", "0", "--yes").stdout
    assert [row["unit"] for row in json.loads(call("show", "requests", "--json").stdout)] == ["u2"]
    again = json.loads(call("erase", "u1", "--settle", "0", "--yes", "--json").stdout)
    assert again["rows"] == {} and again["files"] == 0


def test_sweep_shows_its_plan_before_it_deletes(kept: Path) -> None:
    assert "0 files, 0 bytes (nothing) would go" in call("sweep").stdout
    assert "deleted" in call("sweep", "--delete").stdout


def test_mistakes_are_told_in_the_sdk_s_words(kept: Path) -> None:
    told = call("show", "reqests")
    assert isinstance(told.exception, RmlSdkError) and "requests, exposures, events, shadows" in str(told.exception)
