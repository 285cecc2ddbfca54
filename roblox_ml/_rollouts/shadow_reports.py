"""How a shadow's answers differ from those that clients got: sentences, tables of quantiles, the answers that differ most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._cards.text import escaped, number
from . import plots
from .showing import Document, boxed, day, milliseconds, quantity, section, share, table

__all__ = ["ShadowReport"]

_MEASURES = {
    "abs_max": "absolute, largest in an answer",
    "abs_mean": "absolute, mean of an answer",
    "rel_max": "relative, largest in an answer",
    "rel_mean": "relative, mean of an answer",
}
_ALIKE = {"overlap": "share of the top in common", "rank": "rank correlation"}


class ShadowReport(Document):
    """A shadow's report. `same` and `within_tolerance` are shares of the answers, `tensors` by output; `document` has everything."""

    @property
    def title(self) -> str:  # type: ignore[override]
        return f"Shadow {self.document.get('shadow', '')} of {self.document.get('endpoint', '')}".strip()

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        return dict(self.document["tensors"])

    @property
    def same(self) -> float | None:
        """The share of answers that are equal; None while none was compared."""
        return None if self.document["same"] is None else float(self.document["same"])

    @property
    def within_tolerance(self) -> float | None:
        """The share of answers that differ by less than the tolerance, and in no label."""
        return None if self.document["within_tolerance"] is None else float(self.document["within_tolerance"])

    def lines(self) -> list[str]:
        return [f"{self.title}: {self._compared()}", *self._sentences(), *(f"! {one}" for one in self._warnings())]

    def _compared(self) -> str:
        return f"{number(self.document['compared'])} of {number(self.document['asked'])} answers compared"

    def _sentences(self) -> list[str]:
        document = self.document
        said = []
        if document["compared"]:
            said.append(
                f"{share(document['same'])} of the answers are the same, {share(document['within_tolerance'])} within a relative "
                f"difference of {document['tolerance']:g}"
            )
        for name, one in document["tensors"].items():
            if one["rows"]:
                flips = f"{number(one['flips'])} of {number(one['rows'])} rows have another label"
                said.append(f"{name}: {flips} ({share(one['flips'] / one['rows'])})")
        latency = document["latency"]
        if latency["primary"]:
            said.append(
                f"latency p50 {milliseconds(latency['shadow']['p50'])} against the champion's {milliseconds(latency['primary']['p50'])}, "
                f"p99 {milliseconds(latency['shadow']['p99'])} against {milliseconds(latency['primary']['p99'])}"
            )
        return said

    def _warnings(self) -> list[str]:
        document = self.document
        said = []
        if document["error_rate"]:
            said.append(f"{share(document['error_rate'])} of the questions got no answer from the shadow")
        for name, one in document["tensors"].items():
            said += [
                f"{name} could not be compared in {number(count)} answers: {what}"
                for what, count in one["mismatches"].items()
            ]
            if one["nan"]:
                said.append(f"{name}: {number(one['nan'])} values are a number in one answer and none in the other")
        return said

    def _about(self) -> str:
        since, until = self.document.get("since_us"), self.document.get("until_us")
        when = "nothing was asked yet" if since is None else f"{day(since / 1e6)} to {day((until or since) / 1e6)}"
        return f"{self.document.get('ref', '')}; {when}".removeprefix("; ")

    def _body(self) -> str:
        said = [self._compared(), *self._sentences()] if self.document["asked"] else ["No questions yet."]
        parts = [
            boxed(self._warnings(), alarm=True),
            section("In short", "".join(f"<p>{escaped(one)}</p>" for one in said)),
        ]
        parts += [self._differences(), self._order(), self._latency(), self._examples(), self._errors()]
        return "".join(parts)

    def _differences(self) -> str:
        rows = [
            (name, words, *(quantity(one[measure][q]) for q in ("p50", "p90", "p99", "max")))
            for name, one in self.document["tensors"].items()
            for measure, words in _MEASURES.items()
            if one.get(measure)
        ]
        if not rows:
            return ""
        note = '<p class="note">Quantiles over answers; a relative difference is at most 2.</p>'
        return section(
            "Differences per answer", note + table(("output", "difference", "p50", "p90", "p99", "worst"), rows)
        )

    def _order(self) -> str:
        rows = [
            (name, words, *(quantity(one[measure][q]) for q in ("mean", "p10", "min")))
            for name, one in self.document["tensors"].items()
            for measure, words in _ALIKE.items()
            if one.get(measure)
        ]
        if not rows:
            return ""
        note = '<p class="note">1 means: the same order.</p>'
        return section("Order", note + table(("output", "measure", "mean", "worst tenth below", "worst"), rows))

    def _latency(self) -> str:
        whose = {"primary": "champion", "shadow": "shadow", "difference": "shadow − champion"}
        rows = [
            (whose.get(who, who), *(milliseconds(spread[q]) for q in ("p50", "p90", "p99", "max")))
            for who, spread in self.document["latency"].items()
            if spread
        ]
        if not rows:
            return ""
        drawn = plots.spreads([(whose[who], self.document["latency"][who]) for who in ("primary", "shadow")])
        return section("Latency", table(("whose", "p50", "p90", "p99", "worst"), rows) + f"<figure>{drawn}</figure>")

    def _examples(self) -> str:
        examples = self.document["examples"]
        if not examples:
            return ""
        rows = [
            (one["inference_id"], number(one["distance"]), "; ".join(f"{name}: {_differs(how)}" for name, how in one["tensors"].items()))
            for one in examples
        ]  # fmt: skip
        note = '<p class="note">Distance: 0 is the same, 1 as different as can be. The request log has them by their id.</p>'
        kept = "".join(
            f"<h3>{escaped(one['inference_id'])}</h3><pre>{escaped(json.dumps(one['values'], indent=1, ensure_ascii=False)[:2000])}</pre>"
            for one in examples
            if one.get("values")
        )
        return section("Answers that differ most", note + table(("inference", "distance", "what differs"), rows) + kept)

    def _errors(self) -> str:
        rows = [(one["message"], number(one["count"])) for one in self.document["errors"]]
        return section("Questions without an answer", table(("why", "how often"), rows)) if rows else ""


def _differs(one: Mapping[str, Any]) -> str:
    if one.get("mismatch"):
        return str(one["mismatch"])
    said = []
    if one.get("flips"):
        said.append(f"{number(one['flips'])} of {number(one['rows'])} labels differ")
    if one.get("abs_max"):
        said.append(f"up to {one['abs_max']:.3g} apart")
    if one.get("overlap") is not None:
        said.append(f"{share(one['overlap'])} of the top in common")
    if one.get("rank") is not None:
        said.append(f"rank correlation {one['rank']:.3g}")
    return ", ".join(said) or "the same"
