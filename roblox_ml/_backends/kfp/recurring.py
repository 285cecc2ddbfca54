"""Recurring runs: what `publish(on=…)` makes, and how it is changed without a moment in which two of them are alive.

The server has no update. So a change is: switch the old one off, make the new one, remove the old one. Whatever dies in between
leaves at most one that is on, and the next publish finishes the work. An unchanged schedule is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._graph.schedule import is_template
from ...errors import SubmitError
from .api import silent, told
from .cron import Recurrence, convert, translate

if TYPE_CHECKING:
    from ..._build import Built
    from ..._graph.schedule import Schedule
    from .connection import Kubeflow

__all__ = ["RecurringRun", "publish"]

_MARK = "roblox_ml "
_GONE = 404


class RecurringRun:
    """Something that runs on a schedule on Kubeflow. Made by `connection.recur()` and `connection.recurring_runs()`."""

    def __init__(self, connection: Kubeflow, raw: Mapping[str, Any]) -> None:
        self._connection = connection
        self._raw = raw
        self.id = str(raw["recurring_run_id"])

    @property
    def name(self) -> str:
        return str(self._raw.get("display_name") or "")

    @property
    def cron(self) -> str:
        """The six fields the server has (or `every N s` for a periodic one)."""
        trigger = self._raw.get("trigger") or {}
        if "periodic_schedule" in trigger:
            return f"every {trigger['periodic_schedule'].get('interval_second')} s"
        return str((trigger.get("cron_schedule") or {}).get("cron") or "")

    @property
    def enabled(self) -> bool:
        """Whether it is on, asked of the server."""
        return str(self._fresh().get("status")) == "ENABLED"

    @property
    def arguments(self) -> Mapping[str, Any]:
        return dict((self._raw.get("runtime_config") or {}).get("parameters") or {})

    @property
    def experiment_id(self) -> str:
        return str(self._raw.get("experiment_id") or "")

    @property
    def version_id(self) -> str:
        return str((self._raw.get("pipeline_version_reference") or {}).get("pipeline_version_id") or "")

    @property
    def mark(self) -> str:
        """The digest of what was published; empty for one that somebody else made."""
        said = str(self._raw.get("description") or "")
        return said.removeprefix(_MARK).partition(":")[0] if said.startswith(_MARK) else ""

    @property
    def url(self) -> str:
        return f"{self._connection.public_url}/#/recurringrun/details/{self.id}"

    def disable(self) -> None:
        """Pause it: nothing starts until `enable()`; then the catch-up policy says what becomes of what was missed."""
        self._do("disable_recurring_run")

    def enable(self) -> None:
        """Switch it on again."""
        self._do("enable_recurring_run")

    def delete(self) -> None:
        """Remove it. Runs it has started go on."""
        self._do("delete_recurring_run")

    def __repr__(self) -> str:
        return f"<rml.RecurringRun {self.name} {self.cron!r} {self.id}>"

    def _repr_html_(self) -> str:
        link = html.escape(self.url, quote=True)
        return f'<a href="{link}" target="_blank">{html.escape(self.name)}</a> <code>{html.escape(self.cron)}</code>'

    def _fresh(self) -> Mapping[str, Any]:
        with told(self._connection.host):
            self._raw = self._connection._json(self._connection.client.get_recurring_run(self.id))
        return self._raw

    def _do(self, method: str) -> None:
        with told(self._connection.host), silent():
            getattr(self._connection.client, method)(self.id)


def publish(
    connection: Kubeflow, built: Built, schedule: Schedule, *, arguments: Mapping[str, Any], name: str
) -> RecurringRun:
    """Make or change the recurring run of this name so that it is exactly this; the same again changes nothing."""
    from ..._graph.check import check_parameters
    from ..._graph.dump import load_ir
    from ._submit import check, send

    recurrence = convert(schedule, server=connection.timezone, name=name)
    check(built.ir)
    document = load_ir(built.ir)
    problems = check_parameters(document, arguments)
    given = translate({**_dated(document), **arguments}, same_zone=schedule.tz == connection.timezone)
    if problems:
        raise SubmitError(
            "the schedule was not published: " + "; ".join(problems),
            why="the server takes such a recurring run, and every one of its runs fails",
            fix="give the parameters: publish(…, epochs=3)",
        )
    pipeline_id, version_id = send(connection, built)
    mark = _digest(hashlib.sha256(built.ir).hexdigest(), recurrence, given, connection)
    before = [one for one in connection.recurring_runs(name) if one.mark]
    kept = next((one for one in before if one.mark == mark and one._raw.get("status") == "ENABLED"), None)
    # A paused one that says the same stays paused: publishing unchanged code is no reason to start it.
    kept = kept or next((one for one in before if one.mark == mark), None)
    others = [one for one in before if one is not kept]
    switched_off = [one for one in others if one._raw.get("status") == "ENABLED"]
    for one in switched_off:
        one.disable()
    if kept is None:
        try:
            kept = _create(connection, name, (pipeline_id, version_id), recurrence, given, f"{_MARK}{mark}: {schedule}")
        except BaseException:
            for one in switched_off:
                with contextlib.suppress(SubmitError):
                    one.enable()
            raise
    for one in others:
        try:
            one.delete()
        except SubmitError as error:
            if error.status != _GONE:
                raise
    return kept


def _dated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that depend on when a run is due: the server would hand them on as they are written."""
    declared = (document["pipeline"]["root"].get("inputDefinitions") or {}).get("parameters") or {}
    return {name: about["defaultValue"] for name, about in declared.items() if is_template(about.get("defaultValue"))}


def _create(
    connection: Kubeflow,
    name: str,
    version: tuple[str, str],
    recurrence: Recurrence,
    arguments: Mapping[str, Any],
    description: str,
) -> RecurringRun:
    with told(connection.host), silent():
        group = connection.client.create_experiment(connection.experiment or name)
        made = connection.client.create_recurring_run(
            group.experiment_id,
            name,
            description=description,
            start_time=recurrence.start,
            end_time=recurrence.end,
            cron_expression=recurrence.cron,
            max_concurrency=recurrence.max_concurrency,
            no_catchup=recurrence.no_catchup,
            params=dict(arguments),
            pipeline_id=version[0],
            version_id=version[1],
            pipeline_root=connection.pipeline_root or None,
            service_account=connection.service_account or None,
        )
        return RecurringRun(connection, connection._json(made))


def _digest(ir: str, recurrence: Recurrence, arguments: Mapping[str, Any], connection: Kubeflow) -> str:
    text = json.dumps(
        [
            ir,
            *_fields(recurrence),
            dict(arguments),
            connection.pipeline_root,
            connection.service_account,
            connection.experiment,
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields(recurrence: Recurrence) -> list[Any]:
    return [recurrence.cron, recurrence.no_catchup, recurrence.max_concurrency, recurrence.start, recurrence.end]
