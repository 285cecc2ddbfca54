"""Who hears of what is routed in the round that finds the run's own word in the spool; whose turn it is to be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.settings import NotifySettings
from roblox_ml_platform.database import Database
from roblox_ml_platform.notifying import outbox, routing, service
from roblox_ml_platform.notifying.channels import Channels
from roblox_ml_platform.notifying.events import event, record
from roblox_ml_platform.notifying.intake import read_spool

TEAM = [{"kind": "webhook", "target": "http://h/team", "on": ["gate", "alias"]}]
SETTINGS = NotifySettings()


def told(database: Database) -> list[Any]:
    with database.read() as connection:
        return sorted((one["type"], one["target"]) for one in outbox.listing(connection))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["spool", "http"])
def test_a_verdict_between_two_rounds_reaches_those_who_hear_of_the_run(
    database: Database, tmp_path: Path, elsewhere: bool
) -> None:
    """The run says who hears of it, asks the gate at once, and only then does a round begin."""
    said = event("run.started", {"pipeline": "nightly", "run": "r-1", "execution": 1}, notify=TEAM)
    if elsewhere:
        with database.write() as connection:
            record(connection, said)
    else:
        (tmp_path / "started.json").write_text(json.dumps(said))
    with database.write() as connection:
        record(connection, event("gate.refused", {"model": "m", "version": 2}, pipeline="nightly"))
    began = service.now()
    read_spool(database, tmp_path)
    with database.write() as connection:
        while routing.route(connection, Channels({}), SETTINGS, began):
            pass
    assert told(database) == [("gate.refused", "http://h/team")]


def test_who_hears_of_a_published_pipeline_is_not_changed_by_a_run(database: Database) -> None:
    from roblox_ml_platform.notifying.events import subscribe

    with database.write() as connection:
        subscribe(connection, "nightly", [{**TEAM[0], "target": "http://h/published"}])
        record(connection, event("run.started", {"pipeline": "nightly", "run": "r-1", "execution": 1}, notify=TEAM))
        record(connection, event("gate.refused", {"model": "m", "version": 2}, pipeline="nightly"))
        routing.route(connection, Channels({}), SETTINGS, service.now())
    assert told(database) == [("gate.refused", "http://h/published")]


def test_an_address_with_a_long_queue_does_not_keep_others_from_their_turn(database: Database) -> None:
    slow, other = ({**TEAM[0], "target": f"http://h/{name}", "on": ["failure"]} for name in ("slow", "other"))
    with database.write() as connection:
        for n in range(230):
            record(connection, event("run.failed", {"pipeline": "p", "run": f"r-{n}"}, notify=[slow]))
        record(connection, event("run.failed", {"pipeline": "p", "run": "last"}, notify=[other, slow]))
        while routing.route(connection, Channels({}), SETTINGS, service.now()):
            pass
        first, last = outbox.claim(connection, "me", 4, SETTINGS)
        assert (first.target, first.event["subject"]["run"]) == ("http://h/slow", "r-0")
        assert (last.target, last.event["subject"]["run"]) == ("http://h/other", "last")
        assert outbox.claim(connection, "you", 4, SETTINGS) == []  # one in hand for each address
