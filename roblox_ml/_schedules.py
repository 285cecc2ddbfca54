"""Schedules and backfills as a user meets them: `rml.schedules()`, `rml.backfill("nightly", "2026-01-01", "2026-03-01")`.

Everything shown is read from the control plane when it is asked for; these objects hold a name and what was last said of it.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._addresses import control_url
from ._graph.schedule import Schedule, cron
from ._runtime.control import ControlPlane
from .errors import RmlSdkError

if TYPE_CHECKING:
    from ._graph.pipeline import Pipeline

__all__ = ["Backfill", "ScheduleList", "ScheduledPipeline", "backfill", "schedules", "unpublish"]

_POLL_S = 0.5
_OPEN = ("WAITING", "RUNNING")


class ScheduledPipeline:
    """One schedule. Made by `rml.schedules()`."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = dict(told)

    @property
    def name(self) -> str:
        return str(self._told["name"])

    @property
    def pipeline(self) -> str:
        return str(self._told["pipeline"])

    @property
    def schedule(self) -> Schedule:
        """Expression, zone and policies."""
        return Schedule.from_json(self._told["schedule"])

    @property
    def paused(self) -> bool:
        return bool(self._told["paused"])

    @property
    def next_due(self) -> str | None:
        """When it is due next, in its own zone; None when paused or over."""
        due: str | None = self._told["next_due"]
        return due

    @property
    def late(self) -> int:
        """How many of its runs should have started by now."""
        return int(self._told["late"])

    @property
    def last(self) -> list[dict[str, Any]]:
        """Its last runs in short, latest first: run, due, state, late."""
        return list(self._told["last"])

    def next(self, count: int = 10) -> list[str]:
        """The next due times."""
        told = _call("GET", f"/v1/schedules/{self.name}/next?count={count}")
        return [str(one["due"]) for one in told["next"]]

    def runs(self, limit: int = 50, state: str | None = None) -> list[dict[str, Any]]:
        """Its runs and skipped due times, latest first, each with its reason."""
        wanted = f"&state={state}" if state else ""
        return list(_call("GET", f"/v1/schedules/{self.name}/runs?limit={limit}{wanted}")["runs"])

    def pause(self) -> ScheduledPipeline:
        """Start nothing more until `resume()`; what is due meanwhile is listed as skipped."""
        return self._do("pause")

    def resume(self) -> ScheduledPipeline:
        return self._do("resume")

    def delete(self) -> None:
        """Forget the schedule. Its runs stay on record; publishing the pipeline again brings it back."""
        _call("DELETE", f"/v1/schedules/{self.name}")

    def _do(self, what: str) -> ScheduledPipeline:
        self._told = _call("POST", f"/v1/schedules/{self.name}:{what}")
        return self

    def __repr__(self) -> str:
        state = "paused" if self.paused else f"next {self.next_due or 'never'}"
        return f"<rml.schedule {self.name} {self.schedule}, {state}>"

    def _repr_html_(self) -> str:
        return ScheduleList([self])._repr_html_()


