"""The control plane's own gauges, read from the database when Prometheus asks: no count can drift from the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from . import tables as t
from .database import Database, counter

__all__ = ["make_registry"]


def make_registry(database: Database) -> CollectorRegistry:
    """A registry of its own per application, so that two in one process do not collide."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FromDatabase(database))
    return registry


class _FromDatabase(Collector):  # type: ignore[misc]  # prometheus_client is not typed here
    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Any]:
        return []  # asked at registration: naming the metrics must not need the database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._database.read() as connection:
            versions = GaugeMetricFamily("rml_control_versions", "Registered versions", labels=["model"])
            for model, count in connection.execute(
                select(t.versions.c.model, func.count()).group_by(t.versions.c.model)
            ).tuples():
                versions.add_metric([model], count)
            sync = GaugeMetricFamily("rml_control_mlflow_in_sync", "1 when MLflow agrees with us", labels=["model"])
            for row in connection.execute(select(t.mlflow_models.c.model, t.mlflow_models.c.in_sync)).mappings():
                sync.add_metric([row["model"]], float(row["in_sync"]))
            alive = GaugeMetricFamily("rml_control_server_alive", "1 while a server reports", labels=["server"])
            for row in connection.execute(select(t.servers.c.name, t.servers.c.alive)).mappings():
                alive.add_metric([row["name"]], float(row["alive"]))
            singles = {
                "snapshot_generation": ("Generation of the policy snapshot", counter(connection, "snapshot")),
                "endpoints": ("Endpoints", _count(connection, t.endpoints)),
                "mlflow_pending": ("Changes not yet projected into MLflow", _count(connection, t.outbox)),
                "audit_rows": ("Rows of the audit trail", _count(connection, t.audit)),
            }
        yield from (versions, sync, alive)
        for name, (text, value) in singles.items():
            yield GaugeMetricFamily(f"rml_control_{name}", text, value=value)


def _count(connection: Any, table: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
