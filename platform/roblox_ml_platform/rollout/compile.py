"""From what was decided to the policy that doors, clients and batch jobs read. Pure.

Everything is resolved here: aliases to versions, names to digests. A reader needs no registry, and two readers of one policy
cannot disagree. What fits its endpoint no longer (the endpoint was pointed elsewhere, an alias moved to a version with other tensors)
is left out here and comes back by itself: no client gets an answer of another shape, whichever way the change came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .fit import differences
from .salts import Kind, salt

__all__ = ["Rows", "compile_policy", "left_out"]

Row = Mapping[str, Any]
_AS_IT_IS = (
    "model",
    "alias",
    "version",
    "digest",
    "previous",
    "signature",
    "preprocess",
    "policy",
    "unit",
    "log",
    "limits",
)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database holds, and what its references mean now.

    `endpoints` are described (`endpoints.describe`); `aliases` is (model, alias) → version; `versions` is `model/version` →
    digest and preprocessing, of every version that a row names; `signatures` has the tensors of the same; `generations` is (kind, name)
    → how many layers or holdouts of the name there were before.
    """

    endpoints: Sequence[Row]
    aliases: Mapping[tuple[str, str], int]
    versions: Mapping[str, Row]
    signatures: Mapping[str, Row | None]
    layers: Sequence[Row] = ()
    experiments: Sequence[Row] = ()
    canaries: Sequence[Row] = ()
    shadows: Sequence[Row] = ()
    holdouts: Sequence[Row] = ()
    switches: Sequence[str] = ()
    generations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)

    def ref(self, row: Row) -> str | None:
        """`model/version` of a row that names a model by alias or version; None where it means nothing (any more)."""
        version = row["version"] if row.get("alias") is None else self.aliases.get((row["model"], row["alias"]))
        key = None if version is None else f"{row['model']}/{version}"
        if key is None or key not in self.versions:
            return None
        self.named.add(key)
        return key

    def salt(self, kind: Kind, row: Row) -> str:
        """Of a layer or a holdout."""
        return salt(kind, row["name"], self.generations.get((kind, row["name"]), 0))

    def misfit(self, row: Row, endpoint: Row) -> str | None:
        """Why the row's version cannot answer for the endpoint; None: it can."""
        key = self.ref(row)
        if key is None:
            return (
                f"there is no {row['model']}@{row['alias']}"
                if row.get("alias")
                else f"there is no {row['model']}/{row['version']}"
            )
        found = differences(endpoint["signature"], self.signatures.get(key))
        return f"{key} does not fit the endpoint: {'; '.join(found)}" if found else None


def compile_policy(rows: Rows) -> dict[str, Any]:
    """The snapshot's `policy` (docs/formats/policy-snapshot.md)."""
    known = {row["name"]: row for row in rows.endpoints}
    canaries = {row["endpoint"]: row for row in rows.canaries}
    endpoints = {}
    for row in rows.endpoints:
        name = row["name"]
        rows.named.add(f"{row['model']}/{row['version']}")
        if row["previous"] is not None:
            rows.ref({"model": row["model"], "version": row["previous"]})
        endpoints[name] = {
            **{field: row[field] for field in _AS_IT_IS},
            "canary": _canary(rows, canaries.get(name), row),
            "shadows": list(_shadows(rows, (s for s in rows.shadows if s["endpoint"] == name), row)),
        }
    used = [
        row
        for row in rows.experiments
        if row["endpoint"] in known and not _arm_misfit(rows, row, known[row["endpoint"]])
    ]
    return {
        "endpoints": endpoints,
        "layers": {row["name"]: {"unit": row["unit"], "salt": rows.salt("layer", row)} for row in rows.layers},
        "experiments": {row["name"]: _experiment(rows, row) for row in used},
        "holdouts": {
            row["name"]: {
                "unit": row["unit"], "salt": rows.salt("holdout", row), "share": row["share"], "layers": list(row["layers"])
            }
            for row in rows.holdouts
        },
        "kill": {
            **{what: what in rows.switches for what in ("experiments", "canaries", "shadows")},
            "endpoints": sorted(s.removeprefix("endpoint/") for s in rows.switches if s.startswith("endpoint/")),
        },
        # Last: only now is it known which ones are named.
        "versions": {key: dict(rows.versions[key]) for key in sorted(rows.named) if key in rows.versions},
    }  # fmt: skip


def _canary(rows: Rows, canary: Row | None, endpoint: Row) -> dict[str, Any] | None:
    if canary is None or _canary_misfit(rows, canary, endpoint):
        return None
    ref = rows.ref(canary)
    if ref == f"{endpoint['model']}/{endpoint['version']}":  # it has become the champion in another way
        return None
    return {"ref": ref, "share": canary["share"], "salt": canary["salt"]}


def _canary_misfit(rows: Rows, canary: Row, endpoint: Row) -> str | None:
    if canary["model"] != endpoint["model"]:
        return f"it is a version of {canary['model']}, and the endpoint has come to {endpoint['model']}"
    return rows.misfit(canary, endpoint)


def _shadows(rows: Rows, shadows: Iterable[Row], endpoint: Row) -> Iterable[dict[str, Any]]:
    for row in shadows:
        if rows.misfit(row, endpoint) is None:
            salt = f"shadow/{row['endpoint']}/{row['name']}"
            yield {"name": row["name"], "ref": rows.ref(row), "share": row["share"], "salt": salt}


def _arm_misfit(rows: Rows, experiment: Row, endpoint: Row) -> str | None:
    """One arm that cannot answer takes its experiment out: the arms that are left would compare nothing."""
    reasons = (rows.misfit(arm, endpoint) for arm in experiment["arms"] if arm["model"] is not None)
    return next((reason for reason in reasons if reason is not None), None)


def left_out(rows: Rows, endpoint: Row) -> list[dict[str, str]]:
    """What runs at the endpoint by its rows and is not in its policy, and why: for people."""
    name = endpoint["name"]
    found = [
        *(
            (f"experiment {r['name']}", _arm_misfit(rows, r, endpoint))
            for r in rows.experiments
            if r["endpoint"] == name
        ),
        *(("canary", _canary_misfit(rows, r, endpoint)) for r in rows.canaries if r["endpoint"] == name),
        *((f"shadow {r['name']}", rows.misfit(r, endpoint)) for r in rows.shadows if r["endpoint"] == name),
    ]
    return [{"what": what, "why": why} for what, why in found if why is not None]


def _experiment(rows: Rows, row: Row) -> dict[str, Any]:
    arms = [
        {
            "name": arm["name"],
            "weight": arm["weight"],
            "ref": None if arm["model"] is None else rows.ref(arm),
            "params": arm["params"],
        }
        for arm in row["arms"]
    ]
    return {
        "layer": row["layer"],
        "endpoint": row["endpoint"],
        "salt": f"experiment/{row['name']}/{row['round']}",
        "ranges": [list(stretch) for stretch in row["ranges"]],
        "arms": arms,
        "targeting": row["targeting"],
    }
