"""Where a report's rows come from: the control plane's rows of experiments, and the records that doors keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from roblox_ml_core.errors import NotFound, TooLarge
from roblox_ml_core.records import read
from roblox_ml_core.settings import AnalysisSettings, HomeSettings, RecordsSettings
from sqlalchemy import Connection, select

from .. import tables as core
from ..database import now
from ..rollout import tables as t
from ..rollout.uses import running
from .report import Neighbour, build

__all__ = ["MOST_SHADOW_ROWS", "latest", "neighbours", "report_of", "seconds_of", "shadow_of"]

MOST_SHADOW_ROWS = 100_000
_DAY_S = 86_400.0


def neighbours(connection: Connection, experiment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Running experiments in other layers whose units are of the same kind, and who have the same endpoint."""
    units = {row["name"]: row["unit"] for row in connection.execute(select(t.layers)).mappings()}
    mine = units.get(experiment["layer"])
    return [
        {"name": row["name"], "layer": row["layer"], "arms": row["arms"], "started_at": row["started_at"], "endpoint": row["endpoint"]}
        for row in running(connection)
        if row["layer"] != experiment["layer"] and units.get(row["layer"]) == mine and row["endpoint"] == experiment["endpoint"]
    ]  # fmt: skip


def report_of(
    experiment: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    records: RecordsSettings,
    home: HomeSettings,
    settings: AnalysisSettings,
) -> dict[str, Any]:
    """The report of an experiment as the records are now.

    Raises:
        TooLarge: there are more rows than one report may hold.
    """
    url = records.resolve(home)
    since = seconds_of(experiment["started_at"])
    ended = experiment.get("stopped_at")
    until = seconds_of(ended) if ended else now()
    exposures = _exposures(url, experiment["name"], experiment["endpoint"], since, until)
    metrics = [*experiment["metrics"], *experiment["guardrails"]]
    reach = max((one.get("cuped_days", 0) for one in metrics), default=0) * _DAY_S
    events = _events(url, metrics, since - reach, until)
    for what, table in (("exposures", exposures), ("events", events)):
        if len(table) > settings.max_rows:
            raise TooLarge(
                f"experiment {experiment['name']} has {len(table)} {what}; a report holds {settings.max_rows}",
                hint="raise RML_ANALYSIS_MAX_ROWS where there is memory for it (about 150 bytes a row)",
            )
    beside = [
        Neighbour(
            one["name"], one["layer"], sorted((arm["name"] for arm in one["arms"]), key=lambda name: name != "control"),
            _exposures(url, one["name"], one["endpoint"], max(one["started_at"], since), until),
        )
        for one in others
    ]  # fmt: skip
    return build(
        experiment, exposures, events, since_us=int(since * 1e6), until_us=int(until * 1e6), alpha=settings.alpha,
        planned_units=settings.planned_units, peeks=settings.peeks, neighbours=beside,
    )  # fmt: skip


def seconds_of(moment: str | float) -> float:
    """A time of the control plane's JSON, in seconds."""
    return float(moment) if isinstance(moment, int | float) else datetime.fromisoformat(moment).timestamp()


def shadow_of(connection: Connection, endpoint: str, name: str) -> tuple[str, str]:
    """A shadow's reference as it was given, and as records name it: `model/version`.

    Raises:
        NotFound: the endpoint has no such shadow, or it means no version now.
    """
    query = select(t.shadows).where(t.shadows.c.endpoint == endpoint)
    rows = {row["name"]: row for row in connection.execute(query).mappings()}
    row = rows.get(name)
    if row is None:
        raise NotFound(
            f"endpoint {endpoint} has no shadow {name}", hint=f"its shadows: {', '.join(sorted(rows)) or 'none'}"
        )
    if row["alias"] is None:
        return f"{row['model']}/{row['version']}", f"{row['model']}/{row['version']}"
    here = (core.aliases.c.model == row["model"], core.aliases.c.alias == row["alias"])
    version = connection.execute(select(core.aliases.c.version).where(*here)).scalar()
    ref = f"{row['model']}@{row['alias']}"
    if version is None:
        raise NotFound(
            f"shadow {name} of {endpoint} is {ref}, which means no version now", hint="rml models show lists aliases"
        )
    return ref, f"{row['model']}/{version}"


def latest(table: pa.Table, rows: int) -> pa.Table:
    """At most so many rows, the latest."""
    if len(table) <= rows:
        return table
    return table.take(pc.select_k_unstable(table, k=rows, sort_keys=[("at_us", "descending")]))


def _exposures(url: str, experiment: str, endpoint: str, since: float, until: float) -> pa.Table:
    columns = ["at_us", "experiment", "arm", "unit"]
    table = read(url, "exposures", endpoint=endpoint, since=since, until=until, columns=columns)
    return table.filter(pc.equal(table["experiment"], experiment)).select(["at_us", "arm", "unit"])


def _events(url: str, metrics: Sequence[Mapping[str, Any]], since: float, until: float) -> pa.Table:
    columns = ["at_us", "event_id", "unit", "event", "value"]
    table = read(url, "events", since=since, until=until + _DAY_S, columns=columns)
    names = pa.array(sorted({n for one in metrics for n in (one["event"], one.get("per")) if n}), pa.string())
    return table.filter(pc.is_in(table["event"], value_set=names))
