"""What an experiment or a shadow showed, as one would rather look at it: a page of tables and plots, or lines in a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._cards.page import framed, page
from .._cards.text import escaped, number
from . import plots

__all__ = ["Report", "ShadowReport"]

_MEASURES = ("abs_max", "abs_mean", "rel_max", "rel_mean")
_SRM = {
    "fine": "Arms have the sizes they should have",
    "suspect": "Arms may not have the sizes they should have",
    "broken": "Arms do not have the sizes they should have: do not read the results",
}


class _Document:
    """A report's JSON, and its page."""

    title = ""

    def __init__(self, document: Mapping[str, Any]) -> None:
        #: The whole report as the control plane made it.
        self.document = dict(document)

    def html(self) -> str:
        """A page of its own: no script, nothing to load."""
        return page(self.title, self._body(), about=self._about())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; the path written."""
        target = Path(path)
        target.write_text(self.html(), encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        return framed(self.html(), height="48em")

    def _body(self) -> str:
        raise NotImplementedError

    def _about(self) -> str:
        raise NotImplementedError

    def lines(self) -> list[str]:
        """The report in sentences."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines())


class Report(_Document):
    """An experiment's report. `metrics` by name, `winner_so_far`, `warnings`; `document` has everything."""

    @property
    def title(self) -> str:  # type: ignore[override]
        return f"Experiment {self.document['experiment']}"

    @property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """By metric: each arm against control, with `relative` and `absolute` intervals and a `decision`."""
        return {metric["name"]: list(metric["comparisons"]) for metric in self.document["metrics"]}

    @property
    def warnings(self) -> list[str]:
        """What to know before believing the rest."""
        return list(self.document["warnings"])

    @property
    def units(self) -> dict[str, int]:
        """How many units each arm has."""
        return {arm["arm"]: int(arm["units"]) for arm in self.document["units"]}

    def lines(self) -> list[str]:
        said = [f"{self.title}: {', '.join(f'{arm} {number(count)}' for arm, count in self.units.items())} units"]
        said.append(f"{_SRM[self.document['srm']['verdict']]} (p = {self.document['srm']['p_value']:.3g})")
        said += [one["words"] for metric in self.document["metrics"] for one in metric["comparisons"]]
        said += [
            f"guardrail {one['name']}: {'breached' if one['breached'] else 'holds'}"
            for one in self.document["guardrails"]
        ]
        return said + [f"! {warning}" for warning in self.warnings]

    def _about(self) -> str:
        document = self.document
        state = "running" if document.get("running") else "ended"
        return (
            f"on {document['endpoint']}, layer {document['layer']}, {state}; {_day(document['since'])} to {_day(document['until'])}; "
            f"intervals hold at every look together, at {100 * (1 - document['alpha']):g} %"
        )

    def _body(self) -> str:
        parts = [_failed(self.warnings), self._arms()]
        rows = [
            (f"{metric['name']}: {one['arm']}", one["relative"], one["decision"])
            for metric in self.document["metrics"]
            for one in metric["comparisons"]
        ]
        if drawn := plots.forest(rows):
            parts.append(_section("Differences", f"<figure>{drawn}</figure>"))
        parts += [self._metric(metric) for metric in self.document["metrics"]]
        if self.document["guardrails"]:
            parts.append(self._guardrails())
        if self.document["interactions"]:
            parts.append(self._interactions())
        parts.append(self._quality())
        return "".join(parts)

    def _arms(self) -> str:
        srm = self.document["srm"]
        rows = [
            (arm["arm"], number(arm["units"]), f"{arm['share']:.2%}", f"{arm['expected']:.2%}")
            for arm in self.document["units"]
        ]
        verdict = f"<p>{escaped(_SRM[srm['verdict']])} (p = {srm['p_value']:.3g}).</p>"
        return _section("Arms", _table(("arm", "units", "share", "expected"), rows) + verdict)

    def _metric(self, metric: Mapping[str, Any]) -> str:
        what = (
            f"{metric['event']} per {metric['per']}" if metric.get("per") else f"{metric['kind']} of {metric['event']}"
        )
        arms = _table(
            ("arm", "units", "value per unit" if not metric.get("per") else "ratio", "standard deviation"),
            [(arm["arm"], number(arm["units"]), _number(arm["mean"]), _number(arm["sd"])) for arm in metric["arms"]],
        )
        rows = [
            (
                one["arm"],
                _span(one["relative"], percent=True),
                _span(one["absolute"], percent=False),
                f"{one['p_value']:.3g}",
                one["decision"]
                + (f" (CUPED −{one['cuped']['variance_reduction']:.0%} variance)" if one.get("cuped") else ""),
            )
            for one in metric["comparisons"]
        ]
        against = _table(("against control", "relative", "absolute", "p, at any time", "verdict"), rows)
        words = "".join(f"<p>{escaped(one['words'])}</p>" for one in metric["comparisons"])
        drawn = [plots.narrowing(one["series"], f"{metric['name']}, {one['arm']}") for one in metric["comparisons"]]
        figures = "".join(f"<figure>{one}</figure>" for one in drawn if one)
        good = "more is better" if metric["direction"] == "up" else "less is better"
        primary = "primary" if metric["primary"] else "secondary"
        note = f'<p class="note">{escaped(f"{what}; {good}; {primary}")}</p>'
        return _section(str(metric["name"]), note + words + arms + against + figures)

    def _guardrails(self) -> str:
        rows = [
            (one["name"], arm["arm"], _number(arm["mean"]), _number(arm["control"]), f"{one['margin'] or 0:.2%}",
             "breached" if arm["breached"] else "holds")
            for one in self.document["guardrails"]
            for arm in one["arms"]
        ]  # fmt: skip
        return _section("Guardrails", _table(("guardrail", "arm", "value", "control", "allowed", "verdict"), rows))

    def _interactions(self) -> str:
        rows = [
            (f"{one['experiment']} ({one['layer']})", one["metric"], f"{one['arm']} × {one['other_arm']}", _number(one["estimate"]),
             "they depend on each other" if one["found"] else "none found")
            for one in self.document["interactions"]
        ]  # fmt: skip
        return _section(
            "Other experiments on the same units", _table(("experiment", "metric", "arms", "change", "verdict"), rows)
        )

    def _quality(self) -> str:
        rows = [(key.replace("_", " "), _number(value)) for key, value in self.document["quality"].items()]
        return _section("The data", _table(("what", "count"), rows))


