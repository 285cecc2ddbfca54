"""One HTTP exchange with an S3 server, and its refusals in words: what is wrong, and which variable to set.

S3 answers with a code of its own in an XML body; the same status 403 may mean a wrong secret, a wrong clock or a missing
right. Telling them apart is most of the work of setting a store up, so it is done here once.
"""

from __future__ import annotations

import functools
import html
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import IO, Any
from urllib.parse import urlsplit

from ._s3 import ObjectMissing, S3Error

__all__ = ["CUT", "exchange", "explain", "field_of"]

# The connection broke in the middle: worth another attempt, unlike one that could not be made.
CUT = "ConnectionCut"

_HINTS = {
    "InvalidAccessKeyId": "the server does not know AWS_ACCESS_KEY_ID",
    "XAdminUserNotFound": "the server does not know AWS_ACCESS_KEY_ID",  # versitygw's word
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the secret of AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the temporary credentials have expired: fetch new ones",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to AWS_ACCESS_KEY_ID: set it anew, or unset it",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "NoSuchBucket": "create the bucket, or correct RML_STORE (and AWS_ENDPOINT_URL, if it is on a server of your own)",
    "AccessDenied": "the key may not do this: it needs GetObject, PutObject, DeleteObject and ListBucket",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION to it",
    "XAmzContentSHA256Mismatch": "the bytes changed while they were sent: store them again",
}


class _Stay(urllib.request.HTTPRedirectHandler):
    """A signed request is good for one address only: a redirection is an answer to be explained."""

    def redirect_request(self, *_: Any) -> None:
        return None


@functools.cache
def _opener(authorities: str) -> urllib.request.OpenerDirector:
    trusted = ssl.create_default_context(cafile=authorities or None)
    return urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=trusted))


def exchange(method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None, seconds: float) -> Any:
    """Send one request; the open answer. Every failure is an S3Error that teaches."""
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)  # noqa: S310
    if body is not None:
        request.add_unredirected_header("Content-Type", "application/octet-stream")
    try:
        return _opener(os.environ.get("AWS_CA_BUNDLE") or "").open(request, timeout=seconds)
    except urllib.error.HTTPError as error:
        raise explain(method, url, error.code, dict(error.headers.items()), error.read()) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        cut = isinstance(reason, ConnectionResetError | BrokenPipeError | http.client.HTTPException)
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        hint = "is AWS_ENDPOINT_URL right, and reachable from here (in a pod: from the pod)?"
        if isinstance(reason, ssl.SSLError):
            hint = "is it https, and are its certificate authorities in AWS_CA_BUNDLE?"
        elif not os.environ.get("AWS_ENDPOINT_URL"):
            hint = "AWS_ENDPOINT_URL is not set, so AWS itself was asked; set it for a server of your own"
        raise S3Error(f"the object store at {where} cannot be reached: {reason}. {hint}", CUT if cut else "") from None


def explain(method: str, url: str, status: int, headers: Mapping[str, str], body: bytes) -> S3Error:
    """What a refusal means. A HEAD has no body: then the status must do."""
    code, message = field_of(body, "Code"), field_of(body, "Message")
    place = urlsplit(url).path
    if status == 404 and code in ("", "NoSuchKey"):
        return ObjectMissing(f"there is no object {place}", code, status)
    if not code:
        code = {301: "PermanentRedirect", 403: "AccessDenied"}.get(status, "")
    hint = _HINTS.get(code, "")
    named = {k.lower(): v for k, v in headers.items()}
    if code == "RequestTimeTooSkewed" and named.get("date"):
        away = time() - parsedate_to_datetime(named["date"]).timestamp()
        hint += f": it is {abs(away):.0f} s {'ahead' if away > 0 else 'behind'}"
    if wanted := named.get("x-amz-bucket-region") or field_of(body, "Region"):
        hint += f" ({wanted})"
    said = f"{code}: {message}" if code and message else code or message or f"HTTP {status}"
    return S3Error(f"{method} {place}: {said} (HTTP {status}){f'. {hint}' if hint else ''}", code, status)


def field_of(text: bytes, name: str) -> str:
    """The text of an XML element of S3's flat answers; empty where there is none."""
    found = re.search(rf"<{name}>(.*?)</{name}>".encode(), text, re.DOTALL)
    return html.unescape(found[1].decode(errors="replace")) if found else ""
