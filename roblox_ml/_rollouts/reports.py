"""What an experiment showed, as one would rather look at it: a page of tables and plots, or lines in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._cards.text import escaped, number
from . import plots
from .showing import Document, boxed, day, quantity, section, share, span, table

__all__ = ["Report"]

_SRM = {
    "fine": "Arms have the sizes they should have",
    "suspect": "Arms may not have the sizes they should have",
    "broken": "Arms do not have the sizes they should have: do not read the results",
}
# kind of a metric → (what it is of an event, the column's name)
_KINDS = {
    "mean": ("sum of the values of {event}, per unit", "per unit"),
    "count": ("number of {event}, per unit", "per unit"),
    "conversion": ("share of the units with {event}", "share of units"),
    "ratio": ("{event} for each {per}", "ratio"),
}
_QUALITY = {
    "exposures": "exposures",
    "repeated_exposures": "of these, of units that were exposed before",
    "exposures_of_unknown_arms": "of these, of arms that the experiment does not have: left out",
    "units_in_two_arms": "units in two arms: left out",
    "events": "outcomes",
    "repeated_events": "of these, sent more than once: counted once",
    "events_of_others": "of these, of units that are not in the experiment: left out",
    "events_before_exposure": "of these, from before the unit's exposure: left out",
    "late_events": "of these, after the end: left out",
}


class Report(Document):
    """An experiment's report. `metrics` by name, `units`, `warnings`; `document` has everything."""

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
        said.append(self._srm())
        said += [one["words"] for metric in self.document["metrics"] for one in metric["comparisons"]]
        said += [
            f"guardrail {one['name']}: {'breached' if one['breached'] else 'holds'}"
            for one in self.document["guardrails"]
        ]
        return said + [f"! {warning}" for warning in self.warnings]

    def _srm(self) -> str:
        srm = self.document["srm"]
        return f"{_SRM[srm['verdict']]} (p = {srm['p_value']:.3g}, valid at any time)"

    def _alarm(self) -> bool:
        document = self.document
        found = [*document["guardrails"], *document["interactions"]]
        return document["srm"]["verdict"] != "fine" or any(one.get("breached") or one.get("found") for one in found)

    def _about(self) -> str:
        document = self.document
        state = "running" if document.get("running") else "ended"
        return (
            f"on {document['endpoint']}, layer {document['layer']}, {state}; {day(document['since'])} to {day(document['until'])}; "
            f"all intervals of primary metrics hold together and at every look, with {100 * (1 - document['alpha']):g} % confidence"
        )

    def _body(self) -> str:
        parts = [boxed(self.warnings, alarm=self._alarm()), self._arms()]
        rows = [
            (f"{metric['name']}: {one['arm']}", one["relative"], one["decision"])
            for metric in self.document["metrics"]
            for one in metric["comparisons"]
        ]
        if drawn := plots.forest(rows):
            parts.append(section("Differences to control", f"<figure>{drawn}</figure>"))
        parts += [self._metric(metric) for metric in self.document["metrics"]]
        if self.document["guardrails"]:
            parts.append(self._guardrails())
        if self.document["interactions"]:
            parts.append(self._interactions())
        rows_of_data = [(_QUALITY.get(key, key), number(value)) for key, value in self.document["quality"].items()]
        parts.append(section("The data", table(("rows", "count"), rows_of_data)))
        return "".join(parts)

    def _arms(self) -> str:
        rows = [
            (arm["arm"], number(arm["units"]), share(arm["share"]), share(arm["expected"]))
            for arm in self.document["units"]
        ]
        arms = table(("arm", "units", "share of units", "expected"), rows)
        return section("Arms", f"{arms}<p>{escaped(self._srm())}.</p>")

    def _metric(self, metric: Mapping[str, Any]) -> str:
        what, column = _KINDS.get(metric["kind"], ("{event}", "value"))
        percent = metric["kind"] == "conversion"
        arms = table(
            ("arm", "units", column, "standard deviation"),
            [
                (arm["arm"], number(arm["units"]), quantity(arm["mean"], percent=percent), quantity(arm["sd"]))
                for arm in metric["arms"]
            ],
        )
        against = table(
            ("against control", "relative difference", "absolute difference", "p, at any time", "verdict"),
            [
                (
                    one["arm"], span(one["relative"], percent=True), span(one["absolute"], percent=False),
                    f"{one['p_value']:.3g}", _verdict(one),
                )
                for one in metric["comparisons"]
            ],
        )  # fmt: skip
        words = "".join(f"<p>{escaped(one['words'])}</p>" for one in metric["comparisons"])
        drawn = [
            plots.narrowing(one["series"], f"{metric['name']}: {one['arm']} against control")
            for one in metric["comparisons"]
        ]
        figures = "".join(f"<figure>{one}</figure>" for one in drawn if one)
        figures = f'<div class="plots">{figures}</div>' if figures else ""
        good = "more is better" if metric["direction"] == "up" else "less is better"
        primary = "primary" if metric["primary"] else "secondary: a hint, not a decision"
        said = f"{what.format(event=metric['event'], per=metric.get('per'))}; {good}; {primary}"
        return section(str(metric["name"]), f'<p class="note">{escaped(said)}</p>{words}{arms}{against}{figures}')

    def _guardrails(self) -> str:
        rows = []
        for one in self.document["guardrails"]:
            percent, worse = one["kind"] == "conversion", "more" if one["direction"] == "down" else "less"
            rows += [
                (one["name"], arm["arm"], quantity(arm["mean"], percent=percent), quantity(arm["control"], percent=percent),
                 f"{share(one['margin'] or 0.0)} {worse}", "breached" if arm["breached"] else "holds")
                for arm in one["arms"]
            ]  # fmt: skip
        columns = ("guardrail", "arm", "in the arm", "in control", "allowed", "verdict")
        return section("Guardrails", table(columns, rows))

    def _interactions(self) -> str:
        rows = [
            (f"{one['experiment']} (layer {one['layer']})", one["metric"], one["arm"], one["other_arm"], quantity(one["estimate"]),
             "they depend on each other" if one["found"] else "none found")
            for one in self.document["interactions"]
        ]  # fmt: skip
        columns = ("experiment", "metric", "arm here", "arm there", "by how much the effect differs", "verdict")
        return section("Other experiments on the same units", table(columns, rows))


def _verdict(comparison: Mapping[str, Any]) -> str:
    cuped = comparison.get("cuped")
    helped = f" (its own past explains {cuped['variance_reduction']:.0%} of the variance)" if cuped else ""
    return f"{comparison['decision']}{helped}"
