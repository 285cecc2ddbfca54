"""The pages under docs/formats/ are true: their vectors and examples are read by the code they describe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from roblox_ml_core.digests import is_digest
from roblox_ml_core.package import FORMATS, Signature, package_digest
from roblox_ml_core.package.layout import package_findings
from roblox_ml_core.policy import digest_of, read_policy

PAGES = Path(__file__).resolve().parents[3] / "docs" / "formats"


def _page(name: str) -> tuple[str, list[Any]]:
    text = (PAGES / name).read_text(encoding="utf-8")
    return text, [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.S)]


def test_the_package_s_test_vector_has_its_digest() -> None:
    text, (info,) = _page("model-package.md")
    assert package_findings(info) == []
    assert f"\n`{package_digest(info)}`\n" in text
    assert all(f"`{name}`" in text for name in FORMATS)


def test_the_snapshot_s_example_has_the_fields_that_are_served() -> None:
    _, (snapshot,) = _page("policy-snapshot.md")
    endpoint = snapshot["policy"]["endpoints"]["comment-sentiment"]
    fields = {"model", "alias", "version", "digest", "previous", "signature", "preprocess", "policy"}
    fields |= {"unit", "canary", "shadows", "log", "limits"}
    assert set(endpoint) == fields
    assert snapshot["digest"] == digest_of(snapshot["policy"])
    policy = read_policy(snapshot["policy"])
    assert policy.findings == () and policy.digest == snapshot["digest"]
    assert [ref.version for ref in policy.endpoints["comment-sentiment"].refs] == [3, 4, 5]
    assert Signature.from_json(endpoint["signature"]).to_json() == endpoint["signature"]
    assert snapshot["servers"]["local"]["ready"] == {"comment-sentiment/3": endpoint["digest"]}


def test_the_desired_models_example_and_report_agree() -> None:
    _, (desired, report) = _page("desired-models.md")
    wanted, held = desired["models"][0], report["models"][0]
    assert {key: wanted[key] for key in ("model", "version", "digest")} == {
        key: held[key] for key in ("model", "version", "digest")
    }
    assert all(is_digest(entry["sha256"]) for entry in wanted["manifest"].values())
