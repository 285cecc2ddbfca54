"""Signature Version 4 against AWS's own worked examples and against botocore; refusals in words; the first program of a step.

The examples are those of "Authenticating Requests: Using the Authorization Header" (Amazon S3 API Reference), with the
published access key and secret of the documentation.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roblox_ml import _s3
from roblox_ml._runtime.stage0 import command
from roblox_ml._s3 import EMPTY, Credentials, S3Error, parse, sign
from roblox_ml._s3_errors import explain

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DAY = calendar.timegm((2013, 5, 24, 0, 0, 0))
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "payload", "signature"),
    [
        ("GET", f"{HOST}/test.txt", {"Range": "bytes=0-9"}, EMPTY, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        (
            "PUT", f"{HOST}/test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", f"{HOST}/?lifecycle", {}, EMPTY, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", f"{HOST}/?max-keys=2&prefix=J", {}, EMPTY, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)  # fmt: skip
def test_the_documentations_examples(
    method: str, url: str, headers: dict[str, str], payload: str, signature: str
) -> None:
    told = sign(method, url, headers, payload, EXAMPLE, region="us-east-1", at=DAY)
    assert told["authorization"].endswith(f"Signature={signature}")


def botocores(
    method: str, url: str, headers: dict[str, str], payload: str, keys: Credentials, region: str, at: float
) -> str:
    """What botocore's own signer writes for the same request."""
    request = botocore.awsrequest.AWSRequest(method, url, headers=headers)
    request.headers["X-Amz-Content-SHA256"] = payload
    signer = botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(keys.key, keys.secret, keys.token or None), "s3", region
    )
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    if keys.token:
        request.headers["X-Amz-Security-Token"] = keys.token
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


@pytest.mark.parametrize(
    "query", ["0=0&00=0", "00=0&0=0", "max-keys=2&max=1", "a=2&a=1", "a-b=1&a=2&a.=3", "prefix=a=b&prefix", "a=&a-=&b"]
)
def test_a_query_is_sorted_by_name_and_then_by_value(query: str) -> None:
    url, keys = f"http://10.1.2.3:9000/bucket?{query}", Credentials("AKID", "sec/ret+")
    told = sign("GET", url, {}, EMPTY, keys, region="us-east-1", at=DAY)["authorization"]
    assert told.partition("Signature=")[2] == botocores("GET", url, {}, EMPTY, keys, "us-east-1", DAY)


word = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_.~", min_size=1, max_size=12)


@given(
    st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"]),
    st.lists(word, min_size=1, max_size=4),
    st.dictionaries(word, word, max_size=3),
    st.dictionaries(word.map(lambda name: f"x-amz-meta-{name.strip('.~')}x"), st.text("ab  c/=+", max_size=9), max_size=2),
    st.binary(max_size=8),
    st.one_of(st.just(""), st.text("abc/+=", min_size=1, max_size=30)),
    st.integers(0, 2**32),
    st.sampled_from(["us-east-1", "eu-central-1"]),
)  # fmt: skip
def test_botocore_signs_the_same(
    method: str,
    path: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
    token: str,
    at: int,
    region: str,
) -> None:
    keys = Credentials("AKID", "sec/ret+", token)
    url = f"http://10.1.2.3:9000/{'/'.join(path)}"
    if query:
        url += "?" + "&".join(f"{name}={value}" for name, value in query.items())
    payload = hashlib.sha256(body).hexdigest()
    told = sign(method, url, headers, payload, keys, region=region, at=at)
    assert told["authorization"].partition("Signature=")[2] == botocores(
        method, url, headers, payload, keys, region, at
    )