class ShadowReport(_Document):
    """How a shadow's answers differ from those that clients got. `same`, `within_tolerance`, `tensors`; `document` has everything."""

    @property
    def title(self) -> str:  # type: ignore[override]
        return f"Shadow {self.document.get('shadow', '')} of {self.document.get('endpoint', '')}".strip()

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        return dict(self.document["tensors"])

    def lines(self) -> list[str]:
        document = self.document
        said = [f"{self.title}: {number(document['compared'])} of {number(document['asked'])} answers compared"]
        if document["compared"]:
            said.append(
                f"the same: {_share(document['same'])}; within a relative difference of {document['tolerance']:g}: "
                f"{_share(document['within_tolerance'])}"
            )
        for name, one in document["tensors"].items():
            flips = (
                f"{one['flips']} of {number(one['rows'])} rows have another label"
                if one["rows"]
                else "nothing to compare"
            )
            said.append(f"{name}: {flips}; {_share(one['within_tolerance'])} of answers within tolerance")
        latency = document["latency"]
        if latency["primary"]:
            said.append(
                f"latency p50 {_ms(latency['shadow']['p50'])} against {_ms(latency['primary']['p50'])}, "
                f"p99 {_ms(latency['shadow']['p99'])} against {_ms(latency['primary']['p99'])}"
            )
        if document["error_rate"]:
            said.append(f"! {_share(document['error_rate'])} of the questions got no answer from the shadow")
        return said

    def _about(self) -> str:
        since, until = self.document.get("since_us"), self.document.get("until_us")
        return "nothing was asked yet" if since is None else f"{_day(since / 1e6)} to {_day((until or since) / 1e6)}"

    def _body(self) -> str:
        document = self.document
        parts = [
            _section(
                "In short", "".join(f"<p>{escaped(line)}</p>" for line in self.lines()[1:]) or "<p>No answers yet.</p>"
            )
        ]
        rows = [
            (name, measure.replace("_", " "), *(_number(one[measure][q]) for q in ("p50", "p90", "p99", "max")))
            for name, one in document["tensors"].items() for measure in _MEASURES if one.get(measure)
        ]  # fmt: skip
        if rows:
            parts.append(
                _section("Differences per answer", _table(("output", "measure", "p50", "p90", "p99", "worst"), rows))
            )
        alike = [
            (name, measure, *(_number(one[measure][q]) for q in ("mean", "p10", "min")))
            for name, one in document["tensors"].items() for measure in ("overlap", "rank") if one.get(measure)
        ]  # fmt: skip
        if alike:
            words = {"overlap": "top-k overlap", "rank": "rank correlation"}
            table = [(name, words[measure], *rest) for name, measure, *rest in alike]
            parts.append(_section("Order", _table(("output", "measure", "mean", "worst tenth", "worst"), table)))
        latency = [
            (who, *(_ms(spread[q]) for q in ("p50", "p90", "p99", "max")))
            for who, spread in document["latency"].items()
            if spread
        ]
        if latency:
            parts.append(_section("Latency", _table(("whose", "p50", "p90", "p99", "worst"), latency)))
        if document["examples"]:
            rows = [
                (one["inference_id"], number(one["distance"]), str(one["tensors"])[:400])
                for one in document["examples"]
            ]
            parts.append(_section("Answers that differ most", _table(("inference", "distance", "what differs"), rows)))
        if document["errors"]:
            rows = [(one["message"], number(one["count"])) for one in document["errors"]]
            parts.append(_section("Questions without an answer", _table(("why", "how often"), rows)))
        return "".join(parts)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


def _failed(warnings: Iterable[str]) -> str:
    said = "".join(f"<p>{escaped(warning)}</p>" for warning in warnings)
    return f'<div class="failed">{said}</div>' if said else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _span(interval: Mapping[str, Any], *, percent: bool) -> str:
    def shown(value: Any) -> str:
        return "?" if value is None else f"{100 * value:+.3g} %" if percent else f"{value:+.4g}"

    if interval["low"] is None:
        return f"{shown(interval['estimate'])} (too early for an interval)"
    return f"{shown(interval['estimate'])} ({shown(interval['low'])} to {shown(interval['high'])})"


def _number(value: Any) -> str:
    return "–" if value is None else number(value)


def _share(value: Any) -> str:
    return "–" if value is None else f"{value:.2%}"


def _ms(micros: float) -> str:
    return f"{micros / 1000:.3g} ms"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
