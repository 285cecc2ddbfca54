"""What a control plane that kept no numbers knows of layers and holdouts that were deleted there: the audit trail does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.names import check_name
from roblox_ml_platform.database import Database
from roblox_ml_platform.rollout.salts import generations, salt
from sqlalchemy import text

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
WHAT = st.tuples(st.sampled_from(["layer", "holdout"]), NAMES, st.integers(0, 30))


@given(WHAT, WHAT)
def test_two_salts_are_the_same_only_for_the_same_of_the_same(one: Any, other: Any) -> None:
    assert check_name(one[1], "name") == one[1]
    assert (salt(*one) == salt(*other)) == (one == other)


def test_an_older_database_keeps_the_salts_of_what_is_there_and_remembers_what_was(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/old.db")
    config = Config()
    config.set_main_option("script_location", "roblox_ml_platform:migrations")
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.execute(
            text("INSERT INTO layers VALUES ('again', 'user_id', 0, 'ann'), ('always', 'user_id', 0, 'ann')")
        )
        rows = [("layer.delete", "gone", "done"), ("layer.delete", "again", "done"), ("holdout.delete", "gone", "done"),
                ("holdout.delete", "gone", "done"), ("layer.delete", "kept", "denied")]  # fmt: skip
        for action, subject, outcome in rows:
            values = {"action": action, "subject": subject, "outcome": outcome}
            connection.execute(
                text("INSERT INTO audit (at, actor, action, subject, detail, outcome) "
                     "VALUES (0, 'ann', :action, :subject, '{}', :outcome)"), values,
            )  # fmt: skip
    database.migrate()
    with database.read() as connection:
        assert dict(generations(connection)) == {("layer", "gone"): 1, ("holdout", "gone"): 1}
    database.close()