def test_the_secret_half_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXAMPLE.secret not in repr(EXAMPLE) and "token" not in repr(EXAMPLE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(S3Error, match="AWS_SECRET_ACCESS_KEY is not set"):
        Credentials.of_environment()


@pytest.mark.parametrize(("url", "place"), [("s3://models", ("models", "")), ("s3://models/a/b/", ("models", "a/b"))])
def test_addresses(url: str, place: tuple[str, str]) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    "url", ["s3://", "s3://A", "s3://models/a b", "s3://models/a?b", "s3://../x", "s3://key:pw@models/x"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(S3Error, match="s3://bucket/prefix is expected"):
        parse(url)


def refused(code: str, status: int, headers: dict[str, str] | None = None, extra: str = "") -> str:
    body = f"<Error><Code>{code}</Code><Message>because</Message>{extra}</Error>".encode() if code else b""
    return str(explain("GET", "https://s3.example/b/k?x=1", status, headers or {}, body))


def test_refusals_say_what_to_set() -> None:
    assert "AWS_SECRET_ACCESS_KEY is not the secret" in refused("SignatureDoesNotMatch", 403)
    assert "does not know AWS_ACCESS_KEY_ID" in refused("InvalidAccessKeyId", 403)
    assert "create the bucket" in refused("NoSuchBucket", 404)
    assert "AWS_REGION" in refused("", 301) and "(eu-west-1)" in refused("", 301, {"X-Amz-Bucket-Region": "eu-west-1"})
    assert "(eu-west-3)" in refused("AuthorizationHeaderMalformed", 400, extra="<Region>eu-west-3</Region>")
    assert "ListBucket" in refused("", 403)
    late = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 7200))
    assert "clock of this machine is wrong: it is 7" in (said := refused("RequestTimeTooSkewed", 403, {"Date": late}))
    assert "s behind" in said
    assert isinstance(explain("GET", "https://s3.example/b/k", 404, {}, b""), _s3.ObjectMissing)


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers as told; remembers what was asked."""

    def _any(self) -> None:
        server: Any = self.server
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append((self.command, self.path, headers, self.rfile.read(length)))
        status, headers, body = server.answers.pop(0) if server.answers else (200, {}, b"")
        if status == 0:
            self.connection.close()  # in the middle of an exchange
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    running: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    running.asked, running.answers = [], []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    for name in ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_DEFAULT_REGION", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr(_s3.time, "sleep", lambda seconds: None)
    yield running
    running.shutdown()
    running.server_close()


def test_an_overloaded_server_is_asked_again_and_the_body_is_sent_whole(server: Any, tmp_path: Path) -> None:
    server.answers = [(503, {}, b"<Error><Code>SlowDown</Code></Error>"), (500, {}, b""), (200, {}, b"")]
    (tmp_path / "f").write_bytes(b"abcdef")
    with (tmp_path / "f").open("rb") as body:
        assert _s3.Bucket("models", "p").put("k", body, 6, hashlib.sha256(b"abcdef").hexdigest(), absent=True)
    assert [(method, path, data) for method, path, _, data in server.asked] == [("PUT", "/models/p/k", b"abcdef")] * 3
    assert server.asked[0][2]["if-none-match"] == "*"


def test_it_gives_up_and_says_what_the_server_said(server: Any) -> None:
    server.answers = [(503, {}, b"<Error><Code>SlowDown</Code><Message>reduce your rate</Message></Error>")] * 9
    with pytest.raises(S3Error, match="SlowDown: reduce your rate"):
        _s3.Bucket("models").get("k")
    assert len(server.asked) == 5


def test_a_server_older_than_conditional_writes_is_written_to_all_the_same(server: Any) -> None:
    server.answers = [(501, {}, b"<Error><Code>NotImplemented</Code></Error>"), (200, {}, b"")]
    assert _s3.Bucket("models").put("k", b"x", 1, hashlib.sha256(b"x").hexdigest(), absent=True)
    assert "if-none-match" not in server.asked[1][2]


def test_a_failed_part_gives_the_room_back(server: Any, tmp_path: Path) -> None:
    opened = b"<R><UploadId>a b&amp;c</UploadId></R>"
    server.answers = [
        (200, {}, opened),
        (200, {"ETag": '"1"'}, b""),
        (403, {}, b"<Error><Code>AccessDenied</Code></Error>"),
    ]
    (tmp_path / "f").write_bytes(b"abcdef")
    with (tmp_path / "f").open("rb") as body, pytest.raises(S3Error, match="AccessDenied"):
        _s3.Bucket("models").put_parts("k", body, 3, "0" * 64)
    assert server.asked[-1][:2] == ("DELETE", "/models/k?uploadId=a%20b%26c")


def test_a_redirection_is_not_followed_with_our_signature(server: Any) -> None:
    server.answers = [(301, {"Location": "http://127.0.0.1:1/x", "x-amz-bucket-region": "eu-west-1"}, b"")]
    with pytest.raises(S3Error, match=r"AWS_REGION to it \(eu-west-1\)"):
        _s3.Bucket("models").get("k")


def test_a_listing_of_several_pages(server: Any) -> None:
    def page(key: str, more: str = "") -> bytes:
        token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
        entry = f"<Contents><Key>p/{key}</Key><Size>3</Size></Contents>"
        return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{entry}{token}</ListBucketResult>'.encode()

    server.answers = [(200, {}, page("a", "x/=")), (200, {}, page("b"))]
    assert list(_s3.Bucket("models", "p").listed()) == [("a", 3), ("b", 3)]
    assert server.asked[1][1] == "/models?continuation-token=x%2F%3D&list-type=2&prefix=p%2F"


@pytest.mark.parametrize("token", ["", "tok/en+="])
def test_the_first_program_of_a_step_signs_as_botocore_does(server: Any, tmp_path: Path, token: str) -> None:
    import os

    sdk = "0" * 64
    environment = {
        **os.environ,
        "RML_STORE": "s3://models/deep/rml",
        "RML_HOME": str(tmp_path),
        "AWS_SESSION_TOKEN": token,
    }
    done = subprocess.run(
        [sys.executable, *command()[1:], "--sdk", sdk], env=environment, capture_output=True, text=True, timeout=60
    )
    (method, path, headers, _) = server.asked[0]
    headers = {name.lower(): value for name, value in headers.items()}
    assert (method, path) == ("GET", f"/models/deep/rml/sha256/00/{sdk}")
    assert headers.get("x-amz-security-token", "") == token
    at = calendar.timegm(time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
    keys = Credentials("AKID", "hush-hush", token)
    url = f"http://{headers['host']}{path}"
    wanted = botocores("GET", url, {}, headers["x-amz-content-sha256"], keys, "eu-central-1", at)
    assert headers["authorization"].endswith(f"Signature={wanted}")
    # The server gave other bytes: one line, without a secret.
    assert (
        done.returncode == 1 and done.stderr == f"roblox_ml: no SDK {sdk} in RML_STORE=s3://models/deep/rml: damaged\n"
    )