class ScheduleList(list[ScheduledPipeline]):
    """Schedules by name; a table in a notebook. `rml.schedules()["nightly"]` is one of them."""

    COLUMNS = ("name", "cron", "tz", "next due", "last runs", "state")

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for one in self:
            if one.name == key:
                return one
        raise KeyError(f"there is no schedule {key!r}; there are: {', '.join(s.name for s in self) or 'none yet'}")

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells."""
        return [
            (
                one.name,
                one.schedule.cron,
                one.schedule.tz,
                one.next_due or "",
                " ".join(f"{run['state']}{' (late)' if run['late'] else ''}" for run in one.last[:3]),
                ", ".join(filter(None, ["paused" if one.paused else "on", f"{one.late} late" if one.late else ""])),
            )
            for one in self
        ]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        return f"<table><tr>{head}</tr>{body}</table>"


class Backfill:
    """Runs of a pipeline for the due times of a range. Made by `rml.backfill`; goes on whether or not anybody watches."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = dict(told)

    @property
    def id(self) -> int:
        return int(self._told["id"])

    @property
    def pipeline(self) -> str:
        return str(self._told["pipeline"])

    @property
    def created(self) -> bool:
        """False when it was going on already, and this call only found it."""
        return bool(self._told.get("created"))

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in which state, as of the last look."""
        return dict(self._told["counts"])

    @property
    def total(self) -> int:
        return int(self._told["total"])

    @property
    def done(self) -> bool:
        return bool(self._told["done"])

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every due time with its run, state and reason, as of now."""
        return list(self.refresh()._told["runs"])

    def refresh(self) -> Backfill:
        """Look again."""
        self._told = _call("GET", f"/v1/backfills/{self.id}")
        return self

    def wait(self, timeout: float | None = None) -> Backfill:
        """Until every run is over; raises when one of them failed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.refresh().done:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"backfill {self.id} is not over after {timeout:g} s: {self}; it goes on")
            time.sleep(_POLL_S)
        if failed := self.counts.get("FAILED", 0) + self.counts.get("CANCELLED", 0):
            first = next(run for run in self._told["runs"] if run["state"] in ("FAILED", "CANCELLED"))
            raise RmlSdkError(
                f"{failed} of {self.total} runs of backfill {self.id} did not succeed",
                where=f"{first['run']} (due {first['due']})",
                why=first["reason"],
                fix=f"look: rml runs logs {first['run']}; go on: rml backfill --retry {self.id}",
            )
        return self

    def cancel(self) -> Backfill:
        """Skip what waits and end what runs."""
        self._told = _call("POST", f"/v1/backfills/{self.id}:cancel")
        return self

    def retry(self) -> Backfill:
        """Let its failed runs go on where they stopped."""
        self._told = _call("POST", f"/v1/backfills/{self.id}:retry")
        return self

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {state.lower()}" for state, count in sorted(self.counts.items()))
        return f"{self.pipeline} {self._told['from'][:10]} – {self._told['to'][:10]}: {counts} of {self.total}"

    def __repr__(self) -> str:
        return f"<rml.Backfill {self.id} {self}>"

    def _repr_html_(self) -> str:
        return f"<pre>backfill {self.id}: {html.escape(str(self))}</pre>"


def schedules(pipeline: str | None = None) -> ScheduleList:
    """What runs by itself: every schedule, or those of one pipeline."""
    wanted = f"?pipeline={pipeline}" if pipeline else ""
    return ScheduleList(ScheduledPipeline(one) for one in _call("GET", f"/v1/schedules{wanted}")["schedules"])


def backfill(
    pipeline: str | Pipeline,
    start: str,
    end: str,
    *,
    concurrency: int = 1,
    schedule: str | Schedule | None = None,
    rerun: bool = False,
    again: bool = False,
    wait: bool = True,
    **parameters: Any,
) -> Backfill:
    """Run a published pipeline once for every due time of its schedule from `start` to `end`, both days included.

    What of the range has not come yet is left to the schedule.
    At most `concurrency` runs at once. Due times that the schedule has run already are skipped, unless `rerun`. The same call
    while the backfill goes on (after a kill, say) finds it instead of making another; `again=True` makes another. The
    parameters hold for every run; text may hold `{date}`, `{due}` or `{due:%H}`. Without a schedule of its own the pipeline
    needs one here: `schedule="0 0 * * *"` is once a day.
    """
    name = pipeline if isinstance(pipeline, str) else pipeline.name
    chosen = cron(schedule) if isinstance(schedule, str) else schedule
    body = {
        "pipeline": name,
        "from": start,
        "to": end,
        "concurrency": concurrency,
        "arguments": parameters,
        "schedule": None if chosen is None else chosen.to_json(),
        "rerun": rerun,
        "again": again,
    }
    made = Backfill(_call("POST", "/v1/backfills", body))
    return made.wait() if wait else made


def unpublish(pipeline: str | Pipeline) -> None:
    """Take a published pipeline back: its schedules, triggers and waiting runs go, the record of its runs stays.

    Refused while it runs. To stop it for a while, pause its schedule: `rml.schedules()["nightly"].pause()`.
    """
    _call("DELETE", f"/v1/pipelines/{pipeline if isinstance(pipeline, str) else pipeline.name}")


def find_backfill(number: int) -> Backfill:
    """The backfill of this number."""
    return Backfill(_call("GET", f"/v1/backfills/{number}"))


def _call(method: str, path: str, body: Any = None) -> dict[str, Any]:
    return ControlPlane(control_url(start=True)).call(method, path, body)
