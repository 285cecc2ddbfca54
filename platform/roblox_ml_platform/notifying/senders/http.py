"""One POST with a deadline for all of it, no redirects, and an answer of which only the beginning is read.

Redirects are not followed because they would carry a signed body, or a token, to somebody else.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Answer", "Unreachable", "forbidden", "post"]

_READ = 8192


class Unreachable(Exception):
    """No answer: nobody listens, the name is unknown, the time is up, the certificate is wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    retry_after: str | None


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float, ca_file: str = "") -> Answer:
    """POST bytes; the answer, or `Unreachable`. The reason never holds the address: it may be a secret."""
    import httpx

    ends = time.monotonic() + timeout
    verify: ssl.SSLContext | bool = url.startswith("https:")
    if verify and ca_file:
        verify = ssl.create_default_context(cafile=ca_file)
    try:
        with (
            httpx.Client(verify=verify, timeout=timeout, follow_redirects=False, trust_env=True) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            data = b""
            for chunk in answer.iter_raw():
                data += chunk
                if len(data) >= _READ or time.monotonic() > ends:
                    break
            return Answer(
                answer.status_code, data[:_READ].decode("utf-8", "replace"), answer.headers.get("retry-after")
            )
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise Unreachable(f"{type(error).__name__}: {_why(error)}") from None


def forbidden(host: str) -> str:
    """Why a host that a pipeline names is not spoken to; empty when it may be: addresses that hand out a machine's keys."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return ""  # the attempt will say that the name is unknown
    for text in found:
        address = ipaddress.ip_address(str(text).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified:
            return f"{host} is {text}, which is not an address for webhooks"
    return ""


def _why(error: Exception) -> str:
    """The error's own words without an address in them."""
    text = str(error)
    return "the time is up" if not text else text.split("http", 1)[0].strip()[:200] or "no answer"
