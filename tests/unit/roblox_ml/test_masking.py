"""No secret leaves with a log: known values in every form, and what looks like one."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roblox_ml._masking import STARS, Mask, known_secrets

SECRET = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=8, max_size=40
)


@settings(deadline=None)
@given(SECRET, st.text(max_size=40), st.text(max_size=40))
def test_a_known_value_never_gets_through(secret: str, before: str, after: str) -> None:
    mask = Mask([secret])
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()):
        assert form not in mask(f"{before}{form}{after}")


@settings(deadline=None)
@given(st.text(max_size=200), st.lists(SECRET, max_size=4))
def test_any_text_can_be_masked_and_again(text: str, secrets: list[str]) -> None:
    mask = Mask(secrets)
    once = mask(text)
    assert all(secret not in once or secret in STARS for secret in secrets)


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Authorization: Bearer abcDEF123456789", "abcDEF123456789"),
        ("password=hunter2hunter2, user=ada", "hunter2hunter2"),
        ("{'api_key': 'k-918273645', 'n': 1}", "k-918273645"),
        ("postgresql://ada:s3cr3t-pw@db.example.com/x", "s3cr3t-pw"),
        ("POST https://hooks.slack.com/services/T0AB/B0CD/xyzXYZ123", "xyzXYZ123"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----", "MIIEow"),
        ("aws AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, gone: str) -> None:
    masked = Mask()(text)
    assert gone not in masked and STARS in masked


def test_ordinary_lines_stay() -> None:
    for line in (
        "epoch 3 of 10, loss 0.25",
        "ValueError: no rows in data.parquet",
        "step took 12.5 s",
        "tokenizer loaded: 30522",
    ):
        assert Mask()(line) == line


def test_known_values_come_from_variables_and_files(rml_home: Path) -> None:
    folder = rml_home / "secrets" / "db"
    folder.mkdir(parents=True)
    (folder / "key").write_text("from-a-file-1\nsecond-line-2\n")
    (rml_home / "token").write_text("home-token-value\n")
    (rml_home / "credentials.json").write_text(json.dumps({"x": {"token": "rt.0123456789abcdef"}}))
    environment = {
        "DB_PASSWORD": "from-env-1",
        "PLAIN": "visible-value",
        "ODD": "asked-for-value",
        "HF_TOKEN": "hf-value-1",
    }
    found = known_secrets(["ODD"], environment=environment, home=rml_home)
    assert {"from-env-1", "asked-for-value", "hf-value-1", "home-token-value", "rt.0123456789abcdef"} <= found
    assert "visible-value" not in found
    masked = Mask(found)("a from-a-file-1 b\nsecond-line-2 c visible-value")
    assert masked == f"a {STARS} b\n{STARS} c visible-value"
