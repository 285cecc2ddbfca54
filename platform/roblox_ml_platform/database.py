"""The database of the control plane: SQLite in one process, PostgreSQL for replicas, the same transactions on both.

On SQLite a write begins with BEGIN IMMEDIATE, so it holds the one write lock from its first read on and cannot fail half-way
as stale. On PostgreSQL the services lock the rows they decide on. A read sees one state of the database in either case.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from roblox_ml_core.errors import Unavailable
from sqlalchemy import Connection, create_engine, event, select, text, update
from sqlalchemy.engine import make_url

from .tables import counters

__all__ = ["Database", "bump", "counter", "now"]

_BUSY_S = 30
_MIGRATION_LOCK = 7_018_070  # any number, the same in every replica


class Database:
    """An engine with two kinds of transaction: `read()` and `write()`. `on_commit` runs after every write that changed state."""

    def __init__(self, url: str, *, on_commit: Callable[[], None] | None = None) -> None:
        self.url = make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.on_commit = on_commit
        # SQLite's own waiting is a poll with growing pauses; threads of one process queue here instead.
        self._writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.sqlite else contextlib.nullcontext()
        )
        options: dict[str, Any] = {"pool_pre_ping": not self.sqlite}
        if self.sqlite:
            if self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            options["connect_args"] = {"timeout": _BUSY_S, "check_same_thread": False}
        self._engine = create_engine(self.url, pool_size=20, max_overflow=40, **options)
        if self.sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        level = {} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._engine.connect().execution_options(**level) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits when the block ends well; then everyone who waits for a change is told."""
        with self._writer, self._engine.connect().execution_options(rml_write=True) as connection, connection.begin():
            yield connection
        if self.on_commit is not None:
            self.on_commit()

    def migrate(self) -> None:
        """Bring the schema up to date. Several processes may start at once: one migrates, the others wait."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with self._migration_lock(), self._engine.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def check(self) -> None:
        """Raise `Unavailable` unless the database answers and has our schema."""
        try:
            with self.read() as connection:
                connection.execute(select(counters.c.value).limit(1)).all()
        except Exception as error:
            raise Unavailable(f"the database does not answer: {error}", hint="see the control plane's log") from error

    @contextlib.contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if not self.sqlite:
            with self._engine.connect() as connection:
                connection.execute(text("select pg_advisory_lock(:n)"), {"n": _MIGRATION_LOCK})
                try:
                    yield
                finally:
                    connection.execute(text("select pg_advisory_unlock(:n)"), {"n": _MIGRATION_LOCK})
            return
        with Path(f"{self.url.database}.migrate").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def counter(connection: Connection, name: str) -> int:
    """The value of a counter."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one())


def bump(connection: Connection, *names: str) -> None:
    """Raise counters by one. Their rows stay locked until commit, so a larger number is always a later state."""
    for name in sorted(names):  # one order everywhere, or two writers could wait for each other
        connection.execute(update(counters).where(counters.c.name == name).values(value=counters.c.value + 1))


def now() -> float:
    return time.time()


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # the driver must not begin transactions by itself
    cursor = raw.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an answered registration survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("rml_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
